"""In the guest: what the host stack makes of one of QEMU's sticks, and the kernel's usb-storage, in turn: reads and
writes of the disk itself, and how long it takes to have it. Prints a JSON document a measurement; usb.py boots the
guest and makes the table."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import main, test  # noqa: E402
from guest_sticks import device, node  # noqa: E402
from usb_sides import ROUNDS, have_kernels_driver, kernel_disk, kernel_lets_go, tell  # noqa: E402

PROBE = pathlib.Path("/run/usb-probe")  # in memory: starting it over 9p costs tens of milliseconds
CASES = (("read 4K", 4096, 400, ()), ("read 64K", 65536, 120, ()), ("read 1M", 1 << 20, 24, ()),
         ("write 4K", 4096, 400, ("write",)), ("write 64K", 65536, 120, ("write",)),
         ("write 1M", 1 << 20, 24, ("write",)),
         ("random read 4K", 4096, 400, ("random",)),
         ("random read 4K, depth 8", 4096, 400, ("random", "depth", "8")),
         ("random write 4K, depth 8", 4096, 400, ("write", "random", "depth", "8")))
_LINE = re.compile(r"p50 ([\d.]+) us, p99 ([\d.]+) us, p99.9 ([\d.]+) us, ([\d.]+) MB/s")


# Size and count of what dd reads beside the probe.
DD_CASES = (("dd 4K", 4096, 400), ("dd 64K", 65536, 120), ("dd 1M", 1 << 20, 24))
_DD = re.compile(r"copied, ([\d.e-]+) s")
_FIRST = re.compile(r"first byte after ([\d.]+) ms")


def measure(target, size, count, words):
    out = subprocess.run([PROBE, target, "time", str(size), str(count), *words], check=True,
                         capture_output=True, text=True, timeout=300).stdout
    return [float(text) for text in _LINE.search(out).groups()]


def start():
    """Its folder in sysfs, its node; no driver has it."""
    folder = device("STICK")
    shutil.copy(pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe", PROBE)
    measure(node(folder), 4096, 10, ())
    have_kernels_driver(folder)
    return folder, node(folder)


def both(folder, ours, action):
    """action(side, target) for each side."""
    for side in ("cloche", "kernel"):
        action(side, ours if side == "cloche" else kernel_disk(folder))
        if side == "kernel":
            kernel_lets_go(folder)


@test
def raw_beside_the_kernel():
    folder, ours = start()
    for _ in range(ROUNDS):
        for name, size, count, words in CASES:
            both(folder, ours, lambda side, target: tell(name, side, result=measure(target, size, count, words)))


def run_dd(target, size, count):
    """Seconds, by its own clock."""
    done = subprocess.run(["dd", f"if={target}", "of=/dev/null", f"bs={size}", f"count={count}", "iflag=direct"],
                          check=True, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "LC_ALL": "C"})
    return float(_DD.search(done.stderr)[1])


@test
def the_probe_beside_dd():
    """The same reads; neither counts what comes before the first and after the last."""
    folder, ours = start()
    for _ in range(ROUNDS):
        for name, size, count in DD_CASES:
            def action(side, target):
                seconds = (run_dd(target, size, count) if side == "kernel"
                           else size * count / 1e6 / measure(target, size, count, ())[3])
                tell(name, side, seconds=seconds)
            both(folder, ours, action)


@test
def from_attaching_to_the_first_byte():
    """Ours from the opening of the device's node, the kernel's from its driver being bound."""
    folder, ours = start()
    for _ in range(ROUNDS):
        out = subprocess.run([PROBE, ours, "first"], check=True, capture_output=True, text=True, timeout=60).stdout
        tell("attach to first byte", "cloche", seconds=float(_FIRST.search(out)[1]) / 1e3)
        begun = time.monotonic()
        with open(kernel_disk(folder), "rb", buffering=0) as disk:
            assert len(disk.read(4096)) == 4096
            tell("attach to first byte", "kernel", seconds=time.monotonic() - begun)
        kernel_lets_go(folder)


if __name__ == "__main__":
    main()
