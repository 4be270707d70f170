"""The guest's USB sticks (run_guest.py, usb_options) and modules."""

import pathlib
import subprocess
import time

DEVICES = pathlib.Path("/sys/bus/usb/devices")


def modules(*names):
    for name in names:
        subprocess.run(["/usr/sbin/modprobe", "-d", "/modules", name], check=True)


def device(serial):
    """The sysfs folder of the stick with this serial number."""
    modules("xhci_pci")
    for _ in range(100):
        for folder in DEVICES.iterdir():
            file = folder / "serial"
            if file.exists() and file.read_text().strip() == serial:
                return folder
        time.sleep(0.1)
    raise AssertionError(f"no stick {serial}: {list(DEVICES.iterdir())}")


def node(folder):
    return (f"/dev/bus/usb/{int((folder / 'busnum').read_text()):03d}/"
            f"{int((folder / 'devnum').read_text()):03d}")
