"""Devices that are more than one stick, by the daemon: several interfaces, several units, several configurations; and what
other programs do to a device meanwhile."""

import errno
import fcntl
import json
import os
import pathlib
import shutil

from guest_sticks import HAND, device, modules, node, plug_in_units, pull_out
from guest_vhci import Plugged
from harness import main, note, only, run, test, wait_for
from test_usb_engine import PATH, Gadget, becomes, blocks, configure, devices, inputs, is_there, make_image, sh, start

USBDEVFS_RESET = 0x5514  # linux/usbdevice_fs.h


def stick(instance, name):
    (told,) = json.loads(instance.cloche("usb", "inspect", name).out)
    return told


def change_medium(function, path):
    """What a hand would do; whether the stick lets it."""
    try:
        (function / "lun.0/file").write_text(str(path or "\n"))
        return True
    except OSError as failure:
        assert failure.errno == errno.EBUSY, failure
        return False


@test
def all_interfaces_are_served_and_media_are_locked_in(instance, images, scratch):
    """A card reader beside a disk: two functions of Linux's gadget, which keeps a medium that is prevented from removal."""
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", "/media/disk:label=DISK", "--usb-storage", "/media/card:label=CARD")
    disk, card = (make_image(scratch, label, [("name.txt", label)]) for label in ("DISK", "CARD"))
    with Gadget(disk, more=[card]) as gadget:
        for name in "disk", "card":
            wait_for(lambda: sh(instance, f"cat /media/{name}/name.txt", code=None).out == name.upper(), timeout=60, what=name)
            sh(instance, f"echo {name} | dd of=/media/{name}/new.txt conv=fsync")
        units = stick(instance, "GADGET")["units"]
        assert [(unit["number"], unit["interface"], unit["state"]) for unit in units] == [(0, 0, "ready"), (1, 1, "ready")]
        assert blocks() == [], "the kernel has it"
        assert not any(change_medium(function, None) for function in gadget.functions), "it is not locked in"
        instance.cloche("rm", "-f", "shop")
        for function in gadget.functions:
            wait_for(lambda: change_medium(function, None), timeout=60, what="a medium that can be taken out")
    for image, name in (disk, "disk"), (card, "card"):
        assert run("mtype", "-i", image, "::new.txt").out == name + "\n"


@test
def storage_that_the_kernel_did_not_choose_is_set_by_the_daemon(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", PATH)
    before = inputs()
    with Gadget(make_image(scratch), later=True):
        becomes(instance, "denied")
        chosen = device("GADGET") / "bConfigurationValue"
        assert chosen.read_text() == "1\n", "what is denied is left alone"
        rule = instance.cloche("usb", "policy", "--serial", "GADGET", "add", "allow").out.strip()
        wait_for(lambda: is_there(instance), timeout=60, what="its files, since a rule allows it")
        assert chosen.read_text() == "2\n" and inputs() == before and blocks() == []
        instance.cloche("usb", "policy", "rm", rule)
        instance.cloche("usb", "policy", "--serial", "GADGET", "add", "kernel")
        wait_for(lambda: inputs() != before, timeout=60, what="the keyboard, which the kernel had chosen")
        assert chosen.read_text() == "1\n" and blocks() == []


def seen_by_the_kernel():
    """How often usb-storage has found something, whatever became of it."""
    return run("dmesg").out.count("USB Mass Storage device detected")


@test
def without_exclusive_the_kernel_does_not_see_it_either(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch)
    instance.cloche("version")
    before = inputs()
    seen = seen_by_the_kernel()
    with Gadget(make_image(scratch), later=True):
        wait_for(lambda: inputs() != before, timeout=60, what="the kernel's keyboard")
        chosen = device("GADGET") / "bConfigurationValue"
        instance.cloche("usb", "policy", "--serial", "GADGET", "add", "allow")
        start(instance, images, "--usb-storage", PATH)
        wait_for(lambda: is_there(instance), timeout=60, what="the stick in the container")
        assert chosen.read_text() == "2\n" and inputs() == before and blocks() == []
        (bus,) = {path.read_text() for path in pathlib.Path("/sys/bus/usb/devices").glob("usb*/interface_authorized_default")}
        assert bus == "1\n", "the bus is as it was"
        assert seen_by_the_kernel() == seen, "the kernel's driver had it before"


@test
def what_a_device_says_after_it_was_judged_does_not_count(instance, images, scratch):
    """It says that the other configuration is set, and describes them the other way round."""
    modules("fuse", "usb-storage", "sd_mod", "usbhid", "hid-generic", "vhci-hcd")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", PATH)
    before = inputs()
    image = make_image(scratch)
    with Plugged("--image", image, "--configurations", "2", "configurations-swapped") as plugged:
        wait_for(lambda: devices(instance).get("0123456789AB", {}).get("State") == "denied", timeout=60, what="denied")
        instance.cloche("usb", "policy", "--serial", "0123456789AB", "add", "allow")
        wait_for(lambda: is_there(instance), timeout=60, what="its files, as the kernel knows it")
        assert (plugged.folder() / "bConfigurationValue").read_text() == "2\n"
        assert inputs() == before and blocks() == []


@test
def units_of_all_sizes_of_sectors_come_at_once(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "xhci_pci")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", "/media/small:label=SMALL", "--usb-storage", "/media/large:label=LARGE")
    wwns = [0x5000C500AABBCC01, 0x5000C500AABBCC02]
    for disk, label, size in ("later0", "SMALL", 512), ("later1", "LARGE", 4096):
        image = scratch / disk
        image.write_bytes(b"")
        os.truncate(image, 16 << 20)
        run("mkfs.vfat", "-S", size, "-n", label, image)
        shutil.copy(image, HAND / f"{disk}.img")
    plug_in_units("MANY", [("later0", 512), ("later1", 4096)], names=wwns)
    becomes(instance, "ready", "MANY")
    note(stick(instance, "MANY"))
    for name in "small", "large":
        wait_for(lambda: "fuse" in sh(instance, f"grep ' /media/{name} ' /proc/self/mountinfo | tail -n 1").out, timeout=60,
                 what=name)
        sh(instance, f"echo {name} | dd of=/media/{name}/new.txt conv=fsync")
    units = stick(instance, "MANY")["units"]
    assert [unit["sectorSize"] for unit in units] == [512, 4096], units
    assert [unit["name"] for unit in units] == [f"{number:x}" for number in wwns], units
    assert blocks() == []
    pull_out("MANY")
    wait_for(lambda: "MANY" not in devices(instance), timeout=60)
    plug_in_units("MANY", [("later1", 4096), ("later0", 512)])
    for name in "small", "large":
        wait_for(lambda: sh(instance, f"cat /media/{name}/new.txt", code=None).out == name + "\n", timeout=60, what=name)
    pull_out("MANY")


@test
def a_reset_by_another_program_is_survived(instance, images, scratch):
    """The kernel looks for a driver then, for interfaces that were claimed (usb_reset_device()); the stick is had again."""
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", PATH)
    with Gadget(make_image(scratch)):
        wait_for(lambda: is_there(instance), timeout=60, what="the stick in the container")
        sh(instance, f"echo before | dd of={PATH}/before.txt conv=fsync")
        fd = os.open(node(device("GADGET")), os.O_RDWR)
        try:
            fcntl.ioctl(fd, USBDEVFS_RESET)
        finally:
            os.close(fd)
        wait_for(lambda: sh(instance, f"cat {PATH}/before.txt; echo after | dd of={PATH}/after.txt conv=fsync && cat {PATH}/after.txt",
                            code=None).out == "before\nafter\n", timeout=100, what="the stick again")
        assert blocks() == [], "the kernel has it"


only(all_interfaces_are_served_and_media_are_locked_in, storage_that_the_kernel_did_not_choose_is_set_by_the_daemon,
     without_exclusive_the_kernel_does_not_see_it_either, what_a_device_says_after_it_was_judged_does_not_count,
     units_of_all_sizes_of_sectors_come_at_once, a_reset_by_another_program_is_survived)

if __name__ == "__main__":
    main()
