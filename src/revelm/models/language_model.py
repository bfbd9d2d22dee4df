"""A diffusion language model: a body that makes features, a head that makes logits, and the family's facts.

Body and head are apart because most rows of a diffusion forward never need logits: prompts, commit rows and
unscored positions stop at the features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from revelm.core.types import Family
from revelm.masks.visibility import Pattern, pattern_for
from revelm.models.alignment import predecessors
from revelm.models.attention import Cache, Visibility
from revelm.models.decoder import Decoder, DecoderConfig

if TYPE_CHECKING:
    from revelm.models.lora import Adapter


class Backbone(nn.Module):
    """All of a model but its head: the decoder and the facts that make its features speak about their own tokens.

    ``config`` is the checkpoint's config.json as loaded; ``family`` its static facts. ``companions``: small files that
    came with the checkpoint and go with it when it is saved again. ``source``: the directory or hub id that the weights
    were loaded from. ``adapter``: what is attached (``revelm.models.lora``). ``quantization``: "nf4" when the layers'
    linear maps are in 4 bits.
    """

    def __init__(self, family: Family, sizes: DecoderConfig, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.family, self.sizes, self.config = family, sizes, dict(config)
        self.companions: dict[str, bytes] = {}
        self.source: str | None = None
        self.adapter: Adapter | None = None
        self.quantization: str | None = None
        self.decoder = Decoder(sizes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype of the weights."""
        return self.decoder.embed_tokens.weight.dtype

    def body(
        self,
        tokens: Tensor,
        positions: Tensor,
        pattern: Pattern | None,
        cache: Cache | None = None,
        *,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Features [R, L, hidden] of ``tokens`` int64 [R, L] at absolute ``positions`` [R, L].

        Row i is about token i, whatever the family's shift. Without a cache, ``pattern`` says who sees whom (the
        family's own when None). With a cache, the cache does, and aligns the rows of shifted families. ``rows`` int64
        [N], without a cache: the places in R x L whose features [N, hidden] are all that is wanted, which spares the
        last layer the others.
        """
        if cache is not None:
            assert rows is None, "a cache's rows are all wanted"
            features = self.decoder(tokens, positions, cache)
            return cache.align(features) if self.family.is_shifted else features
        pattern = pattern or pattern_for(self.family, positions)
        seen = Visibility(pattern, dtype=self.dtype, is_cuda=tokens.is_cuda)
        source = predecessors(positions, pattern) if self.family.is_shifted else None
        if rows is not None:
            if source is not None:
                rows = rows - rows % source.shape[1] + source.flatten()[rows]
            return self.decoder(tokens, positions, seen, rows)
        features = self.decoder(tokens, positions, seen)
        return features if source is None else features.gather(1, source[..., None].expand_as(features))


class LanguageModel(Backbone):
    """Weights of one model: a backbone, and the head that turns its features into logits."""

    def __init__(self, family: Family, sizes: DecoderConfig, config: Mapping[str, Any]) -> None:
        super().__init__(family, sizes, config)
        self.lm_head = nn.Linear(sizes.hidden_size, sizes.vocab_size, bias=False)
        if sizes.tie_word_embeddings:
            self.lm_head.weight = self.decoder.embed_tokens.weight

    def head(self, features: Tensor) -> Tensor:
        """Logits [..., V] of feature rows [..., hidden], in the model's dtype."""
        return self.lm_head(features)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, pattern: Pattern | None = None) -> Tensor:
        """Logits [R, L, V]; ``logits[:, i]`` is about token i. Consecutive positions when not given."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        return self.head(self.body(tokens, positions, pattern))


@dataclass(frozen=True)
class Initialisation:
    """How random weights are drawn: normal matrices of ``spread`` (residual outputs scaled by depth), norms of one.

    Small models learn to look things up many times faster with embeddings drawn wider than the matrices, so
    that tokens stand out in the residual stream, and with q/k norms above one, so that attention can be sharp at once.
    """

    spread: float = 0.02
    embedding_spread: float = 0.02
    qk_gain: float = 1.0


def initialise(model: LanguageModel, generator: torch.Generator, how: Initialisation) -> None:
    """Draw random weights in place, as ``how`` says."""
    residual = (2 * model.sizes.num_hidden_layers) ** -0.5
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.zero_()
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                gain = how.qk_gain if name.endswith(("q_norm.weight", "k_norm.weight")) else 1.0
                parameter.fill_(0.0 if name.endswith("bias") else gain)
                continue
            scale = residual if name.removesuffix(".weight").endswith(("o_proj", "down_proj")) else 1.0
            is_embedding = name.endswith("embed_tokens.weight")
            parameter.normal_(0.0, how.embedding_spread if is_embedding else how.spread * scale, generator=generator)
