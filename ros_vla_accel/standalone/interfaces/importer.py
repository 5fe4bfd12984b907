"""Makes ``from sensor_msgs.msg import JointState`` give the classes that standalone can send."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .definitions import OWN_PACKAGE

PACKAGES = frozenset(
    [
        "action_msgs",
        "builtin_interfaces",
        "diagnostic_msgs",
        "geometry_msgs",
        "lifecycle_msgs",
        "nav_msgs",
        "rcl_interfaces",
        "rmw_dds_common",
        "rosgraph_msgs",
        "sensor_msgs",
        "service_msgs",
        "shape_msgs",
        "std_msgs",
        "std_srvs",
        "stereo_msgs",
        "tf2_msgs",
        "trajectory_msgs",
        "unique_identifier_msgs",
        "visualization_msgs",
    ]
)
"""Interface packages that are served; a fixed list, so that a look-up loads no type store."""


def fill(module: ModuleType, package: str, kind: str) -> None:
    """Gives a module the classes of ``package``'s messages (kind ``msg``) or services (``srv``).

    Classes are made when first asked for.
    """
    from .classes import message_class, service_class
    from .definitions import message_names, service_names

    names = message_names(package) if kind == "msg" else service_names(package)

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{package}.{kind}' has no attribute '{name}'")
        build = message_class if kind == "msg" else service_class
        made = build(f"{package}/{kind}/{name}")
        setattr(module, name, made)
        return made

    module.__getattr__ = get  # type: ignore[method-assign]
    module.__all__ = names  # type: ignore[attr-defined]


class _Loader(importlib.abc.Loader):
    def exec_module(self, module: ModuleType) -> None:
        package, _, kind = module.__name__.partition(".")
        if kind:
            fill(module, package, kind)


class InterfaceFinder(importlib.abc.MetaPathFinder):
    """Serves the packages of PACKAGES and our messages, before every other finder.

    Where standalone is forced beside a sourced ROS 2, rosidl's classes would be found else.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, kind = fullname.partition(".")
        known = package in PACKAGES and kind in ("", "msg", "srv")
        if not known and fullname != f"{OWN_PACKAGE}.msg":
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(), is_package=not kind)


def install() -> None:
    """Puts the finder into ``sys.meta_path`` once."""
    if not any(isinstance(finder, InterfaceFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, InterfaceFinder())
