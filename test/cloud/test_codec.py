"""What leaves the edge is what the policy in the cloud sees."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from cloud_test_policy import HASH, MixingPolicy, observation, request
from cloud_test_support import steady
from hypothesis import given
from hypothesis import strategies as st

from ros_vla_accel.cloud.codec import (
    decode_request,
    decode_tensors,
    encode_features,
    encode_observation,
    request_header,
)
from ros_vla_accel.cloud.messages import DTYPES, ENCODINGS, TensorDescriptor, WireError
from ros_vla_accel.contracts import Features


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_a_lossless_observation_arrives_bit_for_bit(encoding: str) -> None:
    sent = observation()
    tensors = decode_tensors(*encode_observation(sent, encoding))
    assert list(tensors) == ["image/front", "image/wrist", "state"]
    for name, image in sent.images.items():
        np.testing.assert_array_equal(tensors[f"image/{name}"], image)
    np.testing.assert_array_equal(tensors["state"], sent.state)


def test_jpeg_keeps_colours_in_their_order_and_close() -> None:
    sent = observation()
    tensors = decode_tensors(*encode_observation(sent, "jpeg", quality=95))
    for name, image in sent.images.items():
        error = np.abs(tensors[f"image/{name}"].astype(int) - image)
        assert error.mean() < 2.0, name


def test_a_better_jpeg_quality_costs_bytes_and_gains_accuracy() -> None:
    rough, fine = (encode_observation(observation(), "jpeg", quality) for quality in (10, 95))
    assert len(rough[1]) < len(fine[1])


def test_a_view_with_strides_is_encoded_like_its_copy() -> None:
    sent = observation()
    flipped = {name: image[:, ::-1] for name, image in sent.images.items()}
    copied = {name: image.copy() for name, image in flipped.items()}
    for encoding in ("raw", "png"):
        assert encode_observation(replace(sent, images=flipped), encoding) == (
            encode_observation(replace(sent, images=copied), encoding)
        )


def test_an_unknown_encoding_and_a_grey_image_are_named() -> None:
    sent = observation()
    with pytest.raises(ValueError, match="'webp'; expected one of raw, jpeg, png"):
        encode_observation(sent, "webp")
    with pytest.raises(ValueError, match=r"image of 'front' is uint8 \(8, 8\)"):
        encode_observation(replace(sent, images={"front": np.zeros((8, 8), np.uint8)}))


def test_features_travel_exactly_in_float32_and_closely_in_less() -> None:
    tokens = np.random.default_rng(1).normal(size=(5, 7, 3)).astype(np.float32)
    features = Features("vision", {"tokens": tokens, "ids": np.arange(6, dtype=np.int64)}, 1)
    sizes = {}
    for dtype, tolerance in (("float32", 0.0), ("float16", 2e-3), ("int8", 2e-2)):
        descriptors, data = encode_features(features, dtype)
        decoded = decode_tensors(descriptors, data)
        np.testing.assert_allclose(decoded["tokens"], tokens, atol=tolerance, rtol=0)
        np.testing.assert_array_equal(decoded["ids"], features.tensors["ids"])
        sizes[dtype] = len(data)
    assert sizes["float32"] > sizes["float16"] > sizes["int8"]


def test_int8_features_of_any_rank_survive() -> None:
    for shape in ((), (1,), (4,), (0, 3), (3, 2)):
        tensor = np.full(shape, -2.5, np.float32)
        descriptors, data = encode_features(Features("vision", {"x": tensor}, 1), "int8")
        decoded = decode_tensors(descriptors, data)["x"]
        np.testing.assert_allclose(decoded, tensor, rtol=1e-6)


def test_a_decoded_request_gives_the_same_actions_as_the_original() -> None:
    policy, asked = MixingPolicy(), request(request_id=5)
    tensors, data = encode_observation(asked.observation)  # type: ignore[arg-type]
    arrived = decode_request(request_header(asked, tensors, HASH), data, 0.05)
    assert arrived.previous is not None
    assert arrived.previous.stamp_ns == asked.previous.stamp_ns  # type: ignore[union-attr]
    (here,), (there,) = policy.infer([asked]), policy.infer([arrived])
    np.testing.assert_array_equal(here.actions, there.actions)


def test_features_after_the_vision_stage_give_the_same_actions() -> None:
    policy, asked = MixingPolicy(), request()
    features = policy.vision(asked.observation)  # type: ignore[arg-type]
    tensors, data = encode_features(features)
    header = request_header(replace(asked, observation=features), tensors, HASH)
    (here,), (there,) = policy.infer([asked]), policy.infer([decode_request(header, data, 0.05)])
    np.testing.assert_array_equal(here.actions, there.actions)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"image/a": np.zeros((4, 4, 3), np.uint8)}, "needs a float32 tensor 'state'"),
        ({"state": np.zeros(3, np.uint8)}, "needs a float32 tensor 'state'"),
        ({"state": np.array([1, np.nan], np.float32)}, "state holds nan"),
        ({"state": np.zeros(3, np.float32), "lidar": np.zeros(3, np.uint8)}, "no tensor 'lidar'"),
        (
            {"state": np.zeros(3, np.float32), "image/a": np.zeros((4, 4), np.uint8)},
            r"'image/a' is uint8 \(4, 4\)",
        ),
    ],
)
def test_tensors_that_are_no_observation_are_named(
    tensors: dict[str, np.ndarray], message: str
) -> None:
    features = Features("observation", tensors, 1)
    descriptors, data = encode_features(features)
    header = request_header(replace(request(), observation=features), descriptors, HASH)
    with pytest.raises(WireError, match=message):
        decode_request(header, data, 0.05)


def test_a_tensor_outside_the_data_is_refused() -> None:
    descriptor = TensorDescriptor("state", "float32", (4,), offset=8, size=16)
    with pytest.raises(WireError, match="'state' ends at byte 24 of 16"):
        decode_tensors([descriptor], bytes(16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "object"}, "expected one of uint8"),
        ({"dtype": "float64"}, "expected one of uint8"),
        ({"shape": (-1,)}, "expected an integer in 0"),
        ({"shape": (2**20, 2**20)}, "is over"),
        ({"shape": (5,)}, "its shape and dtype need 20"),
        ({"shape": [4]}, "expected a list"),
        ({"scale": (float("nan"),)}, "expected a number"),
        ({"scale": (1.0, 1.0)}, "2 scales; expected 0, 1 or 4"),
        ({"encoding": "pickle"}, "expected one of raw, jpeg, png"),
        ({"offset": -1}, "expected an integer in 0"),
        ({"size": 2**40}, "expected an integer in 0"),
        ({"name": 5}, "expected text"),
    ],
)
def test_a_descriptor_out_of_bounds_is_refused(change: dict[str, object], message: str) -> None:
    values = {"name": "state", "dtype": "float32", "shape": (4,), "size": 16}
    with pytest.raises(WireError, match=message):
        TensorDescriptor(**{**values, **change})  # type: ignore[arg-type]


@steady
@given(data=st.data())
def test_any_descriptors_give_arrays_of_their_shape_or_wire_errors(data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=64))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    dtype = data.draw(st.sampled_from(DTYPES))
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    scale = tuple(data.draw(st.lists(st.floats(0, 1e38), max_size=4)))
    try:
        descriptor = TensorDescriptor(
            "x",
            dtype,
            shape,
            scale,
            data.draw(st.sampled_from(ENCODINGS)),
            data.draw(st.integers(0, 64)),
            data.draw(st.sampled_from([size, len(content)])),
        )
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = decode_tensors([descriptor], content)["x"]
    except WireError:
        return
    assert decoded.shape == shape
    assert decoded.dtype == (np.float32 if scale else dtype)


def _png_claiming(height: int, width: int) -> bytes:
    """A valid little PNG file whose header claims another size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = b"IDAT" + zlib.compress(bytes(64))
    chunks = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, content, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def _jpeg_claiming(height: int, width: int) -> bytes:
    content = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("png", _png_claiming(60000, 60000)),
        ("jpeg", _jpeg_claiming(60000, 60000)),
        ("jpeg", _png_claiming(8, 8)),
        ("png", b""),
        ("jpeg", b"\xff\xd8" + b"\xff" * 100),
        ("png", _png_claiming(8, 8)[:40]),
        ("png", _png_claiming(8, 8).replace(b"\x00\x00\x00\x0cIDAT", b"\x20\x00\x00\x0cIDAT")),
        ("png", _png_claiming(8, 8).replace(b"IDAT", b"acTL")),
    ],
)
def test_an_image_that_is_not_what_it_claims_is_refused_before_decoding(
    encoding: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cv2, "imdecode")
    descriptor = TensorDescriptor("image/a", "uint8", (8, 8, 3), (), encoding, 0, len(content))
    with pytest.raises(WireError, match=r"image/a|not a"):
        decode_tensors([descriptor], content)


@steady
@given(data=st.data())
def test_a_damaged_image_never_raises_anything_but_wire_errors(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(["jpeg", "png"]))
    descriptors, intact = encode_observation(observation(), encoding)
    damaged = bytearray(intact)
    for position in data.draw(st.lists(st.integers(0, len(intact) - 1), max_size=20)):
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        tensors = decode_tensors(descriptors, bytes(damaged))
    except WireError:
        return
    assert tensors["image/front"].shape == (64, 64, 3)
