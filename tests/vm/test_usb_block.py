"""--usb-block by the kernel's NBD and CUSE: sticks by USB/IP from the tests' model, in containers, whose own
programs read and write them. (Doors and rings: tests/integration/test_usb_block.py.)"""

import ctypes
import errno
import fcntl
import hashlib
import os
import pathlib
import struct
import subprocess

import harness
from guest_sticks import modules
from harness import main, run, test, wait_for
from sticks import Stick, attach, inspect, start

MIB = 1 << 20
BLKROGET, BLKGETSIZE, BLKFLSBUF, BLKSSZGET = 0x125E, 0x1260, 0x1261, 0x1268
BLKDISCARD, BLKPBSZGET, BLKGETSIZE64, SG_IO = 0x1277, 0x127B, 0x80081272, 0x2285
SECTORS = struct.Struct("=QIIQ")
READ, WRITE, SEEK = 0xC018C101, 0x4018C102, 0x4008C103


def load_nbd(partitions=0):  # the kernel takes one less than a power of two
    subprocess.run(["/usr/sbin/modprobe", "-r", "-d", "/modules", "nbd"], check=False)
    subprocess.run(["/usr/sbin/modprobe", "-d", "/modules", "nbd", f"max_part={partitions}", "nbds_max=2"], check=True)


def unload(name):
    subprocess.run(["/usr/sbin/modprobe", "-r", "-d", "/modules", name], check=False)


def given(instance, name):
    wait_for(lambda: inspect(instance, name).get("blocks"), what="the block device in the container")
    return inspect(instance, name)["blocks"][0]


def sh(instance, command, **options):
    return instance.cloche("exec", "shop", "sh", "-c", command, **options)


def make_partitioned(stick):
    """A stick with a table of partitions, which the kernel would read if it were let."""
    with open(stick.image.name, "r+b") as image:
        image.seek(446)
        image.write(struct.pack("<B3sB3sII", 0, bytes(3), 0x0C, bytes(3), 2048, 4096) + bytes(48) + b"\x55\xaa")


@test
def a_container_has_a_stick_as_a_block_device_of_nbd(instance, images):
    load_nbd()
    start(instance, images, "--usb-block", "/dev/usbblk0")
    with Stick(kind=None) as stick:
        make_partitioned(stick)
        name = attach(instance, stick)
        assert given(instance, name)["via"] == "nbd"
        content = pathlib.Path(stick.image.name).read_bytes()
        size = sh(instance, "dd if=/dev/usbblk0 bs=1M 2>/dev/null | sha256sum").out.split()[0]
        assert size == hashlib.sha256(content).hexdigest()
        sh(instance, "dd if=/dev/zero of=/dev/usbblk0 bs=4k count=4 seek=512 conv=fsync 2>/dev/null")
        sh(instance, "echo through | dd of=/dev/usbblk0 bs=512 seek=5000 conv=sync,fsync 2>/dev/null")
        node, = (path for path in pathlib.Path("/sys/block").glob("nbd*") if int((path / "size").read_text()))
        assert not list(node.glob("nbd*p*")), "the kernel has read the partition table"
        assert (node / "queue/logical_block_size").read_text() == "512\n"
        after = pathlib.Path(stick.image.name).read_bytes()
        assert after[2 * MIB:2 * MIB + 16384] == bytes(16384) and after[5000 * 512:5000 * 512 + 8] == b"through\n"
        instance.cloche("usb", "eject", name)
        wait_for(lambda: sh(instance, "ls /dev").out.count("usbblk") == 0, what="the node gone")
        wait_for(lambda: not int((node / "size").read_text()) or not (node / "pid").exists(), what="the device disconnected")
        wait_for(lambda: not instance.cloche("usb", "ls", "--format", "json").lines, what="the stick gone from the list")
        stick.pull_out()
        stick.plug_in()
        name = attach(instance, stick)
        assert given(instance, name)["via"] == "nbd"
        instance.cloche("rm", "-f", "shop")
        wait_for(lambda: not inspect(instance, name).get("blocks"), what="the block device back")
        assert not (node / "pid").exists()


@test
def an_nbd_stick_that_is_pulled_out_or_whose_process_dies_is_gone(instance, images):
    load_nbd()
    start(instance, images, "--usb-block", "/dev/usbblk0:ro")
    with Stick(kind=None) as stick:
        name = attach(instance, stick)
        assert given(instance, name)["readOnly"]
        assert "ot permitted" in sh(instance, "echo x > /dev/usbblk0", code=1).err
        stick.pull_out()
        wait_for(lambda: sh(instance, "ls /dev").out.count("usbblk") == 0, what="the node gone")
        wait_for(lambda: not list(pathlib.Path("/sys/block").glob("nbd*/pid")), what="the device disconnected")
        wait_for(lambda: not instance.cloche("usb", "ls", "--format", "json").lines, what="the stick gone from the list")
        stick.plug_in()
        name = attach(instance, stick)
        given(instance, name)
        before = inspect(instance, name)["pid"]
        instance.kill_daemon()
        wait_for(lambda: inspect(instance, name)["state"] == "ready", what="the stick taken over")
        assert given(instance, name)["target"] == "/dev/usbblk0"
        sh(instance, "dd if=/dev/usbblk0 of=/dev/null bs=1M count=4")
        os.kill(before, 9)
        wait_for(lambda: inspect(instance, name).get("pid") not in (before, None), what="another process")
        given(instance, name)
        sh(instance, "dd if=/dev/usbblk0 of=/dev/null bs=1M count=4")


@test
def partitions_are_not_read_by_the_kernel(instance, images):
    load_nbd(partitions=7)
    unload("cuse")
    start(instance, images, "--usb-block", "/dev/usbblk0:via=nbd")
    with Stick(kind=None) as stick:
        attach(instance, stick)
        wait_for(lambda: "max_part=7" in instance.cloche("events", "--since", "600s", "--until", "0s", "--filter",
                                                         "type=usb").out, what="the reason")
        assert not list(pathlib.Path("/sys/block").glob("nbd*/pid"))
    unload("nbd")


def control(file, command, data=b"", code=0):
    """What ioctl(2) leaves in data."""
    buffer = bytearray(data)
    try:
        fcntl.ioctl(file, command, buffer) if data else fcntl.ioctl(file, command)
    except OSError as failure:
        assert failure.errno == code, (hex(command), failure)
        return b""
    assert code == 0, f"{command:#x} does not fail"
    return bytes(buffer)


def move(file, command, sector, data, flags=0, code=0):
    memory = ctypes.create_string_buffer(data, len(data))
    control(file, command, SECTORS.pack(sector, len(data) // 512, flags, ctypes.addressof(memory)), code)
    return memory.raw


@test
def a_container_has_a_stick_as_a_character_device_of_cuse(instance, images):
    unload("nbd")
    modules("cuse")
    start(instance, images, "--usb-block", "/dev/usbblk0")
    with Stick(kind=None) as stick:
        content = os.urandom(32 * MIB)
        pathlib.Path(stick.image.name).write_bytes(content)
        name = attach(instance, stick)
        assert given(instance, name)["via"] == "cuse"
        seen = sh(instance, "dd if=/dev/usbblk0 bs=64k 2>/dev/null | sha256sum").out.split()[0]
        assert seen == hashlib.sha256(content).hexdigest()
        pid = int(instance.cloche("inspect", "--format", "{{.State.Pid}}", "shop").out)
        with open(f"/proc/{pid}/root/dev/usbblk0", "r+b", buffering=0) as file:
            assert struct.unpack("Q", control(file, BLKGETSIZE64, bytes(8))) == (32 * MIB,)
            assert control(file, BLKSSZGET, bytes(4)) == control(file, BLKPBSZGET, bytes(4)) == struct.pack("i", 512)
            assert control(file, BLKROGET, b"\xff" * 4) == bytes(4)
            assert move(file, READ, 77, bytes(65536)) == content[77 * 512:77 * 512 + 65536]
            move(file, WRITE, 4, b"w" * 4096, flags=1)
            move(file, READ, 65536, bytes(512), code=errno.EINVAL)
            move(file, READ, 0, bytes(65536 + 512), code=errno.EINVAL)
            control(file, SEEK, struct.pack("Q", 4 * 512))
            assert os.read(file.fileno(), 1024) == b"w" * 1024 and os.write(file.fileno(), b"v" * 512) == 512
            control(file, SEEK, struct.pack("Q", 32 * MIB))
            assert os.read(file.fileno(), 512) == b""
            control(file, BLKDISCARD, struct.pack("QQ", 1 << 20, 4096))
            control(file, BLKFLSBUF)
            control(file, SG_IO, bytes(64), errno.EPERM)
            control(file, 0x1234, bytes(8), errno.ENOTTY)
            with open(stick.image.name, "rb") as image:
                image.seek(2048)
                assert image.read(4096) == b"w" * 1024 + b"v" * 512 + b"w" * 2560
        instance.cloche("usb", "eject", name)
        wait_for(lambda: sh(instance, "ls /dev").out.count("usbblk") == 0, what="the node gone")
        wait_for(lambda: not list(pathlib.Path("/sys/class/cuse").glob("usbblk*")), what="the device gone")


if __name__ == "__main__":
    harness._CLONE_NEWNET = 0  # the kernel's NBD is spoken to in the machine's own network namespace
    main()
