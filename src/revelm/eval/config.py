"""What an evaluation can be told."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from revelm.core.config import Schema, Spec
from revelm.core.registry import build
from revelm.decoding.propose import Confidence
from revelm.decoding.sampling import Sampling
from revelm.engine.named_caches import AUTO, read_cache


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    """``value`` when it names a cache."""
    read_cache(value)
    return value


CacheField = Annotated[Spec, AfterValidator(_checked)]
"""A cache of the engine: a name ("auto", "exact", "none", "prefix", "dual", "horizon", "vicinity"), or a mapping with
``kind`` and fields of ``revelm.engine.settings.Exact`` or ``Approximate``."""


def any_cache() -> dict[str, Any]:
    """Exact where the model's attention has an exact cache, else none."""
    return {"kind": AUTO}


class SettingSpec(Schema):
    """One way of decoding, in a recipe's words. ``max_new_tokens`` None: 256, or as many as the model has room for.

    ``block_size``: the window of full attention models (None: the whole answer); of block models, the blocks that they
    are to decode in (None: their own).
    An answer ends at the model's stop ids (not with ``ignore_eos``), at ``stop_ids`` and at ``stop_strings``.
    What the other fields do stands in ``revelm.decoding.sampling.Sampling``.
    """

    temperature: float = Field(1.0, ge=0)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    banned_ids: tuple[NonNegativeInt, ...] = ()
    guidance: float = Field(0.0, ge=0, allow_inf_nan=False)
    rule: Spec = Field(default_factory=lambda: {"kind": "dynamic", "threshold": 0.9})
    confidence: Confidence = "token"
    max_new_tokens: int | None = Field(None, ge=1)
    block_size: int | None = Field(None, ge=1)
    stop_ids: tuple[NonNegativeInt, ...] = ()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False

    def within(self, **limits: int | None) -> "SettingSpec":
        """This setting, with those of ``limits`` about which it says nothing."""
        return self.model_copy(update={name: value for name, value in limits.items() if vars(self)[name] is None})

    def sampling(self, seed: int = 0, *, field: str = "rule") -> Sampling:
        """The engine's settings. ValueError names a rule that does not exist, cannot be built or does not go along.

        ``field``: how errors address the rule.
        """
        given: dict[str, Any] = {name: vars(self)[name] for name in SettingSpec.model_fields if name != "rule"}
        return Sampling(**given, rule=build("rules", self.rule, field=field), seed=seed)


def standard_settings(**limits: int | None) -> dict[str, SettingSpec]:
    """Greedy one token per step; sampling with the dynamic rule at temperature 1 and 0.5 (threshold 0.9).

    ``limits``: ``max_new_tokens`` and ``block_size`` of each.
    """
    dynamic: dict[str, Any] = {"kind": "dynamic", "threshold": 0.9}
    return {
        "static": SettingSpec(temperature=0.0, rule={"kind": "static"}, **limits),
        "dynamic": SettingSpec(temperature=1.0, rule=dynamic, **limits),
        "dynamic_t05": SettingSpec(temperature=0.5, rule=dynamic, **limits),
    }


class EvaluationSpec(Schema):
    """How much to evaluate, and how. ``settings``: by name; the three standard ones when empty.

    ``max_new_tokens`` and ``block_size`` (full attention: positions decoded at a time) are those of settings that say
    nothing about them. ``pass_at``: the k of pass@k and majority@k; empty: powers of two up to
    ``samples_per_problem``, and that itself. ``cache``: of the engine, for all settings. Under a setting that leaves
    nothing to chance there is one answer to each problem, whatever ``samples_per_problem`` says.
    """

    split: Literal["train", "test"] = "test"
    num_problems: int | None = Field(None, ge=1)
    samples_per_problem: int = Field(1, ge=1)
    pass_at: tuple[PositiveInt, ...] = ()
    settings: dict[str, SettingSpec] = Field(default_factory=dict)
    max_new_tokens: int | None = Field(None, ge=1)
    block_size: int | None = Field(None, ge=1)
    num_slots: int = Field(64, ge=1)
    cache: CacheField = Field(default_factory=any_cache)
    seed: int = 0

    def named_settings(self) -> dict[str, SettingSpec]:
        """The settings to run."""
        if not self.settings:
            return standard_settings(max_new_tokens=self.max_new_tokens, block_size=self.block_size)
        limits = {"max_new_tokens": self.max_new_tokens, "block_size": self.block_size}
        return {name: setting.within(**limits) for name, setting in self.settings.items()}

    def num_answers(self, setting: str) -> int:
        """To each problem under the setting of that name: 1 where all would be the same, whatever the seed."""
        is_single = self.named_settings()[setting].sampling().is_deterministic
        return 1 if is_single else self.samples_per_problem


class Expected(Schema):
    """A published accuracy, to be compared with. ``source``: where it stands.

    ``num_answers``: how many answers it is a mean of (problems times runs), from which its own sampling error follows;
    None: taken as exact.
    """

    accuracy: float = Field(ge=0, le=1)
    source: str
    num_answers: int | None = Field(None, ge=1)


class TaskEntry(Schema):
    """One of several tasks. ``task``: its component; ``kind`` is the name of the entry unless it is given.

    What is None or empty is as in the evaluation around it. ``settings``: which of that evaluation's are asked, and
    what each of them has otherwise here; one that is not among those is new. ``expected``: by setting.
    """

    task: Spec = Field(default_factory=dict)
    split: Literal["train", "test"] | None = None
    num_problems: int | None = Field(None, ge=1)
    samples_per_problem: int | None = Field(None, ge=1)
    pass_at: tuple[PositiveInt, ...] = ()
    settings: dict[str, SettingSpec] = Field(default_factory=dict)
    max_new_tokens: int | None = Field(None, ge=1)
    block_size: int | None = Field(None, ge=1)
    seed: int | None = None
    expected: dict[str, Expected] = Field(default_factory=dict)


class EvalConfig(EvaluationSpec):
    """One evaluation of a checkpoint on one ``task`` or on several ``tasks``, by name.

    ``expected``: of ``task``, by setting. ``out``: a folder for all that was found (``revelm.eval.store``); ``resume``:
    go on with what is there. ``save_every``: problems between saves; None: as many as give four answers to each slot.
    """

    model: str
    task: Spec | None = None
    tasks: dict[str, TaskEntry] = Field(default_factory=dict)
    expected: dict[str, Expected] = Field(default_factory=dict)
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    device: str = "cpu"
    out: str | None = None
    resume: bool = False
    save_every: int | None = Field(None, ge=1)
