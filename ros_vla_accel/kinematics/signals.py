"""The last seconds of joint samples, shared by everything that looks at the robot's motion."""

from __future__ import annotations

from bisect import bisect_left
from threading import Lock

from ros_vla_accel.kinematics.joints import JointSample


class SignalBuffer:
    """Joint samples of the last ``capacity_s`` seconds, by stamp; any thread may call it.

    One subscription feeds it, many readers use it, because each joint_states subscription of its
    own costs a good part of a core at sensor rate. A sample whose stamp is not newer than the
    newest starts the buffer afresh (``JointReader`` lets only reset clocks through).
    """

    def __init__(self, capacity_s: float = 2.0) -> None:
        if not capacity_s > 0:
            raise ValueError(f"capacity_s must be positive; got {capacity_s}")
        self._capacity_ns = round(capacity_s * 1e9)
        self._stamps: list[int] = []
        self._samples: list[JointSample] = []
        self._first = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._samples) - self._first

    def append(self, sample: JointSample) -> None:
        """Adds the newest sample and forgets those older than the capacity."""
        with self._lock:
            if self._stamps and sample.stamp_ns <= self._stamps[-1]:
                self._drop(len(self._stamps))
            self._stamps.append(sample.stamp_ns)
            self._samples.append(sample)
            oldest_ns = sample.stamp_ns - self._capacity_ns
            while self._stamps[self._first] < oldest_ns:
                self._first += 1
            # Lists drop their head in O(n): only once half of them is dead, so O(1) amortized.
            if self._first * 2 > len(self._stamps):
                self._drop(self._first)

    def _drop(self, count: int) -> None:
        del self._stamps[:count]
        del self._samples[:count]
        self._first = 0

    @property
    def newest(self) -> JointSample | None:
        """The newest sample, or None before the first."""
        with self._lock:
            return self._samples[-1] if self._samples else None

    def nearest(self, stamp_ns: int, tolerance_s: float) -> JointSample | None:
        """The sample nearest in time to ``stamp_ns``, or None if none is within the tolerance."""
        with self._lock:
            at = bisect_left(self._stamps, stamp_ns, lo=self._first)
            around = self._samples[max(at - 1, self._first) : at + 1]
        best = min(around, key=lambda sample: abs(sample.stamp_ns - stamp_ns), default=None)
        if best is None or abs(best.stamp_ns - stamp_ns) > tolerance_s * 1e9:
            return None
        return best

    def clear(self) -> None:
        """Forgets all samples."""
        with self._lock:
            self._drop(len(self._stamps))
