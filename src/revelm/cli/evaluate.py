"""``revelm eval``: numbers about one model, on tasks or about given responses; two evaluations compared."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from revelm.eval.batches import Progress
    from revelm.eval.config import EvalConfig

COMPARE = "compare"
FORMATS = ("table", "md", "json")


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    what = "accuracy, tokens per forward and speed of a model on tasks; or likelihoods of given responses"
    parser = verbs.add_parser(
        "eval",
        help=what,
        description=f"{what[0].upper() + what[1:]}.",
        epilog="revelm eval compare A B: a paired comparison of two evaluations, by the folders given as --out; "
        "RUN@static RUN@dynamic: of two settings of one",
        allow_abbrev=False,
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="RECIPE.yaml | a.b=value | compare A B",
        help="e.g. task=sudoku4 task.data=FILE num_problems=100, or tasks.gsm8k.num_problems=100",
    )
    parser.add_argument("--recipe", metavar="FILE.yaml", help="a YAML file with the fields that are not given here")
    parser.add_argument("--model", metavar="DIR", help="checkpoint or run directory, or hub id")
    parser.add_argument(
        "--out", metavar="DIR", help="keep everything there; of compare: a folder, or a .md, .json or .html"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what is in --out")
    parser.add_argument("--format", choices=FORMATS, default="table", help="of what is printed (default: table)")
    parser.add_argument(
        "--loglikelihood",
        metavar="FILE.jsonl",
        help="no task: how likely the model finds the responses in this file of chats, or of prompt and response",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="likelihoods: masks per block or response (128)")
    parser.add_argument("--estimator", metavar="NAME", help="likelihoods: auto, exact, stratified, antithetic, ...")
    parser.set_defaults(call=call, takes_words=True)


def call(words: argparse.Namespace) -> None:
    """Evaluate and print a table."""
    if words.loglikelihood is not None:
        likelihoods(words)
        return
    for name in ("samples", "estimator"):
        if vars(words)[name] is not None:
            raise ValueError(f"--{name}: only with --loglikelihood FILE.jsonl")
    if words.overrides[:1] == [COMPARE]:
        compare(words)
        return
    config = config_of(words)
    from revelm.eval.evaluation import evaluate_config

    try:
        summary = evaluate_config(config, tell=show_progress)
    except KeyboardInterrupt as stop:
        kept = f"answers so far are in {config.out}; --resume goes on" if config.out else "nothing was kept (no --out)"
        raise KeyboardInterrupt(kept) from stop
    if os.environ.get("RANK", "0") == "0":
        show(summary, words.format)


def config_of(words: argparse.Namespace) -> "EvalConfig":
    """What is to be evaluated: the recipe, overrides and options; and, of a run's checkpoint, that run's task."""
    from revelm.core.config import load_config
    from revelm.eval.config import EvalConfig

    given = [word for word in words.overrides if "=" not in word]
    if len(given) > (words.recipe is None):
        raise ValueError(f"{given[-1]}: expected one recipe, and overrides such as num_problems=100")
    recipe = given[0] if given else words.recipe
    options = _options(model=words.model, out=words.out, resume=words.resume or None)
    overrides = [*(word for word in words.overrides if "=" in word), *options]
    known = {} if words.model is None else training_task(Path(words.model))
    config = load_config(EvalConfig, recipe, overrides, defaults={"task": known} if known else {})
    if config.tasks and known:
        return load_config(EvalConfig, recipe, overrides)
    if config.task is not None and known.get("kind") == config.task["kind"]:
        config = config.model_copy(update={"task": {**known, **config.task}})
    return config


def compare(words: argparse.Namespace) -> None:
    """Compare two evaluations and print or write what differs."""
    from revelm.eval.compare import comparison_markdown, write_comparison

    places = words.overrides[1:]
    if len(places) != 2 or any("=" in place for place in places):
        told = "two folders of evaluations, or RUN@static RUN@dynamic for two settings of one"
        raise ValueError(f"eval compare: expected {told}; got {' '.join(places) or 'none'}")
    found = write_comparison(*map(Path, places), out=None if words.out is None else Path(words.out))
    print(json.dumps(found, indent=2) if words.format == "json" else comparison_markdown(found))


def show_progress(progress: "Progress") -> None:
    """One line on stderr after each batch."""
    print(
        f"{progress.task}, {progress.setting}: {progress.done}/{progress.total} problems, {100 * progress.right:.1f} % "
        f"right and {progress.speed:.0f} tokens/s in the last batch",
        file=sys.stderr,
        flush=True,
    )


def show(summary: Mapping[str, Any], form: str) -> None:
    """Print the summary in one of ``FORMATS``."""
    from rich.console import Console

    from revelm.core.atomic import finite
    from revelm.eval.tables import results_of, single_answers, summary_markdown

    if form == "json":
        print(json.dumps(finite(summary), indent=2))
    elif form == "md":
        print(summary_markdown(summary), end="")
    else:
        console = Console()
        for name, result in results_of(summary).items():
            table = result_table(result)
            table.title = name if "tasks" in summary else None
            console.print(table)
            for line in further_lines(result):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        if told := single_answers(summary):
            console.print(told, markup=False, highlight=False, soft_wrap=True)


def further_lines(result: Mapping[str, Any]) -> list[str]:
    """What has no column: pass@k and majority@k, answers that were cut or not judged, and what was expected."""
    from revelm.eval.tables import share

    lines = []
    for name, numbers in result["settings"].items():
        for label, key in (("pass@", "pass_at_k"), ("majority@", "majority_at_k")):
            told = [f"{label}{k} {share(value)} %" for k, value in numbers[key].items() if int(k) > 1]
            lines += [f"{name}: {', '.join(told)}"] if told else []
        for key, label in (("truncated", "cut at the limit"), ("errors", "without a verdict, counted as wrong")):
            lines += [f"{name}: {100 * numbers[key]['mean']:.1f} % {label}"] if numbers[key]["mean"] else []
        if "expected" in numbers:
            told = numbers["expected"]
            published = f"{100 * told['accuracy']:.1f} % published ({told['source']})"
            within = f"[{100 * told['low']:.1f}, {100 * told['high']:.1f}]"
            lines.append(f"{name}: {share(numbers['accuracy'])} % measured, {published}: {told['verdict']} {within}")
    return lines


def likelihoods(words: argparse.Namespace) -> None:
    """Score the rows of a file and print a table."""
    from rich.console import Console

    from revelm.core.config import load_config
    from revelm.eval.loglikelihood import LikelihoodConfig, loglikelihood_config

    options = _options(
        model=words.model,
        data=words.loglikelihood,
        out=words.out,
        num_samples=words.samples,
        estimator=words.estimator,
    )
    config = load_config(LikelihoodConfig, words.recipe, [*words.overrides, *options])
    Console().print(likelihood_table(loglikelihood_config(config)))


def _options(**values: Any) -> list[str]:
    """The options that were given, as overrides."""
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value is not None]


def training_task(model: Path) -> dict[str, Any]:
    """The task that the run of ``model`` (a run directory or a checkpoint in one) trained on; empty if there is none.

    An evaluation on the same kind of task starts from its fields, so that problems, and which of them were seen in
    training, are those of the run.
    """
    from revelm.core.config import read_yaml

    for folder in (model, model.resolve().parent):
        if (folder / "config.yaml").is_file():
            task = read_yaml(folder / "config.yaml").get("task")
            return dict(task) if isinstance(task, Mapping) else {}
    return {}


def result_table(result: Mapping[str, Any]) -> "Table":
    """One row per decoding setting, and under it one per group of problems (e.g. seen and unseen grids).

    ``result["settings"][name]`` holds ``accuracy`` and ``tokens_per_forward`` as ``{mean, low, high, n}``,
    ``tokens_per_second`` as a number or in the same form, and perhaps ``groups``: name -> the same fields.
    """
    from rich.table import Table
    from rich.text import Text

    from revelm.viz.entry import plain_text

    table = Table("setting", r"accuracy \[95 % interval]", "answers", "tokens per\nforward", "tokens/s")
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for name, numbers in result["settings"].items():
        table.add_row(name, *_cells(numbers))
        for group, part in numbers.get("groups", {}).items():
            table.add_row(Text(f"  {' '.join(plain_text(group).split())}"), *_cells(part), style="dim")
    return table


def likelihood_table(summary: Mapping[str, Any]) -> "Table":
    """One line per number of ``revelm.eval.loglikelihood.summarise``."""
    from rich.table import Table

    table = Table("", r"value \[95 % interval]")
    table.columns[1].justify = "right"
    kind = "the likelihood itself" if summary["num_masks"] == 0 else "lower bound"
    how = f"{kind}, exact" if summary["is_exact"] else f"{kind}, sampled ({summary['num_samples']} masks)"
    table.add_row("log-likelihood per token (nats)", _interval(summary["loglikelihood_per_token"], 4))
    table.add_row("  standard error of sampling", f"{summary['sampling_error']:.4f}")
    table.add_row("  computed as", how)
    table.add_row("perplexity (at most)", _interval(summary["perplexity"], 3))
    table.add_row("rows", str(summary["loglikelihood_per_token"]["n"]))
    table.add_row("response tokens", str(summary["num_tokens"]))
    return table


def _interval(numbers: Mapping[str, Any], digits: int) -> str:
    text = f"{numbers['mean']:.{digits}f} [{numbers['low']:.{digits}f}, {numbers['high']:.{digits}f}]"
    return text.replace("[", r"\[")  # rich reads a bare bracket as markup


def _cells(numbers: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = numbers["accuracy"]
    return (
        _interval(accuracy, 3),
        str(accuracy["n"]),
        _mean(numbers.get("tokens_per_forward"), 2),
        _mean(numbers.get("tokens_per_second"), 0),
    )


def _mean(value: Any, digits: int) -> str:
    number = value["mean"] if isinstance(value, Mapping) else value
    return "" if number is None else f"{number:.{digits}f}"
