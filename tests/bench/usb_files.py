"""In the guest: the two sides between which files on one stick of QEMU's are compared: the host stack through FUSE, and
the kernel's usb-storage and file systems."""

import os
import pathlib
import subprocess

from guest_sticks import device, node
from sticks import Process, mount_fuse, unmount
from usb_sides import have_kernels_driver, kernel_disk, kernel_lets_go

FILE_SYSTEMS = ("vfat", "exfat", "nls_utf8", "nls_ascii", "fuse")
CACHE_SETTINGS = (("read_ahead_kb", "4096"), ("max_ratio", "7"), ("min_ratio", "3"))


def flush_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


class Kernel:
    def __init__(self, folder, kind, target):
        self.folder, self.kind, self.target = folder, kind, target

    def __enter__(self):
        subprocess.run(["mount", "-t", self.kind, kernel_disk(self.folder), self.target], check=True)

    def __exit__(self, *_):
        subprocess.run(["umount", self.target], check=True)
        kernel_lets_go(self.folder)


class Ours:
    def __init__(self, folder, _kind, target):
        self.folder, self.target = folder, target

    def __enter__(self):
        fd = os.open(node(self.folder), os.O_RDWR)
        self.process = Process("device", fd)
        os.close(fd)
        self.talk = self.process.talk()
        volume = self.talk.ready()["volumes"][0]["number"]
        connection = mount_fuse(str(self.target))
        self.talk.call("mount", fds=[connection], volume=volume)
        os.close(connection)
        at = os.stat(self.target).st_dev  # as the daemon does
        bdi = pathlib.Path(f"/sys/class/bdi/{os.major(at)}:{os.minor(at)}")
        for name, value in CACHE_SETTINGS:
            (bdi / name).write_text(value)

    def __exit__(self, *_):
        unmount(str(self.target))
        self.talk.call("end")
        self.process.wait()
        self.process.end()


def format_stick(folder, kind):
    subprocess.run([f"mkfs.{kind}", kernel_disk(folder)], check=True, capture_output=True)
    kernel_lets_go(folder)


def without_journal(folder, kind, target):
    """A file of others has the journal's name, so that there is none."""
    with Kernel(folder, kind, target):
        (target / "CLOCHE.JNL").write_bytes(b"not a journal")


def file_stick(scratch):
    """The stick, which no driver has, and a folder to mount it to."""
    folder = device("STICK")
    have_kernels_driver(folder, *FILE_SYSTEMS)
    target = scratch / "stick"
    target.mkdir()
    return folder, target
