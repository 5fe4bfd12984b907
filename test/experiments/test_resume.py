"""A run that ends at any moment goes on as if it had not, or says why it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ros_vla_accel.experiments import train
from ros_vla_accel.experiments.collect import Episode
from ros_vla_accel.experiments.train import main, run
from ros_vla_accel.experiments.train_config import SHARES, TrainConfig
from ros_vla_accel.experiments.trainer import Trainer
from ros_vla_accel.policies.checkpoint import load_checkpoint

CONFIG = TrainConfig(
    tasks=("drawer-open-v3",),
    episodes=2,
    rounds=1,
    dagger_episodes=1,
    steps=4,
    batch=4,
    threads=torch.get_num_threads(),
    size={
        "width": 16,
        "heads": 2,
        "backbone_layers": 1,
        "blocks": 1,
        "experts": 2,
        "experts_per_token": 1,
        "expert_hidden": 8,
    },
)


@pytest.fixture(autouse=True)
def collected(
    monkeypatch: pytest.MonkeyPatch, episode: Callable[..., Episode]
) -> list[tuple[int, int | None]]:
    """Episodes come from no simulator; first seed and step of the policy of every round."""
    rounds: list[tuple[int, int | None]] = []

    def collect(
        folder: Path, seeds: dict[str, Sequence[int]], checkpoint: Path | None, workers: int
    ) -> Iterator[int]:
        step = load_checkpoint(checkpoint)[1].training["step"] if checkpoint else None
        rounds.append((next(iter(seeds.values()))[0], step))
        folder.mkdir(parents=True, exist_ok=True)
        for task, numbers in seeds.items():
            for seed in numbers:
                episode(task, 10, seed).save(folder / f"{task}-{seed}.npz")
                yield 1

    monkeypatch.setattr(train, "collect", collect)
    return rounds


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder)[0].state_dict()


def assert_same_weights(first: Path, second: Path) -> None:
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = run(CONFIG, tmp_path / "unbroken", None)
    folder = tmp_path / "broken"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ros_vla_accel.experiments.trainer.SAVE_EVERY_STEPS", 1)
        log, taken = Trainer._log, []

        def killed(self: Trainer, losses: dict[str, float], seconds: float) -> None:
            taken.append(self.step)
            log(self, losses, seconds)
            if len(taken) == 4:
                raise KeyboardInterrupt

        patch.setattr(Trainer, "_log", killed)
        with pytest.raises(KeyboardInterrupt):
            run(CONFIG, folder, None)
    assert torch.load(folder / "state.pt", weights_only=True)["step"] == 3
    assert_same_weights(run(CONFIG, folder, None), unbroken)
    steps = [line.split(",")[0] for line in (folder / "log.csv").read_text().splitlines()]
    assert steps == ["step", "1", "2", "3", "4"]


@pytest.mark.parametrize("export", [1, 2])
def test_a_run_killed_between_its_state_and_its_export_goes_on_with_the_right_weights(
    export: int,
    tmp_path: Path,
    collected: list[tuple[int, int | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, exports, save = tmp_path / "run", [], Trainer.export

    def killed(self: Trainer, target: Path) -> str:
        exports.append(target)
        if len(exports) == export:
            raise KeyboardInterrupt
        return save(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "export", killed)
        with pytest.raises(KeyboardInterrupt):
            run(CONFIG, folder, None)
    final = run(CONFIG, folder, None)
    assert collected == [(100_000, None), (101_000, 2)]
    assert load_checkpoint(final)[1].training["step"] == 4
    assert_same_weights(final, run(CONFIG, tmp_path / "unbroken", None))


def test_settings_changed_on_the_way_are_in_the_manifest(tmp_path: Path) -> None:
    run(CONFIG, tmp_path, None)
    run(replace(CONFIG, workers=3), tmp_path, None)  # trains nothing more, so it says nothing
    later = replace(CONFIG, steps=6, samples=2)
    training = load_checkpoint(run(later, tmp_path, None))[1].training
    shares = {"weights": {"drawer-open": SHARES["drawer-open"]}}
    assert training["history"] == [
        {"from_step": 0, "config": {**CONFIG.to_dict(), **shares}},
        {"from_step": 4, "config": {**later.to_dict(), **shares}},
    ]
    assert training["command"] == later.command()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "ddpm"}, "trained with objective flow, the settings ask for ddpm"),
        ({"size": {**(CONFIG.size or {}), "width": 32}}, "trained with model"),
        ({"episodes": 3}, "round 0 .* keep tasks, episodes and dagger_episodes"),
        ({"dagger_episodes": 3}, "round 1 .* start another run"),
        ({"tasks": ("door-open-v3",)}, "round 0 .*'door-open-v3'"),
    ],
)
def test_a_run_of_another_kind_is_refused_and_stays_as_it_was(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    run(CONFIG, tmp_path, None)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match=message):
        run(replace(CONFIG, **change), tmp_path, None)  # type: ignore[arg-type]
    assert (tmp_path / "config.json").read_text() == before


def test_the_command_line_says_what_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(CONFIG, tmp_path, None)
    assert main(["--run", str(tmp_path), "--objective", "ddpm"]) == 1
    assert "trained with objective flow" in capsys.readouterr().err
    assert json.loads((tmp_path / "config.json").read_text())["objective"] == "flow"


@pytest.mark.parametrize("log", ["", "step,action,auxiliary,balance,seconds\n4,1,1,1,1\n5,0.1"])
def test_a_log_cut_off_by_the_end_of_the_process_does_not_matter(log: str, tmp_path: Path) -> None:
    run(CONFIG, tmp_path, None)
    (tmp_path / "log.csv").write_text(log)
    run(replace(CONFIG, steps=5), tmp_path, None)
    head, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert head.startswith("step,")
    assert rows[-1].startswith("5,")
    assert {row.count(",") for row in rows} == {4}


def test_a_task_whose_expert_never_succeeded_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = train.collect

    def never_a_door(
        folder: Path, seeds: dict[str, Sequence[int]], checkpoint: Path | None, workers: int
    ) -> Iterator[int]:
        yield from record(folder, {"drawer-open-v3": seeds["drawer-open-v3"]}, checkpoint, workers)

    monkeypatch.setattr(train, "collect", never_a_door)
    arguments = ["--run", str(tmp_path), "--quick", "--tasks", "drawer-open", "door-open"]
    assert main(arguments) == 1
    assert "no episode of ['door-open-v3'] ended in success" in capsys.readouterr().err
