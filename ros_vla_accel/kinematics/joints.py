"""Reads joint states by name, and refuses the ones that nothing should act on.

A joint state comes from outside: its order, its extra joints and its gaps are the publisher's.
Everything after this file sees one order (the configured one), finite numbers and rising stamps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

ABSURD = 1e6
"""Larger magnitudes (rad, m, rad/s, N m) are corrupt numbers, not motion."""

HELD_S = 0.05
"""Positions that repeat for so long are a slow publisher's; after it the arm is at rest."""

CLOCK_RESET_S = 1.0
"""A stamp further back than this is a reset clock (simulator, bag loop), not a late message."""


class JointStateError(ValueError):
    """A joint state that was refused; ``reason`` is the key under which it was counted."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class JointSample:
    """One joint state in the configured order: n joints, float64.

    stamp_ns: robot-side stamp, nanoseconds. position: (n,) rad or m. velocity: (n,) rad/s or m/s.
    effort: (n,) N m or N, or None where the robot publishes none.
    """

    stamp_ns: int
    position: FloatArray
    velocity: FloatArray
    effort: FloatArray | None = None


class JointReader:
    """Turns the fields of ``sensor_msgs/JointState`` into ``JointSample``, or says why not.

    The order of the message may change at any time and extra joints are ignored. A field that
    is NaN for every wanted joint counts as not published: ``joint_state_broadcaster`` fills
    absent interfaces that way; so does one that has been zero for every joint from the start.
    Without velocities they are differentiated from the positions; the first sample then has
    velocity zero, and positions that a publisher repeats under newer stamps keep theirs.

    names: joints wanted, in the order of the samples. differentiate: whether missing velocities
    may be made from positions.
    """

    def __init__(self, names: Sequence[str], differentiate: bool = True) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"joint names must be distinct and at least one; got {list(names)}")
        self.names = tuple(names)
        self.differentiate = differentiate
        self.rejected: Counter[str] = Counter()
        self.clock_resets = 0
        self._order: list[str] = []
        self._index: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._previous: JointSample | None = None
        self._changed: JointSample | None = None  # the first with the previous one's positions
        self._velocity_seen = self._effort_seen = False

    def reset(self) -> None:
        """Forgets the previous sample; counts stay."""
        self._previous = self._changed = None

    def shift(self, offset_ns: int) -> None:
        """Stamps are read on another clock from now on, later by ``offset_ns``."""
        if self._previous is not None and self._changed is not None:
            self._previous = replace(self._previous, stamp_ns=self._previous.stamp_ns + offset_ns)
            self._changed = replace(self._changed, stamp_ns=self._changed.stamp_ns + offset_ns)

    def read(
        self,
        name: Sequence[str],
        position: ArrayLike,
        velocity: ArrayLike,
        effort: ArrayLike,
        stamp_ns: int,
    ) -> JointSample:
        """Reads one message; empty ``velocity`` and ``effort`` mean "not published".

        Raises JointStateError (and counts it in ``rejected``, and changes nothing else) if a
        joint is missing, a value is not finite or absurd, lengths differ, or the stamp is not
        newer than the previous one. A stamp more than 1 s back is a reset clock: accepted.
        """
        try:
            sample, reset, published = self._read(name, position, velocity, effort, stamp_ns)
        except JointStateError as error:
            self.rejected[error.reason] += 1
            raise
        self.clock_resets += reset
        self._velocity_seen = self._velocity_seen or published
        self._effort_seen = self._effort_seen or sample.effort is not None
        last = self._previous
        if reset or last is None or not _same(last.position, sample.position):
            self._changed = sample
        self._previous = sample
        return sample

    def _read(
        self,
        name: Sequence[str],
        position: ArrayLike,
        velocity: ArrayLike,
        effort: ArrayLike,
        stamp_ns: int,
    ) -> tuple[JointSample, bool, bool]:
        """The sample, whether the clock was reset, and whether velocities are published."""
        if not self._order or list(name) != self._order:
            self._index = self._map(name)
            self._order = list(name)
        positions = self._pick("position", position)
        if positions is None:
            raise JointStateError(
                "missing", "joint_states has no positions; the publisher must fill 'position'"
            )
        velocities = self._pick("velocity", velocity)
        efforts = self._pick("effort", effort)
        previous, reset = self._after(stamp_ns)
        if efforts is not None and not (self._effort_seen or efforts.any()):
            efforts = None
        if velocities is not None and (self._velocity_seen or velocities.any()):
            return JointSample(stamp_ns, positions, velocities, efforts), reset, True
        if self.differentiate:
            velocities = self._differentiate(positions, stamp_ns, previous)
        elif velocities is None:
            raise JointStateError(
                "missing",
                f"joint_states has no velocity for '{self.names[0]}'; set "
                "`kinematics.differentiate: true` or publish velocities",
            )
        return JointSample(stamp_ns, positions, velocities, efforts), reset, False

    def _differentiate(
        self, positions: FloatArray, stamp_ns: int, previous: JointSample | None
    ) -> FloatArray:
        if previous is None or self._changed is None:
            return np.zeros_like(positions)
        since = self._changed
        if _same(positions, previous.position):
            held = stamp_ns - since.stamp_ns <= HELD_S * 1e9
            return previous.velocity if held else np.zeros_like(positions)
        if previous.stamp_ns - since.stamp_ns > HELD_S * 1e9:
            since = previous
        return (positions - since.position) / ((stamp_ns - since.stamp_ns) * 1e-9)

    def _map(self, name: Sequence[str]) -> NDArray[np.intp]:
        if len(name) == 0:
            raise JointStateError(
                "names", "joint_states has no joint names; the publisher must fill 'name'"
            )
        position_of = {joint: index for index, joint in enumerate(name)}
        for joint in self.names:
            if joint not in position_of:
                raise JointStateError(
                    "missing",
                    f"joint_states has no joint '{joint}' (it has {', '.join(name)}); correct "
                    "the joint names in the robot YAML or publish all joints in one message",
                )
        if len(position_of) != len(name):
            twice = [joint for joint, count in Counter(name).items() if count > 1]
            raise JointStateError(
                "names", f"joint_states names {', '.join(twice)} twice; publish each joint once"
            )
        return np.array([position_of[joint] for joint in self.names], dtype=np.intp)

    def _pick(self, field: str, values: ArrayLike) -> FloatArray | None:
        array = np.asarray(values, dtype=np.float64)
        if array.size == 0:
            return None
        if array.shape != (len(self._order),):
            raise JointStateError(
                "length",
                f"joint_states has {array.size} values of {field} for {len(self._order)} names; "
                "the publisher must send one per name",
            )
        picked: FloatArray = array[self._index]
        if bool((np.abs(picked) <= ABSURD).all()):
            return picked
        if field != "position" and bool(np.isnan(picked).all()):
            return None
        bad = int(np.argmin(np.abs(picked) <= ABSURD))
        reason = "absurd" if np.isfinite(picked[bad]) else "not_finite"
        raise JointStateError(
            reason,
            f"joint_states has {field} {picked[bad]} for '{self.names[bad]}'; the sample is "
            "dropped, check the driver or the sensor of that joint",
        )

    def _after(self, stamp_ns: int) -> tuple[JointSample | None, bool]:
        """The sample to differentiate from, and whether the clock was reset."""
        previous = self._previous
        if previous is None or stamp_ns > previous.stamp_ns:
            return previous, False
        back_s = (previous.stamp_ns - stamp_ns) * 1e-9
        if back_s > CLOCK_RESET_S:
            return None, True
        fault = "repeats the previous stamp" if back_s == 0 else f"goes back {back_s:.6f} s"
        raise JointStateError(
            "stamp",
            f"joint_states stamp {stamp_ns} ns {fault}; the sample is dropped, check that one "
            "node publishes joint_states and that it stamps each message",
        )


def _same(a: FloatArray, b: FloatArray) -> bool:
    return a.tobytes() == b.tobytes()  # a tenth of the time of np.array_equal
