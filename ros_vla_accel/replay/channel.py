"""A recorded topic and how to read its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)

from ros_vla_accel.nodes.recorder import typestore

_IDL_RULE = "=" * 80 + "\n"


@dataclass(frozen=True)
class Channel:
    """One topic of one file. definition: text of the message type, empty if the bag has none;
    idl: whether it is IDL and not a .msg; ros1: encoded as in ROS 1, else CDR."""

    topic: str
    msgtype: str
    definition: str = ""
    idl: bool = False
    ros1: bool = False


class Source(Protocol):
    """One bag file, or one ROS 2 bag folder.

    channels: what it holds, as far as known before reading. start_ns, end_ns: receive stamps of
    the first and last message, 0 where the file does not say. damage: why it could not be read
    to its end, once ``messages`` is exhausted; empty if it could.
    """

    start_ns: int
    end_ns: int
    damage: str

    @property
    def channels(self) -> list[Channel]: ...

    def messages(
        self, topics: frozenset[str], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[Channel, int, bytes]]:
        """(channel, receive stamp in ns, bytes) in the order of recording."""
        ...

    def close(self) -> None: ...


class DefinitionError(ValueError):
    """A message type that neither the bag nor we know."""


@cache
def _known(ros1: bool) -> Any:
    """ROS's standard messages and ours."""
    return get_typestore(Stores.ROS1_NOETIC) if ros1 else typestore()


def _parse(channel: Channel) -> dict[str, Any]:
    if not channel.idl:
        return dict(get_types_from_msg(channel.definition, channel.msgtype))
    if not channel.definition.startswith(f"{_IDL_RULE}IDL: "):
        return dict(get_types_from_idl(channel.definition))
    types: dict[str, Any] = {}
    for part in channel.definition.split(_IDL_RULE)[1:]:
        types |= get_types_from_idl(part.partition("\n")[2])
    return types


def _from_folder(folder: Path) -> dict[str, Any]:
    """The types of all package/msg/Name.msg (or package/Name.msg) below or at ``folder``."""
    types: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.msg")):
        parents = [part for part in path.parent.parts if part != "msg"]
        types |= get_types_from_msg(path.read_text(), f"{parents[-1]}/msg/{path.stem}")
    return types


def decoder(channel: Channel, msg_folder: Path | None = None) -> Callable[[bytes], Any]:
    """The function from a message's bytes to its object.

    The bag's own definition comes first, since a type may differ between releases; then
    ``msg_folder``, then the standard types. Raises DefinitionError if the type is in none.
    """
    store = get_typestore(Stores.EMPTY)
    try:
        if channel.definition:
            store.register(_parse(channel))
    except (TypesysError, SyntaxError, ValueError, KeyError):
        store = get_typestore(Stores.EMPTY)
    if channel.msgtype not in store.fielddefs:
        store = _known(channel.ros1)
        if msg_folder is not None:
            added = _from_folder(msg_folder)
            store = get_typestore(Stores.ROS1_NOETIC if channel.ros1 else Stores.ROS2_JAZZY)
            store.register({k: v for k, v in added.items() if k not in store.fielddefs})
    if channel.msgtype not in store.fielddefs:
        raise DefinitionError(
            f"topic '{channel.topic}': the bag has no definition of '{channel.msgtype}'; pass "
            "--msgs with the folder of its package's .msg files"
        )
    read = store.deserialize_ros1 if channel.ros1 else store.deserialize_cdr
    msgtype = channel.msgtype
    return lambda data: read(data, msgtype)
