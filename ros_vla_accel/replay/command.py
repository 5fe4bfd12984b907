"""``ros-vla-accel replay``: a recording in, decisions out, and a check against earlier ones."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.replay.decisions import DifferenceError, Expectation, line
from ros_vla_accel.replay.fields import FieldMap, load_field_map
from ros_vla_accel.replay.parameters import precision_config, route_config, trigger_config
from ros_vla_accel.replay.pipeline import ReplayConfig, replay
from ros_vla_accel.replay.quality import KINDS
from ros_vla_accel.replay.run import Run
from ros_vla_accel.replay.topics import parse_remaps
from ros_vla_accel.resources import existing_path


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when the recording was replayed and, with --expect, nothing differs."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.tolerance and not options.expect:
        parser.error("--tolerance needs --expect")
    if options.expect and options.out and Path(options.expect).resolve() == options.out.resolve():
        parser.error("--out would overwrite the file of --expect")
    console = Console(stderr=True)
    try:
        config = config_from(options)
        run, difference = _replay(options, config, console)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    print_run(run, Console())
    if options.json:
        Path(options.json).write_text(json.dumps(run.summary(), indent=2) + "\n")
    if difference:
        print(difference, file=sys.stderr)
        return 1
    if options.expect:
        Console().print(f"same decisions as {options.expect}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What says how to read a recording; ``config_from`` understands it."""
    parser.add_argument("bag", type=Path, help=".bag, .mcap, .db3, or the folder of a ROS 2 bag")
    parser.add_argument(
        "--topics",
        nargs="+",
        default=[],
        metavar="OURS:=RECORDED",
        help="e.g. joint_states:=/arm/joint_states (default: found by name and type)",
    )
    parser.add_argument(
        "--fields", metavar="YAML", help="where another type keeps positions and the rest"
    )
    parser.add_argument(
        "--joints", nargs="+", default=[], help="joint names (default: the robot's, or all)"
    )
    parser.add_argument("--robot", metavar="YAML", help="path, or name in config/robots")
    parser.add_argument(
        "--params", default="edge", metavar="YAML", help="the nodes' parameters (config/edge.yaml)"
    )
    parser.add_argument(
        "--calibration",
        default="",
        metavar="YAML",
        help="the nodes' calibration: path, or name in config/calibration (default: that of "
        "--params)",
    )
    parser.add_argument("--start", type=float, default=0.0, help="seconds to skip")
    parser.add_argument("--duration", type=float, default=float("inf"), help="seconds to replay")
    parser.add_argument(
        "--link",
        default="recorded",
        choices=["recorded", "healthy", "down"],
        help="link to the cloud: as link_stats in the bag (healthy if it has none), or assumed",
    )
    parser.add_argument("--policy", default="", help="module:factory, run on recorded images")
    parser.add_argument("--policy-args", default="", metavar="YAML", help="its arguments")
    parser.add_argument("--instruction", default="", help="its task (default: the recorded one)")
    parser.add_argument(
        "--msgs", type=Path, metavar="DIR", help=".msg files of types the bag does not define"
    )


def config_from(options: argparse.Namespace, frames: int = 0) -> ReplayConfig:
    """Raises ValueError or OSError naming the option's file and what is wrong with it."""
    params = existing_path(options.params, "config")
    precision, source = precision_config(params, options.calibration)
    robot = load_robot(existing_path(options.robot, "config/robots")) if options.robot else None
    return ReplayConfig(
        remaps=parse_remaps(options.topics),
        fields=load_field_map(options.fields) if options.fields else FieldMap(),
        joints=tuple(options.joints),
        robot=robot,
        start_s=options.start,
        duration_s=options.duration,
        precision=precision,
        triggers=trigger_config(params, options.calibration),
        route=route_config(params),
        source=source,
        link=options.link,
        policy=options.policy,
        policy_args=options.policy_args,
        instruction=options.instruction,
        frames=frames,
        msg_folder=options.msgs,
    )


def progress(console: Console, stack: ExitStack) -> Callable[[float], None]:
    """A bar on ``console``, while ``stack`` is open; the function moves it to a share, 0..1."""
    bar = stack.enter_context(
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
    )
    task = bar.add_task("replaying", total=1.0)
    return lambda share: bar.update(task, completed=share)


def print_run(run: Run, console: Console) -> None:
    table = Table(title=Path(run.bag).name, show_header=False)
    table.add_row("recorded", f"{run.duration_s:.1f} s, {run.messages} messages")
    table.add_row("replayed", f"{run.wall_s:.1f} s, {run.real_time_factor:.0f}x real time")
    table.add_row("joints", ", ".join(run.joint_names))
    table.add_row("motion by", run.motion_by)
    table.add_row("decisions", str(run.decision_count))
    table.add_row("bits", ", ".join(f"{bits}: {share:.0%}" for bits, share in run.bits.items()))
    table.add_row("route", ", ".join(f"{where}: {s:.0%}" for where, s in run.route.items()))
    table.add_row("preemptions", str(len(run.preemptions_s)))
    if len(run.inferences.get("t_s", ())):
        durations_ms = sorted(1e3 * run.inferences["duration_s"])
        table.add_row(
            "inferences",
            f"{len(durations_ms)}, median {durations_ms[len(durations_ms) // 2]:.0f} ms",
        )
    console.print(table)
    quality = Table("data quality", "count", "what it means")
    for kind, count in run.quality.as_dict().items():
        quality.add_row(kind.replace("_", " "), str(count), KINDS[kind])
    quality.add_row("samples used", str(run.quality.samples), "")
    console.print(quality)
    for note in run.quality.notes:
        console.print(note, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros-vla-accel replay", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="JSONL", help="write the decisions here")
    parser.add_argument(
        "--expect", metavar="JSONL", help="compare with these decisions; 1 if any differs"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        help="how much numbers may differ from --expect, absolutely or relatively (default: 0)",
    )
    parser.add_argument("--json", metavar="PATH", help="write the summary here")
    return parser


def _replay(
    options: argparse.Namespace, config: ReplayConfig, console: Console
) -> tuple[Run, str]:
    """The run, and the first difference from what was expected (empty if none)."""
    expectation = Expectation(options.expect, options.tolerance) if options.expect else None
    difference = ""
    with ExitStack() as stack:
        out = stack.enter_context(options.out.open("w")) if options.out else None

        def take(decision: dict[str, Any]) -> None:
            nonlocal difference
            text = line(decision)
            if out:
                out.write(text + "\n")
            if expectation and not difference:
                try:
                    expectation.check(text)
                except DifferenceError as error:
                    difference = str(error)

        run = replay(options.bag, config, take, progress(console, stack))
        if expectation and not difference:
            try:
                expectation.finish()
            except DifferenceError as error:
                difference = str(error)
    return run, difference
