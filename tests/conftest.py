"""What holds for every test: one thread per process, and property tests that judge results, never the clock."""

import gc
import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tests.processes import Processes

# Before anything imports torch; `make test` sets the same, a bare `pytest` gets it here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

hypothesis.settings.register_profile(
    "revelm", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("revelm")

LONGEST_ID = 60
"""Characters of a text that names its case by itself."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes and long texts are numbered: what they hold may differ from one process to the next (a time, a path), and
    two workers that name a case differently run no test at all."""
    return argname if isinstance(val, bytes) or (isinstance(val, str) and len(val) > LONGEST_ID) else None


def pytest_collection_finish() -> None:
    """What is there before the first test stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, whichever tests its process has run before."""
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)


@pytest.fixture(scope="session")
def pair() -> Iterator[Processes]:
    """Two processes that are one world: to start them takes seconds, so every test of two has the same ones."""
    with Processes(2) as processes:
        yield processes
