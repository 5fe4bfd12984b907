"""Keeps simulated time from running ahead of wall time, and says how far it falls behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 2.0
"""Wall time over which ``factor`` is measured; the least is half of it."""
DEBT_S = 0.1
"""Wall time that is made up for after a delay; a longer one is let go, or motion would rush."""


class Pacer:
    """``pace`` after each tick sleeps until the tick is due.

    max_factor: simulated seconds per wall second at most.
    factor: the same as measured over the last two wall seconds.
    """

    def __init__(
        self,
        max_factor: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.max_factor = max_factor
        self.factor = max_factor
        self._now, self._sleep = now, sleep
        self._marks: deque[tuple[float, float]] = deque()
        self._due_s: float | None = None

    def restart(self) -> None:
        """After a pause that is not the simulation's slowness, a reset for instance."""
        self._marks.clear()
        self._due_s = None

    def pace(self, tick_s: float) -> None:
        """Ends when a tick of ``tick_s`` simulated seconds may end."""
        now = self._now()
        if self._due_s is None:
            self._due_s = now
        else:
            self._due_s = max(self._due_s + tick_s / self.max_factor, now - DEBT_S)
        if self._due_s > now:
            self._sleep(self._due_s - now)
        elapsed_s = self._marks[-1][1] + tick_s if self._marks else 0.0
        self._marks.append((self._now(), elapsed_s))
        while self._marks[-1][0] - self._marks[0][0] > WINDOW_S and len(self._marks) > 2:
            self._marks.popleft()
        (wall_0, simulated_0), (wall_1, simulated_1) = self._marks[0], self._marks[-1]
        if wall_1 - wall_0 > WINDOW_S / 2:
            self.factor = (simulated_1 - simulated_0) / (wall_1 - wall_0)
