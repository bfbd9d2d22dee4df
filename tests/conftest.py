"""What holds for every test: one thread per process, and property tests that judge results, never the clock."""

import os

import hypothesis

# Before anything imports torch; `make test` sets the same, a bare `pytest` gets it here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

hypothesis.settings.register_profile("revelm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("revelm")
