"""The page of a report: what it says, how large it is, and that it fetches nothing."""

import json
import re

import numpy as np
import pytest
from bags import START_NS, STORE2, Extra, changed, motion, write2
from report_runs import bare_run, full_run

pytest.importorskip(
    "plotly", reason="plotly is not installed: pip install 'ros_vla_accel[report]'"
)

from ros_vla_accel.replay.pipeline import replay
from ros_vla_accel.replay.report import main, page

PANELS = [
    "speed",
    "scores",
    "sensitivity",
    "bits",
    "acceleration",
    "torque",
    "importance",
    "lanes",
    "latency",
    "starved",
    "cache",
    "link",
]


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S).group(1))


def without_plotly(html: str) -> str:
    from plotly.offline import get_plotlyjs

    return html.replace(get_plotlyjs(), "")


def test_a_full_recording_has_every_panel_and_nothing_missing():
    made = page(full_run())
    assert [panel.id for panel in made.panels] == PANELS
    assert not made.missing
    assert [strip.camera for strip in made.strips] == [
        "/arm/camera/corner2",
        "/arm/camera/gripper",
    ]


def test_what_is_missing_is_named_with_its_reason():
    made = page(bare_run())
    assert not made.panels
    assert len(made.missing) == len(PANELS) + 1
    html = made.html()
    assert "no joint state of this recording could be used (12 refused)" in html
    assert "no executor_state in the recording" in html


def test_arms_without_effort_get_everything_but_the_torque_panel():
    run = full_run()
    run.samples["torque"] = np.full_like(run.samples["torque"], np.nan)
    made = page(run)
    assert [panel.id for panel in made.panels] == [name for name in PANELS if name != "torque"]
    assert made.missing == [("Torque anomaly", "the joint states carry no effort that changes")]


def test_names_from_a_recording_are_text_and_never_markup():
    run = bare_run()
    run.bag = "<img src=x onerror=alert(1)>"
    run.frames = full_run().frames[:2]
    run.frames = [
        type(f)("</script><script>alert(1)</script>", f.t_s, f.image) for f in run.frames
    ]
    html = without_plotly(page(run).html())
    assert "<img src=x" not in html
    assert "<script>alert" not in html
    assert data_of(html)["strips"][0]["camera"] == "</script><script>alert(1)</script>"


def test_the_page_names_no_address_outside_of_plotly():
    html = without_plotly(page(full_run()).html())
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", html)
    assert "default-src 'none'" in html


def test_findings_are_counted_and_explained():
    html = page(bare_run()).html()
    for text in (
        "NaN or infinity: refused",
        "file read up to the damage",
        "/arm/joint_states&#x27;: 3.2 s off",
    ):
        assert text in html


def test_ten_minutes_stay_below_ten_megabytes():
    html = page(full_run(600.0, rate_hz=500.0)).html()
    assert len(html.encode()) < 10e6


def test_starved_ticks_go_on_counting_when_the_executor_restarts():
    run = full_run()
    executor = run.events["executor"]
    before = executor["starved_ticks"][-1] - executor["starved_ticks"][0]
    executor["starved_ticks"] = executor["starved_ticks"].copy()
    executor["starved_ticks"][300:] -= executor["starved_ticks"][300]
    cards = dict(page(run).cards)
    assert abs(int(cards["starved ticks"]) - before) <= 1


def test_the_command_turns_a_bag_into_a_page_and_says_how_large(tmp_path):
    bag = write2(tmp_path / "bag", motion(4.0))
    out, numbers = tmp_path / "report.html", tmp_path / "report.json"
    assert main([str(bag), "-o", str(out), "--json", str(numbers)]) == 0
    drawn = [panel["id"] for panel in data_of(out.read_text())["panels"]]
    assert drawn[:4] == ["speed", "scores", "sensitivity", "bits"]
    summary = json.loads(numbers.read_text())["summary"]
    assert summary["report_mb"] == pytest.approx(out.stat().st_size / 1e6)
    assert 0 < summary["replay_s"] < summary["report_s"]


def test_a_part_of_a_recording_keeps_its_times(tmp_path):
    bag = write2(tmp_path / "bag", motion(4.0))
    out = tmp_path / "report.html"
    assert main([str(bag), "-o", str(out), "--start", "1", "--duration", "2"]) == 0
    assert data_of(out.read_text())["range"] == pytest.approx([1.0, 3.0], abs=0.05)


def test_a_missing_bag_is_an_error_that_names_it(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "report.html")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def link_stats(stamp_ns: int):
    types = STORE2.types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
    return types["ros_vla_accel/msg/LinkStats"](
        header, 1, 3, "tcp://x", 5.0, 5.0, 1.0, 90.0, 5, 4, 1, 0, 100, 200, "", "", ""
    )


@pytest.mark.parametrize(("clock_s", "expected_s"), [(-1000.0, 3.0), (0.0, 4.502)])
def test_events_lie_beside_the_joint_states_that_their_clock_stamped(
    tmp_path, clock_s, expected_s
):
    """Simulated time stands still for 1.5 s; the link's message comes after that."""
    messages = changed(
        motion(4.0),
        range(400),
        header_ns=lambda m: m.header_ns - 1000 * 10**9,
        received_ns=lambda m: m.received_ns + (m.header_ns - START_NS >= 2 * 10**9) * 15 * 10**8,
    )
    at_ns = START_NS + 3 * 10**9
    link = link_stats(at_ns + round(clock_s * 1e9))
    extra = Extra("/link_stats", "ros_vla_accel/msg/LinkStats", [(at_ns + 1502 * 10**6, link)])
    run = replay(write2(tmp_path / "bag", messages, extras=(extra,)))
    assert run.events["link"]["t_s"] == pytest.approx([expected_s], abs=0.01)
