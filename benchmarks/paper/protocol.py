"""What was fixed before the first registered run: task, models, starts, steps, seeds, evaluation, and the test.

Task: ``chain`` with demonstrations that slip in every line, so that every line holds a decision, and a start at about a
quarter of the answers right. Everything is sampled at temperature 1 with the dynamic rule, as in training.

The deciding comparison: plain TraceRL against random masking (``DECIDING``), for each of the three bases. Its outcome
is the accuracy on test problems at temperature 1 with the dynamic rule at 0.9, after the last step. Its test is the
paired t-test over the five seeds (same start, same problems), two-sided, with the three p-values corrected by Holm's
procedure at 5 %; whether the two arms' own 95 % intervals lie apart is said beside it. There is a verdict only when all
three bases have all five seeds, made under one protocol at whole scale, at equal compute. Everything else (other arms
and experiments, the mean reward, temperature 0.5, greedy static decoding) is secondary: numbers with intervals, without
a verdict.

Compute: 1 per position that the engine forwards while it answers, 3 per position of the rows that are trained, 1 more
for each pass without gradient over the same rows. The arms of (2) and (8) train until they have spent what the TraceRL
arm of their base and seed spent in its steps: whole steps, to the nearest (``compute``). Arms of (4), (5) and (7) take
equally many steps, and their compute is reported. In (1) collecting traces is charged to the arm that needs them, 1 per
position.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEEDS = (10, 11, 12, 13, 14)
FEW = 3  # experiments other than (2) take the first so many seeds
PRIMARY = "dynamic"
THRESHOLD = 0.9
REFERENCE_ARM = "random"  # what the arms of (2) are compared with
DECIDING = {"rl-b4": ("b4-trace", "b4-random"), "rl-b8": ("b8-trace", "b8-random"),
            "rl-full": ("full-trace", "full-random")}  # fmt: skip
LEVEL = 0.05  # of the deciding comparison, over its three bases
TOLERANCE = 0.03  # by how much the mean compute of two arms may differ and still be called equal

TASK: Mapping[str, Any] = {
    "kind": "chain",
    "num_operations": [4, 4],
    "operations": "+-",
    "max_operand": 2,
    "num_train": 1800,
    "num_test": 170,
    "habit_rate": 1.0,
    "slip_rate": 0.35,
}
VOCAB_SIZE = 300
INITIALISATION: Mapping[str, float] = {"embedding_spread": 0.5, "qk_gain": 2.0}
SIZES: Mapping[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 100.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
# Full attention in the words of LLaDA-MoE, no layer of which has experts: the decoder of the block models, with as many
# weights (611,616 for 300 tokens) and with their q/k norms, which LLaDA and Dream lack.
FULL: Mapping[str, Any] = {
    **SIZES,
    "model_type": "llada",
    "architectures": ["LLaDAMoEModelLM"],
    "dense_intermediate_size": 384,
    "expert_intermediate_size": 16,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_layer_freq": [0, 0, 0, 0],
    "qk_layernorm": True,
    "moe_router_score_function": "softmax",
    "moe_router_enable_expert_bias": False,
}
BLOCK: Mapping[str, Any] = {**SIZES, "model_type": "sdar", "intermediate_size": 384, "head_dim": 24}
NUM_PAD = 4  # answers have 28 tokens; full attention decodes a canvas of 32, in windows of 8
WINDOW = 8


TRACE: Mapping[str, Any] = {"kind": "trace_rl"}


@dataclass(frozen=True)
class Base:
    """A model before fine-tuning. ``objective``: of its start; ``decoding``: limits of every answer it gives; ``task``:
    where its task differs from ``TASK``; ``trace``: the objective of plain TraceRL; ``start_factor``: of the steps of
    its start."""

    title: str
    model: Mapping[str, Any]
    objective: Mapping[str, Any]
    decoding: Mapping[str, int]
    task: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=lambda: dict(TRACE))
    start_factor: float = 1.0


# As the paper does for full attention (s = 8 there, for answers of some hundred steps; here they have a dozen).
FULL_TRACE: Mapping[str, Any] = {"kind": "trace_rl", "shrinkage": 2}
BLOCK_START: Mapping[str, Any] = {"kind": "block_sft", "low": 0.3, "num_masks": 3}
# Full attention learns window by window, as it decodes: from a start with masks over the whole canvas RL had hardly
# learnt anything in a pilot (reward 0.28 after 40 steps; 0.45 from this one).
FULL_START: Mapping[str, Any] = {"kind": "semi_ar_sft", "block_size": WINDOW, "low": 0.3, "num_masks": 1,
                                 "num_pad": NUM_PAD}  # fmt: skip


def _block(size: int, num_echoes: int = 0) -> Base:
    """A block model; with echoes every one of the four results is written so many times more."""
    title, task = f"block, B = {size}", {}
    if num_echoes:
        title, task = f"{title}, echoes: {num_echoes}", {"num_echoes": num_echoes}
    return Base(title, {**BLOCK, "block_size": size}, BLOCK_START, {"max_new_tokens": 48 + 4 * num_echoes}, task)


BASES: Mapping[str, Base] = {
    "b4": _block(4),
    "b8": _block(8),
    "full": Base(
        "full attention",
        FULL,
        FULL_START,
        {"max_new_tokens": 28 + NUM_PAD, "block_size": WINDOW},
        trace=FULL_TRACE,
        start_factor=1.5,
    ),
    "b8e1": _block(8, 1),
    "b8e3": _block(8, 3),
}
ECHOES: Mapping[str, int] = {"b8": 0, "b8e1": 1, "b8e3": 3}  # the bases of (8)


@dataclass(frozen=True)
class Scale:
    """How much of everything. ``start_*``: SFT on slipping demonstrations; ``tune_*``: experiment (1); ``problems``,
    ``samples``: of an evaluation; ``draws``, ``critic_steps``, ``value_after``: experiment (3);
    ``estimator_draws``, ``lengths``, ``gain_samples``: experiment (9)."""

    start_steps: int = 800
    start_texts: int = 16_000
    tune_steps: int = 40
    tune_texts: int = 640
    rl_steps: int = 40
    problems_per_step: int = 16
    group_size: int = 8
    problems: int = 170
    samples: int = 4
    draws: int = 32
    critic_steps: int = 20
    value_after: int = 20
    estimator_draws: int = 16
    lengths: tuple[float, ...] = (0.1, 0.3)
    gain_samples: int = 16
    thresholds: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    temperatures: tuple[float, ...] = (1.0, 0.5, 0.0)
    extra_rl: Mapping[str, Any] = field(default_factory=dict)


# A model of so few steps gets nothing right: answers that stop early score higher, so that something can be learnt.
SMOKE = Scale(
    start_steps=60, start_texts=64, tune_steps=2, tune_texts=8, rl_steps=2, problems_per_step=4, group_size=4,
    problems=4, samples=2, draws=2, critic_steps=2, value_after=1, estimator_draws=2, gain_samples=2,
    thresholds=(0.5, 0.9), temperatures=(1.0, 0.0),
    extra_rl={"shaping": {"overlong": "soft", "overlong_buffer": 24}},
)  # fmt: skip
WHOLE = Scale()

START: Mapping[str, Any] = {
    "batch_size": 16,
    "optimizer": {
        "learning_rate": 3e-3, "betas": [0.9, 0.98], "weight_decay": 0.01, "schedule": "cosine", "warmup_steps": 30,
        "floor": 0.1,
    },
    "train": {"max_positions": 4096, "save_every": 200},
}  # fmt: skip
TUNE: Mapping[str, Any] = {
    "batch_size": 16,
    "optimizer": {"learning_rate": 3e-5, "betas": [0.9, 0.98], "warmup_steps": 4},
    "train": {"max_positions": 8192},
}
TUNE_EVALUATIONS = 4
RL: Mapping[str, Any] = {
    "rollout": {"num_slots": 128},
    "optimizer": {"learning_rate": 6e-5, "betas": [0.9, 0.98], "warmup_steps": 6},
    "updates_per_step": 2,
    "train": {"max_positions": 8192, "save_every": 20, "keep_checkpoints": 4},
}
SHARED_VALUE: Mapping[str, Any] = {"backbone": "shared", "weight": 0.5, "whiten": True}
OWN_VALUE: Mapping[str, Any] = {"backbone": "own", "learning_rate": 3e-4, "whiten": True}
# The critic of (3), trained on a policy that stands still.
CRITIC: Mapping[str, Any] = {"backbone": "own", "learning_rate": 3e-4, "epochs": 2}
ENLARGE_SHARE = 0.6  # of the steps of (5): decode at 4, train at 8 (the paper: 60 of 100)
COLLECT_TOKENS = 2  # positions revealed at a time when traces are collected
FORWARD, TRAINED = 1, 3  # compute of a pass without, and of one with gradient, per position


def rule(threshold: float = THRESHOLD) -> dict[str, Any]:
    """The dynamic rule."""
    return {"kind": "dynamic", "threshold": threshold}


def settings(base: str) -> dict[str, dict[str, Any]]:
    """How every model is evaluated, in the words of ``revelm.eval.config.SettingSpec``; the primary one first."""
    limits = BASES[base].decoding
    return {
        PRIMARY: {**limits, "temperature": 1.0, "rule": rule()},
        "dynamic_t05": {**limits, "temperature": 0.5, "rule": rule()},
        "static": {**limits, "temperature": 0.0, "rule": {"kind": "static"}},
    }
