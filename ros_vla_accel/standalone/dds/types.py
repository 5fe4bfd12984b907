"""DDS types (CycloneDDS ``IdlStruct``) made from message definitions.

CycloneDDS checks every sample against the declared type, so the true structure is declared.
Encoding and decoding do not go through these classes: `interfaces.cdr` does that.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct, types

from ..interfaces.definitions import Field, definition

_BASES: dict[str, Any] = {
    "bool": bool,
    "byte": types.uint8,
    "char": types.uint8,
    "string": str,
    **{
        f"{sign}int{bits}": getattr(types, f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    "float32": types.float32,
    "float64": types.float64,
}


def _of(container: Any, *parameters: Any) -> Any:
    """``container[parameters]``; the wheel's types are generic at run time only."""
    return container[parameters if len(parameters) > 1 else parameters[0]]


def _idl_type(field: Field) -> Any:
    if field.nested:
        base: Any = message_type(field.base)
    elif field.base not in _BASES:
        raise NotImplementedError(f"fields of type '{field.base}' ('{field.name}')")
    else:
        base = _BASES[field.base]
    if field.string_bound:
        base = _of(types.bounded_str, field.string_bound)
    if field.kind == "array":
        return _of(types.array, base, field.size)
    if field.kind == "sequence":
        return _of(types.sequence, base, *([field.size] if field.size else []))
    return base


def _fields(name: str) -> dict[str, Any]:
    # A trailing underscore keeps IDL's and Python's keywords out; names are not on the wire.
    return {f"{field.name}_": _idl_type(field) for field in definition(name).fields}


@cache
def message_type(name: str) -> type[IdlStruct]:
    """The DDS type of ``pkg/msg/Name``."""
    described = definition(name)
    made = make_idl_struct(name.rsplit("/", 1)[1], described.dds_name, _fields(name))
    return _final(made)


@cache
def service_type(name: str) -> type[IdlStruct]:
    """The DDS type of ``pkg/srv/Name_Request`` with the header that rmw_cyclonedds puts first."""
    fields = {"header_guid_": types.int64, "header_sequence_": types.int64, **_fields(name)}
    return _final(make_idl_struct(name.rsplit("/", 1)[1], definition(name).dds_name, fields))


def _final(made: type[IdlStruct]) -> type[IdlStruct]:
    from cyclonedds.idl.annotations import final

    return final(made)
