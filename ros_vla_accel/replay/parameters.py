"""The nodes' parameter file (config/edge.yaml), read without ROS."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.partition.triggers import TriggerConfig
from ros_vla_accel.precision import Calibration, PrecisionConfig
from ros_vla_accel.resources import existing_path

T = TypeVar("T")


class ParameterError(ValueError):
    """The parameter file cannot be used; the text names the file and the parameter."""


def node_parameters(path: str | Path, node: str) -> dict[str, Any]:
    """Parameters of the node called ``node``, under its own name, a path to it or wildcards."""
    try:
        document = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ParameterError(f"parameter file {path}: {error}") from None
    values: dict[str, Any] = {}

    def walk(name: str, tree: Any) -> None:
        if not isinstance(tree, dict):
            raise ParameterError(f"parameter file {path}: '{name}' has no 'ros__parameters'")
        for key, value in tree.items():
            if key == "ros__parameters":
                if name in (node, "*", "**"):
                    values.update(value or {})
            else:
                walk(str(key).rstrip("/").rpartition("/")[2], value)

    walk("", document)
    return values


def precision_config(path: str | Path, calibration: str = "") -> tuple[PrecisionConfig, str]:
    """Settings of quantization_controller, and its ``source`` (auto, fk, action or joint).

    calibration: as the node's parameter; empty: the file's. Raises CalibrationError (a
    ValueError) or FileNotFoundError for one that cannot be used.
    """
    values = node_parameters(path, "quantization_controller")
    default = PrecisionConfig()
    settings = {}
    for item in fields(PrecisionConfig):
        name = item.name.rstrip("_")
        if name in values and item.name not in ("table", "calibrated"):
            settings[item.name] = _as(getattr(default, item.name), values[name], name, path)
    columns = [values.get("table_sensitivity"), values.get("table_bits")]
    if any(columns):
        try:
            settings["table"] = list(zip(*columns, strict=True))
        except (TypeError, ValueError):
            raise ParameterError(
                f"parameter file {path}: table_sensitivity and table_bits differ in length"
            ) from None
    try:
        config = PrecisionConfig.from_dict(settings)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"parameter file {path}: {error}") from None
    source = str(values.get("source", "auto"))
    found = _calibration(calibration, values)
    return found.settings(config, source) if found else (config, source)


def trigger_config(path: str | Path, calibration: str = "") -> TriggerConfig:
    """RAPID's settings of partition_manager; calibration: as for ``precision_config``."""
    config = _config(TriggerConfig, path, {})
    found = _calibration(calibration, node_parameters(path, "partition_manager"))
    return config.calibrated(found.triggers) if found else config


def _calibration(given: str, values: dict[str, Any]) -> Calibration | None:
    name = given or str(values.get("calibration") or "")
    return Calibration.load(existing_path(name, "config/calibration")) if name else None


def route_config(path: str | Path) -> RouteConfig:
    """The other settings of partition_manager."""
    return _config(RouteConfig, path, {"mode": "route"})


def _config(kind: type[T], path: str | Path, names: dict[str, str]) -> T:
    values = node_parameters(path, "partition_manager")
    default = kind()
    settings = {}
    for item in fields(kind):  # type: ignore[arg-type]
        name = names.get(item.name, item.name)
        if name in values:
            settings[item.name] = _as(getattr(default, item.name), values[name], name, path)
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"parameter file {path}: {error}") from None


def _as(default: Any, value: Any, name: str, path: str | Path) -> Any:
    """The value as the parameter's type: YAML reads ``1e-3`` as text, ROS as a number."""
    try:
        if isinstance(default, bool) and not isinstance(value, bool):
            raise TypeError
        return type(default)(value)
    except (TypeError, ValueError):
        raise ParameterError(
            f"parameter file {path}: {name} is {value!r}, expected {type(default).__name__}"
        ) from None
