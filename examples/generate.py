"""Decode with a diffusion language model and look at the order in which it wrote.

python examples/generate.py [runs/quickstart]
"""

import sys
from pathlib import Path

from revelm import Dynamic, Engine, Sampling, load_model, load_tokenizer
from revelm.data.tokenizer import token_pieces
from revelm.models.load import checkpoint_path
from revelm.viz.trace_page import TraceEntry, write_trace_page

# A run directory, or any checkpoint in Hugging Face layout.
checkpoint = checkpoint_path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
engine = Engine(model, tokenizer, num_slots=8)

question = "7+2=?\n?-1=?\n?+2=?\n?-1=?"
prompts = [[{"role": "user", "content": question}]] * 4
sampling = Sampling(temperature=1.0, rule=Dynamic(threshold=0.9), max_new_tokens=48, seed=0)

entries = []
for number, trajectory in enumerate(engine.generate(prompts, sampling)):
    answer = tokenizer.decode(trajectory.response_ids.tolist(), skip_special_tokens=True)
    print(f"{answer!r}: {trajectory.num_steps} steps, {trajectory.tokens_per_forward:.2f} tokens per forward")
    print("  revealed at step", trajectory.step[: trajectory.stop_length].tolist())
    pieces = token_pieces(tokenizer, trajectory.completion_ids.tolist())
    entries.append(TraceEntry(trajectory, pieces, question, f"answer {number + 1}"))
write_trace_page(Path("trace.html"), entries, "Four answers to one question")
