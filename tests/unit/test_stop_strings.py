"""Stop strings: where a response ends when its text says so."""

from dataclasses import replace
from typing import Any

import pytest

from revelm.data.tokenizer import build_tiny_tokenizer
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.engine.stop_strings import stop_string_end
from tests.models import prompt_of, sharp_model

FREE = Sampling(max_new_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tiny_tokenizer(["hello hello world", "stop now"], 270)


def first_end(tokenizer: Any, ids: list[int], stop: str) -> int | None:
    """The definition: the fewest leading tokens whose text, without special tokens, contains ``stop``."""
    texts = ((n, tokenizer.decode(ids[:n], skip_special_tokens=True)) for n in range(1, len(ids) + 1))
    return next((n for n, text in texts if stop in text), None)


def test_the_end_is_the_first_token_that_completes_a_stop_string(tokenizer: Any) -> None:
    """Catches a search that finds a later occurrence, or misses a string that spans tokens."""
    ids = tokenizer.encode("one stop now, two stop now\nhello stop", add_special_tokens=False)
    for stop in ("stop", "stop now", "p no", "o", "\nh", "w, t", "hello stop"):
        assert stop_string_end(tokenizer, ids, (stop,)) == first_end(tokenizer, ids, stop)
    assert stop_string_end(tokenizer, ids, ("hello", "two")) == first_end(tokenizer, ids, "two")
    assert stop_string_end(tokenizer, ids, ("absent",)) is None
    assert stop_string_end(tokenizer, [], ("absent",)) is None


def test_special_tokens_are_not_text(tokenizer: Any) -> None:
    """Catches a "<" that stops at the end-of-turn token, and a word that a pad in its middle hides."""
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    word = tokenizer.encode("stop now", add_special_tokens=False)
    assert stop_string_end(tokenizer, [*word, end], ("<", "|im")) is None
    parted = [*word[:1], pad, *word[1:], end]
    assert stop_string_end(tokenizer, parted, ("stop now",)) == len(parted) - 1


def test_generation_ends_at_the_string_wherever_it_is(tokenizer: Any) -> None:
    """Catches a stop string that is looked for in the prompt, in hidden positions, or only at block ends."""
    model = sharp_model(vocab_size=270)
    engine = Engine(model, tokenizer, num_slots=4)
    prompts = [prompt_of(n, n) for n in (1, 3, 4, 6, 7)]
    free = engine.generate(prompts, FREE)
    found = 0
    for place in (2, 5, 6, 11, 15):
        stops = [tokenizer.decode([t.completion_ids[place]], skip_special_tokens=True) for t in free]
        settings = [replace(FREE, seed=i, stop_strings=(stop or "?",)) for i, stop in enumerate(stops)]
        for t, full, setting in zip(engine.generate(prompts, settings), free, settings, strict=True):
            end = first_end(tokenizer, full.response_ids.tolist(), setting.stop_strings[0])
            assert t.finish_reason == ("length" if end is None else "stop_string")
            assert t.response_ids.tolist() == full.response_ids[:end].tolist()
            found += end is not None
    assert found > 10


def test_the_earlier_of_stop_string_and_stop_token_counts(tokenizer: Any) -> None:
    """Catches one kind of stop that always wins over the other."""
    engine = Engine(sharp_model(vocab_size=270), tokenizer)
    prompt = prompt_of(5, 5)
    full = engine.generate([prompt], FREE)[0]
    ids = full.response_ids.tolist()
    words = [tokenizer.decode([i]) for i in ids]
    early, late = 3, next(i for i in range(12, 24) if words[i].isprintable() and words[i] not in "".join(words[:i]))
    late_string = replace(FREE, stop_ids=(ids[early],), stop_strings=(words[late],))
    assert engine.generate([prompt], late_string)[0].finish_reason == "stop"
    late_id = replace(FREE, stop_ids=(ids[late],), stop_strings=(words[early],))
    record = engine.generate([prompt], late_id)[0]
    assert (record.finish_reason, record.stop_length) == ("stop_string", first_end(tokenizer, ids, words[early]))
