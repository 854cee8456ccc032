#!/usr/bin/env python3
"""Prints a bill of materials (CycloneDX 1.6, JSON) of every package in Cargo.lock, with licences, hashes and who needs whom.

Only the standard library and `cargo metadata`; the same commit gives the same bytes.
"""

import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main():
    """The whole document."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    about = {(package["name"], package["version"]): package for package in metadata["packages"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    references = {(package["name"], package["version"]): _reference(package) for package in lock}
    workspace = (ROOT / "Cargo.toml").read_bytes() + (ROOT / "Cargo.lock").read_bytes()
    version = about[("causeway", _version())]["version"]
    root = {"type": "application", "bom-ref": "causeway", "name": "causeway", "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Of the content: another one only if a dependency changes.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, workspace.hex())}",
        "version": 1,
        "metadata": {"component": {**root, "licenses": [{"expression": "AGPL-3.0-only"}]}},
        "components": [_component(package, about) for package in lock],
        "dependencies": [
            {"ref": "causeway", "dependsOn": sorted(_reference(package) for package in lock if "source" not in package)},
            *({"ref": _reference(package), "dependsOn": _needs(package, references)} for package in lock),
        ],
    }


def _version():
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def _reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def _component(package, about):
    component = {
        "type": "library",
        "bom-ref": _reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": _reference(package),
    }
    if "checksum" in package:
        component["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
    known = about.get((package["name"], package["version"]), {})
    if known.get("license"):
        # Cargo once wrote "MIT/Apache-2.0".
        component["licenses"] = [{"expression": known["license"].replace("/", " OR ")}]
    if known.get("repository"):
        component["externalReferences"] = [{"type": "vcs", "url": known["repository"]}]
    return component


def _needs(package, references):
    """Cargo.lock names a dependency by its name, with the version if there are several."""
    needed = set()
    for text in package.get("dependencies", []):
        name, _, rest = text.partition(" ")
        version = rest.split(" ")[0]
        needed |= {ref for (other, of), ref in references.items() if other == name and version in ("", of)}
    return sorted(needed)


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=1, sort_keys=True)
    print()
