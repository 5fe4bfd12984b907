"""Errors, with the names and messages of rclpy's."""

# ruff: noqa: N818 (names are rclpy's)

from __future__ import annotations

from typing import Any


class NotInitializedException(Exception):
    """rclpy is used before ``init``."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            "rclpy.init() has not been called." + (f" msg:{message}" if message else "")
        )


_NOT_OFFERED = "the standalone middleware does not offer {}; use ROS 2's rclpy"


class NotOffered(NotImplementedError, AttributeError):
    """A part of rclpy that is missing here; an AttributeError, too, so that ``hasattr`` works."""

    def __init__(self, what: str) -> None:
        super().__init__(_NOT_OFFERED.format(what))


class ModuleNotOffered(NotImplementedError, ImportError):
    """A module of rclpy that is missing here; an ImportError, too, for optional imports."""

    def __init__(self, module: str) -> None:
        super().__init__(_NOT_OFFERED.format(f"the module {module}"))


class RCLError(RuntimeError):
    """An operation on an invalid context or entity."""


class InvalidHandle(RuntimeError):
    """An entity is used after its destruction."""


class NameValidationException(Exception):
    """A name breaks the rules of ROS."""

    def __init__(self, name_type: str, name: str, error_msg: str, invalid_index: int) -> None:
        pointer = " " * invalid_index + "^"
        super().__init__(f"Invalid {name_type}: {error_msg}:\n  '{name}'\n   {pointer}")


class InvalidNamespaceException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("namespace", name, error_msg, invalid_index)


class InvalidNodeNameException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("node name", name, error_msg, invalid_index)


class InvalidTopicNameException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("topic name", name, error_msg, invalid_index)


class InvalidServiceNameException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("service name", name, error_msg, invalid_index)


class ParameterException(Exception):
    def __init__(self, error_msg: str, parameters: str | list[str]) -> None:
        super().__init__(f"{error_msg}: {parameters}")


class ParameterNotDeclaredException(ParameterException):
    def __init__(self, parameters: str | list[str]) -> None:
        super().__init__("Invalid access to undeclared parameter(s)", parameters)


class ParameterAlreadyDeclaredException(ParameterException):
    def __init__(self, parameters: str | list[str]) -> None:
        super().__init__("Parameter(s) already declared", parameters)


class InvalidParameterException(ParameterException):
    def __init__(self, parameter_name: str) -> None:
        super().__init__("Invalid parameter name", parameter_name)


class InvalidParameterTypeException(ParameterException):
    def __init__(self, desired_parameter: Any, expected_type: str) -> None:
        super().__init__(
            f"Trying to set parameter '{desired_parameter.name}' to "
            f"'{desired_parameter.value}' of type '{desired_parameter.type_.name}', "
            f"expecting type '{expected_type}'",
            desired_parameter.name,
        )


class InvalidParameterValueException(ParameterException):
    def __init__(self, parameter: str, value: Any, reason: str) -> None:
        super().__init__(
            f"Invalid parameter value ({value}) for parameter. Reason: {reason}", parameter
        )


class ParameterImmutableException(ParameterException):
    def __init__(self, parameter_name: str) -> None:
        super().__init__("Attempted to modify read-only parameter", parameter_name)


class ParameterUninitializedException(ParameterException):
    def __init__(self, parameter_name: str) -> None:
        super().__init__(f"The parameter '{parameter_name}' is not initialized", parameter_name)


class ROSInterruptException(Exception):
    def __init__(self) -> None:
        super().__init__("rclpy.shutdown() has been called")
