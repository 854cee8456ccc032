"""Each check finds what it is for."""

import copy
import sys
import unittest
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))

import dashboards
import inventory
import main
import promql

KNOWN = inventory.load((main.ROOT / "docs/metrics.md").read_text())


def problems(expression):
    return list(main.named([("here", expression)], KNOWN))


class Names(unittest.TestCase):
    def test_what_is_right_is_taken(self):
        for expression in (
            'sum by (class) (rate(causeway_edge_messages_total{outcome="delivered", instance=~"$instance"}[$__rate_interval]))',
            "histogram_quantile(0.99, sum by (le, service) (rate(causeway_edge_login_duration_seconds_bucket[5m]))) > 0.5",
            'up{service="edge"} == 0 unless on (instance) causeway_process_state{state=~"starting|draining"} == 1',
            'max(ALERTS{alertstate="firing"}) or vector(0)',
        ):
            self.assertEqual(problems(expression), [])

    def test_what_is_wrong_is_told(self):
        for expression, sentence in {
            "sum(causeway_edge_conections)": "causeway_edge_conections is not in",
            "rate(causeway_edge_messages[5m])": "causeway_edge_messages is not in",
            "rate(causeway_edge_login_duration_seconds[5m])": "causeway_edge_login_duration_seconds is not in",
            'causeway_edge_links{stat="up"}': "has no label stat",
            'causeway_edge_links{state="upp"}': "has no state=upp",
            'causeway_edge_links{state=~"up|gone"}': "has no state=gone",
            "sum by (reason) (causeway_edge_links)": "has a label reason",
            "sum by (le) (rate(causeway_edge_login_duration_seconds_count[5m]))": "has a label le",
            "summ(causeway_edge_links)": "summ",
        }.items():
            with self.subTest(expression):
                self.assertTrue(any(sentence in one for one in problems(expression)), problems(expression))

    def test_metrics_with_their_labels(self):
        metrics, grouped = promql.read('sum by (a) (rate(b{c="d e", f=~"g|h"}[5m])) / on (i) group_left j offset 1d')
        self.assertEqual(metrics, [("b", {"c": ("=", "d e"), "f": ("=~", "g|h")}), ("j", {})])
        self.assertEqual(grouped, {"a", "i"})


class Alerts(unittest.TestCase):
    def setUp(self):
        self.rules = main.alerts()
        self.runbooks = {file.stem for file in main.RUNBOOKS.glob("*.md")}

    def found(self, sentence):
        told = list(main.told(self.rules, self.runbooks))
        self.assertTrue(any(sentence in one for one in told), told)

    def test_an_alert_without_a_runbook(self):
        self.runbooks.remove("CausewayLoginsFail")
        self.found("CausewayLoginsFail: no runbook")

    def test_a_runbook_without_an_alert(self):
        self.runbooks.add("CausewayOld")
        self.found("CausewayOld.md: no such alert")

    def test_an_alert_without_what_it_needs(self):
        self.rules[0]["labels"] = {"severity": "bad"}
        self.rules[0]["annotations"] = {"summary": "x"}
        for sentence in ("severity bad", "no description", "called otherwise"):
            self.found(sentence)

    def test_an_alert_that_is_not_tested(self):
        self.rules.append({"alert": "CausewayNew"})
        self.assertEqual(list(main.tested(self.rules)), ["CausewayNew: no test sees it fire", "CausewayNew: no test sees it quiet"])

    def test_a_file_that_was_changed_by_hand(self):
        files = {main.ROOT / "deploy/grafana/dashboards/edge.json": dashboards.render("edge") + " "}
        told = list(main.unwritten(files))
        self.assertIn("deploy/grafana/dashboards/edge.json: run tools/observe/main.py write", told)
        self.assertIn("deploy/grafana/dashboards/overview.json: nothing makes it", told)


class Places(unittest.TestCase):
    def test_what_is_mounted_elsewhere(self):
        tree = yaml.safe_load((main.ROOT / "docker-compose.yml").read_text())
        self.assertEqual(list(main.provisioned(tree)), [])
        for name, sentences in {"prometheus": ["is not deploy/prometheus"], "grafana": ["nothing is read", "begins with"]}.items():
            spoiled = copy.deepcopy(tree)
            spoiled["services"][name]["volumes"] = ["./deploy/compose:/elsewhere:ro"]
            told = " ".join(main.provisioned(spoiled))
            for sentence in sentences:
                self.assertIn(sentence, told)


class Commands(unittest.TestCase):
    def test_what_does_not_exist(self):
        binaries = main.ROOT / "target/debug"
        for words, sentence in {
            "causewayctl fly": "is not a command",
            "causewayctl provider --speed 3 list": "has no --speed",
            "causeway edge --config causeway.toml": "",
            "causewayctl provider --operator-token-file operator.token list": "",
        }.items():
            told = list(main._accepted("x.md", words.split(), binaries, {}))
            self.assertTrue(sentence in told[0] if sentence else not told, told)


if __name__ == "__main__":
    unittest.main()
