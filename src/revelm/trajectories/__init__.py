"""What happened, token by token, and how to rebuild exactly what the model saw. numpy only."""
