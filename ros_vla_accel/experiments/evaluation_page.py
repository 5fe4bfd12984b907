"""The evaluation that ends a training run, and its table in a Markdown page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ros_vla_accel.experiments.closed_loop import Condition, mean
from ros_vla_accel.experiments.evaluate import PolicyChoice, evaluate, summarize
from ros_vla_accel.experiments.perturbation import BRIGHT, DARK, NOISE_LEVELS, TINT
from ros_vla_accel.experiments.statistics import write_json, write_whole
from ros_vla_accel.policies.instructions import PARAPHRASES
from ros_vla_accel.policies.reference_policy import DEFAULT_STEPS
from ros_vla_accel.sim.env import MAX_STEPS

CONDITIONS = {
    "plain": (Condition(), 1.0),
    "wording": (Condition(wording="unseen"), 1.0),
    "noise": (Condition(perturbation="noise"), 0.5),
    "brightness": (Condition(perturbation="brightness"), 0.5),
    "colour": (Condition(perturbation="colour"), 0.5),
    "late": (Condition(latency_s=0.1), 0.25),
}
"""Name -> condition, and the share of the episodes that it gets; all start at the same seed."""
COLUMNS = {
    "wording": "unseen wording",
    "noise": "noise",
    "brightness": "brightness",
    "colour": "colour",
    "late": "100 ms late",
}
BEGIN = "<!-- evaluation, written by ros-vla-accel train: begin -->"
END = "<!-- evaluation: end -->"

Rows = dict[str, list[dict[str, Any]]]
"""Condition -> a row per task, as in the JSON of ``eval``."""


def evaluate_checkpoint(
    checkpoint: Path,
    folder: Path,
    tasks: Sequence[str],
    episodes: int,
    workers: int,
    progress: Progress,
) -> Rows:
    """Runs every condition; writes ``evaluation-NAME.json`` and takes up what is there already.

    episodes: per task under the plain condition.
    """
    choice = PolicyChoice(arguments={"checkpoint": str(checkpoint)}, threads=1)
    digest, setting = choice.load().spec.checkpoint_hash, _setting()
    found: Rows = {}
    for name, (condition, share) in CONDITIONS.items():
        count = max(1, round(share * episodes))
        config = {
            "checkpoint_hash": digest,
            "setting": setting,
            "tasks": [task.removesuffix("-v3") for task in tasks],
            "episodes": count,
            **asdict(condition),
        }
        path = folder / f"evaluation-{name}.json"
        if not path.exists() or json.loads(path.read_text())["config"] != config:
            bar = progress.add_task(f"evaluation, {name}", total=count * len(tasks))
            results = evaluate(
                choice,
                tasks,
                count,
                condition,
                workers=workers,
                progress=lambda done, bar=bar: progress.advance(bar, done),  # type: ignore[misc]
            )
            write_json(path, "eval", config, [r.row() for r in results], summarize(results))
        found[name] = json.loads(path.read_text())["rows"]
    return found


def _setting() -> str:
    """Digest of what else decides an outcome, so that no result of another setting is taken up."""
    content = repr((PARAPHRASES, NOISE_LEVELS, DARK, BRIGHT, TINT, MAX_STEPS, DEFAULT_STEPS))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def change(rows: dict[str, Any], plain: dict[str, Any]) -> float:
    """Points of success gained over the plain condition, on the seeds that both ran."""
    shared = rows["outcomes"], plain["outcomes"][: rows["episodes"]]
    return 100 * (sum(shared[0]) - sum(shared[1])) / rows["episodes"]


def markdown(found: Rows) -> str:
    """One table: success of each task, and what every condition changes of it."""
    titles = ["task", "success", "95 % (Wilson)", "expert", "relative", *COLUMNS.values()]
    titles += ["actions, mean", "jump at seams, mean / largest"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for index, plain in enumerate(found["plain"]):
        others = [found[name][index] for name in COLUMNS]
        cells = [
            plain["task"],
            f"{plain['successes']}/{plain['episodes']}",
            f"{100 * plain['success_low']:.0f}-{100 * plain['success_high']:.0f} %",
            f"{sum(plain['expert_outcomes'])}/{plain['episodes']}",
            "-" if plain["relative_to_expert"] is None else f"{plain['relative_to_expert']:.0%}",
            *(f"{o['successes']}/{o['episodes']} ({change(o, plain):+.0f})" for o in others),
            f"{plain['steps_mean']:.0f}",
            _jumps(plain),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    plains = found["plain"]
    totals = [mean(list(map(change, found[name], plains))) for name in COLUMNS]
    rate = mean([row["success_rate"] for row in plains])
    cells = ["**mean**", f"{rate:.1%}", "", "", "", *(f"({t:+.1f})" for t in totals), "", ""]
    lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _jumps(row: dict[str, Any]) -> str:
    if row["seam_jump_max_m_s"] is None:
        return "-"
    return f"{100 * row['seam_jump_mean_m_s']:.1f} / {100 * row['seam_jump_max_m_s']:.0f} cm/s"


def check_page(path: Path) -> None:
    """ValueError unless the table can be written into ``path``: a new file, or one with marks."""
    if path.is_dir():
        raise ValueError(f"page '{path}' is a folder; name a file in it")
    if path.exists() and not (BEGIN in (text := path.read_text()) and END in text):
        raise ValueError(
            f"'{path}' has no place for the evaluation; put the lines '{BEGIN}' and '{END}' there"
        )


def write_page(path: Path, text: str) -> None:
    """Writes ``text`` between the marks of ``path``, or a new file. Raises as ``check_page``."""
    check_page(path)
    block = f"{BEGIN}\n{text}\n{END}\n"
    if path.exists():
        page = path.read_text()
        before, _, rest = page.partition(BEGIN)
        block = before + block + rest.partition(END)[2].removeprefix("\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, block)
