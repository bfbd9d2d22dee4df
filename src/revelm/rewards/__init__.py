"""Whether an answer is right: pure verdict functions of text, no torch."""
