"""Worker processes that reach verdicts: what they say, in which order, and what stops them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from revelm.core.cores import cgroup_quota, usable_cores
from revelm.core.errors import RunError
from revelm.core.types import Completion, Problem, Score
from revelm.rollout.verdicts import verdicts
from revelm.rollout.workers import ScorePool, default_workers, shared_pool
from revelm.tasks.task import GuardedTask
from tests.guarded_tasks import Obedient, Warmed
from tests.toy_tasks import Parity


def items(*texts: str) -> list[tuple[Problem, Completion]]:
    """Answers to problems whose right answer is "x"."""
    return [(Problem(f"p{i}", "", "x"), Completion(text, 1, 1, "stop")) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def pool() -> Iterator[ScorePool]:
    """Two workers for all tests of this file."""
    with ScorePool(2, memory_mb=1024) as shared:
        yield shared


def test_scores_come_in_order_whoever_reaches_them(pool: ScorePool) -> None:
    """Catches a score that slips to a neighbour, one that a chunk loses, and verdicts that one worker reaches alone."""
    texts = [str(i) for i in range(400)] + ["spin 0.2", "x"] + [str(i) for i in range(400)]
    seen: list[int] = []
    found = pool.score(Obedient(), items(*texts), seen.append)
    assert [score.reason for score in found] == [f"said {t!r}" if t != "spin 0.2" else "spun" for t in texts]
    assert [score.value for score in found] == [float(t in ("x", "spin 0.2")) for t in texts]
    assert seen == list(range(1, len(texts) + 1))
    pids = {score.breakdown["pid"] for score in found if "pid" in score.breakdown}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert pool.score(Obedient(), []) == []


def test_equal_answers_are_judged_once(pool: ScorePool, tmp_path: Path) -> None:
    """Catches verdicts that are paid for again for each equal answer of a group, and ones shared by answers to other
    problems, or by answers that differ in anything."""
    (tmp_path / "note").touch()
    one, other = (Problem("p", "", "x") for _ in range(2))
    said = Completion(f"note {tmp_path / 'note'}", 1, 1, "stop")
    asked = [(one, said), (one, replace(said)), (other, said), (one, replace(said, num_forwards=2)), (one, said)]
    seen: list[int] = []
    found = pool.score(Obedient(), asked, seen.append)
    assert [score.reason for score in found] == ["noted"] * 5
    assert seen == [1, 2, 3, 4, 5]
    assert (tmp_path / "note").read_text() == "..."
    broken = pool.score(Obedient(), [(one, Completion("kill", 1, 1, "stop"))] * 3)
    assert [score.breakdown["error"] for score in broken] == [1.0] * 3


def test_answers_are_judged_while_others_are_made(pool: ScorePool, tmp_path: Path) -> None:
    """Catches workers that wait for the last answer, scores that are lost or given twice between two looks, and an
    equal answer that is judged again because it came later."""
    note, (first, second) = tmp_path / "note", items("x", "wrong")
    noted = (first[0], Completion(f"note {note}", 1, 1, "stop"))
    with pool.judging(Obedient()) as judge:
        judge.add([first, noted])
        until = time.monotonic() + 120
        while not note.exists() and time.monotonic() < until:
            judge.add([])
            time.sleep(0.01)
        assert note.exists()
        judge.add([second])
        found = list(judge.rest())
        judge.add([noted, first])
        found += judge.rest()
        assert list(judge.rest()) == []
    assert sorted(place for place, _ in found) == [0, 1, 2, 3, 4]
    reasons = {place: score.reason for place, score in found}
    assert reasons == {0: "said 'x'", 1: "noted", 2: "said 'wrong'", 3: "noted", 4: "said 'x'"}
    assert note.read_text() == "."


def test_verdicts_that_nobody_waits_for_are_ended(pool: ScorePool, tmp_path: Path) -> None:
    """Catches workers that go on with the answers of a generation that was given up, and hold up the next ones."""
    before = time.monotonic()
    with pool.judging(Obedient()) as judge:
        judge.add(items("sleep 300", "sleep 300", "x"))
    assert [score.value for score in pool.score(Obedient(), items("x"))] == [1.0]
    assert time.monotonic() - before < 200
    with pool.judging(Obedient()) as judge:
        judge.add([])
        assert list(judge.rest()) == []


def test_the_same_scores_as_in_this_process(pool: ScorePool) -> None:
    """Catches a score that is not the same on its way back: numbers of numpy, other mappings, text that is no UTF-8."""
    odd = items("numpy", "mapping", "spin 0", "\ud800")
    mine = [Obedient().score(*item) for item in odd]
    theirs = pool.score(Obedient(), odd)
    assert [(s.value, s.scope, s.reason) for s in theirs] == [(s.value, s.scope, s.reason) for s in mine]
    assert [dict(s.breakdown) | {"pid": 0} for s in theirs] == [dict(s.breakdown) | {"pid": 0} for s in mine]
    assert isinstance(mine[1].breakdown, MappingProxyType)


def test_w65_load_changes_no_verdict(pool: ScorePool) -> None:
    """W65: limits counted from submission, or by the wall clock, judge right answers wrong when there are many of them
    or others use the machine."""
    texts = ["spin 0.1", "x", "y"] * 8
    spinner = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spinner, start_new_session=True) for _ in range(4 * usable_cores())]
    try:
        began = time.monotonic()
        found = pool.score(Obedient(score_seconds=0.5), items(*texts))
        assert time.monotonic() - began > 0.6, "the machine is not under load"
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert [score.value for score in found] == [1.0, 1.0, 0.0] * 8


def test_time_that_is_up(pool: ScorePool) -> None:
    """Catches an endless verdict that is waited for, one that is an error, and one that takes others with it."""
    found = pool.score(Obedient(score_seconds=0.2), items("x", "spin 100", "x", "y"))
    assert found[1] == Score(0.0, {"correct": 0.0}, reason="timed out after 0.2 s of CPU")
    assert [score.value for score in found] == [1.0, 0.0, 1.0, 0.0]
    # It ends before anybody looks at the clock: the rule is the same.
    assert pool.score(Obedient(score_seconds=0.001), items("spin 0.005"))[0].reason.startswith("timed out")


def test_sleep_is_an_error_not_wrong(pool: ScorePool) -> None:
    """Catches a verdict that hangs for ever, and one that the wall clock decides."""
    found = pool.score(Obedient(score_seconds=0.2), items("sleep 100", "sleep 0.4", "x"))
    assert found[0] == Score(0.0, {"correct": 0.0, "error": 1.0}, reason="error: no verdict after 2 s")
    assert [score.value for score in found[1:]] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("deed", "how"),
    [
        ("exit 0", "exit code 0"),
        ("quit 5", "exit code 5"),
        ("segfault", "SIGSEGV"),
        ("kill", "SIGKILL"),
        ("memory", "out of memory"),
    ],
)
def test_a_verdict_that_ends_its_process(pool: ScorePool, deed: str, how: str) -> None:
    """Catches a crash that ends the run, hangs it, or costs the neighbours their verdicts."""
    found = pool.score(Obedient(), items("x", deed, "y", "x"))
    reason = f"error: the verdict ended its process, twice ({how})"
    assert found[1] == Score(0.0, {"correct": 0.0, "error": 1.0}, reason=reason)
    assert [score.value for score in found] == [1.0, 0.0, 0.0, 1.0]


def test_a_worker_that_others_kill(pool: ScorePool, tmp_path: Path) -> None:
    """Catches an answer that is called an error because its worker was killed for another's sake; and one killed while
    it had nothing to do, which must not be noticed at all."""
    found = pool.score(Obedient(), items("x", f"once {tmp_path / 'was-here'}"))
    assert [score.value for score in found] == [1.0, 1.0]
    # In the middle of many that one worker was given together.
    texts = ["y"] * 300 + [f"once {tmp_path / 'and-here'}"] + ["x"] * 300
    assert [score.value for score in pool.score(Obedient(), items(*texts))] == [0.0] * 300 + [1.0] * 301
    for worker in pool._workers:
        os.kill(worker.pid, 9)
    assert [score.value for score in pool.score(Obedient(), items("x", "x", "y"))] == [1.0, 1.0, 0.0]


def test_output_of_verdicts_is_no_message(capfd: pytest.CaptureFixture[str]) -> None:
    """Catches prints that corrupt what a worker says, or the output of the command, or that are lost."""
    with ScorePool(1) as own:
        assert [score.reason for score in own.score(Obedient(), items("print", "print"))] == ["printed", "printed"]
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("{") == said.err.count("[") == 600_000


def test_a_task_that_breaks_its_contract(pool: ScorePool) -> None:
    """Catches a bug of a task that scores 0 in silence, and leftovers of that call in the next one."""
    for deed, words in (
        ("raise oops", "task 'obedient', problem 'p1': its verdict raised TypeError: oops"),
        ("other", "task 'obedient', problem 'p1': gave 'fine' for an answer, not a Score"),
        ("incorrect", r"problem 'p1': gave Score\(.*\) for an answer, not a Score whose breakdown has 'correct'"),
    ):
        with pytest.raises(ValueError, match=words):
            pool.score(Obedient(), items("x", deed, *["y"] * 100))
        assert [score.value for score in pool.score(Obedient(), items("x", "x", "y"))] == [1.0, 1.0, 0.0]


def test_what_cannot_be_sent(pool: ScorePool) -> None:
    """Catches a task, or a problem, that fails in the worker with a traceback of pickle instead of a remedy."""

    class Local(Obedient):
        """Known to this function alone."""

    remedy = "define its class, .* in a module that can be imported"
    with pytest.raises(ValueError, match=f"task 'obedient': cannot be used in the worker processes.*{remedy}"):
        pool.score(Local(), items("x"))
    bad = [(Problem("odd", "", "", {"f": lambda: 0}), Completion("x", 1, 1, "stop"))]
    with pytest.raises(ValueError, match=f"problem 'odd' cannot be pickled.*{remedy}"):
        pool.score(Obedient(), bad)
    with pytest.raises(ValueError, match="score_seconds is 0; expected CPU seconds above 0"):
        pool.score(Obedient(0), items("x"))
    with pytest.raises(ValueError, match="num_workers=0: expected at least 1"):
        ScorePool(0)


def test_tasks_beside_the_recipe(pool: ScorePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches workers that search for modules elsewhere than their parent, or that know only the first task."""
    lines = "from tests.guarded_tasks import Obedient\nclass Mine(Obedient):\n    name = 'mine'\n"
    (tmp_path / "my_own_task.py").write_text(lines, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import my_own_task

    with ScorePool(1) as own:
        assert [score.value for score in own.score(my_own_task.Mine(), items("x", "y"))] == [1.0, 0.0]
        assert own.score(Obedient(0.2), items("spin 0.4"))[0].value == 0.0
        assert own.score(Obedient(0.9), items("spin 0.4"))[0].value == 1.0


def test_workers_are_light(pool: ScorePool) -> None:
    """Catches a worker that imports torch because its parent has: a gigabyte and seconds for each."""
    assert torch.__name__ in sys.modules
    loaded = pool.score(Obedient(), items("modules"))[0].reason.split()
    assert "revelm.core.types" in loaded
    assert not {"torch", "transformers", "datasets", "numpy"} & set(loaded)


def test_loading_is_not_charged(pool: ScorePool) -> None:
    """Catches the first verdict of a process that times out for what the process has to import."""
    assert [s.value for s in pool.score(Warmed(0.3, load=0.6), items("x", "spin 0.1", "y"))] == [1.0, 1.0, 0.0]


def test_workers_that_do_not_start(pool: ScorePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a pool that starts dying workers for ever, or blames the answers."""
    with ScorePool(2) as own, monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(RunError, match="its reward workers do not start"):
            own.score(Obedient(), items("x", "y"))


def test_a_worker_that_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a socket that stays open, of which the collector complains in the middle of something else."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    opened = Path("/proc/self/fd")
    before = set(opened.iterdir())
    with ScorePool(1) as own, pytest.raises(FileNotFoundError):
        own.score(Obedient(), items("x"))
    assert set(opened.iterdir()) <= before


def test_guarded_tasks_alone_go_to_workers() -> None:
    """Catches verdicts of simple tasks that pay for processes, and guarded ones that run in the trainer."""
    here = verdicts(Parity(), items("b", "a"))
    assert [score.value for score in here] == [1.0, 0.0]
    assert not isinstance(Parity(), GuardedTask)
    (away,) = verdicts(Obedient(), items("x"))
    assert away.breakdown["pid"] != os.getpid()
    assert shared_pool() is shared_pool()
    seen: list[int] = []
    verdicts(Parity(), items("b", "a"), progress=seen.append)
    verdicts(Obedient(), items("x"), progress=seen.append)
    assert seen == [1, 2, 1]


def test_an_iterator_left_open_is_no_deadlock(pool: ScorePool) -> None:
    """Catches a call that waits for ever for an iterator of its own thread, as a notebook keeps one after Ctrl-C."""
    stream = pool.stream(Obedient(), items("x", "x"))
    next(stream)
    with pytest.raises(RuntimeError, match="an iterator that is not finished"):
        pool.score(Obedient(), items("x"))
    stream.close()

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        pool.score(Obedient(), items("x", "x"), stop)
    assert pool.score(Obedient(), items("x"))[0].value == 1.0
    assert stopped.traceback


def test_a_pool_closed_by_another_thread() -> None:
    """Catches a call that waits for ever for workers that a closed pool does not start any more."""
    pool = ScorePool(1, memory_mb=1024)

    def close(num_done: int) -> None:
        if num_done == 1:
            thread = threading.Thread(target=pool.close)
            thread.start()
            thread.join()

    with pytest.raises(RuntimeError, match="closed"):
        pool.score(Obedient(), items(*["spin 0.06"] * 4), close)


def test_workers_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches eight trainers on a machine that each start a worker per core, and a quota that is overlooked: ten times
    more workers than cores, and slow verdicts are errors by the wall clock."""
    monkeypatch.setattr("revelm.rollout.workers.usable_cores", lambda: 16)
    assert default_workers() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert default_workers() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert default_workers() == 1
    (tmp_path / "max").write_text("150000 100000\n")
    (tmp_path / "none").write_text("max 100000\n")
    (tmp_path / "quota").write_text("400000\n")
    (tmp_path / "period").write_text("100000\n")
    missing = (tmp_path / "missing", tmp_path / "missing")
    assert cgroup_quota(tmp_path / "max", missing) == 1.5
    assert cgroup_quota(tmp_path / "none", missing) is None
    assert cgroup_quota(tmp_path / "missing", (tmp_path / "quota", tmp_path / "period")) == 4.0
    assert cgroup_quota(tmp_path / "missing", missing) is None
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
