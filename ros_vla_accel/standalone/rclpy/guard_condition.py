"""Conditions that any thread may trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dds.participant import Participant


class GuardCondition:
    """Runs its callback on the executor after `trigger`; made by `Node.create_guard_condition`."""

    def __init__(
        self, participant: Participant, callback: Callable[[], Any], callback_group: Any
    ) -> None:
        self._guard = participant.guard()
        self.wait_handle = self._guard.handle
        self.callback = callback
        self.callback_group = callback_group

    def trigger(self) -> None:
        self._guard.set()

    def _take(self) -> Callable[[], Any]:
        self._guard.clear()
        return self.callback

    def _delete(self) -> tuple[bytes, ...]:
        self._guard.delete()
        return ()
