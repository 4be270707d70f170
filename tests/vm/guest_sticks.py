"""The guest's USB sticks (run_guest.py, usb_options) and modules."""

import itertools
import json
import os
import pathlib
import struct
import subprocess
import time

DEVICES = pathlib.Path("/sys/bus/usb/devices")
HAND = pathlib.Path("/share/hand")
_numbers = itertools.count()


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


def ask_hand(*commands):
    """QMP commands, carried out outside (hand.py)."""
    ask = HAND / f"{next(_numbers)}.ask"
    ask.with_suffix(".part").write_text(json.dumps(commands))
    os.rename(ask.with_suffix(".part"), ask)
    answer = ask.with_suffix(".answer")
    for _ in range(600):
        if answer.exists():
            break
        time.sleep(0.1)
    answers = json.loads(answer.read_text())
    assert all("return" in one for one in answers), answers


def plug_in(serial, disk):
    """A stick of one of run_guest.py's later disks. What goes over its port is in /share/hand/SERIAL.pcap."""
    ask_hand({"execute": "device_add",
              "arguments": {"driver": "usb-storage", "id": serial.lower(), "bus": "xhci.0", "drive": disk,
                            "serial": serial, "removable": True, "pcap": f"{serial}.pcap"}})


def plug_in_units(serial, disks, driver="usb-bot", names=()):
    """A stick of several units: later disks and the sizes of their sectors; their names in the world (page 83)."""
    name = serial.lower()
    bus = {"driver": driver, "id": name, "bus": "xhci.0", "serial": serial}
    units = [{"driver": "scsi-hd", "id": f"{name}-{lun}", "bus": f"{name}.0", "lun": lun, "drive": disk,
              "logical_block_size": size, "physical_block_size": size} for lun, (disk, size) in enumerate(disks)]
    for unit, number in zip(units, names):
        unit["wwn"] = number
    ask_hand(*[{"execute": "device_add", "arguments": arguments} for arguments in (bus, *units)],
             # QEMU's manual: it is not plugged in before it has its units.
             {"execute": "qom-set", "arguments": {"path": f"/machine/peripheral/{name}", "property": "attached",
                                                  "value": True}})


def pull_out(serial):
    ask_hand({"execute": "device_del", "arguments": {"id": serial.lower()}})


def packets(path):
    """Of a recording of usbmon's packets (the kernel's Documentation/usb/usbmon.rst), those of bulk endpoints:
    "S" or "C" (submitted, completed), the endpoint's address, data."""
    data = path.read_bytes()
    at = 24  # behind the file's header
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        packet = data[at + 16:at + 16 + length]
        if packet[9] == 3:
            yield chr(packet[8]), packet[10], packet[64:]
        at += 16 + length


def command_blocks(path):
    """The tags and commands of the command blocks (Bulk-Only Transport 1.0, 5.1)."""
    return [(struct.unpack_from("<I", data, 4)[0], data[15])
            for kind, _, data in packets(path) if kind == "S" and data[:4] == b"USBC"]
