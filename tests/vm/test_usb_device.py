"""`--device-usb` with QEMU's stick, which a program in the container reads the descriptor of."""

import json
import pathlib

from guest_sticks import modules
from harness import main, test, wait_for

STICK = "46f4:0001:STICK"  # run_guest.py


def configure(instance, scratch):
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"usb": {}}))
    path.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(path)


def start(instance, images, name, *options):
    instance.cloche("load", "-q", "-i", images.small())
    instance.cloche("run", "-d", "--name", name, *options, "small:1", "sleep", "1000")


def sh(instance, command, name="shop", **options):
    return instance.cloche("exec", name, "sh", "-c", command, **options)


def port():
    """Of the stick; None: it is not plugged in."""
    for serial in pathlib.Path("/sys/bus/usb/devices").glob("*/serial"):
        if serial.read_text() == "STICK\n":
            return serial.parent
    return None


def node(place):
    return f"/dev/bus/usb/{int((place / 'busnum').read_text()):03}/{int((place / 'devnum').read_text()):03}"


def descriptor(instance, path):
    return sh(instance, f"head -c 12 {path} | od -An -tx1", code=None).out.split()


@test
def a_device_is_read_in_a_container_and_replugged(instance, images, scratch):
    modules("xhci_pci")
    place = wait_for(port, what="QEMU's stick")
    configure(instance, scratch)
    start(instance, images, "shop", "--device-usb", STICK)
    start(instance, images, "other")
    first = node(place)
    expected = "f4 46 01 00".split()  # vendor and product, at offset 8
    wait_for(lambda: descriptor(instance, first)[8:] == expected, what="the descriptor in the container")
    numbers = (place / "dev").read_text().strip().replace(":", " ")
    sh(instance, f"mknod /own c {numbers}", "other")
    assert "Operation not permitted" in sh(instance, ": < /own", "other", code=None).err
    hub = pathlib.Path(f"/sys/bus/usb/devices/usb{int((place / 'busnum').read_text())}")
    (hub / "authorized").write_text("0")  # as when the bus is pulled out
    wait_for(lambda: sh(instance, f"test -e {first}", code=None).code == 1, what="no node of what is gone")
    (hub / "authorized").write_text("1")
    second = node(wait_for(port, what="the stick again"))
    wait_for(lambda: descriptor(instance, second)[8:] == expected, what="the device again")


if __name__ == "__main__":
    main()
