"""``revelm trace collect``: the order in which a model reveals given texts, or its own good answers, for trace SFT."""

import argparse
import sys
from typing import Any

EXAMPLES = """\
examples:
  revelm trace collect --model models/start --data chats.jsonl --out traces.parquet
  revelm trace collect --model models/start --data chats.jsonl --out traces.jsonl --tokens-per-step 4 --limit 1000
  revelm trace collect --from runs/rl/trajectories/*.parquet --out traces.parquet --min-score 1
  revelm sft recipes/sft.yaml data.path=traces.parquet objective.kind=trace_sft
"""


def add_to(actions: Any) -> None:
    """Declare the action of ``revelm trace``."""
    parser = actions.add_parser(
        "collect",
        help="find the order in which a model reveals given texts",
        description="Write the data of trace SFT: texts as ids, and the step that reveals each token.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="FILE", help="chats, as for `revelm sft`; their order is asked of --model")
    source.add_argument(
        "--from", dest="records", nargs="+", metavar="FILE.parquet", help="a run's trajectories: their own order"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help=".parquet or .jsonl; with --data it is continued")
    parser.add_argument("--model", metavar="DIR", help="whose order (with --data)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument("--min-score", type=float, default=1.0, metavar="X", help="with --from (default: 1)")
    parser.add_argument("--tokens-per-step", type=int, default=2, metavar="K", help="revealed at a time (default: 2)")
    parser.add_argument(
        "--order-by", choices=("top", "true"), default="top", help="probability of: the likeliest token, the true one"
    )
    parser.add_argument("--block-size", type=int, metavar="B", help="full attention: windows of B (default: one)")
    parser.add_argument("--num-slots", type=int, default=16, metavar="N", help="texts at a time (default: 16)")
    parser.add_argument("--max-positions", type=int, default=8192, metavar="N", help="per forward (default: 8192)")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="of the weights (default: float32)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="e.g. cuda (default: cpu)")
    parser.set_defaults(call=collect)


def collect(words: argparse.Namespace) -> None:
    """Write the file and print its path and what it holds."""
    if words.limit is not None and words.limit < 1:
        raise ValueError(f"--limit: {words.limit}, must be at least 1")
    if words.records is not None:
        _from_records(words)
    else:
        _from_texts(words)


def _from_records(words: argparse.Namespace) -> None:
    from revelm.data.trace_rows import check_ending, write_traces
    from revelm.trajectories.store import read_trajectories
    from revelm.trajectories.trace_rows import rows_of_records

    check_ending(words.out)
    records = [record for file in words.records for record in read_trajectories(file)][: words.limit]
    rows, dropped = rows_of_records(records, min_score=words.min_score)
    for reason, count in sorted(dropped.items()):
        print(f"left out: {count} {reason}", file=sys.stderr)
    if not rows:
        raise ValueError(f"--from: none of {len(records)} answers is fit to learn; lower --min-score")
    write_traces(words.out, rows)
    print(f"{words.out}: {len(rows)} traces of {len(records)} answers")


def _from_texts(words: argparse.Namespace) -> None:
    import numpy as np

    from revelm.rollout.reveal_order import RevealOrder

    if words.model is None:
        raise ValueError("--model: missing; whose order of the texts in --data?")
    how = RevealOrder(words.tokens_per_step, words.order_by, words.block_size, words.num_slots, words.max_positions)
    from revelm.data.learnable import Source, learnable_ids
    from revelm.data.sample_ids import Ids
    from revelm.models.load import load_model, load_tokenizer, read_family, resolve_checkpoint
    from revelm.objectives.batch import Text
    from revelm.objectives.likelihood import fault
    from revelm.rollout.trace_collection import collect_traces, collection_settings, finished_rows

    folder = resolve_checkpoint(words.model)
    family = read_family(folder)
    how.check_family(family)

    def text(ids: Ids, key: int = 0) -> Text:
        return Text(np.array(ids.ids, dtype=np.int64), ids.prompt_length, key)

    source = Source(words.data, num=words.limit, setting="--data")
    rows = learnable_ids(source, load_tokenizer(folder), size=None, fault=lambda ids: fault(text(ids), family))
    samples = [text(row, key) for key, row in enumerate(rows, 1)]
    settings = collection_settings(how, str(words.model), family)
    finished_rows(words.out, samples, settings)
    model = load_model(folder, dtype=words.dtype, device=words.device)
    traces = collect_traces(model, samples, words.out, how=how, settings=settings, report=_report)
    print(f"{words.out}: {len(traces)} traces")


def _report(done: int, total: int) -> None:
    print(f"{done} of {total} texts", file=sys.stderr)
