"""Sticks of the tests' model (tests/usb/stick.h) in ports of the guest's kernel, by the virtual controller of USB/IP."""

import pathlib
import socket
import struct
import threading

from guest_sticks import modules
from harness import wait_for
from sticks import Model

VHCI = pathlib.Path("/sys/devices/platform/vhci_hcd.0")
REQUEST, ANSWER, BUS_ID, PATH = 8, 8, 32, 256
IMPORT, VERSION = 0x8003, 0x0111
_lock = threading.Lock()


def receive(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "the model has hung up"
        data += piece
    return data


def import_stick(connection):
    """OP_REQ_IMPORT (the kernel's Documentation/usb/usbip_protocol.rst): device ID and speed."""
    connection.sendall(struct.pack(">HHI", VERSION, IMPORT, 0) + b"1-1".ljust(BUS_ID, b"\0"))
    _, _, status = struct.unpack(">HHI", receive(connection, ANSWER))
    assert status == 0, status
    bus, device, speed = struct.unpack_from(">III", receive(connection, 312), PATH + BUS_ID)
    return bus << 16 | device, speed


def free_ports():
    """Those of high speed in which nothing is."""
    for line in (VHCI / "status").read_text().splitlines():
        words = line.split()
        if words[0] == "hs" and words[2] == "004":
            yield int(words[1])


def bus():
    """The number of the bus of high speed."""
    modules("vhci-hcd")
    numbers = sorted(int(path.name[3:]) for path in VHCI.glob("usb[0-9]*"))
    return numbers[0]


class Plugged:
    """A model in a port; name is the kernel's."""

    def __init__(self, *arguments, port=None):
        self.model = Model(*arguments)
        number = bus()
        with self.model.connect() as connection, _lock:
            self.port = next(free_ports()) if port is None else port
            device, speed = import_stick(connection)
            self.name = f"{number}-{self.port + 1}"
            (VHCI / "attach").write_text(f"{self.port} {connection.fileno()} {device} {speed}")

    def folder(self):
        return pathlib.Path("/sys/bus/usb/devices") / self.name

    def wait_there(self):
        wait_for(lambda: (self.folder() / "bConfigurationValue").exists(), timeout=60, what=f"the kernel has {self.name}")
        return self

    def pull_out(self):
        """Also when it has gone of itself. The kernel has one thread for all ports, which a deaf stick keeps for minutes."""
        with _lock:
            if self.port not in free_ports():
                try:
                    (VHCI / "detach").write_text(str(self.port))
                except OSError:
                    pass
        wait_for(lambda: self.port in free_ports() and not self.folder().exists(), timeout=300,
                 what=f"nothing at {self.name}")
        self.model.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pull_out()
