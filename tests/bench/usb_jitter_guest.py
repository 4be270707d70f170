"""In the guest: how late reads of 4 KiB from a stick's file come while processors are busy, with the threads of
cloche-usb as usual and real-time, in turn. Prints a JSON document a measurement; usb_jitter.py boots the guest and
makes the table."""

import contextlib
import json
import mmap
import os
import pathlib
import random
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))
sys.path.insert(0, str(HERE.parent / "integration"))

from harness import main, test  # noqa: E402
from guest_sticks import device, modules, node  # noqa: E402
from sticks import Process, mount_fuse, unmount  # noqa: E402

ROUNDS = int(pathlib.Path("/share/rounds").read_text()) if pathlib.Path("/share/rounds").exists() else 1
READS, SIZE, BLOCK = 1500, 4 << 20, 4096
SIDES = {"usual": (), "real-time": ("--real-time", "40"),
         "real-time, one processor": ("--real-time", "40", "--cpus", "1")}


def tell(**entry):
    print("# " + json.dumps(entry), flush=True)


@contextlib.contextmanager
def busy_processors():
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
    try:
        time.sleep(1)
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def reads(path):
    """Microseconds that each took. Who reads is real-time as well: what is measured is what serves it."""
    chance, buffer = random.Random(1), mmap.mmap(-1, BLOCK)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    found = []
    try:
        for _ in range(READS):
            at = chance.randrange(SIZE // BLOCK) * BLOCK
            begun = time.monotonic_ns()
            assert os.preadv(fd, [buffer], at) == BLOCK
            found.append((time.monotonic_ns() - begun) / 1000)
            time.sleep(0.001)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.close(fd)
    return sorted(found)


@test
def jitter(scratch):
    folder = device("STICK")
    modules("fuse")
    target = scratch / "stick"
    target.mkdir()
    pathlib.Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
    made = False
    for _ in range(ROUNDS):
        for side, words in SIDES.items():
            fd = os.open(node(folder), os.O_RDWR)
            process = Process("device", fd, *words)
            os.close(fd)
            talk = process.talk()
            volume = talk.ready(timeout=120)["volumes"][0]["number"]
            if not made:
                talk.call("format", volume=volume, kind="exfat")
            connection = mount_fuse(str(target))
            talk.call("mount", fds=[connection], volume=volume)
            os.close(connection)
            if not made:
                (target / "file").write_bytes(os.urandom(SIZE))
            made = True
            with busy_processors():
                found = reads(target / "file")
            tell(case="jitter", side=side, result=[found[int(len(found) * part)] for part in (0.5, 0.99, 0.999)]
                 + [found[-1]])
            unmount(str(target))
            talk.wait_for("unmounted", timeout=120)
            talk.call("end", timeout=120)
            process.wait()
            process.end()


if __name__ == "__main__":
    main()
