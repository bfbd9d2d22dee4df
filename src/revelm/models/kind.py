"""What a model family declares: how its config.json, its tensor names and its conventions translate.

A family is a subclass of ``Kind`` in a file of its own, plus one line in the registry. Nothing in it depends on a
particular checkpoint. The fields are facts of the official releases; ``sizes`` reads a config.json.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revelm.core.registry import MODELS, build, nearest
from revelm.core.types import Attention, Family
from revelm.models.decoder import DecoderConfig
from revelm.models.names import STANDARD, NameTable
from revelm.models.rotary import rope_of


@dataclass(frozen=True)
class Kind(ABC):
    """``name``: the registry's. ``model_type``, ``architecture``: what config.json says; the architecture decides where
    two families share a model type. ``block_size_field``: where config.json keeps the block size, and its value
    where it does not. ``mask_token``: the text of the mask where only the vocabulary knows it. ``chat_template``: for
    checkpoints without one. ``tokenizers``: (class that releases bring as code, the one of transformers that reads
    its files). ``fields_of``: a decoder's sizes in this family's words, where these are not the usual ones; what it
    cannot say is left out.
    """

    name: str
    model_type: str
    architecture: str
    attention: Attention
    chat_template: str
    is_shifted: bool = False
    names: NameTable = STANDARD
    block_size_field: str = "block_size"
    default_block_size: int | None = None
    mask_token: str | None = None
    tokenizers: tuple[tuple[str, str], ...] = ()
    fields_of: Callable[[DecoderConfig], dict[str, Any]] | None = None

    @abstractmethod
    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """The decoder's sizes. KeyError names a missing field, ValueError one that is not supported."""

    def family(self, config: Mapping[str, Any], special_ids: Mapping[str, Any]) -> Family:
        """The facts of one checkpoint; ``special_ids`` has its mask, pad and stop ids."""
        sizes = self.sizes(config)
        is_block = self.attention == "block"
        return Family(
            name=self.name,
            attention=self.attention,
            is_shifted=self.is_shifted,
            block_size=config.get(self.block_size_field, self.default_block_size) if is_block else None,
            mask_id=special_ids["mask_id"],
            pad_id=special_ids["pad_id"],
            stop_ids=tuple(special_ids["stop_ids"]),
            vocab_size=sizes.vocab_size,
            max_length=sizes.max_position_embeddings,
        )

    def tables(self, config: Mapping[str, Any]) -> NameTable:
        """Official and native names of a checkpoint with this config.json."""
        del config
        return self.names


def kind_of(config: Mapping[str, Any], *, where: str = "config.json") -> Kind:
    """The family that a config.json belongs to. ValueError lists the known model types and the nearest one."""
    given, architectures = config.get("model_type"), config.get("architectures") or []
    kinds: list[Kind] = [build("models", name) for name in sorted(MODELS)]
    found = [kind for kind in kinds if kind.model_type == given]
    if len(found) > 1:
        exact = [kind for kind in found if kind.architecture in architectures]
        if not exact:
            listed = ", ".join(repr(kind.architecture) for kind in found)
            raise ValueError(
                f"{where}: architectures is {architectures!r}; a model of type {given!r} needs one of {listed}"
            )
        found = exact
    if not found:
        known = sorted({kind.model_type for kind in kinds})
        hint = nearest(str(given), known)
        raise ValueError(f"{where}: model_type {given!r} is not known{hint}; known: {', '.join(known)}")
    return found[0]


def kind_named(name: str, *, field: str = "family") -> Kind:
    """The registered family ``name``, or the one at "module:Class". ValueError (about ``field``) lists the known."""
    kind = build("models", {"kind": name}, field=field)
    assert isinstance(kind, Kind), "registered families are kinds"
    return kind


def require(config: Mapping[str, Any], **allowed: Sequence[Any]) -> None:
    """ValueError when a field of ``config`` is there and has none of its ``allowed`` values."""
    for name, values in allowed.items():
        if name in config and config[name] not in values:
            listed = ", ".join(repr(value) for value in values)
            raise ValueError(f"config.json: {name} is {config[name]!r}, which is not supported; allowed: {listed}")


def standard_sizes(config: Mapping[str, Any], **known: Any) -> DecoderConfig:
    """Sizes from the usual fields of config.json; ``known`` are those a family reads itself or knows."""
    require(config, hidden_act=("silu", "swish", None), use_sliding_window=(False, None), mlp_bias=(False, None))
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    fields = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": known.get("intermediate_size", config.get("intermediate_size")),
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": head_dim,
        "max_position_embeddings": config["max_position_embeddings"],
        "rope": rope_of(config, head_dim),
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
    }
    if fields["intermediate_size"] is None:
        raise KeyError("intermediate_size")
    return DecoderConfig(**(fields | known))
