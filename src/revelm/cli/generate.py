"""``revelm generate``: one prompt, one answer, and on request the page that replays how it was written."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revelm.decoding.sampling import Sampling
    from revelm.trajectories.record import Trajectory


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "generate", help="answer one prompt", description="Answer one prompt.", allow_abbrev=False
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="checkpoint or run directory, or hub id")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the user's message; - reads it from stdin")
    parser.add_argument("--raw", action="store_true", help="continue the text as it stands, without the chat template")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 is greedy (default: 1)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest (0: off)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from the nucleus P (1: off)")
    parser.add_argument(
        "--confidence",
        choices=("token", "max"),
        default="token",
        help="what decides which tokens are revealed: the drawn one's probability, or the largest (default: token)",
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end the answer at TEXT; may be given again"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--threshold", type=float, default=0.9, metavar="P", help="reveal what is surer than P (default: 0.9)"
    )
    how.add_argument("--tokens-per-step", type=int, metavar="K", help="reveal K tokens in each step instead")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="default: 256, or as many as the model has room for"
    )
    parser.add_argument(
        "--block-size", type=int, metavar="B", help="full attention: decode B positions at a time (default: all)"
    )
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="of the weights (default: float32)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="such as cuda (default: cpu)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--trace", metavar="FILE.html", help="write the page that plays the reveal order")
    parser.set_defaults(call=call)


def call(words: argparse.Namespace) -> None:
    """Print the answer; the numbers about it go to stderr."""
    from revelm.engine.generate import generate
    from revelm.engine.prompts import make_requests
    from revelm.models.load import load_model, load_tokenizer, read_family, resolve_checkpoint

    sampling = _sampling(words)
    text = sys.stdin.read().removesuffix("\n") if words.prompt == "-" else words.prompt
    prompt = text if words.raw else [{"role": "user", "content": text}]
    folder = resolve_checkpoint(words.model)
    tokenizer = load_tokenizer(folder)
    make_requests([prompt], sampling, read_family(folder), tokenizer)  # errors come before the weights are loaded
    model = load_model(folder, dtype=words.dtype, device=words.device)
    trajectory = generate(model, [prompt], sampling=sampling, tokenizer=tokenizer)[0]
    print(tokenizer.decode(trajectory.response_ids.tolist(), skip_special_tokens=True))
    print(_numbers(trajectory), file=sys.stderr)
    if words.trace is not None:
        from revelm.cli.trace import entry_of
        from revelm.viz.trace_page import write_trace_page

        write_trace_page(Path(words.trace), [entry_of(trajectory, tokenizer, "response")], "revelm generate")
        print(f"trace: {words.trace}", file=sys.stderr)


def _sampling(words: argparse.Namespace) -> "Sampling":
    from revelm.decoding.dynamic import Dynamic
    from revelm.decoding.sampling import Sampling
    from revelm.decoding.static import Static

    rule = Dynamic(words.threshold) if words.tokens_per_step is None else Static(words.tokens_per_step)
    return Sampling(
        temperature=words.temperature,
        top_k=words.top_k,
        top_p=words.top_p,
        rule=rule,
        confidence=words.confidence,
        max_new_tokens=words.max_new_tokens,
        block_size=words.block_size,
        stop_strings=tuple(words.stop),
        seed=words.seed,
    )


def _numbers(trajectory: "Trajectory") -> str:
    speed = f"{trajectory.tokens_per_forward:.2f} tokens per forward"
    return f"[{trajectory.num_tokens} tokens in {trajectory.num_steps} steps, {speed}, {trajectory.finish_reason}]"
