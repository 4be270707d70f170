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
from guest_sticks import ask_hand, device, node  # noqa: E402
from usb_sides import ROUNDS, have_kernels_driver, kernel_disk, kernel_lets_go, tell  # noqa: E402

PROBE = pathlib.Path("/run/usb-probe")  # in memory: starting it over 9p costs tens of milliseconds
PAIR = {"PAIRA": "later0", "PAIRB": "later1"}  # serial numbers -> disks
CASES = (("read 4K", 4096, 200, ()), ("read 64K", 65536, 100, ()), ("read 1M", 1 << 20, 24, ()),
         ("write 4K", 4096, 200, ("write",)), ("write 64K", 65536, 100, ("write",)),
         ("write 1M", 1 << 20, 24, ("write",)),
         ("read 4K, ahead", 4096, 1000, ("ahead",)), ("read 64K, ahead", 65536, 200, ("ahead",)),
         ("random read 4K", 4096, 200, ("random",)),
         ("random read 4K, depth 8", 4096, 400, ("random", "depth", "8")),
         ("random write 4K, depth 8", 4096, 400, ("write", "random", "depth", "8")))
_LINE = re.compile(r"^(\w+) \d+: p50 ([\d.]+) us, p99 ([\d.]+) us, p99.9 ([\d.]+) us, ([\d.]+) MB/s, ([\d.]+) waits",
                   re.MULTILINE)


# Size and count of what dd reads beside the probe.
DD_CASES = (("dd 4K", 4096, 1000), ("dd 64K", 65536, 500), ("dd 1M", 1 << 20, 100))
_DD = re.compile(r"copied, ([\d.e-]+) s")
_FIRST = re.compile(r"first byte after ([\d.]+) ms")


def measure(target, size, count, *words):
    """Pairs of a side and its figures, a round each."""
    out = subprocess.run([PROBE, target, "time", str(size), str(count), *map(str, words)], check=True,
                         capture_output=True, text=True, timeout=600).stdout
    return [(side, [float(text) for text in texts]) for side, *texts in _LINE.findall(out)]


def have_probe():
    shutil.copy(pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe", PROBE)


def start():
    """Its folder in sysfs, its node; no driver has it."""
    folder = device("STICK")
    have_probe()
    measure(node(folder), 4096, 10)
    have_kernels_driver(folder)
    return folder, node(folder)


def plug_in_pair():
    """Two of the same kind: their folders."""
    ask_hand(*[{"execute": "device_add",
                "arguments": {"driver": "usb-storage", "id": serial.lower(), "bus": "xhci.0", "drive": disk,
                              "serial": serial, "removable": True}} for serial, disk in PAIR.items()])
    folders = [device(serial) for serial in PAIR]
    for folder in folders:
        have_kernels_driver(folder)
    return folders


@test
def raw_beside_the_kernel():
    """One stick is ours and one the kernel's, then the other way round; short rounds of both in turn, by one process."""
    have_probe()
    one, other = plug_in_pair()
    for ours, theirs in ((one, other), (other, one)):
        disk = kernel_disk(theirs)
        for name, size, count, words in CASES:
            for side, figures in measure(node(ours), size, count, *words, "rounds", ROUNDS, "beside", disk):
                tell(name, side, result=figures)
        kernel_lets_go(theirs)


def run_dd(target, size, count):
    """Seconds, by its own clock."""
    done = subprocess.run(["dd", f"if={target}", "of=/dev/null", f"bs={size}", f"count={count}", "iflag=direct"],
                          check=True, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "LC_ALL": "C"})
    return float(_DD.search(done.stderr)[1])


@test
def the_probe_beside_dd():
    """The same reads on one stick; neither counts what comes before the first and after the last."""
    folder, ours = start()
    for _ in range(ROUNDS):
        for name, size, count in DD_CASES:
            _, figures = measure(ours, size, count)[0]
            tell(name, "cloche", seconds=size * count / 1e6 / figures[3])
            tell(name, "kernel", seconds=run_dd(kernel_disk(folder), size, count))
            kernel_lets_go(folder)


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
