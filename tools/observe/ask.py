"""Asks a Prometheus every expression of the dashboards, alerts and runbooks: `ask.py http://127.0.0.1:9090`, and behind it for how many
seconds to wait for answers, and a file to keep them in as JSON. An expression that is refused fails, and so does one without an
answer, unless it asks for what is only there when something is wrong."""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import dashboards
import inventory
import main
import promql

# What Grafana puts in.
VARIABLES = {"$__rate_interval": "2m", "$instance": ".*"}


class Refused(Exception):
    """Prometheus does not understand an expression, or does not answer."""


def asked(prometheus, expression):
    """The series that answer."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=30) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise Refused(f"{expression}: {error.read().decode()}") from error


def questions(known):
    """Yields where, the expression, and whether an answer must come."""
    for name in dashboards.DASHBOARDS:
        for panel, expression in dashboards.queries(name):
            yield f"{name}: {panel.title}", expression, not panel.quiet and not _on_demand(expression, known)
    for rule in main.alerts():
        yield rule["alert"], rule["expr"], False
    for file, block in main.runbook_blocks("promql"):
        for expression in block.strip().splitlines():
            yield file.stem, expression, False


def _on_demand(expression, known):
    return all(metric[0] in known and known[metric[0]].on_demand for metric in promql.read(expression)[0])


def ask_all(prometheus, patience_s):
    """Asks until all that must have answered have; gives answers by question, and those that did not come."""
    known = inventory.load((main.ROOT / "docs/metrics.md").read_text())
    todo, answers = list(questions(known)), {}
    end = time.monotonic() + patience_s
    while True:
        for where, expression, must in todo:
            answers[where, expression] = (must, asked(prometheus, expression))
        todo = [(*key, must) for key, (must, series) in answers.items() if must and not series]
        if not todo or time.monotonic() > end:
            return answers, todo
        time.sleep(0.5)


def what_is_named_is_there(prometheus, known):
    """Yields a sentence for each metric that is named and was told by nobody, though it should be there in any healthy deployment; and
    for each label that an expression uses and no series of its metric has. Those on demand, the scenario `telemetry` provokes."""
    seen = set()
    for where, expression in main.expressions():
        for name, matchers in promql.read(expression)[0]:
            if name not in seen and name in known and not known[name].on_demand and not asked(prometheus, f"last_over_time({name}[10m])"):
                yield f"{where}: nobody has told {name}"
            seen.add(name)
            for label in matchers:
                if (name, label) in seen or label in inventory.TARGETS or name in inventory.ITS_OWN:
                    continue
                seen.add((name, label))
                # An error's type is only where there is an error.
                if label != "error_type" and asked(prometheus, name) and not asked(prometheus, f'{name}{{{label}!=""}}'):
                    yield f"{where}: no series of {name} has a label {label}"


def run(prometheus, patience_s=0.0, keep=None):
    """Asks, and tells; gives the number of problems."""
    try:
        answers, missing = ask_all(prometheus, patience_s)
        wrong = list(what_is_named_is_there(prometheus, inventory.load((main.ROOT / "docs/metrics.md").read_text())))
    except (Refused, urllib.error.URLError) as error:
        print(f"observe: {error}")
        return 1
    answered = sum(1 for _, series in answers.values() if series)
    print(f"observe: {len(answers)} expressions, all understood; {answered} with an answer, {len(answers) - answered} with nothing to show")
    if keep:
        told = [{"where": where, "expression": expression, "must": must, "answer": series} for (where, expression), (must, series) in answers.items()]
        Path(keep).write_text(json.dumps(told, indent=1))
    for where, expression, _ in missing:
        print(f"observe: nothing to show, and it should be: {where}: {expression}")
    for sentence in wrong:
        print(f"observe: {sentence}")
    return len(missing) + len(wrong)


if __name__ == "__main__":
    url, seconds, file = (*sys.argv[1:], *("0", None)[len(sys.argv) - 2 :])
    sys.exit(1 if run(url, float(seconds), file) else 0)
