import pytest
from scheduler_policy import IDLE, MS, STARVED, Policy

from ros_vla_accel.contracts import PolicySpec
from ros_vla_accel.partition.orders import (
    SchedulerConfig,
    StartCloud,
    StartEdge,
    Stop,
)
from ros_vla_accel.partition.route import Route
from ros_vla_accel.partition.scheduler import RequestScheduler


def test_without_a_decision_the_edge_makes_the_first_chunk_at_once() -> None:
    policy = Policy()
    order = policy.poll()
    assert isinstance(order, StartEdge)
    assert order.stamp_ns == policy.now
    assert policy.poll() is None


def test_ids_of_today_are_exact_as_doubles_for_tools_that_plot_them() -> None:
    scheduler = RequestScheduler(SchedulerConfig(), lambda: 4_102_444_800_000)  # In 2100.
    assert scheduler.stop().request_id < 2**53
    assert scheduler.episode_id < 2**53


def test_ids_start_at_the_wall_clock_and_rise() -> None:
    policy = Policy()
    first = policy.poll()
    assert isinstance(first, StartEdge)
    assert first.request_id == 1000 * 1000 + 1
    assert first.episode_id == 1001
    policy.finish(first)
    policy.wait(1000)
    policy.executor()
    second = policy.poll()
    assert isinstance(second, StartEdge)
    assert second.request_id > first.request_id


def test_new_chunk_is_wanted_when_the_one_in_play_is_replan_rows_old() -> None:
    policy = Policy()
    stamp_ns = policy.now
    policy.executor(stamp_ns)
    policy.wait(399)
    policy.executor(stamp_ns)
    assert policy.poll() is None
    policy.wait(1)
    assert isinstance(policy.poll(), StartEdge)


def test_slow_edge_starts_before_replan_rows_so_that_the_chunk_does_not_run_out() -> None:
    policy = Policy(edge_p95_s=0.5)
    stamp_ns = policy.now
    policy.wait(250)
    policy.executor(stamp_ns)
    assert isinstance(policy.poll(), StartEdge)


def test_published_chunk_counts_as_in_play_until_the_executor_must_have_shown_it() -> None:
    policy = Policy()
    order = policy.poll()
    policy.wait(100)
    assert policy.finish(order)
    assert policy.poll() is None
    policy.wait(151)
    policy.executor(None, STARVED)
    assert isinstance(policy.poll(), StartEdge)


def test_no_observation_or_none_newer_than_in_play_starts_nothing() -> None:
    policy = Policy()
    assert policy.poll(None) is None
    policy.executor(policy.now)
    policy.wait(500)
    policy.executor(policy.now - 500 * MS)
    assert policy.poll(policy.now - 500 * MS) is None
    assert isinstance(policy.poll(), StartEdge)


def test_valid_cloud_decision_sends_a_request_with_its_deadline() -> None:
    policy = Policy()
    policy.decide()
    order = policy.poll()
    assert isinstance(order, StartCloud)
    assert order.deadline_ns == policy.now + 300 * MS
    assert (order.cut, order.encoding) == ("observation", "jpeg")
    assert policy.poll() is None


def test_decision_past_valid_until_means_edge() -> None:
    policy = Policy()
    policy.decide(valid_ms=500)
    policy.wait(501)
    policy.executor()
    assert isinstance(policy.poll(), StartEdge)


def test_edge_starts_when_its_p95_is_left_before_the_deadline() -> None:
    policy = Policy(edge_p95_s=0.12)
    policy.decide()
    policy.poll()
    policy.wait(179)
    assert policy.poll() is None
    policy.wait(1)
    order = policy.poll()
    assert isinstance(order, StartEdge)
    assert order.stamp_ns == policy.now
    assert policy.scheduler.counts["fallbacks_edge"] == 1


def test_edge_starts_before_the_chunk_in_play_runs_out_even_if_the_deadline_is_later() -> None:
    policy = Policy(edge_p95_s=0.12)
    stamp_ns = policy.now
    policy.wait(600)
    policy.executor(stamp_ns)
    policy.decide()
    assert isinstance(policy.poll(), StartCloud)
    policy.wait(79)
    assert policy.poll() is None
    policy.wait(1)
    assert isinstance(policy.poll(), StartEdge)


def test_answer_in_time_needs_no_edge() -> None:
    policy = Policy(edge_p95_s=0.12)
    policy.decide()
    order = policy.poll()
    assert order is not None
    policy.wait(100)
    policy.reply(order)
    policy.executor(policy.now - 100 * MS)
    policy.wait(200)
    assert policy.poll() is None
    assert policy.scheduler.counts["replies_cloud"] == 1


def test_answer_after_the_deadline_is_counted_as_late() -> None:
    policy = Policy(edge_p95_s=0.12)
    policy.decide()
    order = policy.poll()
    assert order is not None
    policy.wait(180)
    edge = policy.poll()
    policy.wait(120)
    assert policy.finish(edge)
    policy.executor(policy.now - 120 * MS)
    policy.wait(50)
    policy.poll()
    policy.reply(order)
    policy.reply(order)
    assert policy.scheduler.counts["late"] == 2
    assert policy.scheduler.counts["replies_cloud"] == 0


def test_answer_with_nan_hands_over_to_the_edge_at_once() -> None:
    policy = Policy()
    policy.decide()
    order = policy.poll()
    assert order is not None
    policy.wait(20)
    policy.reply(order, value=float("nan"))
    assert isinstance(policy.poll(), StartEdge)


def test_answer_from_before_a_clock_reset_is_no_answer() -> None:
    policy = Policy()
    policy.decide()
    order = policy.poll()
    assert order is not None
    policy.now -= 5000 * MS
    edge = policy.poll()
    policy.finish(edge)
    policy.wait(200)
    policy.executor()
    policy.reply(order)
    assert isinstance(policy.poll(), StartEdge)


def test_request_that_could_not_be_sent_hands_over_to_the_edge_at_once() -> None:
    policy = Policy()
    policy.decide()
    order = policy.poll()
    assert isinstance(order, StartCloud)
    policy.scheduler.on_cloud_failed(order.request_id)
    assert isinstance(policy.poll(), StartEdge)


def test_route_that_turns_to_edge_does_not_wait_for_the_request_in_flight() -> None:
    policy = Policy()
    policy.decide()
    policy.poll()
    policy.wait(20)
    policy.decide(Route.EDGE)
    assert isinstance(policy.poll(), StartEdge)


def test_first_preempt_seq_is_no_preemption_and_a_change_is_one() -> None:
    policy = Policy()
    policy.executor(policy.now)
    policy.wait(100)
    policy.executor(policy.now - 100 * MS)
    policy.decide(seq=7)
    assert policy.poll() is None
    policy.decide(seq=8)
    assert isinstance(policy.poll(), StartCloud)
    assert policy.poll() is None


def test_preemption_supersedes_the_request_in_flight_but_not_its_fallback() -> None:
    policy = Policy(edge_p95_s=0.12)
    policy.decide(seq=1)
    policy.poll()
    for seq in (2, 3):
        policy.wait(80)
        policy.decide(seq=seq)
        assert isinstance(policy.poll(), StartCloud)
    policy.wait(20)
    assert isinstance(policy.poll(), StartEdge)
    assert policy.scheduler.counts["superseded"] == 2


def test_one_edge_inference_in_flight() -> None:
    policy = Policy()
    policy.decide(Route.EDGE, seq=1)
    order = policy.poll()
    for seq in range(2, 5):
        policy.wait(100)
        policy.executor(None, STARVED)
        policy.decide(Route.EDGE, seq=seq)
        assert policy.poll() is None
    policy.finish(order)
    assert isinstance(policy.poll(), StartEdge)


def test_failed_edge_inference_rests_before_the_next() -> None:
    policy = Policy(retry_s=0.5)
    order = policy.poll()
    assert isinstance(order, StartEdge)
    assert not policy.scheduler.on_edge_done(order.request_id, policy.now, ok=False)
    policy.wait(499)
    assert policy.poll() is None
    policy.wait(1)
    assert isinstance(policy.poll(), StartEdge)


def test_chunk_of_an_earlier_instruction_is_not_published() -> None:
    policy = Policy()
    order = policy.poll()
    assert policy.scheduler.on_instruction("press the button")
    assert not policy.finish(order)


def test_same_instruction_again_is_no_news() -> None:
    policy = Policy()
    episode = policy.scheduler.episode_id
    assert not policy.scheduler.on_instruction(" open the drawer ")
    assert policy.scheduler.episode_id == episode


def test_empty_instruction_stops_until_the_executor_has_stopped() -> None:
    policy = Policy(stop_repeat_s=0.2)
    policy.executor(policy.now)
    policy.scheduler.on_instruction("")
    first = policy.poll()
    assert isinstance(first, Stop)
    assert first.episode_id == policy.scheduler.episode_id
    policy.executor(policy.now)
    assert policy.poll() is None
    policy.wait(200)
    policy.executor(policy.now - 200 * MS)
    assert isinstance(policy.poll(), Stop)
    policy.wait(200)
    policy.executor(None, IDLE)
    assert policy.poll() is None
    assert policy.scheduler.status(policy.steady) == "no instruction"


def test_silent_executor_leaves_one_edge_inference_per_idle_period_and_no_cloud() -> None:
    policy = Policy(executor_timeout_s=1.0, idle_period_s=1.0)
    policy.wait(1100)
    started = []
    for _ in range(300):
        policy.wait(10)
        policy.decide()
        order = policy.poll()
        if order is not None:
            started.append(order)
            policy.finish(order)
    assert len(started) == 3
    assert "no executor_state" in policy.scheduler.status(policy.steady)


def test_ids_overtake_a_predecessor_whose_wall_clock_was_ahead() -> None:
    policy = Policy()
    policy.executor(policy.now - 100 * MS, episode=5000)
    assert policy.scheduler.episode_id == 5001
    order = policy.poll()
    assert isinstance(order, StartEdge)
    assert order.episode_id == 5001


def test_second_policy_process_silences_the_first() -> None:
    policy = Policy()
    policy.executor(policy.now)
    policy.executor(policy.now, episode=5000)
    policy.wait(500)
    assert policy.poll() is None
    assert "another policy" in policy.scheduler.status(policy.steady)


def test_clock_that_goes_back_voids_stamps_and_the_inference_in_flight() -> None:
    policy = Policy()
    policy.executor(policy.now)
    policy.wait(500)
    policy.executor(policy.now - 500 * MS)
    order = policy.poll()
    assert isinstance(order, StartEdge)
    policy.now = 20 * MS
    assert policy.poll() is None
    assert not policy.finish(order)
    policy.executor(None, IDLE)
    assert isinstance(policy.poll(), StartEdge)
    assert policy.scheduler.edge_p95_s == policy.scheduler.config.edge_p95_s


def test_config_comes_from_the_policy() -> None:
    spec = PolicySpec("p", (), (), ("x",), 10, 0.1, "cartesian_velocity", replan_rows=5)
    config = SchedulerConfig.of_policy(spec, edge_p95_s=0.3)
    assert (config.horizon, config.period_s, config.replan_rows) == (10, 0.1, 5)
    assert config.edge_p95_s == 0.3


def test_senseless_config_is_an_error() -> None:
    with pytest.raises(ValueError, match="replan_rows 9"):
        SchedulerConfig(horizon=8, replan_rows=9)
    with pytest.raises(ValueError, match="period_s"):
        SchedulerConfig(period_s=0.0)
