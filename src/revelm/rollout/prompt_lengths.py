"""Which problems are too long to be answered: known from their prompts, before anything is asked."""

from collections.abc import Sequence
from typing import Any

from revelm.core.types import Family, Problem
from revelm.decoding.sampling import Sampling
from revelm.engine.prompts import prompt_ids
from revelm.engine.request import shortage
from revelm.tasks.task import Task


def prompts_of(task: Task, problems: Sequence[Problem], tokenizer: Any) -> list[list[int]]:
    """Token ids of the prompts. ValueError names the problem that has none."""
    prompts = []
    for problem in problems:
        try:
            prompts.append(prompt_ids(task.prompt(problem), tokenizer))
        except ValueError as error:
            raise ValueError(f"problem {problem.id}: {error}") from error
    return prompts


def too_long(prompts: Sequence[Sequence[int]], sampling: Sampling, family: Family) -> dict[int, str]:
    """Places of the prompts that leave too little room for an answer, each with why, as the end of a sentence."""
    found = {place: shortage(len(prompt), sampling, family) for place, prompt in enumerate(prompts)}
    return {place: reason for place, reason in found.items() if reason}


def remedy_of(name: str) -> str:
    """What to do about prompts that are too long, beside asking for fewer tokens, in the settings ``name``."""
    if name == "rollout":  # an evaluation leaves nothing out
        return "shorten the problem, or let such problems be left out (rollout.max_long_prompts)"
    return "or shorten or remove the problem"


def said_of(found: dict[int, str], problems: Sequence[Problem]) -> str:
    """The first of what ``too_long`` has found, and how many there are, for people."""
    place, reason = next(iter(found.items()))
    more = f" ({len(found)} of {len(problems)} problems are too long)" if len(found) > 1 else ""
    return f"problem {problems[place].id} {reason}{more}"
