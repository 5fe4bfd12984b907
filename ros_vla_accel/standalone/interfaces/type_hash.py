"""RIHS01 type hashes (REP-2011): SHA-256 over a canonical JSON of a type and all it refers to."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from .definitions import Field, definition

_TYPE_IDS = {
    "int8": 2,
    "uint8": 3,
    "int16": 4,
    "uint16": 5,
    "int32": 6,
    "uint32": 7,
    "int64": 8,
    "uint64": 9,
    "float32": 10,
    "float64": 11,
    # A .msg file's char is an unsigned byte, and rosidl says so in the hash.
    "char": 3,
    "bool": 15,
    "byte": 16,
    "string": 17,
    "wstring": 18,
}
_NESTED, _BOUNDED_STRING = 1, 21
_ARRAY, _BOUNDED_SEQUENCE, _SEQUENCE = 48, 96, 144


def _field(field: Field) -> dict[str, Any]:
    if field.nested:
        kind = _NESTED
    elif field.string_bound:
        kind = _BOUNDED_STRING
    else:
        kind = _TYPE_IDS[field.base]
    if field.kind == "array":
        kind += _ARRAY
    elif field.kind == "sequence":
        kind += _BOUNDED_SEQUENCE if field.size else _SEQUENCE
    return {
        "name": field.name,
        "type": {
            "type_id": kind,
            "capacity": field.size,
            "string_capacity": field.string_bound,
            "nested_type_name": field.base if field.nested else "",
        },
    }


def _description(name: str) -> dict[str, Any]:
    fields = definition(name).fields
    return {"type_name": name, "fields": [_field(field) for field in fields]}


def _references(name: str, found: set[str]) -> set[str]:
    for field in definition(name).fields:
        if field.nested and field.base not in found:
            found.add(field.base)
            _references(field.base, found)
    return found


@cache
def type_hash(name: str) -> str:
    """The hash of ``pkg/msg/Name`` (or ``pkg/srv/Name_Request``), ``RIHS01_<64 hex digits>``."""
    described = {
        "type_description": _description(name),
        "referenced_type_descriptions": [
            _description(other) for other in sorted(_references(name, set()))
        ],
    }
    return "RIHS01_" + hashlib.sha256(json.dumps(described).encode()).hexdigest()
