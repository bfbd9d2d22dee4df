"""Answers that are judged while others are being made: in any order, whatever workers are busy with."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from revelm.core.types import Completion, Problem
from revelm.rollout.workers import ScorePool
from tests.guarded_tasks import Gated, Obedient
from tests.unit.test_score_pool_ends import PATIENCE, assert_gone, start


@pytest.fixture(scope="module")
def pool() -> Iterator[ScorePool]:
    """Two workers for all tests of this file."""
    with ScorePool(2, memory_mb=1024) as shared:
        yield shared


def said(text: str) -> Completion:
    """An answer."""
    return Completion(text, 1, 1, "stop")


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_arrival_gives_the_same_scores(pool: ScorePool, seed: int) -> None:
    """Catches scores that are lost, given twice, or given to another answer, as answers come one by one or together,
    equal ones before or after their verdict, and scores are asked for in between."""
    draw = random.Random(seed)
    problems = [Problem("same id", "", reference) for reference in ("x", "y", "x")]
    asked = [(draw.choice(problems), said(draw.choice(["x", "y", "z", "mapping"]))) for _ in range(40)]
    found = []
    with pool.judging(Obedient()) as judge:
        left = list(asked)
        while left:
            size = draw.choice([0, 1, 1, 2, 7])
            judge.add(left[:size])
            left = left[size:]
            if draw.random() < 0.1:
                found += judge.rest()
        found += judge.rest()
    assert sorted(place for place, _ in found) == list(range(40))
    told = {place: (score.value, score.reason) for place, score in found}
    here = [Obedient().score(*item) for item in asked]
    assert [told[place] for place in range(40)] == [(score.value, score.reason) for score in here]


def test_large_problems_do_not_wait_for_workers_that_get_ready(pool: ScorePool, tmp_path: Path) -> None:
    """Catches an engine that stands still while a worker loads its libraries, as no more goes into its channel."""
    large = Problem("p", "", "x", {"tests": os.urandom(3_000_000)})
    gate = tmp_path / "gate"
    with pool.judging(Gated(gate=str(gate))) as judge:
        judge.add([(large, said(text)) for text in ("x", "y", "x", "z")])
        judge.add([(large, said("w"))])
        gate.touch()
        found = dict(judge.rest())
    assert [found[place].value for place in range(5)] == [1.0, 0.0, 1.0, 0.0, 0.0]


def test_answers_that_wait_are_given_out_while_none_ends(pool: ScorePool, tmp_path: Path) -> None:
    """Catches workers that stand idle beside answers that wait, as long as the last answers are being decoded."""
    note, until = tmp_path / "note", time.monotonic() + PATIENCE
    pool.score(Obedient(), [(Problem(name, "", "x"), said("x")) for name in "ab"])
    with pool.judging(Obedient(60.0)) as judge:
        for text in ("spin 0.2", "spin 0.3", f"note {note}"):
            judge.add([(Problem("p", "", "x"), said(text))])
        while not note.exists() and time.monotonic() < until:
            judge.look()
            time.sleep(0.01)
        assert note.exists()
        assert [score.reason for _, score in sorted(judge.rest())] == ["spun", "spun", "noted"]


def test_verdicts_last_as_long_as_they_do(pool: ScorePool, tmp_path: Path) -> None:
    """Catches slow verdicts that pass for quick ones, as they are heard of together with their beginning, and are then
    given to one worker in heaps."""
    note = tmp_path / "note"
    pool.score(Obedient(), [(Problem("p", "", "x"), said("x"))])
    with pool.judging(Obedient()) as judge:
        judge.add([(Problem("p", "", "x"), said(f"log {note} 0.2"))])
        until = time.monotonic() + PATIENCE
        while not note.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.4)
        assert [score.reason for _, score in judge.rest()] == ["logged"]
        assert judge._work._mean_seconds > 0.06


def test_a_judge_ends_with_its_context(pool: ScorePool) -> None:
    """Catches answers that are given to workers beside those of another call, whose scores get mixed up."""
    with pool.judging(Obedient()) as judge:
        judge.add([(Problem("p", "", "x"), said("x"))])
    with pool.judging(Obedient()), pytest.raises(RuntimeError, match="the context of this judge has been left"):
        judge.add([(Problem("p", "", "x"), said("y"))])
    assert [score.value for score in pool.score(Obedient(), [(Problem("p", "", "x"), said("x"))])] == [1.0]


def test_a_second_interrupt_leaves_no_process(tmp_path: Path) -> None:
    """Catches what a verdict has started and runs on for ever, as the second Ctrl-C comes while it is being ended."""
    file = tmp_path / "pids"
    script = f"""
pool = ScorePool(1)
def again():
    while not worker.connection.closed:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=again)
try:
    with pool.judging(Obedient(900)) as judge:
        judge.add(items("child {file}"))
        (worker,) = pool._workers
        while not (os.path.exists({str(file)!r}) and " " in open({str(file)!r}).read()):
            time.sleep(0.01)
        thread.start()
    thread.join()
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
print(pool.score(Obedient(), items("x"))[0].value, flush=True)
time.sleep(600)
"""
    parent = start(script)
    try:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["interrupted\n", "1.0\n"]
        assert_gone([int(pid) for pid in file.read_text().split()])
    finally:
        parent.kill()
        assert parent.communicate(timeout=PATIENCE)[1] == ""


def test_a_fork_leaves_the_verdicts_of_its_parent_alone(tmp_path: Path) -> None:
    """Catches a forked process that takes part in its parent's call, or ends its workers on its way out."""
    note = tmp_path / "note"
    script = f"""
pool = ScorePool(1)
with pool.judging(Obedient(900)) as judge:
    judge.add(items("log {note} 2"))
    while not os.path.exists({str(note)!r}):
        time.sleep(0.01)
    if os.fork() == 0:
        try:
            judge.add([])
        except RuntimeError as error:
            print(error, flush=True)
        sys.exit()
    os.wait()
    print([score.reason for _, score in judge.rest()], flush=True)
"""
    told, errors = start(script).communicate(timeout=PATIENCE)
    belongs = "this pool belongs to the process that made it; after a fork use shared_pool()"
    assert told.splitlines() == [belongs, "['logged']"]
    assert errors == ""
    assert note.read_text() == "."
