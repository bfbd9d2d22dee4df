"""How much memory a run needs, moment by moment, from its recipe and the model's config.json: nothing is loaded.

A run's peak is that of its most expensive moment. Each moment lists what is alive in it: the weights always; masters
and moments of AdamW from the first update on; gradients, as micro-batches add up; what the forward kept, and the one
thing under way. Sizes are those of tensors; the interpreter and its libraries come on top (``PROCESS_BYTES``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from revelm.models.footprint import Footprint
from revelm.models.shards import CHUNK_BYTES
from revelm.objectives.score import chunk_rows, recomputes_logits
from revelm.trainers.learner import AVERAGE, GATHERED, GRADIENTS, MASTERS, MOMENTS, WEIGHTS, Learner

PROCESS_BYTES = 450 << 20
GRID_BYTES = 40  # per position of a batch: five int64 labels
KEPT, MASKS, WORKING, LOGITS, CACHE = "kept activations", "attention masks", "layer at work", "logits, head", "KV cache"
RULE_MEMORY = "memory of the rule"
CRITIC, REFERENCE = "critic", "reference policy"
HELD = (WEIGHTS, MASTERS, MOMENTS, AVERAGE, CRITIC, REFERENCE)
PARTS = (*HELD, GATHERED, GRADIENTS, KEPT, MASKS, WORKING, LOGITS, CACHE, RULE_MEMORY)


@dataclass(frozen=True)
class MicroBatch:
    """``rows`` lines of ``length`` positions, of which ``scored`` in all are predicted at most."""

    rows: int
    length: int
    scored: int

    @property
    def positions(self) -> int:
        """Padded positions in all."""
        return self.rows * self.length


@dataclass(frozen=True)
class Moment:
    """Bytes that are alive in one moment of a run, by part."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def loading(weights: Mapping[str, int], *, widened: int = 0) -> Moment:
    """Weights are read into place, one chunk at a time where their dtype changes.

    ``widened``: bytes of the layer that becomes shards; all weights are whole before.
    """
    return Moment("loading", {**weights, WORKING: max(CHUNK_BYTES, widened)})


def training(
    learner: Learner,
    batch: MicroBatch,
    *,
    recomputes: bool,
    held: Mapping[str, int] | None = None,
    phase: str = "",
    has_head: bool = True,
) -> list[Moment]:
    """The moments of an update of several micro-batches: the head's turn, the layers' turn, the optimiser's turn.

    ``held``: all that is there anyway, the learner's own included (only that, if not given). ``phase``: what names
    begin with. ``has_head``: whether tokens are predicted; a critic's head is too small to be a moment.
    """
    found, held = learner.found, learner.resting() if held is None else held
    sums = learner.trained * found.wide
    forward = {**held, **learner.borrowed(), GRADIENTS: sums, MASKS: found.mask(batch.rows, batch.length)}
    kept = found.kept(batch.positions, recomputes=recomputes, wanted=batch.scored)
    forward[KEPT] = kept + GRID_BYTES * batch.positions
    layers = range(found.sizes.num_hidden_layers)
    again = max(found.kept_by_layer(i) for i in layers) * batch.positions if recomputes else 0
    gradient = learner.scattered() or found.counts.largest * found.narrow
    under_way = found.backward(batch.positions) + again + gradient
    is_copied = learner.shards is None and found.narrow < found.wide
    unsummed = found.counts.trained * found.narrow if is_copied else 0
    scratch = 2 * learner.largest if found.is_dense else learner.trained
    update = {**held, GRADIENTS: sums + unsummed, WORKING: scratch * found.wide}
    moments = [Moment(f"{phase}layers", {**forward, WORKING: under_way}), Moment(f"{phase}update", update)]
    if learner.processes > 1:
        together = {**held, GRADIENTS: sums, WORKING: learner.reduction()}
        moments.insert(1, Moment(f"{phase}reduction", together))
    if has_head:
        moments.insert(0, Moment(f"{phase}head", {**forward, LOGITS: _head(found, batch.scored)}))
    return moments


def _head(found: Footprint, scored: int) -> int:
    """Log-probabilities and three tensors like them, of one chunk; those of the others, where they are kept; the head's
    gradient, summed over chunks."""
    vocabulary = found.sizes.vocab_size
    chunk = min(scored, chunk_rows(vocabulary))
    others = 0 if recomputes_logits(scored, vocabulary) else (scored - chunk) * vocabulary * found.wide
    logits = chunk * vocabulary * found.wide
    weight = 0 if found.rank else vocabulary * found.sizes.hidden_size * found.narrow
    summed = weight if scored > chunk else 0
    return others + max(4 * logits + summed, logits + summed + weight)


def largest_that_fits(total: Callable[[int], int], room: int, most: int) -> int | None:
    """The largest n from 1 to ``most`` with ``total(n)`` <= ``room`` bytes; ``total`` never falls. None: not even 1."""
    if total(1) > room:
        return None
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= room else (low, middle)
    return low
