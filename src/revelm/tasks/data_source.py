"""Where the problems of a named benchmark are: in a file, on the hub, or in the sample that comes with the package."""

from importlib.resources import files

SAMPLE = "sample"


def sample_file(task: str) -> str:
    """The path of the self-written problems of ``task``, in the format of its public data."""
    return str(files("revelm.tasks") / "samples" / f"{task}.jsonl")


def problem_source(data: str | None, *, hub: str, task: str) -> str:
    """The file or data set that ``data`` means: None is the one on the ``hub``, "sample" the sample of ``task``."""
    if data == SAMPLE:
        return sample_file(task)
    return hub if data is None else data
