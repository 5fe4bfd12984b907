"""Python classes of messages and services, with the attributes and checks of rclpy's.

A numeric sequence is an ``array.array`` and a fixed array an ndarray, as in rclpy, but a received
``uint8[]`` is a read-only memoryview of the sample: ``numpy.frombuffer`` reads it without a copy.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .definitions import DEFAULTS, FILLER, PRIMITIVES, Definition, Field, definition

_IDL_NAMES = {"bool": "boolean", "byte": "octet", "char": "uint8"}
_IDL_NAMES |= {"float32": "float", "float64": "double"}
_FLOAT32_MAX = 3.402823466e38


class Message:
    """Base of all message classes."""

    __slots__ = ()
    _definition: Definition
    _defaults: tuple[tuple[str, Callable[[Any, Any], None], Callable[[], Any]], ...]

    def __init__(self, **fields: Any) -> None:
        for name, store, default in self._defaults:
            if name in fields:
                setattr(self, name, fields.pop(name))
            else:
                store(self, default())
        if fields:
            raise AssertionError(
                f"Invalid arguments passed to constructor of {type(self).__name__}: "
                f"{', '.join(sorted(fields))}"
            )

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Field name -> type in rclpy's notation, e.g. ``sequence<double>``."""
        return {f.name: _idl_type(f) for f in cls._definition.fields if f.name != FILLER}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_equal(getattr(self, n), getattr(other, n)) for n, _, _ in self._defaults)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{n}={_shown(getattr(self, n))}" for n, _, _ in self._defaults)
        return f"{type(self).__module__}.{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        from .cdr import encoder

        return _from_bytes, (self._definition.name, bytes(encoder(self._definition.name)(self)))


def _from_bytes(name: str, data: bytes) -> Any:
    from .cdr import decoder

    return decoder(name)(data)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, memoryview | bytes | bytearray | array) and not isinstance(b, list):
        return memoryview(a) == memoryview(b)
    return bool(a == b)


def _shown(value: Any) -> str:
    if isinstance(value, memoryview | bytearray) or (
        isinstance(value, array) and value.typecode == "B"
    ):
        return f"<{len(value)} bytes>" if len(value) > 64 else str(list(value))
    return repr(value.tolist()) if isinstance(value, array) else repr(value)


def _idl_type(field: Field) -> str:
    base = _IDL_NAMES.get(field.base, field.base).replace("/msg/", "/")
    if field.string_bound:
        base += f"<{field.string_bound}>"
    if field.kind == "array":
        return f"{base}[{field.size}]"
    if field.kind == "sequence":
        return f"sequence<{base}, {field.size}>" if field.size else f"sequence<{base}>"
    return base


def _fail(field: Field, need: str, value: Any) -> AssertionError:
    return AssertionError(
        f"The '{field.name}' field must be {need}, not {type(value).__name__} {value!r:.60}"
    )


def _integer(field: Field) -> Callable[[Any], Any]:
    bits = int(field.base.lstrip("uint")) if field.base != "char" else 8
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1)
    if field.base.startswith("u") or field.base == "char":
        low, high = 0, (1 << bits) - 1

    def check(value: Any) -> Any:
        if not isinstance(value, int) or not low <= value <= high:
            raise _fail(field, f"of type 'int' in [{low}, {high}]", value)
        return value

    return check


def _scalar(field: Field) -> Callable[[Any], Any]:
    """The check that rclpy makes when a field of one value is assigned."""
    if field.base.startswith(("int", "uint")) or field.base == "char":
        return _integer(field)
    if field.nested:

        def check_message(value: Any) -> Any:
            if not isinstance(value, message_class(field.base)):
                raise _fail(field, f"a sub message of type '{field.base}'", value)
            return value

        return check_message
    if field.base == "byte":

        def check_byte(value: Any) -> Any:
            if not isinstance(value, bytes | bytearray) or len(value) != 1:
                raise _fail(field, "of type 'bytes' with length 1", value)
            return value

        return check_byte
    if field.base == "float32":

        def check_float32(value: Any) -> Any:
            if not isinstance(value, float) or (
                abs(value) > _FLOAT32_MAX and not math.isinf(value)
            ):
                raise _fail(field, "of type 'float' in the range of 32 bits", value)
            return value

        return check_float32
    kinds: dict[str, type] = {"bool": bool, "float64": float, "string": str}
    kind = kinds[field.base]

    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _fail(field, f"of type '{kind.__name__}'", value)
        if field.string_bound and len(str(value)) > field.string_bound:
            raise _fail(field, f"a string not longer than {field.string_bound}", value)
        return value

    return check


def _bytes(field: Field) -> Callable[[Any], Any]:
    """``uint8[]``: buffers are kept without a copy, other sequences become array.array."""

    def convert(value: Any) -> Any:
        if isinstance(value, bytes | bytearray | array):
            if isinstance(value, array) and value.typecode != "B":
                raise _fail(field, "an array.array of type code 'B'", value)
            return value
        if isinstance(value, memoryview | np.ndarray):
            view = memoryview(value)  # type: ignore[arg-type]
            if view.itemsize != 1 or not view.c_contiguous:
                raise _fail(field, "contiguous bytes (use .tobytes())", value)
            return view.cast("B") if view.nbytes else b""
        return array("B", value)

    return convert


def _many(field: Field) -> Callable[[Any], Any]:
    """Conversion of what is assigned to an array or sequence field."""
    if field.base in PRIMITIVES and field.base not in ("bool", "byte"):
        code = PRIMITIVES[field.base]
        if field.kind == "array":
            dtype = np.dtype(code)

            def to_ndarray(value: Any) -> Any:
                result = np.ascontiguousarray(value, dtype=dtype).reshape(-1)
                if result.size != field.size:
                    raise _fail(field, f"of length {field.size}", value)
                return result

            return to_ndarray
        if code == "B":
            return _bytes(field)

        def to_array(value: Any) -> Any:
            if isinstance(value, array) and value.typecode == code:
                return value
            if isinstance(value, np.ndarray):
                return array(code, np.ascontiguousarray(value, dtype=code).tobytes())
            if isinstance(value, str | bytes):
                raise _fail(field, "a sequence of numbers", value)
            try:
                return array(code, value)
            except (TypeError, OverflowError) as error:
                raise _fail(field, f"a sequence of {field.base} ({error})", value) from None

        return to_array

    check = _scalar(Field(field.name, field.base, string_bound=field.string_bound))

    def to_list(value: Any) -> Any:
        if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
            raise _fail(field, f"a sequence ({field.declared()})", value)
        items = value if isinstance(value, list) else list(value)
        for item in items:
            check(item)
        if field.kind == "array" and len(items) != field.size:
            raise _fail(field, f"of length {field.size}", value)
        return items

    return to_list


def _default(field: Field, value: Any) -> Callable[[], Any]:
    if value is not None:
        return lambda: value
    if field.kind == "sequence":
        if field.base in PRIMITIVES and field.base not in ("bool", "byte"):
            return lambda code=PRIMITIVES[field.base]: array(code)  # type: ignore[misc]
        return list
    single: Callable[[], Any]
    if field.nested:
        single = message_class(field.base)
    else:
        zeros = {"bool": False, "byte": b"\0", "string": "", "float32": 0.0, "float64": 0.0}
        zero = zeros.get(field.base, 0)

        def single() -> Any:
            return zero

    if field.kind == "one":
        return single
    if field.base in PRIMITIVES and field.base not in ("bool", "byte"):
        return lambda: np.zeros(field.size, dtype=PRIMITIVES[field.base])
    return lambda: [single() for _ in range(field.size)]


@cache
def message_class(name: str) -> Any:
    """The class of ``pkg/msg/Name`` (or ``pkg/srv/Name_Request``); one object per name."""
    described = definition(name)
    package, kind, short = name.split("/")
    fields = tuple(f for f in described.fields if f.name != FILLER)
    convert = {f.name: _scalar(f) if f.kind == "one" else _many(f) for f in fields}

    def assign(self: Message, attribute: str, value: Any) -> None:
        check = convert.get(attribute)
        if check is None:
            raise AttributeError(f"{name} has no field '{attribute}'; fields: {list(convert)}")
        stores[attribute](self, check(value))

    body: dict[str, Any] = {
        "__slots__": tuple(f.name for f in fields),
        "__module__": f"{package}.{kind}",
        "__doc__": f"{name}: " + ", ".join(f"{f.declared()} {f.name}" for f in fields),
        "__setattr__": assign,
        "_definition": described,
    }
    for constant, base, value in described.constants:
        body[constant] = bytes((value,)) if base == "byte" else value
    cls: Any = type(short, (Message,), body)
    stores = {f.name: getattr(cls, f.name).__set__ for f in fields}
    given = DEFAULTS.get(name, {})
    cls._defaults = tuple((f.name, stores[f.name], _default(f, given.get(f.name))) for f in fields)
    return cls


@cache
def service_class(name: str) -> Any:
    """The class of ``pkg/srv/Name`` with its Request and Response."""
    package, kind, short = name.split("/")
    request, response = message_class(f"{name}_Request"), message_class(f"{name}_Response")
    body = {"__module__": f"{package}.{kind}", "Request": request, "Response": response}
    body["_service_name"] = name
    return type(short, (), body)
