"""CDR (XCDR1, little-endian) encoders and decoders, generated as Python source per message type.

Why not a generic walk over the fields: a joint state arrives 500 times a second. Runs of fixed
size become one ``struct`` call, numeric sequences one copy, and ``uint8[]`` (images, tensors)
none at all: it arrives as a view into the received bytes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .definitions import FILLER, PRIMITIVES, Definition, Field, definition

HEADER = b"\x00\x01\x00\x00"
"""Encapsulation: XCDR1 little-endian, no options."""

_BYTES_LIKE = ("uint8", "char")


class CdrError(ValueError):
    """The bytes do not hold a message of the declared type."""


class _Position:
    """What is known, while generating, of the position modulo 8 (counted after the header)."""

    def __init__(self, modulus: int = 8) -> None:
        self.modulus, self.rest = modulus, 0

    def pad(self, alignment: int) -> int | None:
        """Bytes of padding before ``alignment``; None if only the running program can tell."""
        if self.modulus < alignment:
            return None
        return -self.rest % alignment

    def advance(self, size: int) -> None:
        self.rest = (self.rest + size) % self.modulus

    def aligned(self, modulus: int) -> None:
        self.modulus, self.rest = modulus, 0


class _Generator:
    """Common to both directions: lines of source and a pending run of fixed-size primitives."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"E": CdrError, "new": object.__new__, "array": array}
        self.at = _Position()
        self.run_format = ""
        self.run: list[str] = []
        self.indent = "  "
        self.count = 0

    def temporary(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def emit(self, line: str) -> None:
        self.lines.append(self.indent + line)

    def bind(self, value: Any) -> str:
        name = f"g{len(self.names)}"
        self.names[name] = value
        return name

    def fixed(self, code: str, size: int, operand: str) -> None:
        """Adds one primitive to the run, aligned."""
        pad = self.at.pad(size)
        if pad is None:
            self.flush()
            self.align(size)
            pad = 0
        self.run_format += "x" * pad + code
        self.at.advance(pad + size)
        self.run.append(operand)

    def compile(self, signature: str, result: str) -> Callable[..., Any]:
        self.flush()
        source = "\n".join([f"def f({signature}):", *self.lines, f"  return {result}"])
        exec(source, self.names)
        return self.names["f"]  # type: ignore[no-any-return]

    def after_elements(self, size: int) -> None:
        """Position after a sequence of elements of ``size``, which may have been empty."""
        self.at.aligned(min(size, 4))

    def flush(self) -> None:
        raise NotImplementedError

    def align(self, alignment: int) -> None:
        raise NotImplementedError


class _Decoder(_Generator):
    """Generates ``f(b, m, p) -> (message, position)``; b: bytes with header, m: its memoryview."""

    def flush(self) -> None:
        if not self.run_format:
            return
        code = struct.Struct("<" + self.run_format)
        unpack = self.bind(code.unpack_from)
        self.emit(f"{', '.join(self.run)}, = {unpack}(b, p)" if self.run else "pass")
        self.emit(f"p += {code.size}")
        self.run_format, self.run = "", []

    def align(self, alignment: int) -> None:
        # Positions count from the end of the 4-byte header: p = 4 is aligned to all.
        self.emit(f"p += (4 - p) & {alignment - 1}")
        self.at.aligned(alignment)

    def message(self, described: Definition) -> str:
        """Lines that read one message in place; returns the variable that holds it."""
        from .classes import message_class

        values = [(field.name, self.field(field)) for field in described.fields]
        self.flush()
        cls, out = message_class(described.name), self.temporary()
        self.emit(f"{out} = new({self.bind(cls)})")
        for name, value in values:
            if name != FILLER:
                self.emit(f"{self.bind(getattr(cls, name).__set__)}({out}, {value})")
        return out

    def field(self, field: Field) -> str:
        if field.kind == "one":
            return self.single(field)
        count = str(field.size)
        if field.kind == "sequence":
            count = self.temporary()
            self.fixed("I", 4, count)
        self.flush()
        if field.base in PRIMITIVES:
            return self.primitives(field, count)
        out = self.temporary()
        self.emit(f"{out} = []")
        # Each element takes a byte at least: a length beyond the data is garbage, not a loop.
        self.emit(f"if {count} > len(b): raise E('sequence longer than its message')")
        self.emit(f"for _ in range({count}):")
        self.indent += "  "
        if field.nested:
            self.align_nested(field.base)
            item = self.temporary()
            self.emit(f"{item}, p = {self.bind(_element_decoder(field.base))}(b, m, p)")
        else:
            self.at.aligned(1)
            item = self.single(Field("", field.base))
        self.emit(f"{out}.append({item})")
        self.indent = self.indent[:-2]
        self.at.aligned(1)
        return out

    def align_nested(self, name: str) -> None:
        self.align(alignment_of(name))

    def single(self, field: Field) -> str:
        if field.nested:
            return self.message(definition(field.base))
        out = self.temporary()
        if field.base == "string":
            end = self.temporary()
            self.fixed("I", 4, out)
            self.flush()
            self.emit(f"{end} = p + {out}")
            self.emit(f"if {end} > len(b): raise E('string longer than its message')")
            self.emit(f"{out} = b[p:{end} - 1].decode()")
            self.emit(f"p = {end}")
            self.at.aligned(1)
            return out
        code = PRIMITIVES[field.base]
        self.fixed(code, struct.calcsize("<" + code), out)
        if field.base == "byte":
            self.flush()
            self.emit(f"{out} = bytes(({out},))")
        return out

    def primitives(self, field: Field, count: str) -> str:
        code = PRIMITIVES[field.base]
        size = struct.calcsize("<" + code)
        if size == 8 or field.kind == "array":
            pad = self.at.pad(size)
            if pad is None or pad:
                step = f"(4 - p) & {size - 1}" if pad is None else str(pad)
                self.emit(f"if {count}: p += {step}")
        out, end = self.temporary(), self.temporary()
        self.emit(f"{end} = p + {size} * {count}" if size > 1 else f"{end} = p + {count}")
        self.emit(f"if {end} > len(b): raise E('sequence longer than its message')")
        if field.base == "bool":
            self.emit(f"{out} = [x != 0 for x in b[p:{end}]]")
        elif field.base == "byte":
            self.emit(f"{out} = [bytes((x,)) for x in b[p:{end}]]")
        elif field.kind == "array":
            frombuffer, dtype = self.bind(np.frombuffer), self.bind(np.dtype(f"<{code}"))
            self.emit(f"{out} = {frombuffer}(b, {dtype}, {count}, p).copy()")
        elif field.base in _BYTES_LIKE:
            self.emit(f"{out} = m[p:{end}]")
        else:
            self.emit(f"{out} = array({code!r})")
            self.emit(f"{out}.frombytes(m[p:{end}])")
        self.emit(f"p = {end}")
        if field.kind == "array":
            self.at.aligned(size)
        else:
            self.after_elements(size)
        return out


class _Encoder(_Generator):
    """Generates ``f(x, o)``: appends message ``x`` to the bytearray ``o`` (header included)."""

    def flush(self) -> None:
        if not self.run_format:
            return
        pack = self.bind(struct.Struct("<" + self.run_format).pack)
        self.emit(f"o += {pack}({', '.join(self.run)})")
        self.run_format, self.run = "", []

    def align(self, alignment: int) -> None:
        zeros = self.bind([b"\0" * n for n in range(alignment)])
        self.emit(f"o += {zeros}[(4 - len(o)) & {alignment - 1}]")
        self.at.aligned(alignment)

    def message(self, described: Definition, variable: str) -> None:
        for field in described.fields:
            if field.name == FILLER:
                self.fixed("B", 1, "0")
                continue
            value = self.temporary()
            self.emit(f"{value} = {variable}.{field.name}")
            self.field(field, value)

    def field(self, field: Field, value: str) -> None:
        if field.kind == "one":
            self.single(field, value)
            return
        if field.kind == "sequence":
            if field.size:
                self.emit(f"if len({value}) > {field.size}: raise E({self.too_long(field)})")
            self.fixed("I", 4, f"len({value})")
        self.flush()
        if field.base in PRIMITIVES:
            self.primitives(field, value)
            return
        item = self.temporary()
        self.emit(f"for {item} in {value}:")
        self.indent += "  "
        if field.nested:
            self.align(alignment_of(field.base))
            self.emit(f"{self.bind(_element_encoder(field.base))}({item}, o)")
        else:
            self.at.aligned(1)
            self.single(Field("", field.base), item)
        self.indent = self.indent[:-2]
        self.at.aligned(1)

    @staticmethod
    def too_long(field: Field) -> str:
        return repr(f"'{field.name}' is longer than its bound of {field.size}")

    def single(self, field: Field, value: str) -> None:
        if field.nested:
            self.message(definition(field.base), value)
        elif field.base == "string":
            self.emit(f"{value} = {value}.encode()")
            self.fixed("I", 4, f"len({value}) + 1")
            self.flush()
            self.emit(f"o += {value}")
            self.emit("o.append(0)")
            self.at.aligned(1)
        else:
            code = PRIMITIVES[field.base]
            operand = f"{value}[0]" if field.base == "byte" else value
            self.fixed(code, struct.calcsize("<" + code), operand)

    def primitives(self, field: Field, value: str) -> None:
        code = PRIMITIVES[field.base]
        size = struct.calcsize("<" + code)
        if size == 8 or field.kind == "array":
            pad = self.at.pad(size)
            if pad is None or pad:
                zeros = self.bind([b"\0" * n for n in range(8)])
                step = f"(4 - len(o)) & {size - 1}" if pad is None else str(pad)
                self.emit(f"if len({value}): o += {zeros}[{step}]")
        if field.base == "bool":
            self.emit(f"o += bytes({value})")
        elif field.base == "byte":
            self.emit(f"o += b''.join({value})")
        else:
            # The setters hold buffers here: array.array, bytes-like or ndarray of the right type.
            self.emit(f"o += memoryview({value}).cast('B') if len({value}) else b''")
        if field.kind == "array":
            self.at.aligned(size)
        else:
            self.after_elements(size)


@cache
def alignment_of(name: str) -> int:
    """Alignment of the first member of a message in bytes (what precedes a sequence's element)."""
    first = definition(name).fields[0]
    if first.kind == "sequence" or first.base == "string":
        return 4
    if first.nested:
        return alignment_of(first.base)
    return struct.calcsize("<" + PRIMITIVES[first.base])


def _element_position(name: str) -> _Position:
    return _Position(alignment_of(name))


@cache
def _element_decoder(name: str) -> Callable[..., Any]:
    """Decoder of a message that starts anywhere its first member may start."""
    generator = _Decoder()
    generator.at = _element_position(name)
    out = generator.message(definition(name))
    return generator.compile("b, m, p", f"{out}, p")


@cache
def _element_encoder(name: str) -> Callable[..., Any]:
    generator = _Encoder()
    generator.at = _element_position(name)
    generator.message(definition(name), "x")
    return generator.compile("x, o", "None")


@cache
def decoder(name: str) -> Callable[..., Any]:
    """``f(data: bytes, offset=4) -> message`` for a sample with its 4-byte header.

    offset: where the message starts (service samples put 16 bytes before it).
    The function raises CdrError if the bytes do not fit the type.
    """
    generator = _Decoder()
    out = generator.message(definition(name))
    decode = generator.compile("b, m, p", out)

    def run(data: bytes, offset: int = 4) -> Any:
        if data[:2] != HEADER[:2]:
            raise CdrError(f"{name}: encapsulation {data[:2].hex()} is not little-endian XCDR1")
        try:
            return decode(data, memoryview(data), offset)
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise CdrError(f"{name}: {error}") from error

    return run


@cache
def encoder(name: str) -> Callable[..., Any]:
    """``f(message, prefix=b"") -> bytearray`` with header, padded to 4 bytes as DDS wants it.

    prefix: bytes before the message, a multiple of 8 of them (the header of a service sample).
    The function raises CdrError if a value does not fit its field.
    """
    generator = _Encoder()
    generator.message(definition(name), "x")
    encode = generator.compile("x, o", "None")

    def run(message: Any, prefix: bytes = b"") -> bytearray:
        out = bytearray(HEADER + prefix)
        try:
            encode(message, out)
        except (struct.error, TypeError, AttributeError) as error:
            raise CdrError(f"{name}: {error}") from error
        out += b"\0" * (-len(out) & 3)
        return out

    return run
