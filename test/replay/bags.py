"""Recordings of a made-up arm, in every format, and what goes wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ros_vla_accel.nodes.recorder import typestore

START_NS = 1_750_000_000_000_000_000
STEP_NS = 10_000_000
NAMES = ("j0", "j1", "j2", "j3")
JOINT_STATE = "sensor_msgs/msg/JointState"
STORE2 = typestore()
STORE1 = get_typestore(Stores.ROS1_NOETIC)


@dataclass(frozen=True)
class Message:
    """One joint state as recorded; stamps in ns."""

    header_ns: int
    received_ns: int
    name: tuple[str, ...] = NAMES
    position: Any = ()
    velocity: Any = ()
    effort: Any = ()


def motion(seconds: float = 4.0, seed: int = 0) -> list[Message]:
    """An arm that starts, stops, turns and touches something, at 100 Hz, stamped 2 ms late."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 100)) * 0.01
    pace = np.clip(np.sin(2.0 * t), 0, None)
    velocity = np.outer(pace, [0.5, -0.3, 0.2, 0.1]) * (1 + np.round(t * 3) % 2)[:, None]
    position = np.cumsum(velocity, axis=0) * 0.01 + 1e-6 * rng.standard_normal(velocity.shape)
    effort = 2.0 + 0.05 * rng.standard_normal(velocity.shape)
    effort[(t % 1.3) > 1.2] += 15.0
    return [
        Message(
            START_NS + index * STEP_NS,
            START_NS + index * STEP_NS + 2_000_000,
            NAMES,
            position[index],
            velocity[index],
            effort[index],
        )
        for index in range(len(t))
    ]


def changed(messages: list[Message], indices: Any, **fields: Any) -> list[Message]:
    """The messages, those at ``indices`` with other fields; a function is given the message."""
    result = list(messages)
    for index in indices:
        values = {
            key: value(result[index]) if callable(value) else value
            for key, value in fields.items()
        }
        result[index] = replace(result[index], **values)
    return result


def encoded(message: Message, store: Any) -> Any:
    types = store.types
    seconds, nanoseconds = divmod(max(0, message.header_ns), 1_000_000_000)
    stamp = types["builtin_interfaces/msg/Time"](seconds, nanoseconds)
    ros1 = {"seq": 0} if store is STORE1 else {}
    return types[JOINT_STATE](
        types["std_msgs/msg/Header"](stamp=stamp, frame_id="", **ros1),
        list(message.name),
        *(
            np.array(values, np.float64)
            for values in (message.position, message.velocity, message.effort)
        ),
    )


@dataclass
class Extra:
    """Messages of another topic: (received_ns, message object)."""

    topic: str
    msgtype: str
    messages: list[tuple[int, Any]] = field(default_factory=list)


def write2(
    folder: Path,
    messages: list[Message],
    plugin: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
    topic: str = "/joint_states",
    extras: tuple[Extra, ...] = (),
    store: Any = STORE2,
) -> Path:
    """A ROS 2 bag folder."""
    writer = Writer(folder, version=9, storage_plugin=plugin)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        joints = writer.add_connection(topic, JOINT_STATE, typestore=store)
        items = [
            (m.received_ns, joints, store.serialize_cdr(encoded(m, store), JOINT_STATE))
            for m in messages
        ]
        for extra in extras:
            connection = writer.add_connection(extra.topic, extra.msgtype, typestore=store)
            items += [
                (time_ns, connection, store.serialize_cdr(msg, extra.msgtype))
                for time_ns, msg in extra.messages
            ]
        for time_ns, connection, data in sorted(items, key=lambda item: item[0]):
            writer.write(connection, time_ns, data)
    return folder


def write1(
    path: Path, messages: list[Message], compression: Writer1.CompressionFormat | None = None
) -> Path:
    """A ROS 1 bag."""
    writer = Writer1(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        joints = writer.add_connection("/joint_states", JOINT_STATE, typestore=STORE1)
        for message in messages:
            data = STORE1.serialize_ros1(encoded(message, STORE1), JOINT_STATE)
            writer.write(joints, message.received_ns, data)
    return path


def data_file(folder: Path) -> Path:
    return next(file for file in folder.iterdir() if file.suffix in (".mcap", ".db3"))


def cut(file: Path, share: float) -> Path:
    """Leaves the first ``share`` of a file."""
    data = file.read_bytes()
    file.write_bytes(data[: round(len(data) * share)])
    return file
