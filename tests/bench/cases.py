"""The cases of engine.py. Each is a context manager that makes ready one engine and yields a function: one
turn, which gives (case, way, value, milliseconds of the processor or None) for each row that it measures."""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from contenders import KINDS
from materials import BIG, IPERF_PORT, MANY, NET, SINK_PORT, SMALL, Outside, Registry

CONNECT = """
import socket, sys, time
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def once():
    with socket.create_connection((host, port), 10) as connection:
        return connection.recv(1)
deadline = time.monotonic() + 30
while True:
    try:
        if once():
            break
    except OSError:
        pass
    if time.monotonic() > deadline:
        sys.exit("nobody answers")
    time.sleep(0.05)
started = time.perf_counter()
for _ in range(count):
    if not once():
        sys.exit("the connection was closed")
print(count / (time.perf_counter() - started))
"""


class Bench:
    """What all cases use."""

    def __init__(self, harness, folder, materials, arguments):
        self.harness, self.folder, self.materials = harness, folder, materials
        self.containers = max(3, round(100 * arguments.scale))
        self.stopwatch = str(harness.BUILD / "tests" / "bench" / "stopwatch")
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.registry = None
        self.number = 0

    def cli(self, engine, *words):
        """(milliseconds, of the processor) of the engine's command line."""
        before = engine.processor()
        result = subprocess.run([self.stopwatch, *engine.command, *map(str, words)], check=False,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, **engine.env})
        if result.returncode:
            raise RuntimeError(f"{engine.name} {' '.join(map(str, words))}: {result.stderr.decode()[-500:]}")
        wall, user, system, _ = map(int, result.stdout.split()[-4:])
        after = engine.processor()
        processor = None if after is None else (user + system) / 1e3 + (after - before) * 1e3
        return wall / 1e3, processor

    def wire(self, engine, call, *words):
        """The same of a call here, and what it returned."""
        before = engine.processor()
        started = time.perf_counter()
        result = call(*words)
        wall = (time.perf_counter() - started) * 1e3
        after = engine.processor()
        return wall, None if after is None else (after - before) * 1e3, result

    def sync(self):
        """Milliseconds until all is on the disk that the engines share."""
        started = time.perf_counter()
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            if self.libc.syncfs(descriptor):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(descriptor)
        return (time.perf_counter() - started) * 1e3

    def with_sync(self, case, engine, *words):
        self.sync()
        wall, processor = self.cli(engine, *words)
        return [(case, "", wall, processor), (case + "+sync", "", wall + self.sync(), processor)]

    def load(self, engine, name):
        engine("load", "-i", self.materials.archive(name))

    def name(self):
        self.number += 1
        return f"bench{self.number}"


# ---------------------------------------------------------------- containers

@contextlib.contextmanager
def case_run(bench, engine):
    def once():
        yield "run", "", *bench.cli(engine, "run", "--rm", SMALL, "true")
        for wire in engine.wires:
            yield "run", wire.name, *bench.wire(engine, wire.run, SMALL)[:2]
    yield once


@contextlib.contextmanager
def case_run_d(bench, engine):
    def once():
        name = bench.name()
        yield "run-d", "", *bench.cli(engine, "run", "-d", "--name", name, SMALL, "sleep", "100000")
        names = [name]
        for wire in engine.wires:
            wall, processor, started = bench.wire(engine, wire.start, SMALL)
            names.append(started)
            yield "run-d", wire.name, wall, processor
        engine("rm", "-f", *names)
    yield once


@contextlib.contextmanager
def case_exec(bench, engine):
    name = bench.name()
    engine("run", "-d", "--name", name, SMALL, "sleep", "100000")

    def once():
        yield "exec", "", *bench.cli(engine, "exec", name, "true")
        for wire in engine.wires:
            yield "exec", wire.name, *bench.wire(engine, wire.exec, name)[:2]
    yield once
    engine("rm", "-f", name)


@contextlib.contextmanager
def case_ps(bench, engine):
    names = []
    for _ in range(bench.containers):
        names.append(bench.name())
        engine("run", "-d", "--name", names[-1], SMALL, "sleep", "100000")

    def once():
        yield "ps", "", *bench.cli(engine, "ps")
        for wire in engine.wires:
            wall, processor, text = bench.wire(engine, wire.list)
            if wire.count(text) != bench.containers:
                raise RuntimeError(f"{wire.count(text)} containers are listed")
            yield "ps", wire.name, wall, processor
    yield once
    memory(engine, f"{len(names)} run", len(names))
    for start in range(0, len(names), 50):
        engine("rm", "-f", *names[start:start + 50])


def memory(engine, when, containers=0):
    """RSS and PSS of the daemons in MB; PSS in KiB of what stands beside each container."""
    rss = pss = beside = 0
    for pid, name in engine.processes():
        with contextlib.suppress(OSError):
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            values = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            if name in engine.beside:
                beside += values["Pss"]
            else:
                rss, pss = rss + values["Rss"], pss + values["Pss"]
    more = f", {beside / containers:.0f} KiB PSS beside each" if containers else ""
    print(f"{'memory':<14} {engine.name:<12} {when}: {rss / 1024:.1f} MB resident, "
          f"{pss / 1024:.1f} MB PSS{more}", flush=True)


@contextlib.contextmanager
def case_memory(bench, engine):
    memory(engine, "idle")
    yield lambda: ()


# ---------------------------------------------------------------- images

@contextlib.contextmanager
def case_commit(bench, engine):
    name, size = bench.name(), bench.materials.megabytes(100)
    engine("run", "-d", "--name", name, SMALL, "sh", "-c", f"dd if=/dev/urandom of=/data bs=1M count={size} "
           "2>/dev/null; touch /done; sleep 100000")
    bench.harness.wait_for(lambda: engine("exec", name, "test", "-e", "/done", code=None).code == 0)

    def once():
        image = bench.name()
        yield from bench.with_sync("commit", engine, "commit", name, image)
        engine("rmi", image)
    yield once
    engine("rm", "-f", name)


@contextlib.contextmanager
def case_save(bench, engine):
    target = bench.folder / f"{engine.name}.saved"
    for image in (BIG, MANY):
        bench.load(engine, image)

    def once():
        for case, image in (("save", BIG), ("save-layers", MANY)):
            target.unlink(missing_ok=True)
            yield from bench.with_sync(case, engine, "save", "-o", target, image)
    yield once
    target.unlink(missing_ok=True)
    engine("rmi", BIG, MANY)


@contextlib.contextmanager
def case_load(bench, engine):
    def once():
        for case, image in (("load", BIG), ("load-layers", MANY)):
            yield from bench.with_sync(case, engine, "load", "-i", bench.materials.archive(image))
            engine("rmi", image)
    bench.materials.archive(BIG), bench.materials.archive(MANY)
    yield once


@contextlib.contextmanager
def case_pull(bench, engine):
    if not bench.registry:
        bench.registry = Registry(bench.folder)
        bench.registry.fill(bench.materials.archive(BIG))
    image = f"{bench.registry.serve(engine.enter)}/{BIG}"

    def once():
        yield from bench.with_sync("pull", engine, "pull", *engine.pull_options, "-q", image)
        engine("rmi", image)
    yield once


@contextlib.contextmanager
def case_build(bench, engine):
    words = ["-t", "benchbuilt", bench.materials.context()]

    def once():
        yield "build", "", *bench.cli(engine, "build", "--no-cache", *words)
        engine("build", *words)
        yield "build-cached", "", *bench.cli(engine, "build", *words)
    yield once


# ---------------------------------------------------------------- ports

def throughput(enter, host, port):
    """Gbit/s of one stream into the container. The server may need a moment, also after the client before."""
    for _ in range(20):
        words = [*enter, "iperf3", "-J", "-t", "1", "-c", host, "-p", str(port)]
        out = json.loads(subprocess.run(words, check=False, stdout=subprocess.PIPE).stdout)
        if "error" not in out:
            return out["end"]["sum_received"]["bits_per_second"] / 1e9
        time.sleep(0.1)
    raise RuntimeError(f"iperf3: {out['error']}")


@contextlib.contextmanager
def case_port(bench, engine):
    bench.load(engine, NET)
    name, number = bench.name(), 100 + list(KINDS).index(engine.name)
    outside = Outside(number, engine.enter)
    iperf, sink = 18000 + number, 19000 + number
    engine("run", "-d", "--name", name, "-p", f"{iperf}:{IPERF_PORT}", "-p", f"{sink}:{SINK_PORT}", NET, "sh", "-c",
           f"iperf3 -s -p {IPERF_PORT} >/dev/null 2>&1 & exec /sink {SINK_PORT}")
    count = bench.materials.megabytes(2000)

    def once():
        for way, enter, host in (("", outside.enter, outside.here), ("127.0.0.1", engine.enter, "127.0.0.1")):
            rate = bench.harness.run(*enter, sys.executable, "-c", CONNECT, host, sink, count).out
            yield "connections/s", way, float(rate), None
            if shutil.which("iperf3"):
                yield "Gbit/s", way, throughput(enter, host, iperf), None
    try:
        yield once
    finally:
        engine("rm", "-f", name)
        outside.close()


# name -> (what to do, of so many rounds one, rounds that do not count)
CASES = {"memory": (case_memory, 1000, 0), "run": (case_run, 1, 2), "run-d": (case_run_d, 1, 1),
         "exec": (case_exec, 1, 2), "commit": (case_commit, 3, 1), "save": (case_save, 4, 0),
         "load": (case_load, 4, 0), "pull": (case_pull, 5, 0), "build": (case_build, 7, 0),
         "port": (case_port, 4, 0), "ps": (case_ps, 1, 2)}
