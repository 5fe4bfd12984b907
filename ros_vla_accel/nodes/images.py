"""Camera messages to RGB arrays."""

from __future__ import annotations

import cv2
import numpy as np

# encoding -> (channels, OpenCV conversion to RGB or None)
_RAW = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
}


class ImageError(ValueError):
    """The image cannot be used; the text says what is wrong with it."""


def decode_raw(
    encoding: str, height: int, width: int, step: int, data: np.ndarray | bytes
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image. No copy for tightly packed rgb8.

    step: bytes per row, padding included. Raises ImageError.
    """
    if encoding not in _RAW:
        raise ImageError(f"encoding '{encoding}' is not one of {sorted(_RAW)}")
    channels, conversion = _RAW[encoding]
    flat = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.asarray(data, np.uint8)
    row = width * channels
    if height < 1 or width < 1 or step < row or flat.size < step * height:
        raise ImageError(
            f"{flat.size} bytes with step {step} do not hold {height}x{width} {encoding} "
            f"({row} bytes a row)"
        )
    image = flat[: step * height].reshape(height, step)[:, :row].reshape(height, width, channels)
    return image if conversion is None else cv2.cvtColor(image, conversion)


def decode_compressed(data: np.ndarray | bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of the JPEG or PNG in a sensor_msgs/CompressedImage. ImageError."""
    buffer = (
        np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.asarray(data, np.uint8)
    )
    try:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    except cv2.error as error:
        raise ImageError(f"OpenCV cannot decode it: {error!s:.200}") from None
    if image is None:
        raise ImageError(f"{buffer.size} bytes are neither JPEG nor PNG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
