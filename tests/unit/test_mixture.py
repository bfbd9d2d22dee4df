"""Mixtures: exact proportions, epochs of their own, any part at any time; and what a recipe may say of them."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revelm.core.config import load_config, parse_config
from revelm.core.registry import build
from revelm.core.types import Family
from revelm.data.mixture import MAX_WINDOW, Mixture, whole_shares
from revelm.data.stream import stream
from revelm.data.tokenizer import encode_text
from revelm.data.trace_rows import TraceRow, write_traces
from revelm.objectives.random_mask_sft import RandomMaskSFT
from revelm.trainers.config import SFTConfig
from revelm.trainers.session import Start
from revelm.trainers.texts import Texts, read_texts
from tests.tiny_checkpoint import tiny_model, tiny_tokenizer

BASE = {"model": {"path": "m"}, "train": {"steps": 1}, "out": "o"}


def owners(mixture: Mixture, places: list[int]) -> list[int]:
    """The source of each sample."""
    ends = np.cumsum(mixture.sizes)
    return [int(np.searchsorted(ends, place, side="right")) for place in places]


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    shares=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    seed=st.integers(0, 99),
    cuts=st.lists(st.integers(0, 80), max_size=4),
)
def test_mixtures_keep_their_proportions(sizes: list[int], shares: list[int], seed: int, cuts: list[int]) -> None:
    """Catches proportions that hold on average only, samples that come twice in an epoch of their source, and a stream
    that depends on where it was asked before."""
    mixture = Mixture(tuple(sizes), tuple(shares[: len(sizes)]))
    window = sum(mixture.shares)
    whole = mixture.places(seed, range(80))
    for first in range(0, 80 - window + 1, window):
        found = Counter(owners(mixture, whole[first : first + window]))
        assert [found[i] for i in range(len(sizes))] == list(mixture.shares)
    for source, size in enumerate(sizes):
        own = [place for place, owner in zip(whole, owners(mixture, whole), strict=True) if owner == source]
        for first in range(0, len(own) - size + 1, size):
            assert len(set(own[first : first + size])) == size
    bounds = [0, *sorted(cuts), 80]
    parts = [mixture.places(seed, range(a, b)) for a, b in pairwise(bounds)]
    assert [place for part in parts for place in part] == whole


def test_without_weights_the_sources_are_one_set() -> None:
    """Catches runs on one file that go through it in another order than they did."""
    assert Mixture((7,)).places(3, range(20)) == stream(3, range(20), 7)
    assert Mixture((3, 4)).places(3, range(20)) == stream(3, range(20), 7)
    weighted = Mixture((50, 50), (1, 1))
    assert weighted.places(0, range(40)) != weighted.places(1, range(40))
    orders = {tuple(owners(weighted, weighted.places(0, range(i, i + 2)))) for i in range(0, 40, 2)}
    assert orders == {(0, 1), (1, 0)}, "sources are to come in a seeded order, not in turns"


def test_weights_become_whole_shares() -> None:
    """Catches proportions that rounding changes."""
    assert whole_shares([3, 1], field="w") == (3, 1)
    assert whole_shares([0.3, 0.1], field="w") == (3, 1)
    assert whole_shares([2.5, 5, 7.5], field="w") == (1, 2, 3)
    assert whole_shares([1e-3, 0.999], field="w") == (1, 999)
    assert sum(whole_shares([0.5, 0.5], field="w")) <= MAX_WINDOW
    with pytest.raises(ValueError, match=r"w: 0\.33333, 1 are 33333:100000, which no 10000 samples hold"):
        whole_shares([0.33333, 1], field="w")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "a", "mix": [{"path": "b"}]}, "data: path and mix are both given"),
        ({"mix": [{"path": "b", "weight": 2}, {"path": "c"}]}, "data: mix: some entries have a weight and some have"),
        ({"mix": [{"path": "b", "weight": float("inf")}]}, r"data\.mix\.0\.weight: must be a finite number"),
        ({"mix": [{"path": "b", "weight": 0}]}, r"data\.mix\.0\.weight: must be greater than 0, got 0"),
        (
            {"mix": [{"path": "b", "weight": 1e-9}, {"path": "c", "weight": 1}]},
            "data: mix: weights: .* rounder weights",
        ),
        ({"mix": [{"path": "b", "num": 0}]}, r"data\.mix\.0\.num: must be greater than or equal to 1"),
        ({"mix": [{"weight": 1}]}, r"data\.mix\.0\.path: required"),
        ({"path": "a", "format": "texts"}, r"data\.format: must be 'messages'"),
        ({"format": "text"}, "data: format and columns are of path"),
        ({"path": "a", "max_length": 0}, r"data\.max_length: must be greater than or equal to 1"),
        ({"mix": [{"path": "b"}], "num": 5}, "data: num is of path and of demonstrations; entries of mix have their"),
        ({"path": "a", "seed": 1}, "data: seed is of demonstrations; .* drawn from train.seed"),
        ({"pathh": "a"}, "data.pathh: unknown field; did you mean 'path'"),
    ],
)
def test_what_a_recipe_may_not_say(data: dict[str, Any], message: str) -> None:
    """Catches settings that are ignored."""
    with pytest.raises(ValueError, match=message):
        parse_config(SFTConfig, BASE | {"data": data})


def test_a_mixture_in_words() -> None:
    """Catches a list that the command line cannot give."""
    words = ["model.path=m", "train.steps=1", "out=o", "data.mix=[{path: a.csv, weight: 3}, {path: o/n, weight: 1}]"]
    assert load_config(SFTConfig, None, words).data.shares() == (3, 1)


def lines(folder: Path, name: str, rows: list[Any]) -> str:
    """A file of rows."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def texts(data: dict[str, Any], family: Family | None = None, objective: Any = None) -> Texts:
    """What a run would learn."""
    kind = family or tiny_model().family
    config = parse_config(SFTConfig, BASE | {"data": data})
    spec = {"kind": "block_sft" if kind.attention == "block" else "random_mask_sft"}
    return read_texts(config, Start(config, None, kind, tiny_tokenizer()), objective or build("objectives", spec))


def test_num_is_of_the_file_too(tmp_path: Path) -> None:
    """Catches `data.num` that is ignored beside `data.path`."""
    path = lines(tmp_path, "a.jsonl", [{"prompt": str(i), "completion": "b"} for i in range(5)])
    assert [len(texts({"path": path, "num": num}).samples) for num in (2, 9, None)] == [2, 5, 5]


def test_sources_of_every_shape_in_one_mixture(tmp_path: Path) -> None:
    """Catches texts of the wrong source, keys that come twice, and an order that is lost on the way."""
    chats = lines(tmp_path, "a.jsonl", [{"prompt": str(i), "completion": "b"} for i in range(5)])
    raw = lines(tmp_path, "b.jsonl", [{"text": "c" * 200}, {"text": "d"}])
    traces = str(tmp_path / "t.parquet")
    write_traces(
        traces, [TraceRow(np.arange(3, 8), 2, np.array([1, 3, 2], dtype=np.int32), settings={"block_size": 4})]
    )
    mix = [{"path": chats, "num": 3, "weight": 2}, {"path": raw, "weight": 1}, {"path": traces, "weight": 0.5}]
    found = texts({"mix": mix})
    assert found.mixture == Mixture((3, 4, 1), (4, 2, 1))
    assert [text.key for text in found.samples] == list(range(8))
    assert [len(text.ids) for text in found.samples[3:7]] == [96, 96, 9, 2]
    assert found.samples[7].step is not None
    assert texts({"mix": [{key: part[key] for key in ("path",)} for part in mix]}).mixture == Mixture((5, 4, 1))
    with pytest.raises(ValueError, match=r"data\.mix\.1\.path='none\.csv': cannot be read"):
        texts({"mix": [{"path": chats}, {"path": "none.csv"}]})
    for known in ({"block_size": 4}, {}):
        write_traces(traces, [TraceRow(np.arange(3, 8), 2, np.array([1, 3, 2], dtype=np.int32), settings=known)])
        with pytest.raises(ValueError, match="has no step"):
            texts({"mix": [{"path": traces}, {"path": chats}]}, objective=build("objectives", {"kind": "trace_sft"}))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="not a Parquet file, or a damaged one"):
        texts({"path": str(tmp_path / "bad.parquet")})


@pytest.mark.parametrize(
    ("model", "spec", "size"),
    [
        ({}, {"kind": "block_sft"}, 96),
        ({}, {"kind": "block_sft", "num_pad": 2}, 96),
        ({"model_type": "Dream"}, {"kind": "random_mask_sft"}, 96),
        ({"model_type": "Dream"}, {"kind": "semi_ar_sft", "block_size": 7}, 96),
        ({"model_type": "Dream"}, {"kind": "ar_sft"}, 96),
        ({}, {"kind": "block_sft"}, 18),
        ({"model_type": "Dream"}, {"kind": "random_mask_sft"}, 18),
    ],
)
def test_raw_texts_are_learnt_from_their_first_token(
    tmp_path: Path, model: dict[str, Any], spec: dict[str, Any], size: int
) -> None:
    """Catches objectives that need a prompt, pieces that are no whole blocks and are filled up with pads that are
    learnt, and tokens that are never predicted."""
    text = "".join(chr(ord("a") + i % 26) for i in range(230))
    path = lines(tmp_path, "a.jsonl", [{"text": text}])
    family, objective = tiny_model(**model).family, build("objectives", spec)
    found = texts({"path": path, "max_length": None if size == 96 else size}, family, objective)
    step = size // (family.block_size or 1) * (family.block_size or 1)
    tokenizer = tiny_tokenizer()
    assert [i for one in found.samples for i in one.ids.tolist()] == [*encode_text(tokenizer, text), 2]
    assert [len(one.ids) for one in found.samples[:-1]] == [step] * (len(found.samples) - 1)
    assert {one.prompt_length for one in found.samples} == {0}
    learnt: Counter[tuple[int, int]] = Counter()
    for seed in range(12):
        for one in found.samples:
            batch = objective.prepare([one], family, seed)
            width = batch.tokens.shape[1]
            for place, target in zip(batch.scored.tolist(), batch.targets.tolist(), strict=True):
                position = int(batch.positions[place // width, place % width])
                is_end = one is found.samples[-1] and position >= len(one.ids)
                assert is_end or one.ids[position] == target
                learnt[one.key, position] += 1
    skipped = {(one.key, 0) for one in found.samples} if spec["kind"] == "ar_sft" else set()
    wanted = {(one.key, i) for one in found.samples for i in range(len(one.ids))} - skipped
    assert wanted <= set(learnt)


def test_long_rows(tmp_path: Path) -> None:
    """Catches chats that are cut, and raw texts that are cut where pads behind a text are learnt."""
    chats = lines(tmp_path, "a.jsonl", [{"prompt": "a", "completion": "b" * 30}])
    raw = lines(tmp_path, "b.jsonl", [{"text": "c" * 200}])
    with pytest.raises(ValueError, match=r"row 1 \(line 1\) has 35 tokens, and data.max_length is 20"):
        texts({"path": chats, "max_length": 20})
    assert len(texts({"path": chats, "max_length": 96}).samples) == 1
    full = tiny_model(model_type="Dream").family
    assert len(texts({"path": raw}, full, RandomMaskSFT()).samples) == 3
    with pytest.raises(ValueError, match="has 201 tokens and takes 203 positions"):
        texts({"path": raw}, full, RandomMaskSFT(num_pad=2))
    with pytest.raises(ValueError, match=r"tokens, and data\.max_length is 2"):
        texts({"path": raw, "max_length": 2})
