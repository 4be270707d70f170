"""What sg3-utils say of a stick by the kernel's drivers is what we say of it: they judge the model that most of our tests are
about, and what `cloche usb inspect` says."""

import contextlib
import json
import pathlib
import re
import subprocess

from guest_sticks import device, modules
from guest_vhci import Plugged
from harness import main, only, run, test, wait_for
from test_usb_engine import Gadget, configure, make_image

SECTORS = 16384


def disk_of(folder):
    """The kernel's disks of what is in this port, in the order of the units."""
    modules("usb-storage", "sd_mod", "sg")
    for interface in folder.glob(f"{folder.name}:*"):  # as an exclusive daemon of another test may have left it
        (interface / "authorized").write_text("1")
        if not (interface / "driver").exists():
            with contextlib.suppress(OSError):
                pathlib.Path("/sys/bus/usb/drivers_probe").write_text(interface.name)

    def find():
        found = sorted((re.search(r":(\d+)$", path.parent.parent.name)[1], path.name)
                       for path in folder.resolve().glob("**/block/sd*"))
        return [f"/dev/{name}" for _, name in found if pathlib.Path(f"/dev/{name}").exists()]
    return wait_for(find, timeout=60, what="the kernel's disk")


def sg(name, *arguments, code=0):
    return run(name, *arguments, code=code, timeout=60).out


def number(text, words):
    return int(re.search(re.escape(words) + r"\s*(?:=|:)?\s*(0x[0-9a-f]+|\d+)", text)[1], 0)


@test
def the_model_is_what_the_specifications_say(scratch):
    image = scratch / "image"
    image.write_bytes(bytes(range(256)) * 2 * SECTORS)
    with Plugged("--image", image, "--units", "2").wait_there() as plugged:
        disk = disk_of(plugged.folder())[0]
        assert re.search(r"Vendor identification: Cloche\s.*Product identification: Model stick\s.*revision level: 1.0",
                         sg("sg_inq", disk), re.S)
        assert {"0x0", "0x80", "0x83", "0xb0", "0xb2"} <= set(re.findall(r"0x[0-9a-f]+", sg("sg_inq", "-p", "0x0", disk)))
        assert "UNIT-0001" in sg("sg_inq", "-p", "0x80", disk)
        assert "CLOCHE-1" in sg("sg_inq", "-p", "0x83", disk)
        limits = sg("sg_inq", "-p", "0xb0", disk)
        assert number(limits, "Maximum transfer length:") == 2048 and number(limits, "Maximum unmap LBA count:") == 65536
        provisioning = sg("sg_vpd", "-p", "0xb2", disk)
        assert "(LBPU): 1" in provisioning and "(LBPWS): 1" in provisioning, provisioning
        capacity = sg("sg_readcap", "-l", disk)
        assert f"{SECTORS} blocks" in capacity.replace("Number of logical blocks=", f"{SECTORS} blocks ") and \
            number(capacity, "Last LBA=") == SECTORS - 1 and number(capacity, "Logical block length=") == 512
        assert "lbpme=1" in capacity
        luns = sg("sg_luns", disk)
        assert number(luns, "Lun list length =") == 16, luns
        modes = sg("sg_modes", "-p", "8", disk)
        assert "Caching" in modes, modes
        sg("sg_sync", disk)
        sg("sg_unmap", "--force", "--lba=8", "--num=8", disk)
        sg("sg_write_same", "--16", "--unmap", "--lba=64", "--num=16", "--xferlen=512", "--in=/dev/zero", disk)
    data = image.read_bytes()
    kept = bytes(range(256)) * 2
    for sector in range(128):
        gone = 8 <= sector < 16 or 64 <= sector < 80
        assert data[sector * 512:][:512] == (bytes(512) if gone else kept), sector


def units(instance, serial):
    (stick,) = json.loads(instance.cloche("usb", "inspect", serial).out)
    return stick["units"]


def said_by_sg(disk):
    """The same, by the kernel's driver and sg3-utils."""
    text = sg("sg_inq", disk)

    def field(words):
        return re.search(words + r": *([^\n]*)", text)[1].strip()
    pages = re.findall(r"0x[0-9a-f]+", sg("sg_inq", "-p", "0x0", disk, code=None))
    serial = sg("sg_inq", "-p", "0x80", disk, code=None) if "0x80" in pages else ""
    found = re.search(r"Unit serial number: *(.*)", serial)
    capacity = sg("sg_readcap", disk)
    return {
        "vendor": field("Vendor identification"), "product": field("Product identification"),
        "revision": field("Product revision level"), "removable": "RMB=1" in text,
        "serial": found[1].strip() if found else "",
        "sectors": number(capacity, "Last LBA=") + 1, "sectorSize": number(capacity, "Logical block length="),
        "writeProtected": pathlib.Path(f"/sys/block/{pathlib.Path(disk).name}/ro").read_text() == "1\n",
    }


def compare(instance, folder, serial, pages=False):
    disks = disk_of(folder)
    told = [said_by_sg(disk) for disk in disks]
    names = [sg("sg_inq", "-p", "0x83", disk).lower() for disk in disks] if pages else []
    instance.cloche("usb", "attach", serial)
    wait_for(lambda: all(unit["state"] == "ready" for unit in units(instance, serial)), timeout=60, what="all units ready")
    ours = units(instance, serial)
    assert len(ours) == len(told), (ours, told)
    for unit, other in zip(ours, told):
        assert {key: unit.get(key) for key in other} == other
    for unit, other in zip(ours, names):
        assert unit["name"].lower() in other.replace("0x", ""), (unit, other)
    instance.cloche("usb", "detach", serial)


@test
def inspect_says_what_sg3_utils_say(instance, scratch):
    modules("fuse", "usb-storage", "sd_mod", "sg", "dummy_hcd")
    configure(instance, scratch)
    wait_for(lambda: instance.cloche("version", code=None).code == 0, timeout=200, what="the daemon")  # a busy machine
    compare(instance, device("STICK"), "STICK")
    compare(instance, device("UNITS"), "UNITS")
    with Gadget(make_image(scratch)):
        compare(instance, device("GADGET"), "GADGET")
    image = scratch / "image"
    image.write_bytes(bytes(1 << 20))
    with Plugged("--image", image, "--sector-size", "4096").wait_there() as plugged:
        compare(instance, plugged.folder(), plugged.name, pages=True)


only(the_model_is_what_the_specifications_say, inspect_says_what_sg3_utils_say)

if __name__ == "__main__":
    main()
