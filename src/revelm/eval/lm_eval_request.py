"""What lm-evaluation-harness can tell our model: its arguments, and the generation settings of one request."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lm_eval.models.utils import normalize_gen_kwargs
from pydantic import Field

from revelm.core.config import Schema, Spec, parse_config
from revelm.decoding.propose import Confidence
from revelm.decoding.sampling import Sampling
from revelm.eval.config import CacheField, SettingSpec, any_cache
from revelm.noise.bound import Estimator

logger = logging.getLogger(__name__)


class LmEvalSpec(Schema):
    """``--model_args`` of ``--model revelm``; ``pretrained``: a checkpoint or run directory, or a hub id.

    Decoding: ``rule`` (a name, or from Python a mapping), its ``threshold`` and the ``confidence`` it goes by,
    ``block_size`` and ``cache`` as in ``revelm eval``; ``num_slots``: answers that are decoded at once. Likelihoods:
    ``estimator``, ``num_samples`` and ``max_positions`` as in ``revelm eval --loglikelihood``. ``seed`` fixes answers
    and masks. ``max_length``: positions, where less than the model's are wanted. ``think_end_token``: what ends a chain
    of thought; answers are then what stands behind its last one. The harness always gives ``batch_size``: answers do
    not depend on what is decoded beside them, so ``num_slots`` alone decides.
    """

    pretrained: str
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    rule: Spec = Field(default_factory=lambda: {"kind": "dynamic"})
    threshold: float | None = None
    confidence: Confidence = "token"
    block_size: int | None = Field(None, ge=1)
    cache: CacheField = Field(default_factory=any_cache)
    num_slots: int = Field(64, ge=1)
    estimator: Estimator = "auto"
    num_samples: int = Field(128, ge=2)
    max_positions: int = Field(8192, ge=1)
    seed: int = 0
    max_length: int | None = Field(None, ge=2)
    think_end_token: str | None = None
    batch_size: int | str | None = None
    max_batch_size: int | None = None

    def setting(self) -> SettingSpec:
        """How answers are decoded where a request says nothing else."""
        own = {} if self.threshold is None else {"threshold": self.threshold}
        return SettingSpec(rule={**self.rule, **own}, confidence=self.confidence, block_size=self.block_size)

    def warn_of_batches(self) -> None:
        """Tell of a batch size that somebody chose; 1 is what the harness says of itself."""
        if self.batch_size not in (None, 1, "1", "auto"):
            logger.warning("batch_size=%s changes nothing; num_slots=%d decides", self.batch_size, self.num_slots)


@dataclass(frozen=True)
class Wish:
    """How one request wants to be answered, and where its answer is cut."""

    sampling: Sampling
    stop_strings: tuple[str, ...]


def read_wish(words: Mapping[str, Any], spec: LmEvalSpec, tokenizer: Any, *, seed: int) -> Wish:
    """``words`` (``until``, ``max_gen_toks``, ``do_sample``, ``temperature``, fields of ``SettingSpec``) over ``spec``.

    Without ``do_sample`` or a temperature, greedy. A stop string that spells a special token stops at that token: text
    has none. With ``think_end_token`` stop strings only cut what follows it. ValueError for what nobody knows.
    """
    given = dict(normalize_gen_kwargs(dict(words)))
    stops = [str(stop) for stop in given.pop("until") if stop]
    count, is_sampled = given.pop("max_gen_toks"), given.pop("do_sample")
    temperature = given.pop("temperature", 1.0) if is_sampled else 0.0
    given.pop("temperature", None)
    if given.get("num_beams") == 1:
        del given["num_beams"]
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    strings = tuple(dict.fromkeys(stop for stop in stops if stop not in special))
    asked = {
        "temperature": temperature,
        "max_new_tokens": count,
        "stop_ids": sorted({special[stop] for stop in stops if stop in special}),
        "stop_strings": strings if spec.think_end_token is None else (),
    }
    setting = parse_config(SettingSpec, {**spec.setting().model_dump(exclude_unset=True), **asked, **given})
    return Wish(setting.sampling(seed), strings)
