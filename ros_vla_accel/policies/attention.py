"""Multi-head attention of the backbone and of the action head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Memory = tuple[Tensor, Tensor]
"""Keys and values that queries look at: each (B, heads, N, D / heads)."""


class Attention(nn.Module):
    """Attention whose keys and values can be computed ahead and kept (``remember``)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def remember(self, source: Tensor) -> Memory:
        """Keys and values of source (B, N, D)."""
        key, value = self.key_value(source).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Queries x (B, M, D) over the memory -> (B, M, D)."""
        query, (key, value) = self._split(self.query(x)), memory
        if torch.is_grad_enabled() and query.device.type == "cpu":
            # The backward pass of attention in bfloat16 takes ten times as long on a CPU, and
            # autocast would turn float32 back into bfloat16.
            with torch.autocast("cpu", enabled=False):
                out = functional.scaled_dot_product_attention(
                    query.float(), key.float(), value.float()
                )
        else:
            out = functional.scaled_dot_product_attention(query, key, value)
        return self.out(out.transpose(1, 2).flatten(2).to(x.dtype))
