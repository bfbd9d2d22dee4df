"""Rewards by functions of users, called as other frameworks call them, so that they can be used as they are.

``trl``: once for all answers of a step,

    f(prompts=[...], completions=[...], completion_ids=[...], **columns) -> list[float | None]

with every column of the data set as a list: ``question``, ``reference`` (also as ``answer``, ``ground_truth`` and
``solution``), ``problem_id``, what the problem's ``info`` holds, and the columns of the user's file, of which the last
goes first where names are the same; None where a problem has no such column. Prompts are chats, as in TRL for
conversational data sets, and completions then are chats of one turn, ``[{"role": "assistant", "content": text}]``;
with ``shows: text`` both are texts.

``verl``: once for each answer,

    compute_score(data_source=..., solution_str=..., ground_truth=..., extra_info=...) -> float | dict

with the columns of these names where they are there, or else the problem's id without its number, the reference, and
all columns. Of a dict, ``score`` is the reward, and the other numbers are logged.

A function without ``**kwargs`` is given the arguments that it names. A coroutine is awaited.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal

from revelm.core.errors import RunError
from revelm.core.types import COLUMNS
from revelm.rewards.reward import Judged, Ratings
from revelm.rollout.function_files import load_function

Convention = Literal["auto", "trl", "verl"]
_TRL = ("prompts", "completions", "completion_ids")
_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")
_KEYWORDS = inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True)
class Function:
    """A function of the user's.

    ``path``: ``package.module:function``, or ``folder/file.py:function``. ``convention``: how it is called; "auto":
    "verl" if it takes ``solution_str``, "trl" if it takes ``prompts``, ``completions`` or ``completion_ids``.
    ``shows``: "chat" or "text" (trl). ``kwargs``: further arguments.
    """

    path: str
    convention: Convention = "auto"
    shows: Literal["chat", "text"] = "chat"
    kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Loads the function. Raises ValueError for one that is not there, or cannot be called."""
        self._style()

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.path.rpartition(":")[2]

    def check_columns(self, answer: Judged) -> None:
        """ValueError where the function demands an argument that answers like this one do not have."""
        offered = self._trl([answer]) if self._style() == "trl" else self._verl(answer)
        missing = [p.name for p in self._parameters() if _is_required(p) and p.name not in offered]
        if missing:
            raise ValueError(
                f"path={self.path!r}: the function wants {', '.join(missing)}, but problems of this task have "
                f"{', '.join(sorted(offered))}; give the column, or the argument in kwargs"
            )

    def rate_all(self, answers: Sequence[Judged]) -> Ratings:
        """The function's numbers. RunError, naming function and problem, for what it raises or gives back wrongly."""
        if self._style() == "verl":
            pairs = [self._read_verl(self._called(self._verl(answer), [answer]), answer) for answer in answers]
            return Ratings(tuple(value for value, _ in pairs), tuple(detail for _, detail in pairs))
        if not answers:
            return Ratings(())
        found = self._called(self._trl(answers), answers)
        values = _as_list(found)
        if values is None or len(values) != len(answers):
            raise RunError(f"{self._who}: gave {_short(found)} for {len(answers)} answers; expected a list of as many")
        return Ratings(tuple(self._number(value, a) for value, a in zip(values, answers, strict=True)))

    @property
    def _who(self) -> str:
        return f"reward function {self.path}"

    def _parameters(self) -> list[inspect.Parameter]:
        function = load_function(self.path)
        try:
            return list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError) as error:
            raise ValueError(f"path={self.path!r}: has no signature that can be read; wrap it in a function") from error

    def _style(self) -> Literal["trl", "verl"]:
        parameters = self._parameters()
        names = {p.name for p in parameters}
        if self.convention != "auto":
            return self.convention
        if "solution_str" in names:
            return "verl"
        if names & set(_TRL) or any(p.kind is _KEYWORDS for p in parameters):
            return "trl"
        raise ValueError(
            f"path={self.path!r}: the function takes {', '.join(sorted(names)) or 'nothing'}; expected completions (as "
            "for TRL) or solution_str (as for verl), or say which it is with convention"
        )

    def _trl(self, answers: Sequence[Judged]) -> dict[str, Any]:
        """The arguments of one call about all ``answers``."""
        rows = [columns(answer) for answer in answers]
        names = dict.fromkeys(name for row in rows for name in row)
        found: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
        if self.shows == "chat":
            found["prompts"] = [[dict(turn) for turn in a.prompt] for a in answers]
            found["completions"] = [[{"role": "assistant", "content": a.completion.text}] for a in answers]
        else:
            found["prompts"] = ["\n\n".join(turn["content"] for turn in a.prompt) for a in answers]
            found["completions"] = [a.completion.text for a in answers]
        found["completion_ids"] = [list(a.token_ids) for a in answers]
        return found | (self.kwargs or {})

    def _verl(self, answer: Judged) -> dict[str, Any]:
        """The arguments of the call about one answer."""
        problem, row = answer.problem, columns(answer)
        return {
            "data_source": row.get("data_source", problem.id.partition(":")[0]),
            "solution_str": answer.completion.text,
            "ground_truth": row["ground_truth"],
            "extra_info": row.get("extra_info", row),
        } | (self.kwargs or {})

    def _called(self, arguments: Mapping[str, Any], answers: Sequence[Judged]) -> Any:
        """What the function gives for ``arguments``, which are about ``answers``."""
        parameters = self._parameters()
        if not any(p.kind is _KEYWORDS for p in parameters):
            arguments = {p.name: arguments[p.name] for p in parameters if p.name in arguments}
        try:
            return _finished(load_function(self.path), arguments)
        except (Exception, SystemExit) as error:
            where = f"problem {answers[0].problem.id!r}" if len(answers) == 1 else self._culprit(answers)
            is_text_meant = self._style() == "trl" and self.shows == "chat" and "'list'" in str(error)
            remedy = "; completions are chats, [{'role': ..., 'content': ...}]: shows: text gives texts"
            told = f"{self._who}: {_told(error)}, about {where}"
            raise RunError(told + remedy if is_text_meant else told) from error

    def _culprit(self, answers: Sequence[Judged]) -> str:
        """Which of many answers the function fails about: the first that it fails about alone."""
        for answer in answers:
            try:
                self._called(self._trl([answer]), [answer])
            except RunError:
                return f"problem {answer.problem.id!r}"
        problems = list(dict.fromkeys(answer.problem.id for answer in answers))
        return f"{len(answers)} answers to {len(problems)} problems together ({problems[0]!r}, ...), not one alone"

    def _read_verl(self, found: Any, answer: Judged) -> tuple[float | None, dict[str, float]]:
        if not isinstance(found, Mapping):
            return self._number(found, answer), {}
        if "score" not in found:
            raise RunError(f"{self._who}: gave {_short(found)}, without 'score', about problem {answer.problem.id!r}")
        numbers = {k: float(v) for k, v in found.items() if k != "score" and isinstance(v, bool | int | float)}
        return self._number(found["score"], answer), {k: v for k, v in numbers.items() if isfinite(v)}

    def _number(self, value: Any, answer: Judged) -> float | None:
        """A reward as a float. Numbers of numpy and torch are ones."""
        if value is None:
            return None
        try:
            number = float("nan") if isinstance(value, str) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not isfinite(number):
            raise RunError(
                f"{self._who}: gave {_short(value)} about problem {answer.problem.id!r}; expected a finite number, or "
                "None for no opinion"
            )
        return number


def columns(answer: Judged) -> dict[str, Any]:
    """What is known about a problem, by the names that data sets use."""
    problem = answer.problem
    names = ("reference", "answer", "ground_truth", "solution")
    known = {"question": problem.question, "problem_id": problem.id, **dict.fromkeys(names, problem.reference)}
    inner = dict(problem.info)
    own = inner.pop(COLUMNS, {})
    return known | inner | own


def _finished(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    found = function(**arguments)
    return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found


async def _awaited(found: Any) -> Any:
    return await found


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, _KEYWORDS)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def _as_list(value: Any) -> list[Any] | None:
    """The entries of a list, an array or a tensor; None for anything else."""
    if isinstance(value, str | bytes | Mapping):
        return None
    try:
        return list(value)
    except TypeError:
        return None


def _told(error: BaseException) -> str:
    """The error and the line that raised it."""
    frames = extract_tb(error.__traceback__)
    words = " ".join(str(error).split())[:200]
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "unknown place"
    return f"{type(error).__name__}{f': {words}' if words else ''} ({place})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
