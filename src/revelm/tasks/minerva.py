"""``minerva``: 272 questions of science from MIT OpenCourseWare (arXiv 2206.14858), for the test alone."""

from dataclasses import dataclass

from revelm.tasks.math_benchmark import EvaluationOnly


@dataclass(frozen=True)
class Minerva(EvaluationOnly):
    """Science with units and formulas. Rows: ``problem`` and a boxed ``solution``, or ``question`` and ``answer``."""

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "minerva"

    @property
    def hub(self) -> str:
        """The data set of the hub that has the test."""
        return "math-ai/minervamath[test]"
