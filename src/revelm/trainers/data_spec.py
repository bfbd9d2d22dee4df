"""What SFT is told about its texts: one file, a mixture of several, or a task's demonstrations."""

from pydantic import Field, model_validator

from revelm.core.config import Schema
from revelm.data.learnable import Source
from revelm.data.mixture import whole_shares
from revelm.data.shapes import Format

NUM_DEMONSTRATIONS = 20_000


class SourceSpec(Schema):
    """One part of a mixture: ``path``, a file or a data set of the hub (``owner/name:config[split]``).

    ``weight``: how often its texts come, beside those of the other parts. ``num``: only its first rows. ``format`` and
    ``columns``: where the names of its columns do not say what they are (``revelm.data.sniff``).
    """

    path: str
    weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    num: int | None = Field(None, ge=1)
    format: Format | None = None
    columns: dict[str, str] = Field(default_factory=dict)


class DataSpec(Schema):
    """SFT texts: those at ``path``, or of several places (``mix``), or else demonstrations of the run's task.

    ``num``: of the rows of ``path`` only the first ones, None: all; of demonstrations how many, None:
    ``NUM_DEMONSTRATIONS``. ``seed``: of the demonstrations; the order of rows is drawn from the run's. ``format``,
    ``columns``: of ``path``, as in ``SourceSpec``. ``max_length``: raw texts are cut into pieces of so many tokens,
    other rows with more are refused; None: what the model can take. ``max_bad_rows``: how many rows of a file may be
    left out because they cannot be used.
    """

    path: str | None = None
    mix: tuple[SourceSpec, ...] = ()
    num: int | None = Field(None, ge=1)
    seed: int = 0
    format: Format | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    max_length: int | None = Field(None, ge=1)
    max_bad_rows: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "DataSpec":
        if self.mix and self.path is not None:
            raise ValueError("path and mix are both given; give the file as one entry of mix")
        if self.mix and self.num is not None:
            raise ValueError("num is of path and of demonstrations; entries of mix have their own")
        if self.seed and (self.mix or self.path is not None):
            raise ValueError("seed is of demonstrations; the order of rows of files is drawn from train.seed")
        if self.path is None and (self.format is not None or self.columns):
            raise ValueError("format and columns are of path; entries of mix have their own")
        if len({part.weight is None for part in self.mix}) > 1:
            raise ValueError("mix: some entries have a weight and some have none; give all of them one, or none")
        self.shares()
        return self

    def shares(self) -> tuple[int, ...]:
        """Of the parts of the mixture, as whole numbers; none without weights."""
        weights = [part.weight for part in self.mix if part.weight is not None]
        return whole_shares(weights, field="mix: weights") if weights else ()

    def sources(self) -> list[Source]:
        """The files; none where a task is the source."""
        parts = self.mix
        if self.path is not None:
            parts = (SourceSpec(path=self.path, num=self.num, format=self.format, columns=self.columns),)
        settings = ["data.path"] if self.path is not None else [f"data.mix.{i}.path" for i in range(len(parts))]
        return [
            Source(part.path, part.format, part.columns, num=part.num, max_bad_rows=self.max_bad_rows, setting=setting)
            for part, setting in zip(parts, settings, strict=True)
        ]
