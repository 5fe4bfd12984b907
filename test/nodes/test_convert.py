"""Messages and contracts carry the same content, and bad messages are refused."""

import dataclasses

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Float64MultiArray

from ros_vla_accel.cloud.codec import decode_request, encode_observation, request_header
from ros_vla_accel.contracts import ActionChunk, InferenceRequest, Observation
from ros_vla_accel.nodes.convert import (
    chunk_from_msg,
    chunk_to_msg,
    header_from_msg,
    request_to_msg,
    set_field,
    to_ns,
    to_stamp,
)

CHUNK = ActionChunk(
    actions=np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32),
    period_s=0.05,
    stamp_ns=1_795_000_000_123_456_789,
    request_id=2**60 + 1,
    episode_id=1_795_000_000_123,
    source="edge",
    activation_bits=8,
    timings_s={"vision": 0.5, "head": 0.25},
)


def test_a_chunk_survives_its_message():
    back = chunk_from_msg(chunk_to_msg(CHUNK))
    np.testing.assert_array_equal(back.actions, CHUNK.actions)
    same = {"actions": CHUNK.actions}
    assert dataclasses.replace(back, **same) == dataclasses.replace(CHUNK, **same)


def test_a_stop_chunk_survives_its_message():
    stop = dataclasses.replace(CHUNK, actions=np.zeros((0, 4), np.float32), source="stop")
    assert chunk_from_msg(chunk_to_msg(stop)).actions.shape == (0, 4)


@pytest.mark.parametrize(("field", "value"), [("schema_version", 2), ("horizon", 15)])
def test_a_chunk_of_another_schema_or_size_is_refused(field, value):
    msg = chunk_to_msg(CHUNK)
    setattr(msg, field, value)
    with pytest.raises(ValueError, match="action chunk"):
        chunk_from_msg(msg)


def test_stamps_are_exact_to_the_nanosecond():
    assert to_ns(to_stamp(CHUNK.stamp_ns)) == CHUNK.stamp_ns
    assert to_ns(to_stamp(-5)) == 0


def test_a_request_reaches_the_worker_as_the_policy_sent_it():
    rng = np.random.default_rng(1)
    observation = Observation(
        images={"top": rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)},
        state=rng.standard_normal(5).astype(np.float32),
        instruction="öffne die Schublade",
        stamp_ns=123_456_789,
    )
    request = InferenceRequest(
        observation, 7, 3, seed=9, activation_bits=4, previous=CHUNK, executed_rows=2
    )
    tensors, data = encode_observation(observation)
    msg = request_to_msg(request_header(request, tensors, "abc"), 200_000_000, data)
    header = header_from_msg(msg)
    assert header == request_header(request, tensors, "abc")
    back = decode_request(header, bytes(msg.data), period_s=0.05)
    np.testing.assert_array_equal(back.observation.images["top"], observation.images["top"])
    np.testing.assert_array_equal(back.observation.state, observation.state)
    np.testing.assert_array_equal(back.previous.actions, CHUNK.actions)
    assert back.observation.instruction == observation.instruction
    assert (back.seed, back.activation_bits, back.executed_rows) == (9, 4, 2)


def test_commands_fill_nested_fields_and_array_elements():
    twist = TwistStamped()
    set_field(twist, "twist.linear.y", 0.5)
    assert twist.twist.linear.y == 0.5
    array = Float64MultiArray()
    set_field(array, "data[2]", 1.5)
    set_field(array, "data[0]", -1.0)
    assert list(array.data) == [-1.0, 0.0, 1.5]


def test_a_field_that_the_command_lacks_is_named():
    with pytest.raises(AttributeError, match=r"twist\.linear\.w"):
        set_field(TwistStamped(), "twist.linear.w", 1.0)
