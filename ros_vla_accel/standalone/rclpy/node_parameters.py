"""The parameter half of a node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..interfaces.classes import message_class
from .exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from .parameter import Parameter


def _descriptor(**fields: Any) -> Any:
    return message_class("rcl_interfaces/msg/ParameterDescriptor")(**fields)


def _result(successful: bool, reason: str = "") -> Any:
    return message_class("rcl_interfaces/msg/SetParametersResult")(
        successful=successful, reason=reason
    )


class ParametersOfNode:
    """Declares, reads and sets parameters with rclpy's rules and errors."""

    def __init__(self, overrides: dict[str, Parameter], allow_undeclared: bool) -> None:
        self._parameters: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._parameter_overrides = overrides
        self._allow_undeclared_parameters = allow_undeclared
        self._parameter_event_publisher: Any = None
        self.__pre_set: list[Callable[[list[Parameter]], list[Parameter]]] = []
        self.__on_set: list[Callable[[list[Parameter]], Any]] = []
        self.__post_set: list[Callable[[list[Parameter]], None]] = []

    # -- declaring

    def declare_parameter(
        self,
        name: str,
        value: Any = None,
        descriptor: Any = None,
        ignore_override: bool = False,
    ) -> Parameter:
        """Declares a parameter; an override from the command line, YAML or caller wins.

        Raises ParameterAlreadyDeclaredException, InvalidParameterException (name),
        InvalidParameterTypeException, InvalidParameterValueException.
        """
        if not name:
            raise InvalidParameterException(name)
        if name in self._parameters:
            raise ParameterAlreadyDeclaredException(name)
        descriptor = descriptor or _descriptor()
        kind = Parameter.Type.NOT_SET
        if isinstance(value, Parameter.Type):
            kind, value = value, None
            if kind == Parameter.Type.NOT_SET:
                raise ValueError(f"Parameter '{name}' cannot be declared with type NOT_SET")
        elif value is not None:
            kind = Parameter.Type.from_parameter_value(value)
        dynamic = descriptor.dynamic_typing or self._allow_undeclared_parameters
        if kind == Parameter.Type.NOT_SET and not dynamic:
            kind = Parameter.Type(descriptor.type)
        descriptor.name = name
        descriptor.type = 0 if descriptor.dynamic_typing else int(kind)
        parameter = Parameter(name, None if value is None else kind, value)
        if not ignore_override and name in self._parameter_overrides:
            parameter = self._parameter_overrides[name]
        if parameter.value is not None:
            parameter = self.__fitting(parameter, descriptor)
            result = self.__ask(parameter, descriptor)
            if not result.successful:
                if result.reason.startswith("Wrong parameter type"):
                    expected = Parameter.Type(descriptor.type).name
                    raise InvalidParameterTypeException(parameter, expected)
                raise InvalidParameterValueException(name, parameter.value, result.reason)
        self._descriptors[name] = descriptor
        self.__store([parameter])
        return parameter

    def declare_parameters(
        self, namespace: str, parameters: Sequence[Sequence[Any]], ignore_override: bool = False
    ) -> list[Parameter]:
        """Declares ``(name[, value[, descriptor]])`` tuples below a namespace."""
        prefix = f"{namespace}." if namespace else ""
        return [
            self.declare_parameter(prefix + name, *rest, ignore_override=ignore_override)  # type: ignore[misc]
            for name, *rest in parameters
        ]

    def undeclare_parameter(self, name: str) -> None:
        if name not in self._parameters:
            raise ParameterNotDeclaredException(name)
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(name)
        del self._parameters[name], self._descriptors[name]

    def has_parameter(self, name: str) -> bool:
        return name in self._parameters

    # -- reading

    def get_parameter(self, name: str) -> Parameter:
        """Raises ParameterNotDeclaredException, or ParameterUninitializedException if unset."""
        if name in self._parameters:
            parameter = self._parameters[name]
            if parameter.type_ == Parameter.Type.NOT_SET and self._descriptors[name].type:
                raise ParameterUninitializedException(name)
            return parameter
        if self._allow_undeclared_parameters:
            return Parameter(name)
        raise ParameterNotDeclaredException(name)

    def get_parameters(self, names: list[str]) -> list[Parameter]:
        if not all(isinstance(name, str) for name in names):
            raise TypeError("All names must be instances of type str")
        return [self.get_parameter(name) for name in names]

    def get_parameter_or(self, name: str, alternative_value: Parameter | None = None) -> Parameter:
        if name in self._parameters and self._parameters[name].value is not None:
            return self._parameters[name]
        return alternative_value or Parameter(name)

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        start = f"{prefix}." if prefix else ""
        return {
            name[len(start) :]: parameter
            for name, parameter in self._parameters.items()
            if name.startswith(start)
        }

    def get_parameter_type(self, name: str) -> Parameter.Type:
        if name in self._parameters:
            return self._parameters[name].type_
        if self._allow_undeclared_parameters:
            return Parameter.Type.NOT_SET
        raise ParameterNotDeclaredException(name)

    def get_parameter_types(self, names: list[str]) -> list[Parameter.Type]:
        return [self.get_parameter_type(name) for name in names]

    def describe_parameter(self, name: str) -> Any:
        if name in self._descriptors:
            return self._descriptors[name]
        if self._allow_undeclared_parameters:
            return _descriptor()
        raise ParameterNotDeclaredException(name)

    def describe_parameters(self, names: list[str]) -> list[Any]:
        return [self.describe_parameter(name) for name in names]

    def list_parameters(self, prefixes: list[str], depth: int) -> Any:
        """Names below the prefixes, at most ``depth`` levels deep (0: all)."""
        names = []
        for name in self._parameters:
            for prefix in prefixes or [""]:
                rest = name if not prefix else name[len(prefix) + 1 :]
                below = not prefix or name == prefix or name.startswith(f"{prefix}.")
                if below and (not depth or rest.count(".") < depth):
                    names.append(name)
                    break
        parents = {name.rpartition(".")[0] for name in names} - {""}
        return message_class("rcl_interfaces/msg/ListParametersResult")(
            names=names, prefixes=sorted(parents)
        )

    # -- setting

    def set_parameters(self, parameter_list: list[Parameter]) -> list[Any]:
        """Sets one after another; a refused one does not stop the rest."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> Any:
        """Sets all or none. Raises ParameterNotDeclaredException for an undeclared one."""
        for before in self.__pre_set:
            parameter_list = before(parameter_list)
        unknown = [p.name for p in parameter_list if p.name not in self._parameters]
        if unknown and not self._allow_undeclared_parameters:
            raise ParameterNotDeclaredException(unknown)
        for parameter in parameter_list:
            descriptor = self._descriptors.get(parameter.name)
            if descriptor is None:
                continue
            if descriptor.read_only:
                return _result(False, "Trying to set a read-only parameter")
            checked = self.__check_type(parameter, descriptor)
            if checked.successful:
                checked = _check_range(parameter, descriptor)
            if not checked.successful:
                return checked
        for callback in self.__on_set:
            answer = callback(parameter_list)
            if not answer.successful:
                return answer
        for name in unknown:
            self._descriptors[name] = _descriptor(name=name, dynamic_typing=True)
        self.__store(parameter_list)
        for after in self.__post_set:
            after(parameter_list)
        return _result(True)

    def add_pre_set_parameters_callback(
        self, callback: Callable[[list[Parameter]], list[Parameter]]
    ) -> None:
        self.__pre_set.insert(0, callback)

    def add_on_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        """``callback(parameters) -> SetParametersResult`` may refuse a change; newest first."""
        self.__on_set.insert(0, callback)

    def add_post_set_parameters_callback(
        self, callback: Callable[[list[Parameter]], None]
    ) -> None:
        self.__post_set.insert(0, callback)

    def remove_pre_set_parameters_callback(self, callback: Any) -> None:
        self.__pre_set.remove(callback)

    def remove_on_set_parameters_callback(self, callback: Any) -> None:
        self.__on_set.remove(callback)

    def remove_post_set_parameters_callback(self, callback: Any) -> None:
        self.__post_set.remove(callback)

    # -- inside

    def __fitting(self, parameter: Parameter, descriptor: Any) -> Parameter:
        """An empty YAML list fits every array type."""
        if parameter.value == [] and descriptor.type >= Parameter.Type.BYTE_ARRAY:
            return Parameter(parameter.name, Parameter.Type(descriptor.type), [])
        return parameter

    def __check_type(self, parameter: Parameter, descriptor: Any) -> Any:
        if descriptor.dynamic_typing or not descriptor.type or descriptor.type == parameter.type_:
            return _result(True)
        expected = Parameter.Type(descriptor.type)
        return _result(
            False,
            f"Wrong parameter type, expected '{expected!s}' got '{parameter.type_!s}'",
        )

    def __ask(self, parameter: Parameter, descriptor: Any) -> Any:
        """Whether a first value is acceptable."""
        result = self.__check_type(parameter, descriptor)
        if result.successful:
            result = _check_range(parameter, descriptor)
        for callback in self.__on_set if result.successful else ():
            result = callback([parameter])
            if not result.successful:
                break
        return result

    def __store(self, parameters: list[Parameter]) -> None:
        new: list[Parameter] = []
        changed: list[Parameter] = []
        for parameter in parameters:
            (changed if parameter.name in self._parameters else new).append(parameter)
            self._parameters[parameter.name] = parameter
        self.__tell(
            [p for p in new if p.value is not None], [p for p in changed if p.value is not None]
        )

    def __tell(self, new: list[Parameter], changed: list[Parameter]) -> None:
        """Publishes on /parameter_events."""
        publisher = self._parameter_event_publisher
        if publisher is None or not (new or changed):
            return
        publisher.publish(
            message_class("rcl_interfaces/msg/ParameterEvent")(
                stamp=self.get_clock().now().to_msg(),  # type: ignore[attr-defined]
                node=self.get_fully_qualified_name(),  # type: ignore[attr-defined]
                new_parameters=[parameter.to_parameter_msg() for parameter in new],
                changed_parameters=[parameter.to_parameter_msg() for parameter in changed],
            )
        )


def _check_range(parameter: Parameter, descriptor: Any) -> Any:
    """rcl_interfaces' rule: within the range and a whole step above its start, or its end."""
    value = parameter.value
    if parameter.type_ == Parameter.Type.INTEGER and descriptor.integer_range:
        limits = descriptor.integer_range[0]
        low, high = limits.from_value, limits.to_value
        if value in (low, high):
            return _result(True)
        if not low < value < high:
            return _out_of_range(parameter, low, high)
        if limits.step and (value - low) % limits.step:
            return _off_step(parameter, limits.step)
    if parameter.type_ == Parameter.Type.DOUBLE and descriptor.floating_point_range:
        limits = descriptor.floating_point_range[0]
        low, high = limits.from_value, limits.to_value
        if math.isclose(value, low) or math.isclose(value, high):
            return _result(True)
        if not low < value < high:
            return _out_of_range(parameter, low, high)
        if limits.step:
            steps = (value - low) / limits.step
            if not math.isclose(steps, round(steps), abs_tol=1e-9):
                return _off_step(parameter, limits.step)
    return _result(True)


def _out_of_range(parameter: Parameter, low: float, high: float) -> Any:
    return _result(
        False,
        f"Parameter {parameter.name} out of range "
        f"Min: {low}, Max: {high}, value: {parameter.value}",
    )


def _off_step(parameter: Parameter, step: float) -> Any:
    return _result(
        False, f"The parameter value for {parameter.name} is not a valid step. Step: {step}"
    )
