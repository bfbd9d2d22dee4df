"""``revelm convert``: a checkpoint of another family, block size, dtype or sharding, or with an adapter merged in."""

import argparse
import json
from typing import Any

EXAMPLES = """\
examples:
  revelm convert Qwen/Qwen3-1.7B models/start --to sdar --block-size 4
  revelm convert models/start models/wide --block-size 16
  revelm convert runs/lora models/merged --dtype bfloat16
"""
OPTIONS = (
    ("--to", "FAMILY", "the family to become, of the same backbone (see `revelm ls models`)"),
    ("--block-size", "B", "block families: positions per block (default: as it is, or the family's)"),
    ("--mask-token", "TEXT", "text of the mask token, where one has to be added (default: the family's)"),
    ("--pad-vocab-to-multiple", "N", "round the rows of embedding and head up to a multiple of N"),
    ("--dtype", "NAME", "of the weights: auto (as stored, the default), float32, bfloat16, float16"),
    ("--max-shard-size", "SIZE", "split larger weight files, e.g. 2GB (default: 5GB)"),
    ("--adapter", "DIR", "merge the adapter in DIR (peft's layout) into the weights"),
)


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "convert",
        help="a checkpoint of another family, block size, dtype or sharding",
        description="Write the checkpoint SOURCE, changed, to OUT. What is not asked for stays byte for byte.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="checkpoint, run or adapter directory, or hub id")
    parser.add_argument("out", metavar="OUT", help="directory to write; new or empty")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="the options as fields, e.g. block_size=8")
    for option, metavar, what in OPTIONS:
        parser.add_argument(option, metavar=metavar, help=what)
    parser.set_defaults(call=call)


def call(words: argparse.Namespace) -> None:
    """Convert and say what was done."""
    from revelm.core.config import load_config
    from revelm.models.convert import Conversion, convert

    done = convert(words.source, words.out, load_config(Conversion, None, [*words.overrides, *_options(words)]))
    for change in done.changes:
        print(change)
    print(f"checkpoint: {done.folder}")


def _options(words: argparse.Namespace) -> list[str]:
    """The options that were given, as overrides; numbers as numbers, all else as text."""
    found = []
    for option, _, _ in OPTIONS:
        name = option.removeprefix("--").replace("-", "_")
        value = vars(words)[name]
        if value is not None:
            is_number = name in ("block_size", "pad_vocab_to_multiple")
            found.append(f"{name}={value if is_number else json.dumps(value, ensure_ascii=False)}")
    return found
