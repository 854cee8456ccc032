"""What containers are told, against what the program knows: `causeway check-config` with the very same file and environment."""

import copy
import os
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pods

# Which fields of the configuration a role listens on.
LISTENS = {
    "edge": ["edge.listen", "edge.websocket_listen", "server.health_listen"],
    "routing": ["server.routing_listen", "server.health_listen"],
    "key-directory": ["server.directory_listen", "server.operator_listen", "server.health_listen"],
    "media-relay": ["media.listen", "server.media_listen", "server.health_listen"],
}
# Where others find them.
FINDS = {"server.directory_urls": "key-directory", "server.routing_urls": "routing", "server.media_urls": "media-relay"}
# Variables of the command line, which are no settings.
COMMAND_LINE = {"CAUSEWAY_CONFIG", "CAUSEWAY_DATA"}


def accepted(binary, file_text, environment):
    """None if the program takes this configuration, else what it says."""
    for name in environment:
        if name.startswith("CAUSEWAY_") and "__" not in name and name not in COMMAND_LINE:
            return f"{name} is no setting"
    ours = {name: value for name, value in environment.items() if name.startswith("CAUSEWAY_")}
    for name in COMMAND_LINE:
        ours.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "check-config", "--data", f"{folder}/data"]
        if file_text is not None:
            file = Path(folder) / "causeway.toml"
            file.write_text(file_text)
            command += ["--config", str(file)]
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY_")}
        said = subprocess.run(command, env={**surroundings, **ours}, capture_output=True, text=True, timeout=60, check=False)
    return None if said.returncode == 0 else said.stderr.strip()


def settings(file_text, environment):
    """File and environment as one tree, the environment before the file. Values of lists and numbers are read as TOML."""
    tree = tomllib.loads(file_text) if file_text else {}
    for name, text in environment.items():
        if not name.startswith("CAUSEWAY_") or "__" not in name:
            continue
        *parents, last = name.removeprefix("CAUSEWAY_").lower().split("__")
        place = tree
        for part in parents:
            place = place.setdefault(part, {})
        try:
            place[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[last] = text
    return tree


def field(tree, path):
    """The value of a dotted field; None if it is not set."""
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def port(address):
    """The port of `host:port`."""
    return int(str(address).rsplit(":", 1)[-1])


def check(objects, binary):
    """Yields a sentence for each setting, port or address in the manifests that does not fit the program."""
    maps = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
    services = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Service"}
    for item in objects:
        if item["kind"] not in {"Deployment", "StatefulSet"} or item["metadata"]["name"] not in LISTENS:
            continue
        role = item["metadata"]["name"]
        spec = item["spec"]["template"]["spec"]
        container = spec["containers"][0]
        environment, missing = _environment(container, maps)
        for name in missing:
            yield f"{role}: ConfigMap {name} is not there"
        file_text, problem = _file(container, spec, maps)
        if problem:
            yield f"{role}: {problem}"
        said = accepted(binary, file_text, environment)
        if said:
            yield f"{role}: {said}"
        tree = settings(file_text, environment)
        if container["args"][0] != role:
            yield f"{role}: runs `causeway {container['args'][0]}`"
        wanted = {port(field(tree, name)) for name in LISTENS[role] if field(tree, name)}
        unset = [name for name in LISTENS[role] if not field(tree, name)]
        if unset:
            yield f"{role}: {', '.join(unset)} is not set"
        open_ports = {entry["containerPort"] for entry in container.get("ports", [])}
        if wanted != open_ports:
            yield f"{role}: listens on {sorted(wanted)}, and its container opens {sorted(open_ports)}"
        yield from pods.check_stop(role, spec, tree)
        yield from _addresses(role, tree, services)
        yield from _files(role, tree, container)


def check_ingress(objects):
    """Yields a sentence for each way of an Ingress that leads to no Service, or to a port that it does not have."""
    services = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Service"}
    for item in objects:
        if item["kind"] != "Ingress":
            continue
        for rule in item["spec"]["rules"]:
            for way in rule["http"]["paths"]:
                wanted = way["backend"]["service"]
                ports = [entry["name"] for entry in services.get(wanted["name"], {"spec": {"ports": []}})["spec"]["ports"]]
                if wanted["port"].get("name") not in ports:
                    yield f"Ingress {item['metadata']['name']}: {rule['host']} leads to {wanted}, which is not there"


def _environment(container, maps):
    values, missing = {}, []
    for source in container.get("envFrom", []):
        name = source.get("configMapRef", {}).get("name")
        if name not in maps:
            missing.append(name)
        values.update(maps.get(name, {}))
    for variable in container.get("env", []):
        # What only the cluster knows is some text here.
        text = variable.get("value", "sample-0")
        values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], found[0]), text)
    return values, missing


def _file(container, spec, maps):
    arguments = container.get("args", [])
    if "--config" not in arguments:
        return None, None
    path = Path(arguments[arguments.index("--config") + 1])
    for mount in container.get("volumeMounts", []):
        if Path(mount["mountPath"]) == path.parent:
            volume = next(entry for entry in spec["volumes"] if entry["name"] == mount["name"])
            data = maps.get(volume.get("configMap", {}).get("name"), {})
            if path.name in data:
                return data[path.name], None
    return None, f"{path} is mounted by nothing"


def _addresses(role, tree, services):
    """Where the role looks for others there is a Service that leads there, headless where each replica is needed."""
    for name, target in FINDS.items():
        for url in field(tree, name) or []:
            host, _, number = url.split("://", 1)[1].rpartition(":")
            service = services.get(host.split(".")[0])
            if service is None:
                yield f"{role}: {name} names {host}, and there is no such Service"
                continue
            if service["spec"]["selector"].get("app.kubernetes.io/name") != target:
                yield f"{role}: {name} leads to other pods than {target}'s"
            if int(number) not in [entry["port"] for entry in service["spec"]["ports"]]:
                yield f"{role}: {name} names port {number}, which Service {host.split('.')[0]} does not have"
            if url.startswith("dns+") and service["spec"].get("clusterIP") != "None":
                yield f"{role}: {name} asks for all addresses of a Service that is not headless"


def _files(role, tree, container):
    """Every file that the role's sections name is below a mount of its own."""
    sections = {"edge": "edge", "routing": "routing", "key-directory": "directory", "media-relay": "media"}
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    own = copy.deepcopy(tree.get(sections[role], {}))
    if own.get("store") not in (None, "s3"):
        own.pop("s3", None)
    tls = tree.get("server", {}).get("tls", {})
    for path in _paths({"own": own, "tls": tls}):
        if not any(path.startswith(mount + "/") for mount in mounts):
            yield f"{role}: {path} is mounted by nothing"


def _paths(tree):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value)
        elif key.endswith(("_file", "_dir")) and value:
            yield value
