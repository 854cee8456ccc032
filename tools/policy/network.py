"""The NetworkPolicies allow the arrows of arrows.yaml, which are those of the architecture picture, and nothing else."""

import re
from pathlib import Path

import yaml

HERE = Path(__file__).parent
# Nodes of the picture.
NODES = {
    "C1": "clients", "C2": "clients", "P1": "providers", "E": "edge", "R": "routing", "K": "key-directory",
    "M": "media-relay", "DB1": "mailbox", "DB2": "directory", "B": "blobs", "H": "redis",
}  # fmt: skip
ARROW = re.compile(r"^([\w& ]+?) (?:-->|---|--? .*? -->|-\. .*? \.->?) (\w+)$")
NAMESPACES = {
    "monitoring": "prometheus", "ingress": "tls-proxy", "cnpg-system": "database-operator", "redis-operator": "redis-operator",
}  # fmt: skip
EVERYBODY = "everybody"


def arrows(overlay):
    """The list, as (from, to, port), for this overlay."""
    entries = yaml.safe_load((HERE / "arrows.yaml").read_text())
    return {(entry["from"], entry["to"], entry["port"]) for entry in entries if entry.get("only", overlay) == overlay}


def picture(text):
    """The arrows of the picture, as (from, to)."""
    drawn = set()
    for line in text.split("```mermaid", 1)[1].split("```", 1)[0].splitlines():
        found = ARROW.match(line.strip())
        if found and found[2] in NODES:
            drawn |= {(NODES[node.strip()], NODES[found[2]]) for node in found[1].split("&")}
    return drawn


def check_picture(text):
    """Yields a sentence for each arrow that is in the picture or in the list only."""
    entries = yaml.safe_load((HERE / "arrows.yaml").read_text())
    listed = {tuple(entry["draws"].split()) for entry in entries if "draws" in entry}
    drawn = picture(text)
    for start, end in sorted(drawn - listed):
        yield f"docs/architecture.md draws {start} -> {end}, and tools/policy/arrows.yaml does not have it"
    for start, end in sorted(listed - drawn):
        yield f"tools/policy/arrows.yaml has {start} -> {end}, and docs/architecture.md does not draw it"
    for entry in entries:
        if ("draws" in entry) == ("because" in entry):
            yield f"tools/policy/arrows.yaml: {entry} must either draw an arrow or say because of what it is there"


def check(objects, overlay):
    """Yields a sentence for each connection that is allowed and not listed, or listed and not allowed, at either end."""
    outgoing, incoming, inside, closed = set(), set(), set(), False
    for item in objects:
        if item["kind"] != "NetworkPolicy":
            continue
        spec = item["spec"]
        name = item["metadata"]["name"]
        labels = spec["podSelector"].get("matchLabels", {})
        subject = next(iter(labels.values())) if labels else EVERYBODY
        inside.add(subject)
        if not labels and set(spec["policyTypes"]) == {"Ingress", "Egress"} and "ingress" not in spec and "egress" not in spec:
            closed = True
        for kind, peers_of, found in (("ingress", "from", incoming), ("egress", "to", outgoing)):
            for rule in spec.get(kind, []):
                if not rule.get(peers_of) or not rule.get("ports"):
                    yield f"NetworkPolicy {name}: a rule without peers or ports allows everything"
                    continue
                for peer in _peers(rule[peers_of]):
                    for entry in rule["ports"]:
                        pair = (peer, subject) if kind == "ingress" else (subject, peer)
                        found.add((*pair, entry["port"]))
    if not closed:
        yield "no NetworkPolicy closes the namespace in both directions"
    wanted = arrows(overlay)
    for found, at, way in ((outgoing, 0, "leave"), (incoming, 1, "arrive")):
        listed = {arrow for arrow in wanted if arrow[at] in inside}
        for start, end, number in sorted(found - listed):
            yield f"{start} -> {end}:{number} may {way}, and is no arrow of tools/policy/arrows.yaml"
        for start, end, number in sorted(listed - found):
            yield f"{start} -> {end}:{number} is an arrow, and may not {way}"


def _peers(peers):
    blocks = []
    for peer in peers:
        space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        if "ipBlock" in peer:
            blocks.append(peer["ipBlock"])
        elif space == "kube-system" and labels == {"k8s-app": "kube-dns"}:
            yield "names"
        elif space == "monitoring" and labels == {"app.kubernetes.io/name": "opentelemetry-collector"}:
            yield "collector"
        elif space in NAMESPACES and not labels:
            yield NAMESPACES[space]
        elif space is None and len(labels) == 1 and set(labels) <= {"app.kubernetes.io/name", "causeway-store"}:
            yield next(iter(labels.values()))
        else:
            yield f"unknown peer {peer}"
    if blocks:
        cidrs = {block["cidr"] for block in blocks}
        excepted = {part for block in blocks for part in block.get("except", [])}
        private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"}
        if cidrs == {"0.0.0.0/0", "2000::/3"} and private <= excepted:
            yield "internet"
        elif cidrs == {"0.0.0.0/0", "::/0"} and not excepted:
            yield "anyone"
        else:
            yield f"unknown addresses {sorted(cidrs)}"
