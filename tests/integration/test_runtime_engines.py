"""podman, dockerd and containerd that leave cgroups to systemd, with cloche-runtime as their
runtime: the scope of a container, its limits, exec, pause, update, statistics, its end.

Needs systemd as the machine's init and cgroup v2, so it runs in the guest (tests/vm). The guest is
slow: every command counts.
"""

import json
import pathlib

from bundles import CGROUPS
from engines import Containerd, Docker, Podman
from harness import main, run, test, wait_for

MIB = 1 << 20
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


@test
def podman_with_scopes(scratch, images, unique):
    if not POLICY.exists():
        POLICY.parent.mkdir(exist_ok=True)
        POLICY.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
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
        engine("pause", "one")
        engine("kill", "one")
        assert engine("wait", "one").out == "137\n"
        scope.is_gone()
    finally:
        engine("rm", "-af", code=None)


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
        engine("tasks", "pause", name)
        assert engine.status(name) == "PAUSED" and scope.frozen()
        engine("tasks", "resume", name)
        engine("tasks", "kill", "-s", "KILL", name)
        wait_for(lambda: engine.status(name) == "STOPPED", 60)
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
