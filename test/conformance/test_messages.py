"""Message classes: defaults, constants, arguments, sequences."""

from __future__ import annotations

import array
import copy
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Quaternion, TwistWithCovariance
from lifecycle_msgs.msg import State, Transition
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool, Trigger

from ros_vla_accel.msg import ExecutorState


def test_fields_start_with_their_defaults() -> None:
    joints = JointState()
    assert joints.header.stamp.sec == 0
    assert joints.header.frame_id == ""
    assert list(joints.name) == list(joints.position) == []
    assert Quaternion().w == 1.0


def test_two_messages_share_no_default() -> None:
    first, second = JointState(), JointState()
    first.name.append("j1")
    first.header.frame_id = "base"
    assert second.name == []
    assert second.header.frame_id == ""


def test_constants_are_class_attributes() -> None:
    assert ExecutorState.PLAYING == 1
    assert State.PRIMARY_STATE_ACTIVE == 3
    assert Transition.TRANSITION_CONFIGURE == 1
    assert DiagnosticStatus.ERROR == b"\x02"


def test_an_unknown_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError):
        String().text = "a"


def test_equal_fields_make_equal_messages() -> None:
    assert Header(frame_id="a") == Header(frame_id="a")
    assert Header(frame_id="a") != Header(frame_id="b")
    assert JointState(position=[1.0]) == JointState(position=[1.0])
    assert JointState(position=[1.0]) != JointState(position=[2.0])


def test_a_numeric_sequence_behaves_like_an_array() -> None:
    joints = JointState(position=[1.0, 2.0])
    joints.position.append(3.0)
    assert list(joints.position) == [1.0, 2.0, 3.0]
    assert isinstance(joints.position, array.array)
    assert np.asarray(joints.position).dtype == np.float64
    assert not JointState().velocity


def test_a_fixed_array_is_a_numpy_array() -> None:
    covariance = TwistWithCovariance().covariance
    assert isinstance(covariance, np.ndarray)
    assert covariance.shape == (36,)


@pytest.mark.parametrize("make", [bytes, bytearray, list, lambda b: array.array("B", b)])
def test_image_data_takes_any_bytes(make: Any) -> None:
    image = Image(data=make(b"\x01\x02\x03"))
    assert bytes(image.data) == b"\x01\x02\x03"
    assert len(image.data) == 3


def test_fields_and_types_are_told() -> None:
    fields = JointState.get_fields_and_field_types()
    assert fields["header"] == "std_msgs/Header"
    assert fields["name"] == "sequence<string>"
    assert fields["position"] == "sequence<double>"
    assert TwistWithCovariance.get_fields_and_field_types()["covariance"] == "double[36]"


def test_a_message_can_be_copied() -> None:
    original = JointState(header=Header(frame_id="a"), position=[1.0])
    copied = copy.deepcopy(original)
    copied.header.frame_id = "b"
    assert original.header.frame_id == "a"
    assert list(copied.position) == [1.0]


def test_services_have_request_and_response() -> None:
    assert SetBool.Request(data=True).data is True
    assert Trigger.Response(success=True, message="done").message == "done"
    Trigger.Request()
