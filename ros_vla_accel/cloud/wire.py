"""Multipart format between the client's DEALER and the worker's ROUTER.

A message is a msgpack header, followed by one raw data frame in requests and replies. Never
pickle: a stranger's bytes must not be able to run code. Decoding is strict, because a field that
is misread today is an arm that moves wrongly tomorrow: unknown, missing or out-of-range fields
raise ``WireError``, and nothing else is ever raised.

The header is a map: ``v`` is the schema version, ``kind`` the message, the rest its fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import msgpack

from ros_vla_accel.cloud.messages import (
    MAX_DATA_BYTES,
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    ReplyHeader,
    RequestHeader,
    SchemaError,
    TensorDescriptor,
    Welcome,
    WireError,
    shown,
)
from ros_vla_accel.contracts import SCHEMA_VERSION

Buffer = bytes | bytearray | memoryview

MAX_HEADER_BYTES = 1 << 20
"""Largest header; a request with one scale per row of a long feature tensor stays below it."""

# No map of ours is longer; lists may be, of scales. Checked before anything is allocated.
_LIMITS = {"max_map_len": 64, "max_array_len": 1 << 17, "max_ext_len": 0}

_KINDS: dict[str, type[Message]] = {
    "hello": Hello,
    "welcome": Welcome,
    "request": RequestHeader,
    "reply": ReplyHeader,
    "error": Refusal,
    "ping": Ping,
    "pong": Pong,
}
_KIND_OF = {cls: kind for kind, cls in _KINDS.items()}
_FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in _KIND_OF}
_WITH_DATA = ("request", "reply")
_DESCRIPTOR_FIELDS = tuple(f.name for f in fields(TensorDescriptor))
_descriptor_values = attrgetter(*_DESCRIPTOR_FIELDS)


def encode(message: Message, data: Buffer | None = None) -> list[Buffer]:
    """Frames of a message. data goes with requests and replies only, and is not copied.

    Raises WireError when a field cannot be packed or the data frame is missing or out of place.
    """
    cls = type(message)
    kind = _KIND_OF[cls]
    if (data is not None) != (kind in _WITH_DATA):
        raise WireError(f"'{kind}' goes with{'' if data is None else 'out'} a data frame")
    header: dict[str, object] = {"v": SCHEMA_VERSION, "kind": kind}
    for name in _FIELDS[cls]:
        header[name] = getattr(message, name)
    if isinstance(message, RequestHeader):
        header["tensors"] = [_descriptor_values(tensor) for tensor in message.tensors]
    try:
        packed: bytes = msgpack.packb(header)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"'{kind}' cannot be packed: {error}") from error
    return [packed] if data is None else [packed, data]


def decode(frames: Sequence[Buffer]) -> tuple[Message, memoryview]:
    """Message and data (empty for messages without) from the frames after the routing id.

    Raises WireError for anything that ``encode`` would not have made, and its subclass
    SchemaError when the other end speaks another version. The data is a view, not a copy.
    """
    if not 1 <= len(frames) <= 2:
        raise WireError(f"{len(frames)} frames; expected a header and at most one data frame")
    header = _unpack(frames[0])
    version = header.pop("v", None)
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"schema version {shown(version)} from the other end, {SCHEMA_VERSION} here; "
            "run the same release of ros_vla_accel on both"
        )
    kind = header.pop("kind", None)
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None or not isinstance(kind, str):
        raise WireError(f"kind is {shown(kind)}; expected one of {', '.join(_KINDS)}")
    if len(frames) != 1 + (kind in _WITH_DATA):
        raise WireError(f"'{kind}' came in {len(frames)} frames")
    data = memoryview(frames[1] if len(frames) == 2 else b"")
    if data.nbytes > MAX_DATA_BYTES:
        raise WireError(f"data frame of {data.nbytes} bytes; at most {MAX_DATA_BYTES}")
    if header.keys() != set(_FIELDS[cls]):
        wrong = sorted(header.keys() ^ set(_FIELDS[cls]))
        raise WireError(f"'{kind}' has unknown or missing fields: {', '.join(wrong[:9])!r:.200}")
    if cls is RequestHeader:
        header["tensors"] = _descriptors(header["tensors"])
    return cls(**header), data


def _unpack(frame: Buffer) -> dict[str, Any]:
    size = memoryview(frame).nbytes
    if size > MAX_HEADER_BYTES:
        raise WireError(f"header of {size} bytes; at most {MAX_HEADER_BYTES}")
    try:
        header = msgpack.unpackb(frame, use_list=False, raw=False, strict_map_key=True, **_LIMITS)
    except Exception as error:  # msgpack raises a dozen unrelated classes on bad input
        raise WireError(f"header is not msgpack: {type(error).__name__} {error!s:.200}") from error
    if not isinstance(header, dict) or not all(isinstance(key, str) for key in header):
        raise WireError(f"header is {shown(header)}; expected a map with text keys")
    return header


def _descriptors(value: object) -> tuple[TensorDescriptor, ...]:
    if not isinstance(value, tuple) or len(value) > 64:
        raise WireError(f"tensors is {shown(value)}; expected a list of at most 64 descriptors")
    descriptors = []
    for entry in value:
        if not isinstance(entry, tuple) or len(entry) != len(_DESCRIPTOR_FIELDS):
            raise WireError(
                f"tensor descriptor is {shown(entry)}; expected the values of "
                f"{', '.join(_DESCRIPTOR_FIELDS)}"
            )
        descriptors.append(TensorDescriptor(*entry))
    return tuple(descriptors)
