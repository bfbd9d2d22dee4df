"""``revelm trace``: ``view``, a recorded trajectory as a page that plays the order of its reveals."""

import argparse
from pathlib import Path
from typing import Any

from revelm.cli import trace_collect


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    what = "look at recorded trajectories, collect reveal orders"
    group = verbs.add_parser("trace", help=what, description="Look at trajectories, or collect the order of reveals.")
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = actions.add_parser("view", help="write one trajectory as a page or a picture", allow_abbrev=False)
    parser.add_argument("file", metavar="FILE.parquet", help="a file from a run's trajectories folder")
    parser.add_argument("--index", type=int, default=0, metavar="N", help="which one, counted from 0 (default: 0)")
    parser.add_argument(
        "--out", metavar="FILE", help="a page (.html) or a still picture (.svg); default: beside the input"
    )
    parser.add_argument("--model", metavar="DIR", help="whose tokenizer to use (default: the run's newest checkpoint)")
    parser.set_defaults(call=view)
    trace_collect.add_to(actions)


def view(words: argparse.Namespace) -> None:
    """Write the page or the picture and print its path. Without a tokenizer, tokens are shown as ids."""
    from revelm.core.atomic import write_text_atomic
    from revelm.trajectories.store import read_trajectories
    from revelm.viz.run_traces import entry_of
    from revelm.viz.trace_page import write_trace_page
    from revelm.viz.trace_svg import trace_svg

    source = Path(words.file)
    found = read_trajectories(source)
    if not 0 <= words.index < len(found):
        raise ValueError(
            f"--index {words.index}: {source} holds {len(found)} trajectories, allowed 0..{len(found) - 1}"
        )
    out = Path(words.out) if words.out is not None else source.with_name(f"{source.stem}-{words.index}.html")
    tokenizer = tokenizer_of(words.model, source.resolve().parent.parent)
    entry = entry_of(found[words.index], tokenizer, f"{source.name} #{words.index}")
    if out.suffix == ".svg":
        write_text_atomic(out, trace_svg(entry))
    else:
        write_trace_page(out, [entry], f"{source.name} #{words.index}")
    print(out)


def tokenizer_of(model: str | None, run: Path) -> Any | None:
    """The tokenizer of ``model``, else of the newest checkpoint of ``run`` or of the model that was evaluated there.

    Or, as where ``run`` is one task of an evaluation or an evaluation within a run, of the folder above; else None.
    """
    from revelm.models.load import checkpoint_path, load_tokenizer, resolve_checkpoint

    if model is not None:
        return load_tokenizer(resolve_checkpoint(model))
    for place in (run, evaluated_model(run), run.parent, evaluated_model(run.parent)):
        if place is None:
            continue
        try:
            folder = checkpoint_path(place)
        except ValueError:  # half a run directory, whose LATEST leads nowhere
            return None
        if (folder / "tokenizer_config.json").is_file():
            return load_tokenizer(folder)
    return None


def evaluated_model(folder: Path) -> Path | None:
    """The checkpoint or run whose evaluation is in ``folder``, if that is one and the model a directory here."""
    from revelm.core.config import read_yaml

    config = folder / "config.yaml"
    model = read_yaml(config).get("model") if config.is_file() else None
    return Path(model).expanduser() if isinstance(model, str) and Path(model).expanduser().exists() else None
