"""What ``enable_cache`` is asked for: MoECa, or one of the methods that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ros_vla_accel.moeca.cost import CostModel

ATTENTION = ("always", "full_steps", "with_moe")
ROUTING = ("always", "with_budget")
MEMORY_LIMIT_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Common to all methods: which steps are computed whole, and how much memory they may hold.

    interval: step 0 and every interval-th after it are full. full_first: so many steps at the
    start are full. full_last: the last is, too. max_bytes: bound on what all inferences in
    progress keep together; beyond it the least recently used starts afresh.
    """

    interval: int = 4
    full_first: int = 1
    full_last: bool = False
    max_bytes: int = MEMORY_LIMIT_BYTES

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"interval {self.interval} must be at least 1 (every step is full)")
        if self.full_first < 1:
            raise ValueError(f"full_first {self.full_first} must be at least 1: nothing is cached")
        if self.max_bytes <= 0:
            raise ValueError(f"max_bytes {self.max_bytes} must be positive")

    def is_full(self, index: int, steps: int) -> bool:
        """Whether step ``index`` of ``steps`` computes everything."""
        if index < self.full_first or index % self.interval == 0:
            return True
        return self.full_last and index == steps - 1


@dataclass(frozen=True, kw_only=True)
class BranchCacheConfig(CacheConfig):
    """MoECa (arXiv:2606.15615): reuses pre-gate expert outputs per branch (token, expert).

    budget: share of a full step's cost that may be spent on a step between full ones; at 1.0 all
    steps are full and, without ``across``, the output is bit-identical to that of the head without
    the cache.
    attention: "always" computed, on "full_steps" only, or "with_moe": where the budget covers a
    whole block, its attention is refreshed together with its mixture. forecast: a reused output
    is drawn on along the line through its last two computed values (the order-1 forecast of
    TaylorSeer, arXiv:2503.06923, per branch) rather than held. cost: prices of the parts.

    routing: "always", as in the paper, or "with_budget": a mixture that the budget of a step does
    not reach is drawn on whole, and its router does not run, so that its gates are not of this
    step and newly routed branches wait for the next refresh. Where experts are small, routing and
    combining cost as much as they do, and branches that are all reused are dear for what they add.
    With no budget at all no branch is ever looked at: this is TaylorSeer of ``forecast_order``,
    FORA without forecast, and runs as such.

    across: not in the paper. At full steps, a branch is taken from the inference before (see
    ``following``), at the same denoising step, if its token went to that expert then and its input
    has since moved by at most this share of its length; 0 is off.

    On the shipped flow head at 50 steps, every third full and nothing between, the forecast
    brings the mean error from 0.0077 to 0.0024 in normalized units (eight observations). There a
    full step more often is worth more than a budget: experts of 0.6 MB cost little beside the
    choice among them. A budget is for experts that are expensive to read.
    """

    budget: float = 0.25
    full_last: bool = True
    attention: str = "with_moe"
    forecast: bool = True
    routing: str = "always"
    forecast_order: int = 1
    across: float = 0.0
    cost: CostModel = field(default_factory=CostModel)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.budget <= 1.0:
            raise ValueError(f"budget {self.budget} must lie in 0..1 (1 computes everything)")
        if self.attention not in ATTENTION:
            raise ValueError(f"attention '{self.attention}' is unknown; choose from {ATTENTION}")
        if self.routing not in ROUTING:
            raise ValueError(f"routing '{self.routing}' is unknown; choose from {ROUTING}")
        if not 0.0 <= self.across < 1.0:
            raise ValueError(f"across {self.across} must lie in 0..1, 1 excluded (0: off)")
        if self.across and self.routing != "always":
            raise ValueError("across needs branches at every full step: routing always")
        if self.forecast_order not in (1, 2):
            raise ValueError(
                f"forecast_order {self.forecast_order} must be 1 or 2; forecast=False holds values"
            )
        if self.forecast_order == 2 and not self.whole_paths and self.budget < 1:
            # Second differences of values that were computed in part only were seen to run away.
            raise ValueError(
                "forecast_order 2 is of whole mixtures: routing with_budget and budget 0"
            )

    @property
    def whole_paths(self) -> bool:
        """Whether no branch is kept, as all that is reused are whole paths."""
        return self.routing == "with_budget" and not self.budget

    @property
    def order(self) -> int:
        """Of the Taylor series that reused values are drawn on by."""
        return self.forecast_order if self.forecast else 0

    def is_full(self, index: int, steps: int) -> bool:
        return self.budget >= 1.0 or super().is_full(index, steps)


@dataclass(frozen=True, kw_only=True)
class ForaConfig(CacheConfig):
    """FORA (arXiv:2407.01425): outputs of attention and mixture are held between full steps."""

    order: ClassVar[int] = 0


@dataclass(frozen=True, kw_only=True)
class TaylorConfig(CacheConfig):
    """TaylorSeer (arXiv:2503.06923): outputs are forecast from finite differences of full steps.

    order: of the Taylor series, 1 or 2; the first intervals have fewer differences, thus less.
    """

    order: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2):
            raise ValueError(f"order {self.order} must be 1 or 2; order 0 is ForaConfig")


@dataclass(frozen=True, kw_only=True)
class TokenCacheConfig(CacheConfig):
    """Token selection in the manner of ToCa (arXiv:2410.05317).

    Between full steps attention is held, and the mixture is computed whole (router, all experts)
    for the ``ratio`` of tokens with the largest drift of input x age. ToCa's own scores need
    attention maps, which fused attention does not give.
    """

    ratio: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.ratio <= 1.0:
            raise ValueError(f"ratio {self.ratio} must lie in 0..1")


@dataclass(frozen=True, kw_only=True)
class FirstBlockConfig(CacheConfig):
    """First-block cache (FBCache, after TeaCache, arXiv:2411.19108; as in ParaAttention).

    The first block is always computed; while its residual is within ``threshold`` (relative L1)
    of that at the last full step, all other blocks are replaced by their residual of then.
    ``interval`` bounds how long.
    """

    threshold: float = 0.1
    interval: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold < 0:
            raise ValueError(f"threshold {self.threshold} must not be negative")


METHODS: dict[str, type[CacheConfig]] = {
    "moeca": BranchCacheConfig,
    "fora": ForaConfig,
    "taylorseer": TaylorConfig,
    "tokens": TokenCacheConfig,
    "first_block": FirstBlockConfig,
}


def cache_config(settings: Mapping[str, Any] | CacheConfig) -> CacheConfig:
    """Of settings as a YAML file has them: ``method`` ("moeca" when left out) and its fields.

    Raises ValueError naming what is unknown or makes no sense.
    """
    if isinstance(settings, CacheConfig):
        return settings
    fields = dict(settings)
    method = fields.pop("method", "moeca")
    if method not in METHODS:
        raise ValueError(f"cache method '{method}' is unknown; choose from {sorted(METHODS)}")
    if isinstance(fields.get("cost"), Mapping):
        fields["cost"] = CostModel(**fields["cost"])
    try:
        return METHODS[method](**fields)
    except TypeError as error:
        raise ValueError(f"cache method '{method}': {error}") from error
