"""The host stack and QEMU's sticks, through libusb and usbfs: no driver of the kernel's is there."""

import hashlib
import os
import pathlib
import subprocess
import time

from harness import main, run, test

PROBE = pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe"
SHARE = pathlib.Path("/share")
DEVICES = pathlib.Path("/sys/bus/usb/devices")


def device(serial):
    """The sysfs folder of the stick with this serial number."""
    subprocess.run(["/usr/sbin/modprobe", "-d", "/modules", "xhci_pci"], check=True)
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
def it_is_quick():
    """How quick is the benchmarks' business; here it ends."""
    for size, count in 2 * ((4096, 300), (65536, 100), (131072, 50), (1048576, 20)):
        print("#", run(PROBE, node(device("STICK")), "time", str(size), str(count),
                       timeout=120).out.strip(), flush=True)


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


if __name__ == "__main__":
    main()
