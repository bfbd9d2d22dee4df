"""Texts to learn from, as token ids: rows of files and of the hub, collected traces, or demonstrations of a task."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from revelm.core.grid import padded_length
from revelm.core.registry import build
from revelm.core.types import Demonstration, Family
from revelm.data.learnable import Source, learnable_ids
from revelm.data.mixture import Mixture
from revelm.data.sample_ids import Ids
from revelm.data.tokenizer import encode_demonstration
from revelm.data.trace_rows import TraceRow, holds_traces, read_traces
from revelm.objectives.batch import Text
from revelm.objectives.supervised import SupervisedObjective
from revelm.tasks.task import DemonstrationTask
from revelm.trainers.config import SFTConfig
from revelm.trainers.data_spec import NUM_DEMONSTRATIONS
from revelm.trainers.session import Start

DIGEST = "texts"  # in a run's cursor


@dataclass(frozen=True, eq=False)
class Texts:
    """Samples, each with its number as its key, and in which order they come."""

    samples: list[Text]
    mixture: Mixture

    @property
    def digest(self) -> str:
        """What tells these samples from others, orders of reveals included, and their sources."""
        found = blake2b(repr(self.mixture.sizes).encode(), digest_size=16)
        for text in self.samples:
            found.update(f"{len(text.ids)},{text.prompt_length},{text.step is None};".encode())
            for part in (text.ids, text.step):
                found.update(b"" if part is None else part.astype("<i8").tobytes())
        return found.hexdigest()

    def check_unchanged(self, cursor: MutableMapping[str, Any]) -> None:
        """ValueError when the run of ``cursor``, which remembers its samples, has learnt from others so far."""
        if cursor.setdefault(DIGEST, self.digest) != self.digest:
            raise ValueError(
                "resume: data has not the texts that the run has learnt so far; put the files back as they were, or "
                "change out"
            )


def read_texts(config: SFTConfig, start: Start, objective: Any) -> Texts:
    """The samples of ``config.data``. ValueError, with its place, for a sample that is refused or too long.

    Rows of the first sample, and of the first with an order from blocks of each size, are made for trial: what they
    lack (a reveal order, one of these blocks) is an error before weights are loaded.
    """
    data, family = config.data, start.family
    limit = min(data.max_length or family.max_length, family.max_length)
    if sources := data.sources():
        room = _Room(family, objective, limit)
        parts = [_read_source(source, start.tokenizer, room) for source in sources]
    else:
        parts = [encode_texts(_demonstrations(config), start.tokenizer)]
        check_texts(parts[0], family, objective)
    texts = [replace(text, key=i) for i, text in enumerate(text for part in parts for text in part)]
    for text in {(text.block_size, text.step is None): text for text in reversed(texts)}.values():
        objective.prepare([text], family, 0)
    return Texts(texts, Mixture(tuple(map(len, parts)), data.shares()))


@dataclass(frozen=True)
class _Room:
    """What a run can take: ``limit`` tokens, in positions of ``family`` as ``objective`` counts them."""

    family: Family
    objective: Any
    limit: int

    @property
    def piece(self) -> int | None:
        """Tokens of a piece of a raw text: whole blocks. None: texts are not cut, as pads that are learnt behind each
        text would teach that it ends where it was cut."""
        size = self.family.block_size or 1
        if size == 1 and _num_positions(self.limit, self.family, self.objective) > self.limit:
            return None
        return max(size, self.limit // size * size)

    def fault(self, ids: Ids) -> str:
        """Why a sample cannot be learnt, as the end of a sentence; "" when it can."""
        if len(ids.ids) > self.limit < self.family.max_length:
            return f"has {len(ids.ids)} tokens, and data.max_length is {self.limit}; shorten or remove the row"
        return _fault(_text(ids), self.family, self.objective)


def _read_source(source: Source, tokenizer: Any, room: _Room) -> list[Text]:
    if source.format is None and not source.columns and holds_traces(source.path):
        texts = [_traced(row, i, room.family) for i, row in enumerate(read_traces(source.path)[: source.num])]
        check_texts(texts, room.family, room.objective, where=source.path)
        return texts
    return [_text(ids) for ids in learnable_ids(source, tokenizer, size=room.piece, fault=room.fault)]


def _text(ids: Ids) -> Text:
    step = None if ids.step is None else np.array(ids.step, dtype=np.int32)
    return Text(np.array(ids.ids, dtype=np.int64), ids.prompt_length, 0, step)


def _traced(row: TraceRow, key: int, family: Family) -> Text:
    """A row of a file of traces. Collected without windows, the whole response is one."""
    size = row.settings.get("block_size")
    if size is None and "block_size" in row.settings and family.attention == "full":
        size = len(row.step)
    return Text(row.ids, row.prompt_length, key, row.step, size)


def check_texts(texts: Sequence[Text], family: Family, objective: Any, *, where: str = "data") -> None:
    """ValueError, with its number, for a sample that a model of ``family`` cannot learn; and where there are none."""
    if not texts:
        raise ValueError(f"{where}: no samples to train on")
    for i, text in enumerate(texts):
        if reason := _fault(text, family, objective):
            raise ValueError(f"{where}{',' if where != 'data' else ''} row {i + 1} {reason}")


def _demonstrations(config: SFTConfig) -> list[Any]:
    if config.task is None:
        raise ValueError(
            "data.path, data.mix and task are all missing; give files to learn from, or a task with demonstrations"
        )
    task = build("tasks", config.task, field="task")
    if not isinstance(task, DemonstrationTask):
        raise ValueError(f"task {task.name!r} has no demonstrations to learn from; give a file of chats in data.path")
    return list(task.demonstrations(config.data.num or NUM_DEMONSTRATIONS, config.data.seed))


def encode_texts(demonstrations: Sequence[Demonstration], tokenizer: Any) -> list[Text]:
    """Demonstrations as token ids. ValueError, with its number, for one that is refused."""
    texts = []
    for i, demonstration in enumerate(demonstrations):
        try:
            ids, prompt_length = encode_demonstration(tokenizer, demonstration.messages)
        except ValueError as error:
            raise ValueError(f"data row {i + 1}: {error}") from error
        texts.append(Text(np.array(ids, dtype=np.int64), prompt_length, i))
    return texts


def _num_positions(count: int, family: Family, objective: Any) -> int:
    if isinstance(objective, SupervisedObjective):
        return objective.num_positions(count, family)
    return int(padded_length(count, family.block_size or 1))


def _fault(text: Text, family: Family, objective: Any) -> str:
    """Why a model of ``family`` cannot learn ``text``, as the end of a sentence; empty when it can."""
    count, largest = len(text.ids), int(text.ids.max())
    size = _num_positions(count, family, objective)
    if size > family.max_length:
        room = f"the model has {family.max_length}"
        return f"has {count} tokens and takes {size} positions; {room}; shorten or remove the row"
    if largest >= family.vocab_size:
        return (
            f"has the token id {largest}, and the model's vocabulary has {family.vocab_size} entries; give it the "
            "tokenizer it was made with"
        )
    banned = np.isin(text.ids[text.prompt_length :], family.banned_ids)
    if banned.any():
        wrong = int(text.ids[text.prompt_length + int(banned.argmax())])
        return f"has the token id {wrong} in its response, which the model never predicts (its mask); remove the row"
    return ""
