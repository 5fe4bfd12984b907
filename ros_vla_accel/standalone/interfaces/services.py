"""Fields of the services that nodes use, as the ROS interface packages define them.

Key: ``package/Service``. Value: request fields, ``---``, response fields.
"""

from __future__ import annotations

SERVICES: dict[str, str] = {
    "std_srvs/Empty": "---",
    "std_srvs/SetBool": "bool data\n---\nbool success\nstring message",
    "std_srvs/Trigger": "---\nbool success\nstring message",
    "lifecycle_msgs/ChangeState": "lifecycle_msgs/Transition transition\n---\nbool success",
    "lifecycle_msgs/GetState": "---\nlifecycle_msgs/State current_state",
    "lifecycle_msgs/GetAvailableStates": "---\nlifecycle_msgs/State[] available_states",
    "lifecycle_msgs/GetAvailableTransitions": (
        "---\nlifecycle_msgs/TransitionDescription[] available_transitions"
    ),
    "rcl_interfaces/DescribeParameters": (
        "string[] names\n---\nrcl_interfaces/ParameterDescriptor[] descriptors"
    ),
    "rcl_interfaces/GetParameterTypes": "string[] names\n---\nuint8[] types",
    "rcl_interfaces/GetParameters": (
        "string[] names\n---\nrcl_interfaces/ParameterValue[] values"
    ),
    "rcl_interfaces/ListParameters": (
        "uint64 DEPTH_RECURSIVE=0\nstring[] prefixes\nuint64 depth\n---\n"
        "rcl_interfaces/ListParametersResult result"
    ),
    "rcl_interfaces/SetParameters": (
        "rcl_interfaces/Parameter[] parameters\n---\nrcl_interfaces/SetParametersResult[] results"
    ),
    "rcl_interfaces/SetParametersAtomically": (
        "rcl_interfaces/Parameter[] parameters\n---\nrcl_interfaces/SetParametersResult result"
    ),
}
