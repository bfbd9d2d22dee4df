"""SDAR and TraDo, dense: a Qwen3 decoder decoded block by block (arXiv 2510.06303, 2509.06949).

Official layout: ``model_type: sdar``, ``SDARForCausalLM``, ``block_size`` in config.json; the mask token sits in
the tokenizer. Blocks are counted from prompt position 0; the logits of row i are about token i.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Family
from revelm.models.decoder import DecoderConfig


@dataclass(frozen=True)
class SDAR:
    """How SDAR's config.json and parameter names translate. Nothing here depends on a particular checkpoint."""

    model_type: str = "sdar"
    architecture: str = "SDARForCausalLM"
    names: tuple[tuple[str, str], ...] = (("model.", "decoder."), ("lm_head.", "lm_head."))
    default_block_size: int = 4

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """The decoder's sizes from a config.json. KeyError names a missing field."""
        heads = config["num_attention_heads"]
        return DecoderConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads", heads),
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            max_position_embeddings=config["max_position_embeddings"],
            rms_norm_eps=config.get("rms_norm_eps", 1e-6),
            rope_theta=_rope_theta(config),
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            attention_bias=config.get("attention_bias", False),
        )

    def family(self, config: Mapping[str, Any], special_ids: Mapping[str, Any]) -> Family:
        """The family's facts; ``special_ids`` has mask, pad and stop ids read from the checkpoint."""
        return Family(
            name="sdar",
            attention="block",
            is_shifted=False,
            block_size=config.get("block_size", self.default_block_size),
            mask_id=special_ids["mask_id"],
            pad_id=special_ids["pad_id"],
            stop_ids=tuple(special_ids["stop_ids"]),
            vocab_size=config["vocab_size"],
            max_length=config["max_position_embeddings"],
        )


def _rope_theta(config: Mapping[str, Any]) -> float:
    """Rotary base, from either place that releases of transformers write it to."""
    nested = config.get("rope_parameters") or {}
    return float(config.get("rope_theta") or nested.get("rope_theta") or 10_000.0)
