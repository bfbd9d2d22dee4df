"""Numbers about a fixed model."""
