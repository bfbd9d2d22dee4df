"""What can go wrong with a run that was set up properly."""


class RunError(RuntimeError):
    """A run ended without doing what it is for; the message says why. Not a bug, and no setting is malformed."""
