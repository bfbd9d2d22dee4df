"""Scores of answers by a reward model, as in reinforcement learning from human feedback."""

from collections.abc import Sequence

from revelm.core.errors import RunError
from revelm.models.reward_model import RewardModel, load_reward_model
from revelm.rollout.collect import Answer
from revelm.rollout.reward_config import RewardModelSpec
from revelm.rollout.reward_source import Rewarded, RewardResult
from revelm.tasks.chats import answered_chat
from revelm.tasks.task import Task


class ModelRewards:
    """Outcome rewards by a model; a ``RewardSource``."""

    def __init__(self, spec: RewardModelSpec, task: Task) -> None:
        """Loads the model. Raises ValueError for a checkpoint that is none of a reward model."""
        self._spec = spec
        self._task = task
        self._model: RewardModel = load_reward_model(
            spec.path, dtype=spec.dtype, device=spec.device, max_length=spec.max_length
        )

    def score(self, answers: Sequence[Answer]) -> Rewarded:
        """New scores, and ``reward_model`` in the breakdown: the model's number. Counts: ``reward_truncated``.

        RunError for a number that is not finite.
        """
        whole = [answered_chat(self._task.prompt(answer.problem), answer.completion.text) for answer in answers]
        chats = [(list(chat[:-1]), chat[-1]["content"]) for chat in whole]
        found = self._model.rewards(chats, batch_size=self._spec.batch_size)
        results = []
        for answer, reward in zip(answers, found.values, strict=True):
            if reward is None:
                raise RunError(f"the reward model's output for problem {answer.problem.id!r} is not a finite number")
            outcome = self._spec.task_weight * answer.score.value + self._spec.weight * reward
            results.append(RewardResult(outcome=outcome, breakdown={"reward_model": reward}))
        return Rewarded(tuple(results), {"reward_truncated": float(found.num_truncated)})
