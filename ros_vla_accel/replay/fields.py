"""Where a message keeps joint names, positions, velocities, efforts and its stamp."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_PATH = re.compile(r"^[A-Za-z_]\w*(\[(\d+|\*)\])*(\.[A-Za-z_]\w*(\[(\d+|\*)\])*)*$")
_PART = re.compile(r"[A-Za-z_]\w*|\[\d+\]|\[\*\]")


class JointFields(NamedTuple):
    """The fields of a joint state; ``header_ns`` 0 means "not stamped"."""

    name: list[str]
    position: Any
    velocity: Any
    effort: Any
    header_ns: int


class FieldMapError(ValueError):
    """The mapping is wrong, or does not fit the messages; the text names the path."""


Paths = str | tuple[str, ...]


@dataclass(frozen=True)
class FieldMap:
    """Field paths of a message type, as in ``actual.positions`` or ``joints[*].angle``.

    Each of position, velocity and effort is one path to an array, or a list of paths to numbers;
    empty: not published. name: a path, or the joint names themselves (``names``) where messages
    carry none. stamp: path of the header's stamp, empty if there is none. The defaults are those
    of sensor_msgs/JointState.
    """

    name: str = "name"
    names: tuple[str, ...] = ()
    position: Paths = "position"
    velocity: Paths = "velocity"
    effort: Paths = "effort"
    stamp: str = "header.stamp"

    def __post_init__(self) -> None:
        for key in ("name", "position", "velocity", "effort", "stamp"):
            value = getattr(self, key)
            for path in (value,) if isinstance(value, str) else value:
                if path and not _PATH.match(path):
                    raise FieldMapError(f"{key}: '{path}' is no path like 'actual.positions'")
        if not self.position:
            raise FieldMapError("position is empty; every arm has positions")

    def reader(self) -> Callable[[Any], JointFields]:
        """The function from a message to its fields. It raises FieldMapError for other types."""
        if self == FieldMap():
            return _joint_state
        names = list(self.names)
        get_names = None if names else _getter(self.name)
        position, velocity, effort = map(_column, (self.position, self.velocity, self.effort))
        get_stamp = _getter(self.stamp) if self.stamp else None

        def read(msg: Any) -> JointFields:
            stamp = get_stamp(msg) if get_stamp else None
            return JointFields(
                list(get_names(msg)) if get_names else names,
                position(msg),
                velocity(msg),
                effort(msg),
                stamp.sec * 1_000_000_000 + stamp.nanosec if stamp is not None else 0,
            )

        return read


def load_field_map(path: str | Path) -> FieldMap:
    """Reads a mapping in YAML, keys as in FieldMap. Raises FieldMapError."""
    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise FieldMapError(f"field mapping {path}: {error}") from None
    known = [item.name for item in dataclass_fields(FieldMap)]
    if not isinstance(document, dict) or not set(document) <= set(known):
        raise FieldMapError(f"field mapping {path}: expected a mapping with keys among {known}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else (value or "")
        for key, value in document.items()
    }
    try:
        # What is not mentioned is not there, but for names and stamp.
        return FieldMap(**{"velocity": "", "effort": "", **values})
    except (FieldMapError, TypeError) as error:
        raise FieldMapError(f"field mapping {path}: {error}") from None


def _joint_state(msg: Any) -> JointFields:
    try:
        stamp = msg.header.stamp
        header_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        return JointFields(msg.name, msg.position, msg.velocity, msg.effort, header_ns)
    except AttributeError as error:
        raise FieldMapError(
            f"joint states are {type(msg).__name__.replace('__', '/')}, not "
            f"sensor_msgs/msg/JointState ({error}); pass --fields with a mapping"
        ) from None


def _getter(path: str) -> Callable[[Any], Any]:
    parts = _PART.findall(path)

    def get(msg: Any) -> Any:
        try:
            return _follow(msg, parts)
        except (AttributeError, IndexError, TypeError) as error:
            raise FieldMapError(f"no '{path}' in {type(msg).__name__}: {error}") from None

    return get


def _follow(value: Any, parts: list[str]) -> Any:
    for index, part in enumerate(parts):
        if part == "[*]":
            return [_follow(item, parts[index + 1 :]) for item in value]
        value = value[int(part[1:-1])] if part.startswith("[") else getattr(value, part)
    return value


def _column(paths: Paths) -> Callable[[Any], Any]:
    if isinstance(paths, str):
        return _getter(paths) if paths else lambda _: ()
    getters = [_getter(path) for path in paths]
    return lambda msg: [get(msg) for get in getters]
