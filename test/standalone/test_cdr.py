"""CDR: the same bytes as rosbags writes, and garbage is an error, never a crash."""

from __future__ import annotations

import contextlib
import random
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from ros_vla_accel.standalone.interfaces.cdr import CdrError, decoder, encoder
from ros_vla_accel.standalone.interfaces.classes import message_class
from ros_vla_accel.standalone.interfaces.definitions import (
    FILLER,
    PRIMITIVES,
    Field,
    definition,
    message_names,
)

STORE = get_typestore(Stores.ROS2_JAZZY)
STANDARD = sorted(
    name
    for name in STORE.fielddefs
    if "/msg/" in name and all(f.base != "wstring" for f in definition(name).fields)
)
OWN = [f"ros_vla_accel/msg/{name}" for name in message_names("ros_vla_accel")]


def random_value(field: Field, rng: random.Random) -> Any:
    if field.nested:
        return random_message(field.base, rng)
    if field.base == "string":
        return "".join(rng.choices(string.ascii_letters, k=rng.randint(0, 9)))
    if field.base == "bool":
        return rng.random() < 0.5
    if field.base == "byte":
        return bytes([rng.randint(0, 127)])
    if field.base.startswith("float"):
        return float(np.float32(rng.gauss(0, 1)))
    bits = 8 if field.base == "char" else int(field.base.lstrip("uint"))
    return rng.randint(0, 2 ** (bits - 1) - 1)


def random_message(name: str, rng: random.Random) -> Any:
    message = message_class(name)()
    for field in definition(name).fields:
        if field.name == FILLER:
            continue
        if field.kind == "one":
            value = random_value(field, rng)
        else:
            count = (
                field.size if field.kind == "array" else rng.randint(0, min(field.size or 3, 3))
            )
            value = [random_value(field, rng) for _ in range(count)]
        setattr(message, field.name, value)
    return message


def for_rosbags(message: Any) -> Any:
    """The same message as an object of the type store."""
    values: list[Any] = []
    for field in message._definition.fields:
        if field.name == FILLER:
            values.append(0)
            continue
        value = getattr(message, field.name)
        if field.kind == "one":
            value = for_rosbags(value) if field.nested else value
            value = value[0] if field.base == "byte" else value
        elif field.nested:
            value = [for_rosbags(item) for item in value]
        elif field.base == "byte":
            value = np.array([item[0] for item in value], np.uint8)
        elif field.base != "string":
            code = PRIMITIVES[field.base]
            value = np.array(value, dtype="bool" if code == "?" else code)
        values.append(value)
    return STORE.types[message._definition.name](*values)


@pytest.mark.parametrize("package", sorted({name.split("/")[0] for name in STANDARD}))
def test_standard_messages_have_the_bytes_that_rosbags_writes(package: str) -> None:
    rng = random.Random(1)
    for name in STANDARD:
        if not name.startswith(f"{package}/"):
            continue
        for _ in range(5):
            message = random_message(name, rng)
            ours = bytes(encoder(name)(message))
            theirs = bytes(STORE.serialize_cdr(for_rosbags(message), name))
            assert ours == theirs + b"\0" * (-len(theirs) & 3), name
            assert decoder(name)(ours) == message, name


@pytest.mark.parametrize("name", OWN)
def test_our_messages_survive_the_way(name: str) -> None:
    rng = random.Random(2)
    for _ in range(20):
        message = random_message(name, rng)
        assert decoder(name)(bytes(encoder(name)(message))) == message


NAMES = [*OWN, "sensor_msgs/msg/JointState", "diagnostic_msgs/msg/DiagnosticArray"]


@given(st.sampled_from(NAMES), st.binary(max_size=300))
def test_garbage_is_decoded_or_refused(name: str, garbage: bytes) -> None:
    with contextlib.suppress(CdrError):
        decoded = decoder(name)(b"\x00\x01\x00\x00" + garbage)
        assert type(decoded) is message_class(name)


@given(st.sampled_from(NAMES), st.integers(0, 2**32), st.floats(0, 0.999))
def test_a_message_that_was_cut_is_refused(name: str, seed: int, share: float) -> None:
    data = bytes(encoder(name)(random_message(name, random.Random(seed))))
    whole = len(data) - 3  # the last bytes may be padding
    with pytest.raises(CdrError):
        decoder(name)(data[: 4 + int((whole - 4) * share)])


@pytest.mark.parametrize("head", [b"", b"\x00", b"\x00\x03\x00\x00", b"\x00\x00\x00\x00"])
def test_another_encapsulation_is_refused(head: bytes) -> None:
    with pytest.raises(CdrError):
        decoder("std_msgs/msg/String")(head)


def test_received_bytes_are_a_view_of_the_sample() -> None:
    image = message_class("sensor_msgs/msg/Image")(data=bytes(range(200)))
    data = bytes(encoder("sensor_msgs/msg/Image")(image))
    seen = np.frombuffer(decoder("sensor_msgs/msg/Image")(data).data, dtype=np.uint8)
    assert np.shares_memory(seen, np.frombuffer(data, dtype=np.uint8))


def test_a_bounded_sequence_keeps_its_bound() -> None:
    name = "rcl_interfaces/msg/ParameterDescriptor"
    limits = message_class("rcl_interfaces/msg/IntegerRange")
    with pytest.raises(CdrError, match="integer_range"):
        encoder(name)(message_class(name)(integer_range=[limits(), limits()]))
