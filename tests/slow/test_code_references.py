"""Reference programs of public data sets against their own tests, and the same programs made wrong."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.against_plain import compared, disagreements
from benchmarks.rewards_code import DATA, KNOWN, WEAK, data_set, items_of, judged
from revelm.rollout.workers import ScorePool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("sandbox"),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no public data in {DATA}"),
]
# Of which problems the references run, and of which the mutants: every n-th.
STEPS = {
    "humaneval": (1, 1),
    "humaneval_plus": (1, 20),
    "mbpp": (1, 10),
    "mbpp_sanitized": (1, 20),
    "mbpp_plus": (4, 30),
    "leetcode": (1, 5),
    "apps": (1, 5),
    "stdio": (1, 1),
}
# Each takes as long as dozens of others, for its huge results; `benchmarks.rewards_code` runs them.
LONG = (
    "Plus-OriginFmt:HumanEval/15",
    "Plus-OriginFmt:HumanEval/130",
    "Plus-OriginFmt:HumanEval/139",
    "mbpp:123",
    "Plus-OriginFmt:599",
)


@pytest.fixture(scope="module")
def pool() -> Iterator[ScorePool]:
    """One pool for all."""
    with ScorePool() as found:
        yield found


@pytest.mark.parametrize("name", STEPS)
def test_references_pass(pool: ScorePool, name: str) -> None:
    """Catches tests that no program can pass here: names they do not see, values that do not cross over, limits."""
    task, references = data_set(name, DATA)
    task = replace(task, limits=replace(task.limits, total_seconds=900.0))  # by the clock, whatever else is going on
    items = [item for item in items_of(references[:: STEPS[name][0]], kinds=()) if not item.name.endswith(LONG)]
    assert len(items) >= 3
    scores = judged(pool, task, items)
    failed = {item.name: score.reason for item, score in zip(items, scores, strict=True) if score.value < 1.0}
    assert {name: why for name, why in failed.items() if not name.endswith(tuple(KNOWN))} == {}


@pytest.mark.parametrize("name", STEPS)
def test_emptied_and_changed_references_fail(pool: ScorePool, name: str) -> None:
    """Catches a verdict that is right whatever the program returns."""
    task, references = data_set(name, DATA)
    items = items_of(references[:: STEPS[name][1]], kinds=("empty", "value"))
    wrong = [item for item in items if item.kind != "reference"]
    passed = [(i.name, i.kind) for i, s in zip(wrong, judged(pool, task, wrong), strict=True) if s.value > 0.0]
    assert [found for found in passed if not found[0].endswith(tuple(WEAK))] == []


@pytest.mark.parametrize("name", ["humaneval", "apps"])
def test_verdicts_are_those_of_a_plain_harness(pool: ScorePool, name: str) -> None:
    """Catches right programs that fail, and wrong ones that pass, because tests and program are in two processes."""
    pairs = compared(name, DATA, pool, every=1, first=1)
    assert len(pairs) >= 30
    assert disagreements(pairs) == []
