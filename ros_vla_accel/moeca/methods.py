"""Which calls of a head each method replaces, and by what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ros_vla_accel.moeca.adapter import HeadAdapter, Site
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
from ros_vla_accel.moeca.tokens import TokenCache

Replacement = Callable[..., Tensor]
"""(step, original call, x, whatever else the call takes) -> what the call would return."""


def replacements(head: HeadAdapter, config: CacheConfig) -> list[tuple[Site, Replacement]]:
    """Raises TypeError for a configuration of no known method."""
    blocks = head.blocks
    pairs: list[tuple[Site, Any]] = []
    if isinstance(config, BranchCacheConfig):
        cache = BranchCache(head, config)
        for number, block in enumerate(blocks):
            pairs.append((block.layer.site, partial(cache.mixture, number)))
            if config.attention != "always":
                pairs += [
                    (site, partial(cache.attention, number, place))
                    for place, site in enumerate(block.attention)
                ]
    elif isinstance(config, ForaConfig | TaylorConfig):
        order = config.order if isinstance(config, TaylorConfig) else 0
        sites = [site for block in blocks for site in (*block.attention, block.mixture)]
        pairs += [(site, partial(run_held, key, order)) for key, site in enumerate(sites)]
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
