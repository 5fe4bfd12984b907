"""What the link and the worker can do to a moving arm, one fault at a time.

Policy, partition manager and executor are the real nodes over real DDS, the worker is a process
of its own behind a TCP proxy. The clock of the robot is ours and stands still whenever this
process does, so that a busy machine looks like a slow one and not like a fault.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fault_proxy import Doubled, FaultProxy, Swapped
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from ros_vla_accel.msg import ExecutorState, PartitionDecision
from ros_vla_accel.nodes.action_executor import ActionExecutor
from ros_vla_accel.nodes.base import STATE_QOS
from ros_vla_accel.nodes.convert import to_ns, to_stamp
from ros_vla_accel.nodes.partition_manager import PartitionManager
from ros_vla_accel.nodes.vla_policy import VlaPolicy

PERIOD_NS = 50_000_000
NOTICED_S = 2.0
JOINTS = [*(f"right_j{i}" for i in range(7)), "r_close", "l_close"]
HERE = Path(__file__).parent


class WorkerProcess:
    """``ros-vla-accel cloud`` in plain text on loopback."""

    def __init__(self, factory: str = "make"):
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ros_vla_accel.cli", "cloud", "--insecure"),
                *("--bind", "tcp://127.0.0.1:*", "--policy", f"arm_policy:{factory}"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr is not None
        line = next(line for line in self.process.stderr if "ready on" in line)
        self.endpoint = line.split("ready on ")[1].split()[0]
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        self.process.kill()  # also a stopped one
        self.process.wait()


class Arm:
    """Clock, cameras and joints of a robot that is told to close its gripper."""

    def __init__(self, bench):
        probe = bench.probe
        self._now_ns = 10**9
        self._clock = probe.create_publisher(Clock, "/clock", 10)
        self._joints = probe.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._images = [
            probe.create_publisher(Image, f"camera/{name}/image_raw", qos_profile_sensor_data)
            for name in ("corner2", "gripperPOV")
        ]
        self._instruction = probe.create_publisher(String, "instruction", STATE_QOS)
        bench.every(0.01, self._advance)

    def instruct(self) -> None:
        self._instruction.publish(String(data="close it"))

    def _advance(self) -> None:
        self._now_ns += 10_000_000
        stamp = to_stamp(self._now_ns)
        self._clock.publish(Clock(clock=stamp))
        joints = JointState(name=JOINTS, position=[0.5] * len(JOINTS))
        joints.header.stamp = stamp
        self._joints.publish(joints)
        if self._now_ns % PERIOD_NS == 0:
            for publisher in self._images:
                image = Image(height=64, width=64, step=192, encoding="rgb8", data=bytes(12288))
                image.header.stamp = stamp
                publisher.publish(image)


class Stack:
    """The edge's nodes in this process, a worker, and the proxy between them."""

    def __init__(self, bench):
        self._bench = bench
        self.workers = [WorkerProcess()]
        self.proxy = FaultProxy(self.worker.endpoint)
        self.states = bench.listen(ExecutorState, "executor_state", 10)
        self.decisions = bench.listen(PartitionDecision, "partition_decision", STATE_QOS)
        self._arm = Arm(bench)
        # A clock that stands still with this process is no fault here.
        bench.start(ActionExecutor, use_sim_time=True, tick_timeout_s=30.0)
        link = {"cloud_endpoint": self.proxy.endpoint, "cloud_security": "insecure"}
        bench.start(PartitionManager, use_sim_time=True, **link)
        bench.start(VlaPolicy, use_sim_time=True, policy="arm_policy:make")
        self._arm.instruct()
        self.until_plays("cloud")

    @property
    def worker(self) -> WorkerProcess:
        return self.workers[-1]

    def replace_worker(self, factory: str = "make") -> None:
        self.workers.append(WorkerProcess(factory))
        self.proxy.target = self.worker.endpoint

    def until_plays(self, source: str) -> None:
        """A chunk of this source that was not in play before."""
        before = self.states[-1].request_id if self.states else 0

        def plays() -> bool:
            state = self.states[-1] if self.states else None
            return (
                state is not None
                and state.state == ExecutorState.PLAYING
                and state.source == source
                and state.request_id > before
            )

        self._bench.until(plays, 20.0)

    def until_route(self, route: int, timeout_s: float = 10.0) -> None:
        self._bench.until(lambda: self.decisions[-1].route == route, timeout_s)

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.proxy.close()


@pytest.fixture
def stack(bench):
    stack = Stack(bench)
    yield stack
    stack.close()


@dataclass(frozen=True)
class Fault:
    """begin, end: what happens to the stack. lasts_s: between them, beyond the time that the
    edge takes to take over. outage: whether the cloud is of no use meanwhile, and the decision
    says edge when the fault ends. silent: whether its end is its beginning, and only silence
    tells of it."""

    begin: Callable[[Stack], None]
    end: Callable[[Stack], None]
    lasts_s: float = 1.5
    outage: bool = True
    silent: bool = False


def _set(**values: object) -> Callable[[Stack], None]:
    return lambda stack: vars(stack.proxy).update(values)


def _kill(stack: Stack) -> None:
    stack.worker.send(signal.SIGKILL)


def _restart_other(stack: Stack) -> None:
    _kill(stack)
    stack.replace_worker("make_other")


def _restart(stack: Stack) -> None:
    _kill(stack)
    stack.replace_worker()


FAULTS = {
    "killed": Fault(_kill, Stack.replace_worker),
    "frozen": Fault(
        lambda stack: stack.worker.send(signal.SIGSTOP),
        lambda stack: stack.worker.send(signal.SIGCONT),
    ),
    "another policy": Fault(_restart_other, _restart),
    "cut for 10 s": Fault(_set(cut=True), _set(cut=False), lasts_s=10.0),
    "300 ms more": Fault(_set(delay_s=0.15), _set(delay_s=0.0), lasts_s=8.0),
    # New connections are fine at once.
    "half-open": Fault(
        lambda stack: None,
        lambda stack: stack.proxy.half_open(),
        lasts_s=0.0,
        outage=False,
        silent=True,
    ),
    "reordered": Fault(_set(mangle=Swapped()), _set(mangle=None), lasts_s=3.0, outage=False),
    "doubled": Fault(_set(mangle=Doubled()), _set(mangle=None), lasts_s=3.0, outage=False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_arm_plays_on_through_a_fault_and_the_cloud_returns(stack: Stack, name: str) -> None:
    fault = FAULTS[name]
    first = len(stack.states)
    fault.begin(stack)
    if fault.outage:
        stack.until_plays("edge")
        taken_over = len(stack.states)
        time.sleep(fault.lasts_s)
        stack.until_route(PartitionDecision.EDGE)
        assert {state.source for state in stack.states[taken_over:]} == {"edge"}
    else:
        time.sleep(fault.lasts_s)
    fault.end(stack)
    ended_s = time.monotonic()
    if fault.silent:
        stack.until_route(PartitionDecision.EDGE, NOTICED_S)
    stack.until_route(PartitionDecision.CLOUD, NOTICED_S - (time.monotonic() - ended_s))
    stack.until_plays("cloud")
    check(stack.states[first:])
    assert fault.outage or fault.silent or stack.proxy.mangled > 2


def check(states: list[ExecutorState]) -> None:
    """No gap, no stale row, nothing of another policy."""
    assert {state.state for state in states} <= {ExecutorState.PLAYING, ExecutorState.STARVED}
    assert states[-1].starved_ticks - states[0].starved_ticks <= 1
    playing = [state for state in states if state.state == ExecutorState.PLAYING]
    stamps = [to_ns(state.chunk_stamp) for state in playing]
    assert stamps == sorted(stamps), "never back to an older observation"
    for state, stamp_ns in zip(playing, stamps, strict=True):
        late_ns = to_ns(state.header.stamp) - stamp_ns - state.row * PERIOD_NS
        assert 0 <= late_ns < PERIOD_NS, f"row {state.row} was played {late_ns} ns after its time"
    closing = np.array([state.command[3] for state in playing])
    np.testing.assert_allclose(closing, 1.0, atol=1e-6)
