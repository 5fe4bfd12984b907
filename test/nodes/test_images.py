"""Camera messages become RGB arrays, or an error that says what is wrong."""

import cv2
import numpy as np
import pytest

from ros_vla_accel.nodes.images import ImageError, decode_compressed, decode_raw

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def test_packed_rgb_is_not_copied():
    data = RGB.reshape(-1).copy()
    image = decode_raw("rgb8", 4, 6, 18, data)
    assert np.shares_memory(image, data)
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(
    ("encoding", "conversion"),
    [("bgr8", cv2.COLOR_RGB2BGR), ("rgba8", cv2.COLOR_RGB2RGBA), ("bgra8", cv2.COLOR_RGB2BGRA)],
)
def test_other_colour_orders_become_rgb(encoding, conversion):
    raw = cv2.cvtColor(RGB, conversion)
    image = decode_raw(encoding, 4, 6, raw.shape[2] * 6, raw.tobytes())
    np.testing.assert_array_equal(image, RGB)


def test_grey_becomes_three_equal_channels():
    grey = RGB[..., 0].copy()
    image = decode_raw("mono8", 4, 6, 6, grey.tobytes())
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


def test_padded_rows_are_cut():
    padded = np.zeros((4, 32), np.uint8)
    padded[:, :18] = RGB.reshape(4, 18)
    np.testing.assert_array_equal(decode_raw("rgb8", 4, 6, 32, padded.reshape(-1)), RGB)


@pytest.mark.parametrize(
    ("encoding", "height", "width", "step", "size"),
    [
        ("yuv422", 4, 6, 18, 72),
        ("rgb8", 4, 6, 18, 71),
        ("rgb8", 4, 6, 12, 72),
        ("rgb8", 0, 6, 18, 0),
        ("rgb8", 4000000000, 6, 18, 72),
    ],
)
def test_an_image_that_does_not_fit_its_description_is_refused(
    encoding, height, width, step, size
):
    with pytest.raises(ImageError):
        decode_raw(encoding, height, width, step, bytes(size))


def test_png_survives_compression_exactly():
    content = cv2.imencode(".png", cv2.cvtColor(RGB, cv2.COLOR_RGB2BGR))[1]
    np.testing.assert_array_equal(decode_compressed(content.tobytes()), RGB)


@pytest.mark.parametrize("data", [b"", b"no picture at all"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ImageError, match="neither JPEG nor PNG"):
        decode_compressed(data)
