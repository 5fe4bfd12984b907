from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from ros_vla_accel.experiments import evaluation_page
from ros_vla_accel.experiments.closed_loop import TaskResult
from ros_vla_accel.experiments.evaluation_page import (
    BEGIN,
    CONDITIONS,
    END,
    change,
    evaluate_checkpoint,
    markdown,
    write_page,
)
from ros_vla_accel.policies.random_policy import SHIPPED


def row(outcomes: list[int]) -> dict[str, Any]:
    episodes = len(outcomes)
    result = TaskResult("door-open-v3", list(range(episodes)), [bool(o) for o in outcomes])
    result.expert_successes = [True] * episodes
    result.steps = [50] * episodes
    result.seam_jumps_m_s = [0.02, 0.04]
    return result.row()


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """No simulator; the conditions that were run, and with how many episodes."""
    runs: list[tuple[str, int]] = []

    def evaluate(
        choice: object, tasks: list[str], episodes: int, condition: object, **_: object
    ) -> list[TaskResult]:
        name = next(n for n, (c, _) in CONDITIONS.items() if c == condition)
        runs.append((name, episodes))
        result = TaskResult(tasks[0], list(range(episodes)), [True] * episodes)
        result.expert_successes, result.steps = [True] * episodes, [50] * episodes
        return [result]

    monkeypatch.setattr(evaluation_page, "evaluate", evaluate)
    return runs


def test_change_compares_the_seeds_that_both_ran() -> None:
    plain = row([1, 0, 1, 1, 0, 0, 0, 0])
    assert change(row([1, 1, 1, 1]), plain) == 25.0
    assert change(row([0, 0, 1, 1]), plain) == -25.0


def test_the_table_has_a_line_per_task_and_one_for_the_mean() -> None:
    found = {name: [row([1, 1, 0, 1])] for name in CONDITIONS}
    lines = markdown(found).splitlines()
    assert lines[2].startswith("| door-open | 3/4 | 30-95 % | 4/4 | 75% | 3/4 (+0) |")
    assert "3.0 / 4 cm/s" in lines[2]
    assert lines[3].startswith("| **mean** | 75.0% |")
    assert len({line.count("|") for line in lines}) == 1


def test_every_condition_is_run_once_and_taken_up_after_an_interruption(
    evaluated: list[tuple[str, int]], tmp_path: Path
) -> None:
    with Progress(disable=True) as progress:
        given = (SHIPPED, tmp_path, ["door-open-v3"], 4, 1, progress)
        evaluate_checkpoint(*given)
        assert evaluated == [(n, round(4 * share)) for n, (_, share) in CONDITIONS.items()]
        (tmp_path / "evaluation-noise.json").unlink()
        found = evaluate_checkpoint(*given)
    assert evaluated[len(CONDITIONS) :] == [("noise", 2)]
    assert set(found) == set(CONDITIONS)


def test_results_of_another_checkpoint_are_not_taken_up(
    evaluated: list[tuple[str, int]], tmp_path: Path
) -> None:
    with Progress(disable=True) as progress:
        given = (SHIPPED, tmp_path, ["door-open-v3"], 2, 1, progress)
        evaluate_checkpoint(*given)
        path = tmp_path / "evaluation-plain.json"
        content = json.loads(path.read_text())
        content["config"]["checkpoint_hash"] = "another"
        path.write_text(json.dumps(content))
        evaluated.clear()
        evaluate_checkpoint(*given)
    assert evaluated == [("plain", 2)]


def test_results_of_other_perturbations_are_not_taken_up(
    evaluated: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress(disable=True) as progress:
        given = (SHIPPED, tmp_path, ["door-open-v3"], 2, 1, progress)
        evaluate_checkpoint(*given)
        evaluated.clear()
        monkeypatch.setattr(evaluation_page, "NOISE_LEVELS", 30.0)
        evaluate_checkpoint(*given)
    assert [name for name, _ in evaluated] == list(CONDITIONS)


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    write_page(page, "new")
    write_page(page, "newer")
    assert page.read_text() == f"# Before\n\n{BEGIN}\nnewer\n{END}\n\nAfter\n"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n")
    with pytest.raises(ValueError, match="has no place for the evaluation"):
        write_page(page, "new")
    assert page.read_text() == "# Mine\n"
