"""What a model family declares: how its config.json, its tensor names and its conventions translate.

A family is a subclass of ``Kind`` in a file of its own, plus one line in the registry. Nothing in it depends on a
particular checkpoint. The fields are facts of the official releases; ``sizes`` reads a config.json.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revelm.core.registry import MODELS, build, nearest, resolve
from revelm.core.types import Attention, Family
from revelm.models.decoder import DecoderConfig
from revelm.models.fields import MAX_LAYERS, flag, integer, number
from revelm.models.names import STANDARD, NameTable
from revelm.models.rotary import rope_of


@dataclass(frozen=True)
class Kind(ABC):
    """``name``: the registry's. ``model_type``, ``architecture``: what config.json says; the architecture decides where
    two families share a model type, or else ``signature``, fields that only one of them has. ``block_size_field``:
    where config.json keeps the block size, and its value where it does not. ``mask_token``: the text of the mask where
    only the vocabulary knows it. ``chat_template``: for checkpoints without one. ``tokenizers``: (class that releases
    bring as code, the one of transformers that reads its files). ``fields_of``: a decoder's sizes in this family's
    words, where these are not the usual ones; what it cannot say is left out.
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
    signature: tuple[str, ...] = ()

    @abstractmethod
    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """The decoder's sizes, by the readers of revelm.models.fields: null is absent.

        KeyError names a missing field, ValueError one that is wrong or not supported; ``sizes_of`` makes sentences.
        """

    def family(self, config: Mapping[str, Any], special_ids: Mapping[str, Any]) -> Family:
        """The facts of one checkpoint; ``special_ids`` has its mask, pad and stop ids."""
        sizes = self.sizes(config)
        is_block, given = self.attention == "block", config.get(self.block_size_field)
        return Family(
            name=self.name,
            attention=self.attention,
            is_shifted=self.is_shifted,
            block_size=(self.default_block_size if given is None else given) if is_block else None,
            mask_id=special_ids["mask_id"],
            pad_id=special_ids["pad_id"],
            stop_ids=tuple(special_ids["stop_ids"]),
            vocab_size=sizes.vocab_size,
            max_length=sizes.max_position_embeddings,
        )


def kind_of(config: Mapping[str, Any], *, where: str = "config.json") -> Kind:
    """The family that a config.json belongs to. ValueError lists the known model types and the nearest one."""
    given = config.get("model_type")
    kinds: list[Kind] = [build("models", name) for name in sorted(MODELS)]
    found = [kind for kind in kinds if kind.model_type == given]
    if len(found) > 1:
        return _told_apart(found, config, where)
    if not found:
        known = sorted({kind.model_type for kind in kinds})
        hint = nearest(str(given), known)
        raise ValueError(f"{where}: model_type {given!r} is not known{hint}; known: {', '.join(known)}")
    return found[0]


def _told_apart(kinds: Sequence[Kind], config: Mapping[str, Any], where: str) -> Kind:
    """The one of ``kinds``, which share a model type, that config.json names or, without a name, has the fields of."""
    named = config.get("architectures")
    if named:
        found = [k for k in kinds if isinstance(named, list) and k.architecture in named]
    else:
        found = [k for k in kinds if k.signature and all(config.get(name) is not None for name in k.signature)]
    if len(found) != 1:
        listed = ", ".join(repr(kind.architecture) for kind in kinds)
        raise ValueError(
            f"{where}: architectures is {named!r}; a model of type {kinds[0].model_type!r} needs one of {listed}"
        )
    return found[0]


def kind_named(name: str, *, field: str = "family") -> Kind:
    """The registered family ``name``, or the one at "module:Class". ValueError (about ``field``) lists the known."""
    resolve("models", name, field=field)  # its errors are about ``field`` itself, not about a kind within it
    kind = build("models", {"kind": name}, field=field)
    if not isinstance(kind, Kind):
        raise ValueError(f"{field}: {name!r} is not a family; families are subclasses of revelm.models.kind:Kind")
    return kind


def sizes_of(kind: Kind, config: Mapping[str, Any]) -> DecoderConfig:
    """``kind.sizes(config)``, with one sentence (ValueError) for whatever is wrong with ``config``."""
    where = f"config.json of a {kind.model_type} model"
    try:
        return kind.sizes(config)
    except KeyError as error:
        raise ValueError(f"{where} lacks the field {error}") from error
    except ValueError as error:
        if str(error).startswith("config.json"):
            raise
        raise ValueError(f"{where}: {error}") from error
    except (TypeError, AttributeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"{where} has a field of a wrong type ({error})") from error


def require(config: Mapping[str, Any], **allowed: Sequence[Any]) -> None:
    """ValueError when a field of ``config`` is there, not null, and has none of its ``allowed`` values."""
    for name, values in allowed.items():
        given = config.get(name)
        if given is not None and given not in tuple(values):
            listed = ", ".join(repr(value) for value in values)
            raise ValueError(f"config.json: {name} is {given!r}, which is not supported; allowed: {listed}")


def standard_sizes(config: Mapping[str, Any], *, partial: float | None = None, **known: Any) -> DecoderConfig:
    """Sizes from the usual fields of config.json; ``known`` are those a family reads itself or knows.

    ``partial``: the rotated share of a head by default, for families that have such a field.
    """
    require(config, hidden_act=("silu", "swish"), use_sliding_window=(False,), mlp_bias=(False,))
    heads, hidden = integer(config, "num_attention_heads"), integer(config, "hidden_size")
    head_dim = integer(config, "head_dim", default=hidden // heads)
    fields = {
        "vocab_size": integer(config, "vocab_size"),
        "hidden_size": hidden,
        "num_hidden_layers": integer(config, "num_hidden_layers", most=MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": integer(config, "num_key_value_heads", default=heads),
        "head_dim": head_dim,
        "max_position_embeddings": integer(config, "max_position_embeddings"),
        "rope": rope_of(config, head_dim, partial=partial),
        "rms_norm_eps": number(config, "rms_norm_eps", default=1e-6),
        "tie_word_embeddings": flag(config, "tie_word_embeddings", default=False),
    }
    if "intermediate_size" not in known:
        fields["intermediate_size"] = integer(config, "intermediate_size")
    return DecoderConfig(**(fields | known))
