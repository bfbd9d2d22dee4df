"""An oracle for verdicts on code: a program and the tests its benchmark publishes, run together in one fresh process.

That is what the official harnesses of HumanEval, MBPP, EvalPlus and APPS do. Rows are read from the public files as
they are, without `revelm.tasks`, so that a fault in how tests are read or in how they are kept apart from the program
shows as a disagreement. Nothing here is safe against programs that mean harm.
"""

import gzip
import json
import math
import os
import resource
import select
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy  # noqa: F401 - so that forks have it

PASSED = "passed"
_ENDED = 77  # the exit status of a script that came to its end
_MEMORY = 8 * 2**30
FILES = {
    "humaneval": "humaneval/HumanEval.jsonl.gz",
    "humaneval_plus": "humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz",
    "mbpp": "mbpp/mbpp.jsonl",
    "mbpp_sanitized": "mbpp/mbpp_sanitized.jsonl",
    "mbpp_plus": "mbppplus/MbppPlus-OriginFmt.jsonl.gz",
    "leetcode": "function_code/leetcode_test.json",
    "apps": "apps_sample/apps_train_5.jsonl",
    "stdio": "stdio_code/code_contests_test.json",
}
# What APPS puts in front of every program.
_APPS = """import sys, time, itertools, collections, math, fractions, random, heapq
from itertools import accumulate, product, permutations, combinations
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
from typing import List, Tuple
import numpy as np
from heapq import *
"""
# What LiveCodeBench, and after it rllm, puts in front.
_CONTEST = "".join(
    f"from {name} import *\nimport {name}\n"
    for name in (
        *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
        *("itertools", "functools", "operator", "io", "sys", "json", "typing"),
    )
)
_CALL = """
def _as_list(value):
    return list(value) if isinstance(value, tuple) else value

_owner = Solution() if {is_method} else None
for _given, _wanted in zip({inputs!r}, {outputs!r}):
    _got = _as_list(getattr(_owner, {name!r})(*_given) if _owner else {name}(*_given))
    _options = [_wanted, *(_wanted[:1] if isinstance(_wanted, list) else [])]
    _nested = isinstance(_got, list) and _got and isinstance(_got[0], tuple)
    assert any(_got == one or (_nested and [list(x) for x in _got] == one) for one in _options), (_got, _wanted)
"""


@dataclass(frozen=True)
class Run:
    """A script, what it reads, and what it should print (None: it only has to come to its end)."""

    script: str
    stdin: str = ""
    expected: str | None = None


def rows_of(name: str, folder: Path) -> dict[str, Mapping[str, Any]]:
    """The rows of a public file, by the last part of the name that our tasks give the problem."""
    path = folder / FILES[name]
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    keys = (row.get("task_id", row.get("problem_id", number)) for number, row in enumerate(rows, start=1))
    return {str(key): row for key, row in zip(keys, rows, strict=True)}


def official_runs(name: str, row: Mapping[str, Any], program: str) -> list[Run]:
    """What the benchmark's own harness would run; all have to pass."""
    if name.startswith("humaneval"):
        return [Run(f"{program}\n{row['test']}\ncheck({row['entry_point']})\n")]
    if name == "mbpp_plus":
        return [Run(f"{program}\n{row['test']}\n")]
    if name.startswith("mbpp"):
        imports = "\n".join(row.get("test_imports", ()))
        asserts = "\n".join(row["test_list"])
        return [Run("\n".join([imports, program, row.get("test_setup_code") or "", asserts, ""]))]
    tests = row.get("tests") or row["input_output"]
    if "functional" in tests:
        return [Run(f"{_CONTEST}{program}\n{tests['functional']}\n")]
    if "fn_name" in tests:
        values = {key: tests[key] for key in ("inputs", "outputs")}
        calls = _CALL.format(is_method="class Solution" in program, name=tests["fn_name"], **values)
        return [Run(f"{_APPS}{program}\n{calls}")]
    script = _APPS + _in_a_function(program) if name == "apps" else program
    return [Run(script, given, wanted) for given, wanted in zip(tests["inputs"], tests["outputs"], strict=True)]


def _in_a_function(program: str) -> str:
    """A script in a function, as APPS runs every one; here only where it says ``return`` outside of any."""
    try:
        compile(program, "main.py", "exec")
    except SyntaxError as error:
        if "outside function" in str(error):
            lines = "\n".join(f"    {line}" for line in program.split("\n"))
            return f"def _script():\n{lines}\n_script()\n"
    return program


def verdicts(work: Sequence[Sequence[Run]], *, seconds: float, workers: int = 2) -> list[str]:
    """``PASSED`` or why not, for the runs of each program. ``seconds``: CPU time of one run."""
    with get_context("fork").Pool(workers) as pool:
        return pool.map(_verdict, [(runs, seconds) for runs in work], chunksize=1)


def _verdict(work: tuple[Sequence[Run], float]) -> str:
    runs, seconds = work
    return next((why for one in runs if (why := _run(one, seconds)) != PASSED), PASSED)


def _run(one: Run, seconds: float) -> str:
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.pwrite(streams[0], one.stdin.encode("utf-8", "surrogatepass"), 0)
    pid = os.fork()
    if pid == 0:
        _child(one, streams, seconds)
    handle = os.pidfd_open(pid)
    is_late = not select.select([handle], [], [], seconds * 5)[0]
    if is_late:
        os.kill(pid, signal.SIGKILL)
    _, status, _ = os.wait4(pid, 0)
    printed, said = (os.pread(stream, os.fstat(stream).st_size, 0).decode("utf-8", "replace") for stream in streams[1:])
    for descriptor in (handle, *streams):
        os.close(descriptor)
    if is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return "timed out"
    code = os.waitstatus_to_exitcode(status)
    if code != _ENDED and not (one.expected is not None and code == 0):
        return f"exit {code}: {said.strip().rpartition(chr(10))[2][:200]}"
    if one.expected is None or _prints(printed, one.expected):
        return PASSED
    return f"printed {printed[:60]!r} instead of {one.expected[:60]!r}"


def _child(one: Run, streams: Sequence[int], seconds: float) -> None:
    """Run the script as ``__main__`` where it reads and prints, else as a module, and leave."""
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        import atexit
        import multiprocessing
        import sys
        import warnings

        warnings.simplefilter("ignore")
        atexit._clear()
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # as of a fresh one
        sys.stdin, sys.stdout, sys.stderr = (open(i, mode, closefd=False) for i, mode in enumerate("rww"))  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        try:
            module = ModuleType("plain" if one.expected is None else "__main__")
            sys.modules[module.__name__] = module
            exec(compile(one.script, "main.py", "exec"), vars(module))
            status = _ENDED
        except SystemExit as stop:
            status = 0 if one.expected is not None else 1
            sys.stderr.write(f"SystemExit: {stop}\n")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the program has failed
            sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}\n")
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _prints(printed: str, expected: str) -> bool:
    """Lines are the same, blanks around them aside, as far as APPS and LiveCodeBench agree."""
    found, wanted = ([line.strip() for line in text.strip().split("\n")] for text in (printed, expected))
    return found == wanted
