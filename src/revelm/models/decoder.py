"""A decoder-only transformer body: RMSNorm, rotary positions, grouped-query attention with q/k norms, SwiGLU.

The Qwen3 shape that SDAR and TraDo use (arXiv 2510.06303). Norms and rotary angles compute in max(fp32, dtype).
The attention pattern is an argument of the forward; so is the cache. Head and body are apart: callers run the
head only on the rows whose logits they need.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from revelm.models.attention import Cache, Visibility


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder, in the words of the official config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    use_qk_norm: bool = True


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


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021), halves convention; angles from absolute positions.

    Frequencies are computed anew in each forward: a buffer would be rounded to bfloat16 with the weights.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        self.head_dim, self.theta = head_dim, theta

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin [R, L, 1, head_dim] for ``positions`` [R, L]."""
        wide = torch.promote_types(dtype, torch.float32)
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float64, device=positions.device) / self.head_dim
        angle = positions[..., None].to(wide) * (self.theta**-exponent).to(wide)
        angle = torch.cat((angle, angle), dim=-1)[..., None, :]
        return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary angles to ``x`` [R, L, H, D]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query attention; who sees whom comes from outside."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        query, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, shared, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, shared, bias=config.attention_bias)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=config.attention_bias)
        norm = (lambda: RMSNorm(config.head_dim, config.rms_norm_eps)) if config.use_qk_norm else nn.Identity
        self.q_norm, self.k_norm = norm(), norm()

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], seen: Visibility | Cache) -> Tensor:
        """[R, L, hidden] -> [R, L, hidden]."""
        shape = (*x.shape[:2], -1, self.head_dim)
        query = rotate(self.q_norm(self.q_proj(x).view(shape)), *angles)
        key = rotate(self.k_norm(self.k_proj(x).view(shape)), *angles)
        value = self.v_proj(x).view(shape)
        if isinstance(seen, Visibility):
            mixed = seen.attend(query, key, value)
        else:
            mixed = seen.attend(self.layer, query, key, value)
        return self.o_proj(mixed.flatten(2))


class MLP(nn.Module):
    """SwiGLU feed-forward (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Pre-norm attention and feed-forward with residuals."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], seen: Visibility | Cache) -> Tensor:
        """[R, L, hidden] -> [R, L, hidden]."""
        x = x + self.self_attn(self.input_layernorm(x), angles, seen)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token ids to features: embedding, layers, final norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.head_dim, config.rope_theta)

    def forward(self, tokens: Tensor, positions: Tensor, seen: Visibility | Cache) -> Tensor:
        """tokens, positions int64 [R, L] -> features [R, L, hidden]."""
        x = self.embed_tokens(tokens)
        angles = self.rotary(positions, x.dtype)
        for layer in self.layers:
            x = layer(x, angles, seen)
        return self.norm(x)
