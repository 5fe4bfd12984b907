"""``ros-vla-accel launch edge|sim|cloud [name:=value ...]``: ros2 launch's part without ROS 2."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from ros_vla_accel.nodes.bringup import ARGUMENTS, processes
from ros_vla_accel.nodes.supervisor import Supervisor


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ros-vla-accel launch",
        description="Starts the nodes, as `ros2 launch ros_vla_accel KIND.launch.py` does.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            f"{kind} arguments:\n"
            + "\n".join(
                f"  {name}:={default or repr('')}\n      {text}"
                for name, (default, text) in arguments.items()
            )
            for kind, arguments in ARGUMENTS.items()
        ),
    )
    parser.add_argument("kind", choices=sorted(ARGUMENTS))
    parser.add_argument("arguments", nargs="*", metavar="name:=value")
    options = parser.parse_args(argv)
    given = {}
    for text in options.arguments:
        name, separator, value = text.partition(":=")
        if not separator:
            parser.error(f"'{text}' is not of the form name:=value")
        given[name] = value
    try:
        started = processes(options.kind, given)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Supervisor() as supervisor:
        try:
            for process in started:
                supervisor.start(process)
            essential = {process.name for process in started if process.essential}
            while not essential & supervisor.ended().keys():
                time.sleep(0.2)
        except KeyboardInterrupt:
            return 0
        for name, status in supervisor.ended().items():
            print(f"{name} ended with status {status}; stopping the rest", file=sys.stderr)
    return 1
