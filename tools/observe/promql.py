"""As much of PromQL as is needed to say which metrics and labels an expression names. Whether it is right, Prometheus says."""

import re

TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<duration>\[[^\]]*\])|(?P<name>[A-Za-z_:][\w:.]*)"""
    r"""|(?P<operator>=~|!~|!=|==|>=|<=|[{}(),=<>+\-*/%^@])|(?P<number>\d[\w.]*)|(?P<space>\s+)|(?P<other>.)"""
)
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = GROUPING | {"and", "or", "unless", "bool", "offset", "inf", "nan"}
FUNCTIONS = {
    "absent", "avg", "avg_over_time", "count", "histogram_quantile", "increase", "label_values", "max", "max_over_time", "min",
    "min_over_time", "rate", "resets", "sum", "time", "topk", "vector",
}  # fmt: skip


class Unknown(Exception):
    """A word that is neither a function that is known here nor a metric."""


def read(expression):
    """Metrics, as (name, {label: (operator, value)}), and the labels that are grouped by."""
    tokens = [(match.lastgroup, match.group()) for match in TOKEN.finditer(expression) if match.lastgroup != "space"]
    metrics, grouped, at = [], set(), 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "other":
            raise Unknown(f"{text!r} in {expression}")
        if kind == "name" and text in GROUPING and following == "(":
            end = tokens.index(("operator", ")"), at)
            grouped |= {word for sort, word in tokens[at:end] if sort == "name"} - GROUPING
            at = end
        elif kind == "name" and text in FUNCTIONS:
            pass
        elif kind == "name" and following == "(":
            raise Unknown(f"{text} in {expression}")
        elif kind == "name" and text not in WORDS:
            labels = {}
            if following == "{":
                end = tokens.index(("operator", "}"), at)
                inside = tokens[at + 2 : end]
                for one, (sort, word) in enumerate(inside):
                    if sort == "name":
                        labels[word] = (inside[one + 1][1], inside[one + 2][1][1:-1])
                at = end
            metrics.append((text, labels))
        at += 1
    return metrics, grouped
