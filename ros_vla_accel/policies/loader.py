"""Loads any policy by the name of its factory, so that a user's own is one function away."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ros_vla_accel.contracts import CameraSpec, Policy, PolicySpec
from ros_vla_accel.resources import existing_path


class PolicyLoadError(ValueError):
    """A policy that cannot be loaded or does not keep the contract."""


def load_policy(name: str, args: Mapping[str, Any] | str | Path | None = None) -> Policy:
    """Calls the factory ``module:factory`` with keyword arguments and checks what it returns.

    args: the arguments themselves, or a YAML file that holds them: its path, or the name of one
    in config/policies.
    Raises PolicyLoadError, which says what is wrong with name, arguments or policy.
    """
    module_name, colon, factory_name = name.partition(":")
    if not (module_name and colon and factory_name):
        raise PolicyLoadError(f"policy '{name}' must read 'module:factory'")
    arguments = policy_arguments(args)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PolicyLoadError(
            f"policy '{name}': module '{module_name}' cannot be imported ({error}); "
            "is it installed, or its folder on PYTHONPATH?"
        ) from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise PolicyLoadError(f"policy '{name}': '{module_name}' has no function '{factory_name}'")
    try:
        policy = factory(**arguments)
    except Exception as error:
        given = ", ".join(f"{k}={v!r}" for k, v in arguments.items()) or "no arguments"
        raise PolicyLoadError(f"policy '{name}' with {given} failed: {error}") from error
    _check(name, policy)
    return policy


def policy_arguments(args: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """The arguments that ``load_policy`` makes of ``args``. Raises PolicyLoadError."""
    if args is None or args == "":
        return {}
    if isinstance(args, Mapping):
        return dict(args)
    try:
        path = existing_path(str(args), "config/policies")
    except FileNotFoundError as error:
        raise PolicyLoadError(f"policy arguments '{args}': no such file; {error}") from error
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise PolicyLoadError(f"policy arguments '{path}' are not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise PolicyLoadError(f"policy arguments '{path}' must be a mapping of names to values")
    return content


def _check(name: str, policy: Any) -> None:
    for method in ("infer", "reset"):
        if not callable(getattr(policy, method, None)):
            raise PolicyLoadError(f"policy '{name}' has no method '{method}'")
    spec = getattr(policy, "spec", None)
    if not isinstance(spec, PolicySpec):
        raise PolicyLoadError(
            f"policy '{name}': spec is {type(spec).__name__}, it must be contracts.PolicySpec"
        )
    for field in ("state_names", "action_names"):
        names = getattr(spec, field)
        if not names or len(set(names)) != len(names):
            raise PolicyLoadError(f"policy '{name}': {field} {names} must be named, each once")
    for camera in spec.cameras:
        if not isinstance(camera, CameraSpec) or min(camera.height, camera.width) < 1:
            raise PolicyLoadError(f"policy '{name}': camera {camera!r} needs a name and a size")
    if 16 not in spec.widths:
        raise PolicyLoadError(f"policy '{name}': widths {spec.widths} must include 16")
