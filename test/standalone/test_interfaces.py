"""Type hashes, checks of message fields, imports."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header, String, UInt8

from ros_vla_accel.standalone.interfaces.type_hash import type_hash

# As the interface packages of ROS 2 Jazzy install them.
HASHES = {
    "std_msgs/msg/String": "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    "sensor_msgs/msg/JointState": (
        "a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"
    ),
    "sensor_msgs/msg/Image": "d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
    "std_srvs/srv/SetBool_Request": (
        "c62fbb99d94e1b25e8ef9e109f9581956bb1b3361a45a4e5810c36a90d29932e"
    ),
    "std_srvs/srv/Trigger_Request": (
        "d010825374ce8918e72bfd826c82603e60f45419e932ea976f807b74a863a199"
    ),
    "rcl_interfaces/msg/ParameterDescriptor": (
        "52175dbfda6c51153101d33d2a9da05743f66f02d5ab2ca9ec4709b46b73d704"
    ),
    "service_msgs/msg/ServiceEventInfo": (
        "41bcbbe07a75c9b52bc96bfd5c24d7f0fc0a08c0cb7921b3373c5732345a6f45"
    ),
    "rmw_dds_common/msg/ParticipantEntitiesInfo": (
        "91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e"
    ),
}


@pytest.mark.parametrize("name", HASHES)
def test_type_hashes_are_those_of_ros(name: str) -> None:
    assert type_hash(name) == f"RIHS01_{HASHES[name]}"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (String, "data", 3),
        (Vector3, "x", 1),
        (UInt8, "data", 256),
        (UInt8, "data", -1),
        (JointState, "header", String()),
        (JointState, "name", "j1"),
        (JointState, "position", ["a"]),
        (Image, "data", [300]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_where_it_is_set(
    kind: Any, field: str, value: Any
) -> None:
    with pytest.raises((AssertionError, OverflowError, TypeError)):
        setattr(kind(), field, value)


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(AssertionError, match="text"):
        String(text="a")


@pytest.mark.parametrize(
    "values", [[1.0, 2.0], (1.0, 2.0), np.array([1.0, 2.0]), np.float32([1, 2])]
)
def test_numbers_may_come_in_any_sequence(values: Any) -> None:
    assert list(JointState(position=values).position) == [1.0, 2.0]


def test_an_image_takes_an_array_without_copying_it() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    image = Image(data=pixels)
    pixels[0, 0, 0] = 7
    assert image.data[0] == 7
    assert len(image.data) == 12


def test_a_message_shows_its_fields() -> None:
    assert repr(Header(frame_id="a")).endswith("nanosec=0), frame_id='a')")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_our_messages_need_no_call_before() -> None:
    code = "from ros_vla_accel.msg import ActionChunk; print(ActionChunk().schema_version)"
    assert run(code) == "0"


def test_importing_the_package_is_light() -> None:
    heavy = "{'numpy', 'rosbags', 'cyclonedds', 'torch', 'yaml'}"
    assert run(f"import sys, ros_vla_accel; print({heavy} & set(sys.modules))") == "set()"
