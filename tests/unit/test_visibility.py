"""The visibility rule against its definition in words, and its three faces against each other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revelm.core.types import Family
from revelm.masks.visibility import CLEAN, PADDING, Pattern, kv_limit, pattern_for
from revelm.models.attention import Visibility
from tests.models import sharp_model


def family(attention: str, block_size: int | None = None) -> Family:
    return Family("any", attention, False, block_size, 48, 47, (46,), 50, 256)  # type: ignore[arg-type]


def sees(query: tuple[int, int, int], key: tuple[int, int, int]) -> bool:
    """The definition, written as sentences are: labels are (stream, block, sequence)."""
    if query[2] != key[2]:
        return False
    if query[0] == CLEAN:
        return key[0] == CLEAN and key[1] <= query[1]
    if key[0] == CLEAN:
        return key[1] < query[1]
    return key[0] == query[0] and key[1] == query[1]


def random_labels(seed: int, rows: int = 2, length: int = 14) -> Pattern:
    rng = np.random.default_rng(seed)
    stream, block = rng.integers(0, 3, (rows, length)), rng.integers(0, 4, (rows, length))
    sequence = rng.integers(-1, 2, (rows, length))
    padding = sequence == PADDING
    stream[padding], block[padding] = CLEAN, 0
    return Pattern(*(torch.from_numpy(x) for x in (stream, block, sequence)))


def dual_stream(num_clean: int, copies: list[tuple[int, int]], size: int, offset: int = 0) -> Pattern:
    """[clean | copy of block b in stream c | ...] as one row."""
    clean = [(CLEAN, (i - offset) // size, 0) for i in range(num_clean)]
    labels = clean + [(stream, block, 0) for block, stream in copies for _ in range(size)]
    return Pattern(*(torch.tensor([[label[i] for label in labels]]) for i in range(3)))


@given(st.integers(0, 10_000))
def test_dense_and_mask_mod_follow_the_definition(seed: int) -> None:
    """Catches a sign or an off-by-one in the rule, and a flex mask that is not the dense one: CUDA would train on
    other contexts than the CPU tests check."""
    pattern = random_labels(seed)
    dense, mod = pattern.dense(), pattern.mask_mod()
    rows, length = pattern.stream.shape
    labels = torch.stack((pattern.stream, pattern.block, pattern.sequence), -1).tolist()
    expected = [[[sees(labels[r][q], labels[r][k]) for k in range(length)] for q in range(length)] for r in range(rows)]
    assert dense[:, 0].tolist() == expected
    index = torch.meshgrid(*(torch.arange(n) for n in (rows, 1, length, length)), indexing="ij")
    assert torch.equal(mod(*index), dense)
    scalar = [mod(*(torch.tensor(i) for i in (0, 0, q, k))).item() for q in range(length) for k in range(length)]
    assert scalar == dense[0, 0].flatten().tolist()


@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_kv_limit_is_the_clean_part_of_the_rule(size: int) -> None:
    """Catches a cache that shows one block too many or too few: the cached engine would not equal the recompute."""
    positions = torch.arange(21)
    for kind in (family("block", size), family("causal")):
        dense = pattern_for(kind, positions[None]).dense()[0, 0]
        limit = kv_limit(kind, positions, 21)
        assert torch.equal(positions[None, :] < limit[:, None], dense)
    assert (kv_limit(family("full"), positions, 21) == 21).all()
    assert pattern_for(family("full"), positions[None]).dense().all()


def test_a_hidden_copy_sees_what_its_denoising_step_saw() -> None:
    """Catches copies that see each other, or the clean version of their own block, which holds the answer."""
    copies = [(1, 1), (1, 2), (2, 1)]
    dense = dual_stream(8, copies, 4).dense()[0, 0]
    starts = {copy: 8 + 4 * i for i, copy in enumerate(copies)}
    for (block, _), start in starts.items():
        allowed = set(range(block * 4)) | set(range(start, start + 4))
        for row in range(start, start + 4):
            assert set(dense[row].nonzero()[:, 0].tolist()) == allowed
    for row in range(8):
        assert set(dense[row].nonzero()[:, 0].tolist()) == set(range((row // 4 + 1) * 4))


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_a_copy_gives_the_features_of_the_real_step(offset: int) -> None:
    """Catches labels that are right on paper while positions or the grid are not: every copy in one packed forward
    must give what a forward of its own gives."""
    model, size, rng = sharp_model(), 4, np.random.default_rng(offset)
    ids = torch.from_numpy(rng.integers(0, 46, (1, 12 + offset)))
    copies = [(1, 1), (2, 1), (2, 2)]
    pattern = dual_stream(8 + offset, copies, size, offset)
    parts, places = [ids[:, : 8 + offset]], [torch.arange(8 + offset)]
    for block, stream in copies:
        span = torch.arange(block * size, (block + 1) * size) + offset
        shown = ids[:, span].clone()
        shown[:, : 2 * stream] = model.family.mask_id
        parts.append(shown)
        places.append(span)
    tokens, positions = torch.cat(parts, 1), torch.cat(places)[None]
    with torch.no_grad():
        packed = model.body(tokens, positions, pattern)[0, 8 + offset :].view(3, size, -1)
        for i, (block, _) in enumerate(copies):
            start = block * size + offset
            alone = torch.cat((ids[:, :start], parts[1 + i]), 1)
            own = torch.arange(start + size)[None]
            zeros = torch.zeros_like(own)
            features = model.body(alone, own, Pattern(zeros, (own - offset) // size, zeros))[0, start:]
            torch.testing.assert_close(packed[i], features, rtol=0, atol=1e-10)


def test_padding_neither_becomes_nan_nor_reaches_anyone() -> None:
    """Catches padding rows that see nothing (softmax over nothing is NaN, and NaN gradients spread) or are seen."""
    model = sharp_model()
    ids, positions = torch.arange(12)[None] % 46, torch.arange(12)[None]
    sequence = torch.where(torch.arange(12)[None] < 8, 0, PADDING)
    zeros = torch.zeros_like(ids)
    pattern = Pattern(zeros, torch.where(sequence == 0, positions // 4, 0), sequence)
    query = torch.randn(1, 12, 4, 8, dtype=torch.float64, requires_grad=True)
    key = torch.randn(1, 12, 2, 8, dtype=torch.float64, requires_grad=True)
    Visibility(pattern, dtype=query.dtype, is_cuda=False).attend(query, key, key)[:, :8].sum().backward()
    assert torch.isfinite(query.grad).all()
    assert torch.isfinite(key.grad).all()
    assert (key.grad[:, 8:] == 0).all()
    with torch.no_grad():
        padded = model.body(ids, positions, pattern)
        alone = model.body(ids[:, :8], positions[:, :8], None)
    assert torch.isfinite(padded).all()
    torch.testing.assert_close(padded[:, :8], alone, rtol=0, atol=1e-10)
