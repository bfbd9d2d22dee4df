"""``revelm eval``: numbers about one model, on one task or about given responses, with 95 % intervals."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    what = "accuracy, tokens per forward and speed of a model on a task; or likelihoods of given responses"
    parser = verbs.add_parser("eval", help=what, description=f"{what[0].upper() + what[1:]}.", allow_abbrev=False)
    parser.add_argument(
        "overrides", nargs="*", metavar="a.b=value", help="e.g. task=sudoku4 task.data=FILE num_problems=100"
    )
    parser.add_argument("--recipe", metavar="FILE.yaml", help="a YAML file with the fields that are not given here")
    parser.add_argument("--model", metavar="DIR", help="checkpoint or run directory, or hub id")
    parser.add_argument("--out", metavar="DIR", help="write summary and trajectories there")
    parser.add_argument(
        "--loglikelihood",
        metavar="FILE.jsonl",
        help="no task: how likely the model finds the responses in this file of chats, or of prompt and response",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="likelihoods: masks per block or response (128)")
    parser.add_argument("--estimator", metavar="NAME", help="likelihoods: auto, exact, stratified, antithetic, ...")
    parser.set_defaults(call=call)


def call(words: argparse.Namespace) -> None:
    """Evaluate and print a table."""
    if words.loglikelihood is not None:
        likelihoods(words)
        return
    for name in ("samples", "estimator"):
        if vars(words)[name] is not None:
            raise ValueError(f"--{name}: only with --loglikelihood FILE.jsonl")
    from rich.console import Console

    from revelm.core.config import load_config
    from revelm.eval.config import EvalConfig

    options = _options(model=words.model, out=words.out)
    known = {} if words.model is None else training_task(Path(words.model))
    config = load_config(
        EvalConfig, words.recipe, [*words.overrides, *options], defaults={"task": known} if known else {}
    )
    if config.task is not None and known.get("kind") == config.task["kind"]:
        config = config.model_copy(update={"task": {**known, **config.task}})
    from revelm.eval.run import evaluate_config

    Console().print(result_table(evaluate_config(config)))


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

    table = Table("setting", r"accuracy \[95 % interval]", "answers", "tokens per\nforward", "tokens/s")
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for name, numbers in result["settings"].items():
        table.add_row(name, *_cells(numbers))
        for group, part in numbers.get("groups", {}).items():
            table.add_row(f"  {group}", *_cells(part), style="dim")
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
