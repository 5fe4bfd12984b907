"""Joint states on one clock, for everything that decides by them, live and in replay."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.clock import ClockAlignment
from ros_vla_accel.kinematics.joints import JointReader, JointSample


class JointIntake:
    """Reads joint states and moves their stamps to the receiver's clock.

    The first messages only tell the offset of the clocks: their samples are good, but their
    stamps may yet move. With ``settled``, true of the newest sample, what is decided by it is a
    function of the samples, whoever receives them and when.
    """

    def __init__(
        self, names: Sequence[str], differentiate: bool = True, align: bool = True
    ) -> None:
        """align: whether an offset that is found may move the stamps."""
        self.reader = JointReader(names, differentiate)
        self.alignment = ClockAlignment(align)
        self.settled = False

    def take(
        self,
        name: Sequence[str],
        position: ArrayLike,
        velocity: ArrayLike,
        effort: ArrayLike,
        header_ns: int,
        received_ns: int,
    ) -> JointSample:
        """One message, see ``JointReader.read``. Stamps in ns; header_ns 0 means "not stamped".

        Raises JointStateError as ``JointReader.read`` does.
        """
        alignment = self.alignment
        self.settled = alignment.settled
        # Some drivers leave the stamp empty; the time of arrival is the nearest truth then.
        stamp_ns = header_ns + alignment.offset_ns if header_ns else received_ns
        resets = self.reader.clock_resets
        sample = self.reader.read(name, position, velocity, effort, stamp_ns)
        if self.reader.clock_resets != resets:
            alignment.restart()
            self.settled = False
        moved_ns = alignment.observe(header_ns or received_ns, received_ns)
        if moved_ns:
            self.reader.shift(moved_ns)
        return sample
