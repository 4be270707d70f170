#!/usr/bin/env python3
"""usage: monitor.py [PATH-OF-CLOCHE-MONITOR]

Measures a monitor beside an idle container (proportional memory, ten of them) and the CPU time that
it takes for a gigabyte of output in lines of 100 bytes, written in large and in small pieces. Needs
root; runs in namespaces of its own.
"""

import os
import pathlib
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import fake_daemon
import harness
from images import Images

COUNT = 10
LINES = "yes $(head -c 99 /dev/zero | tr '\\0' y) | head -c 1000000000"
LARGE = "yes $(head -c 99 /dev/zero | tr '\\0' y) | head -c 100000000 > /tmp/f; " \
        "for i in 1 2 3 4 5 6 7 8 9 10; do dd if=/tmp/f bs=256k 2>/dev/null; done"
QUIET = "yes | head -c 100000; sleep 1000"
IDLE = 3  # seconds after which a monitor has given its working memory back


def monitor(folder, name, root, script):
    (folder / name).mkdir()
    return fake_daemon.Monitor(folder / name, "bench" + name, root, ["/bin/sh", "-c", script])


def pss(pid):
    lines = open(f"/proc/{pid}/smaps_rollup").read().splitlines()[1:]
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def memory(folder, root):
    monitors = [monitor(folder, f"m{i}", root, QUIET) for i in range(COUNT)]
    for one in monitors:
        one.daemon.start()
    time.sleep(IDLE)
    print(f"PSS of a monitor, {COUNT} of them: "
          f"{sum(pss(one.process.pid) for one in monitors) / COUNT:.0f} KB")
    for one in monitors:
        one.daemon.stop(0)
        one.daemon.wait_exited()
        one.wait()


def cpu(folder, root, name, script):
    one = monitor(folder, name, root, script)
    started = time.monotonic()
    one.daemon.start()
    one.daemon.socket.settimeout(300)
    one.daemon.wait_exited()
    elapsed = time.monotonic() - started
    # Of the process alone: wait4() would add the container's, which the monitor reaps.
    os.waitid(os.P_PID, one.process.pid, os.WEXITED | os.WNOWAIT)
    fields = open(f"/proc/{one.process.pid}/stat").read().rpartition(")")[2].split()
    user, system = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:13])
    one.wait()
    print(f"1 GB in {name} pieces: {user:.2f} s user, {system:.2f} s system, {elapsed:.1f} s in all")
    one.remove()
    shutil.rmtree(one.folder)


def main():
    if len(sys.argv) > 1:
        fake_daemon.program = lambda name: sys.argv[1]
    harness.enter_namespaces()
    folder = pathlib.Path(tempfile.mkdtemp(prefix=harness.SCRATCH_PREFIX, dir=harness.SCRATCH_BASE))
    try:
        (folder / "images").mkdir()
        root = Images(folder / "images").root()
        memory(folder, root)
        cpu(folder, root, "large", LARGE)
        cpu(folder, root, "small", LINES)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
