#!/usr/bin/env python3
"""usage: run_guest.py BUILD-FOLDER tiny|systemd|systemd-v1 TEST-FILE...

Boots the guest, with Debian's systemd as its first process when that is asked for, runs test files
(paths in the tree) in it one after the other, prints one TAP stream of all. See README.md."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import initramfs
from hand import Hand
import kernel as kernels

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
# Only what this distribution still knows: cgroup v1 alone, without the empty v2 tree beside it.
SYSTEMD_OPTIONS = ("systemd.unit=cloche-test.target systemd.show_status=no systemd.log_target=kmsg "
                   "systemd.default_timeout_start_sec=300")
CGROUP_V1_OPTIONS = ("systemd.unified_cgroup_hierarchy=no "
                     "systemd.legacy_systemd_cgroup_controller=yes")
DISK_SIZE = 512 << 20  # bytes; a hole until written
UAS_STICKS = {"UAS": "xhci", "UASHIGH": "ehci"}  # serial number -> controller
LATER_DISKS, LATER_SIZE = ("later0", "later1", "later2", "later3"), 16 << 20
BOOT_LIMIT = 1400  # seconds; meson's own limit is above
FILE_MARK = "== "  # guest.py writes it, and the file's path, before the TAP of each file
_RESULT = re.compile(r"(not ok|ok)\b *\d*(.*)")
_PLAN = re.compile(r"1\.\.(\d+)")


def init_options(first):
    """What the kernel's command line says of the first process."""
    if first == "tiny":
        return ""
    return " ".join([" INIT=systemd", SYSTEMD_OPTIONS,
                     CGROUP_V1_OPTIONS if first == "systemd-v1" else ""])


def wants_sticks(tests):
    return any("usb" in test.name for test in tests)


def usb_options(work):
    """Sticks by their serial numbers: STICK; UNITS, with one unit of 4096-byte sectors and one of which a
    sector cannot be read. And disks of sticks that are plugged in later (hand.py)."""
    share = f"{work}/share"
    return ["-device", "qemu-xhci,id=xhci,p2=8,p3=8",
            "-drive", f"if=none,id=stick,format=raw,file={share}/stick.img",
            "-device", "usb-storage,bus=xhci.0,drive=stick,serial=STICK,removable=on",
            "-device", "usb-bot,bus=xhci.0,id=units,serial=UNITS",
            "-drive", f"if=none,id=unit0,format=raw,file={share}/unit0.img",
            "-device", "scsi-hd,bus=units.0,lun=0,drive=unit0,logical_block_size=4096,"
                       "physical_block_size=4096",
            "-blockdev", "driver=raw,node-name=unit1,file.driver=blkdebug,"
                         "file.inject-error.0.event=read_aio,file.inject-error.0.sector=5000,"
                         "file.inject-error.0.errno=5,file.image.driver=file,"
                         f"file.image.filename={share}/unit1.img",
            "-device", "scsi-hd,bus=units.0,lun=1,drive=unit1",
            *uas_options(share),
            # Commands wait for up to a second.
            "-object", "throttle-group,id=slow,x-iops-total=1,x-iops-total-max=4",
            "-blockdev", "driver=throttle,node-name=slow0,throttle-group=slow,file.driver=raw,"
                         f"file.file.driver=file,file.file.filename={share}/slow.img",
            "-device", "usb-storage,bus=xhci.0,drive=slow0,serial=SLOW,removable=on",
            *[word for name in LATER_DISKS for word in (
                "-blockdev", f"driver=raw,node-name={name},file.driver=file,"
                             f"file.filename={share}/hand/{name}.img")],
            "-qmp", f"unix:{work}/qmp,server=on,wait=off"]


def uas_options(share):
    """UAS: two units, a sector of the second cannot be read, at SuperSpeed (UAS, with streams); the same
    at high speed (UASHIGH). What goes over their ports is in /share/SERIAL.pcap."""
    found = ["-device", "usb-ehci,id=ehci"]
    for serial, bus in UAS_STICKS.items():
        name = serial.lower()
        found += ["-device", f"usb-uas,bus={bus}.0,id={name},serial={serial},pcap={share}/{serial}.pcap",
                  "-drive", f"if=none,id={name}0,format=raw,file={share}/{name}0.img",
                  "-device", f"scsi-hd,bus={name}.0,lun=0,drive={name}0",
                  "-blockdev", f"driver=raw,node-name={name}1,file.driver=blkdebug,"
                               "file.inject-error.0.event=read_aio,file.inject-error.0.sector=5000,"
                               "file.inject-error.0.errno=5,file.image.driver=file,"
                               f"file.image.filename={share}/{name}1.img",
                  "-device", f"scsi-hd,bus={name}.0,lun=1,drive={name}1"]
    return found


def make_sticks(work):
    stick = int(os.environ.get("CLOCHE_USB_STICK_MB", "8")) << 20
    for name, size in (("stick", stick), ("unit0", 4 << 20), ("unit1", 4 << 20), ("slow", 1 << 20)):
        pathlib.Path(f"{work}/share/{name}.img").write_bytes(os.urandom(size))
    for serial in UAS_STICKS:
        for unit in (0, 1):
            pathlib.Path(f"{work}/share/{serial.lower()}{unit}.img").write_bytes(os.urandom(4 << 20))
    os.mkdir(f"{work}/share/hand")
    for name in LATER_DISKS:
        pathlib.Path(f"{work}/share/hand/{name}.img").write_bytes(os.urandom(LATER_SIZE))


def qemu_command(kernel, work, build, tests, first):
    def share(tag, path, access):
        return ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,"
                           f"multidevs=remap{access}"]
    line = (f"{kernels.OPTIONS} SOURCE={SOURCE} BUILD={build} TESTS={','.join(map(str, tests))}" +
            init_options(first))
    return ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
            "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", f"file:{work}/console", "-kernel", str(kernel.image),
            "-initrd", f"{work}/initramfs", "-append", line,
            "-drive", f"file={work}/disk,format=raw,if=virtio,cache=unsafe",
            *share("usr", "/usr", ",readonly=on"),
            *share("modules", kernel.modules, ",readonly=on"),
            *share("source", SOURCE, ",readonly=on"),
            *share("build", build, ",readonly=on"),
            *share("share", f"{work}/share", ""),
            *(usb_options(work) if wants_sticks(tests) else [])]


# What tests and benchmarks are told, by files of /share.
WORDS = {
    "CLOCHE_USB_ROUNDS": "rounds",  # tests/bench/usb.py
    "CLOCHE_USB_MANY": "many",
    "CLOCHE_USB_VOLUMES": "volumes",  # test_usb_volumes.py
    "CLOCHE_USB_FAULTS": "faults",  # test_usb_hostile_guest.py
}


def boot(build, tests, work, first):
    """Runs the guest to its end. Returns the exit code of the tests, None when it did not get
    there."""
    kernel = kernels.find(build)
    initramfs.write(f"{work}/initramfs", kernel, HERE / "init")
    os.mkdir(f"{work}/share")
    if wants_sticks(tests):
        make_sticks(work)
    for variable, name in WORDS.items():
        if variable in os.environ:
            pathlib.Path(f"{work}/share/{name}").write_text(os.environ[variable])
    with open(f"{work}/disk", "wb") as disk:
        disk.truncate(DISK_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", f"{work}/disk"], check=True)
    try:
        with Hand(f"{work}/share/hand", f"{work}/qmp"):
            subprocess.run(qemu_command(kernel, work, build, tests, first), stdin=subprocess.DEVNULL,
                           timeout=BOOT_LIMIT, check=True)
    except subprocess.TimeoutExpired:
        print(f"# the guest did not end within {BOOT_LIMIT} s")
    try:
        return int(pathlib.Path(f"{work}/share/exit").read_text())
    except FileNotFoundError:
        return None


def show(path):
    """A diagnostic line for each of a file's."""
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            print("# " + line)


def show_tap(path):
    """The streams of the single files as one: numbered through, FILE.NAME as names, one plan."""
    prefix, planned, count = "", 0, 0
    print("TAP version 13")
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        result, plan = _RESULT.match(line), _PLAN.fullmatch(line)
        if line.startswith(FILE_MARK):
            prefix = pathlib.Path(line).stem.removeprefix("test_")
        elif result:
            count += 1
            name = re.sub(r"^ *- *", "", result[2])
            print(f"{result[1]} {count} - {prefix}.{name}")
        elif plan:
            planned += int(plan[1])
        elif line and not line.startswith("TAP version"):
            print(line)
    print(f"1..{planned}")


def main():
    if len(sys.argv) < 4 or sys.argv[2] not in ("tiny", "systemd", "systemd-v1"):
        sys.exit(__doc__)
    build = pathlib.Path(sys.argv[1]).resolve()
    tests = [pathlib.Path(name).resolve().relative_to(SOURCE) for name in sys.argv[3:]]
    work = pathlib.Path(tempfile.mkdtemp(prefix="cloche-vm-", dir="/var/tmp"))
    try:
        code = boot(build, tests, work, sys.argv[2])
        show_tap(work / "share/tap")
        if code != 0:
            show(work / "share/guest-error")
            print("# the guest's console:")
            show(work / "console")
    finally:
        shutil.rmtree(work)
    if code is None:
        print("Bail out! the guest did not run the tests to their end")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
