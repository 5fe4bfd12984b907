"""The parts of the reference head, named for ``moeca``."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ros_vla_accel.moeca.adapter import BlockParts, Routes, Site
from ros_vla_accel.policies.moe import MixtureOfExperts


class ReferenceMoELayer:
    """``MixtureOfExperts`` for the cache. Experts are looked up at each call, as quantization
    may replace their layers at any time."""

    shared = 1

    def __init__(self, mixture: MixtureOfExperts) -> None:
        self.site, self.experts = Site(mixture), len(mixture.experts)
        self._mixture = mixture

    def route(self, x: Tensor) -> Routes:
        routing = self._mixture.route(x)
        return Routes(routing.experts, routing.gates, routing)

    def run(self, expert: int, rows: Tensor) -> Tensor:
        mixture = self._mixture
        return mixture.experts[expert](rows) if expert < self.experts else mixture.shared(rows)

    def combine(self, branches: Tensor, shared: Tensor, routes: Routes) -> Tensor:
        return self._mixture.combine(branches, shared[0], routes.whole)


class ReferenceHeadAdapter:
    """blocks: ``DiTBlock`` modules in order; self- and cross-attention are its two paths."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        self.blocks = [
            BlockParts(
                f"blocks.{number}",
                Site(block),
                (Site(block, "attend"), Site(block, "look")),
                Site(block, "mix"),
                ReferenceMoELayer(block.moe),  # type: ignore[arg-type]
            )
            for number, block in enumerate(blocks)
        ]
