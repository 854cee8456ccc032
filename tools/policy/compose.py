"""docker-compose.yml and Dockerfile: what they name exists, is pinned, bounded in rights, and fits the program."""

import re
import tomllib
from pathlib import Path

import yaml

import configuration
import pods

OURS = "causeway:"
TOOLS = "causeway-tools:"
# Who may be root, and why: it gives files to their readers; the image's own start gives up root by itself.
ROOT_ALLOWED = {"prepare", "postgres"}
FROM = re.compile(r"^FROM (\S+) AS (\S+)$", re.MULTILINE)


def load(root):
    """The compose file as a tree."""
    return yaml.safe_load((root / "docker-compose.yml").read_text())


def check(root, binary):
    """Yields a sentence for everything in docker-compose.yml that is not as it must be."""
    tree = load(root)
    services = tree["services"]
    readme = (root / "README.md").read_text()
    for name, service in services.items():
        image = service["image"]
        if not pods.pinned(image):
            yield f"{name}: image {image} is not pinned to a version or digest"
        if f"`{image}`" not in readme:
            yield f"{name}: image {image} is not in README.md"
        yield from _rights(name, service)
        yield from _mounts(root, name, service, tree)
        for other in service.get("depends_on", {}):
            if other not in services:
                yield f"{name}: depends on {other}, which is not there"
        if image.startswith(OURS):
            yield from _role(name, service, services, binary)
    yield from _wanted(services)


def _rights(name, service):
    if service.get("privileged") or service.get("network_mode") == "host" or service.get("pid") == "host":
        yield f"{name}: privileged, or in the machine's own namespaces"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield f"{name}: may gain rights"
    if name not in ROOT_ALLOWED and (service.get("user", "0").split(":")[0] == "0" or service.get("cap_add")):
        yield f"{name}: runs as root, or keeps capabilities"
    if name != "postgres" and (service.get("cap_drop") != ["ALL"] or service.get("read_only") is not True):
        yield f"{name}: keeps capabilities, or its root file system can be written"
    for published in service.get("ports", []):
        if not str(published).startswith("127.0.0.1:"):
            yield f"{name}: publishes {published} to more than this machine"
    for key, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN", key) and not key.endswith("_FILE"):
            yield f"{name}: {key} is a secret in the environment: {value}"


def _mounts(root, name, service, tree):
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("./") and not (root / source).exists():
            yield f"{name}: mounts {source}, which is not there"
        if not source.startswith(("./", "/")) and source not in tree["volumes"]:
            yield f"{name}: mounts volume {source}, which is not declared"
        if source.startswith("/"):
            yield f"{name}: mounts {source} of this machine"


def _role(name, service, services, binary):
    role = service["command"][0]
    if role not in configuration.LISTENS:
        yield f"{name}: runs `causeway {role}`"
        return
    environment = {key: str(value) for key, value in service["environment"].items()}
    said = configuration.accepted(binary, None, environment)
    if said:
        yield f"{name}: {said}"
    tree = configuration.settings(None, environment)
    for field in configuration.LISTENS[role]:
        if not configuration.field(tree, field):
            yield f"{name}: {field} is not set"
    listens = {configuration.port(configuration.field(tree, field)) for field in configuration.LISTENS[role]}
    for published in service.get("ports", []):
        if int(published.rsplit(":", 1)[-1]) not in listens:
            yield f"{name}: publishes {published}, and nothing listens there"
    for field, target in configuration.FINDS.items():
        wanted = {other for other, entry in services.items() if entry["image"].startswith(OURS) and entry["command"][0] == target}
        urls = configuration.field(tree, field) or []
        found = {url.split("://", 1)[1].rsplit(":", 1)[0] for url in urls}
        if found != wanted:
            yield f"{name}: {field} names {sorted(found)}, and there are {sorted(wanted)}"
        # All but the metrics' port of the target: the first field is where it serves.
        for url in urls:
            other = services.get(url.split("://", 1)[1].rsplit(":", 1)[0])
            if other is None:
                continue
            theirs = configuration.settings(None, {key: str(value) for key, value in other["environment"].items()})
            ports = {configuration.port(configuration.field(theirs, one)) for one in configuration.LISTENS[target]}
            if configuration.port(url) not in ports:
                yield f"{name}: {field} names {url}, and nothing listens there"
    grace = configuration.field(tree, "server.shutdown_grace_ms") or 15_000
    given = int(str(service.get("stop_grace_period", "10s")).removesuffix("s"))
    if given * 1000 < grace + pods.MARGIN_S * 1000:
        yield f"{name}: is killed after {given} s; server.shutdown_grace_ms is {grace}"


def _wanted(services):
    counts = {"edge": 2, "routing": 2, "key-directory": 2, "media-relay": 1}
    for role, count in counts.items():
        found = [name for name, entry in services.items() if entry["image"].startswith(OURS) and entry["command"][0] == role]
        if len(found) != count:
            yield f"there are {len(found)} of {role} instead of {count}"
    sandboxes = [name for name, entry in services.items() if "sandbox" in entry.get("command", [])]
    for name in ["postgres", "redis", "s3", "otel-collector", "prometheus", "grafana"]:
        if name not in services:
            yield f"there is no {name}"
    if len(sandboxes) < 2:
        yield "there are not two stand-in providers"


def check_dockerfile(root):
    """Yields a sentence for everything in the Dockerfile that is not as it must be."""
    text = (root / "Dockerfile").read_text()
    for image, stage in FROM.findall(text):
        last = image.rsplit("/", 1)[-1]
        if "@sha256:" not in image and not re.search(r":.*\d{8}|:\d+\.\d+\.\d+", last):
            yield f"Dockerfile: stage {stage} is from {image}, which is neither a dated nor a full version nor a digest"
    toolchain = tomllib.loads((root / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    if f"FROM rust:{toolchain}-" not in text:
        yield f"Dockerfile: the build is not from Rust {toolchain} of rust-toolchain.toml"
    if "cargo build --release --locked" not in text:
        yield "Dockerfile: the build does not keep to Cargo.lock"
    for wanted in ("--remap-path-prefix", "SOURCE_DATE_EPOCH"):
        if wanted not in text:
            yield f"Dockerfile: without {wanted} no build is like the other"
    last = text.rsplit("\nFROM ", 1)[-1]
    if not re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE):
        yield "Dockerfile: the last stage does not run as a numbered user other than root"
    if re.search(r"^RUN ", last, re.MULTILINE):
        yield "Dockerfile: the last stage runs something"
    if "ENV CAUSEWAY_BUILD=$CAUSEWAY_BUILD\n" not in text:
        yield "Dockerfile: the programs do not tell which build they are (CAUSEWAY_BUILD)"
    if "/out/causeway.cdx.json " not in last:
        yield "Dockerfile: the last stage has no bill of materials of the crates"
    ignored = (root / ".dockerignore").read_text().splitlines()
    workspace = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]
    for folder in sorted({member.split("/")[0] for member in workspace["members"]} | {"Cargo.lock", "rust-toolchain.toml"}):
        if f"!{folder}" not in ignored:
            yield f"Dockerfile: {folder} is not in the build's context (.dockerignore)"
    for path in re.findall(r"^COPY (?!--from)(\S+) ", last, re.MULTILINE):
        if f"!{path}" not in ignored:
            yield f"Dockerfile: {path} is not in the build's context (.dockerignore)"
    for source, path in _included(root):
        if not any(f"!{part}" in ignored for part in (path, *path.parents)):
            yield f"Dockerfile: {path}, which {source} includes, is not in the build's context (.dockerignore)"


def _included(root):
    """Yields each source of a program, and the file that becomes a part of it. What only tests include is not built."""
    for source in sorted(path for folder in ("crates", "proto", "services", "tools") for path in root.glob(f"{folder}/**/*.rs")):
        if "tests" in source.parts or source.name == "tests.rs":
            continue
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            yield source.relative_to(root), (source.parent / name).resolve().relative_to(root.resolve())


def check_workflows(root):
    """Yields a sentence for everything in .github/workflows that is not as it must be."""
    for file in sorted(Path(root / ".github/workflows").glob("*.yml")):
        tree = yaml.safe_load(file.read_text())
        if "permissions" not in tree:
            yield f"{file.name}: has all rights of its token; say permissions"
        if "SOURCE_DATE_EPOCH=" in file.read_text() and "CAUSEWAY_BUILD=" not in file.read_text():
            yield f"{file.name}: builds without CAUSEWAY_BUILD, so nobody can tell which commit runs"
        for job, plan in tree["jobs"].items():
            if "timeout-minutes" not in plan:
                yield f"{file.name}: {job} has no bound on its time"
            for step in plan["steps"]:
                uses = step.get("uses", "")
                if uses and not re.search(r"@(v\d+\.\d+\.\d+|[0-9a-f]{40})$", uses):
                    yield f"{file.name}: {job} uses {uses}, which is not pinned to a whole version or commit"
                for script in re.findall(r"(?:^|\s)((?:\.ci|tools)/[\w./-]+)", step.get("run", "")):
                    if not (root / script).exists():
                        yield f"{file.name}: {job} runs {script}, which is not there"
