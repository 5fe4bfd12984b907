"""``engines.json``: what a folder of exported graphs holds, and what vouches for it.

It carries the checkpoint's manifest, so that a policy runs from the folder alone: no torch weights
are read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ros_vla_accel.engines.errors import EngineError

FORMAT = 1
NAME = "engines.json"
DYNAMIC = "dynamic"
"""Shapes of a file whose batch size may vary; otherwise the batch size itself, as text."""

PRECISIONS = {"fp32": 16, "fp16": 16, "bf16": 16, "w4a16": 16, "w4a8": 8, "w8a8": 8, "fp8": 8}
"""Precision -> activation width that it stands for. w4a16 and w4a8 are one file: how wide the
activations of an INT4 product are is the engine's choice at run time (``accuracy_level``)."""
STATIC = ("w8a8", "fp8")
"""Those whose activations have static scales, from calibration data."""
FILES_OF = {"w4a8": "w4a16"}
"""Precision -> the one whose files it runs."""


@dataclass(frozen=True)
class Artifact:
    """One file. inputs and outputs: name -> (type, shape); sizes that vary have names.

    quantized: names of the layers with narrow weights. kept: layers that stayed, as a count.
    """

    file: str
    sha256: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    quantized: list[str]
    kept: int


@dataclass(frozen=True)
class EngineManifest:
    """graphs: precision -> graph -> shapes ("dynamic" or a batch size) -> file.

    policy: manifest of the checkpoint, as ``checkpoint.Manifest`` holds it. identity: the
    checkpoint's hash. base: type of what is not narrow. mixture: precision -> form of the mixtures
    of experts. steps: denoising steps of the scale table. calibration: what the static scales come
    from; None without any of ``STATIC``.
    """

    identity: str
    policy: dict[str, Any]
    base: str
    mixture: dict[str, str]
    opset: int
    steps: int
    block_size: int
    calibration: dict[str, Any] | None
    versions: dict[str, str]
    graphs: dict[str, dict[str, dict[str, Artifact]]]

    def save(self, folder: Path) -> None:
        content = {"format": FORMAT, **asdict(self)}
        partial = folder / f"{NAME}.partial"
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(folder / NAME)

    @classmethod
    def load(cls, folder: Path) -> EngineManifest:
        """Raises EngineError for a folder without a manifest, or with one of another format."""
        path = folder / NAME
        if not path.is_file():
            raise EngineError(
                f"no engines in '{folder}': {NAME} is missing; "
                f"make them with `ros-vla-accel export --out {folder}`"
            )
        try:
            content = json.loads(path.read_text())
            if content.pop("format") != FORMAT:
                raise EngineError(f"'{path}' is not of format {FORMAT}; export again")
            graphs = {
                precision: {
                    graph: {shapes: Artifact(**item) for shapes, item in files.items()}
                    for graph, files in by_graph.items()
                }
                for precision, by_graph in content.pop("graphs").items()
            }
            return cls(**content, graphs=graphs)
        except EngineError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"'{path}' is not a valid manifest: {error!r}") from error

    def artifact(self, precision: str, graph: str, shapes: str = DYNAMIC) -> Artifact:
        """Raises EngineError when it was not exported."""
        files = self.graphs.get(precision, {}).get(graph, {})
        if shapes not in files:
            raise EngineError(
                f"graph '{graph}' was not exported in {precision} with {shapes} shapes; there is "
                f"{', '.join(f'{p} {g}' for p, found in self.graphs.items() for g in found)}"
            )
        return files[shapes]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_verified(folder: Path, artifact: Artifact) -> bytes:
    """The file's content. Raises EngineError when it is missing or not what was exported."""
    path = folder / artifact.file
    if not path.is_file():
        raise EngineError(f"'{path}' is missing, which {NAME} names; export again")
    data = path.read_bytes()
    found = digest(data)
    if found != artifact.sha256:
        raise EngineError(
            f"'{path}' has SHA-256 {found[:12]}..., {NAME} says {artifact.sha256[:12]}...: the "
            "file is damaged or belongs to another export; export again"
        )
    return data
