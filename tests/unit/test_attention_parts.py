"""Attention part by part against the dense mask, in values, gradients and memory."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from revelm.masks.parts import parts, runs
from revelm.masks.visibility import CLEAN, PADDING, Pattern
from revelm.models import attention
from revelm.models.attention import MAX_DENSE, Visibility
from revelm.models.chunked_attention import additive, attend_in_parts
from revelm.models.footprint import blueprint
from revelm.models.load import new_model
from tests.models import declared_model, tiny_config

TOLERANCE = 1e-12
Labels = list[tuple[int, int, int]]


def trace_row(num_clean: int, rounds: Sequence[int], *, size: int = 4, sequence: int = 0) -> Labels:
    """Labels of [clean | copies]: block i of the last ``len(rounds)`` clean ones and one more has rounds[i] copies."""
    first = num_clean // size - len(rounds) + 1
    clean = [(CLEAN, i // size, sequence) for i in range(num_clean)]
    copies = [(r + 1, first + i, sequence) for i, count in enumerate(rounds) for r in range(count) for _ in range(size)]
    return clean + copies


def full_row(length: int, *, sequence: int = 0) -> Labels:
    return [(CLEAN + 1, 0, sequence)] * length


def pattern_of(*rows: Labels) -> Pattern:
    """Rows padded to the longest."""
    width = max(map(len, rows))
    labels = torch.tensor([row + [(CLEAN, 0, PADDING)] * (width - len(row)) for row in rows])
    return Pattern(*labels.unbind(-1))


def random_pattern(seed: int) -> Pattern:
    """Labels in no order at all: sequences interleave, blocks come twice."""
    rng = np.random.default_rng(seed)
    labels = rng.integers((0, 0, -1), (3, 4, 2), (2, 40, 3)).repeat(rng.integers(1, 4, 40), axis=1)
    labels[labels[..., 2] == PADDING] = (CLEAN, 0, PADDING)
    return Pattern(*torch.from_numpy(labels).unbind(-1))


PATTERNS: dict[str, Pattern] = {
    "copies": pattern_of(trace_row(40, [2, 1, 3, 0, 4, 1])),
    "ragged": pattern_of(trace_row(40, [2, 1, 3]), trace_row(12, [1, 1]), trace_row(28, [4, 4, 4, 4])),
    "packed": pattern_of(
        [*trace_row(40, [2, 1, 3]), *trace_row(12, [1, 3], sequence=1), *trace_row(8, [2], sequence=2)]
    ),
    "causal": pattern_of([(CLEAN, i, 0) for i in range(30)], [(CLEAN, i, 0) for i in range(17)]),
    "full": pattern_of(full_row(30), full_row(11)),
    "full packed": pattern_of([*full_row(30), *full_row(7, sequence=1), *full_row(12, sequence=2)], full_row(40)),
    **{f"random {seed}": random_pattern(seed) for seed in range(3)},
}


def inputs(pattern: Pattern, seed: int = 0) -> list[Tensor]:
    """Query with 6 heads, key and value with 2 that they share, and the gradient that comes back; zero at padding."""
    generator = torch.Generator().manual_seed(seed)
    shape = pattern.stream.shape
    query, key, value, back = (
        torch.randn(*shape, heads, 8, dtype=torch.float64, generator=generator) for heads in (6, 2, 2, 6)
    )
    back[pattern.sequence == PADDING] = 0
    return [*(x.requires_grad_() for x in (query, key, value)), back]


def results(attend: Callable[..., Tensor], pattern: Pattern) -> list[Tensor]:
    """Values at real rows, and gradients everywhere."""
    query, key, value, back = inputs(pattern)
    out = attend(query, key, value)
    return [out.detach()[pattern.sequence != PADDING], *torch.autograd.grad(out, (query, key, value), back)]


def dense(pattern: Pattern) -> Callable[..., Tensor]:
    def attend(*tensors: Tensor) -> Tensor:
        mask, heads = additive(pattern.dense(), torch.float64), [x.transpose(1, 2) for x in tensors]
        return scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    return attend


@pytest.mark.parametrize("size", [1, 6, 16, 1000])
@pytest.mark.parametrize("name", PATTERNS)
def test_parts_give_what_the_dense_mask_gives(name: str, size: int) -> None:
    """Catches a column that is dropped though one query sees it, a gradient that lands in another column or is written
    where it should be added, and heads that share the wrong keys."""
    pattern = PATTERNS[name]
    where = (pattern, parts(pattern, size))
    found = results(lambda *tensors: attend_in_parts(*tensors, where), pattern)
    for mine, expected in zip(found, results(dense(pattern), pattern), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=TOLERANCE)


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_parts_hold_every_query_once_and_what_it_sees(seed: int, size: int) -> None:
    """Catches queries that are skipped or computed twice, parts that grow beyond their size, columns that none of
    their queries sees, and parts called open that are not."""
    pattern = random_pattern(seed)
    seen = pattern.dense()[:, 0]
    count = torch.zeros_like(pattern.stream)
    for part in parts(pattern, size):
        count[part.line, part.queries] += 1
        mine = seen[part.line, part.queries]
        columns = torch.cat([torch.arange(x.start, x.stop) for x in part.ranges])
        assert torch.equal(columns, mine.any(dim=0).nonzero()[:, 0])
        assert torch.equal(part.seen(pattern), mine[:, columns])
        assert part.is_open == bool(mine[:, columns].all())
        labels = pattern.line(part.line)[:, part.queries]
        assert len(mine) <= size or bool((labels == labels[:, :1]).all())
    assert torch.equal(count, (pattern.sequence != PADDING).long())


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_runs_are_those_of_torch(seed: int, size: int) -> None:
    """Catches a run that ends where only one of several labels changes, or one too few at an end."""
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (3, size)))
    expected = labels.unique_consecutive(dim=1, return_inverse=True, return_counts=True)
    assert all(torch.equal(mine, other) for mine, other in zip(runs(labels), expected, strict=True))


def test_full_attention_needs_no_mask() -> None:
    """Catches padded or packed lines of full attention that pay for masks, or run other texts' columns."""
    found = parts(PATTERNS["full packed"], 8)
    assert [(p.line, p.queries.start, p.queries.stop) for p in found] == [
        (0, 0, 30),
        (0, 30, 37),
        (0, 37, 49),
        (1, 0, 40),
    ]
    assert all(part.is_open and part.ranges == (part.queries,) for part in found)


def long_rows(kind: str) -> tuple[Pattern, Tensor, Tensor]:
    """Two rows of more than ``MAX_DENSE`` positions, one of them padded; tokens and positions [R, L]."""
    if kind == "full":
        pattern = pattern_of(full_row(560), [*full_row(300), *full_row(230, sequence=1)])
    else:
        trace = [1, 3, 2, 4, 0] * 8
        pattern = pattern_of(trace_row(260, trace), [*trace_row(164, trace), *trace_row(8, [1, 2], sequence=1)])
    positions = torch.zeros_like(pattern.stream)
    for row, column in np.ndindex(*positions.shape):
        own = pattern.line(row)[:, column, None]
        earlier = int((pattern.line(row)[:, :column] == own).all(dim=0).sum())
        positions[row, column] = pattern.block[row, column] * 4 + earlier
    return pattern, torch.from_numpy(np.random.default_rng(0).integers(0, 46, positions.shape)), positions


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("kind", ["block", "full"])
def test_long_rows_of_a_model_are_those_of_the_dense_mask(
    kind: str, is_shifted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches long rows that take another path with other results: features and every weight's gradient."""
    model = declared_model(kind, is_shifted=is_shifted)
    pattern, tokens, positions = long_rows(kind)

    def features_and_gradients() -> list[Tensor]:
        features = model.body(tokens, positions, pattern)[pattern.sequence != PADDING]
        weights = list(model.decoder.parameters())
        return [features.detach(), *torch.autograd.grad(features.sin().sum(), weights)]

    assert Visibility(pattern, dtype=torch.float64, is_cuda=False).parts is not None
    found = features_and_gradients()
    monkeypatch.setattr(attention, "MAX_DENSE", 10_000)
    assert Visibility(pattern, dtype=torch.float64, is_cuda=False).parts is None
    for mine, expected in zip(found, features_and_gradients(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


def test_short_rows_keep_the_dense_mask() -> None:
    """Catches a change of path, and of rounding, for what is trained today."""
    short = pattern_of(trace_row(40, [2, 1, 3]), trace_row(12, [1, 1]))
    found = Visibility(short, dtype=torch.float32, is_cuda=False)
    assert found.parts is None
    assert found.mask is not None


def peak_bytes(work: Callable[[], None]) -> int:
    """The most bytes of tensors that are alive at once while ``work`` runs, beside those that were there before."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


def test_no_mask_of_the_whole_line_is_ever_made() -> None:
    """Catches a dense mask, boolean or additive, in any pass: memory grows with the length, not with its square."""
    model = new_model(tiny_config(), seed=0)

    def a_pass(num_clean: int) -> None:
        pattern = pattern_of(trace_row(num_clean, [2] * (num_clean // 4)))
        positions = torch.arange(pattern.stream.shape[1])[None] % 250
        model.body(positions % 46, positions, pattern).sum().backward()

    small, large = peak_bytes(lambda: a_pass(800)), peak_bytes(lambda: a_pass(1600))
    assert large < 2.2 * small
    assert large < (3 * 1600) ** 2  # a boolean mask


def test_the_plan_knows_that_long_rows_have_no_mask() -> None:
    """Catches a plan for masks that are not made, and one that falls where rows get longer."""
    found = blueprint(tiny_config()).footprint(4)
    masks = [found.mask(1, length) for length in range(1, 2000)]
    assert masks == sorted(masks)
    assert found.mask(3, MAX_DENSE) == 3 * 4 * MAX_DENSE**2
    pattern = pattern_of(trace_row(1600, [2] * 400))
    query, key, value, back = (x.detach().float() for x in inputs(pattern))
    tensors = [query[..., :4, :].clone(), key, value]

    def attend() -> None:
        needed = [x.requires_grad_() for x in tensors]
        Visibility(pattern, dtype=torch.float32, is_cuda=False).attend(*needed).backward(back[..., :4, :])

    length = pattern.stream.shape[1]
    around = (3 * found.query + 2 * found.shared) * 4 * length  # what the layer at work is planned with
    assert peak_bytes(attend) == pytest.approx(found.mask(1, length) + around, rel=0.5)
    assert found.mask(1, length) < length**2
