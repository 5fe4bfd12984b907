"""The report in a real browser, without a network: Chromium as Debian packages it."""

import pytest
from report_runs import bare_run, full_run

pytest.importorskip(
    "plotly", reason="plotly is not installed: pip install 'ros_vla_accel[report]'"
)
pytest.importorskip("websockets", reason="websockets is not installed: pip install websockets")

import browser as chromium

from ros_vla_accel.replay.report import page

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no chromium found: apt-get install chromium"
)

READY = "document.documentElement.dataset.ready === 'true'"
RANGES = "[...document.querySelectorAll('.plot')].map((p) => p.layout.xaxis.range)"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(full_run()).html())
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    browser = chromium.Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(shared, report):
    shared.errors.clear()
    shared.requests.clear()
    shared.size(1200, 900)
    shared.open(report, READY)
    yield shared
    assert shared.errors == []
    assert shared.requests == []


def close_to(ranges, low, high):
    return all(abs(a - low) < 0.3 and abs(b - high) < 0.3 for a, b in ranges)


def test_every_panel_is_drawn_with_its_data(browser):
    drawn = browser.run(
        "[...document.querySelectorAll('.plot')].map((p) => [p.id,"
        " p.querySelectorAll('.trace').length, p.querySelectorAll('.main-svg').length])"
    )
    assert len(drawn) == 12
    for name, traces, surfaces in drawn:
        assert traces > 0, name
        assert surfaces > 0, name


def test_zooming_one_panel_with_the_mouse_zooms_all(browser):
    box = browser.run(
        "(() => { const e = document.querySelector('#speed .nsewdrag');"
        " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    left, top, width, height = box
    across = top + height / 2

    def mouse(kind, share):
        browser.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=left + share * width,
            y=across,
            button="left",
            buttons=1,
            clickCount=1,
        )

    mouse("mousePressed", 0.25)
    for share in (0.3, 0.4, 0.5):
        mouse("mouseMoved", share)
    mouse("mouseReleased", 0.5)
    browser.until(f"{RANGES}.every(([a, b]) => b - a < 20)")
    assert close_to(browser.run(RANGES), 7.5, 15.0)
    frames = browser.run("[...document.querySelectorAll('#strip-0 small')].map(e => e.innerText)")
    assert all(6.9 <= float(text.split()[0]) <= 15.6 for text in frames)


def test_the_buttons_zoom_move_and_show_everything_again(browser):
    def press(value):
        browser.run(f"document.querySelector('nav button[value={value}]').click()")

    press("in")
    browser.until(f"{RANGES}.every(([a, b]) => b - a < 16)")
    assert close_to(browser.run(RANGES), 7.5, 22.5)
    press("on")
    browser.until(f"{RANGES}.every(([a, b]) => b > 29)")
    assert close_to(browser.run(RANGES), 15.0, 30.0)
    press("all")
    browser.until(f"{RANGES}.every(([a, b]) => b - a > 29)")
    assert close_to(browser.run(RANGES), 0.0, 30.0)


def test_the_vertical_axis_fits_what_is_shown(browser):
    browser.run("show([0.6, 1.0]).then(() => true)")  # before the first spike
    height = "document.getElementById('torque')._fullLayout.yaxis.range[1]"
    browser.until(f"{height} < 3")
    browser.run("show(full).then(() => true)")
    browser.until(f"{height} > 8")


def test_a_pointer_marks_its_moment_in_every_panel(browser):
    box = browser.run(
        "(() => { const e = document.querySelector('#bits .nsewdrag');"
        " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
        " return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    shown = "[...document.querySelectorAll('.cursor')].map((e) => e.style.display === 'block')"
    browser.until(f"{shown}.every(Boolean)")
    assert browser.run("document.querySelectorAll('.strip .now').length") == 2


def test_a_phone_shows_it_without_scrolling_sideways(browser, report):
    browser.size(390, 844, phone=True)
    browser.open(report, READY)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    widths = browser.run("[...document.querySelectorAll('.plot')].map((p) => p.layout.width)")
    assert max(widths) <= 390
    assert not browser.run("document.getElementById('speed').layout.dragmode")


def test_paper_gets_plots_that_fit(browser):
    browser.run("dispatchEvent(new Event('beforeprint'))")
    browser.until("document.getElementById('link').layout.width === 680")


def test_a_recording_with_nothing_to_draw_is_still_a_page(shared, tmp_path):
    path = tmp_path / "bare.html"
    path.write_text(page(bare_run()).html())
    shared.errors.clear()
    shared.open(path, READY)
    assert "Not in this recording" in shared.run("document.body.innerText")
    assert shared.errors == []
