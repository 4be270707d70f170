"""Sticks of another machine: Debian's usbipd serves QEMU's to our client."""

import hashlib
import os
import pathlib
import socket
import subprocess

from guest_sticks import device, modules
from harness import main, run, test, wait_for

PROBE = pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe"
SHARE = pathlib.Path("/share")
PORT = 3240


def listens():
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", PORT)) == 0


def serve(serial):
    """The stick as DEVICE of the probe."""
    modules("usbip-core", "usbip-host")
    run("/usr/sbin/ip", "link", "set", "lo", "up")
    place = device(serial).name
    run("/usr/sbin/usbip", "bind", "-b", place)
    server = subprocess.Popen(["/usr/sbin/usbipd", "-4"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(listens, timeout=60)
    return server, f"{PORT}/{place}"


@test
def what_usbipd_serves_is_read_and_written():
    server, stick = serve("STICK")
    try:
        out = run(PROBE, stick, "facts", timeout=60).out
        assert '"STICK", 1 units, by usbip, bulk-only' in out and "16384 sectors of 512 bytes" in out, out
        data = os.urandom(1 << 20)
        subprocess.run([PROBE, stick, "write"], input=data, check=True, timeout=120)
        read = run(PROBE, stick, "read", text=False, timeout=300).out
        image = (SHARE / "stick.img").read_bytes()
        assert image[:len(data)] == data
        assert hashlib.sha256(read).digest() == hashlib.sha256(image).digest()
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
