"""All hostile programs in one sandbox of a given isolation, as whoever runs this; prints what came of them as JSON.

python -m tests.sandbox_audit namespaces|weak
"""

import json
import os
import sys

from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import LocalSandbox
from tests.hostile_programs import FUNCTIONS, HARMFUL, INPUTS, OUTPUTS, SCRIPTS, STATEMENTS
from tests.sandbox_traces import descendants

LIMITS = Limits(
    seconds=0.5, wall_factor=1.5, total_seconds=8, memory_mb=256, processes=8, file_mb=8, output_mb=8, stops_early=True
)
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
print(n)
"""


def audit(isolation: str) -> dict[str, object]:
    """``scored``, ``broken``: names of programs; ``forks``: whether 7 processes and no more could be started."""
    sandbox = LocalSandbox(isolation=isolation)  # type: ignore[arg-type]
    square = CodeTests("function", statements=STATEMENTS, names=("f",))
    script = CodeTests("stdio", inputs=INPUTS, outputs=OUTPUTS)
    programs = [(name, code, square) for name, code in FUNCTIONS.items()]
    programs += [(name, code, script) for name, code in SCRIPTS.items()]
    scores = {
        name: score_code(code, tests, limits=LIMITS, executor=sandbox)
        for name, code, tests in programs
        if isolation == "namespaces" or name not in HARMFUL
    }
    right = score_code("def f(x): return x * x", square, limits=LIMITS, executor=sandbox)
    forks = score_code(COUNT, CodeTests("stdio", inputs=("",), outputs=("7",)), limits=LIMITS, executor=sandbox)
    left = descendants(sandbox.server_pid)
    sandbox.close()
    return {
        "uid": os.getuid(),
        "programs": len(scores),
        "scored": [name for name, score in scores.items() if score.value or score.breakdown["correct"]],
        "broken": [name for name, score in scores.items() if "error" in score.breakdown],
        "right": right.value,
        "forks": forks.reason,
        "left": left,
    }


if __name__ == "__main__":
    print(json.dumps(audit(sys.argv[1])))
