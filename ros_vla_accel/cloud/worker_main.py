"""``ros-vla-accel cloud``: serves a policy to robots until it is interrupted."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

from ros_vla_accel.cloud.backend import Backend, InProcess
from ros_vla_accel.cloud.batching import BatchConfig
from ros_vla_accel.cloud.keys import KeyFileError, KeyFolder
from ros_vla_accel.cloud.metrics import serve_metrics
from ros_vla_accel.cloud.ray_backend import RayBackend, RayConfig, RayError
from ros_vla_accel.cloud.worker import Worker, WorkerError
from ros_vla_accel.engines import ENGINES, EngineChoice
from ros_vla_accel.policies.loader import PolicyLoadError, policy_arguments

logger = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Exit status 0 after SIGINT or SIGTERM, 1 when policy, keys or endpoint cannot be had."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="[%(levelname)s] [cloud]: %(message)s"
    )
    ready, interrupted = threading.Event(), threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            os._exit(1)  # asked twice: whoever asks does not want to wait for the rest
        interrupted.set()
        if not ready.is_set():
            raise KeyboardInterrupt  # loading a policy takes seconds, and can just be abandoned

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    backend: Backend | None = None
    try:
        batch = BatchConfig(
            max_batch=arguments.max_batch,
            max_wait_s=1e-3 * arguments.max_wait_ms,
            max_waiting=arguments.max_waiting,
        )
        insecure = arguments.insecure or arguments.insecure_any
        keys = None if insecure else KeyFolder(arguments.keys)
        if keys is not None:
            keys.pair("worker")  # before the policy takes its time
        backend = _backend(arguments)
        metrics = serve_metrics(arguments.metrics, backend.spec)
        try:
            worker = Worker(
                backend,
                arguments.bind,
                keys=keys,
                insecure_any=arguments.insecure_any,
                batch=batch,
                on_batch=None if metrics is None else metrics.on_batch,
            )
            if metrics is not None:
                metrics.watch(worker.stats)
            ready.set()
            return _serve(worker, backend, interrupted, arguments.drain)
        finally:
            if metrics is not None:
                metrics.close()
    except KeyFileError as error:
        logger.error("%s (or plain text on this machine alone: --insecure)", error)
        return 1
    except (PolicyLoadError, RayError, WorkerError, ValueError) as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        if backend is not None:
            backend.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _backend(arguments: argparse.Namespace) -> Backend:
    if arguments.backend == "process":
        wanted = [name for name in ("replicas", "ray_address", "gpus") if getattr(arguments, name)]
        if wanted:
            raise ValueError(f"--{wanted[0].replace('_', '-')} needs --backend ray")
        _limit_threads_before_import(arguments.threads)
        engine = EngineChoice(arguments.engine, arguments.engine_dir, arguments.engine_fallback)
        policy = engine.load(arguments.policy, arguments.policy_args, arguments.threads)
        _limit_threads(arguments.threads)
        return InProcess(policy)
    if arguments.engine != "torch":
        raise ValueError(
            "--engine needs --backend process; on Ray, --policy ros_vla_accel.engines:exported "
            "with engine, engine_dir and threads in --policy-args does the same"
        )
    name = f"{socket.gethostname()} {arguments.bind}"
    config = RayConfig(
        name=name.replace("*", f"any of process {os.getpid()}"),
        replicas=arguments.replicas or 1,
        address=arguments.ray_address,
        cpus=arguments.threads or 1,
        gpus=arguments.gpus or 0.0,
    )
    return RayBackend(arguments.policy, policy_arguments(arguments.policy_args), config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros-vla-accel cloud", description=__doc__)
    parser.add_argument(
        "--policy",
        default="ros_vla_accel.policies:reference",
        metavar="MODULE:FACTORY",
        help="function that makes the policy (default: %(default)s)",
    )
    parser.add_argument(
        "--policy-args", metavar="YAML", help="file with the function's keyword arguments"
    )
    parser.add_argument("--engine", default="torch", choices=ENGINES, help="what runs the policy")
    parser.add_argument(
        "--engine-dir", default="", metavar="DIR", help="folder that `ros-vla-accel export` wrote"
    )
    parser.add_argument(
        "--engine-fallback", action="store_true", help="torch when the engine cannot be had"
    )
    parser.add_argument(
        "--bind",
        default="tcp://127.0.0.1:5555",
        metavar="ENDPOINT",
        help="where robots reach it; port * takes any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="CPU threads of an inference (default: what the policy's library takes)",
    )
    _add_ray(parser)
    limits = BatchConfig()
    parser.add_argument(
        "--max-batch",
        type=_positive,
        default=limits.max_batch,
        metavar="N",
        help="most requests in one inference (default: %(default)s)",
    )
    parser.add_argument(
        "--max-wait-ms",
        type=float,
        default=1e3 * limits.max_wait_s,
        metavar="MS",
        help="how long a request may wait for others to share an inference (default: %(default)s)",
    )
    parser.add_argument(
        "--max-waiting",
        type=_positive,
        default=limits.max_waiting,
        metavar="N",
        help="robots in the queue, above which others are told 'busy' (default: %(default)s)",
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds for requests that wait when it is told to end (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics",
        metavar="[HOST:]PORT",
        help="serve Prometheus metrics here, on loopback unless a host is given",
    )
    parser.add_argument(
        "--keys",
        metavar="DIR",
        help="folder of worker.key and the robots allowed, see `ros-vla-accel keys --help`",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="no keys: plain text, on this machine alone"
    )
    parser.add_argument(
        "--insecure-any",
        action="store_true",
        help="no keys, and other machines may reach it: anyone can read and use it",
    )
    return parser


def _add_ray(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=("process", "ray"),
        default="process",
        help="where the policy runs: in this process, or in replicas on Ray Serve "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--replicas", type=_positive, metavar="N", help="policies on Ray (default: 1)"
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of a running cluster, or 'auto' (default: one of its own, on this machine alone)",
    )
    parser.add_argument(
        "--gpus",
        type=float,
        metavar="SHARE",
        help="of a GPU for each replica; without it Ray shows it none (default: 0)",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _limit_threads_before_import(threads: int | None) -> None:
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)


def _limit_threads(threads: int | None) -> None:
    """Torch, when the policy brought it, may have been imported before the variables were set."""
    torch = sys.modules.get("torch")
    if threads is not None and torch is not None:
        torch.set_num_threads(threads)


def _serve(worker: Worker, backend: Backend, interrupted: threading.Event, drain_s: float) -> int:
    worker.start()
    spec = worker.spec
    logger.info("ready on %s policy %s hash %s", worker.endpoint, spec.name, spec.identity)
    # Not Event.wait: the signal's handler runs on this thread and would set what it waits in.
    while not interrupted.is_set():
        time.sleep(0.05)
        if not worker.is_alive:
            logger.error("a thread of the worker failed")
            return 1
    logger.info("ending; %d requests wait", worker.stats().waiting)
    ended = worker.stop(drain_s)
    logger.info("ended: %s", worker.stats())
    if not ended:
        # The interpreter's own shutdown can crash while another thread is in native code.
        logger.warning("an inference is still running; leaving without it")
        backend.close()
        logging.shutdown()
        os._exit(0)
    return 0
