"""``nn.MultiheadAttention`` whose heads are fewer than its inputs would fill.

PyTorch's own forward derives the width of a head from the width of the queries, so it can lose neither
heads nor inputs alone. :class:`HeadwiseAttention` has the same parameters and the same results, and reads the
number of heads off its tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


class HeadwiseAttention(nn.MultiheadAttention):
    """Multi-head attention with any number of heads of a fixed width.

    Arguments, results and ``state_dict`` are those of ``nn.MultiheadAttention``, except that ``bias_k``,
    ``bias_v`` and ``add_zero_attn`` are not supported.
    """

    @classmethod
    def adopt(cls, module: nn.MultiheadAttention) -> None:
        """Turn a module with cut tensors into one of this class, in place.

        Raises:
            NotImplementedError: If it uses what this class does not support.
        """
        if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
            raise NotImplementedError("heads of attention with bias_k, bias_v or add_zero_attn stay whole.")
        if type(module) not in (nn.MultiheadAttention, cls):
            raise NotImplementedError(f"heads of {type(module).__name__} stay whole.")
        packed = module.in_proj_weight is not None
        module.__class__ = cls
        module.embed_dim = len(module.out_proj.weight)
        module.num_heads = module.out_proj.weight.shape[1] // module.head_dim
        module.kdim = module.embed_dim if packed else module.k_proj_weight.shape[1]
        module.vdim = module.embed_dim if packed else module.v_proj_weight.shape[1]
        # Keeps nn.TransformerEncoderLayer from its fused kernel, which derives head widths, too.
        module._qkv_same_embed_dim = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention.forward``; ``is_causal`` is a hint there, the mask is what counts."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        queries, keys, values = (self._split(x) for x in self._projected(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, query)
        made, weights = self._attend(queries, keys, values, mask, need_weights=need_weights)
        made = self.out_proj(made.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return made.squeeze(0), None if weights is None else weights.squeeze(0)
        return made if self.batch_first else made.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [
            F.linear(x, weight, bias)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]

    def _split(self, x: Tensor) -> Tensor:
        """``(batch, positions, channels)`` to ``(batch, heads, positions, head width)``."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
        """Both masks as what is added to the scores: ``(batch or 1, heads or 1, queries or 1, keys)``."""
        masks = []
        if attn_mask is not None:
            mask = _added(attn_mask, query.dtype)
            masks.append(mask.view(len(query), -1, *mask.shape[1:]) if mask.dim() == 3 else mask[None, None])
        if padding is not None:
            masks.append(_added(padding, query.dtype)[:, None, None])
        return sum(masks[1:], start=masks[0]) if masks else None

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(query, key, value, mask, dropout), None
        scores = query * self.head_dim**-0.5 @ key.transpose(-2, -1)
        weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        return weights @ value, weights


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask, true where nothing may be seen, as minus infinity there."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
