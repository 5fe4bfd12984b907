"""Real-time Vision-Language-Action policies on ROS 2, with three training-free accelerators.

Importing this package is light: no ROS, torch or message definitions are loaded.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pkgutil import extend_path
from types import ModuleType

__version__ = "0.1.0"

# In the source tree this package shadows the one that rosidl generated; look in both.
__path__ = extend_path(__path__, __name__)


class _MessageFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves ``ros_vla_accel.msg`` from ``msg/*.msg`` where rosidl has generated no such module.

    It comes last in ``sys.meta_path``, so a generated module always wins.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != f"{__name__}.msg":
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        from .standalone.interfaces.importer import fill

        fill(module, __name__, "msg")


if not any(type(finder).__name__ == _MessageFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_MessageFinder())
