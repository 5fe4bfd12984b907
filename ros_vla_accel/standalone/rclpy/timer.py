"""Timers and rates."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .clock import Clock, ClockChange
from .clock_type import ClockType
from .exceptions import InvalidHandle, ROSInterruptException

if TYPE_CHECKING:
    from .context import Context
    from .node import Node


class Timer:
    """Calls back every period of its clock; late calls are not made up for."""

    wait_handle: int | None = None

    def __init__(
        self,
        callback: Callable[[], Any],
        callback_group: Any,
        timer_period_ns: int,
        clock: Clock,
        *,
        context: Context | None = None,
        autostart: bool = True,
        node: Node | None = None,
    ) -> None:
        if timer_period_ns < 0:
            raise ValueError(f"timer period must be non-negative, got {timer_period_ns} ns")
        self.callback = callback
        self.callback_group = callback_group
        self._period = int(timer_period_ns)
        self._clock = clock
        self._node = node
        self._canceled = not autostart
        self._last = clock.now_ns()
        self._next = self._last + self._period
        self._destroyed = False
        clock._timers.add(self)

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def timer_period_ns(self) -> int:
        return self._period

    @timer_period_ns.setter
    def timer_period_ns(self, value: int) -> None:
        self._period = int(value)
        self._wake()

    def is_ready(self) -> bool:
        return not self._canceled and self._clock.now_ns() >= self._next

    def is_canceled(self) -> bool:
        return self._canceled

    def cancel(self) -> None:
        self._canceled = True

    def reset(self) -> None:
        """Starts over: the next call is a period from now."""
        self._canceled = False
        self._next = self._clock.now_ns() + self._period
        self._wake()

    def time_since_last_call(self) -> int:
        """Nanoseconds."""
        return self._clock.now_ns() - self._last

    def time_until_next_call(self) -> int | None:
        """Nanoseconds, negative if late; None if canceled."""
        return None if self._canceled else self._next - self._clock.now_ns()

    def destroy(self) -> None:
        self._destroyed = self._canceled = True
        self._clock._timers.discard(self)

    def _delete(self) -> tuple[bytes, ...]:
        self.destroy()
        return ()

    def __enter__(self) -> Timer:
        return self

    def __exit__(self, *error: object) -> None:
        self.destroy()

    def _wake(self) -> None:
        if self._node is not None and self._node.executor is not None:
            self._node.executor.wake()

    def _due(self, now: int) -> int | None:
        """When to call, on the steady clock; None if only ``/clock`` or a reset can tell."""
        if self._canceled:
            return None
        if self._clock.clock_type == ClockType.STEADY_TIME:
            return self._next
        left = self._next - self._clock.now_ns()
        if left > 0 and self._clock.is_simulated:
            return None
        return now + left

    def _fire(self) -> Any:
        """Sets the next call and makes this one."""
        if self._canceled:
            return None
        now = self._clock.now_ns()
        self._last = now
        self._next += self._period
        if self._next <= now:
            # Skip the calls that were missed, keep the phase.
            missed = (now - self._next) // self._period + 1 if self._period else 0
            self._next = self._next + missed * self._period if self._period else now
        return self.callback()

    def _clock_moved(self, change: ClockChange, delta_ns: int) -> None:
        now = self._clock.now_ns()
        if change != ClockChange.ROS_TIME_NO_CHANGE or now < self._last:
            # Another time source, or time went back: count the period from here.
            self._last = now
            self._next = now + self._period
        if not self._canceled and now >= self._next:
            self._wake()


class Rate:
    """Sleeps to keep a loop at a rate; for threads other than the one that spins."""

    def __init__(self, timer: Timer, *, context: Context) -> None:
        self._timer, self._context = timer, context
        self._event = threading.Event()
        self._destroyed = False
        timer.callback = self._event.set
        context.on_shutdown(self._event.set)

    def sleep(self) -> None:
        """Raises ROSInterruptException if the context ends, InvalidHandle after `destroy`."""
        if not self._context.ok():
            raise ROSInterruptException()
        if self._destroyed:
            raise InvalidHandle("rate was destroyed")
        self._event.wait()
        self._event.clear()
        if not self._context.ok():
            raise ROSInterruptException()

    def destroy(self) -> None:
        self._destroyed = True
        self._timer.destroy()
        self._event.set()
