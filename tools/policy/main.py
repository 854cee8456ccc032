"""Checks the deployment files: `main.py PATH-OF-CAUSEWAY`. Prints what it checked; leaves with 1 if anything is not as it must be."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

import compose
import configuration
import kustomize
import network
import pods

sys.path.append(str(Path(__file__).resolve().parents[1]))

from report import Report

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.32"
# Kinds of others' operators; Kubernetes publishes no schemas of these.
FOREIGN = {
    ("barmancloud.cnpg.io/v1", "ObjectStore"),
    ("cert-manager.io/v1", "Certificate"),
    ("cert-manager.io/v1", "Issuer"),
    ("external-secrets.io/v1", "ExternalSecret"),
    ("external-secrets.io/v1", "SecretStore"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("postgresql.cnpg.io/v1", "Cluster"),
    ("postgresql.cnpg.io/v1", "ScheduledBackup"),
}


def schemas(objects):
    """Yields a sentence for each object that the published schema of its kind does not take."""
    for item in objects:
        name = f"{item['kind']} {item['metadata']['name']}"
        if (item["apiVersion"], item["kind"]) in FOREIGN:
            continue
        try:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            yield f"{name}: {error}"


def same_as_kubectl(folder, objects):
    """Yields a sentence for each object that the real Kustomize makes otherwise, where there is one."""
    kubectl = shutil.which("kubectl")
    version = kubectl and subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, check=False).stdout
    if not version or "Kustomize Version: v5" not in version:
        return
    made = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        yield f"kubectl kustomize: {made.stderr.strip()}"
        return
    key = lambda item: (item["kind"], item["metadata"]["name"])
    theirs = {key(item): item for item in yaml.safe_load_all(made.stdout)}
    ours = {key(item): item for item in objects}
    for name in sorted(set(ours) | set(theirs)):
        if ours.get(name) != theirs.get(name):
            yield f"{' '.join(name)}: kubectl kustomize makes something else of it"


def metrics(objects):
    """Yields a sentence for each custom metric that docs/metrics.md does not have."""
    known = (ROOT / "docs/metrics.md").read_text()
    for item in objects:
        if item["kind"] != "HorizontalPodAutoscaler":
            continue
        for entry in item["spec"]["metrics"]:
            name = entry.get("pods", {}).get("metric", {}).get("name")
            if name and f"`{name}`" not in known:
                yield f"HorizontalPodAutoscaler {item['metadata']['name']}: {name} is not in docs/metrics.md"


def materials():
    """Yields a sentence for each package that tools/sbom.py does not list."""
    made = subprocess.run([sys.executable, ROOT / "tools/sbom.py"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        yield f"tools/sbom.py: {made.stderr.strip()}"
        return
    listed = {(entry["name"], entry["version"]) for entry in json.loads(made.stdout)["components"] if entry["purl"]}
    for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]:
        if (package["name"], package["version"]) not in listed:
            yield f"{package['name']} {package['version']} is not in it"


def main(binary):
    """Runs all checks; gives the number of problems."""
    report = Report()
    part = report.part
    picture = (ROOT / "docs/architecture.md").read_text()
    part("arrows.yaml is the picture of docs/architecture.md", network.check_picture(picture))
    for overlay in ("local", "production"):
        folder = ROOT / "k8s/overlays" / overlay
        objects = kustomize.render(folder)
        part(f"k8s {overlay}: {len(objects)} objects fit the schemas of Kubernetes {KUBERNETES}", schemas(objects))
        part(f"k8s {overlay}: rendered as by kubectl, where that is installed", same_as_kubectl(folder, objects))
        part(f"k8s {overlay}: pods have no rights, bounds, probes, pinned images", pods.check(objects))
        part(f"k8s {overlay}: settings, ports, addresses and files fit the program", configuration.check(objects, binary))
        part(f"k8s {overlay}: the ingress leads to Services", configuration.check_ingress(objects))
        part(f"k8s {overlay}: NetworkPolicies allow the arrows and nothing else", network.check(objects, overlay))
        part(f"k8s {overlay}: what autoscaling asks for is a metric", metrics(objects))
    part("docker-compose.yml: images, rights, names, settings, ports", compose.check(ROOT, binary))
    part("Dockerfile: pinned, locked, without rights", compose.check_dockerfile(ROOT))
    part("workflows: pinned, bounded, with few rights", compose.check_workflows(ROOT))
    part("bill of materials: every package of Cargo.lock", materials())
    return report.problems


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1]) else 0)
