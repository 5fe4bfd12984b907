import threading

import numpy as np

from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.kinematics.signals import SignalBuffer

MS = 1_000_000


def sample(stamp_ns: int) -> JointSample:
    return JointSample(stamp_ns, np.zeros(1), np.zeros(1))


def stamp(found: JointSample | None) -> int | None:
    return None if found is None else found.stamp_ns


def test_nearest_takes_the_closer_side_within_the_tolerance() -> None:
    buffer = SignalBuffer()
    for at in (0, 10, 20):
        buffer.append(sample(at * MS))
    assert stamp(buffer.nearest(13 * MS, 0.05)) == 10 * MS
    assert stamp(buffer.nearest(17 * MS, 0.05)) == 20 * MS
    assert stamp(buffer.nearest(99 * MS, 0.1)) == 20 * MS
    assert stamp(buffer.nearest(-1 * MS, 0.1)) == 0
    assert buffer.nearest(200 * MS, 0.1) is None


def test_empty_buffer_has_nothing() -> None:
    buffer = SignalBuffer()
    assert buffer.newest is None
    assert buffer.nearest(0, 1.0) is None


def test_samples_older_than_the_capacity_are_forgotten() -> None:
    buffer = SignalBuffer(capacity_s=0.1)
    for at in range(10_000):
        buffer.append(sample(at * MS))
    assert len(buffer) == 101
    assert buffer.nearest(0, 1.0) is None
    assert stamp(buffer.newest) == 9999 * MS
    assert stamp(buffer.nearest(9950 * MS, 0.001)) == 9950 * MS


def test_stamp_that_goes_back_starts_afresh() -> None:
    buffer = SignalBuffer()
    buffer.append(sample(5000 * MS))
    buffer.append(sample(10 * MS))
    assert len(buffer) == 1
    assert stamp(buffer.newest) == 10 * MS


def test_readers_on_other_threads_see_whole_samples() -> None:
    buffer = SignalBuffer(capacity_s=0.05)
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            newest = buffer.newest
            if newest is not None and buffer.nearest(newest.stamp_ns, 0.05) is None:
                failures.append("newest sample not found")

    reader = threading.Thread(target=read)
    reader.start()
    for at in range(3000):
        buffer.append(sample(at * MS))
    done.set()
    reader.join()
    assert not failures
