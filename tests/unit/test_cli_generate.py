"""``revelm generate``: every setting reaches the engine, answers come in order, streams end as they should."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revelm.cli.generate import _job, component, token_ids
from revelm.cli.main import _parse, main
from revelm.cli.streaming import HIDDEN, Printer, follow
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.entropy_bounded import EntropyBounded
from revelm.decoding.factor import Factor
from revelm.decoding.joint import Joint
from revelm.decoding.sampling import Sampling
from revelm.decoding.sequential import Sequential
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.prompts import make_requests
from revelm.engine.run import Update
from revelm.engine.settings import NAMED, Exact
from revelm.models.load import load_model
from revelm.trajectories.record import Event
from tests.families import save_family
from tests.tiny_checkpoint import save_tiny, tiny_model, tiny_tokenizer

PLAIN = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of 4, and answers far from one another."""
    return save_tiny(tmp_path_factory.mktemp("model") / "sdar", spread=0.3)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full attention."""
    return save_family("llada", tmp_path_factory.mktemp("model") / "llada")


def words_for(model: Path, *more: str) -> list[str]:
    return ["generate", "--model", str(model), "--prompt", "ab", "--max-new-tokens", "8", *more]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """What a command that succeeds writes to stdout and stderr."""

    def call(*words: str) -> tuple[str, str]:
        assert main(words) == 0
        captured = capsys.readouterr()
        return captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--min-p", "0.1"], {"min_p": 0.1}),
        (["--repetition-penalty", "1.2"], {"repetition_penalty": 1.2}),
        (["--guidance", "1.5", "--cache", "none"], {"guidance": 1.5}),
        (["--ban", "7", "--ban", "x"], {"banned_ids": (7, tiny_tokenizer().convert_tokens_to_ids("x"))}),
        (["--ignore-eos"], {"ignore_eos": True}),
        (["--confidence", "margin"], {"confidence": "margin"}),
        (["--confidence", "neg_entropy", "--tokens-per-step", "2"], {"confidence": "neg_entropy", "rule": Static(2)}),
        (["--threshold", "0.5"], {"rule": Dynamic(0.5)}),
        (["--rule", "factor"], {"rule": Factor()}),
        (["--rule", "factor,factor=0.5"], {"rule": Factor(0.5)}),
        (["--rule", "entropy_bounded,gamma=0.3"], {"rule": EntropyBounded(0.3)}),
        (["--rule", "joint,threshold=0.5,editing_threshold=0"], {"rule": Joint(0.5, 0.0)}),
        (["--rule", "revelm.decoding.static:Static,tokens_per_step=3"], {"rule": Static(3)}),
    ],
)
def test_every_option_is_a_setting(model: Path, words: list[str], changes: dict[str, Any]) -> None:
    """Catches an option that is read and changes nothing."""
    assert _job(_parse(words_for(model, *words))).sampling == replace(PLAIN, **changes)


def test_the_cache_is_the_one_that_is_named(model: Path, full: Path) -> None:
    """Catches a cache that is checked and then not used, or one for the wrong attention."""
    assert _job(_parse(words_for(model))).cache == Exact()
    paged = _job(_parse(words_for(model, "--cache", "exact,page_size=8,num_pages=64"))).cache
    assert paged == Exact(page_size=8, num_pages=64)
    assert _job(_parse(words_for(full, "--cache", "horizon"))).cache == NAMED["horizon"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--rule", "factr"], "rule.kind: 'factr' is not known; did you mean 'factor'"),
        (["--rule", "factor,facto=1"], "rule.facto: unknown field; did you mean 'factor'"),
        (["--rule", "factor,2"], "--rule: 'factor,2' must look like kind or kind,field=value,..."),
        (["--rule", "threshold=0.5"], "--rule: 'threshold=0.5' must look like"),
        (["--cache", "daul"], "--cache: kind: 'daul' is not known; did you mean 'dual'"),
        (["--cache", "dual"], "--cache: engine.cache is 'dual', which is approximate and for full attention"),
        (["--cache", "exact,page_size=8,num_pages=1"], "num_pages is 1, but a request of"),
        (["--cache", ""], "--cache: '' must look like"),
        (["--guidance", "1"], "prompt 0: sampling.guidance is 1.0, which needs a second canvas"),
        (["--ban", "xy"], "--ban: 'xy' is 2 tokens"),
        (["--ban", "262"], "prompt 0: sampling.banned_ids holds 262, but the model's vocabulary has 262 entries"),
        (["--min-p", "2"], "sampling.min_p is 2.0"),
        (["-n", "0"], "-n is 0, must be at least 1"),
        (["--num-slots", "0"], "--num-slots is 0, must be at least 1"),
    ],
)
def test_mistakes_come_before_the_weights(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    """Catches an option that is looked at only once the model is there."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    assert main(words_for(bare, *words)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert reason in lines[0]


@pytest.mark.parametrize("rules", [["--rule", "static", "--threshold", "0.5"], ["--confidence", "sure"]])
def test_options_that_exclude_one_another(model: Path, rules: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Catches one of two rules that is silently dropped."""
    with pytest.raises(SystemExit) as caught:
        main(words_for(model, *rules))
    assert caught.value.code == 2
    assert "usage: revelm generate" in capsys.readouterr().err


def test_components_in_one_word() -> None:
    """Catches numbers that stay text, and a field without its value."""
    assert component("dynamic, threshold=0.8", "--rule") == {"kind": "dynamic", "threshold": 0.8}
    assert component("exact,reuses_prefixes=true", "--cache") == {"kind": "exact", "reuses_prefixes": True}
    assert token_ids([], tiny_tokenizer()) == ()


@pytest.mark.parametrize("rule", [["--tokens-per-step", "2"], ["--rule", "joint,threshold=0.2,editing_threshold=0.1"]])
@pytest.mark.parametrize("count", ["1", "3"])
def test_a_stream_ends_as_the_answers_are(
    model: Path, printed: Callable[..., tuple[str, str]], rule: list[str], count: str
) -> None:
    """Catches text that is lost, doubled or out of order in a stream, and tokens shown before an edit changes them."""
    words = words_for(model, *rule, "-n", count, "--num-slots", "2", "--ignore-eos")
    assert printed(*words, "--stream") == printed(*words)


def test_answers_differ_and_have_numbers(model: Path, printed: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    """Catches one seed for all answers, answers that cannot be told apart, and a page with the first one only."""
    page = tmp_path / "trace.html"
    out, err = printed(*words_for(model, "-n", "3", "--seed", "5", "--trace", str(page)))
    parts = out.split("--- ")[1:]
    assert [part[:5] for part in parts] == ["1 ---", "2 ---", "3 ---"]
    assert len({part[5:] for part in parts}) == 3
    assert [line.split(":")[0] for line in err.splitlines()] == ["[answer 1", "[answer 2", "[answer 3", "trace"]
    assert "answer 3" in page.read_text(encoding="utf-8")
    alone, _ = printed(*words_for(model, "--seed", "6"))
    assert alone == parts[1][6:]


def test_answers_to_one_prompt_read_it_once(model: Path) -> None:
    """Catches prompts that are prefilled once per answer."""
    job = _job(_parse(words_for(model, "-n", "4")))
    engine = Engine(load_model(job.folder), job.tokenizer, cache=job.cache)
    engine.generate(job.prompts, job.sampling)
    assert engine.stats.prefills == 1


class Recorded(io.StringIO):
    """What is written, piece by piece; ``is_terminal``: what ``isatty`` says."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal, self.pieces = is_terminal, list[str]()

    def isatty(self) -> bool:
        """As told."""
        return self.is_terminal

    def write(self, text: str) -> int:
        """Note the piece."""
        self.pieces.append(text)
        return super().write(text)


def written(*, is_terminal: bool, count: int = 1) -> tuple[Recorded, list[str]]:
    """The stream of ``count`` answers, one token per step from left to right, and their texts."""
    loaded, tokenizer = tiny_model(), tiny_tokenizer()
    settings = Sampling(rule=Sequential(), max_new_tokens=6, ignore_eos=True, banned_ids=tuple(range(128, 262)))
    prompts = [[10, 11, 12, 13]] * count
    out = Recorded(is_terminal=is_terminal)
    requests = make_requests(prompts, settings, loaded.family, tokenizer)
    found = follow(Engine(loaded, tokenizer).stream(prompts, settings), Printer(requests, tokenizer, out))
    return out, [tokenizer.decode(t.response_ids.tolist(), skip_special_tokens=True) for t in found]


def test_in_a_pipe_text_comes_as_it_is_decided() -> None:
    """Catches a stream that says everything at its end, and one that writes control sequences into a file."""
    out, (text,) = written(is_terminal=False)
    pieces = [piece for piece in out.pieces if piece]
    assert len(pieces) > 3
    assert "".join(pieces) == text + "\n"


def test_on_a_terminal_the_picture_moves_and_leaves_the_text() -> None:
    """Catches a picture that stays behind, and no picture at all."""
    out, texts = written(is_terminal=True, count=2)
    assert out.getvalue().count("\x1b[2K") > 3
    assert out.getvalue().endswith(f"{texts[1]}\n")
    assert out.getvalue().index("--- 1 ---") < out.getvalue().index("--- 2 ---")


def test_a_gap_is_shown_as_one() -> None:
    """Catches tokens drawn at other places than their own."""
    tokenizer = tiny_tokenizer()
    requests = make_requests([[10, 11, 12, 13]], Sampling(max_new_tokens=8), tiny_model().family, tokenizer)
    printer = Printer(requests, tokenizer, io.StringIO())
    a, b = (tokenizer.convert_tokens_to_ids(letter) for letter in "ab")
    printer.open[0].take([event(0, a), event(3, b)])
    assert printer.open[0].picture().plain == f"a{HIDDEN * 2}b"
    assert printer.open[0].settled() == "a"


def event(position: int, token: int) -> Event:
    return Event(1, position, token, -0.5)


def test_half_a_character_is_not_shown() -> None:
    """Catches replacement characters in a stream, where a letter takes several tokens."""
    tokenizer = tiny_tokenizer()
    requests = make_requests([[10, 11, 12, 13]], Sampling(max_new_tokens=8), tiny_model().family, tokenizer)
    printer = Printer(requests, tokenizer, io.StringIO())
    ids = tokenizer.encode("é", add_special_tokens=False)
    assert len(ids) == 2
    shown = []
    for position, token in enumerate(ids):
        printer.show(0, [event(position, token)])
        shown.append(printer.out.getvalue())
    assert shown == ["", "é"]


def test_a_failing_stream_takes_its_picture_back() -> None:
    """Catches a terminal that is left without a cursor."""
    tokenizer = tiny_tokenizer()
    requests = make_requests([[10, 11, 12, 13]], Sampling(max_new_tokens=8), tiny_model().family, tokenizer)
    out = Recorded(is_terminal=True)

    def updates() -> Iterator[Any]:
        yield Update(0, (event(0, 70),))
        raise FloatingPointError("not finite")

    with pytest.raises(FloatingPointError):
        follow(updates(), Printer(requests, tokenizer, out))
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1


def test_full_attention_streams_too(full: Path, printed: Callable[..., tuple[str, str]]) -> None:
    """Catches windows counted from the prompt's begin instead of its end."""
    words = words_for(full, "--block-size", "4", "--cache", "dual", "--rule", "joint,threshold=0.1", "--ignore-eos")
    assert printed(*words, "--stream") == printed(*words)


def test_windows_are_counted_from_the_end_of_the_prompt(full: Path) -> None:
    """Catches text of a window that its rule may still edit, and text that comes a window late."""
    words = words_for(full, "--block-size", "4", "--rule", "joint", "--raw")
    words[words.index("ab")] = "abc"
    job = _job(_parse(words))
    printer = Printer(job.requests, job.tokenizer, io.StringIO())
    letters = job.tokenizer.encode("defgh", add_special_tokens=False)
    shown = []
    for position, token in enumerate(letters):
        printer.open[0].take([event(position, token)])
        shown.append(printer.open[0].settled())
    assert shown == ["", "", "", "", "defg"]


def test_the_engine_gets_what_was_asked(
    model: Path, monkeypatch: pytest.MonkeyPatch, printed: Callable[..., tuple[str, str]]
) -> None:
    """Catches a cache, or a number of slots, that is read and changes nothing."""
    made: list[Engine] = []

    class Noted(Engine):
        """An engine that is remembered."""

        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            made.append(self)

    monkeypatch.setattr("revelm.engine.engine.Engine", Noted)
    printed(*words_for(model, "--cache", "exact,page_size=16", "--num-slots", "3"))
    assert [(engine.cache, engine.num_slots) for engine in made] == [(Exact(page_size=16), 3)]
