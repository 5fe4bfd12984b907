"""`ros-vla-accel launch` starts the processes of a bring-up, and ends all of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from std_msgs.msg import String

HERE = Path(__file__).parent


def launch(*arguments: str) -> subprocess.Popen:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "ros_vla_accel.cli", "launch", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_simulator_runs_until_it_is_interrupted_and_leaves_nothing_behind(bench, number):
    status = bench.listen(String, "task_status")
    process = launch("sim", "task:=button-press-topdown")
    try:
        bench.until(lambda: status and "button-press" in status[-1].data, 40.0)
        listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
        children = listed.stdout.split()
        process.send_signal(number)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.stderr.close()
    assert len(children) == 1
    assert not Path("/proc", children[0]).exists()


def test_a_process_that_ends_by_itself_ends_the_launch_with_its_name(bench):
    process = launch(
        "cloud", "security:=insecure", "policy:=arm_policy:nothing", "bind:=tcp://127.0.0.1:*"
    )
    assert process.wait(30) == 1
    errors = process.stderr.read()
    process.stderr.close()
    assert "no function 'nothing'" in errors
    assert "cloud_worker ended with status 1" in errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["edge", "colour:=red"], "'colour' is no argument of edge"),
        (["edge", "robot"], "not of the form name:=value"),
        (["moon"], "invalid choice"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments, text):
    process = launch(*arguments)
    assert process.wait(15) == 2
    assert text in process.stderr.read()
    process.stderr.close()
