"""Programs of unknown intent, run where they can do no harm."""
