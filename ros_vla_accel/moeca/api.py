"""``enable_cache`` and its inverse, after cache-dit's calls; sessions; what became of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from torch import nn

from ros_vla_accel.moeca.adapter import HeadAdapter
from ros_vla_accel.moeca.cache import HeadCache
from ros_vla_accel.moeca.config import BranchCacheConfig, CacheConfig
from ros_vla_accel.moeca.session import Counts, Session

_STATE = "_moeca"


@dataclass(frozen=True)
class Summary:
    """What a cache did since it was enabled. bytes: held now; peak_bytes: most after a step."""

    config: CacheConfig
    counts: Counts
    bytes: int
    peak_bytes: int

    @property
    def branch_reuse(self) -> float:
        """Share of branches, as rows of experts, not computed; 0 where none are looked at."""
        if not self.counts.branches:
            return 0.0
        return 1 - self.counts.branches_computed / self.counts.branches

    @property
    def path_reuse(self) -> float:
        """Share of attention paths (mixtures, blocks) that were not computed; 0 before any."""
        if not self.counts.paths:
            return 0.0
        return 1 - self.counts.paths_computed / self.counts.paths

    @property
    def reuse(self) -> float:
        """Of branches, or of whole paths for a method that keeps no branches."""
        return self.branch_reuse if self.counts.branches else self.path_reuse

    def __str__(self) -> str:
        c = self.counts
        lines = [
            f"{type(self.config).__name__}: {c.inferences} inferences, {c.steps} steps, "
            f"{c.full_steps} full, {c.afresh} started afresh for memory",
            f"paths reused {self.path_reuse:.1%}",
            f"memory {self.bytes:,} B, at most {self.peak_bytes:,} of {self.config.max_bytes:,} B",
        ]
        if c.branches:
            skipped = 1 - c.experts_computed / max(c.experts, 1)
            lines.insert(
                1, f"branches reused {self.branch_reuse:.1%}, experts skipped {skipped:.1%}"
            )
        return "\n".join(lines)


def enable_cache(
    head: nn.Module, config: CacheConfig | None = None, adapter: HeadAdapter | None = None
) -> None:
    """Caches parts of a DiT-MoE ``head`` between denoising steps; MoECa by default.

    adapter: describes the head; by default what its ``cache_adapter()`` returns. Steps that are
    run inside ``begin(head, steps).step(index)`` are cached, all other calls are not. Raises
    ValueError for a head with a cache, TypeError for one that nothing describes.
    """
    if vars(head).get(_STATE) is not None:
        raise ValueError("the head has a cache already; disable_cache(head) first")
    if adapter is None:
        describe = getattr(head, "cache_adapter", None)
        if describe is None:
            raise TypeError(
                f"{type(head).__name__} does not say what can be cached; give it a method "
                "cache_adapter() or pass adapter= (see ros_vla_accel.moeca.adapter)"
            )
        adapter = describe()
    vars(head)[_STATE] = HeadCache(adapter, config or BranchCacheConfig())


def disable_cache(head: nn.Module) -> None:
    """Puts the original calls back and drops all state. ValueError for a head without a cache."""
    _cache_of(head).remove()
    del vars(head)[_STATE]


def is_cached(head: nn.Module) -> bool:
    """Whether ``enable_cache`` is in force."""
    return vars(head).get(_STATE) is not None


def begin(head: nn.Module, steps: int) -> Session:
    """A session for one inference of ``steps`` evaluations; without a cache, one without effect.

    Samplers call it whether or not a cache is on::

        session = begin(head, steps)
        for index in range(steps):
            with session.step(index):
                x = x + head(x, ...) / steps
    """
    cache = vars(head).get(_STATE)
    return Session(None, steps) if cache is None else cache.begin(steps)


@contextmanager
def following(head: nn.Module, stream: Hashable) -> Iterator[None]:
    """Sessions that begin within it follow the last one of the same ``stream`` and steps.

    stream: what must not change from one inference to the next for branches to be handed on: the
    episodes of a batch in their order, the precision. Without ``across`` it has no effect.
    """
    cache = vars(head).get(_STATE)
    with nullcontext() if cache is None else cache.following(stream):
        yield


def forget(head: nn.Module) -> None:
    """Drops what was kept for the next inference, as between episodes."""
    cache = vars(head).get(_STATE)
    if cache is not None:
        cache.forget()


def remembers(head: nn.Module) -> bool:
    """Whether a cache hands branches on from inference to inference."""
    cache = vars(head).get(_STATE)
    return cache is not None and cache.remembers


def summary(head: nn.Module) -> Summary:
    """Counts and memory since ``enable_cache``. ValueError for a head without a cache."""
    cache = _cache_of(head)
    return Summary(cache.config, Counts(**vars(cache.counts)), cache.bytes, cache.peak_bytes)


def _cache_of(head: nn.Module) -> HeadCache:
    cache = vars(head).get(_STATE)
    if cache is None:
        raise ValueError(f"{type(head).__name__} has no cache; call enable_cache(head) first")
    return cache
