"""What every pod of ours must be: no rights, bounded, probed, pinned, and stopped with enough time."""

import re

from kustomize import WORKLOADS, pod

ROLES = ("edge", "routing", "key-directory", "media-relay")
# name:1, name:1.2.3-slim or a digest; not `latest`, not a bare name.
PINNED = re.compile(r"^[^:@\s]+(:\d+)?(/[^:@\s]+)*(:v?\d[\w.-]*)?(@sha256:[0-9a-f]{64})?$")
MARGIN_S = 5
# docs/operating.md, "A rolling restart": until the others have found a new process.
FOUND_S = 10
# docs/operating.md: answers under way, then who does not read is cut off.
EDGE_LEAVES_MS = 8_000


def pinned(image):
    """True if the image's name says which version it is."""
    last = image.rsplit("/", 1)[-1]
    return bool(PINNED.match(image)) and (":" in last or "@" in last)


def check(objects):
    """Yields a sentence for everything that is not as it must be."""
    for item in objects:
        if item["kind"] in WORKLOADS:
            yield from _workload(item)
        if item["kind"] == "Namespace":
            level = item["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
            if level != "restricted":
                yield f"Namespace {item['metadata']['name']}: pod security is {level}, not restricted"
    yield from _together(objects)


def _workload(item):
    where = f"{item['kind']} {item['metadata']['name']}"
    spec = pod(item)
    serves = item["kind"] not in {"Job", "CronJob"}
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{where}: the service account's token is mounted"
    if spec.get("serviceAccountName", "default") == "default":
        yield f"{where}: runs as the default service account"
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(flag):
            yield f"{where}: {flag} is set"
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield f"{where}: does not run as a numbered user other than root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{where}: no seccomp profile"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"{where}: volume {volume['name']} is a folder of the node"
        if "secret" in volume and volume["secret"].get("defaultMode", 0o644) & 0o007:
            yield f"{where}: volume {volume['name']} is a secret that others may read"
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"{where}: volume {volume['name']} has no bound"
    for container in spec.get("initContainers", []) + spec["containers"]:
        yield from _container(f"{where}, container {container['name']}", container, serves and container in spec["containers"])


def _container(where, container, probed):
    if not pinned(container["image"]):
        yield f"{where}: image {container['image']} is not pinned to a version or digest"
    security = container.get("securityContext", {})
    if security.get("privileged"):
        yield f"{where}: privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: may gain rights"
    if security.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: its root file system can be written"
    if security.get("capabilities", {}).get("drop") != ["ALL"] or security["capabilities"].get("add"):
        yield f"{where}: keeps capabilities"
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield f"{where}: runs as root"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        missing = {"cpu", "memory"} - set(resources.get(kind, {}))
        if missing:
            yield f"{where}: no {kind} of {' and '.join(sorted(missing))}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probed and probe not in container:
            yield f"{where}: no {probe}"
    for variable in container.get("env", []):
        if "secretKeyRef" in variable.get("valueFrom", {}):
            yield f"{where}: {variable['name']} is a secret in the environment; mount it as a file"


def _together(objects):
    by_kind = {}
    for item in objects:
        by_kind.setdefault(item["kind"], {})[item["metadata"]["name"]] = item
    guarded = set()
    for budget in by_kind.get("PodDisruptionBudget", {}).values():
        guarded.add(budget["spec"]["selector"]["matchLabels"].get("app.kubernetes.io/name"))
    workloads = {**by_kind.get("Deployment", {}), **by_kind.get("StatefulSet", {})}
    for role in ROLES:
        if role not in workloads:
            yield f"{role}: neither Deployment nor StatefulSet"
            continue
        spec = workloads[role]["spec"]["template"]["spec"]
        if workloads[role]["spec"].get("minReadySeconds", 0) < FOUND_S:
            yield f"{role}: a rollout goes on before the others have found the new pod (minReadySeconds of {FOUND_S})"
        if role not in guarded:
            yield f"{role}: no PodDisruptionBudget"
        if not spec.get("topologySpreadConstraints"):
            yield f"{role}: is not spread over zones and nodes"
        yield from _probes(role, spec["containers"][0])


def _probes(role, container):
    wanted = {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"}
    for probe, path in wanted.items():
        asked = container.get(probe, {}).get("httpGet", {})
        if asked.get("path") != path or asked.get("port") != "health":
            yield f"{role}: {probe} does not ask {path} on the port health"


def check_stop(role, spec, settings):
    """The time to stop holds preStop, the drain of the process, and a margin; what an edge needs fits into its drain."""
    before = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if not before:
        yield f"{role}: no preStop, so it drains before balancers and DNS have left it out"
    grace = settings.get("server", {}).get("shutdown_grace_ms", 15_000)
    needed = before + grace / 1000 + MARGIN_S
    given = spec.get("terminationGracePeriodSeconds", 30)
    if given < needed:
        yield f"{role}: is killed after {given} s and needs {needed:g} s (preStop, server.shutdown_grace_ms, {MARGIN_S} s)"
    if role == "edge" and grace * 4 / 5 < EDGE_LEAVES_MS:
        yield f"{role}: needs {EDGE_LEAVES_MS} ms to leave, more than four fifths of server.shutdown_grace_ms {grace}"
