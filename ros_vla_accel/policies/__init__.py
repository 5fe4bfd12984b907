"""The reference VLA and the loader of any other policy.

``reference`` is imported when it is asked for: instructions and the loader work without torch.
"""

from __future__ import annotations

from typing import Any

from ros_vla_accel.policies.loader import PolicyLoadError, load_policy

__all__ = ["PolicyLoadError", "load_policy", "reference"]


def __getattr__(name: str) -> Any:
    if name != "reference":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from ros_vla_accel.policies.reference_policy import reference

    return reference
