"""The services behind ``ros2 param``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..interfaces.classes import message_class, service_class
from .exceptions import ParameterNotDeclaredException
from .parameter import Parameter
from .qos import qos_profile_parameters

if TYPE_CHECKING:
    from .node import Node


class ParameterService:
    """Six services of a node. As in rclpy, asking for one unknown name answers with nothing."""

    def __init__(self, node: Node) -> None:
        self._node = node
        for kind, name, answer in (
            ("DescribeParameters", "describe_parameters", self._describe),
            ("GetParameters", "get_parameters", self._get),
            ("GetParameterTypes", "get_parameter_types", self._types),
            ("ListParameters", "list_parameters", self._list),
            ("SetParameters", "set_parameters", self._set),
            ("SetParametersAtomically", "set_parameters_atomically", self._set_atomically),
        ):
            node.create_service(
                service_class(f"rcl_interfaces/srv/{kind}"),
                f"{node.get_fully_qualified_name()}/{name}",
                answer,
                qos_profile=qos_profile_parameters,
            )

    def _describe(self, request: Any, response: Any) -> Any:
        if all(self._node.has_parameter(name) for name in request.names):
            response.descriptors = [self._described(name) for name in request.names]
        return response

    def _described(self, name: str) -> Any:
        descriptor = self._node.describe_parameter(name)
        if descriptor.dynamic_typing:
            descriptor.type = int(self._node.get_parameter(name).type_)
        return descriptor

    def _get(self, request: Any, response: Any) -> Any:
        found = [self._node._parameters.get(name) for name in request.names]
        if all(parameter is not None and parameter.value is not None for parameter in found):
            response.values = [parameter.get_parameter_value() for parameter in found if parameter]
        return response

    def _types(self, request: Any, response: Any) -> Any:
        if all(self._node.has_parameter(name) for name in request.names):
            response.types = [int(self._node.get_parameter_type(name)) for name in request.names]
        return response

    def _list(self, request: Any, response: Any) -> Any:
        response.result = self._node.list_parameters(list(request.prefixes), request.depth)
        return response

    def _set(self, request: Any, response: Any) -> Any:
        response.results = [self._result([message]) for message in request.parameters]
        return response

    def _set_atomically(self, request: Any, response: Any) -> Any:
        response.result = self._result(request.parameters)
        return response

    def _result(self, messages: list[Any]) -> Any:
        try:
            parameters = [Parameter.from_parameter_msg(message) for message in messages]
            return self._node.set_parameters_atomically(parameters)
        except (ParameterNotDeclaredException, ValueError, RuntimeError) as error:
            return message_class("rcl_interfaces/msg/SetParametersResult")(
                successful=False, reason=str(error)
            )
