"""Renders the part of Kustomize that k8s/ uses, so that its tests need no cluster tools.

Known: resources, namespace, labels (with templates), configMapGenerator (files, literals, merge), images, replicas, and patches
(strategic merge and JSON 6902). Anything else is refused, never passed over. Where `kubectl` is installed, the check compares
what comes out with its own.
"""

import copy
import hashlib
import json
import re
from pathlib import Path

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "labels", "configMapGenerator", "images", "replicas", "patches"}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterIssuer"}
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}
# By what a strategic merge tells the entries of a list apart.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}


class Refused(Exception):
    """The files use something that is not known here, or do not fit together."""


def render(folder):
    """All objects that the kustomization in this folder makes."""
    objects = _build(Path(folder))
    _rename(objects)
    for item in objects:
        item["metadata"].pop("_hashed", None)
    return objects


def _build(folder):
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(plan) - KNOWN
    if unknown:
        raise Refused(f"{folder}: {sorted(unknown)} is not known to this renderer")
    objects = []
    for name in plan.get("resources", []):
        path = folder / name
        if path.is_dir():
            objects += _build(path)
        else:
            objects += [item for item in yaml.safe_load_all(path.read_text()) if item]
    for entry in plan.get("configMapGenerator", []):
        _generate(folder, entry, objects)
    for patch in plan.get("patches", []):
        _patch(folder, patch, objects)
    for item in objects:
        _decorate(item, plan)
    return objects


def _generate(folder, entry, objects):
    data = {}
    for name in entry.get("files", []):
        key, _, path = name.rpartition("=")
        data[key or Path(path).name] = (folder / path).read_text()
    for literal in entry.get("literals", []):
        key, _, value = literal.partition("=")
        data[key] = value
    if entry.get("behavior", "create") == "merge":
        named = [item for item in objects if item["kind"] == "ConfigMap" and item["metadata"]["name"] == entry["name"]]
        if len(named) != 1:
            raise Refused(f"{folder}: no ConfigMap {entry['name']} to merge with")
        named[0]["data"].update(data)
        return
    metadata = {"name": entry["name"], "_hashed": True}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _decorate(item, plan):
    metadata = item["metadata"]
    if "namespace" in plan and item["kind"] not in CLUSTER_WIDE:
        metadata["namespace"] = plan["namespace"]
    templates = _templates(item)
    for entry in plan.get("labels", []):
        if entry.get("includeSelectors"):
            raise Refused("labels with includeSelectors are not known to this renderer")
        metadata.setdefault("labels", {}).update(entry["pairs"])
        for template in templates if entry.get("includeTemplates") else []:
            template.setdefault("metadata", {}).setdefault("labels", {}).update(entry["pairs"])
    for entry in plan.get("replicas", []):
        if metadata["name"] == entry["name"] and item["kind"] in {"Deployment", "StatefulSet"}:
            item["spec"]["replicas"] = entry["count"]
    for container in containers(item):
        for image in plan.get("images", []):
            name = re.split(r"[:@]", container["image"].rsplit("/", 1)[-1])[0]
            path = container["image"].rsplit("/", 1)[:-1]
            if "/".join([*path, name]) == image["name"]:
                to = image.get("newName", image["name"])
                container["image"] = f"{to}@{image['digest']}" if "digest" in image else f"{to}:{image['newTag']}"


def _templates(item):
    """What a workload makes others from, the pods' last."""
    if item["kind"] not in WORKLOADS:
        return []
    if item["kind"] == "CronJob":
        return [item["spec"]["jobTemplate"], item["spec"]["jobTemplate"]["spec"]["template"]]
    return [item["spec"]["template"]]


def pod(item):
    """The pods that a workload makes."""
    return _templates(item)[-1]["spec"]


def containers(item):
    """The containers of a workload, also those that run before."""
    if item["kind"] not in WORKLOADS:
        return []
    spec = pod(item)
    return spec.get("initContainers", []) + spec.get("containers", [])


def _patch(folder, patch, objects):
    text = (folder / patch["path"]).read_text() if "path" in patch else patch["patch"]
    content = yaml.safe_load(text)
    target = patch.get("target")
    if target is None:
        target = {"kind": content["kind"], "name": content["metadata"]["name"]}
    found = [item for item in objects if _matches(item, target)]
    if not found:
        raise Refused(f"{folder}: a patch fits nothing: {target}")
    for item in found:
        if isinstance(content, list):
            for step in content:
                _step(item, step)
        else:
            _merge(item, content)


def _matches(item, target):
    group = item["apiVersion"].rpartition("/")[0]
    facts = {"group": group, "kind": item["kind"], "name": item["metadata"]["name"]}
    unknown = set(target) - set(facts)
    if unknown:
        raise Refused(f"a target with {sorted(unknown)} is not known to this renderer")
    return all(re.fullmatch(pattern, facts[key]) for key, pattern in target.items())


def _step(item, step):
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
    place = item
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        last = len(place) if last == "-" else int(last)
    operation = step["op"]
    if operation == "remove":
        del place[last]
    elif operation == "add" and isinstance(place, list):
        place.insert(last, step["value"])
    elif operation in {"add", "replace"}:
        if operation == "replace":
            _ = place[last]  # must be there
        place[last] = copy.deepcopy(step["value"])
    else:
        raise Refused(f"a patch with {operation} is not known to this renderer")


def _merge(into, patch, field=""):
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, key)
        elif isinstance(value, list) and key in MERGE_KEYS and key in into:
            _merge_list(into[key], value, MERGE_KEYS[key])
        else:
            into[key] = copy.deepcopy(value)


def _merge_list(into, patch, key):
    first = []
    for entry in patch:
        known = [item for item in into if item[key] == entry[key]]
        if known:
            into.remove(known[0])
            _merge(known[0], entry)
        first.append(known[0] if known else copy.deepcopy(entry))
    # As Kustomize does: what a patch names comes first.
    into[:0] = first


def _rename(objects):
    """Gives generated ConfigMaps a hash of their content in the name, wherever it is."""
    names = {}
    for item in objects:
        if item["kind"] == "ConfigMap" and item["metadata"].get("_hashed"):
            name = item["metadata"]["name"]
            names[name] = item["metadata"]["name"] = f"{name}-{_hash(item['data'])}"
    for item in objects:
        if item["kind"] not in WORKLOADS:
            continue
        for volume in pod(item).get("volumes", []):
            if "configMap" in volume:
                volume["configMap"]["name"] = names.get(volume["configMap"]["name"], volume["configMap"]["name"])
        for container in containers(item):
            for source in container.get("envFrom", []):
                reference = source.get("configMapRef", {})
                if "name" in reference:
                    reference["name"] = names.get(reference["name"], reference["name"])


def _hash(data):
    named = {"data": data, "kind": "ConfigMap", "name": ""}
    encoded = json.dumps(named, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for character, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        encoded = encoded.replace(character, escaped)
    digest = hashlib.sha256(encoded.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))
