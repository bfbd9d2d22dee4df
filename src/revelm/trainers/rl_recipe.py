"""What an RL recipe has wrong, found before weights are loaded: hours into a run is too late."""

import logging
from dataclasses import replace
from heapq import nlargest

from revelm.core.registry import build
from revelm.core.types import Family
from revelm.engine.named_caches import cache_for
from revelm.engine.settings import Approximate
from revelm.models.blocks import decoding_family
from revelm.objectives.objective import FamilyObjective, RLObjective
from revelm.objectives.policy import PolicyObjective
from revelm.rollout.collect import check_problems
from revelm.rollout.prompt_lengths import prompts_of, said_of, too_long
from revelm.trainers.config import RLConfig, RolloutSpec
from revelm.trainers.critic import check_critic
from revelm.trainers.rollouts import Ask
from revelm.trainers.session import Start

MAX_CHECKED = 4096

_LOG = logging.getLogger(__name__)


def rl_objective(config: RLConfig) -> RLObjective:
    """The objective; ValueError for one that cannot be built, or learns from texts."""
    objective = build("objectives", config.objective, field="objective")
    if not isinstance(objective, RLObjective):
        raise ValueError(
            f"objective.kind: {config.objective['kind']!r} learns from texts; train with it by `revelm sft`"
        )
    return objective


def check_rl(start: Start, objective: RLObjective, ask: Ask) -> RLObjective:
    """The objective, settled for how this run decodes. ValueError for what some step of this run would refuse.

    Rollouts are checked problem by problem; of more than ``MAX_CHECKED`` training problems, the longest.
    """
    config: RLConfig = start.config
    task, problems = ask.task, ask.problems
    if isinstance(objective, FamilyObjective):
        objective.check_family(start.family)
    if config.value is not None:
        check_critic(objective)
    if len(problems) > MAX_CHECKED:
        problems = nlargest(MAX_CHECKED, problems, key=lambda p: sum(len(turn["content"]) for turn in task.prompt(p)))
    sampling = config.rollout.sampling()
    if isinstance(objective, PolicyObjective) and config.value is None and sampling.is_deterministic:
        raise ValueError(
            "rollout.temperature: 0 leaves nothing to chance, so that all answers of a group are the same and none is "
            "better than another; must be above 0, or the rule random"
        )
    cache = cache_for(start.family, config.rollout.cache, field="rollout.cache")
    family = rollout_family(start.family, config.rollout.block_size)
    check_problems(task, problems, {"rollout": sampling}, family=family, tokenizer=start.tokenizer, cache=cache)
    return settled(objective, config.rollout, start.family)


def fitting(start: Start, ask: Ask) -> Ask:
    """``ask`` without the problems that are too long, at most ``rollout.max_long_prompts``; which is logged.

    ValueError where there are more. With none allowed nothing is looked at: ``check_rl`` finds them.
    """
    spec: RolloutSpec = start.config.rollout
    if not spec.max_long_prompts:
        return ask
    family = rollout_family(start.family, spec.block_size)
    found = too_long(prompts_of(ask.task, ask.problems, start.tokenizer), spec.sampling(), family)
    if not found:
        return ask
    said = said_of(found, ask.problems)
    if len(found) > spec.max_long_prompts:
        raise ValueError(
            f"rollout.max_long_prompts: {spec.max_long_prompts}, but {len(found)} of {len(ask.problems)} training "
            f"problems are too long: {said}; raise it, lower rollout.max_new_tokens, or shorten or remove the problems"
        )
    _LOG.warning("rollout: %d of %d training problems are left out: %s", len(found), len(ask.problems), said)
    return replace(ask, problems=[problem for i, problem in enumerate(ask.problems) if i not in found])


def settled(objective: RLObjective, spec: RolloutSpec, family: Family) -> RLObjective:
    """``objective`` as it trains ``family`` on answers drawn as ``spec`` says.

    ValueError when it cannot: recorded log-probabilities, or weights made from them, of other contexts than those that
    are trained.
    """
    if not isinstance(objective, PolicyObjective):
        return objective
    cache = cache_for(family, spec.cache, field="rollout.cache")
    size = rollout_family(family, spec.block_size).block_size
    is_same = size == family.block_size
    if not is_same and objective.importance == "truncated":
        raise ValueError(
            f"objective.importance is 'truncated', but answers are decoded in blocks of {size} (rollout.block_size) "
            f"and trained in blocks of {family.block_size}: their probabilities differ by their contexts, and no "
            "weight corrects for that; leave it out, or decode in the blocks that are trained"
        )
    if objective.behaviour == "recorded" and not (is_same and not isinstance(cache, Approximate)):
        why = "through an approximate cache (rollout.cache)" if is_same else f"in blocks of {size} (rollout.block_size)"
        raise ValueError(
            f"objective.behaviour is 'recorded', but answers are decoded {why}, so that recorded log-probabilities are "
            "those of other contexts; set it to 'recomputed', or leave it out"
        )
    return objective.settled(spec.sampling(), is_cache_exact=is_same and not isinstance(cache, Approximate))


def rollout_family(family: Family, block_size: int | None) -> Family:
    """The family that answers are decoded with. ValueError for blocks that do not fill those that are trained."""
    found = decoding_family(family, block_size, field="rollout.block_size")
    if family.block_size is not None and found.block_size is not None and family.block_size % found.block_size:
        raise ValueError(
            f"rollout.block_size: {block_size}, but blocks of {family.block_size} are trained; give a divisor of that, "
            "or leave it out"
        )
    return found
