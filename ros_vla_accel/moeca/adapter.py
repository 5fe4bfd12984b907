"""What a DiT-MoE must name so that it can be cached: its blocks, and the parts of their mixtures.

Nothing here knows a model. A head is described once, by plain objects of the classes below;
``policies/head_adapter.py`` describes the reference head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Site:
    """A method of a module that is replaced while a cache is on: ``getattr(owner, name)``.

    Its first argument and its result are tensors of the same shape.
    """

    owner: nn.Module
    name: str = "forward"

    @property
    def call(self) -> Callable[..., Tensor]:
        return getattr(self.owner, self.name)


@dataclass(frozen=True)
class Routes:
    """Where each of N tokens goes. experts: (N, k) int64, no expert twice in a row of it.
    gates: (N, k), their weights. whole: whatever the layer's own ``combine`` wants besides."""

    experts: Tensor
    gates: Tensor
    whole: Any = None


class MoELayer(Protocol):
    """One mixture of experts in parts.

    site: the call of the whole layer on tokens (..., D), pre-gate of the block. experts: how many
    routed ones; they are numbered from 0, and ``shared`` ones that see every token follow.
    """

    site: Site
    experts: int
    shared: int

    def route(self, x: Tensor) -> Routes:
        """Experts and gates of tokens x (N, D)."""
        ...

    def run(self, expert: int, rows: Tensor) -> Tensor:
        """Pre-gate output (rows, D) of one expert; numbers from ``experts`` on are shared ones."""
        ...

    def combine(self, branches: Tensor, shared: Tensor, routes: Routes) -> Tensor:
        """Output (N, D) of branches (N, k, D), shared outputs (S, N, D) and the gates."""
        ...


@dataclass(frozen=True)
class BlockParts:
    """One block of the head.

    block: the whole block, x -> x. attention: its attention paths before their gates, in order.
    mixture: its MoE path before its gate; may be the layer's own site. layer: the mixture in it.
    """

    name: str
    block: Site
    attention: tuple[Site, ...]
    mixture: Site
    layer: MoELayer


class HeadAdapter(Protocol):
    """Describes one head. blocks: in the order in which they run."""

    blocks: Sequence[BlockParts]
