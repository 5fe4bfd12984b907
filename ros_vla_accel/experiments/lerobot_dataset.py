"""Recorded episodes as a LeRobot v3.0 data set (https://github.com/huggingface/lerobot).

Needs ``pyarrow``, of the extra ``train``. The columns are described in docs/dataset.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from ros_vla_accel.experiments.collect import Episode
from ros_vla_accel.experiments.dataset import episode_paths
from ros_vla_accel.experiments.lerobot_stats import SetStatistics, Stats
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.sim.env import CAMERAS, JOINT_NAMES, STEP_S

FPS = round(1 / STEP_S)
ACTION_NAMES = ("vx", "vy", "vz", "gripper")
ROBOT = "metaworld_sawyer"
FILE_SIZE_MB = 100
FILES_PER_FOLDER = 1000
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES_AT_ONCE = 100
"""Rows of the table of episodes per row group: it has a hundred columns, whose headers weigh."""
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_lerobot(
    episodes: Path,
    destination: Path,
    cameras: Sequence[str] = CAMERAS,
    file_size_mb: int = FILE_SIZE_MB,
) -> None:
    """Writes all episodes of a folder as a data set; ``destination`` appears once it is whole.

    Episodes are read one after the other, so memory does not grow with their images. cameras:
    names of ``Episode.images``, in their order. file_size_mb: largest size of a file of frames,
    unless a single episode has more.

    Raises FileExistsError when ``destination`` exists, and ValueError when there is no episode or
    one does not have the cameras, joints and size of image of the others.
    """
    check_destination(destination)
    paths = episode_paths(episodes)
    if not paths:
        raise ValueError(f"no episodes in '{episodes}' to write as a data set; record some first")
    partial = _partial(destination)
    partial.mkdir(parents=True)
    try:
        with Progress() as progress:
            recorded = (Episode.load(path) for path in paths)
            shown = progress.track(recorded, total=len(paths), description="data set")
            _write(shown, partial, tuple(cameras), file_size_mb)
        partial.rename(destination)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_destination(destination: Path) -> None:
    """Raises FileExistsError when a data set cannot be written there."""
    if destination.exists():
        raise FileExistsError(f"'{destination}' exists; choose another folder or delete it")
    if _partial(destination).exists():
        raise FileExistsError(
            f"'{_partial(destination)}' is being written, or is left of an export that was cut "
            "off; in the latter case delete it"
        )


def _partial(destination: Path) -> Path:
    return destination.with_name(f"{destination.name}.partial")


def _write(
    episodes: Iterable[Episode], root: Path, cameras: tuple[str, ...], file_size_mb: int
) -> None:
    statistics = SetStatistics()
    tasks: dict[str, int] = {}
    features: dict[str, dict[str, Any]] = {}
    count = frames = 0
    with _DataFiles(root, file_size_mb) as data, _EpisodeTable(root) as table:
        for episode in episodes:
            features = features or _features(cameras, episode.images.shape[2:])
            _check(episode, cameras, features)
            task = instructions(episode.task)[0]
            task_index = tasks.setdefault(task, len(tasks))
            vectors = _vectors(episode, count, frames, task_index)
            images = {_image_name(c): episode.images[:, i] for i, c in enumerate(cameras)}
            chunk_index, file_index = data.write(_frame_table(features, vectors, images))
            length = len(episode.action)
            row = {
                "episode_index": count,
                "tasks": [task],
                "length": length,
                "data/chunk_index": chunk_index,
                "data/file_index": file_index,
                "dataset_from_index": frames,
                "dataset_to_index": frames + length,
            }
            table.add(row, statistics.add(vectors, images))
            count, frames = count + 1, frames + length
    _write_tasks(root / "meta/tasks.parquet", tasks)
    stats = {
        feature: {name: value.tolist() for name, value in of_feature.items()}
        for feature, of_feature in statistics.of_all().items()
    }
    _write_json(root / "meta/stats.json", stats)
    info = {
        "codebase_version": "v3.0",
        "robot_type": ROBOT,
        "total_episodes": count,
        "total_frames": frames,
        "total_tasks": len(tasks),
        "chunks_size": FILES_PER_FOLDER,
        "data_files_size_in_mb": file_size_mb,
        "video_files_size_in_mb": 2 * FILE_SIZE_MB,  # unused, but LeRobot 0.4 reads it
        "fps": FPS,
        "splits": {"train": f"0:{count}"},
        "data_path": f"data/{FILE}",
        "video_path": None,
        "features": features,
    }
    _write_json(root / "meta/info.json", info)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n")


def _image_name(camera: str) -> str:
    return f"observation.images.{camera}"


def _features(cameras: Sequence[str], image_shape: Sequence[int]) -> dict[str, dict[str, Any]]:
    """What info.json says of the columns, in their order."""
    axes = ["height", "width", "channels"]
    image = {"dtype": "image", "shape": list(image_shape), "names": axes}
    number = {"shape": [1], "names": None}
    return {
        **{_image_name(camera): image for camera in cameras},
        "observation.state": _vector(JOINT_NAMES),
        "action": _vector(ACTION_NAMES),
        "expert_driven": {"dtype": "bool", **number},
        "timestamp": {"dtype": "float32", **number},
        **{
            name: {"dtype": "int64", **number}
            for name in ("frame_index", "episode_index", "index", "task_index")
        },
    }


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def _check(
    episode: Episode, cameras: Sequence[str], features: Mapping[str, dict[str, Any]]
) -> None:
    """Raises ValueError when an episode does not have the shapes of the data set."""
    steps = len(episode.action)
    image = features[_image_name(cameras[0])]["shape"]
    expected = {
        "images": (steps, len(cameras), *image),
        "state": (steps, len(JOINT_NAMES)),
        "action": (steps, len(ACTION_NAMES)),
        "expert_driven": (steps,),
    }
    for name, shape in expected.items():
        found = getattr(episode, name).shape
        if found != shape:
            raise ValueError(
                f"episode '{episode.task}' of seed {episode.seed} has {name} {found}, the data "
                f"set asks for {shape}; leave it out, or name its cameras (now {list(cameras)})"
            )


def _vectors(episode: Episode, number: int, first: int, task_index: int) -> dict[str, np.ndarray]:
    """All columns but the images, as (T,) or (T, D)."""
    frame = np.arange(len(episode.action))
    return {
        "observation.state": episode.state.astype(np.float32),
        "action": episode.action.astype(np.float32),
        "expert_driven": episode.expert_driven.astype(bool),
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full_like(frame, number),
        "index": first + frame,
        "task_index": np.full_like(frame, task_index),
    }


def _frame_table(
    features: Mapping[str, dict[str, Any]],
    vectors: Mapping[str, np.ndarray],
    images: Mapping[str, np.ndarray],
) -> pa.Table:
    """An episode's rows, with the types that Hugging Face ``datasets`` looks for in the schema."""
    columns: list[pa.Array] = []
    types: dict[str, dict[str, Any]] = {}
    for name, feature in features.items():
        dtype, (size, *_) = feature["dtype"], feature["shape"]
        value = {"dtype": dtype, "_type": "Value"}
        if dtype == "image":
            columns.append(_image_column(images[name]))
            types[name] = {"_type": "Image"}
        elif size == 1:
            columns.append(pa.array(vectors[name], pa.type_for_alias(dtype)))
            types[name] = value
        else:
            numbers = pa.array(vectors[name].ravel(), pa.type_for_alias(dtype))
            columns.append(pa.FixedSizeListArray.from_arrays(numbers, size))
            types[name] = {"feature": value, "length": size, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": types}})}
    return pa.table(dict(zip(features, columns, strict=True)), metadata=metadata)


def _image_column(images: np.ndarray) -> pa.StructArray:
    """(T, height, width, 3) uint8, RGB -> PNG files with names, which stay in the column."""
    files = [_png(image) for image in images]
    names = [f"frame-{number:06d}.png" for number in range(len(images))]
    return pa.StructArray.from_arrays([pa.array(files), pa.array(names)], fields=list(_IMAGE))


def _png(image: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


class _DataFiles:
    """The frames in files of a limited size; a row group is an episode, none is split."""

    def __init__(self, root: Path, size_mb: int) -> None:
        self._root = root / "data"
        self._limit = size_mb * 2**20
        self._number = -1
        self._open = ExitStack()
        self._file: BinaryIO | None = None
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _DataFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write(self, episode: pa.Table) -> tuple[int, int]:
        """Appends an episode; returns the numbers of its folder and of the file therein."""
        if self._file is None or self._file.tell() + episode.nbytes > self._limit:
            self._start_file(episode.schema)
        assert self._writer is not None
        self._writer.write_table(episode)
        return self._place()

    def _place(self) -> tuple[int, int]:
        return divmod(self._number, FILES_PER_FOLDER)

    def _start_file(self, schema: pa.Schema) -> None:
        self._open.close()
        self._number += 1
        chunk_index, file_index = self._place()
        path = self._root / FILE.format(chunk_index=chunk_index, file_index=file_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open.enter_context(path.open("wb"))
        self._writer = self._open.enter_context(pq.ParquetWriter(self._file, schema))


class _EpisodeTable:
    """The table of episodes: where each one lies, and its statistics."""

    def __init__(self, root: Path) -> None:
        self._path = root / "meta/episodes" / FILE.format(chunk_index=0, file_index=0)
        self._path.parent.mkdir(parents=True)
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _EpisodeTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, row: Mapping[str, Any], stats: Mapping[str, Stats]) -> None:
        """Adds an episode with its statistics by feature."""
        columns = {
            f"stats/{feature}/{name}": value.tolist()
            for feature, of_feature in stats.items()
            for name, value in of_feature.items()
        }
        place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        self._rows.append({**row, **columns, **place})
        if len(self._rows) == _EPISODES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._rows.clear()


def _write_tasks(path: Path, tasks: Mapping[str, int]) -> None:
    """LeRobot reads the tasks with pandas and looks them up in its index, hence the metadata."""
    table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)})
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype}
        for name, kind, dtype in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [{**column, "metadata": None} for column in columns],
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)
