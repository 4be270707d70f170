"""podman, dockerd and containerd that leave cgroups to systemd, with cloche-runtime as their
runtime: the scope of a container, its limits, exec, pause, update, statistics, its end.

Needs systemd as the machine's init and cgroup v2, so it runs in the guest (tests/vm). The guest is
slow: every command counts.
"""

import contextlib
import json
import os
import pathlib
import pwd

from bundles import CGROUPS
from engines import Containerd, Docker, Podman
from harness import main, run, test, wait_for

MIB = 1 << 20
USER = 1000  # of cloche-user.service
POLICY = pathlib.Path("/etc/containers/policy.json")  # the guest's /etc has only what it boots with


def cgroup_of(pid):
    return CGROUPS / pathlib.Path(f"/proc/{pid}/cgroup").read_text().strip().split("::/", 1)[1]


def shown(unit, name):
    return run("systemctl", "show", "--value", "-p", name, unit).out.strip()


class Scope:
    """The scope that systemd made for a container, by the container's process."""

    def __init__(self, pid, unit):
        self.path, self.unit = cgroup_of(pid), unit
        while self.path.name != unit:
            assert self.path != CGROUPS, (cgroup_of(pid), unit)
            self.path = self.path.parent
        self.below = cgroup_of(pid)

    def has(self, memory, pids, cpu):
        values = [(self.path / name).read_text().strip()
                  for name in ("memory.max", "pids.max", "cpu.max")]
        assert values == [str(memory), str(pids), cpu], values
        told = [shown(self.unit, name) for name in ("MemoryMax", "TasksMax")]
        assert told == values[:2], told

    def frozen(self):
        return "frozen 1" in (self.path / "cgroup.events").read_text()

    def is_gone(self):
        wait_for(lambda: not self.path.exists(), 60)
        assert shown(self.unit, "ActiveState") == "inactive"


def trust_every_image():
    if not POLICY.exists():
        POLICY.parent.mkdir(exist_ok=True)
        POLICY.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')


@test
def podman_with_scopes(scratch, images, unique):
    trust_every_image()
    engine = Podman(scratch, images, unique, cgroups="systemd")
    options = ["--network", "none", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"]
    try:
        identity = engine("run", "-d", "--name", "one", *options, "small:1", "sleep", "1000").out
        pid = engine("inspect", "--format", "{{.State.Pid}}", "one").out.strip()
        scope = Scope(pid, f"libpod-{identity.strip()}.scope")
        scope.has(64 * MIB, 50, "50000 100000")
        assert engine("exec", "one", "sh", "-c", "cat /proc/self/cgroup; exit 3", code=3).out == \
            "0::/\n"
        engine("pause", "one")
        assert scope.frozen()
        engine("unpause", "one")
        assert not scope.frozen()
        engine("update", "--memory", "128m", "--cpus", "1", "one")
        scope.has(128 * MIB, 50, "100000 100000")
        out = engine("stats", "--no-stream", "--format", "{{.PIDs}}", "one").out
        assert out == "1\n", out
        engine("restart", "-t", "0", "one")
        again = engine("inspect", "--format", "{{.State.Pid}}", "one").out.strip()
        assert again != pid and cgroup_of(again) == scope.below
        engine("pause", "one")
        engine("kill", "one")
        assert engine("wait", "one").out == "137\n"
        scope.is_gone()
    finally:
        engine("rm", "-af", code=None)


class PodmanOfAUser(Podman):
    """Of an ordinary user with subordinate ids, `systemd --user` and its bus, as a session has them."""

    def __init__(self, scratch, images, unique):
        name = pwd.getpwuid(USER).pw_name
        for file, first in (("subuid", 100000), ("subgid", 200000)):
            pathlib.Path("/etc", file).write_text(f"{name}:{first}:65536\n")
        run("systemctl", "start", "cloche-user.service")
        folder = pathlib.Path(f"/run/user/{USER}")
        wait_for((folder / "bus").exists, 60)
        self.argv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "-i",
                     f"PATH={os.environ['PATH']}", f"HOME={scratch}", f"XDG_RUNTIME_DIR={folder}",
                     f"DBUS_SESSION_BUS_ADDRESS=unix:path={folder}/bus"]
        os.chown(scratch, USER, USER)
        super().__init__(scratch, images, unique, cgroups="systemd")

    def __call__(self, *args, **options):
        return run(*self.argv, *self.base, *args, timeout=240, **options)

    def close(self):
        self("rm", "-af", code=None)
        self("system", "migrate", code=None)  # ends the process that holds podman's namespaces
        self("unshare", "rm", "-rf", self.base[2], code=None)
        self("system", "migrate", code=None)
        run("systemctl", "stop", "cloche-user.service")


@test
def podman_of_a_user_with_scopes(scratch, images, unique):
    trust_every_image()
    engine = PodmanOfAUser(scratch, images, unique)
    with contextlib.closing(engine):
        options = ["--network", "none", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"]
        identity = engine("run", "-d", "--name", "one", *options, "small:1", "sleep", "1000").out
        pid = engine("inspect", "--format", "{{.State.Pid}}", "one").out.strip()
        path = cgroup_of(pid)
        assert "cloche-user.service" in path.parts, path
        scope = next(folder for folder in [path, *path.parents]
                     if folder.name == f"libpod-{identity.strip()}.scope")
        values = [(scope / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")]
        assert values == [str(64 * MIB), "50", "50000 100000"], values
        out = engine("exec", "one", "sh", "-c", "id -u; cat /proc/self/cgroup; exit 3", code=3).out
        assert out == "0\n0::/\n", out
        engine("pause", "one")
        assert "frozen 1" in (scope / "cgroup.events").read_text()
        engine("unpause", "one")
        engine("update", "--memory", "128m", "one")
        assert (scope / "memory.max").read_text() == f"{128 * MIB}\n"
        engine("restart", "-t", "0", "one")
        assert engine("exec", "one", "echo", "again").out == "again\n"
        engine("rm", "-f", "-t", "0", "one")
        wait_for(lambda: not scope.exists(), 60)


def docker_part(engine):
    options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5",
               "--security-opt", "apparmor=unconfined"]  # the parser finds nothing in the guest's /etc
    with engine.background("one", "sleep", "1000", options=options) as name:
        scope = Scope(engine.pid(name), f"docker-{engine.inspect(name, '.Id')}.scope")
        scope.has(64 * MIB, 50, "50000 100000")
        assert engine("exec", name, "cat", "/proc/self/cgroup").out == "0::/\n"
        engine("pause", name)
        assert scope.frozen()
        engine("unpause", name)
        engine("update", "--memory", "128m", "--memory-swap", "-1", "--pids-limit", "60", "--cpus",
               "1", name)
        scope.has(128 * MIB, 60, "100000 100000")
        out = engine("stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", name).out
        assert out.startswith("1 ") and "128MiB" in out, out
        before = engine.pid(name)
        engine("restart", "-t", "0", name)
        assert engine.pid(name) != before
        scope.has(128 * MIB, 60, "100000 100000")
    scope.is_gone()


@test
def dockerd_with_scopes(scratch, images, unique):
    engine = Docker(scratch, images, unique,
                    ["--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", "system.slice"])
    try:
        docker_part(engine)
    finally:
        engine.close()


def containerd_part(engine):
    unit = f"ctr-{engine.unique}.scope"
    options = ["--runc-systemd-cgroup", "--memory-limit", str(64 * MIB), "--cpus", "0.5"]
    engine.group = f"system.slice:ctr:{engine.unique}"
    with engine.background("one", "sleep", "1000", options=options) as name:
        pid = engine("tasks", "ps", name).lines[1].split()[0]
        scope = Scope(pid, unit)
        assert (scope.path / "memory.max").read_text() == f"{64 * MIB}\n"
        assert shown(unit, "MemoryMax") == str(64 * MIB)
        out = engine("tasks", "exec", "--exec-id", "e1", name, "cat", "/proc/self/cgroup").out
        assert out == f"0::/system.slice/{unit}\n" or out == "0::/\n", out
        metrics = json.loads(engine("tasks", "metrics", "--format", "json", name).out)
        assert metrics["pids"]["current"] == 1 and metrics["memory"]["usage_limit"] == 64 * MIB
        answer = engine.update(name, {"memory": {"limit": 128 * MIB}, "pids": {"limit": 60}})
        assert "grpc-status: 0" in answer, answer
        scope.has(128 * MIB, 60, "50000 100000")
        engine("tasks", "pause", name)
        assert engine.status(name) == "PAUSED" and scope.frozen()
        engine("tasks", "resume", name)
        engine("tasks", "kill", "-s", "KILL", name)
        wait_for(lambda: engine.status(name) == "STOPPED", 60)
        engine("tasks", "delete", name)
        engine("tasks", "start", "-d", name)
        wait_for(lambda: engine.status(name) == "RUNNING", 60)
        assert scope.path.exists()
    scope.is_gone()


@test
def containerd_with_scopes(scratch, images, unique):
    engine = Containerd(scratch, images, unique)
    try:
        containerd_part(engine)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
