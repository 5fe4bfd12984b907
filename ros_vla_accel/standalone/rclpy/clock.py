"""Clocks: system, steady, and ROS time that may follow ``/clock``."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from .clock_type import ClockType
from .context import Context
from .duration import Duration
from .exceptions import NotInitializedException
from .time import Time

__all__ = ["Clock", "ClockChange", "ClockType", "JumpHandle", "JumpThreshold", "ROSClock"]


class ClockChange(IntEnum):
    ROS_TIME_NO_CHANGE = 1
    ROS_TIME_ACTIVATED = 2
    ROS_TIME_DEACTIVATED = 3
    SYSTEM_TIME_NO_CHANGE = 4


class JumpThreshold:
    """How large a jump of time must be to be told; None: not told."""

    def __init__(
        self,
        *,
        min_forward: Duration | None,
        min_backward: Duration | None,
        on_clock_change: bool = True,
    ) -> None:
        if min_forward is not None and min_forward.nanoseconds <= 0:
            raise ValueError("min_forward must be a positive non-zero duration")
        if min_backward is not None and min_backward.nanoseconds >= 0:
            raise ValueError("min_backward must be a negative non-zero duration")
        if min_forward is None and min_backward is None and not on_clock_change:
            raise ValueError("At least one jump threshold must be enabled")
        self.min_forward = min_forward
        self.min_backward = min_backward
        self.on_clock_change = on_clock_change


class TimeJump:
    """What a jump callback is told."""

    def __init__(self, clock_change: ClockChange, delta: Duration) -> None:
        self.clock_change = clock_change
        self.delta = delta


class JumpHandle:
    """A registered jump callback; unregisters as a context manager or by `unregister`."""

    def __init__(
        self,
        *,
        clock: Clock,
        threshold: JumpThreshold,
        pre_callback: Callable[[], None] | None,
        post_callback: Callable[[TimeJump], None] | None,
    ) -> None:
        if pre_callback is None and post_callback is None:
            raise ValueError("One of pre_callback or post_callback must be callable")
        self.threshold, self.pre, self.post = threshold, pre_callback, post_callback
        self._clock: Clock | None = clock
        clock._jumps.append(self)

    def wants(self, change: ClockChange, delta_ns: int) -> bool:
        if change in (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
            return self.threshold.on_clock_change
        forward, backward = self.threshold.min_forward, self.threshold.min_backward
        if forward is not None and delta_ns >= forward.nanoseconds:
            return True
        return backward is not None and delta_ns <= backward.nanoseconds

    def unregister(self) -> None:
        if self._clock is not None:
            self._clock._jumps.remove(self)
            self._clock = None

    def __enter__(self) -> JumpHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.unregister()


class Clock:
    """A clock of one kind. ROS_TIME gives a `ROSClock`, as in rclpy."""

    _type: ClockType

    def __new__(cls, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> Clock:
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        made = super().__new__(ROSClock if clock_type == ClockType.ROS_TIME else cls)
        made._type = clock_type
        return made

    def __init__(self, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> None:
        self._jumps: list[JumpHandle] = []
        self._timers: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def clock_type(self) -> ClockType:
        return self._type

    def __repr__(self) -> str:
        return f"Clock(clock_type={self._type.name})"

    def now_ns(self) -> int:
        """Nanoseconds since this clock's epoch."""
        return time.monotonic_ns() if self._type == ClockType.STEADY_TIME else time.time_ns()

    def now(self) -> Time:
        return Time(nanoseconds=self.now_ns(), clock_type=self._type)

    @property
    def is_simulated(self) -> bool:
        """Whether only ``/clock`` moves this clock."""
        return False

    def create_jump_callback(
        self,
        threshold: JumpThreshold,
        *,
        pre_callback: Callable[[], None] | None = None,
        post_callback: Callable[[TimeJump], None] | None = None,
    ) -> JumpHandle:
        return JumpHandle(
            clock=self, threshold=threshold, pre_callback=pre_callback, post_callback=post_callback
        )

    def sleep_until(self, until: Time, context: Context | None = None) -> bool:
        """Sleeps; False if the context shut down or the clock's source changed meanwhile."""
        from .utilities import get_default_context

        context = context or get_default_context()
        if not context.ok():
            raise NotInitializedException()
        if until.clock_type != self._type:
            raise ValueError("until's clock type does not match this clock's type")
        event, changed = threading.Event(), False

        def jumped(jump: TimeJump) -> None:
            nonlocal changed
            changed = changed or jump.clock_change in (
                ClockChange.ROS_TIME_ACTIVATED,
                ClockChange.ROS_TIME_DEACTIVATED,
            )
            event.set()

        threshold = JumpThreshold(
            min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1)
        )
        context.on_shutdown(event.set)
        with self.create_jump_callback(threshold, post_callback=jumped):
            while context.ok() and not changed:
                left = until.nanoseconds - self.now_ns()
                if left <= 0:
                    return True
                event.wait(None if self.is_simulated else left / 1e9)
                event.clear()
        return False

    def sleep_for(self, rel_time: Duration, context: Context | None = None) -> bool:
        return self.sleep_until(self.now() + rel_time, context)


class ROSClock(Clock):
    """ROS time: the system clock, or the last ``/clock`` message while simulated time is on."""

    def __new__(cls, *, clock_type: ClockType = ClockType.ROS_TIME) -> ROSClock:
        made = object.__new__(cls)
        made._type = ClockType.ROS_TIME
        return made

    def __init__(self, *, clock_type: ClockType = ClockType.ROS_TIME) -> None:
        super().__init__()
        self._override: int | None = None
        self._override_ns = 0

    @property
    def ros_time_is_active(self) -> bool:
        return self._override is not None

    @property
    def is_simulated(self) -> bool:
        return self._override is not None

    def now_ns(self) -> int:
        return time.time_ns() if self._override is None else self._override

    def _set_ros_time_is_active(self, enabled: bool) -> None:
        if enabled == self.ros_time_is_active:
            return
        before = self.now_ns()
        after = self._override_ns if enabled else time.time_ns()
        change = ClockChange.ROS_TIME_ACTIVATED if enabled else ClockChange.ROS_TIME_DEACTIVATED
        self._jump(change, after - before, self._override_ns if enabled else None)

    def set_ros_time_override(self, time: Time) -> None:
        """Sets what `now` returns while simulated time is on."""
        self._override_ns = time.nanoseconds
        if self._override is not None:
            delta = time.nanoseconds - self._override
            self._jump(ClockChange.ROS_TIME_NO_CHANGE, delta, time.nanoseconds)

    def _jump(self, change: ClockChange, delta_ns: int, override: int | None) -> None:
        told = [jump for jump in self._jumps if jump.wants(change, delta_ns)]
        for jump in told:
            if jump.pre is not None:
                jump.pre()
        self._override = override
        for jump in told:
            if jump.post is not None:
                jump.post(TimeJump(change, Duration(nanoseconds=delta_ns)))
        for timer in list(self._timers):
            timer._clock_moved(change, delta_ns)
