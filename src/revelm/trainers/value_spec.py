"""What a run can be told about its critic."""

from typing import Literal

from pydantic import Field, model_validator

from revelm.core.config import Schema


class ValueSpec(Schema):
    """A value model whose step-level advantages take the place of credit relative to a group.

    ``backbone``: "own", a second model, copied from the policy or read from ``path``; "shared", a head on the policy's
    features, trained in the same updates with ``weight`` times its loss. ``learning_rate``: of an own backbone; all
    else about its optimiser is the policy's. ``head_learning_rate``: of the head, whose gradient is then clipped apart;
    null: that of the backbone under it. ``clip``: radius of the value clip; null: none. ``warmup_steps``: first
    steps of the run in which only the value is trained. ``epochs``: passes of an own backbone over each step's rows.
    ``whiten``: advantages to mean 0 and deviation 1 over each step.
    """

    backbone: Literal["own", "shared"] = "own"
    path: str | None = None
    learning_rate: float = Field(5e-6, gt=0)
    head_learning_rate: float | None = Field(None, gt=0)
    weight: float = Field(0.5, gt=0)
    gamma: float = Field(1.0, ge=0, le=1)
    lam: float = Field(1.0, ge=0, le=1)
    clip: float | None = Field(0.2, gt=0)
    warmup_steps: int = Field(0, ge=0)
    epochs: int = Field(1, ge=1)
    whiten: bool = False

    @property
    def own_rates(self) -> dict[str, float]:
        """Peak rates by name of a value model's parameters, where they differ from the others'."""
        return {} if self.head_learning_rate is None else {"value_head.weight": self.head_learning_rate}

    @model_validator(mode="after")
    def _check_backbone(self) -> "ValueSpec":
        """Every field that is set must mean something; fields of the other kind keep their defaults."""
        foreign = ("path", "learning_rate", "epochs") if self.backbone == "shared" else ("weight",)
        values, other = self.model_dump(), "own" if self.backbone == "shared" else "shared"
        for name in foreign:
            if values[name] != type(self).model_fields[name].default:
                raise ValueError(f"{name} means nothing with backbone={self.backbone}; leave it out or set {other}")
        return self
