"""The queue under a virtual clock: nobody is forgotten, served twice in a turn, or served late."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cloud_test_support import steady
from hypothesis import given, settings
from hypothesis import strategies as st

from ros_vla_accel.cloud.batching import BatchConfig, BatchQueue, Job

QUICK = BatchConfig(max_batch=4, max_wait_s=0.0)


def job(client: int, deadline_s: float = 10.0, kind: int = 16, nbytes: int = 1) -> Job[int]:
    return Job(str(client).encode(), kind, deadline_s, nbytes, client)


def queue_of(*jobs: Job[int], config: BatchConfig = QUICK) -> BatchQueue[int]:
    queue: BatchQueue[int] = BatchQueue(config)
    for one in jobs:
        assert queue.offer(one, 0.0).accepted
    return queue


def clients(jobs: list[Job[int]]) -> list[int]:
    return [one.content for one in jobs]


def test_the_earliest_deadline_goes_first() -> None:
    queue = queue_of(job(1, 3.0), job(2, 1.0), job(3, 2.0))
    assert clients(queue.take(0.0).jobs) == [2, 3, 1]


def test_a_batch_has_one_kind_and_the_others_come_next() -> None:
    queue = queue_of(job(1, 1.0, kind=8), job(2, 2.0, kind=16), job(3, 3.0, kind=8))
    assert clients(queue.take(0.0).jobs) == [1, 3]
    assert clients(queue.take(0.0).jobs) == [2]
    assert queue.take(0.0).jobs == []


def test_who_was_served_comes_after_who_waits_however_short_its_deadline() -> None:
    queue = queue_of(job(1, 0.5), job(2), job(3), config=replace(QUICK, max_batch=1))
    order = []
    for _ in range(6):
        (taken,) = queue.take(0.0).jobs
        order.append(taken.content)
        queue.offer(job(taken.content, 0.5 if taken.content == 1 else 10.0), 0.0)
    assert order[:3] == [1, 2, 3]
    assert sorted(order[3:]) == [1, 2, 3]


def test_a_batch_that_has_room_takes_robots_of_the_next_turn_along() -> None:
    queue = queue_of(job(1), job(2), config=replace(QUICK, max_batch=2))
    queue.take(0.0)
    queue.offer(job(1), 0.0)
    queue.offer(job(3), 0.0)
    assert clients(queue.take(0.0).jobs) == [3, 1]


def test_a_newer_request_takes_the_place_and_the_older_one_is_handed_back() -> None:
    queue = queue_of(job(1, 5.0), job(2))
    newer = job(1, 6.0)
    assert queue.offer(newer, 0.1).superseded == job(1, 5.0)
    assert queue.take(0.1).jobs[0] is newer


def test_what_is_late_is_handed_back_and_not_computed() -> None:
    queue = queue_of(job(1, 1.0), job(2, 3.0))
    taken = queue.take(2.0)
    assert (clients(taken.jobs), clients(taken.expired)) == ([2], [1])


def test_what_would_be_late_is_not_computed_unless_nothing_else_waits() -> None:
    queue = queue_of(job(1, 1.0), job(2, 3.0))
    taken = queue.take(0.5, needed_s=1.0)
    assert (clients(taken.jobs), clients(taken.expired)) == ([2], [1])
    alone = queue_of(job(1, 1.0)).take(0.5, needed_s=1.0)
    assert (clients(alone.jobs), alone.expired) == ([1], [])


def test_a_request_waits_for_company_as_long_as_it_was_told_and_no_longer() -> None:
    queue = queue_of(job(1), job(2), config=BatchConfig(max_batch=4, max_wait_s=0.01))
    assert clients(queue.take(0.0).jobs) == [1, 2], "everyone who is here waits already"
    queue.offer(job(1), 0.1)
    taken = queue.take(0.1)
    assert (taken.jobs, taken.again_s) == ([], pytest.approx(0.11))
    queue.offer(job(1), 0.105)
    assert clients(queue.take(0.11).jobs) == [1], "a newer request does not prolong the wait"


def test_a_full_batch_and_a_robot_alone_do_not_wait() -> None:
    config = BatchConfig(max_batch=2, max_wait_s=5.0)
    queue = queue_of(job(1), job(2), job(3), config=config)
    assert clients(queue.take(0.0).jobs) == [1, 2]
    alone = queue_of(job(1), config=config)
    assert clients(alone.take(0.0).jobs) == [1]


@pytest.mark.parametrize(
    "config", [BatchConfig(max_waiting=2), BatchConfig(max_waiting_bytes=250)]
)
def test_a_full_queue_is_busy_but_not_for_those_whose_place_it_is(config: BatchConfig) -> None:
    queue = queue_of(job(1, 1.0, nbytes=100), job(2, nbytes=100), config=config)
    assert not queue.offer(job(3, nbytes=100), 0.0).accepted
    assert queue.offer(job(2, nbytes=100), 0.0).accepted
    late = queue.offer(job(3, nbytes=100), 2.0)
    assert late.accepted, "what is late makes room"
    assert clients(late.expired) == [1]
    assert queue.nbytes == 200


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"max_wait_s": -1.0}, {"max_waiting": 0}])
def test_a_wrong_setting_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BatchConfig(**wrong)  # type: ignore[arg-type]


offers = st.tuples(
    st.just("offer"),
    st.integers(0, 6),  # robot
    st.sampled_from([8, 16]),
    st.floats(0.0, 0.3),  # remaining
    st.integers(1, 60),  # bytes
)
events = st.one_of(
    offers,
    st.tuples(st.just("take"), st.floats(0.0, 0.1)),  # needed_s
    st.tuples(st.just("pass"), st.floats(0.0, 0.1)),
)
configs = st.builds(
    BatchConfig,
    max_batch=st.integers(1, 4),
    max_wait_s=st.sampled_from([0.0, 0.02]),
    max_waiting=st.integers(1, 8),
    max_waiting_bytes=st.sampled_from([120, 1000]),
)


@settings(steady, max_examples=200)
@given(configs, st.lists(events, max_size=80))
def test_no_request_is_forgotten_and_no_robot_is_passed_over(
    config: BatchConfig, happenings: list[tuple]
) -> None:
    queue: BatchQueue[int] = BatchQueue(config)
    now_s, waiting, served_since = 0.0, {}, {}  # robot -> job; -> {other: times served}

    def leave(jobs: list[Job[int]]) -> None:
        for one in jobs:
            assert waiting.pop(one.client) is one, "whoever leaves the queue was in it, once"
            served_since.pop(one.client)

    for what, *values in happenings:
        if what == "pass":
            now_s += values[0]
        elif what == "offer":
            robot, kind, remaining_s, nbytes = values
            asked = Job(str(robot).encode(), kind, now_s + remaining_s, nbytes, robot)
            offered = queue.offer(asked, now_s)
            assert all(one.deadline_s < now_s for one in offered.expired)
            leave(offered.expired)
            if offered.accepted:
                assert waiting.get(asked.client) is offered.superseded
                waiting[asked.client] = asked
                served_since.setdefault(asked.client, {})
            else:
                full = len(waiting) >= config.max_waiting or queue.nbytes + nbytes > 120
                assert full
        else:
            taken = queue.take(now_s, values[0])
            leave(taken.expired)
            hopeful = [one for one in waiting.values() if one.deadline_s >= now_s + values[0]]
            assert all(
                one.deadline_s < now_s or (one.deadline_s < now_s + values[0] and hopeful)
                for one in taken.expired
            )
            assert all(one.deadline_s >= now_s for one in taken.jobs), "late work is not computed"
            assert len(taken.jobs) <= config.max_batch
            assert len({one.kind for one in taken.jobs}) <= 1
            leave(taken.jobs)
            if not taken.jobs:
                assert not waiting or now_s < taken.again_s <= now_s + config.max_wait_s
            for counts in served_since.values():
                for one in taken.jobs:
                    counts[one.client] = counts.get(one.client, 0) + 1
                    # In its own turn, riding along with one of another kind, and the next turn.
                    assert counts[one.client] <= 3, "a robot is served again and again"
        assert len(queue) == len(waiting) <= config.max_waiting
        assert queue.nbytes == sum(one.nbytes for one in waiting.values())
    left = queue.clear()
    assert {one.client: one for one in left} == waiting
    assert (len(queue), queue.nbytes) == (0, 0)


@settings(steady, max_examples=100)
@given(st.integers(1, 4), st.lists(st.floats(0.01, 0.5), min_size=2, max_size=8))
def test_robots_that_always_ask_are_served_equally_whatever_their_deadlines(
    max_batch: int, remaining_s: list[float]
) -> None:
    queue: BatchQueue[int] = BatchQueue(BatchConfig(max_batch=max_batch, max_wait_s=0.0))
    served = [0] * len(remaining_s)
    for k in range(60):
        for robot, left_s in enumerate(remaining_s):
            queue.offer(job(robot, 0.001 * k + left_s), 0.001 * k)
        for one in queue.take(0.001 * k).jobs:
            served[one.content] += 1
    assert max(served) - min(served) <= 2
