"""The host stack, QEMU's sticks and Linux's own gadget, through libusb and usbfs: no driver of the
kernel's for sticks is there."""

import hashlib
import os
import pathlib
import re
import subprocess

from harness import main, note, run, test
from guest_sticks import device, modules, node
from sticks import Process, refused_calls

PROBE = pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe"
SHARE = pathlib.Path("/share")


def digest(data):
    return hashlib.sha256(data).hexdigest()


@test
def a_stick_says_what_it_is():
    out = run(PROBE, node(device("STICK")), "facts", timeout=60).out
    assert '46f4:0001 "QEMU"' in out and '"STICK", 1 units, by libusb' in out, out
    assert 'unit 0: ready, "QEMU" "QEMU HARDDISK"' in out, out
    assert "16384 sectors of 512 bytes, removable" in out, out
    assert not list(pathlib.Path("/sys/block").glob("sd*")), "the kernel has a driver"


@test
def what_is_read_is_on_the_stick():
    read = run(PROBE, node(device("STICK")), "read", text=False, timeout=120).out
    assert digest(read) == digest((SHARE / "stick.img").read_bytes())


@test
def what_is_written_is_on_the_stick():
    data = os.urandom(3 << 20)
    subprocess.run([PROBE, node(device("STICK")), "write"], input=data, check=True, timeout=120)
    assert digest((SHARE / "stick.img").read_bytes()[:len(data)]) == digest(data)


@test
def units_differ_in_their_sectors():
    path = node(device("UNITS"))
    out = run(PROBE, path, "facts", timeout=60).out
    assert "2 units" in out and "1024 sectors of 4096 bytes" in out, out
    read = run(PROBE, path, "0", "read", text=False, timeout=120).out
    assert digest(read) == digest((SHARE / "unit0.img").read_bytes())


@test
def an_error_of_the_medium_is_no_data():
    result = subprocess.run([PROBE, node(device("UNITS")), "1", "read"], check=False, timeout=120,
                            capture_output=True)
    assert result.returncode != 0 and b"Input/output error" in result.stderr, result.stderr
    assert (SHARE / "unit1.img").read_bytes().startswith(result.stdout)


@test
def a_stick_that_answers_too_late_is_recovered_and_goes_on():
    """Its commands wait in a bucket of QEMU's: reset recovery (Bulk-Only Transport 1.0, 5.3.4) and a reset
    of the port, until the request is given up; with more patience it goes on."""
    late = subprocess.run([PROBE, "--command-ms", "300", node(device("SLOW")), "time", "4096", "8"], check=False,
                          timeout=120, capture_output=True, text=True)
    note(late.stdout + late.stderr)
    assert late.returncode == 1 and "Connection timed out" in late.stderr, late
    assert "recoveries 2, resets of the port 1" in late.stdout, late
    patient = run(PROBE, node(device("SLOW")), "time", "4096", "6", timeout=120)
    assert "resets of the port 0" in patient.out, patient


@test
def it_is_quick():
    """How quick is the benchmarks' business; here it ends."""
    for size, count in 2 * ((4096, 300), (65536, 100), (131072, 50), (1048576, 20)):
        print("#", run(PROBE, node(device("STICK")), "time", str(size), str(count),
                       timeout=120).out.strip(), flush=True)


def processors_of(controller):
    """Those that its interrupts were told on."""
    lines = pathlib.Path("/proc/interrupts").read_text().splitlines()
    counts = [line.split()[1:1 + len(lines[0].split())] for line in lines if controller in line]
    return {number for row in counts for number, count in enumerate(row) if int(count) > 0}


@test
def who_waits_goes_where_the_controllers_interrupts_are():
    """It begins where it must sleep for every transfer, and may go elsewhere later; the scheduler leaves it there for long."""
    path = node(device("STICK"))
    run(PROBE, path, "time", "4096", "10", timeout=60)
    everywhere, told = os.sched_getaffinity(0), processors_of("xhci")
    wrong = everywhere - told
    assert told and wrong, f"{told} of {everywhere}"
    probe = subprocess.Popen([PROBE, path, "time", "4096", "300", "rounds", "6"], stdout=subprocess.PIPE, text=True,
                             preexec_fn=lambda: os.sched_setaffinity(0, wrong))
    waits = []
    for line in probe.stdout:
        note(line.strip())
        found = re.search(r"([\d.]+) waits each", line)
        waits += [float(found[1])] if found else []
        if len(waits) == 1:
            for thread in pathlib.Path(f"/proc/{probe.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), everywhere)
    assert probe.wait(timeout=60) == 0
    assert len(waits) == 6 and max(waits[2:]) * 1.5 < waits[0], waits


@test
def nothing_that_a_stick_needs_is_refused_by_its_jail(scratch):
    modules("fuse")
    fd = os.open(node(device("STICK")), os.O_RDWR)
    try:
        denied = refused_calls(lambda under: Process("device", fd, under=under), scratch, eject=False)
    finally:
        os.close(fd)
    assert not denied, denied


@test
def a_stick_that_is_pulled_out_ends_it():
    folder = device("STICK")
    probe = subprocess.Popen([PROBE, node(folder), "idle", "60"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    for line in probe.stdout:
        if "ready" in line:
            break
    (folder / "remove").write_text("1")
    out, err = probe.communicate(timeout=20)
    assert "failed" in out and "the stick is gone" in err and probe.returncode == 1, (out, err)


def gadget(scratch, serial, *units):
    """A stick of the kernel's own: mass_storage behind dummy_hcd. units: attributes of each."""
    modules("dummy_hcd", "libcomposite", "usb_f_mass_storage")
    config = scratch / "config"
    config.mkdir()
    subprocess.run(["mount", "-t", "configfs", "none", config], check=True)
    top = config / "usb_gadget" / serial
    function = top / "functions/mass_storage.0"
    for folder in (top, top / "strings/0x409", top / "configs/c.1", function):
        folder.mkdir()
    (top / "idVendor").write_text("0x1d6b")
    (top / "idProduct").write_text("0x0104")
    (top / "strings/0x409/serialnumber").write_text(serial)
    for number, attributes in enumerate(units):
        unit = function / f"lun.{number}"
        unit.mkdir(exist_ok=True)
        for name, value in attributes.items():
            (unit / name).write_text(str(value))
    (top / "configs/c.1/mass_storage.0").symlink_to(function)
    (top / "UDC").write_text("dummy_udc.0")
    return function


def images(scratch, *sizes):
    for number, size in enumerate(sizes):
        (scratch / f"image{number}").write_bytes(os.urandom(size))
        yield scratch / f"image{number}"


def unplug(function):
    top = function.parents[1]
    (top / "UDC").write_text("\n")
    (top / "configs/c.1/mass_storage.0").unlink()
    for lun in function.glob("lun.[1-9]"):
        lun.rmdir()
    for folder in (function, top / "configs/c.1", top / "strings/0x409", top):
        folder.rmdir()
    subprocess.run(["umount", top.parents[1]], check=True)


@test
def a_gadget_is_read_and_written(scratch):
    protected, plain = images(scratch, 2 << 20, 3 << 20)
    function = gadget(scratch, "GADGET1", {"ro": 1, "file": protected}, {"file": plain},
                      {"removable": 1})
    try:
        path = node(device("GADGET1"))
        read = run(PROBE, path, "0", "read", text=False, timeout=120).out
        assert digest(read) == digest(protected.read_bytes())
        data = os.urandom(1 << 20)
        refused = subprocess.run([PROBE, path, "0", "write"], input=data, check=False, timeout=120,
                                 capture_output=True)
        assert refused.returncode != 0 and b"Read-only" in refused.stderr, refused.stderr
        subprocess.run([PROBE, path, "1", "write"], input=data, check=True, timeout=120)
        assert plain.read_bytes().startswith(data)
        empty = subprocess.run([PROBE, path, "2", "read"], check=False, timeout=120,
                               capture_output=True)
        assert empty.returncode != 0 and b"unit 2: no medium" in empty.stderr, empty.stderr
    finally:
        unplug(function)


@test
def a_medium_comes_and_goes(scratch):
    first, second = images(scratch, 1 << 20, 2 << 20)
    function = gadget(scratch, "GADGET2", {"removable": 1, "file": first})
    probe = subprocess.Popen([PROBE, node(device("GADGET2")), "idle", "60"],
                             stdout=subprocess.PIPE, text=True)

    def wait_for(words):
        for line in probe.stdout:
            if words in line:
                return
        raise AssertionError(words)

    try:
        wait_for("unit 0: ready")
        (function / "lun.0/file").write_text("\n")
        wait_for("unit 0: empty")
        (function / "lun.0/file").write_text(str(second))
        wait_for("4096 sectors of 512 bytes")
    finally:
        unplug(function)
        probe.communicate(timeout=20)
    assert probe.returncode == 1


if __name__ == "__main__":
    main()
