"""A decoder-only transformer body: RMSNorm, rotary positions, grouped-query attention, SwiGLU or routed experts.

The shape that all supported families share; what differs between them is in ``DecoderConfig``. Norms and rotary angles
compute in max(fp32, dtype). The attention pattern is an argument of the forward; so is the cache. Head and body are
apart: callers run the head only on the rows whose logits they need. Where features of some rows are all that is wanted,
the last layer's output projection and feed-forward run on these alone; of the others it takes keys and values.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from revelm.models.attention import Cache, Visibility
from revelm.models.experts import ExpertsConfig, SparseMLP
from revelm.models.feed_forward import SwiGLU
from revelm.models.fields import MAX_LAYERS, check_flag, check_integer, check_number
from revelm.models.rotary import Rope, Rotary, rotate

SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
)
FLAGS = ("tie_word_embeddings", "has_qkv_bias", "has_output_bias", "has_qk_norm", "has_fused_qkv")


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder, in the words of the official config.json.

    ``experts``: settings of the sparse layers, all but those in ``dense_layers``; None: every layer is dense.
    ``has_fused_qkv``: queries, keys and values come from one matrix, in this order.
    ValueError names a size that cannot be.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope: Rope
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    has_qk_norm: bool = True
    has_fused_qkv: bool = False
    experts: ExpertsConfig | None = None
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in SIZES:
            most = MAX_LAYERS if name == "num_hidden_layers" else None
            check_integer(name, vars(self)[name], most=most)
        for name in FLAGS:
            check_flag(name, vars(self)[name])
        check_number("rms_norm_eps", self.rms_norm_eps)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} attention heads cannot share {self.num_key_value_heads} key/value heads "
                "evenly"
            )
        if self.rope.dim > self.head_dim:
            raise ValueError(f"{self.rope.dim} dimensions of a head are rotated, but head_dim is {self.head_dim}")


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in max(fp32, dtype)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size] in the dtype of ``x``."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return torch.nn.functional.rms_norm(wide, wide.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention; who sees whom comes from outside."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        query, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.widths = (query, shared, shared)
        bias = config.has_qkv_bias
        self.qkv_proj = nn.Linear(config.hidden_size, sum(self.widths), bias=bias) if config.has_fused_qkv else None
        if self.qkv_proj is None:
            self.q_proj = nn.Linear(config.hidden_size, query, bias=bias)
            self.k_proj = nn.Linear(config.hidden_size, shared, bias=bias)
            self.v_proj = nn.Linear(config.hidden_size, shared, bias=bias)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=config.has_output_bias)
        norm = (lambda: RMSNorm(config.head_dim, config.rms_norm_eps)) if config.has_qk_norm else nn.Identity
        self.q_norm, self.k_norm = norm(), norm()

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], seen: Visibility | Cache, rows: Tensor | None = None
    ) -> Tensor:
        """[R, L, hidden] -> [R, L, hidden]; with ``rows`` int64 [N], places in R x L, [N, hidden] of these."""
        shape = (*x.shape[:2], -1, self.head_dim)
        query, key, value = (part.view(shape) for part in self._project(x))
        query, key = rotate(self.q_norm(query), *angles), rotate(self.k_norm(key), *angles)
        if isinstance(seen, Visibility):
            mixed = seen.attend(query, key, value)
        else:
            mixed = seen.attend(self.layer, query, key, value)
        return self.o_proj(_at(mixed.flatten(2), rows))

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.qkv_proj is not None:
            return tuple(part.contiguous() for part in self.qkv_proj(x).split(self.widths, dim=-1))
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward with residuals."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        if config.experts is None or layer in config.dense_layers:
            self.mlp: nn.Module = SwiGLU(config.hidden_size, config.intermediate_size)
        else:
            self.mlp = SparseMLP(config.experts)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], seen: Visibility | Cache, rows: Tensor | None = None
    ) -> Tensor:
        """[R, L, hidden] -> [R, L, hidden]; with ``rows`` int64 [N], places in R x L, [N, hidden] of these."""
        x = _at(x, rows) + self.self_attn(self.input_layernorm(x), angles, seen, rows)
        return x + self.mlp(self.post_attention_layernorm(x))


def _at(x: Tensor, rows: Tensor | None) -> Tensor:
    """``x`` [R, L, D] itself, or its ``rows`` [N, D]."""
    return x if rows is None else x.flatten(0, 1).index_select(0, rows)


class Decoder(nn.Module):
    """Token ids to features: embedding, layers, final norm.

    ``recomputes_layers``: in training, keep only the layers' inputs and run each layer again in the backward pass.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        # Not drawn at random: on the meta device that would import the whole of the compiler.
        weight = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(weight, freeze=False)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.rope)
        self.recomputes_layers = False

    def forward(
        self, tokens: Tensor, positions: Tensor, seen: Visibility | Cache, rows: Tensor | None = None
    ) -> Tensor:
        """tokens, positions int64 [R, L] -> features [R, L, hidden]; row i is what the network says at row i.

        ``rows`` int64 [N]: the places in R x L, possibly repeated, whose features [N, hidden] are all that is wanted.
        """
        x = self.embed_tokens(tokens)
        angles = self.rotary(positions, x.dtype)
        recomputes = self.recomputes_layers and torch.is_grad_enabled()
        for number, layer in enumerate(self.layers, 1):
            inputs = (x, angles, seen)
            if rows is not None and number == len(self.layers):
                inputs = (x, angles, seen.only(rows) if isinstance(seen, Visibility) else seen, rows)
            x = checkpoint(layer, *inputs, use_reentrant=False) if recomputes else layer(*inputs)
        return self.norm(x)
