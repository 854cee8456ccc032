"""Each rule finds what it is for: manifests that are spoiled in one place, and the sentence that must come."""

import copy
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import compose
import configuration
import kustomize
import main
import network
import pods

ROOT = main.ROOT
BINARY = str(ROOT / "target/debug/causeway")
PRODUCTION = kustomize.render(ROOT / "k8s/overlays/production")


def spoiled(kind, name, spoil):
    """The production manifests, spoiled in one object."""
    objects = copy.deepcopy(PRODUCTION)
    spoil(next(item for item in objects if item["kind"] == kind and item["metadata"]["name"].startswith(name)))
    return objects


def pod(item):
    return item["spec"]["template"]["spec"]


def container(item):
    return pod(item)["containers"][0]


class Pods(unittest.TestCase):
    def test_every_rule(self):
        for sentence, spoil in {
            "privileged": lambda item: container(item)["securityContext"].update(privileged=True),
            "may gain rights": lambda item: container(item)["securityContext"].pop("allowPrivilegeEscalation"),
            "root file system": lambda item: container(item)["securityContext"].update(readOnlyRootFilesystem=False),
            "keeps capabilities": lambda item: container(item)["securityContext"].update(capabilities={"drop": []}),
            "runs as root": lambda item: container(item)["securityContext"].update(runAsUser=0),
            "numbered user": lambda item: pod(item)["securityContext"].pop("runAsNonRoot"),
            "seccomp": lambda item: pod(item)["securityContext"].pop("seccompProfile"),
            "token is mounted": lambda item: pod(item).pop("automountServiceAccountToken"),
            "default service account": lambda item: pod(item).pop("serviceAccountName"),
            "hostNetwork": lambda item: pod(item).update(hostNetwork=True),
            "folder of the node": lambda item: pod(item)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
            "others may read": lambda item: pod(item)["volumes"].append({"name": "x", "secret": {"secretName": "x"}}),
            "has no bound": lambda item: pod(item)["volumes"].append({"name": "x", "emptyDir": {}}),
            "not pinned": lambda item: container(item).update(image="causeway:latest"),
            "no limits of cpu": lambda item: container(item)["resources"]["limits"].pop("cpu"),
            "no requests of memory": lambda item: container(item)["resources"]["requests"].pop("memory"),
            "no livenessProbe": lambda item: container(item).pop("livenessProbe"),
            "does not ask /ready": lambda item: container(item)["readinessProbe"]["httpGet"].update(path="/live"),
            "secret in the environment": lambda item: container(item).setdefault("env", []).append(
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x"}}}
            ),
            "before the others have found": lambda item: item["spec"].pop("minReadySeconds"),
            "not spread": lambda item: pod(item).pop("topologySpreadConstraints"),
        }.items():
            with self.subTest(sentence):
                found = list(pods.check(spoiled("Deployment", "edge", spoil)))
                self.assertTrue(any(sentence in one for one in found), found)

    def test_the_namespace_and_budgets(self):
        found = list(pods.check(spoiled("Namespace", "causeway", lambda item: item["metadata"].pop("labels"))))
        self.assertTrue(any("not restricted" in one for one in found), found)
        without = [item for item in PRODUCTION if item["kind"] != "PodDisruptionBudget"]
        self.assertIn("edge: no PodDisruptionBudget", list(pods.check(without)))

    def test_what_is_pinned(self):
        for image in ("redis:7.4.5-bookworm", "ghcr.io/x/causeway:0.1.0", "host:5000/x@sha256:" + "0" * 64):
            self.assertTrue(pods.pinned(image), image)
        for image in ("redis", "redis:latest", "host:5000/x", "redis:stable"):
            self.assertFalse(pods.pinned(image), image)


class Configuration(unittest.TestCase):
    def found(self, kind, name, spoil):
        return list(configuration.check(spoiled(kind, name, spoil), BINARY))

    def test_every_rule(self):
        variable = lambda name, value: lambda item: container(item).setdefault("env", []).append({"name": name, "value": value})
        for sentence, spoil in {
            "edge.max_conections: there is no such field": variable("CAUSEWAY_EDGE__MAX_CONECTIONS", "1"),
            "CAUSEWAY_EDGE_LISTEN is no setting": variable("CAUSEWAY_EDGE_LISTEN", "1"),
            "edge.handshakes_per_s": variable("CAUSEWAY_EDGE__HANDSHAKES_PER_S", "0"),
            "listens on [7443, 7445, 7460], and its container opens": lambda item: container(item)["ports"].pop(),
            "and its container opens [7443": variable("CAUSEWAY_EDGE__LISTEN", "0.0.0.0:7999"),
            "no such Service": variable("CAUSEWAY_SERVER__ROUTING_URLS", '["https://router:7451"]'),
            "names port 7450": variable("CAUSEWAY_SERVER__ROUTING_URLS", '["dns+https://routing:7450"]'),
            "other pods than routing's": variable("CAUSEWAY_SERVER__ROUTING_URLS", '["dns+https://key-directory:7450"]'),
            "not headless": variable("CAUSEWAY_SERVER__DIRECTORY_URLS", '["dns+https://key-directory-operator:7444"]'),
            "noise.key is mounted by nothing": lambda item: container(item)["volumeMounts"].pop(2),
            "is killed after 10 s": lambda item: pod(item).update(terminationGracePeriodSeconds=10),
            "no preStop": lambda item: container(item).pop("lifecycle"),
            "needs 8000 ms to leave": variable("CAUSEWAY_SERVER__SHUTDOWN_GRACE_MS", "9000"),
            "runs `causeway routing`": lambda item: container(item)["args"].__setitem__(0, "routing"),
            "ConfigMap gone is not there": lambda item: container(item)["envFrom"][0]["configMapRef"].update(name="gone"),
        }.items():
            with self.subTest(sentence):
                found = self.found("Deployment", "edge", spoil)
                self.assertTrue(any(sentence in one for one in found), found)


    def test_the_ingress(self):
        objects = [item for item in PRODUCTION if item["metadata"]["name"] != "edge-websocket"]
        found = list(configuration.check_ingress(objects))
        self.assertTrue(len(found) == 1 and "edge.messenger.example leads to" in found[0], found)


class Network(unittest.TestCase):
    def found(self, name, spoil):
        return list(network.check(spoiled("NetworkPolicy", name, spoil), "production"))

    def test_every_rule(self):
        everywhere = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}], "ports": [{"port": 443}]}
        claims = {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "media-relay"}}}], "ports": [{"port": 7450}]}
        for name, sentence, spoil in [
            ("edge", "edge -> anyone:443 may leave", lambda item: item["spec"]["egress"].append(everywhere)),
            ("edge", "edge -> routing:7451 is an arrow, and may not leave", lambda item: item["spec"]["egress"].pop(0)),
            ("key-directory", "media-relay -> key-directory:7450 may arrive", lambda item: item["spec"]["ingress"].append(claims)),
            ("routing", "edge -> routing:7451 is an arrow, and may not arrive", lambda item: item["spec"]["ingress"].pop(0)),
            ("edge", "a rule without peers", lambda item: item["spec"]["egress"].append({"ports": [{"port": 1}]})),
            ("nobody", "closes the namespace", lambda item: item["spec"].update(policyTypes=["Ingress"])),
        ]:
            with self.subTest(sentence):
                found = self.found(name, spoil)
                self.assertTrue(any(sentence in one for one in found), found)

    def test_the_picture(self):
        text = (ROOT / "docs/architecture.md").read_text()
        found = list(network.check_picture(text.replace("    R --- DB1\n", "    R --- DB1\n    M --- DB2\n")))
        self.assertTrue(any("draws media-relay -> directory" in one for one in found), found)
        found = list(network.check_picture(text.replace("    R --- DB1\n", "")))
        self.assertTrue(any("has routing -> mailbox" in one for one in found), found)


class Schemas(unittest.TestCase):
    def test_a_field_that_is_none(self):
        found = list(main.schemas(spoiled("Deployment", "edge", lambda item: pod(item).update(containres=[]))))
        self.assertTrue(any("containres" in one for one in found), found)

    def test_a_metric_that_is_none(self):
        spoil = lambda item: item["spec"]["metrics"][0]["pods"]["metric"].update(name="causeway_edge_conections")
        found = list(main.metrics(spoiled("HorizontalPodAutoscaler", "edge", spoil)))
        self.assertTrue(any("causeway_edge_conections" in one for one in found), found)

    def test_what_the_renderer_does_not_know(self):
        with self.assertRaises(kustomize.Refused):
            kustomize._step({"a": 1}, {"op": "move", "path": "/a", "value": 1})


class Compose(unittest.TestCase):
    def test_every_rule(self):
        tree = compose.load(ROOT)
        load = compose.load
        environment = lambda name, **values: lambda services: services[name]["environment"].update(values)
        for sentence, spoil in {
            "edge-1: causeway: configuration: field edge.fo": environment("edge-1", CAUSEWAY_EDGE__FO="1"),
            "edge-1: publishes 127.0.0.1:7443:1": lambda services: services["edge-1"].update(ports=["127.0.0.1:7443:1"]),
            "to more than this machine": lambda services: services["edge-1"].update(ports=["7443:7443"]),
            "redis: image redis:latest is not pinned": lambda services: services["redis"].update(image="redis:latest"),
            "redis: image redis:9.0.0 is not in README.md": lambda services: services["redis"].update(image="redis:9.0.0"),
            "routing-1: is killed after 10 s": lambda services: services["routing-1"].pop("stop_grace_period"),
            "front: runs as root": lambda services: services["front"].update(user="0"),
            "front: may gain rights": lambda services: services["front"].pop("security_opt"),
            "front: mounts ./gone": lambda services: services["front"]["volumes"].append("./gone:/x"),
            "front: mounts /etc of this machine": lambda services: services["front"]["volumes"].append("/etc:/x"),
            "grafana: GF_PASSWORD is a secret": lambda services: services["grafana"]["environment"].update(GF_PASSWORD="x"),
            "server.routing_urls names": environment("edge-1", CAUSEWAY_SERVER__ROUTING_URLS='["https://routing-1:7451"]'),
            "and nothing listens there": environment("edge-1", CAUSEWAY_SERVER__MEDIA_URLS='["https://media-relay-1:1"]'),
            "there is no prometheus": lambda services: services.pop("prometheus"),
            "there are 1 of edge": lambda services: services.pop("edge-2"),
        }.items():
            with self.subTest(sentence):
                broken = copy.deepcopy(tree)
                spoil(broken["services"])
                compose.load = lambda _root, broken=broken: broken
                try:
                    found = list(compose.check(ROOT, BINARY))
                finally:
                    compose.load = load
                self.assertTrue(any(sentence in one for one in found), found)


class Files(unittest.TestCase):
    """Dockerfile and workflows, in a folder of their own."""

    def found(self, check, path, spoil):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for file in ("Dockerfile", ".dockerignore", "Cargo.toml", "rust-toolchain.toml"):
                shutil.copy(ROOT / file, root)
            shutil.copytree(ROOT / ".github", root / ".github")
            shutil.copytree(ROOT / ".ci", root / ".ci")
            main_file = Path("services/causeway/src/main.rs")
            (root / main_file).parent.mkdir(parents=True)
            shutil.copy(ROOT / main_file, root / main_file)
            (root / "tools").mkdir()
            shutil.copy(ROOT / "tools/sbom.py", root / "tools")
            self.assertEqual(list(check(root)), [])
            text = (root / path).read_text()
            changed = spoil(text)
            self.assertNotEqual(text, changed)
            (root / path).write_text(changed)
            return list(check(root))

    def test_every_rule(self):
        workflow = ".github/workflows/release.yml"
        for check, path, sentence, old, new in [
            (compose.check_dockerfile, "Dockerfile", "neither a dated", "debian:bookworm-20250520-slim AS tools", "debian:12 AS tools"),
            (compose.check_dockerfile, "Dockerfile", "is not from Rust", "FROM rust:1.", "FROM rust:2."),
            (compose.check_dockerfile, "Dockerfile", "keep to Cargo.lock", "--release --locked", "--release"),
            (compose.check_dockerfile, "Dockerfile", "no build is like", "--remap-path-prefix", "--remap"),
            (compose.check_dockerfile, "Dockerfile", "numbered user", "USER 65532:65532\n# The root", "USER root\n# The root"),
            (compose.check_dockerfile, "Dockerfile", "which build they are", "ENV CAUSEWAY_BUILD=", "ENV BUILD="),
            (compose.check_dockerfile, "Dockerfile", "bill of materials of the crates", "/out/causeway.cdx.json", "/out/causeway.json"),
            (compose.check_workflows, workflow, "which commit runs", "CAUSEWAY_BUILD=", "BUILD="),
            (compose.check_dockerfile, ".dockerignore", "docs/configuration.md, which services/", "!docs/configuration.md\n", ""),
            (compose.check_dockerfile, ".dockerignore", "proto is not in the build's context", "!proto\n", ""),
            (compose.check_workflows, workflow, "not pinned", "actions/checkout@v4.2.2", "actions/checkout@v4"),
            (compose.check_workflows, workflow, "say permissions", "permissions:\n  contents: read\nconcurrency", "concurrency"),
            (compose.check_workflows, workflow, "no bound on its time", "    timeout-minutes: 120\n", ""),
            (compose.check_workflows, workflow, "which is not there", "tools/sbom.py", "tools/bom.py"),
        ]:
            with self.subTest(sentence):
                found = self.found(check, path, lambda text, old=old, new=new: text.replace(old, new))
                self.assertTrue(any(sentence in one for one in found), found)


if __name__ == "__main__":
    unittest.main()
