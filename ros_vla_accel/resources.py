"""Finds the data folders (msg, config, launch) wherever the package was installed from."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _roots() -> list[Path]:
    source_tree = _PACKAGE.parent
    roots = [source_tree] if (source_tree / "package.xml").is_file() else []
    roots.append(_PACKAGE / "share")
    roots += [
        Path(prefix) / "share" / "ros_vla_accel"
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        if prefix
    ]
    return roots


def share_path(relative: str) -> Path:
    """Path of a data file or folder, e.g. ``config/edge.yaml``.

    Looked for in the source tree, then in the wheel, then in each ROS prefix.
    Raises FileNotFoundError naming every place that was tried.
    """
    tried = [root / relative for root in _roots()]
    for path in tried:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"'{relative}' of ros_vla_accel not found in: " + ", ".join(str(path) for path in tried)
    )


def existing_path(name: str, folder: str, suffix: str = ".yaml") -> Path:
    """A file given as a path, or as the bare name of one that the package ships in ``folder``.

    Raises FileNotFoundError with the names that exist.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    try:
        return share_path(f"{folder}/{name}{suffix}")
    except FileNotFoundError:
        places = [root / folder for root in _roots()]
        known = sorted({entry.stem for place in places for entry in place.glob(f"*{suffix}")})
        raise FileNotFoundError(
            f"'{name}' is neither a file nor one of {known} in {folder}/"
        ) from None
