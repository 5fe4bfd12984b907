"""Triggers on motion whose critical moments are known, and on what sensors really send."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ros_vla_accel.kinematics.joints import JointReader, JointSample
from ros_vla_accel.partition.dispatcher import Dispatcher
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers, TriggerSignals
from ros_vla_accel.sim.env import SawyerEnv

MS = 1_000_000
JOINTS = 7
CONTACT_S, TURN_S = 2.0, 3.5


def motion(
    rate_hz: int = 100,
    duration_s: float = 4.5,
    noise: float = 1.0,
    effort: bool = True,
    seed: int = 0,
) -> list[JointSample]:
    """Slow until the torque jumps at CONTACT_S, then fast, and turning round at TURN_S."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    base = np.linspace(0.5, 1.0, JOINTS)
    ramp = np.clip((t - 2.4) / 0.6, 0, 1) * (1 - 2 * np.clip((t - TURN_S) / 0.1, 0, 1))
    velocity = np.outer(0.02 + 0.8 * ramp, base)
    torque = np.outer(1.0 + 8.0 * np.clip((t - CONTACT_S) / 0.02, 0, 1), base)
    velocity += noise * rng.normal(0, 0.001, velocity.shape)
    torque += noise * rng.normal(0, 0.03, torque.shape)
    position = np.cumsum(velocity, axis=0) / rate_hz
    return [
        JointSample(round(s * 1e9), p, v, e if effort else None)
        for s, p, v, e in zip(t, position, velocity, torque, strict=True)
    ]


def signals_of(samples: Iterable[JointSample], **settings: float) -> list[TriggerSignals]:
    triggers = Triggers(TriggerConfig(**settings))
    return [triggers.update(sample) for sample in samples]


def preemptions_s(samples: Iterable[JointSample]) -> list[float]:
    triggers, dispatcher = Triggers(), Dispatcher()
    stamps = [s.stamp_ns for s in samples if dispatcher.update(triggers.update(s))]
    return [stamp_ns * 1e-9 for stamp_ns in stamps]


def critical_share(signals: list[TriggerSignals]) -> float:
    return sum(s.critical for s in signals) / len(signals)


def test_anomalies_are_those_of_the_direct_formulas() -> None:
    samples = motion(duration_s=20.0)
    config = TriggerConfig(window_s=2.0)
    signals = signals_of(samples, window_s=2.0)
    velocity = np.array([s.velocity for s in samples])
    effort = np.array([s.effort for s in samples])
    a = np.linalg.norm(np.diff(velocity, axis=0), axis=1) / 0.01
    change = np.linalg.norm(np.diff(effort, axis=0), axis=1) / 0.01
    d = np.array([change[max(0, k - 4) : k + 1].mean() for k in range(len(change))])
    for k in range(1000, len(a), 7):
        signal = signals[k + 1]
        for level, eps, got, anomaly in (
            (a, config.acceleration_eps, signal.acceleration, signal.acceleration_anomaly),
            (d, config.torque_eps, signal.torque, signal.torque_anomaly),
        ):
            past = level[k - 200 : k]
            assert got == pytest.approx(level[k])
            assert anomaly == pytest.approx(
                max(0.0, (level[k] - past.mean()) / (past.std() + eps)), abs=1e-6
            )
        weight = min(1.0, float(np.linalg.norm(velocity[k + 1])) / config.speed_ref)
        assert signal.velocity_weight == pytest.approx(weight)
        assert signal.importance == pytest.approx(
            weight * signal.acceleration_anomaly + (1 - weight) * signal.torque_anomaly
        )


def test_contact_at_low_speed_is_found_by_torque_and_a_turn_at_speed_by_acceleration() -> None:
    signals = signals_of(motion())
    by_reason = {
        reason: [s.stamp_ns * 1e-9 for s in signals if s.critical and s.reason == reason]
        for reason in ("torque", "acceleration")
    }
    assert by_reason["torque"][0] == pytest.approx(CONTACT_S, abs=0.03)
    assert by_reason["acceleration"][-1] == pytest.approx(TURN_S, abs=0.15)
    assert by_reason["acceleration"][0] > CONTACT_S + 0.3


@pytest.mark.parametrize("rate_hz", [50, 125, 250, 500, 1000])
def test_preemptions_do_not_depend_on_the_rate_of_the_sensor(rate_hz: int) -> None:
    found = preemptions_s(motion(rate_hz, noise=0.0))
    expected = preemptions_s(motion(100, noise=0.0))
    assert len(found) == len(expected) == 2
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("rate_hz", [100, 500, 1000])
def test_sensor_noise_of_an_arm_at_rest_is_not_critical(rate_hz: int) -> None:
    rng = np.random.default_rng(1)
    zero = np.zeros(JOINTS)
    samples = [
        JointSample(
            round(k / rate_hz * 1e9),
            zero,
            rng.normal(0, 0.002, JOINTS),
            rng.normal(0, 0.08, JOINTS),
        )
        for k in range(10 * rate_hz)
    ]
    assert critical_share(signals_of(samples)) < 0.005


def test_nothing_is_critical_before_the_window_is_filled() -> None:
    samples = [s for s in motion() if s.stamp_ns >= 1.2e9]
    early = [s for s in signals_of(samples) if s.stamp_ns < 2.2e9]
    assert {s.reason for s in early} == {"cold start"}
    assert all(s.importance == 0.0 and not s.critical for s in early)


def test_measurements_sent_again_with_later_stamps_change_no_preemption() -> None:
    samples = motion()
    again = [
        JointSample(s.stamp_ns + k * 2 * MS, s.position, s.velocity, s.effort)
        for s in samples
        for k in range(5)
    ]
    assert preemptions_s(again) == preemptions_s(samples)


@given(late=st.lists(st.tuples(st.integers(1, 449), st.integers(0, 900)), max_size=30))
def test_samples_with_old_stamps_change_nothing_but_a_count(late: list[tuple[int, int]]) -> None:
    samples = motion()
    stale: dict[int, list[JointSample]] = {}
    for index, back_ms in late:
        stamp_ns = samples[index].stamp_ns - back_ms * MS
        wild = JointSample(stamp_ns, np.zeros(JOINTS), np.full(JOINTS, 9.0), np.full(JOINTS, 99.0))
        stale.setdefault(index, []).append(wild)
    triggers = Triggers()
    got = []
    for index, sample in enumerate(samples):
        got.append(triggers.update(sample))
        for old in stale.get(index, []):
            assert not triggers.update(old).critical
    assert _known(got) == _known(signals_of(samples))
    assert triggers.rejected["stamp"] == len(late)


def _known(signals: list[TriggerSignals]) -> list[tuple[object, ...]]:
    """NaN equals nothing, so it is taken out."""
    return [tuple(None if item != item else item for item in s) for s in signals]


def test_jitter_and_bursts_of_stamps_are_no_motion() -> None:
    rng = np.random.default_rng(2)
    smooth = [s for s in motion(500) if s.stamp_ns < 1.9e9]
    bursts = [
        JointSample(
            s.stamp_ns // (10 * MS) * 10 * MS + (k % 5) * 100_000 + int(rng.integers(0, 90_000)),
            s.position,
            s.velocity,
            s.effort,
        )
        for k, s in enumerate(smooth)
    ]
    assert critical_share(signals_of(bursts)) < 0.01


def test_a_gap_means_a_cold_start_and_is_no_jump() -> None:
    samples = motion(duration_s=6.0)
    kept = [s for s in samples if not 3.0e9 < s.stamp_ns < 4.2e9]
    after = [s for s in signals_of(kept) if s.stamp_ns >= 4.2e9]
    assert all(s.reason == "cold start" for s in after if s.stamp_ns < 5.2e9)
    assert after[-1].reason == "redundant"


def test_a_clock_that_is_set_back_means_a_cold_start() -> None:
    triggers = Triggers()
    for sample in motion():
        triggers.update(sample)
    signals = [triggers.update(sample) for sample in motion()]
    assert _known(signals) == _known(signals_of(motion()))


def test_without_effort_the_acceleration_decides_alone_and_the_reason_says_so() -> None:
    signals = signals_of(motion(effort=False))
    warm = [s for s in signals if s.reason != "cold start"]
    assert {s.reason for s in warm} == {"acceleration", "no effort, acceleration alone"}
    assert all(s.velocity_weight == 1.0 and math.isnan(s.torque) for s in warm)
    assert min(s.stamp_ns for s in warm if s.critical) * 1e-9 == pytest.approx(2.4, abs=0.1)


def test_effort_that_never_changes_counts_as_none() -> None:
    zero = np.zeros(JOINTS)
    samples = [JointSample(s.stamp_ns, s.position, s.velocity, zero) for s in motion()]
    assert signals_of(samples)[-1].reason == "effort is constant, acceleration alone"


def test_one_message_without_effort_costs_the_torque_channel_that_sample_only() -> None:
    samples = motion()
    without = JointSample(samples[150].stamp_ns, samples[150].position, samples[150].velocity)
    signals = signals_of([*samples[:150], without, *samples[151:]])
    assert signals[150].reason == "no effort, acceleration alone"
    assert any(s.critical and s.reason == "torque" for s in signals)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e282])
@pytest.mark.parametrize("field", ["velocity", "effort"])
def test_values_that_are_no_measurement_are_counted_and_forgotten(field: str, bad: float) -> None:
    clean = motion()
    samples = list(clean)
    triggers = Triggers()
    for index in (0, 120, 121, 190):
        values = {"velocity": clean[index].velocity, "effort": clean[index].effort}
        values[field] = np.where(np.arange(JOINTS) == 3, bad, values[field])
        samples[index] = JointSample(clean[index].stamp_ns, clean[index].position, **values)
    signals = [triggers.update(sample) for sample in samples]
    assert triggers.rejected == {field: 4}
    assert all(math.isfinite(s.importance) for s in signals)
    assert not any(signals[index].critical for index in (0, 120, 121, 190))
    assert preemptions_s(samples) == pytest.approx(preemptions_s(clean), abs=0.011)


def test_order_of_joints_in_the_messages_does_not_matter() -> None:
    names = [f"joint_{k}" for k in range(JOINTS)]
    reader, rng = JointReader(names), np.random.default_rng(3)
    samples = motion()
    read = []
    for s in samples:
        order = rng.permutation(JOINTS)
        assert s.effort is not None
        shuffled = [names[k] for k in order]
        fields = (s.position[order], s.velocity[order], s.effort[order])
        read.append(reader.read(shuffled, *fields, s.stamp_ns))
    assert _known(signals_of(read)) == _known(signals_of(samples))


def test_without_velocity_that_made_from_positions_finds_the_same_moments() -> None:
    names = [f"joint_{k}" for k in range(JOINTS)]
    reader = JointReader(names)
    samples = motion()
    read = [reader.read(names, s.position, [], s.effort, s.stamp_ns) for s in samples]  # type: ignore[arg-type]
    np.testing.assert_allclose(preemptions_s(read), preemptions_s(samples), atol=0.03)


@pytest.mark.parametrize("task", ["pick-place", "drawer-open"])
def test_in_the_simulator_the_first_touch_of_the_object_is_critical_and_most_else_is_not(
    task: str,
) -> None:
    env = SawyerEnv(task, cameras=())
    triggers = Triggers()
    periods, offset_ns, touched = [], 0, 0
    for seed in range(4):
        env.reset(seed)
        start = env.privileged()["object"]
        moved_at, criticals = None, []
        for step in range(70):
            env.step(env.expert_action())
            critical = False
            for s in env.samples:
                stamp_ns = offset_ns + round(s.time_s * 1e9)
                sample = JointSample(stamp_ns, s.position, s.velocity, s.effort)
                critical |= triggers.update(sample).critical
            periods.append(critical)
            criticals += [step] if critical else []
            if moved_at is None and np.linalg.norm(env.privileged()["object"] - start) > 0.004:
                moved_at = step
        offset_ns = stamp_ns
        assert moved_at is not None
        touched += any(moved_at - 3 <= step <= moved_at + 3 for step in criticals)
    assert touched == 4
    assert 0.05 < np.mean(periods) < 0.25


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"window_s": 0.0}, "window_s is 0.0; it must be positive"),
        ({"theta_compat": math.nan}, "theta_compat is nan"),
        ({"gap_s": 0.9}, "gap_s is 0.9; it must be at most half of window_s"),
    ],
)
def test_settings_without_sense_are_errors(setting: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TriggerConfig(**setting)


def test_a_calibration_replaces_settings_by_name_and_an_unknown_one_is_an_error() -> None:
    config = TriggerConfig(cooldown_s=0.7).calibrated({"theta_compat": 1.5})
    assert (config.theta_compat, config.cooldown_s) == (1.5, 0.7)
    with pytest.raises(ValueError, match="trigger 'theta_compatt'; known: window_s"):
        config.calibrated({"theta_compatt": 1.5})


def test_triggers_see_only_while_both_channels_are_warm() -> None:
    seen = [s.sees for s in signals_of(motion(duration_s=3.0))]
    assert not any(seen[:100])
    assert all(seen[120:])
    assert not any(s.sees for s in signals_of(motion(duration_s=3.0, effort=False)))
    samples = motion(duration_s=4.0)
    gap = signals_of(samples[:200] + samples[240:])
    assert gap[199].sees
    assert not any(s.sees for s in gap[200:290])
