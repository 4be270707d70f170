"""In the guest: the kernel's usb-storage takes a stick and lets go of it, and what was measured is told to usb.py."""

import json
import pathlib
import time

from guest_sticks import modules


def told(name, usual):
    """A number from tests/vm/run_guest.py."""
    file = pathlib.Path("/share") / name
    return int(file.read_text()) if file.exists() else usual


ROUNDS = told("rounds", 1)
_DRIVER = pathlib.Path("/sys/bus/usb/drivers/usb-storage")


def have_kernels_driver(folder, *more):
    """The driver is there, and does not have the stick. more: modules."""
    modules("sd_mod", "usb_storage", *more)
    pathlib.Path("/sys/module/usb_storage/parameters/delay_use").write_text("0")
    if (_DRIVER / f"{folder.name}:1.0").exists():
        kernel_lets_go(folder)


def kernel_disk(folder):
    """The kernel's driver for sticks takes the stick. Returns its disk."""
    (_DRIVER / "bind").write_text(f"{folder.name}:1.0")
    for _ in range(5000):
        disks = list((folder / f"{folder.name}:1.0").glob("host*/target*/*/block/sd*"))
        if disks and int((disks[0] / "size").read_text()):
            return pathlib.Path("/dev") / disks[0].name
        time.sleep(0.002)
    raise AssertionError("no disk of the kernel's")


def kernel_lets_go(folder):
    (_DRIVER / "unbind").write_text(f"{folder.name}:1.0")


def tell(case, side, **result):
    print("# " + json.dumps({"case": case, "side": side, **result}), flush=True)
