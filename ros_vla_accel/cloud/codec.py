"""Observations, features and action chunks to bytes and back.

Images travel raw, or as JPEG or PNG; everything else is raw, C order, little-endian. Decoding
checks every descriptor against the data before it allocates anything, and raises ``WireError``
for whatever a stranger may have sent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros_vla_accel.cloud.image_header import image_size
from ros_vla_accel.cloud.messages import (
    DTYPES,
    ReplyHeader,
    RequestHeader,
    TensorDescriptor,
    WireError,
)
from ros_vla_accel.cloud.wire import Buffer
from ros_vla_accel.contracts import ActionChunk, Features, InferenceRequest, Observation
from ros_vla_accel.partition.route import ENCODINGS

Array = NDArray[Any]

IMAGE_PREFIX = "image/"
"""Tensor names of an observation are ``image/<camera>`` and ``state``."""

_LITTLE_ENDIAN = sys.byteorder == "little"


def encode_observation(
    observation: Observation, encoding: str = "raw", quality: int = 90
) -> tuple[tuple[TensorDescriptor, ...], bytes]:
    """Descriptors and data of an observation; the instruction travels in the header.

    encoding: of the images: ``raw``, ``jpeg`` (lossy, quality 1..100) or ``png`` (lossless).
    Raises ValueError when the encoding is unknown or an image is not (H, W, 3) uint8.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"image encoding is '{encoding}'; expected one of {', '.join(ENCODINGS)}")
    writer = _Writer()
    for camera, image in observation.images.items():
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image of '{camera}' is {image.dtype} {image.shape}; expected uint8 (H, W, 3)"
            )
        if encoding == "raw":
            writer.add(IMAGE_PREFIX + camera, image)
        else:
            content = _compress(camera, image, encoding, quality)
            writer.add_encoded(IMAGE_PREFIX + camera, image.shape, encoding, content)
    writer.add("state", np.asarray(observation.state, np.float32))
    return writer.finish()


def encode_features(
    features: Features, dtype: str = "float32"
) -> tuple[tuple[TensorDescriptor, ...], bytes]:
    """Descriptors and data of features; float tensors travel as dtype, others as they are.

    dtype: ``float32`` (exact), ``float16``, or ``int8`` with one scale per leading row (its
    largest magnitude / 127), which decodes to float32. Tensors of fewer than two dimensions, a
    robot's state say, travel as float32 always: rounding them would save nothing.
    Raises ValueError when the dtype is another, or a tensor has one that the wire does not know.
    """
    if dtype not in ("float32", "float16", "int8"):
        raise ValueError(f"features travel as float32, float16 or int8, not '{dtype}'")
    writer = _Writer()
    for name, tensor in features.tensors.items():
        if not np.issubdtype(tensor.dtype, np.floating):
            writer.add(name, tensor)
        elif tensor.ndim < 2:
            writer.add(name, tensor.astype("float32", copy=False))
        elif dtype == "int8" and tensor.size:  # nothing to scale in an empty one
            scale = _row_scales(tensor)
            stored = np.rint(tensor / _along_rows(scale, tensor.ndim)).astype(np.int8)
            writer.add(name, stored, tuple(scale.tolist()))
        else:
            sent_as = "float32" if dtype == "int8" else dtype
            writer.add(name, tensor.astype(sent_as, copy=False))
    return writer.finish()


def request_header(
    request: InferenceRequest,
    tensors: tuple[TensorDescriptor, ...],
    policy_hash: str,
    instruction: str = "",
) -> RequestHeader:
    """Header of a request whose tensors are encoded; instruction only when features are sent."""
    content = request.observation
    previous = request.previous
    return RequestHeader(
        request_id=request.request_id,
        episode_id=request.episode_id,
        stamp_ns=content.stamp_ns,
        seed=request.seed,
        activation_bits=request.activation_bits,
        cut="observation" if isinstance(content, Observation) else content.cut,
        instruction=content.instruction if isinstance(content, Observation) else instruction,
        policy_hash=policy_hash,
        tensors=tensors,
        previous_actions=b"" if previous is None else bytes(encode_chunk(previous.actions)),
        previous_horizon=0 if previous is None else previous.horizon,
        executed_rows=request.executed_rows,
    )


def decode_tensors(descriptors: Sequence[TensorDescriptor], data: Buffer) -> dict[str, Array]:
    """Tensors by name. Raw ones without a scale are read-only views of the data, not copies.

    Raises WireError when a tensor lies outside the data, or an image is not what its descriptor
    says; an image's own header is read first, so that none can decompress to gigabytes.
    """
    view = memoryview(data).cast("B")
    return {tensor.name: _decode_tensor(tensor, view) for tensor in descriptors}


def decode_request(header: RequestHeader, data: Buffer, period_s: float) -> InferenceRequest:
    """The question as the policy takes it. period_s: the policy's, for the previous chunk.

    deadline_ns stays 0: it is a time on the robot's clock, which this machine does not know.
    Raises WireError when the tensors do not make an observation or cannot be decoded.
    """
    tensors = decode_tensors(header.tensors, data)
    content: Observation | Features
    if header.cut == "observation":
        content = _observation(tensors, header)
    else:
        content = Features(header.cut, tensors, header.stamp_ns)
    return InferenceRequest(
        observation=content,
        request_id=header.request_id,
        episode_id=header.episode_id,
        seed=header.seed,
        activation_bits=header.activation_bits,
        previous=_previous_chunk(header, period_s),
        executed_rows=header.executed_rows,
    )


def encode_chunk(actions: Array) -> memoryview:
    """Data frame of a reply: (H, A) action rows as little-endian float32, row-major."""
    return memoryview(np.ascontiguousarray(actions, "<f4").tobytes())


def decode_chunk(header: ReplyHeader, data: Buffer) -> ActionChunk:
    """Action chunk of a reply, with the worker's durations in timings_s.

    Raises WireError when the data is not horizon x action_size float32.
    """
    shape = (header.horizon, header.action_size)
    size = memoryview(data).nbytes
    if size != 4 * shape[0] * shape[1]:
        raise WireError(f"reply has {size} bytes of actions; {shape[0]} x {shape[1]} float32")
    return ActionChunk(
        actions=np.frombuffer(data, "<f4").astype(np.float32).reshape(shape),
        period_s=header.period_s,
        stamp_ns=header.stamp_ns,
        request_id=header.request_id,
        episode_id=header.episode_id,
        source="cloud",
        activation_bits=header.activation_bits,
        timings_s={
            **header.timings_s,
            "queue": header.queue_s,
            "decode": header.decode_s,
            "inference": header.inference_s,
        },
    )


class _Writer:
    """Lays tensors back to back; the bytes are copied once, when all are known."""

    def __init__(self) -> None:
        self._descriptors: list[TensorDescriptor] = []
        self._parts: list[memoryview] = []
        self._offset = 0

    def add(self, name: str, tensor: Array, scale: tuple[float, ...] = ()) -> None:
        if tensor.dtype.name not in DTYPES:
            raise ValueError(
                f"tensor '{name}' is {tensor.dtype}; expected one of {', '.join(DTYPES)}"
            )
        shape = tuple(tensor.shape)
        stored = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        self._append(name, tensor.dtype.name, shape, scale, "raw", stored)

    def add_encoded(
        self, name: str, shape: tuple[int, ...], encoding: str, content: Array
    ) -> None:
        self._append(name, "uint8", tuple(shape), (), encoding, content)

    def _append(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        scale: tuple[float, ...],
        encoding: str,
        content: Array,
    ) -> None:
        self._descriptors.append(
            TensorDescriptor(name, dtype, shape, scale, encoding, self._offset, content.nbytes)
        )
        self._parts.append(content.reshape(-1).view(np.uint8).data)
        self._offset += content.nbytes

    def finish(self) -> tuple[tuple[TensorDescriptor, ...], bytes]:
        return tuple(self._descriptors), b"".join(self._parts)


def _compress(camera: str, image: Array, encoding: str, quality: int) -> Array:
    option = (
        [cv2.IMWRITE_JPEG_QUALITY, quality]
        if encoding == "jpeg"
        else [cv2.IMWRITE_PNG_COMPRESSION, 1]  # more costs ten times the time for a tenth less
    )
    suffix = ".jpg" if encoding == "jpeg" else ".png"
    done, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), option)
    if not done:
        raise ValueError(f"OpenCV cannot encode the image of '{camera}' {image.shape} as {suffix}")
    return content


def _decode_tensor(tensor: TensorDescriptor, data: memoryview) -> Array:
    end = tensor.offset + tensor.size
    if end > data.nbytes:
        raise WireError(f"tensor '{tensor.name}' ends at byte {end} of {data.nbytes}")
    content = data[tensor.offset : end]
    if tensor.encoding != "raw":
        return _decode_image(tensor, content)
    stored: Array = np.frombuffer(content, np.dtype(tensor.dtype).newbyteorder("<"))
    if not _LITTLE_ENDIAN or not stored.flags.aligned:
        stored = stored.astype(tensor.dtype)  # views that torch and SIMD code can rely on
    stored = stored.reshape(tensor.shape)
    if not tensor.scale:
        return stored
    scale = np.asarray(tensor.scale, np.float32)
    return np.multiply(stored, _along_rows(scale, stored.ndim), dtype=np.float32)


def _decode_image(tensor: TensorDescriptor, content: memoryview) -> Array:
    where = f"tensor '{tensor.name}'"
    if tensor.dtype != "uint8" or len(tensor.shape) != 3 or tensor.shape[2] != 3 or tensor.scale:
        raise WireError(f"{where} is {tensor.encoding}, so it must be uint8 (H, W, 3), no scale")
    size = image_size(content, tensor.encoding)
    if size != tensor.shape[:2]:
        raise WireError(f"{where} is {size} pixels (H, W), its descriptor says {tensor.shape[:2]}")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # EXIF could turn the image
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise WireError(f"{where}: OpenCV cannot decode it: {error!s:.200}") from error
    if image is None or image.shape != tensor.shape:
        raise WireError(f"{where}: OpenCV cannot decode it as {tensor.encoding}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _observation(tensors: dict[str, Array], header: RequestHeader) -> Observation:
    state = tensors.get("state")
    if state is None or state.dtype != np.float32 or state.ndim != 1:
        raise WireError("cut 'observation' needs a float32 tensor 'state' of one dimension")
    if not np.isfinite(state).all():
        raise WireError(f"state holds {state[~np.isfinite(state)][0]}")
    images: dict[str, Array] = {}
    for name, tensor in tensors.items():
        if name == "state":
            continue
        if not name.startswith(IMAGE_PREFIX):
            raise WireError(f"cut 'observation' has no tensor '{name:.80}'")
        if tensor.dtype != np.uint8 or tensor.ndim != 3 or tensor.shape[2] != 3:
            raise WireError(f"'{name}' is {tensor.dtype} {tensor.shape}; needs uint8 (H, W, 3)")
        images[name[len(IMAGE_PREFIX) :]] = tensor
    return Observation(images, state, header.instruction, header.stamp_ns)


def _previous_chunk(header: RequestHeader, period_s: float) -> ActionChunk | None:
    if header.previous_horizon == 0:
        return None
    actions = np.frombuffer(header.previous_actions, "<f4").astype(np.float32)
    return ActionChunk(
        actions=actions.reshape(header.previous_horizon, -1),
        period_s=period_s,
        stamp_ns=max(0, header.stamp_ns - round(header.executed_rows * period_s * 1e9)),
        request_id=0,  # neither travels: a policy continues from rows, not from their history
        episode_id=header.episode_id,
        source="previous",
    )


def _row_scales(tensor: Array) -> NDArray[np.float32]:
    rows = np.asarray(tensor, np.float32)
    largest = np.abs(rows.reshape(len(rows), -1)).max(axis=1, initial=0.0)
    return np.asarray(np.where(largest > 0, largest / 127, 1.0), np.float32)


def _along_rows(scale: NDArray[np.float32], ndim: int) -> NDArray[np.float32]:
    return scale.reshape(-1, *(1,) * (ndim - 1)) if ndim else scale.reshape(())
