"""The whole stack as separate processes: what dies, comes back or lies does not stop the rest."""

import os
import socket
from pathlib import Path

import pytest
import zmq

from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.msg import ExecutorState, LinkStats
from ros_vla_accel.nodes.bringup import processes
from ros_vla_accel.nodes.demo_operator import DemoOperator
from ros_vla_accel.nodes.supervisor import Supervisor

HERE = Path(__file__).parent
START_S = 60.0


class Stack:
    """Simulator, policy, light nodes and cloud worker, watched over their public topics."""

    def __init__(self, bench, supervisor: Supervisor, keys: KeyFolder) -> None:
        self.supervisor = supervisor
        self.operator = bench.add(DemoOperator("/vla"))
        self.watch = self.operator.watch
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        keys.create_missing()
        folder = str(keys.path)
        policy = {"policy": "arm_policy:make"}
        link = {"cloud_endpoint": self.endpoint, "cloud_keys": folder}
        sim, edge, cloud = (
            processes("sim", {}),
            processes("edge", {"use_sim_time": "true", **link, **policy}),
            processes("cloud", {"bind": self.endpoint, "keys": folder, **policy}),
        )
        self.processes = {process.name: process for process in sim + edge + cloud}
        for process in self.processes.values():
            supervisor.start(process)
        self.until(lambda w: w.status and w.executor and w.inference, START_S)
        self.until(lambda w: w.link is not None and w.link.health == LinkStats.HEALTHY, START_S)

    def until(self, condition, timeout_s: float = 15.0) -> None:
        assert self.operator.wait_for(condition, timeout_s), (
            f"not within {timeout_s} s: {self.watch.executor} {self.watch.inference}"
        )

    def restart(self, name: str) -> None:
        self.supervisor.start(self.processes[name])


@pytest.fixture
def stack(bench, tmp_path):
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with Supervisor(tmp_path, {"PYTHONPATH": path}) as supervisor:
        stack = Stack(bench, supervisor, KeyFolder(tmp_path / "keys"))
        yield stack
        # What was not killed on purpose has lived through it all.
        assert set(supervisor.ended()) <= {"cloud_worker", "vla_policy"}


def playing_from(source: str, after_request: int = 0):
    def condition(watch) -> bool:
        executor = watch.executor
        return (
            executor.state == ExecutorState.PLAYING
            and executor.source == source
            and executor.request_id > after_request
        )

    return condition


def test_the_arm_outlives_the_worker_and_holds_without_a_policy(stack):
    stack.operator.instruct("close it")
    stack.until(playing_from("cloud"))

    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 200)
        stranger.connect(stack.endpoint)
        stranger.send_multipart([b"", b"\xff" * 100, os.urandom(1000)])
    stack.until(playing_from("cloud", stack.watch.executor.request_id))

    stack.supervisor.kill("cloud_worker")
    stack.until(lambda w: w.link.health == LinkStats.DOWN)
    stack.until(playing_from("edge", stack.watch.executor.request_id))

    stack.restart("cloud_worker")
    stack.until(lambda w: w.link.health == LinkStats.HEALTHY, START_S)
    stack.until(playing_from("cloud", stack.watch.executor.request_id))

    stack.supervisor.kill("vla_policy")
    stack.until(lambda w: w.executor.state == ExecutorState.STARVED)
    stack.until(lambda w: not any(w.executor.command[:3]))

    stack.restart("vla_policy")
    stack.until(playing_from("cloud", stack.watch.executor.request_id), START_S)
