"""All hostile programs in one sandbox of a given isolation, as whoever runs this; prints what came of them as JSON.

python -m tests.sandbox_audit namespaces|weak|both [newest version of Landlock] [aimed: only those at a victim]

By isolation; both are at work at once, for most of it is waiting.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from revelm.core.types import Score
from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.landlock import LATEST
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import LocalSandbox
from tests.hostile_aims import FILTERED, HARMERS, READERS
from tests.hostile_programs import FUNCTIONS, HARMFUL, INPUTS, OUTPUTS, SCRIPTS, STATEMENTS
from tests.sandbox_traces import descendants
from tests.sandbox_victim import Victim

LIMITS = Limits(
    seconds=0.5, wall_factor=1.2, total_seconds=8, memory_mb=256, processes=8, file_mb=8, output_mb=8, stops_early=True
)
SQUARE = CodeTests("function", statements=STATEMENTS, names=("f",))
SCRIPT = CodeTests("stdio", inputs=INPUTS, outputs=OUTPUTS)
COUNT = """
import os, time
n = 0
while n < 100:
    try:
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        n += 1
    except OSError:
        break
time.sleep(0.3)
print(n)
"""


def audit(isolation: str, landlock: int, *, is_aimed: bool = False) -> dict[str, object]:
    """``scored``, ``broken``, ``harmed``: names of programs; ``forks``: whether 7 processes and no more are had."""
    sandbox = LocalSandbox(isolation=isolation, landlock=landlock)  # type: ignore[arg-type]
    victim = Victim()
    programs = [(name, code, SQUARE) for name, code in ({} if is_aimed else FUNCTIONS).items()]
    programs += [(name, code, SCRIPT) for name, code in ({} if is_aimed else SCRIPTS).items()]
    programs += [(name, code, SQUARE) for name, code in READERS.items()]
    programs += [(name, code, SCRIPT) for name, code in HARMERS.items()]
    if isolation == "weak" and not sandbox.landlock:
        aimed = {*READERS, *HARMERS} - {*FILTERED}
        programs = [program for program in programs if program[0] not in {*HARMFUL, *aimed}]
    scores: dict[str, Score] = {}
    harmed: dict[str, list[str]] = {}
    for name, code, tests in programs:
        scores[name] = score_code(victim.aim(code), tests, limits=LIMITS, executor=sandbox)
        harm = [*victim.harm(), *_left(sandbox)]
        if harm:
            harmed[name] = harm
            victim.close()
            victim = Victim()
    right = score_code("def f(x): return x * x", SQUARE, limits=LIMITS, executor=sandbox)
    forks = score_code(COUNT, CodeTests("stdio", inputs=("",), outputs=("7",)), limits=LIMITS, executor=sandbox)
    left = descendants(sandbox.server_pid)
    sandbox.close()
    victim.close()
    return {
        "uid": os.getuid(),
        "landlock": sandbox.landlock,
        "programs": len(scores),
        "scored": [name for name, score in scores.items() if score.value or score.breakdown["correct"]],
        "broken": [name for name, score in scores.items() if "error" in score.breakdown],
        "harmed": harmed,
        "right": right.value,
        "forks": forks.reason,
        "left": left,
        "folders": [sandbox.folder] if sandbox.folder and Path(sandbox.folder).exists() else [],
    }


def _left(sandbox: LocalSandbox) -> list[str]:
    """What a program has left in the folder of its sandbox."""
    return [str(path) for path in Path(sandbox.folder).iterdir()] if sandbox.folder else []


if __name__ == "__main__":
    most = int(sys.argv[2]) if len(sys.argv) > 2 else LATEST
    wanted = ["namespaces", "weak"] if sys.argv[1] == "both" else [sys.argv[1]]
    with ThreadPoolExecutor() as pool:
        done = pool.map(partial(audit, landlock=most, is_aimed="aimed" in sys.argv), wanted)
        print(json.dumps(dict(zip(wanted, done, strict=True))))
