"""USB devices in ports of the machine, by the daemon: QEMU's sticks behind xhci, and Linux's own gadgets
behind dummy_hcd, plugged in and pulled out as a hand would do it. What is remote is in
tests/integration/test_usb.py."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import time

from guest_sticks import HAND, command_blocks, modules, plug_in, pull_out
from harness import main, note, run, test, wait_for

PATH = "/media/stick"
GADGETS = pathlib.Path("/sys/kernel/config/usb_gadget")
# Of a boot keyboard: HID 1.11, appendix B.1.
KEYBOARD = bytes.fromhex("05010906a101050719e029e71500250175019508810295017508810195057501050819012905"
                         "9102950175039103950675081500256505071900296581 00c0".replace(" ", ""))


def make_image(scratch, label="SHOP", files=(("hello.txt", "hello\n"),)):
    image = scratch / f"{label}.img"
    image.write_bytes(b"")
    os.truncate(image, 16 << 20)
    run("mkfs.vfat", "-n", label, image)
    for name, text in files:
        run("mcopy", "-i", image, "-", f"::{name}", input=text)
    return image


class Gadget:
    """A stick, also one that is a keyboard, too. more: images of further interfaces. later: its storage is in
    configuration 2, and configuration 1 is the keyboard alone."""

    def __init__(self, image, serial="GADGET", keyboard=False, more=(), later=False):
        modules("dummy_hcd", "libcomposite", "usb_f_mass_storage")
        if not GADGETS.parent.is_mount():
            subprocess.run(["mount", "-t", "configfs", "none", GADGETS.parent], check=True)
        self.top = GADGETS / serial
        self.configurations = [self.top / f"configs/c.{number}" for number in range(1, 3 if later else 2)]
        self.functions = [self.top / f"functions/mass_storage.{number}" for number in range(1 + len(more))]
        for folder in (self.top, self.top / "strings/0x409", *self.configurations, *self.functions):
            folder.mkdir()
        (self.top / "idVendor").write_text("0x1d6b")
        (self.top / "idProduct").write_text("0x0104")
        (self.top / "strings/0x409/serialnumber").write_text(serial)
        for function, file in zip(self.functions, (image, *more)):
            (function / "lun.0/removable").write_text("1")
            (function / "lun.0/file").write_text(str(file))
        if keyboard or later:
            self.add_keyboard()
        self.links = [(self.configurations[0 if "hid" in function.name else -1] / function.name, function)
                      for function in self.functions]
        for link, function in self.links:
            link.symlink_to(function)

    def add_keyboard(self):
        modules("usb_f_hid", "usbhid", "hid-generic")  # no udevd would load the last
        function = self.top / "functions/hid.0"
        function.mkdir()
        for name, value in (("protocol", "1"), ("subclass", "1"), ("report_length", "8")):
            (function / name).write_text(value)
        (function / "report_desc").write_bytes(KEYBOARD)
        self.functions.append(function)

    def plug_in(self):
        (self.top / "UDC").write_text("dummy_udc.0")

    def pull_out(self):
        with contextlib.suppress(OSError):
            (self.top / "UDC").write_text("\n")

    def __enter__(self):
        self.plug_in()
        return self

    def __exit__(self, *_):
        self.pull_out()
        for link, _ in self.links:
            link.unlink()
        for folder in (*self.functions, *self.configurations, self.top / "strings/0x409", self.top):
            folder.rmdir()
        subprocess.run(["umount", GADGETS.parent], check=True)


def configure(instance, scratch, **settings):
    """Before its daemon is started."""
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"usb": settings}))
    path.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(path)


def devices(instance):
    """By serial number."""
    rows = [json.loads(line) for line in instance.cloche("usb", "ls", "--all", "--format", "json").lines]
    return {row["Serial"]: row for row in rows}


def becomes(instance, state, serial="GADGET"):
    wait_for(lambda: devices(instance).get(serial, {}).get("State") == state, timeout=60,
             what=f"{serial} {state}")


def blocks():
    return sorted(path.name for path in pathlib.Path("/sys/block").glob("sd*"))


def inputs():
    return sorted(path.name for path in pathlib.Path("/sys/class/input").glob("input*"))


def start(instance, images, *options):
    instance.cloche("load", "-q", "-i", images.small())
    instance.cloche("run", "-d", "--name", "shop", *options, "small:1", "sleep", "1000")


def sh(instance, command, **options):
    return instance.cloche("exec", "shop", "sh", "-c", command, **options)


def is_there(instance):
    return "fuse" in sh(instance, f"grep ' {PATH} ' /proc/self/mountinfo | tail -n 1").out


def digest(instance, name):
    return sh(instance, f"sha256sum < {PATH}/{name}").out.split()[0]


@test
def a_real_stick_is_ours_from_its_first_command(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "xhci_pci")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", PATH)
    data = os.urandom(5 << 20)
    (scratch / "data").write_bytes(data)
    image = make_image(scratch)
    run("mcopy", "-i", image, scratch / "data", "::data")
    shutil.copy(image, HAND / "later0.img")
    plug_in("FIRST", "later0")
    wait_for(lambda: is_there(instance), timeout=60, what="the stick in the container")
    assert digest(instance, "data") == hashlib.sha256(data).hexdigest()
    sh(instance, f"cat {PATH}/data {PATH}/data > {PATH}/twice; rm {PATH}/hello.txt; sync")
    note(devices(instance)["FIRST"])
    instance.cloche("usb", "eject", "FIRST")
    assert blocks() == [], "the kernel has it"
    pull_out("FIRST")
    # The kernel counts from 1 as well: had it had the stick first, they would begin anew.
    tags = [tag for tag, _ in command_blocks(HAND / "FIRST.pcap")]
    assert len(tags) > 10 and tags == list(range(1, len(tags) + 1)), tags
    wait_for(lambda: "FIRST" not in devices(instance), timeout=60)
    plug_in("FIRST", "later0")
    wait_for(lambda: is_there(instance), timeout=60, what="the stick again")
    assert digest(instance, "twice") == hashlib.sha256(data + data).hexdigest()
    assert blocks() == []
    pull_out("FIRST")  # without a word
    wait_for(lambda: not is_there(instance), timeout=60, what="nothing left of it")
    shutil.copy(HAND / "later0.img", image)
    assert run("mtype", "-i", image, "::twice", text=False).out == data + data


@test
def a_stick_reaches_a_container_and_never_the_kernel(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", PATH)
    image = make_image(scratch)
    with Gadget(image) as gadget:
        wait_for(lambda: is_there(instance), timeout=60, what="the stick in the container")
        assert sh(instance, f"cat {PATH}/hello.txt").out == "hello\n"
        # sync(2) is not told to FUSE file systems, fsync(2) is.
        sh(instance, f"echo written | dd of={PATH}/new.txt conv=fsync")
        assert blocks() == [], "the kernel has it"
        note(str(devices(instance)))
        gadget.pull_out()
        wait_for(lambda: not is_there(instance), timeout=60, what="nothing left of it")
        wait_for(lambda: "GADGET" not in devices(instance), timeout=60)
        assert sh(instance, f"ls {PATH}").out == ""
        gadget.plug_in()
        wait_for(lambda: is_there(instance), timeout=60, what="the stick again")
        assert sh(instance, f"cat {PATH}/new.txt").out == "written\n"
        instance.cloche("usb", "eject", "GADGET")
        assert not is_there(instance) and devices(instance)["GADGET"]["State"] == "ejected"
        assert blocks() == [], "the kernel has it"
    assert run("mtype", "-i", image, "::new.txt").out == "written\n"


@test
def a_stick_that_is_a_keyboard_too_gets_nowhere(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", PATH)
    before = inputs()
    with Gadget(make_image(scratch), keyboard=True):
        becomes(instance, "denied")
        time.sleep(1)
        assert inputs() == before and blocks() == [] and not is_there(instance)
        refused = instance.cloche("usb", "attach", "GADGET", code=1).err
        assert "more than a stick" in refused, refused
        rule = instance.cloche("usb", "policy", "--serial", "GADGET", "add", "allow").out.strip()
        wait_for(lambda: is_there(instance), timeout=60, what="its files, since a rule allows it")
        assert inputs() == before, "only its storage was allowed"
        instance.cloche("usb", "policy", "rm", rule)
        wait_for(lambda: not is_there(instance), timeout=60)
        instance.cloche("usb", "policy", "--serial", "GADGET", "add", "kernel")
        wait_for(lambda: inputs() != before, timeout=60, what="the keyboard, since a rule gives it to the kernel")
        refused = instance.cloche("usb", "attach", "GADGET", code=1).err
        assert "leaves it to the kernel" in refused, refused


@test
def without_exclusive_the_kernel_has_what_nobody_wants(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "vfat", "dummy_hcd")
    configure(instance, scratch)
    instance.cloche("version")
    with Gadget(make_image(scratch)):
        becomes(instance, "idle")
        wait_for(lambda: blocks() != [], timeout=60, what="the kernel's disk")
        place = scratch / "mounted"
        place.mkdir()
        wait_for(lambda: os.path.exists(f"/dev/{blocks()[0]}"))
        subprocess.run(["mount", f"/dev/{blocks()[0]}", place], check=True)
        assert "is mounted" in instance.cloche("usb", "attach", "GADGET", code=1).err
        subprocess.run(["umount", place], check=True)
        start(instance, images, "--usb-storage", PATH)
        instance.cloche("usb", "attach", "GADGET")
        wait_for(lambda: is_there(instance), timeout=60, what="the stick in the container")
        assert blocks() == []


@test
def the_kernel_gets_its_buses_back(instance, scratch):
    modules("dummy_hcd")
    buses = list(pathlib.Path("/sys/bus/usb/devices").glob("usb*/interface_authorized_default"))
    before = [bus.read_text() for bus in buses]
    assert buses and all(int(text) for text in before), before
    configure(instance, scratch, exclusive=True)
    instance.cloche("version")
    wait_for(lambda: all(bus.read_text() == "0\n" for bus in buses), what="the buses closed")
    instance.kill_daemon()
    assert all(bus.read_text() == "0\n" for bus in buses), "open without a daemon"
    instance.cloche("version")
    instance.cloche("system", "remove", "--force")
    wait_for(lambda: [bus.read_text() for bus in buses] == before, what="the buses as they were")


if __name__ == "__main__":
    main()
