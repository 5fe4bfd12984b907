"""``ros-vla-accel demo``: a simulated arm does tasks by instruction, as separate processes.

Simulator, policy, light nodes and cloud worker are started as on a robot, and talk over DDS and
ZeroMQ on the loopback interface.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rich.console import Console
from rich.live import Live

from ros_vla_accel.cloud.keys import KeyFolder, default_folder
from ros_vla_accel.nodes.bringup import DEFAULT_POLICY, processes
from ros_vla_accel.nodes.demo_operator import DemoOperator, Watch
from ros_vla_accel.nodes.demo_view import (
    TaskResult,
    live_table,
    save_contact_sheet,
    summary,
    summary_table,
)
from ros_vla_accel.nodes.supervisor import Supervisor
from ros_vla_accel.policies.instructions import PARAPHRASES, instructions

DEMO_DOMAIN = "61"
"""Not ROS 2's default domain: the demo's /clock must not reach a real robot's nodes."""
START_TIMEOUT_S = 90.0
QUANTIZED = "reference_w4ax"
"""Arguments of the default policy: it is faster with INT4 weights."""
CALIBRATION = "reference"
"""Of that policy: default thresholds would let it run at widths that it does not bear."""


class DemoError(RuntimeError):
    """The demo cannot go on; the text says which process failed and where its log is."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when every task succeeded."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.record and Path(options.record).exists():
        parser.error(f"recording folder '{options.record}' exists; name a new one")
    os.environ.setdefault("ROS_DOMAIN_ID", DEMO_DOMAIN)
    console = Console(stderr=options.headless)
    rclpy.init(args=[])
    operator = DemoOperator("/vla")
    recorder = operator.record(Path(options.record)) if options.record else None
    executor = SingleThreadedExecutor()
    executor.add_node(operator)
    spinner = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinner.start()
    try:
        with Supervisor(Path(options.log_dir)) as supervisor:
            results = _run(options, operator, supervisor, console)
        numbers = summary(operator.watch, results)
        console.print(summary_table(numbers, results))
        save_contact_sheet(Path(options.image), results)
        console.print(f"what the camera saw: {options.image}; logs: {options.log_dir}")
        if options.json:
            tasks = [{"task": r.task, "success": r.success, "time_s": r.time_s} for r in results]
            Path(options.json).write_text(
                json.dumps({"name": "demo", "rows": tasks, "summary": numbers}, indent=2)
            )
        return 0 if all(result.success for result in results) else 1
    except (DemoError, TimeoutError, RuntimeError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    finally:
        executor.shutdown()
        spinner.join(5.0)
        operator.destroy_node()
        if recorder is not None:
            recorder.close()
            console.print(
                f"recorded {recorder.written} messages in {options.record}, "
                f"{recorder.dropped} dropped"
            )
        rclpy.try_shutdown()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros-vla-accel demo", description=__doc__)
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["drawer-open", "button-press-topdown"],
        choices=sorted(PARAPHRASES),
        metavar="TASK",
        help=f"any of {', '.join(PARAPHRASES)} (default: drawer-open button-press-topdown)",
    )
    parser.add_argument("--headless", action="store_true", help="no live table")
    parser.add_argument("--route", default="auto", choices=["edge", "cloud", "auto", "critical"])
    parser.add_argument("--policy", default=DEFAULT_POLICY, help="module:factory")
    parser.add_argument(
        "--policy-args",
        metavar="YAML",
        help="its arguments: a path, a name in config/policies, or none "
        f"(default: {QUANTIZED}, INT4 weights, for the default policy; none for others)",
    )
    parser.add_argument(
        "--keys",
        metavar="DIR",
        help="keys of worker and robot, made when missing (default: ros_vla_accel/demo_keys in "
        "$XDG_CONFIG_HOME or ~/.config)",
    )
    parser.add_argument("--seed", type=int, default=0, help="scene of the first episode")
    parser.add_argument(
        "--task-time", type=float, default=20.0, help="simulated seconds per task at most"
    )
    parser.add_argument("--record", metavar="DIR", help="record all topics as MCAP, a new folder")
    parser.add_argument("--json", metavar="PATH", help="write the summary here")
    parser.add_argument("--image", default="runs/demo.png", help="contact sheet of the camera")
    parser.add_argument("--log-dir", default="runs/demo-logs", help="one log per process")
    return parser


def policy_args(options: argparse.Namespace) -> str:
    """The launch argument: as given, "none" being none, or the default for this policy."""
    if options.policy_args is None:
        return QUANTIZED if options.policy == DEFAULT_POLICY else ""
    return "" if options.policy_args == "none" else str(options.policy_args)


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(
    options: argparse.Namespace,
    operator: DemoOperator,
    supervisor: Supervisor,
    console: Console,
) -> list[TaskResult]:
    endpoint = f"tcp://127.0.0.1:{_free_port()}"
    policy = {"policy": options.policy, "policy_args": policy_args(options)}
    keys = KeyFolder(options.keys or default_folder().with_name("demo_keys"))
    keys.create_missing()
    edge = {
        "use_sim_time": "true",
        "cloud_endpoint": endpoint,
        "cloud_keys": str(keys.path.resolve()),
        "route": options.route,
        **policy,
    }
    edge["calibration"] = CALIBRATION if policy["policy_args"] == QUANTIZED else ""
    sim = {"task": options.tasks[0], "seed": str(options.seed)}
    cloud = {"bind": endpoint, "keys": str(keys.path.resolve()), **policy}
    for kind, arguments in (("sim", sim), ("edge", edge), ("cloud", cloud)):
        for process in processes(kind, arguments):
            supervisor.start(process)
    console.print("starting simulator, policy, control nodes and cloud worker ...")
    _wait(
        operator,
        supervisor,
        options,
        lambda watch: (
            watch.status
            and watch.executor is not None
            and watch.inference is not None
            and watch.inference.status == "no instruction"
        ),
        "the nodes to be ready",
    )
    if options.route != "edge":
        _wait(
            operator,
            supervisor,
            options,
            lambda watch: watch.link is not None and watch.link.health == watch.link.HEALTHY,
            "the cloud worker",
        )
    results = []
    for task in options.tasks:
        result = TaskResult(task, instructions(task)[0])
        results.append(result)
        _do_task(result, options, operator, supervisor, console)
        outcome = f"success after {result.time_s:.1f} s" if result.success else "no success"
        console.print(f"{task}: {outcome}")
    return results


def _wait(
    operator: DemoOperator,
    supervisor: Supervisor,
    options: argparse.Namespace,
    condition: Callable[[Watch], object],
    what: str,
) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    while not operator.wait_for(condition, 0.5):
        _check_alive(supervisor, options)
        if time.monotonic() > until_s:
            raise DemoError(f"waited {START_TIMEOUT_S:.0f} s for {what}; see {options.log_dir}")


def _check_alive(supervisor: Supervisor, options: argparse.Namespace) -> None:
    for name, status in supervisor.ended().items():
        raise DemoError(f"{name} ended with status {status}; see {options.log_dir}/{name}.log")


def _do_task(
    result: TaskResult,
    options: argparse.Namespace,
    operator: DemoOperator,
    supervisor: Supervisor,
    console: Console,
) -> None:
    """Resets the scene, gives the instruction and watches until success or the time limit."""
    watch = operator.watch
    operator.instruct("")
    operator.wait_for(lambda w: w.executor is not None and w.executor.state == w.executor.IDLE, 5)
    operator.set_task(result.task, 30.0)
    # The status of the new episode, not one still on its way from the old.
    operator.wait_for(
        lambda w: w.status.get("task", "").startswith(result.task) and not w.status.get("success"),
        10,
    )
    watch.frames = []
    watch.begin_task()
    start_s = watch.status["time_s"]
    operator.instruct(result.instruction)
    live = Live(console=console, refresh_per_second=4) if not options.headless else None
    until_s = time.monotonic() + 10 * options.task_time
    if live:
        live.start()
    try:
        while time.monotonic() < until_s:
            operator.wait_for(lambda w: w.status.get("success"), 0.25)
            if live:
                live.update(live_table(watch, result.task, result.instruction))
            _check_alive(supervisor, options)
            result.success = bool(watch.status.get("success"))
            result.time_s = watch.status["time_s"] - start_s
            if result.success or result.time_s > options.task_time:
                break
    finally:
        if live:
            live.stop()
        watch.end_task()
        operator.instruct("")
        result.frames = list(watch.frames)
