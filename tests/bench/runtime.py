#!/usr/bin/env python3
"""usage: runtime.py [--rounds N] [--build FOLDER] [--cases a,b] [--peers a,b=PATH]

Times cloche-runtime beside crun, runc and a lower bound (lower_bound.c: the same namespaces, mounts
and cgroups without a runtime's work), which take turns on the same bundles, each round in another order:

    spec      run of /bin/true, configuration of `runc spec`
    podman    the same with podman's mounts, capabilities, limits and Docker's seccomp profile
    cold      the same with whatever a runtime keeps of it removed before
    cycle     create, start and delete, configuration of `runc spec`
    exec      exec of /bin/true in a running container
    burst     100 times `run` at once

Times are by the clock, and of the processor (user + system) for a machine that has other work too.
Everything runs in namespaces of its own, where the v2 tree beside v1 is not mounted (crun 1.8 refuses
such a machine); nothing of it stays. Needs root. A peer that is not installed is left out.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "integration"))
sys.path.insert(0, str(TOP / "src/engine"))

import embed_profile  # noqa: E402

WARM_UP = 2  # rounds that do not count
BURST = 100
NAME = f"cloche-bench-{os.getpid()}"
CASES = ("spec", "podman", "cold", "cycle", "exec", "burst")


def podman_config(spec, folder):
    """What podman 4.3 adds to the configuration for `podman run --network none`."""
    config = json.loads(json.dumps(spec))
    options = ["nosuid", "noexec", "nodev"]
    mounts = {mount["destination"]: mount for mount in config["mounts"]}
    mounts["/proc"]["options"] = options
    mounts["/dev"]["options"] = ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]
    binds = [("/etc/hosts", "hosts", []), ("/dev/shm", "shm", options),
             ("/run/.containerenv", "containerenv", []), ("/etc/hostname", "hostname", [])]
    config["mounts"] = [mounts[name] for name in ("/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue")]
    config["mounts"] += [{"destination": to, "type": "bind", "source": str(folder / source),
                          "options": ["bind", "rprivate", *more]} for to, source, more in binds]
    config["mounts"].append(mounts["/sys/fs/cgroup"])
    names = [f"CAP_{name}" for name in (
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID",
        "SETPCAP", "SETUID", "SYS_CHROOT")]
    config["process"]["capabilities"] = {kind: names for kind in ("bounding", "effective",
                                                                  "permitted")}
    config["process"]["noNewPrivileges"] = False
    config["process"]["rlimits"].append({"type": "RLIMIT_NPROC", "hard": 32768, "soft": 32768})
    config["root"]["readonly"] = False
    config["linux"]["maskedPaths"] += ["/sys/fs/selinux", "/sys/dev/block"]
    config["linux"]["sysctl"] = {"net.ipv4.ping_group_range": "0 0"}
    config["linux"]["resources"]["pids"] = {"limit": 2048}
    profile = json.loads((TOP / "contrib/profiles/seccomp-default.json").read_text())
    config["linux"]["seccomp"] = embed_profile.resolve(profile, os.uname().machine)
    return config


def make_bundles(folder):
    """{"spec": path, "podman": path}"""
    spec = json.loads((TOP / "tests/bundles/runc-spec.json").read_text())
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["/bin/true"]
    bundles = {}
    for name in ("spec", "podman"):
        path = bundles[name] = folder / name
        root = path / "rootfs"
        for below in ("bin", "etc", "proc", "sys", "dev", "run"):
            (root / below).mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin/busybox")
        for applet in ("sh", "true", "sleep"):
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (path / "shm").mkdir()
        for file in ("hosts", "containerenv", "hostname"):
            (path / file).write_text("\n")
        for file in ("etc/hosts", "run/.containerenv", "etc/hostname"):
            (root / file).write_text("")
        config = spec if name == "spec" else podman_config(spec, path)
        (path / "config.json").write_text(json.dumps(config))
    sleeper = bundles["sleeper"] = folder / "sleeper"
    sleeper.mkdir()
    spec["process"]["args"] = ["/bin/sleep", "100000"]
    spec["root"]["path"] = str(bundles["spec"] / "rootfs")
    (sleeper / "config.json").write_text(json.dumps(spec))
    return bundles


class Peer:
    """A runtime with runc's command line."""

    def __init__(self, name, path, folder):
        self.name = name
        self.state = folder / f"state-{name}"
        self.command = [path, "--root", str(self.state)]

    def call(self, *words):
        return [*self.command, *map(str, words)]

    def forget(self):
        """Removes what it keeps from one run to the next."""
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree("/run/crun/.cache", ignore_errors=True)

    def words(self, case, bundles):
        if case == "exec":
            return self.call("exec", f"{NAME}-{self.name}", "/bin/true")
        if case == "burst":
            return self.call("run", "-b", bundles["spec"], f"{NAME}-{{}}")
        if case == "cycle":
            return [*self.call("create", "-b", bundles["spec"], NAME), ";",
                    *self.call("start", NAME), ";", *self.call("delete", "--force", NAME)]
        return self.call("run", "-b", bundles["spec" if case == "spec" else "podman"], NAME)

    @contextlib.contextmanager
    def prepared(self, case, bundles):
        name = f"{NAME}-{self.name}"
        if case != "exec":
            yield
            return
        subprocess.run(self.call("run", "-d", "-b", bundles["sleeper"], name), check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            subprocess.run(self.call("delete", "--force", name), check=True)


class LowerBound:
    name = "bound"

    def __init__(self, path, cloche, folder):
        self.path = path
        self.cloche = cloche
        self.filter = folder / "filter.bpf"

    def forget(self):
        pass

    def words(self, case, bundles):
        if case == "cycle":
            return None
        if case == "exec":
            return [self.path, "exec", self.pid, f"{NAME}-{self.name}"]
        if case == "burst":
            return [self.path, "spec", str(bundles["spec"]), f"{NAME}-{{}}"]
        if case == "spec":
            return [self.path, "spec", str(bundles["spec"]), NAME]
        return [self.path, "podman", str(bundles["podman"]), NAME, str(self.filter)]

    @contextlib.contextmanager
    def prepared(self, case, bundles):
        name = f"{NAME}-{self.name}"
        if case in ("podman", "cold"):
            self.compile_filter(bundles)
        if case == "exec":
            subprocess.run(self.cloche.call("run", "-d", "-b", bundles["sleeper"], name), check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            state = subprocess.run(self.cloche.call("state", name), check=True,
                                   stdout=subprocess.PIPE).stdout
            self.pid = str(json.loads(state)["pid"])
        yield
        if case == "exec":
            subprocess.run(self.cloche.call("delete", "--force", name), check=True)

    def compile_filter(self, bundles):
        """The instructions are those that cloche-runtime keeps (filter_cache.c)."""
        subprocess.run(self.cloche.words("podman", bundles), check=True, stdin=subprocess.DEVNULL)
        data = next(self.cloche.state.glob("filter,*")).read_bytes()
        _, key_length, filter_size = struct.unpack_from("=8sQQ", data)
        self.filter.write_bytes(data[24 + key_length:][:filter_size][8:])


def measure(stopwatch, words, count):
    """Seconds by the clock, seconds of the processor, peak of memory in KiB."""
    many = ["-n", str(count)] if count > 1 else []
    result = subprocess.run([stopwatch, *many, *words], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(words)}: {result.stderr.decode()}")
    wall, user, system, memory = map(int, result.stdout.split()[-4:])
    return wall / 1e3, (user + system) / 1e3, memory


def run_case(case, contestants, bundles, stopwatch, rounds):
    samples = {peer.name: [] for peer in contestants}
    count = BURST if case == "burst" else 1
    if case == "burst":
        rounds = max(1, rounds // 20)
    with contextlib.ExitStack() as stack:
        for peer in contestants:
            stack.enter_context(peer.prepared(case, bundles))
        for number in range(WARM_UP + rounds):
            # Who comes after a small one finds the caches warmer, and less of the last container's
            # network namespace still to be taken apart.
            for peer in random.sample(contestants, len(contestants)):
                words = peer.words(case, bundles)
                if not words:
                    continue
                if case == "cold":
                    peer.forget()
                sample = measure(stopwatch, words, count)
                if number >= WARM_UP:
                    samples[peer.name].append(sample)
    report(case, samples)


def report(case, samples):
    base = samples["cloche"]
    median = statistics.median(sample[0] for sample in base)
    fastest = min(sample[0] for sample in base)
    processor = min(sample[1] for sample in base)
    for name, values in samples.items():
        if not values:
            continue
        wall = [value[0] for value in values]
        cpu = [value[1] for value in values]
        print(f"{case:<8} {name:<8} {statistics.median(wall):>9.2f} {min(wall):>9.2f} "
              f"{statistics.median(cpu):>9.2f} {min(cpu):>9.2f} "
              f"{max(value[2] for value in values):>7} "
              f"{median / statistics.median(wall):>8.2f} {fastest / min(wall):>6.2f} "
              f"{processor / min(cpu) if min(cpu) else 0:>6.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="times cloche-runtime beside its peers")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--build")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--peers", default="crun,runc,bound")
    arguments = parser.parse_args()
    if arguments.build:
        os.environ["CLOCHE_BUILD"] = arguments.build
    import harness
    harness.enter_namespaces()
    if os.path.ismount("/sys/fs/cgroup/unified"):
        harness.run("umount", "/sys/fs/cgroup/unified")
    folder = pathlib.Path(tempfile.mkdtemp(prefix=harness.SCRATCH_PREFIX, dir="/var/tmp"))
    helpers = harness.BUILD / "tests" / "bench"
    try:
        bundles = make_bundles(folder)
        cloche = Peer("cloche", harness.program("cloche-runtime"), folder)
        contestants = [cloche]
        for name in arguments.peers.split(","):
            if name == "bound":
                contestants.append(LowerBound(str(helpers / "lower_bound"), cloche, folder))
            elif "=" in name:
                contestants.append(Peer(*name.split("=", 1), folder))
            elif name and shutil.which(name):
                contestants.append(Peer(name, shutil.which(name), folder))
        print(f"{'case':<8} {'runtime':<8} {'median ms':>9} {'min ms':>9} {'CPU ms':>9} "
              f"{'min CPU':>9} {'RSS KiB':>7} {'cloche: ':>8} {'min':>6} {'CPU':>6}")
        for case in arguments.cases.split(","):
            run_case(case, contestants, bundles, str(helpers / "stopwatch"), arguments.rounds)
    finally:
        harness.remove_tree(folder)


if __name__ == "__main__":
    main()
