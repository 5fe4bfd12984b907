"""One self-contained HTML page of panels, camera strips and tables."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from ros_vla_accel.replay.report_frames import Strip

# Nothing may be fetched: the browser itself enforces that the page works offline.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)

_BUTTONS = (
    ("all", "All", "whole recording"),
    ("in", "+", "zoom in"),
    ("out", "-", "zoom out"),
    ("back", "◀", "earlier"),
    ("on", "▶", "later"),
)


@dataclass(frozen=True)
class Panel:
    """One plot over time. traces: plotly traces, arrays as NumPy. layout: plotly layout on top of
    the common one. note: one sentence on what is drawn. height: px."""

    id: str
    title: str
    note: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 190

    @property
    def legend(self) -> bool:
        return sum(trace.get("showlegend", True) for trace in self.traces) > 1


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; the first column names the row, if there is more than one."""

    title: str
    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Page:
    """Everything in a report. span_s: the time axis. missing: (panel, why it is not there)."""

    title: str
    subtitle: str
    span_s: tuple[float, float]
    cards: Sequence[tuple[str, str]]
    summary: Sequence[Table]
    panels: Sequence[Panel]
    strips: Sequence[Strip]
    quality: Sequence[Table]
    missing: Sequence[tuple[str, str]]

    def html(self) -> str:
        """The page, with plotly.js (4.8 MB, MIT licence) inside."""
        style, script = (_asset(name) for name in ("report.css", "report.js"))
        parts = [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(self.title)}</title><style>{style}</style></head><body>",
            f'<header><h1>{_text(self.title)}</h1><p class="soft">{_text(self.subtitle)}</p>',
            f'<div class="cards">{"".join(_card(*card) for card in self.cards)}</div></header>',
            f'<section id="timeline"><h2>Timeline</h2>{self._timeline()}</section>',
            f'<section id="summary"><h2>Summary</h2>{_tables(self.summary)}</section>',
            f'<section id="quality"><h2>Data quality</h2>{_tables(self.quality)}</section>',
            self._missing(),
            "<footer class='soft'>Made by ros-vla-accel report. Drag over a plot to zoom all of "
            "them, double-click to see everything.</footer>",
            f'<script type="application/json" id="data">{self._data()}</script>',
            f"<script>{get_plotlyjs()}</script><script>{script}</script></body></html>",
        ]
        return "\n".join(parts)

    def _timeline(self) -> str:
        if not self.panels and not self.strips:
            return "<p>Nothing in this recording can be drawn; the reasons are below.</p>"
        buttons = "".join(
            f'<button value="{value}" title="{hint}" aria-label="{hint}">{text}</button>'
            for value, text, hint in _BUTTONS
        )
        strips = "".join(
            f'<figure><h3>Camera {_text(strip.camera)}</h3><div class="strip" id="{strip.id}">'
            "</div></figure>"
            for strip in self.strips
        )
        panels = "".join(
            f"<figure><h3>{_text(panel.title)}</h3><figcaption>{_text(panel.note)}</figcaption>"
            f'<div class="plot" id="{panel.id}" style="min-height:{panel.height}px"></div>'
            '<div class="cursor"></div></figure>'
            for panel in self.panels
        )
        return (
            f'<nav aria-label="time axis">{buttons}<output id="shown"></output></nav>'
            "<noscript>The plots need JavaScript; the tables below do not.</noscript>"
            f"{strips}{panels}"
        )

    def _missing(self) -> str:
        if not self.missing:
            return ""
        items = "".join(
            f"<li><b>{_text(name)}</b>: {_text(why)}</li>" for name, why in self.missing
        )
        return (
            '<section id="missing"><h2>Not in this recording</h2>'
            f'<ul class="missing">{items}</ul></section>'
        )

    def _data(self) -> str:
        data = {
            "range": list(self.span_s),
            "panels": [
                {
                    "id": panel.id,
                    "height": panel.height,
                    "legend": panel.legend,
                    "layout": panel.layout,
                    "traces": [_encode(trace) for trace in panel.traces],
                }
                for panel in self.panels
            ],
            "strips": [
                {
                    "id": strip.id,
                    "camera": strip.camera,
                    "times": [round(time, 3) for time in strip.times_s],
                    "images": [base64.b64encode(image).decode() for image in strip.images],
                }
                for strip in self.strips
            ],
        }
        # A "</script>" or "<!--" in the name of a topic would change how the page is read.
        return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _encode(value: Any) -> Any:
    """Arrays as plotly.js' typed arrays: a third of the bytes of decimal text."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        data = np.ascontiguousarray(value, "<f4").tobytes()
        return {"dtype": "f4", "bdata": base64.b64encode(data).decode()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    return value


def _asset(name: str) -> str:
    return files("ros_vla_accel").joinpath("assets", "report", name).read_text("utf-8")


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _card(name: str, value: str) -> str:
    return f'<div class="card"><b>{_text(value)}</b><span>{_text(name)}</span></div>'


def _tables(tables: Sequence[Table]) -> str:
    return f'<div class="columns">{"".join(_table(table) for table in tables)}</div>'


def _table(table: Table) -> str:
    head = ""
    if table.header:
        numeric = [_cell_class(cell) for cell in table.rows[0]]
        cells = "".join(
            f"<th{kind}>{_text(name)}</th>"
            for kind, name in zip(numeric, table.header, strict=True)
        )
        head = f"<thead><tr>{cells}</tr></thead>"
    body = "".join(_row(row, bool(table.header)) for row in table.rows)
    note = f'<p class="soft">{_text(table.note)}</p>' if table.note else ""
    content = f"{note}<table>{head}<tbody>{body}</tbody></table>"
    return f"<div><h3>{_text(table.title)}</h3>{content}</div>"


def _row(row: Sequence[str], numeric: bool) -> str:
    if len(row) == 1:
        return f"<tr><td>{_text(row[0])}</td></tr>"
    cells = "".join(
        f"<td{_cell_class(cell) if numeric else ''}>{_text(cell)}</td>" for cell in row[1:]
    )
    return f"<tr><th>{_text(row[0])}</th>{cells}</tr>"


def _cell_class(cell: str) -> str:
    return ' class="number"' if cell.replace(",", "").replace(".", "").isdigit() else ""
