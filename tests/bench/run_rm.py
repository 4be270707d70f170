#!/usr/bin/env python3
"""usage: run_rm.py [--rounds N] [--build FOLDER]

Times `run --rm IMAGE true` of a small image by cloche, podman and docker, as a user sees it: from the
start of the command line to its end, default network, daemon running. The engines take turns, so that
what else happens on the machine meets all of them. An engine that is not installed is left out.
Everything runs in namespaces of its own; nothing of it stays. Needs root.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

IMAGE = "small:1"
WARM_UP = 3  # rounds that do not count


class Cloche:
    name = "cloche"

    def __init__(self, harness, folder):
        self.instance = harness.Instance("bench")
        self.command = [harness.program("cloche")]
        self.env = self.instance.env

    def prepare(self, images):
        self.instance.cloche("load", "-i", images.docker_archive(IMAGE))

    def close(self):
        self.instance.remove()

    def version(self):
        return "this tree"


class Podman:
    name = "podman"

    def __init__(self, harness, folder):
        self.command = ["podman", "--root", f"{folder}/podman/root", "--runroot",
                        f"{folder}/podman/run", "--cgroup-manager", "cgroupfs",
                        "--events-backend", "file", "--tmpdir", f"{folder}/podman/tmp"]
        self.env = {}
        self.run = harness.run

    def prepare(self, images):
        self.run(*self.command, "load", "-i", images.docker_archive(IMAGE))

    def close(self):
        self.run(*self.command, "rm", "-af", code=None)
        self.run(*self.command, "rmi", "-af", code=None)

    def version(self):
        return self.run("podman", "--version").out.split()[-1]


class Docker:
    name = "docker"

    def __init__(self, harness, folder):
        self.socket = f"unix://{folder}/docker/docker.sock"
        os.makedirs(f"{folder}/docker")
        self.log = open(f"{folder}/docker/log", "w", encoding="utf-8")
        self.daemon = subprocess.Popen(
            ["dockerd", "-H", self.socket, "--data-root", f"{folder}/docker/data", "--exec-root",
             f"{folder}/docker/exec", "--pidfile", f"{folder}/docker/pid"],
            stdout=self.log, stderr=self.log)
        self.command = [docker_client(), "-H", self.socket]
        self.env = {}
        self.harness = harness
        harness.wait_for(lambda: harness.run(*self.command, "version", code=None).code == 0, 60,
                         "dockerd answers")

    def prepare(self, images):
        self.harness.run(*self.command, "load", "-i", images.docker_archive(IMAGE))

    def close(self):
        self.daemon.terminate()
        self.daemon.wait(30)

    def version(self):
        return self.harness.run("dockerd", "--version").out.split()[2].strip(",")


def docker_client():
    return "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"


def once(engine):
    """Seconds of one run."""
    started = time.perf_counter()
    subprocess.run([*engine.command, "run", "--rm", IMAGE, "true"], check=True,
                   env={**os.environ, **engine.env}, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def leave_hybrid_mode(harness):
    """crun refuses a machine with cgroup v1 and a v2 tree that has controllers, and podman uses crun."""
    if os.path.ismount("/sys/fs/cgroup/unified"):
        harness.run("umount", "/sys/fs/cgroup/unified")


def table(engines, times):
    base = statistics.median(times["cloche"])
    print(f"{'engine':<8} {'version':<12} {'median':>9} {'fastest':>9} {'slowest':>9} {'ratio':>7}")
    for engine in engines:
        seconds = times[engine.name]
        median = statistics.median(seconds)
        print(f"{engine.name:<8} {engine.version():<12} {median * 1000:>6.1f} ms "
              f"{min(seconds) * 1000:>6.1f} ms {max(seconds) * 1000:>6.1f} ms "
              f"{median / base:>7.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="times run --rm")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--build")
    arguments = parser.parse_args()
    if arguments.build:
        os.environ["CLOCHE_BUILD"] = arguments.build
    import harness
    from images import Images
    harness.enter_namespaces()
    leave_hybrid_mode(harness)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=harness.SCRATCH_PREFIX, dir="/var/tmp"))
    images = Images(folder)
    engines = []
    try:
        for kind, needs in ((Cloche, None), (Podman, "podman"), (Docker, "dockerd")):
            if needs is None or shutil.which(needs):
                engines.append(kind(harness, folder))
                engines[-1].prepare(images)
        times = {engine.name: [] for engine in engines}
        for number in range(WARM_UP + arguments.rounds):
            for engine in engines:
                seconds = once(engine)
                if number >= WARM_UP:
                    times[engine.name].append(seconds)
        table(engines, times)
    finally:
        for engine in engines:
            engine.close()
        harness.remove_tree(folder)


if __name__ == "__main__":
    main()
