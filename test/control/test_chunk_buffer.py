import numpy as np
import pytest

from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.control.chunk_buffer import ChunkBuffer

MS = 1_000_000
PERIOD = 50 * MS
T0 = 1000 * MS


def chunk(
    stamp_ns: int, value: float = 1.0, episode: int = 1, rows: int = 16, source: str = "edge"
) -> ActionChunk:
    actions = np.full((rows, 2), value, np.float32)
    actions[:, 1] = np.arange(rows)
    return ActionChunk(actions, 0.05, stamp_ns, 7, episode, source)


def index(buffer: ChunkBuffer, now_ns: int) -> int | None:
    row = buffer.row(now_ns)
    return None if row is None else row.index


def test_row_k_is_in_force_from_its_stamp_for_one_period() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0), T0)
    assert index(buffer, T0) == 0
    assert index(buffer, T0 + PERIOD - 1) == 0
    assert index(buffer, T0 + PERIOD) == 1
    assert index(buffer, T0 + 16 * PERIOD - 1) == 15
    assert buffer.row(T0 + 16 * PERIOD) is None


def test_past_rows_are_skipped_and_never_caught_up() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0), T0 + 5 * PERIOD)
    assert index(buffer, T0 + 5 * PERIOD) == 5
    assert index(buffer, T0 + 11 * PERIOD) == 11
    assert buffer.executed_rows == 2
    assert buffer.remaining_rows(T0 + 11 * PERIOD) == 4


@pytest.mark.parametrize("source", ["edge", "cloud"])
def test_newest_observation_wins_whatever_its_source(source: str) -> None:
    buffer = ChunkBuffer(2)
    assert buffer.offer(chunk(T0 + PERIOD), T0 + PERIOD).accepted
    for stamp_ns in (T0, T0 + PERIOD):
        verdict = buffer.offer(chunk(stamp_ns, source=source), T0 + PERIOD)
        assert verdict.code == "older_observation"
    assert buffer.offer(chunk(T0 + PERIOD + 1, source=source), T0 + PERIOD + 1).accepted
    assert buffer.dropped == 2


def test_newer_episode_replaces_even_a_newer_observation() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0, episode=1), T0)
    assert buffer.offer(chunk(T0 - PERIOD, episode=2), T0).accepted
    assert buffer.offer(chunk(T0 + 1, episode=1), T0 + 1).code == "older_episode"
    assert buffer.episode_id == 2


def test_newer_episode_becomes_current_even_if_its_chunk_is_too_late() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0, episode=1), T0)
    assert buffer.offer(chunk(T0 - 16 * PERIOD, episode=2), T0).code == "expired"
    assert buffer.row(T0) is None
    assert buffer.wanted


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"actions": np.full((16, 2), np.nan, np.float32)}, "not_finite"),
        ({"actions": np.full((16, 2), np.inf, np.float32)}, "not_finite"),
        ({"actions": np.zeros((16, 3), np.float32)}, "shape"),
        ({"actions": np.zeros(16, np.float32)}, "shape"),
        ({"actions": np.zeros((16, 0), np.float32)}, "shape"),
        ({"period_s": 0.0}, "period"),
        ({"period_s": float("nan")}, "period"),
        ({"period_s": 1e300}, "period"),
        ({"period_s": 50.0}, "period"),
        ({"actions": np.zeros((101, 2), np.float32)}, "period"),
        ({"stamp_ns": T0 + 2 * PERIOD}, "future"),
    ],
)
def test_bad_chunk_changes_nothing(change: dict[str, object], code: str) -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0 - PERIOD), T0)
    fields = {**vars(chunk(T0, episode=9)), **change}
    assert buffer.offer(ActionChunk(**fields), T0).code == code
    assert buffer.episode_id == 1
    assert index(buffer, T0) == 1
    assert buffer.counts[code] == 1


def test_chunk_past_its_end_is_dropped() -> None:
    assert ChunkBuffer(2).offer(chunk(T0), T0 + 16 * PERIOD - 1).accepted
    assert ChunkBuffer(2).offer(chunk(T0), T0 + 16 * PERIOD).code == "expired"


def test_stop_ends_the_chunk_and_what_was_seen_before_it() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0), T0)
    stop = ActionChunk(np.zeros((0, 0), np.float32), 0.0, 0, 8, 1, "stop")
    assert buffer.offer(stop, T0 + 2 * PERIOD).code == "stop"
    assert buffer.row(T0 + 2 * PERIOD) is None
    assert not buffer.wanted
    assert buffer.offer(chunk(T0 + PERIOD), T0 + 3 * PERIOD).code == "older_observation"
    assert buffer.offer(chunk(T0 + 3 * PERIOD), T0 + 3 * PERIOD).accepted


def test_stop_of_a_newer_episode_makes_it_current_and_of_an_older_one_is_dropped() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0, episode=3), T0)
    stop = ActionChunk(np.zeros((0, 2), np.float32), 0.05, T0, 8, 2, "stop")
    assert buffer.offer(stop, T0).code == "older_episode"
    assert index(buffer, T0) == 0
    newer = ActionChunk(np.zeros((0, 2), np.float32), 0.05, T0, 8, 4, "stop")
    assert buffer.offer(newer, T0).accepted
    assert buffer.offer(chunk(T0 + 1, episode=3), T0 + 1).code == "older_episode"


def test_nothing_seen_before_a_clear_is_accepted_even_of_a_newer_episode() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0), T0)
    buffer.clear("a fault", T0 + PERIOD, wanted=True)
    late = buffer.offer(chunk(T0 + PERIOD, episode=2), T0 + 2 * PERIOD)
    assert late.code == "older_observation"
    assert buffer.offer(chunk(T0 + PERIOD + 1, episode=2), T0 + 2 * PERIOD).accepted


def test_seam_is_blended_linearly_over_a_few_rows() -> None:
    buffer = ChunkBuffer(2, blend_rows=3)
    buffer.offer(chunk(T0, value=0.0), T0)
    buffer.row(T0 + 4 * PERIOD)
    buffer.offer(chunk(T0 + 2 * PERIOD, value=1.0), T0 + 4 * PERIOD)
    values = [buffer.row(T0 + k * PERIOD).action[0] for k in range(5, 10)]  # type: ignore[union-attr]
    np.testing.assert_allclose(values, [0.25, 0.5, 0.75, 1.0, 1.0])


def test_blending_uses_the_old_chunk_s_row_of_the_same_instant_while_it_has_one() -> None:
    buffer = ChunkBuffer(2, blend_rows=3)
    buffer.offer(chunk(T0), T0)
    buffer.row(T0)
    buffer.offer(chunk(T0 + 10 * PERIOD), T0 + 14 * PERIOD)
    row = buffer.row(T0 + 15 * PERIOD)
    assert row is not None
    assert row.action[1] == pytest.approx(0.75 * 15 + 0.25 * 5)
    assert buffer.row(T0 + 16 * PERIOD).action[1] == 6.0  # type: ignore[union-attr]


def test_seams_in_quick_succession_stay_continuous() -> None:
    buffer = ChunkBuffer(2, blend_rows=3)
    values = [0.0]
    for k in range(12):
        value = float(k % 2)
        buffer.offer(chunk(T0 + k * PERIOD, value=value), T0 + k * PERIOD)
        values.append(buffer.row(T0 + k * PERIOD).action[0])  # type: ignore[union-attr]
    assert np.abs(np.diff(values)).max() < 0.3


def test_chunk_that_never_moved_the_arm_leaves_no_seam() -> None:
    buffer = ChunkBuffer(2, blend_rows=1)
    buffer.offer(chunk(T0, value=0.0), T0)
    buffer.row(T0)
    buffer.offer(chunk(T0 + 1, value=100.0), T0 + 1)
    buffer.offer(chunk(T0 + 2, value=1.0), T0 + 2)
    assert buffer.row(T0 + PERIOD + 2).action[0] == 0.5  # type: ignore[union-attr]


def test_nothing_of_an_older_episode_is_blended_in() -> None:
    buffer = ChunkBuffer(2, blend_rows=3)
    buffer.offer(chunk(T0, value=0.0, episode=1), T0)
    buffer.row(T0)
    buffer.offer(chunk(T0, value=1.0, episode=2), T0)
    assert buffer.row(T0).action[0] == 1.0  # type: ignore[union-attr]


def test_old_chunk_plays_until_the_first_row_of_the_new_one_is_due() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0), T0)
    buffer.row(T0 + 2 * PERIOD)
    buffer.offer(chunk(T0 + 4 * PERIOD), T0 + 3 * PERIOD)
    assert index(buffer, T0 + 3 * PERIOD) == 3
    assert index(buffer, T0 + 4 * PERIOD) == 0


def test_clock_that_goes_back_empties_the_buffer_and_takes_the_new_timeline() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0), T0 + 10 * PERIOD)
    assert buffer.row(T0 + 8 * PERIOD) is None
    assert buffer.clock_resets == 1
    assert "clock went back" in buffer.empty_because
    assert buffer.offer(chunk(5 * MS), 6 * MS).accepted
    assert index(buffer, 6 * MS) == 0


def test_clock_jitter_below_a_period_never_plays_a_row_again() -> None:
    buffer = ChunkBuffer(2)
    buffer.offer(chunk(T0), T0)
    assert index(buffer, T0 + 3 * PERIOD) == 3
    assert index(buffer, T0 + 3 * PERIOD - 40 * MS) == 3
    assert buffer.clock_resets == 0
