"""A data set for LeRobot holds what was recorded, and appears whole or not at all."""

from __future__ import annotations

import importlib
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ros_vla_accel.experiments.collect import Episode
from ros_vla_accel.policies.instructions import instructions

pa = pytest.importorskip(
    "pyarrow", reason="pyarrow is not installed: pip install 'ros_vla_accel[train]'"
)
pq = importlib.import_module("pyarrow.parquet")
lerobot_dataset = importlib.import_module("ros_vla_accel.experiments.lerobot_dataset")
write_lerobot = lerobot_dataset.write_lerobot

MakeEpisode = Callable[..., Episode]
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
RECORDED = (("drawer-open-v3", 12), ("drawer-open-v3", 9), ("door-open-v3", 15))


@pytest.fixture
def recorded(episode: MakeEpisode, tmp_path: Path) -> list[Episode]:
    """Three episodes in ``tmp_path / "episodes"``, in the order in which they are written."""
    (tmp_path / "episodes").mkdir()
    episodes = []
    for number, (task, steps) in enumerate(RECORDED):
        driven = np.random.default_rng(number).random(steps) < 0.7
        made = replace(episode(task, steps, seed=number), expert_driven=driven)
        made.save(tmp_path / "episodes" / f"{number}.npz")
        episodes.append(made)
    return episodes


@pytest.fixture
def dataset(recorded: list[Episode], tmp_path: Path) -> Path:
    """The data set of the three episodes."""
    write_lerobot(tmp_path / "episodes", tmp_path / "set")
    return tmp_path / "set"


def frames(dataset: Path) -> Any:
    """All rows of a data set."""
    return pa.concat_tables([pq.read_table(p) for p in sorted(dataset.glob("data/*/*.parquet"))])


def info(dataset: Path) -> dict[str, Any]:
    return json.loads((dataset / "meta/info.json").read_text())


def episode_rows(dataset: Path) -> list[dict[str, Any]]:
    return pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()


def rgb(image: dict[str, Any]) -> np.ndarray:
    """Pixels of a stored image."""
    decoded = cv2.imdecode(np.frombuffer(image["bytes"], np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def as_image_stats(images: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of (T, S, S, 3) uint8 by NumPy alone."""
    levels, over = images / 255, (0, 1, 2)
    quantiles = {name: np.quantile(levels, share, axis=over) for name, share in QUANTILES.items()}
    found = {n: getattr(levels, n)(axis=over) for n in ("min", "max", "mean", "std")} | quantiles
    return {name: value.reshape(3, 1, 1) for name, value in found.items()}


def as_vector_stats(values: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of (T, D) by NumPy alone."""
    values = values.astype(np.float64)
    quantiles = {name: np.quantile(values, share, axis=0) for name, share in QUANTILES.items()}
    return {n: getattr(values, n)(axis=0) for n in ("min", "max", "mean", "std")} | quantiles


def assert_stats(found: dict[str, Any], expected: dict[str, np.ndarray], count: int) -> None:
    assert found["count"] == [count]
    assert set(found) == {*expected, "count"}
    for name, value in expected.items():
        assert np.shape(found[name]) == value.shape, name
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_data_set_has_the_files_of_version_3(dataset: Path) -> None:
    files = {str(p.relative_to(dataset)) for p in dataset.rglob("*") if p.is_file()}
    assert files == {
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
    }
    assert info(dataset)["codebase_version"] == "v3.0"


def test_info_counts_frames_episodes_and_tasks(dataset: Path) -> None:
    found = info(dataset)
    assert (found["total_frames"], found["total_episodes"], found["total_tasks"]) == (36, 3, 2)
    assert found["splits"] == {"train": "0:3"}
    assert found["fps"] == 20


def test_info_names_cameras_joints_and_actions(dataset: Path) -> None:
    features = info(dataset)["features"]
    for camera in ("corner2", "gripperPOV"):
        assert features[f"observation.images.{camera}"] == {
            "dtype": "image",
            "shape": [64, 64, 3],
            "names": ["height", "width", "channels"],
        }
    assert features["observation.state"]["names"][0] == "right_j0"
    assert features["observation.state"]["shape"] == [9]
    assert features["action"]["names"] == ["vx", "vy", "vz", "gripper"]
    assert features["expert_driven"] == {"dtype": "bool", "shape": [1], "names": None}


def test_every_column_is_a_feature_in_the_same_order(dataset: Path) -> None:
    assert frames(dataset).column_names == list(info(dataset)["features"])


def test_columns_have_the_types_that_info_promises(dataset: Path) -> None:
    schema = frames(dataset).schema
    assert schema.field("observation.state").type == pa.list_(pa.float32(), 9)
    assert schema.field("action").type == pa.list_(pa.float32(), 4)
    assert schema.field("expert_driven").type == pa.bool_()
    assert schema.field("timestamp").type == pa.float32()
    for name in ("frame_index", "episode_index", "index", "task_index"):
        assert schema.field(name).type == pa.int64()


def test_the_schema_tells_datasets_which_columns_are_images(dataset: Path) -> None:
    schema = pq.read_schema(dataset / "data/chunk-000/file-000.parquet")
    types = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    value = {"dtype": "float32", "_type": "Value"}
    assert types["observation.images.corner2"] == {"_type": "Image"}
    assert types["action"] == {"feature": value, "length": 4, "_type": "List"}
    assert types["timestamp"] == value
    image = schema.field("observation.images.corner2").type
    assert [(field.name, field.type) for field in image] == [
        ("bytes", pa.binary()),
        ("path", pa.string()),
    ]


def test_images_come_back_pixel_by_pixel(dataset: Path, recorded: list[Episode]) -> None:
    table = frames(dataset)
    for number, camera in enumerate(("corner2", "gripperPOV")):
        found = [rgb(image) for image in table[f"observation.images.{camera}"].to_pylist()]
        expected = np.concatenate([e.images[:, number] for e in recorded])
        np.testing.assert_array_equal(found, expected)


def test_state_action_and_who_drove_come_back(dataset: Path, recorded: list[Episode]) -> None:
    table = frames(dataset)
    for column, field in (
        ("observation.state", "state"),
        ("action", "action"),
        ("expert_driven", "expert_driven"),
    ):
        expected = np.concatenate([getattr(e, field) for e in recorded])
        np.testing.assert_array_equal(table[column].to_pylist(), expected)


def test_indices_count_frames_in_the_episode_and_in_the_set(dataset: Path) -> None:
    table = frames(dataset)
    lengths = [steps for _, steps in RECORDED]
    within = np.concatenate([np.arange(steps) for steps in lengths])
    assert table["index"].to_pylist() == list(range(36))
    assert table["frame_index"].to_pylist() == within.tolist()
    assert table["episode_index"].to_pylist() == np.repeat(range(3), lengths).tolist()
    np.testing.assert_array_equal(table["timestamp"], (within / 20).astype(np.float32))


def test_every_frame_has_the_first_instruction_of_its_task(dataset: Path) -> None:
    tasks = pq.read_table(dataset / "meta/tasks.parquet").to_pylist()
    text = {row["task_index"]: row["task"] for row in tasks}
    found = [text[number] for number in frames(dataset)["task_index"].to_pylist()]
    assert found == [instructions(task)[0] for task, steps in RECORDED for _ in range(steps)]


def test_pandas_is_told_that_the_task_is_the_index(dataset: Path) -> None:
    metadata = pq.read_schema(dataset / "meta/tasks.parquet").metadata
    assert json.loads(metadata[b"pandas"])["index_columns"] == ["task"]


def test_the_table_of_episodes_says_where_each_one_lies(dataset: Path) -> None:
    rows = episode_rows(dataset)
    assert [row["length"] for row in rows] == [12, 9, 15]
    assert [(r["dataset_from_index"], r["dataset_to_index"]) for r in rows] == [
        (0, 12),
        (12, 21),
        (21, 36),
    ]
    assert [row["tasks"] for row in rows] == [[instructions(task)[0]] for task, _ in RECORDED]


def test_statistics_of_images_are_those_of_all_pixels(
    dataset: Path, recorded: list[Episode]
) -> None:
    found = json.loads((dataset / "meta/stats.json").read_text())
    images = np.concatenate([e.images[:, 1] for e in recorded])
    assert_stats(found["observation.images.gripperPOV"], as_image_stats(images), 36)


@pytest.mark.parametrize(
    ("feature", "field"), [("observation.state", "state"), ("action", "action")]
)
def test_statistics_of_numbers_are_those_of_all_frames(
    feature: str, field: str, dataset: Path, recorded: list[Episode]
) -> None:
    found = json.loads((dataset / "meta/stats.json").read_text())
    values = np.concatenate([getattr(e, field) for e in recorded])
    assert_stats(found[feature], as_vector_stats(values), 36)


def test_there_are_statistics_of_every_feature(dataset: Path) -> None:
    found = json.loads((dataset / "meta/stats.json").read_text())
    assert set(found) == set(info(dataset)["features"])


def test_every_episode_has_its_own_statistics(dataset: Path, recorded: list[Episode]) -> None:
    row = episode_rows(dataset)[1]

    def of(feature: str) -> dict[str, Any]:
        start = f"stats/{feature}/"
        return {k.removeprefix(start): v for k, v in row.items() if k.startswith(start)}

    assert_stats(of("action"), as_vector_stats(recorded[1].action), 9)
    images = as_image_stats(recorded[1].images[:, 0])
    assert_stats(of("observation.images.corner2"), images, 9)


def test_an_episode_of_one_frame_has_statistics(episode: MakeEpisode, tmp_path: Path) -> None:
    short = episode(steps=1)
    short.save(tmp_path / "a.npz")
    write_lerobot(tmp_path, tmp_path / "set")
    found = json.loads((tmp_path / "set/meta/stats.json").read_text())
    assert_stats(found["action"], as_vector_stats(short.action), 1)


def test_a_large_set_is_split_between_episodes(episode: MakeEpisode, tmp_path: Path) -> None:
    for number in range(4):
        episode(steps=20, seed=number).save(tmp_path / f"{number}.npz")  # half a MB of noise
    write_lerobot(tmp_path, tmp_path / "set", file_size_mb=1)
    rows = episode_rows(tmp_path / "set")
    files = sorted((tmp_path / "set/data").glob("*/*.parquet"))
    assert len(files) > 1
    assert max(p.stat().st_size for p in files) <= 2**20
    for row in rows:
        place = f"chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet"
        table = pq.read_table(tmp_path / "set/data" / place)
        assert table["episode_index"].to_pylist().count(row["episode_index"]) == row["length"]
    assert frames(tmp_path / "set")["index"].to_pylist() == list(range(80))


def test_a_full_folder_of_files_is_followed_by_another(
    episode: MakeEpisode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_dataset, "FILES_PER_FOLDER", 2)
    for number in range(3):
        episode(steps=30, seed=number).save(tmp_path / f"{number}.npz")
    write_lerobot(tmp_path, tmp_path / "set", file_size_mb=1)
    files = sorted(p.relative_to(tmp_path / "set/data") for p in tmp_path.glob("set/data/*/*"))
    assert list(map(str, files)) == [
        "chunk-000/file-000.parquet",
        "chunk-000/file-001.parquet",
        "chunk-001/file-000.parquet",
    ]
    assert info(tmp_path / "set")["chunks_size"] == 2


def test_many_episodes_fit_in_the_table_of_episodes(
    recorded: list[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_dataset, "_EPISODES_AT_ONCE", 2)
    write_lerobot(tmp_path / "episodes", tmp_path / "set")
    assert [row["episode_index"] for row in episode_rows(tmp_path / "set")] == [0, 1, 2]


def test_episodes_do_not_pile_up_in_memory(
    episode: MakeEpisode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        episode(steps=2, seed=number).save(tmp_path / f"{number}.npz")
    read: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []
    load = Episode.load

    def watched(path: Path) -> Episode:
        alive.append(sum(images() is not None for images in read))
        loaded = load(path)
        read.append(weakref.ref(loaded.images))
        return loaded

    monkeypatch.setattr(Episode, "load", watched)
    write_lerobot(tmp_path, tmp_path / "set")
    assert len(alive) == 6
    assert max(alive) <= 1


def test_an_existing_folder_is_refused_and_stays_as_it_was(
    recorded: list[Episode], tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError, match=r"set' exists; choose another folder"):
        write_lerobot(tmp_path / "episodes", tmp_path / "set")
    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_export_that_ends_early_leaves_nothing(
    error: type[BaseException],
    recorded: list[Episode],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, read = Episode.load, []

    def broken(path: Path) -> Episode:
        read.append(path)
        if len(read) == 2:
            assert not (tmp_path / "set").exists()
            raise error
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(Episode, "load", broken)
        with pytest.raises(error):
            write_lerobot(tmp_path / "episodes", tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["episodes"]
    write_lerobot(tmp_path / "episodes", tmp_path / "set")
    assert info(tmp_path / "set")["total_episodes"] == 3


def test_what_a_killed_export_left_is_named(recorded: list[Episode], tmp_path: Path) -> None:
    (tmp_path / "set.partial").mkdir()
    with pytest.raises(FileExistsError, match=r"set\.partial' is being written, or is left"):
        write_lerobot(tmp_path / "episodes", tmp_path / "set")
    assert (tmp_path / "set.partial").exists()


def test_an_unfinished_episode_is_left_out(recorded: list[Episode], tmp_path: Path) -> None:
    (tmp_path / "episodes/9.partial.npz").write_bytes(b"half")
    write_lerobot(tmp_path / "episodes", tmp_path / "set")
    assert info(tmp_path / "set")["total_episodes"] == 3


def test_a_folder_without_episodes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no episodes in '.*' to write as a data set"):
        write_lerobot(tmp_path, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_episode_of_another_shape_is_named(
    recorded: list[Episode], episode: MakeEpisode, tmp_path: Path
) -> None:
    odd = episode(seed=7)
    replace(odd, images=odd.images[:, :, :32, :32]).save(tmp_path / "episodes/9.npz")
    with pytest.raises(ValueError, match=r"'drawer-open-v3' of seed 7 has images \(30, 2, 32"):
        write_lerobot(tmp_path / "episodes", tmp_path / "set")


def test_cameras_that_are_not_those_of_the_recording_are_refused(
    recorded: list[Episode], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"now \['corner2'\]"):
        write_lerobot(tmp_path / "episodes", tmp_path / "set", cameras=["corner2"])
