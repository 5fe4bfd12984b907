"""MoECa's execution (arXiv:2606.15615): a cache of expert branches for DiT-MoE action heads.

``enable_cache(head, BranchCacheConfig(...))`` replaces calls of the head's parts; steps inside
``begin(head, steps)`` then reuse what changed little. The methods that it is compared with have
configurations of their own: FORA, TaylorSeer, ToCa-like tokens, first-block threshold.
"""

from ros_vla_accel.moeca.adapter import BlockParts, HeadAdapter, MoELayer, Routes, Site
from ros_vla_accel.moeca.api import (
    Summary,
    begin,
    disable_cache,
    enable_cache,
    following,
    forget,
    is_cached,
    remembers,
    summary,
)
from ros_vla_accel.moeca.config import (
    BranchCacheConfig,
    CacheConfig,
    FirstBlockConfig,
    ForaConfig,
    TaylorConfig,
    TokenCacheConfig,
    cache_config,
)
from ros_vla_accel.moeca.cost import CostModel, fit_cost
from ros_vla_accel.moeca.session import Session

__all__ = [
    "BlockParts",
    "BranchCacheConfig",
    "CacheConfig",
    "CostModel",
    "FirstBlockConfig",
    "ForaConfig",
    "HeadAdapter",
    "MoELayer",
    "Routes",
    "Session",
    "Site",
    "Summary",
    "TaylorConfig",
    "TokenCacheConfig",
    "begin",
    "cache_config",
    "disable_cache",
    "enable_cache",
    "fit_cost",
    "following",
    "forget",
    "is_cached",
    "remembers",
    "summary",
]
