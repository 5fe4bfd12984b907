"""``ros-vla-accel export``: the policy's stages as ONNX graphs and TensorRT engines.

Graphs for ONNX Runtime, and from them engines for one GPU with ``--engine tensorrt``. The folder
is what the parameter ``engine_dir`` of vla_policy and of the cloud worker names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.contracts import InferenceRequest, Observation, Policy
from ros_vla_accel.engines import EngineError
from ros_vla_accel.engines.manifest import FILES_OF, PRECISIONS, EngineManifest
from ros_vla_accel.experiments.statistics import check_writable, write_json
from ros_vla_accel.policies import PolicyLoadError, load_policy
from ros_vla_accel.policies.loader import policy_arguments

REFERENCE = "ros_vla_accel.policies:reference"
DEFAULTS = {
    "onnxruntime": (("fp32", "w4a8"), "fp32", "auto"),
    "tensorrt": (("fp16", "w4a16"), "fp16", "dense"),
}
"""Engine -> precisions, type of what stays wide, form of the mixtures of experts."""
FIRST_SEED = 300_000
"""Scenes that neither training (from 100,000) nor `calibrate` (200,000) nor evaluation uses."""
CHECKED = 4
"""Observations that ``--check`` compares actions on."""


def record_scenes(policy: Policy, inferences: int) -> list[Observation]:
    """What the policy sees at its first inferences of every task, in closed loop."""
    from ros_vla_accel.experiments.collect import observe
    from ros_vla_accel.experiments.execution import ChunkPlayer
    from ros_vla_accel.policies.instructions import instructions
    from ros_vla_accel.sim.env import TASKS, SawyerEnv

    seen: list[Observation] = []
    for task in track(TASKS, "recording", console=Console(stderr=True)):
        env, player = SawyerEnv(task, seed=FIRST_SEED), ChunkPlayer(policy)
        player.reset(0, FIRST_SEED)
        wanted, step = len(seen) + inferences, 0

        def look(stamp_ns: int, env: SawyerEnv = env, task: str = task) -> Observation:
            seen.append(observe(env, instructions(task)[0], stamp_ns))
            return seen[-1]

        while len(seen) < wanted:
            env.step(player.act(step, look).action)
            step += 1
        env.close()
    return seen


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when something could not be exported, built or checked."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        return _run(options)
    except (EngineError, PolicyLoadError, ValueError) as error:
        print(f"ros-vla-accel export: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from ros_vla_accel.engines.calibration import load_observations, save_observations
    from ros_vla_accel.engines.export import ExportConfig, export

    console = Console()
    if options.json:
        check_writable(options.json)
    precisions, base, mixture = DEFAULTS[options.engine]
    config = ExportConfig(
        tuple(options.precision or precisions),
        tuple(STAGES if "all" in options.stage else options.stage),
        options.base or base,
        options.mixture or mixture,
        tuple(options.batch),
        options.block_size,
    )
    made_for = _target(options, config.precisions)
    policy = None
    observations: list[Observation] = []
    if not options.build_only or options.check:
        policy = load_policy(options.policy, policy_arguments(options.policy_args))
    if options.record_calibration and policy is not None:
        observations = record_scenes(policy, options.inferences)
        save_observations(options.record_calibration, observations)
        console.print(f"wrote {options.record_calibration}: {len(observations)} observations")
    elif options.calibration and policy is not None:
        observations = load_observations(options.calibration, policy.spec)
    if not options.build_only:
        manifest = export(policy, options.out, config, observations)  # type: ignore[arg-type]
    else:
        manifest = EngineManifest.load(options.out)
    rows: list[dict[str, Any]] = _files(manifest, options.out)
    console.print(_file_table(rows))
    if made_for is not None:
        from ros_vla_accel.engines.tensorrt_build import build_all

        shapes = str(options.batch[0]) if options.batch else "dynamic"
        chosen = options.precision or list(manifest.graphs)

        def done(path: Path, built: bool) -> None:
            size = path.stat().st_size / 1e6
            state = "built" if built else "up to date"
            console.print(f"{state}: {path.name} ({size:.1f} MB)", soft_wrap=True)
            rows.append({"file": path.name, "engine": made_for.label, "mb": size, "built": built})

        build_all(options.out, manifest, made_for, chosen, options.max_batch, shapes, done)
    good = True
    if options.check:
        from ros_vla_accel.engines.check import check, random_observation

        some = observations[:: max(1, len(observations) // CHECKED)]
        some = some or [random_observation(policy.spec, seed) for seed in range(CHECKED)]
        requests = [InferenceRequest(o, i, 0, i) for i, o in enumerate(some)]
        found = check(policy, options.out, requests)  # type: ignore[arg-type]
        console.print(_check_table(found, bool(observations)))
        rows += [asdict(difference) for difference in found]
        good = not any(difference.problem for difference in found)
    if options.json:
        settings = {"policy": options.policy, "identity": manifest.identity, **asdict(config)}
        write_json(options.json, "export", settings, rows, {})
    return 0 if good else 1


def _target(options: argparse.Namespace, precisions: Sequence[str]) -> Any:
    """What to build for, found out before the export takes its minute."""
    if options.engine != "tensorrt":
        return None
    from ros_vla_accel.engines import capability, tensorrt_build

    made_for = tensorrt_build.target(options.compute_capability)
    for precision in precisions:
        capability.check(precision, made_for.capability)
    return made_for


def _files(manifest: EngineManifest, folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "precision": precision,
            "graph": graph,
            "shapes": shapes,
            "file": artifact.file,
            "mb": (folder / artifact.file).stat().st_size / 1e6,
            "narrow_layers": len(artifact.quantized),
            "wide_layers": artifact.kept,
        }
        for precision, graphs in manifest.graphs.items()
        for graph, files in graphs.items()
        for shapes, artifact in files.items()
    ]


def _file_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="exported graphs", caption="narrow: layers with INT4, INT8 or FP8 weights")
    for name in ("precision", "graph", "shapes", "file", "MB", "narrow"):
        table.add_column(name, justify="right" if name in ("MB", "narrow") else "left")
    for row in rows:
        cells = [row[k] for k in ("precision", "graph", "shapes", "file")]
        table.add_row(*cells, f"{row['mb']:.1f}", str(row["narrow_layers"]))
    return table


def _check_table(found: Sequence[Any], recorded: bool) -> Table:
    seen = "recorded" if recorded else "random"
    table = Table(
        title="ONNX Runtime against torch in float32",
        caption=f"inputs from torch on {seen} observations; actions: whole inferences",
    )
    for name in ("precision", "graph", "shapes", "largest error", "rms", "of at most"):
        table.add_column(name, justify="left" if name in ("precision", "graph") else "right")
    for d in found:
        errors = [f"{d.largest:.2g}", f"{d.rms:.2g}", f"{d.scale:.2g}"]
        if d.problem:
            errors = [f"[red]not run[/]: {d.problem[:60]}", "", ""]
        table.add_row(d.precision, d.graph, d.shapes, *errors)
    return table


STAGES = ("vision", "backbone", "head")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros-vla-accel export", description=__doc__)
    parser.add_argument("--policy", default=REFERENCE, help="module:factory")
    parser.add_argument("--policy-args", help="YAML file of the factory's arguments")
    parser.add_argument("--out", type=Path, required=True, help="folder of graphs and engines")
    parser.add_argument("--stage", nargs="+", default=["all"], choices=("all", *STAGES))
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=tuple(PRECISIONS),
        help="the first of each width is what a policy runs by default; w4a16 and w4a8 are one "
        f"file ({', '.join(f'{a} is {b}' for a, b in FILES_OF.items())}); default fp32 w4a8, "
        "for tensorrt fp16 w4a16",
    )
    parser.add_argument(
        "--base",
        choices=("fp32", "fp16", "bf16"),
        help="type of what stays wide in narrow ones (default fp32, for tensorrt fp16)",
    )
    parser.add_argument(
        "--mixture",
        choices=("auto", "routed", "dense"),
        help="experts on their own rows alone (routed), or all on every row, which has fixed "
        "shapes (dense); auto: routed, but w8a8 and fp8 dense (default auto, for tensorrt dense)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[],
        help="fixed batch sizes to export besides the dynamic one; tensorrt builds the first",
    )
    parser.add_argument("--block-size", type=int, default=64, help="of INT4 weights: 64 or 128")
    parser.add_argument("--calibration", type=Path, help=".npz of observations, for w8a8 and fp8")
    parser.add_argument(
        "--record-calibration", type=Path, help="record one in the simulator, write it here"
    )
    parser.add_argument("--inferences", type=int, default=5, help="recorded per task")
    parser.add_argument("--check", action="store_true", help="compare with torch; print errors")
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "tensorrt"))
    parser.add_argument(
        "--compute-capability", help="of the GPU to build for, such as 8.6 (default: this one)"
    )
    parser.add_argument("--max-batch", type=int, default=8, help="of dynamic TensorRT engines")
    parser.add_argument(
        "--build-only", action="store_true", help="build from the graphs that --out has already"
    )
    parser.add_argument("--json", type=Path, help="where to write files and errors")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
