"""Which calls of a head each method replaces, and by what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ros_vla_accel.moeca.adapter import BlockParts, HeadAdapter, Site
from ros_vla_accel.moeca.branches import BranchCache
from ros_vla_accel.moeca.config import (
    BranchCacheConfig,
    CacheConfig,
    FirstBlockConfig,
    ForaConfig,
    TaylorConfig,
    TokenCacheConfig,
)
from ros_vla_accel.moeca.first_block import FirstBlock
from ros_vla_accel.moeca.forecast import run_held
from ros_vla_accel.moeca.session import Step
from ros_vla_accel.moeca.tokens import TokenCache

Replacement = Callable[..., Tensor]
"""(step, original call, x, whatever else the call takes) -> what the call would return."""


def replacements(head: HeadAdapter, config: CacheConfig) -> list[tuple[Site, Replacement]]:
    """Raises TypeError for a configuration of no known method."""
    blocks = head.blocks
    pairs: list[tuple[Site, Any]] = []
    if isinstance(config, BranchCacheConfig) and not config.whole_paths:
        cache = BranchCache(head, config)
        for number, block in enumerate(blocks):
            pairs += _mixture(cache, number, block)
            if config.attention != "always":
                pairs += [
                    (site, partial(cache.attention, number, place))
                    for place, site in enumerate(block.attention)
                ]
    elif isinstance(config, BranchCacheConfig | ForaConfig | TaylorConfig):
        held = not isinstance(config, BranchCacheConfig) or config.attention != "always"
        sites = [
            site
            for block in blocks
            for site in (*(block.attention if held else ()), block.mixture)
        ]
        pairs += [(site, partial(run_held, key, config.order)) for key, site in enumerate(sites)]
    elif isinstance(config, TokenCacheConfig):
        tokens = TokenCache(config.ratio)
        for number, block in enumerate(blocks):
            pairs.append((block.layer.site, partial(tokens.mixture, ("mixture", number))))
            pairs += [
                (site, partial(run_held, (number, place), 0))
                for place, site in enumerate(block.attention)
            ]
    elif isinstance(config, FirstBlockConfig):
        first = FirstBlock(config.threshold, len(blocks))
        pairs += [
            (block.block, partial(first.block, number)) for number, block in enumerate(blocks)
        ]
    else:
        raise TypeError(
            f"{type(config).__name__} is no known method; see ros_vla_accel.moeca.config"
        )
    return pairs


def _mixture(cache: BranchCache, number: int, block: BlockParts) -> list[tuple[Site, Replacement]]:
    """The mixture of a block and, where it is held whole between refreshes, the path around it."""
    site, inner = block.layer.site, partial(cache.mixture, number)
    if cache.config.routing == "always":
        return [(site, inner)]
    if block.mixture != site:
        return [(block.mixture, partial(cache.path, number)), (site, inner)]

    def both(step: Step, original: Callable[..., Tensor], x: Tensor) -> Tensor:
        return cache.path(number, step, partial(inner, step, original), x)

    return [(site, both)]
