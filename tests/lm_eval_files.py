"""Tiny data sets in the public formats of the harness's tasks."""

import json
from pathlib import Path

GSM8K = [
    {"question": "Ann has 2 eggs and buys 3. How many has she?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
    {"question": "A box holds 4 pens. How many do 2 boxes hold?", "answer": "2 * 4 = <<2*4=8>>8\n#### 8"},
    {"question": "Bo runs 7 km and walks 2. How far is that?", "answer": "7 + 2 = <<7+2=9>>9\n#### 9"},
]
HELLASWAG = [
    {
        "activity_label": "Washing dishes",
        "ctx_a": "A man stands at a sink.",
        "ctx_b": "he",
        "endings": ["rinses a plate.", "rides [x] it.", "sings.", "eats the sink."],
        "label": "0",
    },
    {
        "activity_label": "Riding",
        "ctx_a": "A girl has a bicycle.",
        "ctx_b": "she",
        "endings": ["folds it.", "pedals on.", "pours it.", "reads it."],
        "label": "1",
    },
]
HUMANEVAL = [
    {
        "task_id": "T/0",
        "prompt": 'def twice(x):\n    """Two times x."""\n',
        "entry_point": "twice",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
    },
    {
        "task_id": "T/1",
        "prompt": 'import math\n\n\ndef root(x):\n    """The square root of x."""\n',
        "entry_point": "root",
        "canonical_solution": "    return math.sqrt(x)\n",
        "test": "def check(candidate):\n    assert abs(candidate(2) - 1.414) < 0.01\n",
    },
]


def write_rows(path: Path, rows: list[dict]) -> str:
    """Write ``rows`` as JSON lines; the path as a string."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
