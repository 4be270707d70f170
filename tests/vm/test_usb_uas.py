"""UAS, spoken to QEMU's devices through libusb: at SuperSpeed with streams, at high speed without."""

import hashlib
import os
import pathlib
import struct
import subprocess

from harness import main, note, run, test
from guest_sticks import device, modules, node, packets

PROBE = pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe"
SHARE = pathlib.Path("/share")
COMMAND, SENSE = 0x01, 0x03  # information units: UAS r04, table 10
STICKS = ("UAS", "UASHIGH")


def stick(serial):
    modules("xhci_pci", "ehci_pci")
    return node(device(serial))


def digest(data):
    return hashlib.sha256(data).hexdigest()


def most_at_once(serial):
    """Of the commands that the port saw, how many were sent and not yet answered; and how many streams
    their data had."""
    under_way, most, streams = set(), 0, set()
    for kind, endpoint, data in packets(SHARE / f"{serial}.pcap"):
        if endpoint & 0x0F not in (1, 2) or len(data) < 4:
            continue
        what, tag = data[0], struct.unpack(">H", data[2:4])[0]
        if kind == "S" and what == COMMAND and len(data) == 32:
            under_way.add(tag)
            streams.add(tag)
            most = max(most, len(under_way))
        elif kind == "C" and what == SENSE and endpoint & 0x80:
            under_way.discard(tag)
    return most, len(streams)


@test
def both_say_what_they_are():
    for serial in STICKS:
        out = run(PROBE, stick(serial), "facts", timeout=60).out
        assert f'"{serial}", 2 units, by libusb, UAS' in out, out
        assert 'unit 0: ready, "QEMU" "QEMU HARDDISK"' in out, out
        assert "8192 sectors of 512 bytes" in out, out


@test
def what_is_read_is_on_the_stick():
    for serial in STICKS:
        read = run(PROBE, stick(serial), "read", text=False, timeout=120).out
        assert digest(read) == digest((SHARE / f"{serial.lower()}0.img").read_bytes()), serial


@test
def what_is_written_is_on_the_stick():
    for serial in STICKS:
        data = os.urandom(3 << 20)
        subprocess.run([PROBE, stick(serial), "write"], input=data, check=True, timeout=120)
        assert digest((SHARE / f"{serial.lower()}0.img").read_bytes()[:len(data)]) == digest(data), serial


@test
def an_error_of_the_medium_is_no_data():
    for serial in STICKS:
        result = subprocess.run([PROBE, stick(serial), "1", "read"], check=False, timeout=120, capture_output=True)
        assert result.returncode != 0 and b"Input/output error" in result.stderr, result.stderr
        assert (SHARE / f"{serial.lower()}1.img").read_bytes().startswith(result.stdout), serial


@test
def several_commands_are_under_way_at_once():
    for serial in STICKS:
        for words in (("4096", "300", "random"), ("65536", "100"), ("4096", "200", "write", "random")):
            note(serial + " " + run(PROBE, stick(serial), "time", *words, "depth", "8", timeout=120).out.strip())
        most, tags = most_at_once(serial)
        note(f"{serial}: {most} at once, {tags} tags")
        assert most >= 4 and tags >= 4, (serial, most, tags)


@test
def one_that_is_pulled_out_in_flight_ends_it():
    for serial in STICKS:
        path, folder = stick(serial), device(serial)
        probe = subprocess.Popen([PROBE, path, "time", "65536", "1000000", "depth", "8"], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        seen = (SHARE / f"{serial}.pcap").stat().st_size
        while (SHARE / f"{serial}.pcap").stat().st_size < seen + (1 << 20):
            assert probe.poll() is None, probe.communicate()
        (folder / "remove").write_text("1")
        _, err = probe.communicate(timeout=30)
        assert ("the stick is gone" in err or "No such device" in err) and probe.returncode == 1, err


if __name__ == "__main__":
    main()
