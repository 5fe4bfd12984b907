"""Whatever arrives is either one of our messages or a WireError."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from cloud_test_policy import HASH, observation, request
from cloud_test_support import steady
from hypothesis import given
from hypothesis import strategies as st

from ros_vla_accel.cloud import wire
from ros_vla_accel.cloud.codec import encode_observation, request_header
from ros_vla_accel.cloud.messages import (
    ERROR_CODES,
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    ReplyHeader,
    RequestHeader,
    SchemaError,
    Welcome,
    WireError,
)

_TENSORS, _DATA = encode_observation(observation())
_REQUEST = request_header(request(), _TENSORS, HASH)
_REPLY = ReplyHeader("s", 1, 2, 3, 2, 2, 0.05, 16, 0.1, 0.2, 0.3, {"head": 0.2})

texts = st.text(max_size=30)
uint64 = st.integers(0, 2**64 - 1)
seconds = st.floats(0, 1000)
messages = st.one_of(
    st.builds(Hello, texts),
    st.builds(Welcome, texts, texts, texts, texts, st.just(("vision", "head")), st.just((8, 16))),
    st.builds(
        replace,
        st.just(_REQUEST),
        request_id=uint64,
        episode_id=uint64,
        stamp_ns=st.integers(0, 2**63 - 1),
        seed=uint64,
        remaining_s=seconds,
        instruction=texts,
        session=texts,
    ),
    st.builds(
        replace,
        st.just(_REPLY),
        horizon=st.integers(0, 64),
        action_size=st.integers(0, 32),
        queue_s=seconds,
        timings_s=st.dictionaries(texts, seconds, max_size=5),
    ),
    st.builds(Refusal, texts, uint64, st.sampled_from(ERROR_CODES), texts),
    st.builds(Ping, texts, uint64),
    st.builds(Pong, texts, uint64, texts),
)


def _frames(message: Message) -> list[wire.Buffer]:
    with_data = isinstance(message, RequestHeader | ReplyHeader)
    return wire.encode(message, _DATA if with_data else None)


@steady
@given(message=messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    decoded, data = wire.decode(_frames(message))
    assert decoded == message
    assert data.nbytes in (0, len(_DATA))


@steady
@given(frames=st.lists(st.binary(max_size=200), max_size=4))
def test_random_frames_raise_wire_errors_only(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.decode(frames)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@steady
@given(message=messages, value=_anything, data=st.data())
def test_a_field_of_any_other_type_raises_wire_errors_only(
    message: Message, value: object, data: st.DataObject
) -> None:
    frames = _frames(message)
    header = msgpack.unpackb(frames[0])
    header[data.draw(st.sampled_from(sorted(header)))] = value
    try:
        wire.decode([msgpack.packb(header), *frames[1:]])
    except WireError:
        return


@steady
@given(message=messages, data=st.data())
def test_flipped_and_missing_bytes_raise_wire_errors_only(
    message: Message, data: st.DataObject
) -> None:
    frames = _frames(message)
    damaged = bytearray(frames[0])
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[position] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(damaged)))
    try:
        wire.decode([bytes(damaged[:length]), *frames[1:]])
    except WireError:
        return


def test_deeply_nested_headers_are_refused() -> None:
    with pytest.raises(WireError, match="not msgpack"):
        wire.decode([b"\x91" * 100_000])


def test_another_schema_version_is_named_with_the_way_out() -> None:
    header = msgpack.packb({"v": 2, "kind": "hello", "session": "s"})
    with pytest.raises(SchemaError, match="version 2 from the other end, 1 here; run the same"):
        wire.decode([header])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"v": 1, "kind": "dance"}, "kind is 'dance'"),
        ({"v": 1, "kind": "hello"}, "missing fields: 'session'"),
        ({"v": 1, "kind": "hello", "session": "s", "extra": 1}, "missing fields: 'extra'"),
        ({"v": 1, "kind": "ping", "session": "s", "seq": True}, "seq is True"),
        ({"v": 1, "kind": "ping", "session": "s", "seq": -1}, "seq is -1"),
        ({"v": 1, "kind": "hello", "session": "s" * 100}, "session is"),
        ([1, 2], "expected a map"),
    ],
)
def test_a_wrong_header_is_explained(header: object, message: str) -> None:
    with pytest.raises(WireError, match=message):
        wire.decode([msgpack.packb(header)])


def test_a_header_over_the_limit_is_not_even_parsed() -> None:
    with pytest.raises(WireError, match="header of 1048577 bytes"):
        wire.decode([bytes(wire.MAX_HEADER_BYTES + 1)])


def test_data_frames_go_with_requests_and_replies_only() -> None:
    with pytest.raises(WireError, match="'hello' goes without a data frame"):
        wire.encode(Hello("s"), b"data")
    with pytest.raises(WireError, match="'request' goes with a data frame"):
        wire.encode(_REQUEST)
    with pytest.raises(WireError, match="'request' came in 1 frames"):
        wire.decode(wire.encode(_REQUEST, b"")[:1])


def test_the_data_frame_is_not_copied() -> None:
    frames = wire.encode(_REQUEST, _DATA)
    assert frames[1] is _DATA
    assert wire.decode(frames)[1].obj is _DATA


def test_a_request_that_would_decode_to_too_much_is_refused() -> None:
    huge = replace(_TENSORS[0], encoding="jpeg", shape=(4096, 4096, 3), size=10)
    with pytest.raises(WireError, match="tensors decode to 100663296 bytes"):
        replace(_REQUEST, tensors=(replace(huge, name="a"), replace(huge, name="b")))


def test_previous_actions_must_fill_their_rows() -> None:
    with pytest.raises(WireError, match="previous_actions has 12 bytes"):
        replace(_REQUEST, previous_actions=bytes(12), previous_horizon=2)


@pytest.mark.parametrize("depth", [5, 600, 1010, 1023, 5000])
def test_values_nested_deeply_are_refused_and_do_not_exhaust_the_stack(depth: int) -> None:
    nested = b"\x91" * depth + b"\xc0"
    ping = b"\x84\xa1v\x01\xa4kind\xa4ping\xa7session\xa1a\xa3seq"
    for frame in (nested, ping + nested):
        with pytest.raises(WireError):
            wire.decode([frame])


def test_an_error_text_does_not_spell_out_a_long_list() -> None:
    header = {"v": 1, "kind": "ping", "session": "me", "seq": [0] * 100_000}
    with pytest.raises(WireError, match="seq is a tuple of 100000"):
        wire.decode([msgpack.packb(header)])
    with pytest.raises(WireError, match="not msgpack"):
        wire.decode([msgpack.packb(header | {str(k): 0 for k in range(100)})])
