"""What ``enable_cache`` leaves on a head: replaced calls, sessions in progress, counts."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ros_vla_accel.moeca.adapter import HeadAdapter, Site
from ros_vla_accel.moeca.config import BranchCacheConfig, CacheConfig
from ros_vla_accel.moeca.methods import Replacement, replacements
from ros_vla_accel.moeca.session import Counts, Session, Step


class HeadCache:
    """The calls of one head, replaced by those of a method.

    Outside of a session's step a replaced call is the original one: what does not know of the
    cache gets exact results.
    """

    def __init__(self, head: HeadAdapter, config: CacheConfig) -> None:
        self.config, self.counts, self.peak_bytes = config, Counts(), 0
        self._local = threading.local()
        self._lock = threading.Lock()
        self._clock = 0
        self.remembers = isinstance(config, BranchCacheConfig) and config.across > 0
        self._recent: tuple[Any, Session | None] = None, None
        self._used: weakref.WeakKeyDictionary[Session, int] = weakref.WeakKeyDictionary()
        pairs = replacements(head, config)
        for site, _ in pairs:
            if site.name in vars(site.owner):
                raise ValueError(
                    f"'{site.name}' of {type(site.owner).__name__} is replaced already, by "
                    "another cache or patch; undo that first"
                )
        self._sites = [site for site, _ in pairs]
        for site, replacement in pairs:
            vars(site.owner)[site.name] = self._wrap(site, replacement)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A copy's replaced calls would run the layers of the original.
        raise TypeError("a head with a cache cannot be copied or saved; disable_cache(head) first")

    def _wrap(self, site: Site, replacement: Replacement) -> Callable[..., Tensor]:
        original = site.call

        def call(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            step = self.current
            if step is None:
                return original(x, *args, **kwargs)
            return replacement(step, original, x, *args, **kwargs)

        return call

    def remove(self) -> None:
        for site in self._sites:
            del vars(site.owner)[site.name]
        self._sites = []

    @property
    def current(self) -> Step | None:
        """The step that this thread is in."""
        return getattr(self._local, "step", None)

    @property
    def _local_stream(self) -> Any:
        return getattr(self._local, "stream", None)

    @contextmanager
    def following(self, stream: Hashable) -> Iterator[None]:
        outer, self._local.stream = self._local_stream, stream
        try:
            yield
        finally:
            self._local.stream = outer

    def enter(self, step: Step) -> Step | None:
        outer = self.current
        self._local.step = step
        return outer

    def leave(self, outer: Step | None) -> None:
        self._local.step = outer

    def begin(self, steps: int) -> Session:
        stream = None if self._local_stream is None else (self._local_stream, steps)
        with self._lock:
            self.counts.inferences += 1
            known = stream is not None and stream == self._recent[0]
            session = Session(self, steps, self._recent[1] if known else None)
            if stream is not None and self.remembers:
                self._recent = stream, session
        return session

    def forget(self) -> None:
        with self._lock:
            self._recent = None, None

    def account(self, session: Session, counts: Counts) -> None:
        """Adds up a finished step and keeps the memory of all sessions within its bound."""
        with self._lock:
            self._clock += 1
            self._used[session] = self._clock
            total = sum(s.bytes for s in self._used)
            for old in sorted(self._used, key=self._used.__getitem__):
                if total <= self.config.max_bytes:
                    break
                total -= old.bytes
                old.clear()
                counts.afresh += 1
            self.peak_bytes = max(self.peak_bytes, total)
            self.counts.add(counts)

    @property
    def bytes(self) -> int:
        """Memory of all sessions that are still referenced."""
        with self._lock:
            return sum(s.bytes for s in self._used)
