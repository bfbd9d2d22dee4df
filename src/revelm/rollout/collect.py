"""The one path from problems to scored answers, for training and evaluation alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from revelm.core.seeds import derive_seed
from revelm.core.types import Completion, Family, Problem, Score
from revelm.data.offsets import token_offsets
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.engine.named_caches import check_requests
from revelm.engine.prompts import make_requests
from revelm.engine.settings import CacheSpec
from revelm.rollout.prompt_lengths import prompts_of, remedy_of, said_of, too_long
from revelm.rollout.verdicts import judging, verdicts
from revelm.tasks.task import Messages, Task
from revelm.trajectories.record import Trajectory


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer to one problem: how it was decoded, what it says, what it is worth. ``group`` numbers the problem.

    ``rewards`` float64 [R]: what each completion token earned, or ``step_rewards`` float64 [num_steps]: each denoising
    step, where a judge gave more than one score (``revelm.rollout.reward_source``).
    """

    problem: Problem
    group: int
    trajectory: Trajectory
    completion: Completion
    score: Score
    rewards: np.ndarray | None = None
    step_rewards: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a score or rewards that cannot be trained on: not finite, not one per token or step,
        or of both kinds."""
        where = f"problem {self.problem.id!r}"
        if not isfinite(self.score.value):
            raise ValueError(f"{where}: the score of an answer is {self.score.value}; scores are finite numbers")
        if self.rewards is not None and self.step_rewards is not None:
            raise ValueError(f"{where}: an answer has rewards per token and per step; give one of them")
        _check_rewards(self.rewards, len(self.trajectory.completion_ids), "token", where=where)
        _check_rewards(self.step_rewards, self.trajectory.num_steps, "step", where=where)


def _check_rewards(rewards: np.ndarray | None, size: int, unit: str, *, where: str) -> None:
    if rewards is not None and rewards.shape != (size,):
        raise ValueError(f"{where}: rewards of shape {rewards.shape} for an answer of {size} {unit}s")
    if rewards is not None and not np.isfinite(rewards).all():
        raise ValueError(f"{where}: the reward of {unit} {int((~np.isfinite(rewards)).argmax())} is not finite")


@dataclass(frozen=True)
class _Draw:
    """One answer to be drawn; ``sampling`` has its seed."""

    problem: Problem
    group: int
    sampling: Sampling


Ended = tuple[Trajectory, Completion]


def collect(
    engine: Engine,
    task: Task,
    problems: Sequence[Problem],
    *,
    sampling: Sampling,
    group_size: int,
    seed: int | Sequence[int],
) -> list[Answer]:
    """``group_size`` answers to every problem, scored; answers to one problem are neighbours.

    Every answer's seed comes from (``seed``, problem id, number of the answer) alone, so that a problem's answers do
    not depend on which others are asked. ``seed``: one for all, under which a problem that is asked twice gets the same
    answers twice; or one per problem. The engine needs a tokenizer. ValueError names the problem whose answer the task
    gave no usable score.
    """
    draws = _draws(problems, sampling, group_size=group_size, seed=seed)
    ended = _decoded(engine, _prompts(task, draws), draws)
    scores = verdicts(task, [(draw.problem, said) for draw, (_, said) in zip(draws, ended, strict=True)])
    return [_answer(draw, *end, score) for draw, end, score in zip(draws, ended, scores, strict=True)]


def collect_meanwhile(
    engine: Engine,
    task: Task,
    problems: Sequence[Problem],
    *,
    sampling: Sampling,
    group_size: int,
    seed: int | Sequence[int],
) -> list[Answer]:
    """The answers of ``collect``; workers begin with the verdicts of a guarded task while others are being decoded.

    Where workers have no cores of their own they slow the engine down, so this is not for measuring its speed.
    """
    draws = _draws(problems, sampling, group_size=group_size, seed=seed)
    prompts, places = _prompts(task, draws), list[int]()
    with judging(task) as judge:

        def tell(place: int, said: Completion) -> None:
            places.append(place)
            judge.add([(draws[place].problem, said)])

        ended = _decoded(engine, prompts, draws, tell=tell, look=judge.look)
        scores = {places[i]: score for i, score in judge.rest()}
    return [_answer(draw, *ended[i], scores[i]) for i, draw in enumerate(draws)]


def _draws(
    problems: Sequence[Problem], sampling: Sampling, *, group_size: int, seed: int | Sequence[int]
) -> list[_Draw]:
    own = [seed] * len(problems) if isinstance(seed, int) else seed
    return [
        _Draw(problem, group, replace(sampling, seed=derive_seed(one, "answer", problem.id, i)))
        for group, (problem, one) in enumerate(zip(problems, own, strict=True))
        for i in range(group_size)
    ]


def _prompts(task: Task, draws: Sequence[_Draw]) -> list[Messages]:
    return [task.prompt(draw.problem) for draw in draws]


def _decoded(
    engine: Engine,
    prompts: Sequence[Messages],
    draws: Sequence[_Draw],
    *,
    tell: Callable[[int, Completion], None] | None = None,
    look: Callable[[], None] | None = None,
) -> list[Ended]:
    """Records and texts, in order. ``tell``: is told of each as it ends, with its place; ``look``: called often."""
    said: dict[int, Completion] = {}

    def end(place: int, trajectory: Trajectory) -> None:
        said[place] = read_completion(engine.tokenizer, trajectory)
        if tell is not None:
            tell(place, said[place])

    trajectories = engine.generate(prompts, [draw.sampling for draw in draws], on_finish=end, on_step=look)
    return [(trajectory, said[place]) for place, trajectory in enumerate(trajectories)]


def _answer(draw: _Draw, trajectory: Trajectory, completion: Completion, score: Score) -> Answer:
    info = {"problem": draw.problem.id, "score": score.value}
    return Answer(draw.problem, draw.group, replace(trajectory, info=info), completion, score)


def check_problems(
    task: Task,
    problems: Sequence[Problem],
    settings: Mapping[str, Sampling],
    *,
    family: Family,
    tokenizer: Any,
    cache: CacheSpec | None = None,
) -> None:
    """ValueError for a problem that ``collect`` could not ask under one of ``settings``.

    ``settings``: by the name under which an error speaks of them. ``cache``: of the engine that will be asked; None:
    any that serves all. Needs no weights.
    """
    prompts = prompts_of(task, problems, tokenizer)
    for name, sampling in settings.items():
        if found := too_long(prompts, sampling, family):
            raise ValueError(f"{name}: {said_of(found, problems)}; lower {name}.max_new_tokens, {remedy_of(name)}")
        try:
            requests = make_requests(prompts, sampling, family, tokenizer)
            if cache is not None:
                check_requests(requests, cache)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def read_completion(tokenizer: Any, trajectory: Trajectory) -> Completion:
    """A trajectory's response as text; special tokens, the stop token and the stop string are left out.

    ``offsets`` has an entry for each of the ``stop_length`` response tokens, the stop included.
    """
    ids = trajectory.response_ids.tolist()
    if trajectory.finish_reason == "stop":
        ids = ids[:-1]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if trajectory.finish_reason == "stop_string":
        text = text[: min((text.find(s) for s in trajectory.sampling["stop_strings"] if s in text), default=len(text))]
    offsets = token_offsets(tokenizer, ids, text)
    offsets += (len(text),) * (trajectory.stop_length - len(ids))
    return Completion(text, trajectory.num_tokens, trajectory.num_forwards, trajectory.finish_reason, offsets)
