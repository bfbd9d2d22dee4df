"""One step's answers: problems from the run's stream, asked by all processes together, scored, and made into samples.

Every problem of a step is asked by one process; its answers are seeded by (run, place in the stream, problem, number)
alone. The union over processes is therefore what one process would have drawn, and every process gets all of it: who
trains on what is decided afterwards, by all alike.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from revelm.core.seeds import derive_seed
from revelm.core.types import Problem
from revelm.data.stream import stream
from revelm.engine.engine import Engine
from revelm.objectives.batch import Episode
from revelm.objectives.credit import groups_within, is_distinct
from revelm.objectives.objective import RLObjective
from revelm.objectives.policy import PolicyObjective
from revelm.parallel.world import World
from revelm.rollout.collect import Answer, collect_meanwhile
from revelm.rollout.reward_source import RewardSource, with_rewards
from revelm.tasks.task import Task
from revelm.trainers.config import RLConfig


@dataclass(frozen=True)
class Ask:
    """What is asked: a task and its training problems."""

    task: Task
    problems: Sequence[Problem]

    def __post_init__(self) -> None:
        """ValueError for no problems."""
        if not self.problems:
            raise ValueError(f"task {self.task.name!r} has no training problems")


@dataclass(frozen=True, eq=False)
class Round:
    """Answers of one step, the samples worth training on, the place in the stream of problems behind them, and what
    judges beside the task had to count."""

    answers: list[Answer]
    episodes: list[Episode]
    problems_drawn: int
    counts: Mapping[str, float]


@dataclass(frozen=True)
class Asker:
    """Draws a step's answers. ``sources``: judges beside the task, asked in this order."""

    ask: Ask
    objective: RLObjective
    config: RLConfig
    world: World
    sources: Sequence[RewardSource] = ()

    def draw(self, engine: Engine, *, step: int, drawn: int) -> Round:
        """Draw problems until there is something to train on: any signal, with ``rollout.refills`` a full step of it.

        ``drawn``: problems of the stream that were asked before. At most ``rollout.max_attempts`` draws. With
        ``refills`` groups beyond a full step are left out, the latest first. Collective.
        """
        spec, answers, counts = self.config.rollout, list[Answer](), Counter[str]()
        samples, episodes = list[Episode](), list[Episode]()
        for attempt in range(spec.max_attempts):
            found, counted = self._answers(engine, drawn)
            found = [replace(a, group=a.group + attempt * spec.problems_per_step) for a in found]
            drawn += spec.problems_per_step
            drafts = to_episodes(found, self.config, (step, attempt), first=len(answers))
            samples += self.config.shaping.shaping().apply(drafts)
            episodes = self._credited(samples)
            answers += found
            counts.update(counted)
            if len({e.group for e in episodes}) >= (spec.problems_per_step if spec.refills else 1):
                break
        kept = set(list(dict.fromkeys(e.group for e in episodes))[: spec.problems_per_step])
        # Credit may be scaled over all groups of a step: it is given to those that stay, and only once to each.
        return Round(answers, self._credited([s for s in samples if s.group in kept]), drawn, counts)

    def _credited(self, samples: Sequence[Episode]) -> list[Episode]:
        """What is worth training on. A critic learns from groups that all score alike as well."""
        if self.config.value is None:
            return self.objective.credit(samples)
        assert isinstance(self.objective, PolicyObjective), "checked with the recipe"
        return groups_within(samples, self.objective.group_range)

    def _answers(self, engine: Engine, first: int) -> tuple[list[Answer], dict[str, float]]:
        """Answers to the next ``problems_per_step`` problems, of all processes, in the stream's order; and counts."""
        spec, seed, before = self.config.rollout, self.config.train.seed, engine.stats.rows
        places = stream(seed, range(first, first + spec.problems_per_step), len(self.ask.problems))
        mine = range(self.world.rank, len(places), self.world.size)
        with self.world.together():
            own = collect_meanwhile(
                engine,
                self.ask.task,
                [self.ask.problems[places[i]] for i in mine],
                sampling=spec.sampling(),
                group_size=spec.group_size,
                seed=[derive_seed(seed, "rollout", first + i) for i in mine],
            )
            own = [replace(answer, group=mine[answer.group]) for answer in own]
            counts = Counter({"rollout_positions": float(engine.stats.rows - before)})
            asked = self._worth_asking(own)
            for source in self.sources:
                found, counted = with_rewards([own[i] for i in asked], source)
                rewarded = dict(zip(asked, found, strict=True))
                own = [rewarded.get(i, answer) for i, answer in enumerate(own)]
                counts.update(counted)
        parts = self.world.gather((own, counts))
        total = Counter[str]()
        for _, counted in parts:
            total.update(counted)  # a sum of counters would lose the zeros
        return sorted((a for answers, _ in parts for a in answers), key=lambda a: a.group), total

    def _worth_asking(self, answers: Sequence[Answer]) -> list[int]:
        """Places of the answers that judges are asked about: with a judge alone, those that will be learnt from.

        Which those are is known from the task. A reward model rates all, as its rewards are the scores that are logged.
        """
        if self.config.reward.judge is None or self.config.reward.reward_model is not None:
            return list(range(len(answers)))
        samples = self.config.shaping.shaping().apply(to_episodes(answers, self.config, (0, 0)))
        return [sample.key for sample in self._credited(samples)]


def to_episodes(
    answers: Sequence[Answer], config: RLConfig, round_key: tuple[int, int], *, first: int = 0
) -> list[Episode]:
    """Answers as samples with their scores, numbered from ``first``; with ``rewards: shuffled`` scores, and with them
    what is correct, trade places within each group."""
    order = np.arange(len(answers))
    if config.rewards == "shuffled":
        rng = np.random.default_rng(derive_seed(config.train.seed, "shuffle", *round_key))
        size = config.rollout.group_size
        order = np.concatenate([rng.permutation(order[i : i + size]) for i in range(0, len(order), size)])
    samples = []
    for key, (answer, of) in enumerate(zip(answers, order.tolist(), strict=True)):
        score, is_correct = answers[of].score, answers[of].score.breakdown["correct"] > 0
        finer = {"rewards": answer.rewards, "step_rewards": answer.step_rewards}
        about = {"is_correct": is_correct, **finer}
        samples.append(Episode(answer.trajectory, score.value, answer.group, first + key, **about))
    return samples


def rollout_metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Means over the answers of one step; of what scores hold beside ``correct``, over those that have it."""
    tokens = [a.trajectory.num_tokens for a in answers]
    groups: dict[int, list[float]] = {}
    parts: dict[str, list[float]] = {}
    for answer in answers:
        groups.setdefault(answer.group, []).append(answer.score.value)
        for name, value in answer.score.breakdown.items():
            parts.setdefault(name, []).append(value)
    means = {name: float(np.mean(found)) for name, found in parts.items() if name != "correct"}
    return means | {
        "reward": float(np.mean([a.score.value for a in answers])),
        "accuracy": float(np.mean([a.score.breakdown["correct"] for a in answers])),
        "length": float(np.mean(tokens)),
        "tokens_per_forward": float(np.sum(tokens) / np.sum([a.trajectory.num_forwards for a in answers])),
        "truncated": float(np.mean([a.trajectory.finish_reason == "length" for a in answers])),
        "num_answers": float(len(answers)),
        "groups_without_signal": float(np.mean([not is_distinct(np.array(found)) for found in groups.values()])),
    }
