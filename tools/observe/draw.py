"""Draws a dashboard as Grafana would show it, from a Prometheus that has looked on: `draw.py http://127.0.0.1:9090 overview overview.png`, and
behind it how many minutes back (15). For documents, and for where there is no Grafana. Needs matplotlib, which nothing else here does."""

import json
import math
import sys
import time
import urllib.parse
import urllib.request

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.dates import DateFormatter, date2num
from matplotlib.ticker import FuncFormatter

import dashboards
from ask import VARIABLES

COLUMN_IN, LINE_IN = 0.62, 0.34
BACK, PANEL, TEXT, DIM = "#111217", "#181b1f", "#ccccdc", "#8e8e9c"
COLORS = {"green": "#73bf69", "#EAB839": "#eab839", "red": "#f2495c"}
LINES = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#37872d", "#fade2a", "#447ebc", "#c15c17", "#890f02"]
POINTS = 120


def get(prometheus, path, **query):
    """Series of an answer."""
    with urllib.request.urlopen(f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def shown(value, unit):
    """A number, as short as Grafana writes it."""
    if value is None or math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return "0 s" if value == 0 else f"{value * 1e3:.3g} ms"
    step, names = (1024, ["B", "KiB", "MiB", "GiB"]) if unit in ("bytes", "Bps") else (1000, ["", "K", "M", "G"])
    after = {"mps": " msg/s", "ops": " /s", "Bps": "/s"}.get(unit, "")
    for name in names[:-1]:
        if abs(value) < step:
            return f"{value:.3g} {name}".strip() + after
        value /= step
    return f"{value:.3g} {names[-1]}{after}"


def called(legend, labels):
    """A line's name."""
    if legend == "__auto":
        return " ".join(value for key, value in labels.items() if key != "__name__")
    for key, value in labels.items():
        legend = legend.replace("{{" + key + "}}", value)
    while "{{" in legend:
        legend = legend[: legend.index("{{")] + legend[legend.index("}}") + 2 :]
    return legend


def stat(axes, panel, prometheus, now):
    """A number in the colour of its threshold."""
    series = get(prometheus, "query", query=panel["targets"][0]["expr"], time=now)
    value = float(series[0]["value"][1]) if series else None
    defaults, color = panel["fieldConfig"]["defaults"], TEXT
    if panel["options"]["colorMode"] == "value" and value is not None:
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is None or value >= step["value"]:
                color = COLORS[step["color"]]
    axes.text(0.5, 0.45, shown(value, defaults["unit"]), color=color, fontsize=22, ha="center", va="center", transform=axes.transAxes)
    axes.axis("off")


def table(axes, panel, prometheus, now):
    """What is so now, a line each."""
    axes.axis("off")
    series = get(prometheus, "query", query=panel["targets"][0]["expr"], time=now)
    lines = [" · ".join(entry["metric"].values()) for entry in series[:8]] or ["(nothing)"]
    axes.text(0.02, 0.95, "\n".join(lines), color=TEXT if series else DIM, fontsize=8, ha="left", va="top", transform=axes.transAxes)


def graph(axes, panel, prometheus, start, now):
    """Lines over time, stacked or not."""
    defaults = panel["fieldConfig"]["defaults"]
    count = int(min(POINTS, (now - start) / 5))
    step, lines = (now - start) / count, []
    for target in panel["targets"]:
        for series in get(prometheus, "query_range", query=target["expr"], start=start, end=now, step=step):
            points = {round((at - start) / step): float(value) for at, value in series["values"]}
            lines.append((called(target["legendFormat"], series["metric"]), [points.get(index, math.nan) for index in range(count + 1)]))
    lines.sort(key=lambda line: line[0])
    times = [date2num(time_of(start + index * step)) for index in range(count + 1)]
    if defaults["custom"]["stacking"]["mode"] == "normal" and lines:
        values = [[0 if math.isnan(value) else value for value in line] for _, line in lines]
        axes.stackplot(times, values, labels=[name for name, _ in lines], colors=LINES, alpha=0.6)
    else:
        for index, (name, line) in enumerate(lines):
            axes.plot(times, line, label=name, color=LINES[index % len(LINES)], linewidth=1)
    axes.set_xlim(times[0], times[-1])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults["unit"])))
    axes.tick_params(colors=DIM, labelsize=6, length=0)
    axes.grid(color="#2c3235", linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if lines:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=3, fontsize=5.5, frameon=False, labelcolor=DIM)
    else:
        axes.text(0.5, 0.5, "nothing to show", color=DIM, fontsize=8, ha="center", va="center", transform=axes.transAxes)


def time_of(seconds):
    """A moment, for matplotlib."""
    return mpl.dates.num2date(seconds / 86400)


def draw(prometheus, name, file, minutes):
    """The whole dashboard as a picture."""
    now = time.time()
    chosen = dashboards.DASHBOARDS[name][1]
    instances = {series["metric"]["instance"] for series in get(prometheus, "query", query=chosen)} if chosen else ()
    text = dashboards.render(name)
    for variable, value in {**VARIABLES, "$instance": "|".join(sorted(instances))}.items():
        text = text.replace(variable, value)
    panels = json.loads(text)["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = 24 * COLUMN_IN, lines * LINE_IN
    figure = plt.figure(figsize=(width, height), facecolor=BACK)
    for panel in panels:
        place = panel["gridPos"]
        left, bottom = place["x"] * COLUMN_IN / width, 1 - (place["y"] + place["h"]) / lines
        wide, high = place["w"] * COLUMN_IN / width, place["h"] / lines
        if panel["type"] == "row":
            figure.text(left + 0.005, bottom + high / 2, panel["title"], color=TEXT, fontsize=12, weight="bold", va="center")
            continue
        frame = (left + 0.003, bottom + 0.06 / height, wide - 0.006, high - 0.12 / height)
        figure.add_artist(mpl.patches.Rectangle(frame[:2], *frame[2:], facecolor=PANEL, transform=figure.transFigure, zorder=-1))
        figure.text(left + 0.008, bottom + high - 0.24 / height, panel["title"], color=TEXT, fontsize=8, va="center")
        if panel["type"] == "timeseries":
            inside = (left + 0.045, bottom + 0.62 / height, wide - 0.055, high - 1.07 / height)
            graph(figure.add_axes(inside, facecolor=PANEL), panel, prometheus, now - 60 * minutes, now)
            continue
        axes = figure.add_axes((left + 0.006, bottom + 0.1 / height, wide - 0.012, high - 0.55 / height), facecolor=PANEL)
        (stat if panel["type"] == "stat" else table)(axes, panel, prometheus, now)
    figure.savefig(file, facecolor=BACK, dpi=100)


if __name__ == "__main__":
    draw(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]) if sys.argv[4:] else 15)
