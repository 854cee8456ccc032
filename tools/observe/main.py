"""Dashboards, alerts and runbooks: `main.py check` says what is not as it must be, `main.py write` writes what is made from others.

The dashboards' JSON is made from dashboards.py, k8s/base/alerts.yaml from deploy/prometheus/alerts.yml.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

import dashboards
import inventory
import promql

sys.path.append(str(Path(__file__).resolve().parents[1]))

from report import Report

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
RUNBOOKS = ROOT / "docs/runbooks"
TESTS = ROOT / "tests/alerts"
HEAD = "# Written by tools/observe/main.py from deploy/prometheus/alerts.yml: for the Prometheus operator.\n"
SECTIONS = ["What it means", "What users notice", "How to look", "What to do"]
# How runbooks' commands begin, and what their arguments are held against.
PROGRAMS = {"curl", "docker", "kubectl", "causewayctl", "causeway", "psql", "redis-cli", "openssl", "promtool"}


def made():
    """Every file that is made from another, with its text."""
    files = {ROOT / f"deploy/grafana/dashboards/{name}.json": dashboards.render(name) for name in dashboards.DASHBOARDS}
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "causeway"},
        "spec": yaml.safe_load(ALERTS.read_text()),
    }
    files[ROOT / "k8s/base/alerts.yaml"] = HEAD + yaml.safe_dump(rule, sort_keys=False, width=125, allow_unicode=True)
    return files


def alerts():
    """All alerting rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def runbook_blocks(kind):
    """Yields file and text of each block of this kind in the runbooks."""
    for file in sorted(RUNBOOKS.glob("*.md")):
        for block in re.findall(rf"^ *```{kind}\n(.*?)^ *```", file.read_text(), re.MULTILINE | re.DOTALL):
            yield file, block


def expressions():
    """Yields where and what: every expression of dashboards, alerts and runbooks."""
    for name in dashboards.DASHBOARDS:
        for panel, expression in dashboards.queries(name):
            yield f"{name}.json: {panel.title}", expression
        chosen = dashboards.DASHBOARDS[name][1]
        if chosen:
            yield f"{name}.json: its processes", chosen
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for file, block in runbook_blocks("promql"):
        for expression in block.strip().splitlines():
            yield file.name, expression


def unwritten(files):
    """Yields a sentence for each file that is not what it is made from."""
    for file, text in files.items():
        if not file.exists() or file.read_text() != text:
            yield f"{file.relative_to(ROOT)}: run tools/observe/main.py write"
    folder = ROOT / "deploy/grafana/dashboards"
    for file in folder.glob("*.json"):
        if file not in files:
            yield f"{file.relative_to(ROOT)}: nothing makes it"


def named(named_in, known):
    """Yields a sentence for each metric, label or value that docs/metrics.md does not have."""
    for where, expression in named_in:
        try:
            metrics, grouped = promql.read(expression)
        except promql.Unknown as error:
            yield f"{where}: {error}"
            continue
        theirs = set()
        for name, matchers in metrics:
            if name in inventory.ITS_OWN:
                theirs |= inventory.ITS_OWN[name] | inventory.TARGETS
                continue
            metric = known.get(name)
            if metric is None:
                yield f"{where}: {name} is not in docs/metrics.md"
                continue
            theirs |= set(metric.labels) | inventory.TARGETS
            for label, (operator, value) in matchers.items():
                if label not in metric.labels and label not in inventory.TARGETS:
                    yield f"{where}: {name} has no label {label}"
                yield from _values(where, metric, label, operator, value)
        for label in grouped - theirs:
            yield f"{where}: none of its metrics has a label {label}"


def _values(where, metric, label, operator, value):
    listed = metric.labels.get(label)
    if not listed or label in inventory.TARGETS or not value:
        return
    for one in value.split("|") if "~" in operator else [value]:
        if one not in listed and not any(re.fullmatch(one, known) for known in listed):
            yield f"{where}: {metric.name} has no {label}={one}"


def told(rules, known_files):
    """Yields a sentence for each alert without what it needs, and each runbook without an alert."""
    names = {rule["alert"] for rule in rules}
    for rule in rules:
        name, severity = rule["alert"], rule["labels"].get("severity")
        if severity not in ("critical", "warning"):
            yield f"{name}: severity {severity}"
        if not {"summary", "description"} <= set(rule["annotations"]):
            yield f"{name}: no summary, or no description"
        if rule["annotations"].get("runbook") != f"docs/runbooks/{name}.md":
            yield f"{name}: its runbook is called otherwise"
    for name in sorted(names - known_files):
        yield f"{name}: no runbook"
    for name in sorted(known_files - names - {"README"}):
        yield f"docs/runbooks/{name}.md: no such alert"
    index = (RUNBOOKS / "README.md").read_text()
    for name in sorted(names):
        if f"({name}.md)" not in index:
            yield f"docs/runbooks/README.md: {name} is not in it"


def sections():
    """Yields a sentence for each runbook that leaves out a part."""
    for file in sorted(RUNBOOKS.glob("Causeway*.md")):
        found = re.findall(r"^## (.*)$", file.read_text(), re.MULTILINE)
        if found != SECTIONS:
            yield f"{file.name}: its parts are {found}"


def commands(binaries):
    """Yields a sentence for each command of the runbooks that does not exist."""
    compose = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
    kinds = {"deployment/causewayctl", "deployment/edge", "deployment/key-directory", "deployment/media-relay", "statefulset/routing"}
    asked = {}
    # What is named within a line, too.
    for file in sorted(RUNBOOKS.glob("*.md")):
        for words in map(str.split, re.findall(r"`(causeway(?:ctl)? [a-z][^`\n]*)`", file.read_text())):
            yield from _accepted(file.name, words, binaries, asked)
    for file, block in runbook_blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            if words[0] not in PROGRAMS:
                yield f"{file.name}: {words[0]} is not a program of the runbooks"
            elif words[:2] == ["docker", "compose"] and (gone := {word for word in words[3:] if re.fullmatch(r"[a-z-]+-\d", word)} - compose):
                yield f"{file.name}: docker-compose.yml has no {gone}"
            elif words[0] == "kubectl":
                workloads = {word for word in words if re.match(r"(deployment|statefulset)/", word)}
                if gone := workloads - kinds:
                    yield f"{file.name}: k8s has no {gone}"
            elif words[0] in ("causewayctl", "causeway"):
                yield from _accepted(file.name, words, binaries, asked)


def _accepted(where, words, binaries, asked):
    """Whether the program knows the subcommands, and the options."""
    plain = [word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*", word)][:2]
    options = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
    for length in range(len(plain), 0, -1):
        key = (words[0], *plain[:length])
        if key not in asked:
            ran = subprocess.run([binaries / key[0], *key[1:], "--help"], capture_output=True, text=True, check=False)
            asked[key] = ran.stdout if ran.returncode == 0 else None
        if asked[key] is not None:
            helps = asked[key] + (asked.get(key[:2]) or "")
            for option in sorted(options):
                if option not in helps:
                    yield f"{where}: `{' '.join(key)}` has no {option}"
            return
    yield f"{where}: `{' '.join(words)}` is not a command"


def tested(rules):
    """Yields a sentence for each alert that no test sees fire, or none sees quiet."""
    fires, quiet = set(), set()
    for file in sorted(TESTS.glob("*.yml")):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                (fires if case.get("exp_alerts") else quiet).add(case["alertname"])
    for name in sorted({rule["alert"] for rule in rules}):
        if name not in fires:
            yield f"{name}: no test sees it fire"
        if name not in quiet:
            yield f"{name}: no test sees it quiet"


def promtool(*arguments):
    """Yields what promtool has to say, if it says no."""
    ran = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT)
    if ran.returncode != 0:
        yield from (ran.stdout + ran.stderr).strip().splitlines()


def configured():
    """Yields a sentence if deploy/prometheus/prometheus.yml is not as Prometheus wants it, but for its rules' place."""
    yield from promtool("check", "config", "--syntax-only", ROOT / "deploy/prometheus/prometheus.yml")


def provisioned(tree):
    """Yields a sentence for each file that docker-compose.yml does not put where Prometheus and Grafana look for it."""
    mounts = {}
    for name in ("prometheus", "grafana"):
        mounts |= {mount.split(":")[1]: ROOT / mount.split(":")[0] for mount in tree["services"][name]["volumes"]}

    def here(path):
        return next((source / str(path).removeprefix(target + "/") for target, source in mounts.items() if path.startswith(target)), None)

    settings = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    for pattern in settings["rule_files"]:
        found = here(pattern)
        if found is None or ALERTS not in found.parent.glob(found.name):
            yield f"prometheus.yml: {pattern} is not {ALERTS.relative_to(ROOT)}"
    folder = ROOT / "deploy/grafana/dashboards"
    providers = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/causeway.yaml").read_text())["providers"]
    if [mounts.get(provider["options"]["path"]) for provider in providers] != [folder]:
        yield f"grafana: nothing is read from {folder.relative_to(ROOT)}"
    home = here(tree["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    if home != folder / "overview.json":
        yield f"grafana: begins with {home}"


def check(binaries):
    """Runs all checks; gives the number of problems."""
    report = Report()
    part = report.part
    known = inventory.load((ROOT / "docs/metrics.md").read_text())
    rules, all_expressions = alerts(), list(expressions())
    files = {file.stem for file in RUNBOOKS.glob("*.md")}
    part("dashboards, and the rules for Kubernetes, are what they are made from", unwritten(made()))
    part(f"{len(all_expressions)} expressions name metrics and labels of docs/metrics.md", named(all_expressions, known))
    part(f"{len(rules)} rules have a severity, a summary, a runbook, and runbooks an alert", told(rules, files))
    part("runbooks have their parts", sections())
    part("runbooks' commands exist", commands(binaries))
    part("docker-compose.yml puts them where they are looked for", provisioned(yaml.safe_load((ROOT / "docker-compose.yml").read_text())))
    part("promtool: rules", promtool("check", "rules", ALERTS))
    part("promtool: configuration", configured())
    part("every alert is seen to fire, and to be quiet", tested(rules))
    part("promtool: alerts fire on their series, and not otherwise", promtool("test", "rules", *sorted(TESTS.glob("*.yml"))))
    return report.problems


def main(arguments):
    """`write`, or `check` with the folder of the programs that the runbooks use."""
    if arguments[:1] == ["write"]:
        for file, text in made().items():
            file.write_text(text)
        return 0
    return 1 if check(Path(arguments[1]) if arguments[1:] else ROOT / "target/debug") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
