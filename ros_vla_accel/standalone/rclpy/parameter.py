"""Parameters and their types."""

from __future__ import annotations

from array import array
from enum import IntEnum
from typing import Any

import numpy as np

from ..interfaces.classes import message_class

PARAMETER_SEPARATOR_STRING = "."

_FIELDS = {
    1: "bool_value",
    2: "integer_value",
    3: "double_value",
    4: "string_value",
    5: "byte_array_value",
    6: "bool_array_value",
    7: "integer_array_value",
    8: "double_array_value",
    9: "string_array_value",
}


class Parameter:
    """A named value. Raises ValueError if value and type do not fit."""

    class Type(IntEnum):
        NOT_SET = 0
        BOOL = 1
        INTEGER = 2
        DOUBLE = 3
        STRING = 4
        BYTE_ARRAY = 5
        BOOL_ARRAY = 6
        INTEGER_ARRAY = 7
        DOUBLE_ARRAY = 8
        STRING_ARRAY = 9

        @classmethod
        def from_parameter_value(cls, parameter_value: Any) -> Parameter.Type:
            """The type of a Python value. Raises TypeError if no parameter can hold it."""
            if parameter_value is None:
                return cls.NOT_SET
            scalars = (
                (bool, cls.BOOL),
                (int, cls.INTEGER),
                (float, cls.DOUBLE),
                (str, cls.STRING),
            )
            for python, kind in scalars:
                if isinstance(parameter_value, python):
                    return kind
            if isinstance(parameter_value, list | tuple | array | np.ndarray):
                items = list(parameter_value)
                if all(isinstance(item, bytes) for item in items):
                    return cls.BYTE_ARRAY
                arrays = (
                    (bool, cls.BOOL_ARRAY),
                    (int, cls.INTEGER_ARRAY),
                    (float, cls.DOUBLE_ARRAY),
                    (str, cls.STRING_ARRAY),
                )
                for python, kind in arrays:
                    if all(type(item) is python for item in items):
                        return kind
            raise TypeError(
                f"The given value is not one of the allowed types '{parameter_value!r}'."
            )

        def check(self, parameter_value: Any) -> bool:
            if self == Parameter.Type.NOT_SET:
                return parameter_value is None
            try:
                found = Parameter.Type.from_parameter_value(parameter_value)
            except TypeError:
                return False
            if found == self:
                return True
            empty = found == Parameter.Type.BYTE_ARRAY and len(parameter_value) == 0
            return empty and self >= Parameter.Type.BYTE_ARRAY

    def __init__(self, name: str, type_: Parameter.Type | None = None, value: Any = None) -> None:
        if type_ is None:
            type_ = Parameter.Type.from_parameter_value(value)
        if not isinstance(type_, Parameter.Type):
            raise TypeError("type must be an instance of 'Parameter.Type'")
        if value is not None and not type_.check(value):
            raise ValueError(f"Type '{type_}' and value '{value}' do not agree")
        self._name, self._type, self._value = name, type_, value

    @property
    def name(self) -> str:
        return self._name

    @property
    def type_(self) -> Parameter.Type:
        return self._type

    @property
    def value(self) -> Any:
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameter):
            return NotImplemented
        return (self.name, self.type_, self.value) == (other.name, other.type_, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Parameter(name={self._name!r}, type={self._type.name}, value={self._value!r})"

    def get_parameter_value(self) -> Any:
        """As rcl_interfaces/ParameterValue."""
        message = message_class("rcl_interfaces/msg/ParameterValue")(type=int(self._type))
        if self._type != Parameter.Type.NOT_SET:
            value = self._value
            if self._type > Parameter.Type.STRING:
                value = list(value)
            setattr(message, _FIELDS[self._type], value)
        return message

    def to_parameter_msg(self) -> Any:
        """As rcl_interfaces/Parameter."""
        return message_class("rcl_interfaces/msg/Parameter")(
            name=self._name, value=self.get_parameter_value()
        )

    @classmethod
    def from_parameter_msg(cls, param_msg: Any) -> Parameter:
        kind = Parameter.Type(param_msg.value.type)
        return cls(param_msg.name, kind, parameter_value_to_python(param_msg.value))


def parameter_value_to_python(parameter_value: Any) -> Any:
    """The Python value in an rcl_interfaces/ParameterValue; None if it is not set."""
    if parameter_value.type == 0:
        return None
    if parameter_value.type not in _FIELDS:
        raise RuntimeError(f"unexpected parameter type {parameter_value.type}")
    value = getattr(parameter_value, _FIELDS[parameter_value.type])
    return value if parameter_value.type <= Parameter.Type.STRING else list(value)
