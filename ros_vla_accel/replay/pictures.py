"""Recorded camera messages to RGB arrays, and to small ones for a strip."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros_vla_accel.kinematics.clock import ClockAlignment
from ros_vla_accel.nodes.images import decode_compressed, decode_raw

STRIP_HEIGHT = 120
"""Pixels of a strip's image."""


def decode(msg: Any) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a sensor_msgs Image or CompressedImage. Raises ImageError."""
    if hasattr(msg, "encoding"):
        image: NDArray[np.uint8] = decode_raw(
            msg.encoding, msg.height, msg.width, msg.step, msg.data
        )
    else:
        image = decode_compressed(msg.data)
    return image


def reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of at most STRIP_HEIGHT pixels in height."""
    height, width = image.shape[:2]
    if height <= STRIP_HEIGHT:
        return image.copy()
    size = (max(1, round(width * STRIP_HEIGHT / height)), STRIP_HEIGHT)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class CameraClock:
    """Stamps of one camera on the receiver's clock."""

    def __init__(self) -> None:
        self._alignment = ClockAlignment()

    @property
    def offset_s(self) -> float:
        """Of the clocks, 0 where they agree."""
        return self._alignment.offset_ns * 1e-9

    def stamp_ns(self, msg: Any, received_ns: int) -> int:
        stamp = msg.header.stamp
        header_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
        if header_ns == 0:
            return received_ns
        self._alignment.observe(header_ns, received_ns)
        return header_ns + self._alignment.offset_ns
