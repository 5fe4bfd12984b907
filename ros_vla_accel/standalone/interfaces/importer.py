"""Makes ``from sensor_msgs.msg import JointState`` work where no generated package exists."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

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
    """Serves the packages of PACKAGES, after every other finder has been asked."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, kind = fullname.partition(".")
        if package not in PACKAGES or kind not in ("", "msg", "srv"):
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(), is_package=not kind)


def install() -> None:
    """Appends the finder to ``sys.meta_path`` once."""
    if not any(isinstance(finder, InterfaceFinder) for finder in sys.meta_path):
        sys.meta_path.append(InterfaceFinder())
