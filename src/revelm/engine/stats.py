"""What an engine has done: counts, and where the time went."""

from dataclasses import dataclass


@dataclass
class EngineStats:
    """What an engine has done since it was made: counts, and seconds by part."""

    forwards: int = 0
    commit_forwards: int = 0
    rows: int = 0
    tokens: int = 0
    seconds_body: float = 0.0
    seconds_head: float = 0.0
    seconds_sampler: float = 0.0
    seconds_total: float = 0.0

    def count_forward(self, rows: int, seconds: float) -> None:
        """One run of the model's body over ``rows`` rows."""
        self.forwards += 1
        self.rows += rows
        self.seconds_body += seconds
