"""Replicas of a policy on Ray Serve (extra ``ray``), on this machine or on those of a cluster.

The ZeroMQ front end stays where it is; only batches travel. Each replica takes one batch at a
time, and an answer has no effect before it is sent to its robot, so a batch whose replica dies is
computed by another, as long as somebody waits for it. Serve restarts what died.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ros_vla_accel.cloud.backend import Backend, BackendError, EpisodePolicy
from ros_vla_accel.contracts import ActionChunk, InferenceRequest, PolicySpec
from ros_vla_accel.policies.loader import load_policy

logger = logging.getLogger(__name__)

_LONGEST_S = 30.0
"""A batch waits no longer, whatever its robots allow: a policy may hang."""
_POLL_S = 0.5
_SILENT_S = 5.0
"""A cluster that says nothing for so long counts as gone."""
_SAY_EVERY_S = 10.0
_DEPLOYMENT = "policy"


class RayError(RuntimeError):
    """Replicas cannot be had; the text says why and what to do."""


@dataclass(frozen=True)
class RayConfig:
    """name: of the front end, unique on the cluster and the same after its restart.

    replicas: processes with the policy each, and batches in flight.
    address: of a running cluster, as ``ray.init`` takes it; None starts one on this machine,
        which ends with this process and listens on loopback.
    cpus, gpus: of each replica. Ray grants them; cpus also bounds its OMP threads.
    """

    name: str
    replicas: int = 1
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


class Replica:
    """The policy in a process of its own; Serve calls it.

    Raises what ``load_policy`` raises, and RayError when the policy found on its machine is not
    the announced one: such a replica never gets a request.
    """

    def __init__(self, policy: str, arguments: Mapping[str, Any], identity: str):
        loaded = load_policy(policy, arguments)
        self._spec = loaded.spec
        self._policy = EpisodePolicy(loaded)
        self._check(identity)

    def infer(
        self, identity: str, robots: list[bytes], requests: list[InferenceRequest]
    ) -> list[ActionChunk] | tuple[str, str]:
        """The answers, or code and text of a ``BackendError``: an exception of the policy's own
        class need not be known to the front end."""
        try:
            self._check(identity)
        except RayError as error:
            return ("unavailable", str(error))
        try:
            return self._policy.infer(robots, requests)
        except Exception as error:
            logger.exception("the policy failed")
            return ("policy", f"{type(error).__name__}: {error}")

    def _check(self, identity: str) -> None:
        ours = self._spec.identity
        if ours != identity:
            raise RayError(
                f"replica on {socket.gethostname()} loaded policy '{self._spec.name}' with hash "
                f"'{ours:.12}', the worker announced '{identity:.12}': the same checkpoint must "
                "lie on every machine"
            )


class RayBackend(Backend):
    """Serves as soon as one replica runs; the others join while it works.

    Raises RayError when there is no cluster or the policy cannot be loaded there.
    """

    def __init__(self, policy: str, arguments: Mapping[str, Any], config: RayConfig):
        self.lanes = config.replicas
        self._config = config
        self._name = f"ros_vla_accel {config.name}"
        self._running = 0
        self._trouble = ""
        self._heard_s = time.monotonic()
        self._closing = threading.Event()
        self._look_now = threading.Event()
        self._ray = _connect(config)
        serve = self._serve = self._ray.serve
        try:
            serve.start(proxy_location="Disabled")
            if self._name in serve.status().applications:
                logger.warning("ending the replicas of an earlier worker '%s'", config.name)
                serve.delete(self._name)  # it was killed, and they hold what ours need
            self.spec = _describe(self._ray, policy, arguments, config)
            deployment = serve.deployment(
                Replica,
                name=_DEPLOYMENT,
                num_replicas=config.replicas,
                max_ongoing_requests=1,
                health_check_period_s=1.0,
                health_check_timeout_s=3.0,  # three times: replaced ten seconds after it froze
                graceful_shutdown_timeout_s=2.0,
                ray_actor_options={"num_cpus": config.cpus, "num_gpus": config.gpus},
                logging_config={"enable_access_log": False, "log_level": "WARNING"},
            )
            application = deployment.bind(policy, dict(arguments), self.spec.identity)
            target = serve.RunTarget(application, name=self._name, route_prefix=None)
            self._handle = serve.run_many([target], wait_for_applications_running=False)[0]
            self._wait_for_first()
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._watch, name="worker-replicas", daemon=True)
        self._thread.start()

    def _wait_for_first(self) -> None:
        said_s = time.monotonic()
        while not (running := self._look()):
            if self._trouble.startswith("DEPLOY_FAILED"):
                raise RayError(f"no replica could start: {self._trouble}")
            if time.monotonic() - said_s > _SAY_EVERY_S:
                said_s = time.monotonic()
                logger.info("waiting for the first replica: %s", self._trouble or "starting")
            time.sleep(0.1)
        self._running = running

    def _look(self) -> int:
        """Replicas that run, as far as Serve's controller knows."""
        application = self._serve.status().applications.get(self._name)
        self._heard_s = time.monotonic()
        seen = None if application is None else application.deployments.get(_DEPLOYMENT)
        if seen is None:
            return 0
        states = {getattr(state, "value", state): n for state, n in seen.replica_states.items()}
        failed = application.status.value == "DEPLOY_FAILED"
        text = _last_line(seen.message)
        self._trouble = f"DEPLOY_FAILED: {text}" if failed else text
        return int(states.get("RUNNING", 0))

    def _watch(self) -> None:
        said = (0, "")
        while not self._closing.is_set():
            try:
                self._running = self._look()
            except Exception as error:  # the controller restarts, or the cluster is gone
                self._running, self._trouble = 0, f"{type(error).__name__}: {error}"
            if (self._running, self._trouble) != said:
                said = (self._running, self._trouble)
                level = logging.INFO if self._running == self._config.replicas else logging.WARNING
                logger.log(
                    level, "%d of %d replicas run %s", said[0], self._config.replicas, said[1]
                )
            self._look_now.wait(_POLL_S)
            self._look_now.clear()

    def problem(self) -> str:
        if time.monotonic() - self._heard_s > _SILENT_S:
            return "the Ray cluster does not answer"
        if self._running:
            return ""
        return f"none of {self._config.replicas} replicas runs {self._trouble}".rstrip()

    def infer(
        self, robots: Sequence[bytes], requests: Sequence[InferenceRequest], deadline_s: float
    ) -> list[ActionChunk]:
        end_s = min(deadline_s, time.monotonic() + _LONGEST_S)
        identity = self.spec.identity
        while (left_s := end_s - time.monotonic()) > 0:
            response = None
            try:
                response = self._handle.infer.remote(identity, list(robots), list(requests))
                answer = response.result(timeout_s=left_s)
                self._heard_s = time.monotonic()
            except self._ray.exceptions.RayActorError:
                self._look_now.set()
                time.sleep(0.01)  # until Serve offers another
            except TimeoutError:
                if response is not None:
                    response.cancel()
                break
            except Exception as error:  # of Ray's: the policy's own come as answers
                raise BackendError("unavailable", f"{type(error).__name__}: {error}") from error
            else:
                if isinstance(answer, tuple):
                    raise BackendError(*answer)
                return list(answer)
        if problem := self.problem():
            raise BackendError("unavailable", problem)
        raise BackendError("expired", "no replica answered before the deadline")

    def close(self) -> None:
        self._closing.set()
        self._look_now.set()
        if self._config.address is not None:
            try:
                self._serve.delete(self._name, _blocking=False)
            except Exception as error:
                logger.warning("replicas of %s may still run: %s", self._name, error)
        self._ray.shutdown()  # and with it a cluster of our own


def _connect(config: RayConfig) -> Any:
    """The module ``ray``, connected, with ``ray.serve``."""
    # Before Ray is imported, because it reads them only then. No statistics leave this machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if config.address is None:
        # A cluster of one machine on loopback, as Ray does it by itself elsewhere than on Linux.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.serve")
    except ImportError as error:
        raise RayError(
            f"--backend ray needs Ray Serve ({error}); pip install 'ros_vla_accel[ray]'"
        ) from error
    cpus = math.ceil(config.replicas * config.cpus)
    local = {"num_cpus": max(cpus, os.cpu_count() or 1), "include_dashboard": False}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address=config.address or "local",
            logging_level=logging.WARNING,
            **({} if config.address else local),
        )
    except Exception as error:
        where = config.address or "on this machine"
        raise RayError(f"no Ray cluster {where}: {error}") from error
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ray has put its own in their place
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return ray


def _describe(
    ray: Any, policy: str, arguments: Mapping[str, Any], config: RayConfig
) -> PolicySpec:
    """What the policy is where the replicas will run: this machine need not be able to load it.

    The process that loads it for this ends with it, and gives its memory back.
    """
    task = ray.remote(num_cpus=config.cpus, num_gpus=config.gpus, max_calls=1, max_retries=0)(
        _load_spec
    )
    answer = task.remote(policy, dict(arguments))
    while not ray.wait([answer], timeout=_SAY_EVERY_S)[0]:
        logger.info(
            "waiting for the policy's description: the cluster needs %g CPUs and %g GPUs free "
            "for each replica",
            config.cpus,
            config.gpus,
        )
    try:
        spec: PolicySpec = ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        raise RayError(str(error.cause or error)) from None
    return spec


def _load_spec(policy: str, arguments: Mapping[str, Any]) -> PolicySpec:
    return load_policy(policy, arguments).spec


def _last_line(text: str) -> str:
    """Of a traceback that Serve passes on: what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
