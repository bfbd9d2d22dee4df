"""``revelm score``: answers in a file, judged by the functions that training and evaluation use."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXAMPLES = """\
examples:
  revelm score math answers.jsonl --out scored.jsonl
  revelm score math answers.jsonl --out scored.jsonl answer=box reference_field=gold
  revelm score code programs.jsonl --out scored.jsonl is_partial=true limits.seconds=2
  revelm score gsm8k completions.jsonl --out scored.jsonl --resume
  revelm score my_rewards.py:politeness answers.jsonl --out scored.jsonl
  revelm score math=1,format=0.2 answers.jsonl --out scored.jsonl format.has_box=true
  revelm score rl.yaml completions.jsonl --out scored.jsonl

rewards:
  math, exact, fuzzy, choice, regex   rows with a prediction and a reference
  code                                rows with tests, each with a completion
  another task (`revelm ls tasks`)    rows of its data, each with a completion
  FILE.py:NAME, function, format,     rows with a completion, as in reward.parts
  judge_outcome
  NAME=WEIGHT,NAME=WEIGHT             a weighted sum of these; their fields as NAME.field=value
  RECIPE.yaml                         the sum of a recipe: reward.parts over the verdicts of its task

A row with a list of answers, as in completions, gets lists.
"""
_MAX_REASONS = 12


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "score",
        help="judge the answers in a file",
        description="Write the rows of FILE to OUT, in order, each with a score and the reason.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "reward", metavar="REWARD", help="math, code, exact, ..., a task, FILE.py:NAME, a sum or a recipe"
    )
    parser.add_argument("file", metavar="FILE", help=".jsonl, .json, .csv (each also .gz) or .parquet")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="fields of the reward or the task")
    parser.add_argument("--out", required=True, metavar="FILE", help="the result, .jsonl")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--resume", action="store_true", help="go on where a run to the same --out was killed")
    parser.set_defaults(call=call)


def call(words: argparse.Namespace) -> None:
    """Score the file, and say how it went."""
    from revelm.core.config import apply_overrides
    from revelm.rollout.score_file import ScoreJob, score_file

    fields = apply_overrides({}, words.overrides)
    job = ScoreJob(words.reward, words.file, words.out, fields, words.workers, words.resume)
    try:
        with _progress() as report:
            summary = score_file(job, report, tell=lambda told: print(told, file=sys.stderr))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("go on with --resume") from stop
    right, wrong = summary.num_correct, summary.num_errors
    several = f", {summary.num_answers} answers" if summary.num_answers > summary.num_rows else ""
    print(
        f"{words.out}: {summary.num_rows} rows{several}, mean score {summary.mean:.4f}, {right} correct, {wrong} errors"
    )
    for reason, count in summary.reasons[:_MAX_REASONS]:
        print(f"  {count:>7}  {reason}")
    if others := summary.reasons[_MAX_REASONS:]:
        print(f"  {sum(count for _, count in others):>7}  others")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Shows how many answers are scored, on stderr: a bar on a terminal, elsewhere a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = ("scoring", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring")
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """A line every ten seconds, and one at the end."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 10.0

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now >= self._next:
            self._next = now + 10.0
            print(f"{done} of {total} scored", file=sys.stderr, flush=True)
