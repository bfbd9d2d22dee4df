"""An autoregressive Qwen3 becomes a block diffusion model, and begins to learn. Seconds on one core, no downloads.

python examples/convert_qwen3.py [FOLDER]

The Qwen3 is a tiny one with random weights, saved by transformers; a released one is converted in the same way:
    revelm convert Qwen/Qwen3-1.7B models/start --to sdar --block-size 4
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from revelm.core.config import parse_config
from revelm.data.tokenizer import build_tiny_tokenizer, save_tokenizer
from revelm.models.convert import Conversion, convert
from revelm.tasks.chain import Chain
from revelm.trainers import sft
from revelm.trainers.config import SFTConfig

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
task = {"kind": "chain", "num_train": 500, "num_test": 10, "num_operations": [2, 4]}

# A Qwen3 as anyone has it: official layout, a tokenizer, and no mask token anywhere.
torch.manual_seed(0)
torch.set_num_threads(1)
texts = [message["content"] for chat in Chain(num_train=500).demonstrations(200, 0) for message in chat.messages]
tokenizer = build_tiny_tokenizer(texts, 300)
tokenizer.mask_token = None
sizes = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "head_dim": 24}
heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, **ids, tie_word_embeddings=True)).save_pretrained(folder / "qwen3")
save_tokenizer(tokenizer, folder / "qwen3")

# The same weights as an SDAR: attention within and before a block of 4, a mask token with a row of its own.
done = convert(folder / "qwen3", folder / "sdar", Conversion(to="sdar", block_size=4))
print("\n".join(done.changes))

# What it needs now is training with that attention: block SFT on worked examples.
config = {
    "model": {"path": str(folder / "sdar")},
    "task": task,
    "data": {"num": 2000},
    "batch_size": 16,
    "train": {"steps": 60},
    "optimizer": {"learning_rate": 3e-3, "warmup_steps": 5},
    "out": str(folder / "run"),
}
run = sft.run(parse_config(SFTConfig, config))
losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
first, last = losses[0], sum(losses[-5:]) / 5
print(f"loss: {first:.3f} at step 1, {last:.3f} over the last five of {len(losses)} steps")
if last >= first:
    sys.exit("the loss did not fall")
