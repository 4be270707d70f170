"""The engines that engine.py measures: how each is started, spoken to, accounted for and stopped."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

import harness
from harness import run, wait_for
from wire import DockerWire, ManagementWire

ACCOUNTS = pathlib.Path("/sys/fs/cgroup/cpuacct")
NUMBER = os.getpid()  # before there is a PID namespace, where it is the same for all
BENCH = f"cloche-bench-{NUMBER}"


class Contender:
    """One engine. Its daemon, and what that starts, is in a cgroup of its own, of which the processor's
    time is read; the containers are below it or in .parents."""

    local = ""  # before the name of an image that was made here

    def __init__(self, folder):
        self.folder = folder / self.name
        self.folder.mkdir()
        self.env = {}
        self.enter = []  # words before a command that shall run in the engine's network namespace
        self.wires = []
        self.parents = []
        self.account = ACCOUNTS / BENCH / self.name
        with contextlib.suppress(OSError):
            self.account.mkdir(parents=True)

    def accounted(self, words):
        """The words of a shell that goes on as these words in the engine's cgroup."""
        join = f"echo $$ > {self.account}/cgroup.procs; " if self.account.exists() else ""
        return ["sh", "-c", join + 'exec "$@"', "sh", *map(str, words)]

    def processor(self):
        """Seconds that its processes and containers have taken so far; None: not known here."""
        files = [folder / "cpuacct.usage" for folder in (self.account, *self.parents)]
        found = [int(file.read_text()) for file in files if file.exists()]
        return sum(found) / 1e9 if found else None

    def __call__(self, *words, **options):
        return run(*self.command, *words, env=self.env, timeout=600, **options)

    def processes(self):
        """(pid, name) of its own processes: not those of containers."""
        for file in sorted(self.account.glob("**/cgroup.procs")):
            for pid in file.read_text().split():
                with contextlib.suppress(OSError):
                    name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                    if name.startswith(self.own):
                        yield int(pid), name

    def close(self):
        for wire in self.wires:
            wire.close()


class Cloche(Contender):
    name = "cloche"
    own = ("cloche",)
    beside = ("cloche-monitor",)  # one of each container
    pull_options = ()

    def __init__(self, folder):
        super().__init__(folder)
        self.instance = harness.Instance(f"b{NUMBER % 1000000}")
        self.env = dict(self.instance.env)
        self.command = [harness.program("cloche")]
        self.parents = [ACCOUNTS / self.instance.cgroup_parent]

    def start(self):
        run(*self.accounted([*self.command, "version"]), env=self.env)
        sock = self.instance.run_folder / "docker.sock"
        wait_for(sock.exists, what="docker.sock is there")
        self.wires = [DockerWire(sock), ManagementWire(self.instance.socket)]

    def processes(self):
        """The door is known by the cgroup alone (its environment is empty), the monitors by the environment."""
        members = {pid for pid, _ in super().processes()} | set(self.instance.processes())
        for pid in sorted(members):
            with contextlib.suppress(OSError):
                name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
                if name.startswith(self.own) and name != "cloche":
                    yield pid, name

    def close(self):
        super().close()
        for complaint in self.instance.remove():
            print(complaint)

    def version(self):
        return "this tree"


class Docker(Contender):
    """Debian's dockerd, in mount and network namespaces of its own: its rules of the firewall are not
    ours."""

    name = "docker"
    own = ("dockerd", "containerd", "docker-")
    beside = ("containerd-shim", "docker-proxy")
    pull_options = ()

    def __init__(self, folder):
        super().__init__(folder)
        self.socket = self.folder / "docker.sock"
        self.daemon = None
        self.env = {"DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": str(self.folder), "DOCKER_HOST": f"unix://{self.socket}"}
        self.command = ["/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"]

    def start(self):
        words = ["dockerd", "-H", f"unix://{self.socket}", "--data-root", self.folder / "data",
                 "--exec-root", self.folder / "exec", "--pidfile", self.folder / "pid",
                 "--cgroup-parent", f"/{BENCH}/{self.name}"]
        (self.folder / "daemon.json").write_text("{}")
        words += ["--config-file", self.folder / "daemon.json"]
        with open(self.folder / "log", "wb") as log:
            self.daemon = subprocess.Popen(self.accounted([
                "unshare", "-m", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *words]),
                stdout=log, stderr=log)
        self.enter = ["nsenter", "-n", "-t", str(self.daemon.pid)]
        wait_for(self._answers, 120, "dockerd answers")
        self.wires = [DockerWire(self.socket)]

    def _answers(self):
        if self.daemon.poll() is not None:
            raise AssertionError((self.folder / "log").read_text()[-2000:])
        return self("version", code=None).code == 0

    def close(self):
        super().close()
        if not self.daemon:
            return
        names = self("ps", "-aq", code=None).out.split()
        if names:
            self("rm", "-f", *names, code=None)
        self.daemon.terminate()
        self.daemon.wait(180)

    def version(self):
        return run("dockerd", "--version").out.split()[2].strip(",")


class Podman(Contender):
    name = "podman"
    local = "localhost/"
    own = ("conmon", "podman")
    beside = ("conmon",)
    pull_options = ("--tls-verify=false",)

    def __init__(self, folder):
        super().__init__(folder)
        policy = self.folder / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        self.policy = ["--signature-policy", str(policy)]
        self.command = ["podman", "--root", self.folder / "root", "--runroot", self.folder / "run",
                        "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--tmpdir", self.folder / "tmp"]
        self.command = [str(word) for word in self.command]
        self.parents = [ACCOUNTS / BENCH / "pod"]

    def start(self):
        self("version")

    def processes(self):
        """Of all machine's conmons those that have our folder in their words."""
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and str(self.folder) in (entry / "cmdline").read_text():
                    name = (entry / "comm").read_text().strip()
                    if name.startswith(self.own):
                        yield int(entry.name), name

    def close(self):
        super().close()
        self("rm", "-af", "-t", "0", code=None)
        self("rmi", "-af", code=None)

    def version(self):
        return run("podman", "--version").out.split()[-1]


KINDS = {"cloche": (Cloche, None), "docker": (Docker, "dockerd"), "podman": (Podman, "podman")}


def installed(name):
    needs = KINDS[name][1]
    return not needs or bool(shutil.which(needs))


def remove_cgroups():
    found = subprocess.run(["find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path", f"*/{BENCH}*"],
                           capture_output=True, text=True, check=False).stdout.split()
    for folder in found:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
