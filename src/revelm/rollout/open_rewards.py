"""From a recipe's ``reward`` section to what judges its answers."""

from revelm.models.reward_model import check_reward_model
from revelm.rollout.chat_endpoint import read_key
from revelm.rollout.model_rewards import ModelRewards
from revelm.rollout.outcome_judge import JudgeOutcome
from revelm.rollout.part_rewards import PartRewards, check_columns, read_parts
from revelm.rollout.process_rewards import ProcessRewards
from revelm.rollout.reward_config import RewardSpec
from revelm.rollout.reward_source import RewardSource
from revelm.rollout.verdict_cache import check_cache
from revelm.tasks.task import Task


def check_rewards(spec: RewardSpec, task: Task | None = None) -> None:
    """ValueError for what ``open_rewards`` would refuse that needs no weights: a part that cannot be built, a missing
    key or reward model, or a cache that cannot be written; with ``task`` also a function that wants what its problems
    do not have. Writes nothing, but runs the modules of users' functions."""
    parts = read_parts(spec.parts)
    judges = [part.reward.judge for part in parts if isinstance(part.reward, JudgeOutcome)]
    for judge in judges if spec.judge is None else [*judges, spec.judge]:
        read_key(judge)
        check_cache(judge.cache)
    if task is not None:
        check_columns(parts, task)
    if spec.reward_model is not None:
        check_reward_model(spec.reward_model.path)


def open_rewards(spec: RewardSpec, task: Task, *, seed: int) -> list[RewardSource]:
    """The sources that ``spec`` names, in the order in which they are to be asked: scores first, then step rewards.

    Loads the reward model. Raises ValueError, naming the field, for one that cannot be used and for a judge whose key
    is not in the environment.
    """
    sources: list[RewardSource] = []
    if spec.parts:
        sources.append(PartRewards(read_parts(spec.parts), task, seed=seed))
    if spec.reward_model is not None:
        sources.append(ModelRewards(spec.reward_model, task))
    if spec.judge is not None:
        sources.append(ProcessRewards(spec.judge, seed=seed))
    return sources
