"""What a training run can be told: one typed schema per loop; unknown keys are refused (``revelm.core.config``)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from revelm.core.config import Schema, Spec
from revelm.engine.request import DEFAULT_NEW_TOKENS
from revelm.eval.config import CacheField, EvaluationSpec, SettingSpec, any_cache
from revelm.models.lora import LoraSpec
from revelm.objectives.packing import Packing
from revelm.objectives.shaping import Overlong, Shaping
from revelm.rollout.reward_config import RewardSpec
from revelm.trainers.best import BestSpec, check_best
from revelm.trainers.data_spec import DataSpec
from revelm.trainers.trackers import TrackerSpec
from revelm.trainers.value_spec import ValueSpec

Beta = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "float64", "bfloat16"]


class ModelSpec(Schema):
    """Where the weights come from. ``block_size``: what the run expects; an error if the checkpoint has another, unless
    ``resizes_blocks``: then the run trains with blocks of that size, and saves the model so.

    ``lora``: train an adapter only; an adapter at ``path`` goes on, and is merged where ``lora`` is not given.
    ``quantize``: keep the frozen weights in 4 bits, under an adapter (CUDA).
    """

    path: str
    dtype: Dtype = "float32"
    device: str = "cpu"
    block_size: int | None = None
    resizes_blocks: bool = False
    lora: LoraSpec | None = None
    quantize: Literal["nf4"] | None = None

    @model_validator(mode="after")
    def _check_trainable(self) -> "ModelSpec":
        if self.quantize is not None and self.lora is None:
            raise ValueError("4-bit weights are not trained; give model.lora as well, e.g. model.lora.rank=16")
        if self.resizes_blocks and self.block_size is None:
            raise ValueError("resizes_blocks needs the size to train with; give model.block_size as well")
        return self


class OptimizerSpec(Schema):
    """AdamW on fp32 master weights, gradient clipping, and a schedule with warm-up and a floor.

    ``schedule``: how the rate goes from its peak to ``floor`` x peak over the run (``revelm.trainers.schedule``);
    "constant" ignores the floor, "wsd" decays over the last ``decay_steps`` updates only. ``max_skipped``: updates in a
    row that may be left out as their loss or gradient is not finite. ``ema_decay``: keep a moving average of the
    weights, saved in ``ema/`` of each checkpoint; 0: none.
    """

    learning_rate: float = Field(1e-5, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    decay_steps: int = Field(0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    floor: float = Field(0.0, ge=0, le=1)
    max_skipped: int = Field(5, ge=1)
    ema_decay: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_decay(self) -> "OptimizerSpec":
        if (self.schedule == "wsd") != (self.decay_steps > 0):
            raise ValueError(
                f'decay_steps is {self.decay_steps} with schedule {self.schedule!r}; "wsd" needs 1 or more, no other '
                "schedule takes it"
            )
        return self


class TrainSpec(Schema):
    """``steps``: rounds of the loop. ``max_positions``: padded positions of one micro-batch (memory, never results).

    ``recompute_layers``: activation checkpointing: keep only layer inputs, run each layer again in the backward pass.
    ``packing``: whether rows stand one below the other, in groups of like lengths ("rows"), one behind the other
    ("packed"), or whichever pads less ("auto"); it changes no result. ``strategy``: of several processes: weights whole
    in each ("ddp"), or in shards ("fsdp").
    """

    steps: int = Field(ge=1)
    seed: int = 0
    max_positions: int = Field(8192, ge=1)
    recompute_layers: bool = False
    packing: Packing = "auto"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    save_every: int = Field(0, ge=0)
    keep_checkpoints: int = Field(2, ge=1)


class RunConfig(Schema):
    """What every run can be told beside its data and its method.

    ``eval``: evaluations every ``eval_every`` steps, on ``task``; ``eval_samples``: rows of each table of answers.
    ``best``: by which of their numbers the best checkpoint is kept. ``trackers``: copies of the metrics elsewhere.
    """

    model: ModelSpec
    train: TrainSpec
    out: str
    eval: EvaluationSpec = EvaluationSpec()
    eval_every: int = Field(0, ge=0)
    eval_samples: int = Field(24, ge=0)
    best: BestSpec | None = None
    trackers: tuple[TrackerSpec, ...] = ()
    resume: bool = False

    @model_validator(mode="after")
    def _check_best(self) -> "RunConfig":
        if self.best is None:
            return self
        if not self.eval_every:
            raise ValueError("best: chosen by evaluations, and there are none; set eval_every, or leave best out")
        return self.model_copy(update={"best": check_best(self.best, self.eval)})


class SFTConfig(RunConfig):
    """One supervised run. ``objective``: when it or its kind is not given, the one that fits the model's attention.

    ``task``: source of demonstrations where no files are given (``data``), and what evaluations ask.
    """

    task: Spec | None = None
    data: DataSpec = DataSpec()
    batch_size: int = Field(64, ge=1)
    objective: Spec | None = None
    optimizer: OptimizerSpec = OptimizerSpec(learning_rate=1e-4)

    @model_validator(mode="after")
    def _check_eval(self) -> "SFTConfig":
        if self.eval_every and self.task is None:
            raise ValueError("eval_every: there is no task to evaluate on; give one, or leave eval_every out")
        return self


class RolloutSpec(SettingSpec):
    """How answers are drawn: ``problems_per_step`` problems, ``group_size`` answers each.

    A step whose groups all lack signal draws further problems, at most ``max_attempts`` times in all; with ``refills``
    so does one with fewer than ``problems_per_step`` groups to learn from (dynamic sampling, DAPO, arXiv 2503.14476).
    ``max_long_prompts``: training problems that may be left out because their prompts leave too little room for an
    answer. ``block_size``: of block models that train with other blocks, the size to decode in. ``cache``: of the
    engine; evaluations have their own. With an approximate one the recorded log-probabilities are those of what was
    really drawn from, not of the exact model that is trained.
    """

    problems_per_step: int = Field(16, ge=1)
    group_size: int = Field(8, ge=2)
    num_slots: int = Field(64, ge=1)
    cache: CacheField = Field(default_factory=any_cache)
    max_attempts: int = Field(4, ge=1)
    refills: bool = False
    save_every: int = Field(0, ge=0)
    max_long_prompts: int = Field(0, ge=0)


class ShapingSpec(Schema):
    """What scores become before credit is given: ``revelm.objectives.shaping.Shaping``, whose fields these are."""

    overlong: Overlong = "keep"
    overlong_buffer: int = 0
    speed_weight: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> "ShapingSpec":
        self.shaping()
        return self

    def shaping(self) -> Shaping:
        """The settings at work."""
        return Shaping(**vars(self))


class RLConfig(RunConfig):
    """One reinforcement learning run. ``updates_per_step``: optimiser updates on each step's rollouts.

    ``rewards``: "task", or "shuffled" within each group: a control that should teach nothing. ``reward``: judges beside
    the task. ``shaping``: what scores become before credit is given. ``value``: a critic in place of group-relative
    credit.
    """

    task: Spec
    rollout: RolloutSpec = RolloutSpec()
    objective: Spec = Field(default_factory=lambda: {"kind": "trace_rl"})
    optimizer: OptimizerSpec = OptimizerSpec(learning_rate=1e-6)
    updates_per_step: int = Field(1, ge=1)
    rewards: Literal["task", "shuffled"] = "task"
    reward: RewardSpec = RewardSpec()
    shaping: ShapingSpec = ShapingSpec()
    value: ValueSpec | None = None

    @model_validator(mode="after")
    def _check_dropout(self) -> "RLConfig":
        if self.model.lora is not None and self.model.lora.dropout:
            raise ValueError("model.lora.dropout must be 0 in RL: answers are drawn, and credited, without dropout")
        return self

    @model_validator(mode="after")
    def _check_judge(self) -> "RLConfig":
        if self.reward.judge is None:
            return self
        if self.value is None:
            raise ValueError(
                "reward.judge gives rewards to steps, which a critic turns into credit; add a value section"
            )
        if self.rewards == "shuffled":
            raise ValueError("rewards: 'shuffled' trades scores of whole answers; leave reward.judge out")
        if self.shaping.speed_weight or self.shaping.overlong == "soft":
            name = "speed_weight" if self.shaping.speed_weight else "overlong: 'soft'"
            raise ValueError(
                f"shaping.{name} changes scores of whole answers, but reward.judge gives rewards to steps; leave one "
                "out, or use shaping.overlong 'keep', 'zero' or 'mask'"
            )
        return self

    @model_validator(mode="after")
    def _check_shaping(self) -> "RLConfig":
        if self.shaping.speed_weight and "tokens_per_forward" in self.reward.kinds():
            raise ValueError(
                "shaping.speed_weight and the part tokens_per_forward of reward.parts both pay for speed; leave one out"
            )
        buffer = self.shaping.overlong_buffer
        limit = self.rollout.sampling().max_new_tokens or DEFAULT_NEW_TOKENS
        if buffer >= limit:
            raise ValueError(
                f"shaping.overlong_buffer is {buffer}, but an answer has at most {limit} tokens "
                "(rollout.max_new_tokens); must be less"
            )
        return self

    @model_validator(mode="after")
    def _check_value(self) -> "RLConfig":
        spec = self.value
        if spec is None:
            return self
        if spec.warmup_steps >= self.train.steps:
            raise ValueError(
                f"value.warmup_steps is {spec.warmup_steps} and train.steps {self.train.steps}, so that the policy is "
                "never trained; must be less"
            )
        if spec.backbone == "own" and spec.path is None and self.model.lora is not None:
            what = "an adapter" if self.model.quantize is None else f"{self.model.quantize} weights"
            raise ValueError(
                f"value.backbone: 'own' trains a copy of all weights, but the policy has {what} (model.lora); use "
                "'shared', or name a checkpoint to start from in value.path"
            )
        return self
