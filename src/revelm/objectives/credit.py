"""Group-relative credit: an answer is worth what it beats the other answers to the same problem by.

GRPO (Shao et al. 2024, arXiv 2402.03300, eq. 3); leave-one-out after RLOO (Ahmadian et al. 2024).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from revelm.objectives.batch import Episode

Estimator = Literal["zscore", "mean", "leave_one_out"]


def group_credit(samples: Sequence[Episode], estimator: Estimator) -> list[Episode]:
    """Samples with credit set; groups whose scores are (as good as) equal carry no signal and are left out.

    ``zscore``: (score - mean) / population standard deviation of its group; ``mean``: score - mean;
    ``leave_one_out``: score - mean of the others. Order is kept. Raises ValueError for a score that is not finite.
    """
    members: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        if not np.isfinite(sample.score):
            raise ValueError(f"score of sample {i} (group {sample.group}) is {sample.score}, must be finite")
        members.setdefault(sample.group, []).append(i)
    credit: dict[int, float] = {}
    for places in members.values():
        scores = np.array([samples[i].score for i in places], dtype=np.float64)
        if np.ptp(scores) > 0 and scores.std() > 0:
            credit |= dict(zip(places, _credit(scores, estimator).tolist(), strict=True))
    return [replace(samples[i], credit=credit[i]) for i in sorted(credit)]


def _credit(scores: np.ndarray, estimator: Estimator) -> np.ndarray:
    centred = scores - scores.mean()
    if estimator == "zscore":
        return centred / scores.std()
    if estimator == "mean":
        return centred
    if estimator == "leave_one_out":
        return centred * len(scores) / (len(scores) - 1)
    raise ValueError(f"objective.advantage is {estimator!r}, allowed: 'zscore', 'mean', 'leave_one_out'")
