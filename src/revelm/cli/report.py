"""``revelm report``: what a run has done so far, or what an evaluation found, drawn on one page."""

import argparse
from pathlib import Path
from typing import Any


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    what = "draw a run or an evaluation as one page: curves, evaluations, sample answers, traces"
    parser = verbs.add_parser("report", help=what, description=f"{what[0].upper() + what[1:]}.", allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="run directory: finished, under way or interrupted")
    parser.add_argument("--out", metavar="FILE", help="the page to write (default: RUN/report.html)")
    parser.add_argument("--model", metavar="DIR", help="whose tokenizer to use (default: the run's newest checkpoint)")
    parser.set_defaults(call=call)


def call(words: argparse.Namespace) -> None:
    """Write the page and print its path. Without a tokenizer, tokens are shown as ids."""
    from revelm.viz.evaluation_page import finished_evaluation, write_evaluation_page
    from revelm.viz.report import write_report
    from revelm.viz.run_traces import has_trajectories, run_traces

    run = Path(words.run)
    out = None if words.out is None else Path(words.out)
    if (summary := finished_evaluation(run)) is not None:
        print(write_evaluation_page(run, summary, out=out))
        return
    traces = []
    if has_trajectories(run):
        from revelm.cli.trace import tokenizer_of

        traces = run_traces(run, tokenizer_of(words.model, run))
    print(write_report(run, traces, out=out))
