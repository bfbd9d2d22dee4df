"""How a clean sequence is hidden, and with what weight. Nothing here knows models or samples."""
