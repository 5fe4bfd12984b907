"""``ros-vla-accel calibrate``: DyQ-VLA's constants and RAPID's thresholds for one policy.

Episodes in closed loop give the motion and, by running each inference at every width, the errors.
Single steps executed wrongly, with the policy going on from there, give how much an error matters
(arXiv:2603.07904): s_t = D_T / e_t. The YAML is for the `calibration` parameter of the nodes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ros_vla_accel.contracts import Policy
from ros_vla_accel.experiments.calibration_fit import CRITICAL_SHARE, ERROR_SHARE, Fit, fit
from ros_vla_accel.experiments.calibration_plots import save_plots
from ros_vla_accel.experiments.evaluate import REFERENCE, PolicyChoice
from ros_vla_accel.experiments.motion_probe import MotionProbe, Recording
from ros_vla_accel.experiments.statistics import check_writable, write_json
from ros_vla_accel.policies import PolicyLoadError
from ros_vla_accel.policies.loader import policy_arguments
from ros_vla_accel.precision import Calibration, PrecisionConfig
from ros_vla_accel.sim.env import TASKS, full_task_name

SOURCES = ("fk", "action", "joint")
FIRST_SEED = 200_000
"""Scenes that neither training (from 100,000) nor evaluation (from 0) uses."""

_loaded: Policy | None = None
_probe: tuple[str, MotionProbe] | None = None


def _start_worker(choice: PolicyChoice) -> None:
    global _loaded
    _loaded = choice.load()


def _record(task: str, seed: int, probes: int, directions: int, source: str) -> Recording:
    """One episode, in the worker's env for this task."""
    global _probe
    assert _loaded is not None
    if _probe is None or _probe[0] != task:
        if _probe is not None:
            _probe[1].close()
        _probe = task, MotionProbe(_loaded, task, source)
    return _probe[1].record(seed, probes, directions, lambda: None)


def _close_worker_env() -> None:
    if _probe is not None:
        _probe[1].close()


def record_all(
    choice: PolicyChoice,
    tasks: Sequence[str],
    episodes: int,
    probes: int,
    directions: int,
    source: str,
    workers: int,
) -> Iterator[Recording]:
    """Recordings of the seeds from ``FIRST_SEED`` on of every task, as they are done."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (choice,)) as pool:
        pending = [
            pool.submit(_record, task, FIRST_SEED + i, probes, directions, source)
            for task in tasks
            for i in range(episodes)
        ]
        for future in as_completed(pending):
            yield future.result()
        for future in [pool.submit(_close_worker_env) for _ in range(workers)]:
            future.result()


def summary(found: Fit) -> dict[str, float]:
    """Figures of a fit, as ``--json`` writes them."""
    config = found.precision
    return {
        "lambda": config.lambda_,
        "mu95": config.mu95,
        "nu95": config.nu95,
        "theta_fp": config.theta_fp,
        "fall_steps": config.fall_steps,
        "tolerance_mm": 1e3 * found.tolerance_m,
        **{f"correlation_{name}": r for name, r in found.correlation.items()},
        **found.triggers,
    }


def measured(found: Fit, recordings: Sequence[Recording]) -> dict[str, Any]:
    """What a person wants to know of a calibration file."""
    rows = {
        f"error_{bits}_bits": [round(float(e), 4) for e in errors]
        for bits, errors in found.errors.items()
    }
    return {
        "tasks": sorted({r.task.removesuffix("-v3") for r in recordings}),
        "episodes": len(recordings),
        "successes": sum(r.success for r in recordings),
        "probed_steps": len(found.probes),
        "rank_correlation": {k: round(r, 3) for k, r in found.correlation.items()},
        "tolerance_m": round(found.tolerance_m, 5),
        "error_quantile": ERROR_SHARE,
        "critical_share": CRITICAL_SHARE,
        "rows_up_to": [round(float(edge), 3) for edge in found.edges[1:]],
        "inferences": found.counts.tolist(),
        "allowed_error": [round(float(a), 4) for a in found.allowed],
        **rows,
    }


def _table(found: Fit) -> Table:
    table = Table(caption="errors and eps_a as shares of full scale; errors: 95th percentile")
    table.add_column("sensitivity up to", no_wrap=True)
    for name in ("inferences", "eps_a", *(f"{bits} bits" for bits in found.errors), "chosen"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, edge in enumerate(found.edges[1:]):
        rows = (bits for largest, bits in found.precision.table if edge <= largest + 1e-6)
        chosen = next(rows, 16)
        errors = (f"{errors[row]:.3g}" for errors in found.errors.values())
        cells = (str(found.counts[row]), f"{found.allowed[row]:.3g}", *errors, str(chosen))
        table.add_row(f"{edge:.2f}", *cells)
    table.add_row("above", "", "", *("" for _ in found.errors), "16")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros-vla-accel calibrate", description=__doc__)
    parser.add_argument("--policy", default=REFERENCE, help="module:factory")
    parser.add_argument("--policy-args", help="YAML file of the factory's arguments")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="all by default")
    parser.add_argument("--episodes", type=int, default=6, help="per task")
    parser.add_argument("--probes", type=int, default=8, help="steps of each that are perturbed")
    parser.add_argument("--directions", type=int, default=3, help="perturbations of a step")
    parser.add_argument(
        "--source", default="fk", choices=SOURCES, help="of the motion, as the nodes will use it"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("calibration.yaml"), help="YAML")
    parser.add_argument("--plots", type=Path, help="folder for the pictures")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        tasks = [full_task_name(task) for task in args.tasks]
        for option in ("episodes", "probes", "directions", "workers"):
            if getattr(args, option) < 1:
                raise ValueError(f"--{option} {getattr(args, option)} must be at least 1")
        for path in filter(None, (args.out, args.json)):
            check_writable(path)
        arguments = policy_arguments(args.policy_args)
        if args.policy == REFERENCE:
            arguments.setdefault("quantize", "w4ax")
        choice = PolicyChoice(args.policy, arguments, 1)
        spec = choice.load().spec
        if len(spec.widths) < 2:
            raise ValueError(
                f"policy '{spec.name}' runs at {spec.widths[0]} bits only, so there is nothing "
                "to calibrate; quantize it (quantize: w4ax among its arguments)"
            )
        recordings = []
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("episodes", total=len(tasks) * args.episodes)
            todo = (choice, tasks, args.episodes, args.probes, args.directions, args.source)
            for recording in record_all(*todo, args.workers):
                recordings.append(recording)
                progress.advance(bar)
        # As they were asked for, so that the same seeds give the same file.
        recordings.sort(key=lambda r: (tasks.index(r.task), r.seed))
        base = PrecisionConfig(period_s=spec.period_s)
        found = fit(recordings, base, spec.replan_rows)
    except (PolicyLoadError, ValueError) as error:
        print(f"ros-vla-accel calibrate: {error}", file=sys.stderr)
        return 1
    facts = measured(found, recordings)
    Calibration(
        spec.name, spec.identity, args.source, found.precision, found.triggers, facts
    ).save(args.out)
    console = Console()
    console.print(_table(found))
    for key, value in summary(found).items():
        console.print(f"{key}: {value:.4g}")
    console.print(f"wrote {args.out}")
    if args.plots:
        for path in save_plots(args.plots, found, recordings):
            console.print(f"wrote {path}")
    if args.json:
        config = {
            "policy": args.policy,
            "policy_args": arguments,
            "identity": spec.identity,
            "source": args.source,
            "first_seed": FIRST_SEED,
            "probes": args.probes,
            "directions": args.directions,
        }
        rows = [
            {
                "task": r.task,
                "seed": r.seed,
                "success": r.success,
                "steps": len(r.actions),
                "probed": r.probed,
                "sensitivity_m": r.sensitivity,
                "noise_m": r.noise,
                "errors": {str(b): np.round(e, 5).tolist() for b, e in r.errors.items()},
            }
            for r in recordings
        ]
        write_json(args.json, "calibrate", {**config, "measured": facts}, rows, summary(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
