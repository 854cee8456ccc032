"""Starts what docker-compose.yml describes as processes of this machine, and tells the demo's story on it: `locally.py [FOLDER]`.

For where there is no container engine. Everything comes from the compose file: commands, environment, users, files, names and
ports. Instead of containers there is one network namespace with an address for each service, and a mount namespace in which
names, configuration and secrets are where the containers have them. Of the images, ours are the programs in target/debug (or
CAUSEWAY_PROGRAMS), PostgreSQL, Redis and nginx those of Debian, and S3 is moto's; what only looks on (Prometheus, Grafana, the
collector) is left out.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import compose
import configuration

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("CAUSEWAY_PROGRAMS", ROOT / "target/debug"))
LOOKERS_ON = {"otel-collector", "prometheus", "grafana", "bucket", "demo", "prepare"}
OBSERVE = ROOT / "tools/observe"
PATIENCE_S = 120
INSIDE = "CAUSEWAY_LOCALLY_INSIDE"


def main():
    """Enters namespaces of its own, then starts, tells the story, and stops."""
    if INSIDE not in os.environ:
        # Where Debian has `ip`, which is not in everybody's path.
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        enter = ["unshare", "--map-current-user", "--keep-caps"] if os.getuid() else ["unshare"]
        command = [*enter, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, __file__]
        environment = {**os.environ, INSIDE: "1"}
        return subprocess.run([*command, *sys.argv[1:]], env=environment, check=False).returncode
    with tempfile.TemporaryDirectory(prefix="causeway-locally-") as folder:
        deployment = Deployment(Path(sys.argv[1] if len(sys.argv) > 1 else folder))
        try:
            deployment.start()
            told = deployment.tell() and deployment.observe()
            stopped = deployment.stop()
        except Failed as problem:
            print(f"locally: {problem}", file=sys.stderr)
            told = stopped = False
        if not (told and stopped):
            deployment.show_logs()
        return 0 if told and stopped else 1


class Failed(Exception):
    """Something did not start."""


class Deployment:
    """The services of the compose file."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.programs = folder / "programs"
        self.tree = compose.load(ROOT)
        self.services = self.tree["services"]
        self.processes = {}
        subnet = self.tree["networks"]["default"]["ipam"]["config"][0]["subnet"]
        base = subnet.rsplit(".", 1)[0]
        self.addresses = {name: f"{base}.{10 + number}" for number, name in enumerate(self.services)}
        # Users other than root exist only where this is root itself.
        self.users = os.getuid() == 0

    def start(self):
        """All that carries the story, in the order of depends_on."""
        self._network()
        self.programs.mkdir(exist_ok=True)
        for program in ("causeway", "causewayctl", "sandbox", "causeway-demo"):
            # Where every user may run it, and unchanged while it runs.
            shutil.copy2(PROGRAMS / program, self.programs / program)
        script = self.services["prepare"]["command"][1].replace("/deploy", str(ROOT / "deploy/compose"))
        self._run(["sh", script, str(self.folder / "secrets")], {"PATH": f"{self.programs}:{os.environ['PATH']}"})
        waiting = [name for name in self.services if name not in LOOKERS_ON]
        while waiting:
            ready = [name for name in waiting if not set(self.services[name].get("depends_on", {})) & set(waiting)]
            if not ready:
                raise Failed(f"{waiting} wait for each other")
            for name in ready:
                self._start(name)
                waiting.remove(name)
        for name, service in self.services.items():
            if service["image"].startswith(compose.OURS):
                self._wait(name, lambda at=self.addresses[name]: _answers(f"http://{at}:7460/ready"))
        self._prometheus("prometheus", self.services["prometheus"])
        print(f"locally: {', '.join(self.processes)} run", flush=True)

    def tell(self):
        """The demo's story; the line that asks for it kills a routing, which is then started again."""
        demo = self.services["demo"]
        process = self._spawn("demo", self._ours(demo), demo, output=subprocess.PIPE)
        for line in process.stdout:
            print(line, end="", flush=True)
            if "kill one of the routings now" in line:
                self.processes["routing-1"].kill()
                self.processes.pop("routing-1").wait()
                self._start("routing-1")
        return process.wait() == 0

    def observe(self):
        """Every expression of the dashboards, alerts and runbooks, asked of the Prometheus that has looked on."""
        keep = os.environ.get("CAUSEWAY_ANSWERS")
        command = [sys.executable, OBSERVE / "ask.py", f"http://{self.addresses['prometheus']}:9090", str(PATIENCE_S), *([keep] if keep else [])]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self):
        """SIGTERM to all of ours; each must leave with 0 within its time."""
        clean = True
        ours = [name for name in self.processes if self.services[name]["image"].startswith(compose.OURS)]
        order = ["edge", "routing", "media-relay", "key-directory"]
        for name in sorted(ours, key=lambda name: order.index(self.services[name]["command"][0])):
            self.processes[name].send_signal(signal.SIGTERM)
            try:
                status = self.processes[name].wait(timeout=60)
            except subprocess.TimeoutExpired:
                status = "no end"
            if status != 0:
                print(f"locally: {name} left with {status}", file=sys.stderr)
                clean = False
        print("locally: all services left with 0" if clean else "locally: not all services left with 0", flush=True)
        return clean

    def show_logs(self):
        """The end of each log, for who must find out what happened."""
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            print(f"--- {log.name}", *lines[-15:], sep="\n", file=sys.stderr)

    def _network(self):
        """An address for each service, and a file with their names in place of the machine's."""
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        lines = ["127.0.0.1 localhost"]
        for name, address in self.addresses.items():
            subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
            networks = self.services[name].get("networks", {})
            aliases = networks.get("default", {}).get("aliases", []) if isinstance(networks, dict) else []
            lines.append(" ".join([address, name, *aliases]))
        hosts = self.folder / "hosts"
        hosts.write_text("\n".join(lines) + "\n")
        subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
        # Nobody is asked for what is not in it.
        resolv = self.folder / "resolv.conf"
        resolv.write_text("options timeout:1 attempts:1\n")
        subprocess.run(["mount", "--bind", str(resolv), str(Path("/etc/resolv.conf").resolve())], check=True)

    def _start(self, name):
        service = self.services[name]
        image = service["image"]
        if image.startswith((compose.OURS, compose.TOOLS)):
            self._spawn(name, self._ours(service), service)
        else:
            {"postgres": self._postgres, "redis": self._redis, "s3": self._s3, "front": self._front}[name](name, service)

    def _ours(self, service):
        command = [str(part) for part in service["command"]]
        return command if service["image"].startswith(compose.TOOLS) else ["causeway", *command]

    def _spawn(self, name, command, service, output=None):
        """A process that sees the service's files where its container would: in a mount namespace of its own."""
        environment = {key: self._here(name, str(value)) for key, value in service.get("environment", {}).items()}
        command = [self._here(name, part) for part in command]
        mounts = [f"mount --bind {self.programs} /usr/local/bin", "mount -t tmpfs tmpfs /run"]
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            if source.endswith("-secrets"):
                folder = self.folder / "secrets" / source.removesuffix("-secrets")
                mounts.append(f"mkdir -p {target} && mount --bind {folder} {target}")
        if "/tmp" in " ".join(service.get("tmpfs", [])):
            private = self.folder / "tmp" / name
            private.mkdir(parents=True, exist_ok=True)
            private.chmod(0o1777)
            mounts.append(f"mount --bind {private} /tmp")
        user, _, group = service.get("user", "0:0").partition(":")
        as_user = f"setpriv --reuid {user} --regid {group} --clear-groups -- " if self.users and user != "0" else ""
        script = f"{' && '.join(mounts)} && cd / && exec {as_user}\"$@\""
        log = open(self.folder / f"{name}.log", "ab")
        environment["PATH"] = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.processes[name] = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, name, *command],
            env=environment, stdin=subprocess.DEVNULL, stdout=output or log, stderr=log, text=True,
        )  # fmt: skip
        return self.processes[name]

    def _here(self, name, text):
        """What a container listens on everywhere, its process listens on at its own address."""
        return text.replace("0.0.0.0:", f"{self.addresses[name]}:")

    def _wait(self, name, is_so):
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            process = self.processes[name]
            if process.poll() is not None:
                raise Failed(f"{name} ended with {process.returncode}")
            if time.monotonic() > end:
                raise Failed(f"{name} was not ready within {PATIENCE_S} s")
            time.sleep(0.05)

    def _run(self, command, environment=None):
        Path(command[-1]).mkdir(exist_ok=True)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: {done.stderr}{done.stdout}")

    def _postgres(self, name, service):
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        data = self.folder / "postgres"
        data.mkdir()
        password = self.folder / "secrets/postgres/postgres.password"
        run = []
        if self.users:
            shutil.chown(data, "postgres")
            shutil.chown(password, "postgres")
            shutil.chown(password.parent, "postgres")
            (self.folder / "secrets").chmod(0o711)
            run = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]
        environment = service["environment"]
        made = subprocess.run(
            [*run, programs / "initdb", "-D", data, "-U", environment["POSTGRES_USER"], f"--pwfile={password}", "-A", "scram-sha-256"],
            capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        if made.returncode != 0:
            raise Failed(f"initdb: {made.stderr}")
        # As the image does: everybody with the password.
        with open(data / "pg_hba.conf", "a") as rules:
            rules.write("host all all all scram-sha-256\n")
        log = open(self.folder / "postgres.log", "ab")
        options = [str(part) for part in service["command"][1:]]
        arguments = ["-D", data, "-h", self.addresses[name], "-k", data, *options]
        self.processes[name] = subprocess.Popen([*run, programs / "postgres", *arguments], stdout=log, stderr=log, cwd="/")
        secret = {**os.environ, "PGPASSWORD": password.read_text(), "PGUSER": environment["POSTGRES_USER"]}
        psql = [programs / "psql", "-h", self.addresses[name], "-v", "ON_ERROR_STOP=1", "-q"]
        self._wait(name, lambda: subprocess.run([*psql, "-d", "postgres", "-c", ""], env=secret, capture_output=True, check=False).returncode == 0)
        subprocess.run([*psql, "-d", "postgres", "-c", f"CREATE DATABASE {environment['POSTGRES_DB']}"], env=secret, check=True)
        subprocess.run([*psql, "-d", environment["POSTGRES_DB"], "-f", ROOT / "deploy/compose/postgres.sql"], env=secret, check=True)

    def _redis(self, name, service):
        data = self.folder / "redis"
        data.mkdir()
        if self.users:
            os.chown(data, 999, 999)
        command = [*(str(data) if part == "/data" else part for part in service["command"]), "--bind", self.addresses[name]]
        self._spawn(name, command, service)
        self._wait(name, lambda: _connects(self.addresses[name], 6379))

    def _s3(self, name, service):
        port = configuration.port(configuration.field(self._media(), "media.s3.endpoint"))
        log = open(self.folder / "s3.log", "ab")
        command = [sys.executable, "-m", "moto.server", "--host", self.addresses[name], "--port", str(port)]
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)
        bucket = configuration.field(self._media(), "media.s3.bucket")
        self._wait(name, lambda: _answers(f"http://{self.addresses[name]}:{port}/{bucket}", "PUT"))

    def _prometheus(self, name, service):
        """Debian's, with the file of the compose file; it looks more often, because the story is short."""
        text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        text = text.replace("_interval: 5s", "_interval: 1s").replace("/etc/prometheus/", f"{ROOT}/deploy/prometheus/")
        file = self.folder / "prometheus.yml"
        file.write_text(text)
        data = self.folder / "prometheus"
        options = [part for part in service["command"] if not part.startswith(("--config.file", "--storage.tsdb.path"))]
        log = open(self.folder / "prometheus.log", "ab")
        listen = f"--web.listen-address={self.addresses[name]}:9090"
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={data}", listen, *options]
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)
        # Counters are to be seen before the story moves them.
        targets = sum(1 for other in self.services.values() if other["image"].startswith(compose.OURS))
        seen = urllib.parse.quote(f"count(up == 1) == {targets}")
        self._wait(name, lambda: b'"value"' in _body(f"http://{self.addresses[name]}:9090/api/v1/query?query={seen}"))

    def _media(self):
        environment = self.services["media-relay-1"]["environment"]
        return configuration.settings(None, {key: str(value) for key, value in environment.items()})

    def _front(self, name, service):
        text = (ROOT / "deploy/compose/nginx.conf").read_text()
        file = self.programs / "nginx.conf"
        file.write_text(text.replace("listen 8443", f"listen {self.addresses[name]}:8443"))
        self._spawn(name, ["/usr/sbin/nginx", "-c", "/usr/local/bin/nginx.conf"], service)
        self._wait(name, lambda: _connects(self.addresses[name], 8443))


def _answers(url, method="GET"):
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5).status == 200
    return False


def _body(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()
    return b""


def _connects(address, port):
    import socket

    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=5):
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
