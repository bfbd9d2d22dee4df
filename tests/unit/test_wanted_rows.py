"""Features of some rows alone: the same numbers and gradients, without the last layer's work on the others."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from revelm.masks.visibility import PADDING, Pattern
from revelm.models.attention import MAX_DENSE, Visibility
from revelm.models.load import new_model
from tests.families import CONFIGS, tiny
from tests.models import declared_model, sharpened, tiny_config
from tests.unit.test_attention_parts import full_row, long_rows, pattern_of, trace_row

TOLERANCE = 1e-10


def short_rows(kind: str) -> tuple[Pattern, Tensor, Tensor]:
    """A long and a padded line below ``MAX_DENSE`` positions, with hidden copies or without; tokens, positions."""
    if kind == "full":
        pattern = pattern_of(full_row(30), [*full_row(12), *full_row(9, sequence=1)])
    else:
        pattern = pattern_of(trace_row(24, [2, 1, 3]), trace_row(8, [1, 2]))
    place = torch.arange(pattern.stream.shape[1]).expand_as(pattern.stream)
    return pattern, (7 * place + 3) % 46, pattern.block * 4 + place % 4 if kind == "block" else place


def wanted_of(pattern: Pattern) -> Tensor:
    """About a third of the rows that are no padding, in places R x L, none of the first half of the first line."""
    real = (pattern.sequence != PADDING).flatten().nonzero()[:, 0]
    return real[real > pattern.stream.shape[1] // 2][::3]


def results(model: Any, features: Tensor) -> list[Tensor]:
    """Features, and the gradient of every weight."""
    weights = [p for p in model.decoder.parameters() if p.requires_grad]
    return [features.detach(), *torch.autograd.grad(features.sin().sum(), weights)]


def assert_rows_are_those_of_the_whole(model: Any, pattern: Pattern, tokens: Tensor, positions: Tensor) -> None:
    rows = wanted_of(pattern)
    whole = model.body(tokens, positions, pattern).flatten(0, 1)[rows]
    some = model.body(tokens, positions, pattern, rows=rows)
    for mine, expected in zip(results(model, some), results(model, whole), strict=True):
        torch.testing.assert_close(mine, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("kind", ["block", "full"])
@pytest.mark.parametrize("make", [short_rows, long_rows])
def test_features_and_gradients_are_those_of_the_whole(
    make: Any, kind: str, is_shifted: bool, recomputes: bool
) -> None:
    """Catches rows taken before they are mixed, residuals of other rows, rows of a shifted model that are not moved to
    the row that speaks about them, and parts left out though a wanted row is in them."""
    pattern, tokens, positions = make(kind)
    assert (pattern.stream.shape[1] > MAX_DENSE) == (make is long_rows)
    model = deepcopy(declared_model(kind, is_shifted=is_shifted)).train()
    model.decoder.recomputes_layers = recomputes
    assert_rows_are_those_of_the_whole(model, pattern, tokens, positions)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_has_them(name: str) -> None:
    """Catches layers, of experts or with fused projections, that rows without lines do not pass through."""
    model = sharpened(tiny(name).double())
    pattern, tokens, positions = short_rows("full" if model.family.attention == "full" else "block")
    assert_rows_are_those_of_the_whole(model, pattern, tokens % 40, positions)


def test_rows_that_are_named_twice_count_twice() -> None:
    """Catches a set of rows: in shifted models two rows may be about the same one's successor."""
    model = declared_model("block")
    pattern, tokens, positions = short_rows("block")
    rows = torch.tensor([5, 40, 5])
    features = model.body(tokens, positions, pattern, rows=rows)
    assert torch.equal(features[0], features[2])
    whole = model.body(tokens, positions, pattern).flatten(0, 1)[rows]
    for mine, expected in zip(results(model, features), results(model, whole), strict=True):
        torch.testing.assert_close(mine, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_last_layer_runs_on_wanted_rows_only() -> None:
    """Catches savings that are none: rows nobody asks for must not pass the last feed-forward, nor be mixed at all
    where a whole part of a long line is unwanted; earlier layers have to run whole."""
    model = new_model(tiny_config(), seed=0)
    pattern, tokens, positions = long_rows("block")
    rows = wanted_of(pattern)
    sizes: list[int] = []
    for layer in model.decoder.layers:
        layer.mlp.register_forward_hook(lambda _m, _i, out: sizes.append(out.numel() // out.shape[-1]))
    model.body(tokens, positions, pattern, rows=rows)
    assert sizes == [tokens.numel()] * (len(sizes) - 1) + [len(rows)]
    assert len(sizes) == len(model.decoder.layers)
    seen = Visibility(pattern, dtype=torch.float32, is_cuda=False)
    some = seen.only(rows)
    assert seen.parts is not None
    assert some.parts is not None
    assert 0 < len(some.parts) < len(seen.parts)
    length = pattern.stream.shape[1]
    held = [row for part in some.parts for row in range(part.line * length + part.queries.start,
                                                        part.line * length + part.queries.stop)]  # fmt: skip
    assert set(rows.tolist()) <= set(held)
