"""docs/metrics.md, as a tree: what there is to be looked at."""

import re
from dataclasses import dataclass, field

# What Prometheus adds: by itself, by deploy/prometheus/prometheus.yml, and by the PodMonitor of k8s/base/monitoring.yaml.
TARGETS = {"job", "instance", "service"}
ITS_OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
WORD = re.compile(r"`([^`]+)`")


@dataclass
class Metric:
    """One metric, as Prometheus shows it."""

    name: str
    kind: str
    on_demand: bool = False
    # Of each label the values it may have, where they are listed; else none.
    labels: dict = field(default_factory=dict)


def load(text):
    """All metrics by the names that can be asked for, a histogram by three."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        metric = Metric(cells[1].strip("`"), cells[2], "*On demand" in line, _labels(cells[4]))
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        for suffix in suffixes:
            labels = {**metric.labels, "le": None} if suffix == "_bucket" else metric.labels
            found[metric.name + suffix] = Metric(metric.name + suffix, metric.kind, metric.on_demand, labels)
    return found


def _labels(cell):
    """`label`: `value`, `value`; `label`, ... A word with a dot or before a colon is a label, and so is one alone."""
    labels = {}
    for part in cell.split(";"):
        names, colon, values = part.partition(":")
        # A label alone, or "`class`, `outcome` as above", or "or `error.type`: ..." behind values.
        for name in WORD.findall(names):
            listed = set(WORD.findall(values)) if colon else set()
            closed = bool(listed) and not re.search(r"\ba \w+ |such as|the |, \.\.\.", values)
            labels[name.replace(".", "_")] = listed if closed else None
        for name in re.findall(r"or `([a-z.]+)`:", values):
            labels[name.replace(".", "_")] = None
    return labels
