"""Which callbacks may run at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class CallbackGroup:
    """Base class; do not instantiate.

    Executors claim an entity before its callback and release it afterwards. Whoever was turned
    away leaves a function that is called once the group is free, so that nobody needs to poll.
    """

    def __init__(self) -> None:
        self._entities: list[Any] = []
        self._lock = threading.Lock()

    def add_entity(self, entity: Any) -> None:
        self._entities.append(entity)

    def has_entity(self, entity: Any) -> bool:
        return any(known is entity for known in self._entities)

    def remove_entity(self, entity: Any) -> None:
        self._entities = [known for known in self._entities if known is not entity]

    def can_execute(self, entity: Any) -> bool:
        raise NotImplementedError

    def claim(self, entity: Any, when_free: Callable[[], None] | None = None) -> bool:
        """True: the callback may run, and `release` must follow."""
        raise NotImplementedError

    def release(self, entity: Any) -> None:
        raise NotImplementedError


class ReentrantCallbackGroup(CallbackGroup):
    """Any number of callbacks at once."""

    def can_execute(self, entity: Any) -> bool:
        return True

    def claim(self, entity: Any, when_free: Callable[[], None] | None = None) -> bool:
        return True

    def release(self, entity: Any) -> None:
        pass


class MutuallyExclusiveCallbackGroup(CallbackGroup):
    """One callback at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._active: Any = None
        self._waiting: list[Callable[[], None]] = []

    def can_execute(self, entity: Any) -> bool:
        return self._active is None

    def claim(self, entity: Any, when_free: Callable[[], None] | None = None) -> bool:
        with self._lock:
            if self._active is None:
                self._active = entity
                return True
            if when_free is not None:
                self._waiting.append(when_free)
            return False

    def release(self, entity: Any) -> None:
        with self._lock:
            self._active = None
            if not self._waiting:
                return
            waiting, self._waiting = self._waiting, []
        for notify in waiting:
            notify()
