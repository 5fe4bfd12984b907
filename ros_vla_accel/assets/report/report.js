// Draws the panels, keeps their time axes and the camera strip together.
"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const full = report.range;
const touch = matchMedia("(pointer: coarse)").matches;
const plots = [];
let shown = full.slice();

function margins(legend) {
  const t = legend ? 26 : 8;
  return innerWidth < 600 ? { l: 56, r: 6, t, b: 26 } : { l: 56, r: 12, t, b: 28 };
}

function layoutOf(panel, width) {
  const font = { family: "system-ui, sans-serif", size: 11, color: "#1b2430" };
  return {
    font, width, height: panel.height, margin: margins(panel.legend), hovermode: "x unified",
    // A finger that scrolls the page must not zoom; the buttons do that.
    dragmode: touch ? false : "zoom",
    plot_bgcolor: "#fff", paper_bgcolor: "#fff",
    showlegend: panel.legend,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "#ffffff00" },
    ...panel.layout,
    xaxis: { range: shown.slice(), gridcolor: "#eceff3", zeroline: false, ticksuffix: " s",
      ticks: "outside", ticklen: 3, tickcolor: "#fff", hoverformat: ".3f", nticks: innerWidth < 600 ? 5 : 10 },
    yaxis: { tickfont: { size: innerWidth < 600 ? 10 : 11 }, gridcolor: "#eceff3", zeroline: false, fixedrange: true, rangemode: "tozero",
      ticks: "outside", ticklen: 4, tickcolor: "#fff", nticks: 6, ...panel.layout.yaxis },
  };
}

function draw(panel) {
  const element = document.getElementById(panel.id);
  const config = { displaylogo: false, responsive: false, displayModeBar: false,
    doubleClick: false, showTips: false };
  const layout = layoutOf(panel, element.parentElement.clientWidth);
  return Plotly.newPlot(element, panel.traces, layout, config).then(() => {
    plots.push(element);
    element.on("plotly_relayout", (change) => {
      const range = change["xaxis.range"] ||
        ("xaxis.range[0]" in change && [change["xaxis.range[0]"], change["xaxis.range[1]"]]);
      if (range) show(range);
    });
    element.on("plotly_doubleclick", () => show(full));
    element.on("plotly_hover", (event) => point(event.xvals ? event.xvals[0] : event.points[0].x));
    element.on("plotly_unhover", () => point(null));
  });
}

// Everything shows the same stretch of time, whoever asked for it; first what is on the screen.
async function show(range) {
  const least = Math.min(0.05, full[1] - full[0]);
  let [from, to] = [Math.max(range[0], full[0]), Math.min(range[1], full[1])];
  if (to - from < least) {
    from = Math.max(full[0], to - least);
    to = from + least;
  }
  if (from === shown[0] && to === shown[1]) return;
  shown = [from, to];
  label();
  strips();
  const seen = (plot) => {
    const { top, bottom } = plot.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  };
  await Promise.all(plots.filter(seen).map(follow));
  await new Promise((painted) => setTimeout(painted));
  await Promise.all(plots.map(follow));
}

function follow(plot) {
  const [from, to] = shown;
  const [low, high] = plot.layout.xaxis.range;
  if (plot.stretch === shown) return null;
  plot.stretch = shown;
  const change = heightOf(plot, from, to);
  if (low !== from || high !== to) change["xaxis.range"] = [from, to];
  return Object.keys(change).length ? Plotly.relayout(plot, change) : null;
}

// The vertical axis fits what is shown: one spike must not flatten the rest of the recording.
function heightOf(plot, from, to) {
  const panel = report.panels.find(({ id }) => id === plot.id);
  if (panel.layout.yaxis && panel.layout.yaxis.range) return {};
  if (from === full[0] && to === full[1]) return { "yaxis.autorange": true };
  let low = Infinity;
  let high = -Infinity;
  for (const { x, y, visible } of plot._fullData) {
    if (visible !== true) continue;
    for (let k = 0; k < x.length; k += 1) {
      // A line's points just outside still reach into the picture.
      const inside = (x[k + 1] ?? x[k]) >= from && (x[k - 1] ?? x[k]) <= to;
      if (inside && y[k] < low) low = y[k];
      if (inside && y[k] > high) high = y[k];
    }
  }
  if (low > high) return {};
  if (plot.layout.yaxis.rangemode === "tozero") [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const margin = 0.06 * (high - low) || 0.5;
  return { "yaxis.range": [low < 0 ? low - margin : low, high + margin] };
}

function label() {
  const output = document.getElementById("shown");
  if (!output) return;
  const digits = shown[1] - shown[0] < 10 ? 2 : 1;
  output.textContent = `${shown[0].toFixed(digits)} to ${shown[1].toFixed(digits)} s`;
}

function point(t) {
  for (const plot of plots) {
    const line = plot.parentElement.querySelector(".cursor");
    const axis = plot._fullLayout.xaxis;
    const inside = t !== null && t >= shown[0] && t <= shown[1];
    line.style.display = inside ? "block" : "none";
    if (!inside) continue;
    line.style.left = `${plot.offsetLeft + axis._offset + axis.d2p(t)}px`;
    line.style.top = `${plot.offsetTop + plot._fullLayout.margin.t}px`;
    line.style.height = `${plot._fullLayout.yaxis._length}px`;
  }
  strips(t);
}

// As many frames as have room, spread over the stretch shown; the one under the pointer instead
// of its neighbour.
function strips(at = null) {
  for (const strip of report.strips) {
    const element = document.getElementById(strip.id);
    const wide = element.clientWidth || 600;
    const count = Math.max(3, Math.min(14, Math.floor(wide / 76)));
    const width = (shown[1] - shown[0]) / count;
    const cells = [];
    for (let k = 0; k < count; k += 1) {
      const from = shown[0] + k * width;
      const now = at !== null && at >= from && at < from + width;
      cells.push({ index: nearest(strip.times, now ? at : from + width / 2), now });
    }
    while (element.children.length > count) element.lastChild.remove();
    while (element.children.length < count) {
      const cell = document.createElement("div");
      cell.append(document.createElement("img"), document.createElement("small"));
      element.append(cell);
    }
    cells.forEach(({ index, now }, k) => {
      const cell = element.children[k];
      cell.className = now ? "now" : "";
      if (cell.dataset.index === String(index)) return;
      cell.dataset.index = index;
      cell.firstChild.src = `data:image/jpeg;base64,${strip.images[index]}`;
      cell.firstChild.alt = `${strip.camera} at ${strip.times[index].toFixed(1)} s`;
      cell.lastChild.textContent = `${strip.times[index].toFixed(1)} s`;
    });
  }
}

function nearest(times, t) {
  let low = 0;
  let high = times.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] <= t) low = middle; else high = middle;
  }
  return t - times[low] <= times[high] - t ? low : high;
}

function resize(width) {
  for (const plot of plots) {
    const wanted = width || plot.parentElement.clientWidth;
    if (plot.layout.width !== wanted) Plotly.relayout(plot, { width: wanted });
  }
  strips();
}

const steps = {
  in: () => { const q = (shown[1] - shown[0]) / 4; return [shown[0] + q, shown[1] - q]; },
  out: () => { const h = (shown[1] - shown[0]) / 2; return [shown[0] - h, shown[1] + h]; },
  back: () => move(-0.5),
  on: () => move(0.5),
  all: () => full,
};
function move(share) {
  const width = shown[1] - shown[0];
  const from = Math.min(Math.max(shown[0] + share * width, full[0]), full[1] - width);
  return [from, from + width];
}
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => show(steps[button.value]()));
}

label();
strips();
Promise.all(report.panels.map(draw)).then(() => {
  resize();
  document.documentElement.dataset.ready = "true";
});
let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(resize, 100);
});
// Paper has a width of its own, which no resize event tells: A4 less its margins, at 96 dpi.
addEventListener("beforeprint", () => resize(680));
addEventListener("afterprint", () => resize());
