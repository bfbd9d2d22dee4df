"""Text to ids and back, chats, and what is refused on the way."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revelm.data.chat_templates import CHATML, LLAMA3, ROLES
from revelm.data.tokenizer import (
    MIN_VOCAB_SIZE,
    build_tiny_tokenizer,
    encode_chat,
    encode_demonstration,
    encode_open_turn,
    encode_text,
    end_of_turn_id,
    read_tokenizer,
    save_tokenizer,
    token_pieces,
)
from revelm.engine.prompts import prompt_ids

TEXTS = ["7+5*3-4=?", "7+5=2\n2*3=6\n6-4=2\n\\boxed{2}", "The answer is 12 - 3 = 9."] * 20
TOKENIZER = build_tiny_tokenizer(TEXTS, 320)
CHAT = [{"role": "user", "content": " 7+5=? "}, {"role": "assistant", "content": "\n2\n"}]


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    """Catches normalisation, stripped spaces and lost bytes."""
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


def test_digits_and_operators_stand_alone() -> None:
    """Catches merges that make the tokens of a number depend on its neighbours."""
    text = "12+34=46\n\n5 * 6 - 7=\\boxed{2}"
    pieces = [TOKENIZER.decode([i]) for i in encode_text(TOKENIZER, text)]
    assert pieces == [*"12+34=46\n\n5 * 6 - 7=", "\\boxed{", "2", "}"]


def test_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    """Catches template, special tokens or merges lost on disk; and a class name only one release knows."""
    save_tokenizer(TOKENIZER, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    loaded = read_tokenizer(tmp_path)
    assert encode_demonstration(loaded, CHAT) == encode_demonstration(TOKENIZER, CHAT)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert (loaded.pad_token_id, loaded.mask_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_building_is_deterministic_across_processes() -> None:
    """Catches merges that depend on hash order."""
    built = f"build_tiny_tokenizer({TEXTS!r}, 320).backend_tokenizer.to_str()"
    code = f"from revelm.data.tokenizer import build_tiny_tokenizer; print({built})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == TOKENIZER.backend_tokenizer.to_str()


def test_chat_costs_three_tokens_and_the_prompt_is_a_prefix() -> None:
    """Catches a demonstration whose prompt differs from the one that generation starts from."""
    content = len(encode_text(TOKENIZER, CHAT[0]["content"]))
    prompt = encode_chat(TOKENIZER, CHAT[:1], add_generation_prompt=True)
    ids, length = encode_demonstration(TOKENIZER, CHAT)
    assert len(prompt) == content + 3
    assert ids[:length] == prompt
    assert TOKENIZER.decode(ids[length:]) == "\n2\n<|im_end|>"


def test_an_answer_that_has_begun_is_gone_on_with() -> None:
    """Catches a beginning whose turn is ended, so that the model writes another one, and other ids than in training."""
    opening = {"role": "assistant", "content": "\n"}
    ids = encode_open_turn(TOKENIZER, [CHAT[0], opening])
    assert ids == encode_chat(TOKENIZER, CHAT[:1]) + encode_text(TOKENIZER, "\n")
    assert prompt_ids([CHAT[0], opening], TOKENIZER) == ids
    whole, length = encode_demonstration(TOKENIZER, CHAT)
    assert whole[: length + 1] == ids
    for turns in ([opening], CHAT[:1]):
        with pytest.raises(ValueError, match="beginning of an answer must follow a question"):
            encode_open_turn(TOKENIZER, turns)
    with pytest.raises(ValueError, match=r"messages\.1\.content spells the special token"):
        prompt_ids([CHAT[0], {"role": "assistant", "content": "<|mask|>"}], TOKENIZER)


def test_text_after_the_end_of_turn_is_dropped() -> None:
    """Catches the newline that ChatML writes after every turn being trained as part of the answer."""
    other = build_tiny_tokenizer(TEXTS, 320)
    other.chat_template = (
        "{% for m in messages %}{{ m.role + ':' + m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    ids, length = encode_demonstration(other, CHAT)
    assert other.decode(ids[length:]) == "\n2\n<|im_end|>"
    other.chat_template = "{% for m in messages %}{{ loop.length }}{% endfor %}"
    with pytest.raises(ValueError, match="does not begin with its own generation prompt"):
        encode_demonstration(other, CHAT)
    other.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        encode_demonstration(other, CHAT)


@pytest.mark.parametrize("token", ["<|mask|>", "<|im_end|>", "<|assistant|>", "<|pad|>"])
def test_content_never_becomes_a_special_token(token: str) -> None:
    """Catches a user who ends the turn, speaks as the assistant, or puts a mask into the prompt."""
    with pytest.raises(ValueError, match=r"messages\.0\.content spells the special token '<\|.*remove it"):
        encode_chat(TOKENIZER, [{"role": "user", "content": f"a{token}b"}])


def test_bad_chats() -> None:
    """Catches template tracebacks for malformed messages."""
    with pytest.raises(ValueError, match="must have the role 'assistant'"):
        encode_demonstration(TOKENIZER, CHAT[:1])
    bad: list[Any] = [{"role": "user"}]
    with pytest.raises(ValueError, match=r"messages\.0: must have the strings"):
        encode_chat(TOKENIZER, bad)


def test_pieces_join_to_the_text() -> None:
    """Catches a trace that shows broken characters, and tokens without a piece."""
    ids = [*encode_text(TOKENIZER, "a🤷漢=\ufffd"), 1]
    pieces = token_pieces(TOKENIZER, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == "a🤷漢=\ufffd<|mask|>"
    assert pieces[:5] == ("a", "", "", "", "🤷")
    assert token_pieces(TOKENIZER, []) == ()


def test_vocabulary_too_small() -> None:
    """Catches a tokenizer without all bytes."""
    assert len(build_tiny_tokenizer([], MIN_VOCAB_SIZE)) == MIN_VOCAB_SIZE
    with pytest.raises(ValueError, match="vocab_size is 100, must be at least 262"):
        build_tiny_tokenizer([], 100)


def test_load_errors(tmp_path: Path) -> None:
    """Catches library tracebacks for missing, damaged or unreachable files."""
    with pytest.raises(ValueError, match="is not a directory"):
        read_tokenizer(tmp_path / "none")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is missing"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged or incomplete"):
        read_tokenizer(tmp_path)
    save_tokenizer(TOKENIZER, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="damaged or incomplete"):
        read_tokenizer(tmp_path)


def test_mask_token_from_the_model_config(tmp_path: Path) -> None:
    """Catches checkpoints that name their mask only in config.json, and those that have none."""
    other = build_tiny_tokenizer(TEXTS, 320)
    other.mask_token = None
    other.pad_token = None
    save_tokenizer(other, tmp_path)
    with pytest.raises(ValueError, match=r"has no mask token.*revelm convert"):
        read_tokenizer(tmp_path)
    assert read_tokenizer(tmp_path, needs_mask=False).mask_token is None
    for known in ({"mask_id": 1}, {"mask_token": "<|mask|>"}):
        loaded = read_tokenizer(tmp_path, **known)
        assert (loaded.mask_token, loaded.pad_token) == ("<|mask|>", "<|im_end|>")


def spoken(words: list[str], template: str) -> Any:
    """The byte tokenizer with further special ``words``, a template, and another end of text than end of turn."""
    found = build_tiny_tokenizer(TEXTS, 320)
    found.add_special_tokens({"additional_special_tokens": words})
    found.chat_template = template
    return found


@pytest.mark.parametrize(
    ("template", "words", "end"),
    [
        (CHATML, ["<|im_start|>"], "<|im_end|>"),
        (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
        (ROLES, ["<role>", "</role>", "<|role_end|>"], "<|role_end|>"),
    ],
)
def test_the_end_of_a_turn_is_what_the_template_writes(template: str, words: list[str], end: str) -> None:
    """Catches answers trained and stopped at the end of text where a model ends its turns with another token."""
    other = spoken(words, template)
    assert other.convert_ids_to_tokens(end_of_turn_id(other)) == end
    ids, length = encode_demonstration(other, CHAT)
    assert other.convert_ids_to_tokens(ids[-1]) == end
    assert other.decode(ids[length:-1]) == "\n2\n"
    assert encode_chat(other, CHAT[:1]) == ids[:length]
    other.chat_template = None
    assert end_of_turn_id(other) == other.eos_token_id


def test_a_template_of_the_family_serves_where_there_is_none(tmp_path: Path) -> None:
    """Catches base checkpoints that cannot be asked anything, and a checkpoint's own template overruled."""
    other = build_tiny_tokenizer(TEXTS, 320)
    own = other.chat_template
    save_tokenizer(other, tmp_path)
    assert read_tokenizer(tmp_path, chat_template=CHATML).chat_template == own
    other.chat_template = None
    save_tokenizer(other, tmp_path / "bare")
    assert read_tokenizer(tmp_path / "bare", chat_template=CHATML).chat_template == CHATML


def test_releases_before_five_can_read_what_is_saved(tmp_path: Path) -> None:
    """Catches a list where transformers 4 expects an object (it stops), and how a tokenizer was read kept for good."""
    other = spoken(["<|im_start|>", "<|x|>"], CHATML)
    for place in ("a", "b"):
        save_tokenizer(other, tmp_path / place)
        settings = json.loads((tmp_path / place / "tokenizer_config.json").read_text())
        assert settings["additional_special_tokens"] == ["<|im_start|>", "<|x|>"]
        assert not settings.keys() & {"extra_special_tokens", "is_local", "local_files_only", "backend"}
        other = read_tokenizer(tmp_path / place)
        assert other.extra_special_tokens == ["<|im_start|>", "<|x|>"]
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


REFUSING = {
    "no system": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
    "system first": "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}",
    "one turn": "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}",
    "unclosed": "{% if messages %",
    "undefined": "{{ messages[0].nothing.more }}",
    "arithmetic": "{{ messages[0].content + 1 }}",
}


@pytest.mark.parametrize("case", REFUSING)
def test_a_template_that_refuses_is_one_sentence(case: str) -> None:
    """Catches tracebacks of the template engine, and a checkpoint that cannot be loaded for its template."""
    other = spoken(["<|im_start|>", "<|turn_end|>"], REFUSING[case] + CHATML.replace("im_end", "turn_end"))
    is_asked = case in ("no system", "system first")
    expected = "<|turn_end|>" if is_asked else "<|im_end|>"
    assert other.convert_ids_to_tokens(end_of_turn_id(other)) == expected
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    turns = [{"role": "system", "content": "3"}, *turns] if case == "no system" else turns
    with pytest.raises(ValueError, match=r"^the chat template refuses turns of .*user, assistant \(.+\)$"):
        encode_chat(other, turns)


def test_a_template_without_the_answer_says_nothing_about_its_end() -> None:
    """Catches the first special token of a chat taken for its last."""
    other = spoken(["<|im_start|>"], "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% endfor %}")
    assert end_of_turn_id(other) == other.eos_token_id


def test_the_template_of_roles_knows_three() -> None:
    """Catches a KeyError, or a turn of nobody, for a role that the models were never shown."""
    other = spoken(["<role>", "</role>", "<|role_end|>"], ROLES)
    with pytest.raises(ValueError, match=r"role tool is not one of system, user, assistant"):
        encode_chat(other, [{"role": "tool", "content": "1"}])


def test_a_tokenizer_that_git_left_out(tmp_path: Path) -> None:
    """Catches "damaged" about a clone that is only unfinished."""
    save_tokenizer(TOKENIZER, tmp_path)
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(ValueError, match=r"tokenizer\.json is a placeholder of git-lfs, .* run `git lfs pull`"):
        read_tokenizer(tmp_path)


def write_remote_tokenizer(folder: Path) -> None:
    """A tokenizer as Dream releases it: Qwen2's files, a class that exists as code only, no tokenizer.json."""
    special = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokens = {"4": "<|endoftext|>", "5": "<|mask|>"}
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2, "\u0120": 3, "<|endoftext|>": 4}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": {i: {"content": text, **special} for i, text in tokens.items()},
        "eos_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenization_dream.py").write_text("raise SystemExit('never run')")


def test_a_tokenizer_that_comes_as_code_is_read_by_its_stand_in(tmp_path: Path) -> None:
    """Catches Dream checkpoints that only load with trust_remote_code, and a terminal prompt that asks for it."""
    write_remote_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"class DreamTokenizer is code of its own, and there is no tokenizer\.json"):
        read_tokenizer(tmp_path)
    loaded = read_tokenizer(tmp_path, stand_ins={"DreamTokenizer": "Qwen2Tokenizer"})
    assert loaded("ab ab<|mask|>")["input_ids"] == [2, 3, 2, 5]
    assert (loaded.mask_token_id, loaded.eos_token_id) == (5, 4)
    save_tokenizer(loaded, tmp_path / "saved")
    again = read_tokenizer(tmp_path / "saved")
    assert again("ab ab<|mask|>")["input_ids"] == [2, 3, 2, 5]


def test_an_unknown_class_over_a_tokenizer_json_is_read_from_that(tmp_path: Path) -> None:
    """Catches checkpoints refused for the name of their tokenizer class."""
    save_tokenizer(TOKENIZER, tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(file.read_text().replace("PreTrainedTokenizerFast", "HouseTokenizer"))
    assert read_tokenizer(tmp_path)("1+1")["input_ids"] == TOKENIZER("1+1")["input_ids"]


def test_no_torch_in_data() -> None:
    """Catches a module-level import that makes workers heavy."""
    code = "import sys, revelm.data.tokenizer, revelm.data.learnable; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
