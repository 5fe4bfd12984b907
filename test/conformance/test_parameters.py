"""Parameters: declaration, types, ranges, callbacks, command line, YAML, services, events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterEvent,
    ParameterType,
    SetParametersResult,
)
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.parameter import Parameter


@pytest.mark.parametrize(
    "value",
    [True, 3, 2.5, "text", [True, False], [1, 2], [0.5, 1.5], ["a", "b"]],
    ids=lambda value: type(value).__name__ + (type(value[0]).__name__ if value == [0] else ""),
)
def test_a_declared_parameter_has_its_default(ros: Any, value: Any) -> None:
    node = ros.node()
    assert node.declare_parameter("p", value).value == value
    assert node.get_parameter("p").value == value
    assert node.get_parameter("p").type_ == Parameter.Type.from_parameter_value(value)


def test_a_parameter_is_declared_once(ros: Any) -> None:
    node = ros.node()
    node.declare_parameter("p", 1)
    with pytest.raises(ParameterAlreadyDeclaredException):
        node.declare_parameter("p", 1)


def test_an_undeclared_parameter_is_an_error(ros: Any) -> None:
    node = ros.node()
    with pytest.raises(ParameterNotDeclaredException):
        node.get_parameter("p")
    with pytest.raises(ParameterNotDeclaredException):
        node.set_parameters([Parameter("p", value=1)])


def test_a_parameter_without_a_value_is_uninitialized(ros: Any) -> None:
    node = ros.node()
    node.declare_parameter("p", Parameter.Type.INTEGER)
    with pytest.raises(ParameterUninitializedException):
        node.get_parameter("p")


def test_an_override_wins_over_the_default(ros: Any) -> None:
    node = ros.node(parameter_overrides=[Parameter("p", value=7)])
    assert not node.has_parameter("p")
    assert node.declare_parameter("p", 1).value == 7


def test_an_override_of_another_type_is_an_error(ros: Any) -> None:
    node = ros.node(parameter_overrides=[Parameter("p", value="text")])
    with pytest.raises(InvalidParameterTypeException):
        node.declare_parameter("p", 1)


def test_dynamic_typing_allows_any_type(ros: Any) -> None:
    node = ros.node(parameter_overrides=[Parameter("p", value="text")])
    node.declare_parameter("p", 1, ParameterDescriptor(dynamic_typing=True))
    assert node.get_parameter("p").value == "text"


def test_the_type_of_a_parameter_stays(ros: Any) -> None:
    node = ros.node()
    node.declare_parameter("p", 1)
    (result,) = node.set_parameters([Parameter("p", value=1.5)])
    assert not result.successful
    assert "type" in result.reason
    assert node.get_parameter("p").value == 1


def test_a_read_only_parameter_stays(ros: Any) -> None:
    node = ros.node()
    node.declare_parameter("p", 1, ParameterDescriptor(read_only=True))
    (result,) = node.set_parameters([Parameter("p", value=2)])
    assert not result.successful
    assert node.get_parameter("p").value == 1


def test_ranges_are_checked(ros: Any) -> None:
    node = ros.node()
    whole = IntegerRange(from_value=0, to_value=10, step=2)
    real = FloatingPointRange(from_value=0.0, to_value=1.0, step=0.0)
    node.declare_parameter("i", 4, ParameterDescriptor(integer_range=[whole]))
    node.declare_parameter("f", 0.5, ParameterDescriptor(floating_point_range=[real]))
    wanted = [("i", 6), ("i", 5), ("i", 12), ("f", 1.0), ("f", 1.5)]
    results = node.set_parameters([Parameter(name, value=value) for name, value in wanted])
    assert [result.successful for result in results] == [True, False, False, True, False]
    with pytest.raises(InvalidParameterValueException):
        node.declare_parameter("j", 11, ParameterDescriptor(integer_range=[whole]))


def test_a_callback_may_refuse_a_value(ros: Any) -> None:
    node = ros.node()
    node.declare_parameter("p", 1)

    def check(parameters: list[Parameter]) -> SetParametersResult:
        good = all(p.value < 10 for p in parameters if p.name == "p")
        return SetParametersResult(successful=good, reason="" if good else "too large")

    node.add_on_set_parameters_callback(check)
    results = [node.set_parameters([Parameter("p", value=v)])[0] for v in (5, 50)]
    assert [result.successful for result in results] == [True, False]
    assert results[1].reason == "too large"
    assert node.get_parameter("p").value == 5
    node.remove_on_set_parameters_callback(check)
    assert node.set_parameters([Parameter("p", value=50)])[0].successful


def test_setting_atomically_sets_all_or_none(ros: Any) -> None:
    node = ros.node()
    node.declare_parameters("", [("a", 1), ("b", 2)])
    wrong = [Parameter("a", value=5), Parameter("b", value="text")]
    assert not node.set_parameters_atomically(wrong).successful
    assert [node.get_parameter(name).value for name in "ab"] == [1, 2]


def test_post_set_callbacks_see_the_new_values(ros: Any) -> None:
    node, seen = ros.node(), []
    node.declare_parameter("p", 1)
    node.add_post_set_parameters_callback(lambda _: seen.append(node.get_parameter("p").value))
    node.set_parameters([Parameter("p", value=2)])
    assert seen == [2]


def test_parameters_are_found_by_prefix(ros: Any) -> None:
    node = ros.node()
    node.declare_parameters("limits", [("speed", 1.0), ("step", 2.0)])
    found = node.get_parameters_by_prefix("limits")
    assert {name: p.value for name, p in found.items()} == {"speed": 1.0, "step": 2.0}


def test_get_parameter_or_gives_the_alternative(ros: Any) -> None:
    node = ros.node()
    alternative = Parameter("p", value=4)
    assert node.get_parameter_or("p", alternative).value == 4


def test_a_parameter_can_be_undeclared(ros: Any) -> None:
    node = ros.node()
    node.declare_parameter("p", 1, ParameterDescriptor(dynamic_typing=True))
    node.undeclare_parameter("p")
    assert not node.has_parameter("p")


def test_values_come_from_the_command_line(make_ros: Callable[..., Any]) -> None:
    ros = make_ros(
        "--ros-args", "-p", "i:=3", "-p", "f:=1e-3", "-p", "s:=text", "-p", "b:=true",
        "-p", "l:=[1.5, 2.5]", "-p", "other:x:=9", "-p", "node:x:=1", "-p", "quoted:='3'",
    )  # fmt: skip
    node = ros.node("node")
    expected = {"i": 3, "f": 1e-3, "s": "text", "b": True, "x": 1, "quoted": "3"}
    kinds = {"i": 0, "f": 0.0, "s": "", "b": False, "x": 0, "quoted": ""}
    for name, default in kinds.items():
        assert node.declare_parameter(name, default).value == expected[name]
    assert list(node.declare_parameter("l", [0.0]).value) == [1.5, 2.5]


YAML = """
/**:
  ros__parameters:
    everywhere: 1
    nested: {deep: {value: 2.5}}
/vla/node:
  ros__parameters:
    mine: "by path"
    everywhere: 2
/vla/other:
  ros__parameters:
    mine: "not mine"
/*/node:
  ros__parameters:
    wild: [a, b]
vla:
  node:
    ros__parameters:
      tree: true
"""


def test_values_come_from_yaml_by_node_name_and_namespace(
    make_ros: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(YAML)
    ros = make_ros("--ros-args", "--params-file", str(path))
    node = ros.node("node", namespace="/vla")
    assert node.declare_parameter("everywhere", 0).value == 2
    assert node.declare_parameter("mine", "").value == "by path"
    assert node.declare_parameter("nested.deep.value", 0.0).value == 2.5
    assert list(node.declare_parameter("wild", [""]).value) == ["a", "b"]
    assert node.declare_parameter("tree", False).value is True
    elsewhere = ros.node("node")
    assert elsewhere.declare_parameter("everywhere", 0).value == 1
    assert elsewhere.declare_parameter("mine", "default").value == "default"


def test_the_command_line_wins_over_an_earlier_file(
    make_ros: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("/**: {ros__parameters: {p: 1}}")
    ros = make_ros("--ros-args", "--params-file", str(path), "-p", "p:=2")
    assert ros.node().declare_parameter("p", 0).value == 2


def test_overrides_can_declare_parameters(make_ros: Callable[..., Any]) -> None:
    ros = make_ros("--ros-args", "-p", "free:=3")
    node = ros.node(automatically_declare_parameters_from_overrides=True)
    assert node.get_parameter("free").value == 3


def test_services_read_and_write_parameters(ros: Any) -> None:
    node = ros.node("target")
    node.declare_parameter("p", 1, ParameterDescriptor(description="a number"))
    node.declare_parameter("group.q", "text")

    listed = ros.call(ListParameters, "/target/list_parameters", ListParameters.Request()).result
    assert {"p", "group.q", "use_sim_time"} <= set(listed.names)
    request = ListParameters.Request(prefixes=["group"])
    assert list(ros.call(ListParameters, "/target/list_parameters", request).result.names) == [
        "group.q"
    ]

    names = ["p", "group.q"]
    values = ros.call(
        GetParameters, "/target/get_parameters", GetParameters.Request(names=names)
    ).values
    assert (values[0].integer_value, values[1].string_value) == (1, "text")
    types = ros.call(
        GetParameterTypes, "/target/get_parameter_types", GetParameterTypes.Request(names=names)
    ).types
    assert list(types) == [ParameterType.PARAMETER_INTEGER, ParameterType.PARAMETER_STRING]
    unknown = GetParameters.Request(names=[*names, "missing"])
    assert not ros.call(GetParameters, "/target/get_parameters", unknown).values
    (described,) = ros.call(
        DescribeParameters, "/target/describe_parameters", DescribeParameters.Request(names=["p"])
    ).descriptors
    assert (described.description, described.type) == ("a number", 2)

    messages = [Parameter("p", value=5).to_parameter_msg(), Parameter("p", value="x")]
    messages[1] = messages[1].to_parameter_msg()
    results = ros.call(
        SetParameters, "/target/set_parameters", SetParameters.Request(parameters=messages)
    ).results
    assert [result.successful for result in results] == [True, False]
    result = ros.call(
        SetParametersAtomically,
        "/target/set_parameters_atomically",
        SetParametersAtomically.Request(parameters=messages),
    ).result
    assert not result.successful
    assert node.get_parameter("p").value == 5


def test_changes_are_published(ros: Any) -> None:
    node, watcher, events = ros.node("target"), ros.node("watcher"), []
    node.declare_parameter("p", 1)
    subscription = watcher.create_subscription(
        ParameterEvent, "/parameter_events", events.append, 10
    )
    assert ros.until(lambda: subscription.get_publisher_count() == 2)
    node.set_parameters([Parameter("p", value=2)])
    assert ros.until(lambda: any(event.changed_parameters for event in events))
    (changed,) = events[-1].changed_parameters
    assert events[-1].node == "/target"
    assert (changed.name, changed.value.integer_value) == ("p", 2)
