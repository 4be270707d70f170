"""In the guest: the host stack and the kernel's usb-storage on one stick of QEMU's, in turn. Prints a
JSON document a measurement; usb.py boots the guest and makes the table."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import main, test  # noqa: E402
from guest_sticks import device, modules, node  # noqa: E402

PROBE = pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe"
DRIVER = pathlib.Path("/sys/bus/usb/drivers/usb-storage")
ROUNDS = int(pathlib.Path("/share/rounds").read_text()) if pathlib.Path("/share/rounds").exists() else 1
CASES = (("read 4K", 4096, 400, ()), ("read 64K", 65536, 120, ()), ("read 1M", 1 << 20, 24, ()),
         ("write 4K", 4096, 400, ("write",)), ("write 64K", 65536, 120, ("write",)),
         ("write 1M", 1 << 20, 24, ("write",)),
         ("random read 4K", 4096, 400, ("random",)),
         ("random read 4K, depth 8", 4096, 400, ("random", "depth", "8")),
         ("random write 4K, depth 8", 4096, 400, ("write", "random", "depth", "8")))
_LINE = re.compile(r"p50 ([\d.]+) us, p99 ([\d.]+) us, p99.9 ([\d.]+) us, ([\d.]+) MB/s")


def measure(target, size, count, words):
    out = subprocess.run([PROBE, target, "time", str(size), str(count), *words], check=True,
                         capture_output=True, text=True, timeout=300).stdout
    return [float(text) for text in _LINE.search(out).groups()]


def kernel_disk(folder):
    """The kernel's driver for sticks takes the stick. Returns its disk."""
    (DRIVER / "bind").write_text(f"{folder.name}:1.0")
    for _ in range(200):
        disks = list((folder / f"{folder.name}:1.0").glob("host*/target*/*/block/sd*"))
        if disks and int((disks[0] / "size").read_text()):
            return pathlib.Path("/dev") / disks[0].name
        time.sleep(0.05)
    raise AssertionError("no disk of the kernel's")


def kernel_lets_go(folder):
    (DRIVER / "unbind").write_text(f"{folder.name}:1.0")


@test
def raw_beside_the_kernel():
    folder = device("STICK")
    ours = node(folder)
    measure(ours, 4096, 10, ())  # no driver had it before
    modules("sd_mod", "usb_storage")
    pathlib.Path("/sys/module/usb_storage/parameters/delay_use").write_text("0")
    modprobed = DRIVER / f"{folder.name}:1.0"
    if modprobed.exists():
        kernel_lets_go(folder)
    for _ in range(ROUNDS):
        for name, size, count, words in CASES:
            for side in ("cloche", "kernel"):
                target = ours if side == "cloche" else kernel_disk(folder)
                result = measure(target, size, count, words)
                if side == "kernel":
                    kernel_lets_go(folder)
                print("# " + json.dumps({"case": name, "side": side, "result": result}), flush=True)


if __name__ == "__main__":
    main()
