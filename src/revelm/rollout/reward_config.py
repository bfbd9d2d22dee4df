"""What a recipe says about rewards that do not come from the task."""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from revelm.core.config import Schema, Spec
from revelm.rewards.process import Aggregate


class EndpointSpec(Schema):
    """A server with the chat interface of OpenAI: ``base_url`` + ``/chat/completions`` answers POST requests.

    ``base_url``: as ``http://127.0.0.1:8000/v1``; without a path, ``/v1`` is meant. ``api_key_env``: the environment
    variable that holds the key, None for a server without one. ``max_tokens``: of a reply. ``timeout``: seconds for one
    request; one that fails is repeated up to ``retries`` times, after ``backoff`` seconds, then twice as many, and so
    on. ``concurrency``: requests at a time. ``extra``: further fields of the request, as the server knows them.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    temperature: float = Field(0.6, ge=0, allow_inf_nan=False)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(4096, ge=1)
    timeout: float = Field(300.0, gt=0, allow_inf_nan=False)
    retries: int = Field(3, ge=0)
    backoff: float = Field(1.0, ge=0, allow_inf_nan=False)
    concurrency: int = Field(16, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is no address of a server; expected as in http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("must hold no password and no query; name a key's environment variable as api_key_env")
        return value.rstrip("/") if parts.path.strip("/") else f"{value.rstrip('/')}/v1"

    @field_validator("extra")
    @classmethod
    def _check_extra(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted({*cls.model_fields, "messages", "seed", "stream"} & set(value))
        if taken:
            raise ValueError(f"must not hold {', '.join(taken)}: the request has them anyway, from the other fields")
        return value


class PatientSpec(EndpointSpec):
    """An endpoint that many questions are put to. ``on_failure``: what becomes of one that stays without a verdict:
    "fallback", it counts as missing, as long as no more than ``max_failure_share`` of a step's fail; "error": the first
    one ends the run. ``cache``: a file that remembers verdicts, for runs that are resumed or repeated.
    """

    on_failure: Literal["fallback", "error"] = "fallback"
    max_failure_share: float = Field(0.5, ge=0, le=1)
    cache: str | None = None


class JudgeSpec(PatientSpec):
    """Process rewards by a language model: every ``chunk_tokens`` tokens of an answer are graded ``num_samples`` times.

    ``shows``: "prefix", the answer up to the end of the chunk, or "excerpt", the chunk apart from what precedes it.
    ``aggregate``: "unanimous" (else the outcome stands in) or "mean" of the verdicts. ``normalise``: "group" per
    problem and chunk index, or "none". A draw without a verdict is left to ``aggregate`` with ``on_failure: fallback``.
    """

    chunk_tokens: int = Field(200, ge=1)
    num_samples: int = Field(3, ge=1)
    shows: Literal["prefix", "excerpt"] = "prefix"
    aggregate: Aggregate = "unanimous"
    normalise: Literal["group", "none"] = "group"


class RewardModelSpec(Schema):
    """A sequence classification checkpoint whose one output is the reward of a chat.

    The score of an answer becomes ``task_weight`` x the task's score + ``weight`` x the reward. ``max_length``: tokens
    of a chat; of a longer one the beginning is cut off, and it is counted. ``batch_size``: chats at a time.
    """

    path: str
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    device: str = "cpu"
    max_length: int = Field(4096, ge=2)
    batch_size: int = Field(8, ge=1)
    weight: float = Field(1.0, allow_inf_nan=False)
    task_weight: float = Field(0.0, allow_inf_nan=False)


class RewardSpec(Schema):
    """Rewards beside the task's own: scores from ``parts``, a weighted sum of rewards of whole answers, and from
    ``reward_model``; step rewards from ``judge``.

    A part is ``{kind: name or module:Class, weight: 1, name: how it is logged, ...fields of the kind}``.
    """

    parts: tuple[Spec, ...] = ()
    reward_model: RewardModelSpec | None = None
    judge: JudgeSpec | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> "RewardSpec":
        if self.parts and self.judge is not None:
            raise ValueError(
                "parts: scores of whole answers, in whose place judge puts rewards of steps, so that they would teach "
                "nothing; leave one of the two out (judge_outcome is a judge of whole answers)"
            )
        if self.parts and self.reward_model is not None and not self.reward_model.task_weight:
            raise ValueError(
                "reward_model.task_weight is 0, so that the sum of parts would count for nothing; set it to what the "
                "sum counts beside the model's reward"
            )
        return self

    def kinds(self) -> list[str]:
        """The kinds of the parts."""
        return [str(part.get("kind", "")) for part in self.parts]
