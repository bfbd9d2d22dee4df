"""What a program may use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one program.

    ``seconds``: CPU time of one test, from its start (interpreter and imports are not counted). ``wall_factor``: times
    as much wall clock time, against programs that sleep. ``total_seconds``: wall clock time of all tests of a program.
    ``memory_mb``: address space of each process and memory of all together; ``processes``: processes and threads at
    once; ``file_mb``: files it writes; ``output_mb``: what it prints; ``open_files``: descriptors.
    ``stops_early``: the tests behind the first failed one are not run.
    """

    seconds: float = 6.0
    wall_factor: float = 10.0
    total_seconds: float = 120.0
    memory_mb: int = 1024
    processes: int = 16
    file_mb: int = 32
    output_mb: int = 32
    open_files: int = 64
    stops_early: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that nothing could keep."""
        for name, value in vars(self).items():
            if name != "stops_early" and not value > 0:
                raise ValueError(f"limits.{name}={value}: expected more than 0")
        if self.wall_factor < 1:
            raise ValueError(f"limits.wall_factor={self.wall_factor}: expected at least 1")
