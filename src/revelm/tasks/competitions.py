"""``aime2024``, ``aime2025``, ``amc23``: competitions of the Mathematical Association of America; no training split."""

from dataclasses import dataclass

from revelm.tasks.math_benchmark import EvaluationOnly


@dataclass(frozen=True)
class AIME2024(EvaluationOnly):
    """The 30 problems of AIME 2024, I and II; answers are 0 to 999."""

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "aime2024"

    @property
    def hub(self) -> str:
        """The data set of the hub that has the test."""
        return "HuggingFaceH4/aime_2024[train]"


@dataclass(frozen=True)
class AIME2025(EvaluationOnly):
    """The 30 problems of AIME 2025, I and II; answers are 0 to 999."""

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "aime2025"

    @property
    def hub(self) -> str:
        """The data set of the hub that has the test."""
        return "math-ai/aime25[test]"


@dataclass(frozen=True)
class AMC23(EvaluationOnly):
    """40 problems of AMC 12 2023, asked without their options."""

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "amc23"

    @property
    def hub(self) -> str:
        """The data set of the hub that has the test."""
        return "math-ai/amc23[test]"
