"""Forwards of block models: rows of the current blocks over a cache of committed ones, which is exact."""

from time import perf_counter
from typing import Literal, TypeAlias

from torch import Tensor

from revelm.engine.kv_cache import KVCache
from revelm.engine.rows import Rows, commit_rows, decode_rows
from revelm.engine.slots import Slots, Undecided
from revelm.engine.stats import EngineStats
from revelm.models.language_model import LanguageModel

Commit: TypeAlias = Literal["fused", "separate"]


class CachedBlocks:
    """The cache of one run and the forwards over it. ``commit`` "separate": finished blocks have own forwards."""

    def __init__(self, model: LanguageModel, slots: Slots, stats: EngineStats, *, commit: Commit) -> None:
        sizes = model.sizes
        self.model, self.slots, self.stats, self.commit = model, slots, stats, commit
        self.cache = KVCache(
            num_layers=sizes.num_hidden_layers,
            num_slots=slots.num_slots,
            capacity=slots.capacity,
            heads=(sizes.num_key_value_heads, sizes.head_dim),
            hidden_size=sizes.hidden_size,
            like=model.lm_head.weight,
        )

    def features(self, undecided: Undecided) -> Tensor:
        """Features [N, D] of the undecided positions, with commits and prefills on the way."""
        if self.commit == "separate":
            self._commit()
        features = self._forward(decode_rows(self.slots, self.cache))
        return features.index_select(0, undecided.slot * self.slots.size + undecided.offset)

    def move(self, source: int, target: int) -> None:
        """Slot ``source`` goes on as slot ``target``."""
        self.cache.move(source, target, int(self.slots.slot["start"][target]))

    def _commit(self) -> None:
        """Put finished blocks into the cache; charged to those whose block it is."""
        n = self.slots.count
        pending = self.slots.slot["pending"][:n]
        if bool(pending.any()):
            self._forward(commit_rows(self.slots, self.cache))
            self.stats.commit_forwards += 1
            self.slots.slot["forwards"][:n] += pending
            pending.fill_(False)

    def _forward(self, rows: Rows) -> Tensor:
        began = perf_counter()
        self.cache.begin(rows.places, rows.segments, rows.predecessors)
        features: Tensor = self.model.body(rows.tokens[None], rows.positions[None], None, self.cache)
        self.stats.count_forward(len(rows.tokens), perf_counter() - began)
        return features[0]
