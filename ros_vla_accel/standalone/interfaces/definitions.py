"""Message and service definitions by ROS name: standard ones, ours from ``msg/``, known services.

Standard messages come from the ``rosbags`` type store of Jazzy, our own are parsed from the
``msg`` folder, and services from `services.SERVICES` (``rosbags`` knows none).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from .services import SERVICES

OWN_PACKAGE = "ros_vla_accel"
FILLER = "structure_needs_at_least_one_member"
"""Name of the byte that IDL asks of an empty struct; on the wire, not in the Python class."""

DEFAULTS: dict[str, dict[str, object]] = {"geometry_msgs/msg/Quaternion": {"w": 1.0}}
"""Default values in the standard messages; the type store does not carry them."""

_DISCOVERY = ("Gid", "NodeEntitiesInfo", "ParticipantEntitiesInfo")
HUMBLE = {f"rmw_dds_common/msg/Humble{n}": f"rmw_dds_common/msg/{n}" for n in _DISCOVERY}
"""Messages as Humble has them, whose Gid is 24 bytes long -> their name on the wire."""

PRIMITIVES = {
    "bool": "?",
    "byte": "B",
    "char": "B",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
"""Primitive types of fixed size and their codes in ``struct`` and ``array``."""


@dataclass(frozen=True)
class Field:
    """One field: ``base`` is a primitive, ``string`` or a full message name ``pkg/msg/Name``.

    kind: ``one``, ``array`` (exactly ``size``) or ``sequence`` (at most ``size``, 0 = unbounded).
    """

    name: str
    base: str
    kind: str = "one"
    size: int = 0
    string_bound: int = 0

    @property
    def nested(self) -> bool:
        return "/" in self.base

    def declared(self) -> str:
        """The type as a ``.msg`` file writes it, e.g. ``float64[3]`` or ``string[<=2]``."""
        base = self.base.replace("/msg/", "/")
        if self.string_bound:
            base += f"<={self.string_bound}"
        if self.kind == "array":
            return f"{base}[{self.size}]"
        if self.kind == "sequence":
            return f"{base}[<={self.size}]" if self.size else f"{base}[]"
        return base


@dataclass(frozen=True)
class Definition:
    """A message: ROS name ``pkg/msg/Name`` (or ``pkg/srv/Name_Request``), constants, fields."""

    name: str
    constants: tuple[tuple[str, str, Any], ...]
    fields: tuple[Field, ...]

    @property
    def dds_name(self) -> str:
        """Type name on the DDS wire, e.g. ``std_msgs::msg::dds_::String_``."""
        package, kind, name = HUMBLE.get(self.name, self.name).split("/")
        return f"{package}::{kind}::dds_::{name}_"


@cache
def _store() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


@cache
def _own() -> dict[str, Any]:
    """Definitions of our ``msg`` folder by full name."""
    from rosbags.typesys import get_types_from_msg

    from ros_vla_accel.resources import share_path

    parsed: dict[str, Any] = {}
    for path in sorted(share_path("msg").glob("*.msg")):
        parsed.update(get_types_from_msg(path.read_text(), f"{OWN_PACKAGE}/msg/{path.stem}"))
    return parsed


def _service_half(name: str) -> Any:
    from rosbags.typesys import get_types_from_msg

    package, _, half = name.split("/")
    service, _, side = half.rpartition("_")
    if side not in ("Request", "Response"):
        raise KeyError(name)
    text = SERVICES[f"{package}/{service}"]
    request, _, response = text.partition("---")
    parsed = get_types_from_msg(request if side == "Request" else response, name)
    return next(iter(parsed.values()))


def _field(name: str, described: Any) -> Field:
    kind, detail = int(described[0]), described[1]
    if kind == 1:
        return Field(name, detail[0], string_bound=detail[1] or 0)
    if kind == 2:
        return Field(name, detail)
    inner = _field(name, detail[0])
    shape = "array" if kind == 3 else "sequence"
    return Field(name, inner.base, shape, detail[1] or 0, inner.string_bound)


@cache
def definition(name: str) -> Definition:
    """The definition of ``pkg/msg/Name`` or of one half of a service, ``pkg/srv/Name_Request``.

    Raises KeyError if nobody defines it.
    """
    if name in HUMBLE:
        return _humble(name)
    package, kind, _ = name.split("/")
    if kind == "srv":
        constants, fields = _service_half(name)
    elif package == OWN_PACKAGE:
        constants, fields = _own()[name]
    else:
        constants, fields = _store().fielddefs[name]
    described = tuple(_field(field, what) for field, what in fields)
    return Definition(name, tuple(constants), described or (Field(FILLER, "uint8"),))


def _humble(name: str) -> Definition:
    fields = []
    for field in definition(HUMBLE[name]).fields:
        if field.kind == "array" and field.base == "char":
            field = replace(field, size=24)
        elif field.nested:
            field = replace(field, base=field.base.replace("/msg/", "/msg/Humble"))
        fields.append(field)
    return Definition(name, (), tuple(fields))


def message_names(package: str) -> list[str]:
    """Names of the messages of a package, e.g. ``["String", ...]``; empty if it has none."""
    names = _own() if package == OWN_PACKAGE else _store().fielddefs
    return [n.split("/")[2] for n in names if n.startswith(f"{package}/msg/")]


def service_names(package: str) -> list[str]:
    """Names of the services of a package; empty if it has none."""
    return [n.split("/")[1] for n in SERVICES if n.startswith(f"{package}/")]
