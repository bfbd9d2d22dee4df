"""Plain values (from YAML, JSON or a command line) checked against a type, with errors meant for people.

One error names the dotted field, the value, the reason, and for an unknown field the nearest known one. Checking is
strict in the JSON sense: a number is not a string or a bool, an integer serves as a float, a list as a tuple.
"""

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError

ALIASES = {
    "block_length": "block_size",
    "slice_size": "block_size",
    "window": "block_size",
    "dynamic_threshold": "threshold",
    "confidence_threshold": "threshold",
    "lr": "learning_rate",
    "optimiser": "optimizer",
    "max_tokens": "max_new_tokens",
    "gen_length": "max_new_tokens",
    "stop": "stop_strings",
    "stop_token_ids": "stop_ids",
    "suppress_tokens": "banned_ids",
    "minp": "min_p",
    "cfg_scale": "guidance",
    "gamma": "max_entropy",
    "entropy_bound": "max_entropy",
    "edit_threshold": "editing_threshold",
    "max_post_edit_steps": "max_post_steps",
    "credit_alpha": "weight",
    "decay_beta": "decay",
    "boost_gamma": "power",
    "n": "samples_per_problem",
    "num_generations": "group_size",
    "bsz": "batch_size",
    "gradient_checkpointing": "recompute_layers",
    "clip_ratio_low": "clip_low",
    "clip_ratio_high": "clip_high",
    "beta": "kl_weight",
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "use_rslora": "is_rank_stabilised",
}
_MEMBER = re.compile(r"(literal|list|tuple|dict|set|function-\w+)\[")  # how pydantic calls the members of a union
ADVICE = {
    "denoising_steps": "; give tokens_per_step = block_size / denoising_steps",
    "guidance_scale": "; give guidance = guidance_scale - 1, which is 0 when off",
    "remasking": "; choose a rule: low_confidence is {kind: static} or {kind: dynamic}, random is {kind: random}",
    "remasking_strategy": "; choose a rule: static, dynamic, sequential, random or entropy_bounded",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when a known name is close to ``name``, else the empty string."""
    found = get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def choices(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown ``name``: the nearest known name, if any, then all of them."""
    names = sorted(known)
    return f"{nearest(name, names) or ';'} known: {', '.join(names) or 'none'}"


def unknown_field(path: str, known: Iterable[str]) -> str:
    """The sentence for a field (dotted ``path``) that does not exist among its siblings ``known``."""
    return unknown_fields([path], known)


def unknown_fields(paths: Iterable[str], known: Iterable[str], *, places: Mapping[str, str] | None = None) -> str:
    """The sentences for fields that do not exist among their siblings ``known``, which are listed once.

    ``places``: where there are such fields, by path.
    """
    siblings, said = sorted(known), []
    for path in paths:
        name = path.rsplit(".", 1)[-1]
        elsewhere = f"; did you mean {places[path]}?" if places and path in places else ""
        said.append(f"{path}: unknown field{ADVICE.get(name, '')}{elsewhere or nearest(name, siblings)}")
    sign = "" if said[-1].endswith("?") else ";"
    return f"{'; '.join(said)}{sign} known: {', '.join(siblings) or 'none'}"


def rename_aliases(values: Mapping[str, Any], known: Iterable[str], where: str) -> dict[str, Any]:
    """``values`` with the field's synonyms (``ALIASES``) renamed, where the class has only our name for them.

    Raises ValueError when a value is given under both names.
    """
    names, renamed = set(known), dict[str, Any]()
    for key, value in values.items():
        ours = ALIASES.get(key, key)
        target = ours if key not in names and ours in names else key
        if target in renamed or (target != key and target in values):
            raise ValueError(f"{dotted(where, target)}: given twice, also as {key!r}; keep one")
        renamed[target] = value
    return renamed


def validate(kind: Any, value: Any, *, where: str = "") -> Any:
    """``value`` checked and converted to the type ``kind``; ValueError with one sentence per wrong field."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise ValueError("; ".join(describe(one, where) for one in error.errors())) from error


def describe(error: Mapping[str, Any], where: str = "") -> str:
    """One pydantic error as a sentence: dotted field, value, reason."""
    path = dotted(where, *(part for part in error["loc"] if not _MEMBER.match(str(part))))
    prefix = f"{path}: " if path else ""
    if error["type"] == "missing" or error["type"] == "missing_argument":
        return f"{prefix}required, but not given"
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
        return reason if path and reason.startswith(f"{path}.") else f"{prefix}{reason}"
    reason = str(error["msg"]).removeprefix("Input ").replace("should be", "must be")
    return f"{prefix}{reason}, got {_short(error['input'])}"


def dotted(*parts: Any) -> str:
    """Parts of a field's address, empty ones left out, joined by dots."""
    return ".".join(str(part) for part in parts if str(part))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
