"""Messages to contracts and back."""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time

from ros_vla_accel.cloud.messages import RequestHeader, WireError
from ros_vla_accel.cloud.messages import TensorDescriptor as WireTensor
from ros_vla_accel.contracts import SCHEMA_VERSION, ActionChunk
from ros_vla_accel.msg import ActionChunk as ActionChunkMsg
from ros_vla_accel.msg import InferenceRequest as InferenceRequestMsg
from ros_vla_accel.msg import TensorDescriptor as TensorDescriptorMsg

_SAME_FIELDS = (
    "request_id",
    "episode_id",
    "seed",
    "activation_bits",
    "cut",
    "instruction",
    "policy_hash",
    "previous_horizon",
    "executed_rows",
)


def to_ns(stamp: Time) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def to_stamp(stamp_ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds; negative ones become zero."""
    seconds, nanoseconds = divmod(max(int(stamp_ns), 0), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def chunk_to_msg(chunk: ActionChunk) -> ActionChunkMsg:
    msg = ActionChunkMsg()
    msg.header.stamp = to_stamp(chunk.stamp_ns)
    msg.schema_version = SCHEMA_VERSION
    msg.request_id = chunk.request_id
    msg.episode_id = chunk.episode_id
    msg.horizon, msg.action_size = (int(size) for size in chunk.actions.shape)
    msg.period_s = float(chunk.period_s)
    msg.actions = np.asarray(chunk.actions, np.float32).ravel()
    msg.source = chunk.source
    msg.activation_bits = chunk.activation_bits
    msg.timing_names = list(chunk.timings_s)
    msg.timings_s = np.array(list(chunk.timings_s.values()), np.float32)
    return msg


def chunk_from_msg(msg: ActionChunkMsg) -> ActionChunk:
    """Raises ValueError for another schema version, or rows that do not fill the stated shape."""
    if msg.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"action chunk of schema {msg.schema_version}, this node speaks {SCHEMA_VERSION}; "
            "run the same version of ros_vla_accel everywhere"
        )
    actions = np.asarray(msg.actions, np.float32)
    if actions.size != msg.horizon * msg.action_size:
        raise ValueError(
            f"action chunk has {actions.size} values for {msg.horizon} rows of {msg.action_size}"
        )
    return ActionChunk(
        actions=actions.reshape(msg.horizon, msg.action_size),
        period_s=float(msg.period_s),
        stamp_ns=to_ns(msg.header.stamp),
        request_id=int(msg.request_id),
        episode_id=int(msg.episode_id),
        source=str(msg.source),
        activation_bits=int(msg.activation_bits),
        timings_s=dict(
            zip(msg.timing_names, (float(value) for value in msg.timings_s), strict=False)
        ),
    )


def request_to_msg(
    header: RequestHeader, deadline_ns: int, data: bytes | bytearray | memoryview
) -> InferenceRequestMsg:
    """An encoded request for partition_manager. deadline_ns: on the robot's clock."""
    msg = InferenceRequestMsg()
    msg.header.stamp = to_stamp(header.stamp_ns)
    msg.schema_version = SCHEMA_VERSION
    for name in _SAME_FIELDS:
        setattr(msg, name, getattr(header, name))
    msg.deadline = to_stamp(deadline_ns)
    msg.previous_actions = np.frombuffer(header.previous_actions, "<f4")
    msg.tensors = [
        TensorDescriptorMsg(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=list(tensor.shape),
            scale=list(tensor.scale),
            encoding=tensor.encoding,
            offset=tensor.offset,
            size=tensor.size,
        )
        for tensor in header.tensors
    ]
    msg.data = data
    return msg


def header_from_msg(msg: InferenceRequestMsg) -> RequestHeader:
    """The header under which ``msg.data`` goes to the worker, undecoded.

    Raises WireError (a ValueError) for a field out of range or another schema version.
    """
    if msg.schema_version != SCHEMA_VERSION:
        raise WireError(f"request of schema {msg.schema_version}, this node: {SCHEMA_VERSION}")
    return RequestHeader(
        stamp_ns=to_ns(msg.header.stamp),
        tensors=tuple(
            WireTensor(
                name=tensor.name,
                dtype=tensor.dtype,
                shape=tuple(int(size) for size in tensor.shape),
                scale=tuple(float(value) for value in tensor.scale),
                encoding=tensor.encoding,
                offset=int(tensor.offset),
                size=int(tensor.size),
            )
            for tensor in msg.tensors
        ),
        previous_actions=np.asarray(msg.previous_actions, "<f4").tobytes(),
        **{name: getattr(msg, name) for name in _SAME_FIELDS},
    )


def message_class(name: str) -> Any:
    """The class of ``package/msg/Name``. Raises ValueError if there is none."""
    package, _, message = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), message)
    except (ImportError, AttributeError, ValueError):
        raise ValueError(f"unknown type '{name}'; write it as package/msg/Name") from None


def set_field(msg: Any, path: str, value: float) -> None:
    """Sets ``twist.linear.x`` or ``data[2]`` of a message; arrays grow to the index.

    Raises AttributeError naming the path when the message has no number there.
    """
    *parents, last = re.findall(r"[a-z_][a-z0-9_]*|\[\d+\]", path)
    target = msg
    for part in parents:
        target = target[int(part[1:-1])] if part.startswith("[") else getattr(target, part)
    if last.startswith("["):
        _set_element(msg, path, int(last[1:-1]), value)
    elif not isinstance(getattr(target, last, None), int | float):
        raise AttributeError(f"{type(msg).__name__} has no number at '{path}'")
    else:
        setattr(target, last, float(value))


def _set_element(msg: Any, path: str, index: int, value: float) -> None:
    owner = msg
    *parents, name = path[: path.rindex("[")].split(".")
    for part in parents:
        owner = getattr(owner, part)
    values = [float(item) for item in getattr(owner, name)]
    values += [0.0] * (index + 1 - len(values))
    values[index] = float(value)
    setattr(owner, name, values)
