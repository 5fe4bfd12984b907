"""The camera strip: a few hundred thumbnails per camera, whatever the recording's length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ros_vla_accel.replay.run import Frame

MAX_FRAMES = 200
"""Thumbnails per camera in a report."""
WIDTH_PX = 120
QUALITY = 60


@dataclass(frozen=True)
class Strip:
    """Thumbnails of one camera: images[k] is the frame at times_s[k] (rising) as JPEG."""

    id: str
    camera: str
    times_s: list[float]
    images: list[bytes]


def strips(frames: Sequence[Frame]) -> list[Strip]:
    """A strip per image topic, of at most MAX_FRAMES frames spread evenly over its time."""
    by_topic: dict[str, list[Frame]] = {}
    for frame in frames:
        by_topic.setdefault(frame.topic, []).append(frame)
    made = []
    for number, (topic, seen) in enumerate(sorted(by_topic.items())):
        seen.sort(key=lambda frame: frame.t_s)
        times = np.array([frame.t_s for frame in seen])
        wanted = np.linspace(times[0], times[-1], min(MAX_FRAMES, len(seen)))
        picked = [seen[k] for k in np.unique(np.searchsorted(times, wanted))]
        made.append(
            Strip(
                id=f"strip-{number}",
                camera=topic,
                times_s=[frame.t_s for frame in picked],
                images=[thumbnail(frame.image) for frame in picked],
            )
        )
    return made


def thumbnail(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB to a small JPEG."""
    height, width = image.shape[:2]
    if width > WIDTH_PX:
        size = (WIDTH_PX, max(1, round(height * WIDTH_PX / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    if not done:
        raise ValueError(f"image of shape {image.shape} cannot be written as JPEG")
    return bytes(data)
