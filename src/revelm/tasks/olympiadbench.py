"""``olympiadbench``: olympiad mathematics in English without pictures (arXiv 2402.14008), for the test alone.

Answers may be several (``final_answer`` is a list) and have a unit (``unit``), which need not be said; ``error`` is by
how much a number may be off.
"""

from dataclasses import dataclass

from revelm.tasks.math_benchmark import EvaluationOnly


@dataclass(frozen=True)
class OlympiadBench(EvaluationOnly):
    """The 674 or 675 open problems of the part OE_TO_maths_en_COMP."""

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "olympiadbench"

    @property
    def hub(self) -> str:
        """The data set of the hub that has the test."""
        return "Hothan/OlympiadBench:OE_TO_maths_en_COMP[train]"
