"""The arms of every experiment: what is done to the shared start of a seed. Part of the protocol.

Numbers of masks: a step of the baselines is to have about as many positions as TraceRL's (``python -m benchmarks.paper
calibrate`` measures both on answers of a start). At B = 4 TraceRL has about two rounds per block, at B = 8 three, under
full attention about three per window of 8 and four windows, merged by twos. Steps then
follow from the compute that TraceRL has spent (``budget``). Arms differ in their method alone: equal weights of hidden
tokens in fine-tuning, equal weights of steps (of hidden copies) in reinforcement learning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.paper.protocol import (
    BASES,
    ECHOES,
    ENLARGE_SHARE,
    FEW,
    FORWARD,
    NUM_PAD,
    OWN_VALUE,
    REFERENCE_ARM,
    SEEDS,
    SHARED_VALUE,
    TRACE,
    TRAINED,
    WINDOW,
    Scale,
)

RESIZED: Mapping[str, Any] = {"model": {"block_size": 8, "resizes_blocks": True}}


@dataclass(frozen=True)
class SFTArm:
    """Fine-tuning on worked answers. ``shrinkage`` belongs to the objective; steps follow from equal positions."""

    title: str
    base: str
    objective: Mapping[str, Any]


@dataclass(frozen=True)
class RLArm:
    """Reinforcement learning. ``stages``: one run after another, each over a share of the steps, in the words of an RL
    recipe. ``sizes``: blocks to decode in when evaluated; empty: the model's own. ``budget``: the arm whose compute it
    spends, in however many steps; None: it takes as many steps as the scale says."""

    title: str
    base: str
    stages: tuple[tuple[float, Mapping[str, Any]], ...]
    sizes: tuple[int, ...] = ()
    budget: str | None = None

    def steps(self, scale: Scale) -> tuple[int, ...]:
        """Steps of every stage: at least one each, in all as many as the scale says."""
        ends = [
            round(scale.rl_steps * sum(share for share, _ in self.stages[: i + 1])) for i in range(len(self.stages))
        ]
        return tuple(end - begin for begin, end in zip([0, *ends], ends, strict=False))


@dataclass(frozen=True)
class Experiment:
    """``arms``: in the order of its table; ``reference``: of each base, the arm that others are compared with."""

    title: str
    arms: tuple[str, ...]
    reference: str | None = None
    num_seeds: int = FEW

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds it takes by default."""
        return SEEDS[: self.num_seeds]


def _rl(title: str, base: str, *, sizes: tuple[int, ...] = (), **changes: Any) -> RLArm:
    return RLArm(title, base, ((1.0, {"objective": BASES[base].trace, **changes}),), sizes)


def _matched(title: str, base: str, **changes: Any) -> RLArm:
    """An arm that spends what TraceRL has spent."""
    return replace(_rl(title, base, **changes), budget=f"{base}-trace")


def _random(base: str, num_masks: int) -> RLArm:
    return _matched("random masking", base, objective={"kind": "random_mask_rl", "num_masks": num_masks})


def _coupled(base: str, num_pairs: int) -> RLArm:
    fields = {"num_masks": num_pairs, "normalisation": "trace_step"}  # as all arms; its own default is "sequence"
    return _matched("coupled", base, objective={"kind": "coupled_rl", **fields})


def _shrunk(s: int) -> RLArm:
    return _rl(f"TraceRL, s = {s}", "full", objective={"kind": "trace_rl", "shrinkage": s})


# The trace arm of each base comes first: its compute, collected traces included, is the budget of the others.
SFT_ARMS: Mapping[str, SFTArm] = {
    "b4-trace": SFTArm("trace SFT", "b4", {"kind": "trace_sft"}),
    "b4-semi-ar": SFTArm("semi-AR (block SFT, 2 masks)", "b4", {"kind": "block_sft", "num_masks": 2, "num_pad": 0,
                                                                 "weighting": "none"}),
    "b4-pairs": SFTArm("semi-AR, complementary pair", "b4", {"kind": "block_sft", "is_complementary": True,
                                                             "num_pad": 0, "weighting": "none"}),
    "full-trace": SFTArm("trace SFT", "full", {"kind": "trace_sft", "shrinkage": 2, "block_size": WINDOW,
                                               "num_pad": NUM_PAD}),
    "full-semi-ar": SFTArm("semi-AR (slices of 8, 2 masks)", "full", {"kind": "semi_ar_sft", "num_masks": 2,
                                                                      "block_size": WINDOW, "num_pad": NUM_PAD,
                                                                      "weighting": "none"}),
    "full-random": SFTArm("fully random (8 masks)", "full", {"kind": "random_mask_sft", "num_masks": 8,
                                                             "num_pad": NUM_PAD, "weighting": "none"}),
}  # fmt: skip

RL_ARMS: Mapping[str, RLArm] = {
    "b4-trace": _rl("TraceRL", "b4"),
    "b4-value": _matched("TraceRL, value (shared)", "b4", value=SHARED_VALUE),
    "b4-own-value": _matched("TraceRL, value (own)", "b4", value=OWN_VALUE),
    "b4-coupled": _coupled("b4", 1),
    "b4-random": _random("b4", 2),
    "b8-trace": _rl("TraceRL", "b8"),
    "b8-value": _matched("TraceRL, value (shared)", "b8", value=SHARED_VALUE),
    "b8-own-value": _matched("TraceRL, value (own)", "b8", value=OWN_VALUE),
    "b8-coupled": _coupled("b8", 1),
    "b8-random": _random("b8", 3),
    "full-trace": _rl("TraceRL, s = 2", "full"),
    "full-value": _matched("TraceRL, value (shared)", "full", value=SHARED_VALUE),
    "full-own-value": _matched("TraceRL, value (own)", "full", value=OWN_VALUE),
    "full-coupled": _coupled("full", 3),
    "full-random": _random("full", 7),
    "full-s1": _shrunk(1),
    "full-s4": _shrunk(4),
    "full-s8": _shrunk(8),
    "b4-sizes": _rl("TraceRL at 4", "b4", sizes=(4, 8)),
    "b4-enlarged": RLArm("decode 4, train 8; then both 8", "b4", (
        (ENLARGE_SHARE, {"objective": TRACE, "rollout": {"block_size": 4}, **RESIZED}),
        (1.0 - ENLARGE_SHARE, {"objective": TRACE}),
    ), (4, 8)),
    "b4-at-8": _rl("both at 8 throughout", "b4", sizes=(4, 8), **RESIZED),
    "b4-static": _rl("static rollouts", "b4", rollout={"rule": {"kind": "static"}}),
    "b8-static": _rl("static rollouts", "b8", rollout={"rule": {"kind": "static"}}),
    "b8e1-trace": _rl("TraceRL", "b8e1"),
    "b8e1-random": _random("b8e1", 3),
    "b8e3-trace": _rl("TraceRL", "b8e3"),
    "b8e3-random": _random("b8e3", 3),
}  # fmt: skip
SAME_RUN = {"b4-sizes": "b4-trace"}  # arms that differ in their evaluation alone

# Of (9): base, and whether gradients are taken at its start or at TraceRL's policy after ``value_after`` steps.
POLICIES: Mapping[str, tuple[str, bool]] = {
    "b4": ("b4", False), "b4-later": ("b4", True), "b8": ("b8", False), "b8-later": ("b8", True),
    "full": ("full", False),
}  # fmt: skip
METHODS = ("trace", "value", "own-value", "coupled", "random")
EXPERIMENTS: Mapping[str, Experiment] = {
    "sft": Experiment("(1) SFT at equal forwarded tokens", tuple(SFT_ARMS)),
    "rl-b4": Experiment("(2) RL at equal compute, B = 4", tuple(f"b4-{m}" for m in METHODS), REFERENCE_ARM, len(SEEDS)),
    "rl-b8": Experiment("(2) RL at equal compute, B = 8", tuple(f"b8-{m}" for m in METHODS), REFERENCE_ARM, len(SEEDS)),
    "rl-full": Experiment(
        "(2) RL at equal compute, full attention", tuple(f"full-{m}" for m in METHODS), REFERENCE_ARM, len(SEEDS)
    ),
    "value": Experiment("(3) Variance of the policy gradient by credit", ("at-start", "after-rl")),
    "shrinkage": Experiment("(4) Shrinkage, full attention", ("full-s1", "full-trace", "full-s4", "full-s8"), "trace"),
    "enlarge": Experiment("(5) Blocks of 4 made 8", ("b4-sizes", "b4-enlarged", "b4-at-8"), "sizes"),
    "tpf": Experiment("(6) Tokens per forward at equal accuracy", ("b4", "b8")),
    "rollouts": Experiment(
        "(7) Static and dynamic rollouts", ("b4-trace", "b4-static", "b8-trace", "b8-static"), "trace"
    ),
    "echoes": Experiment(
        "(8) Echoes of what is decided, B = 8",
        tuple(f"{base}-{method}" for base in ECHOES for method in ("trace", REFERENCE_ARM)),
        REFERENCE_ARM,
    ),
    "estimators": Experiment("(9) Directions and noise of the objectives' gradients", tuple(POLICIES)),
}
NOT_RL = ("sft", "value", "tpf", "estimators")  # experiments whose arms are no arms of reinforcement learning
GROUPS: Mapping[str, tuple[str, ...]] = {"rl": ("rl-b4", "rl-b8", "rl-full"), "all": tuple(EXPERIMENTS)}


def experiments_with(arm: str) -> tuple[str, ...]:
    """The experiments in which ``arm`` is trained as an arm of reinforcement learning."""
    return tuple(name for name, one in EXPERIMENTS.items() if name not in NOT_RL and arm in one.arms)


def passes(changes: Mapping[str, Any]) -> int:
    """Compute of the updates of one training step per position of its rows (``protocol``): 3 for the policy's update, 1
    where the policy before the update is evaluated on the rows, 1 for old values, 3 for a value backbone of its own."""
    objective = changes["objective"]
    is_replay = objective["kind"] == "trace_rl" and objective.get("shrinkage", 1) == 1
    has_recorded = is_replay and "block_size" not in changes.get("rollout", {})
    value = changes.get("value")
    critic = 0 if value is None else FORWARD
    if value is not None and value["backbone"] == "own":
        critic += TRAINED * value.get("epochs", 1)
    return TRAINED + (0 if has_recorded else FORWARD) + critic
