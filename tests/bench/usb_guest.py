"""In the guest: files on one stick of QEMU's, by the host stack and by the kernel's usb-storage and file systems, in
turn. Prints a JSON document a measurement; usb.py boots the guest and makes the table."""

import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import main, test  # noqa: E402
from guest_sticks import device, node  # noqa: E402
from sticks import Process, mount_fuse, unmount  # noqa: E402
from usb_sides import ROUNDS, have_kernels_driver, kernel_disk, kernel_lets_go, tell  # noqa: E402

SMALL, LARGE = 300, 24 << 20
FILE_SYSTEMS = ("vfat", "exfat", "nls_utf8", "nls_ascii", "fuse")


def flush_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def timed(action, *words):
    begun = time.monotonic()
    action(*words)
    return time.monotonic() - begun


def write_large(folder):
    subprocess.run(["dd", "if=/dev/zero", f"of={folder}/large", "bs=1M", f"count={LARGE >> 20}",
                    "conv=fsync", "status=none"], check=True)


def read_large(folder):
    subprocess.run(["dd", f"if={folder}/large", "of=/dev/null", "bs=1M", "status=none"], check=True)


def write_small(folder):
    (folder / "small").mkdir()
    for number in range(SMALL):
        (folder / f"small/{number}").write_bytes(b"x" * 4096)
    os.sync()


def read_small(folder):
    for path in (folder / "small").iterdir():
        path.read_bytes()


def remove_small(folder):
    for path in (folder / "small").iterdir():
        path.unlink()
    (folder / "small").rmdir()
    os.sync()


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
        bdi = pathlib.Path(f"/sys/class/bdi/{os.major(at)}:{os.minor(at)}/read_ahead_kb")
        bdi.write_text("4096")

    def __exit__(self, *_):
        unmount(str(self.target))
        self.talk.call("end")
        self.process.wait()
        self.process.end()


@test
def files_beside_the_kernel(scratch):
    folder = device("STICK")
    have_kernels_driver(folder, *FILE_SYSTEMS)
    target = scratch / "stick"
    target.mkdir()
    for kind in ("vfat", "exfat"):
        subprocess.run([f"mkfs.{kind}", kernel_disk(folder)], check=True, capture_output=True)
        kernel_lets_go(folder)
        for _ in range(ROUNDS):
            for side in (Ours, Kernel):
                done = {}
                for actions in ((write_large, write_small), (read_large, read_small), (remove_small,)):
                    with side(folder, kind, target):
                        for action in actions:
                            flush_caches()
                            done[action.__name__] = timed(action, target)
                for name, seconds in done.items():
                    tell(f"{kind}, {name.replace('_', ' ')} files", "cloche" if side is Ours else "kernel",
                         seconds=seconds)


def change_metadata(folder):
    (folder / "names").mkdir()
    for number in range(SMALL):
        (folder / f"names/{number}").touch()
    for number in range(SMALL):
        (folder / f"names/{number}").rename(folder / f"names/other {number}")
    os.sync()
    for path in (folder / "names").iterdir():
        path.unlink()
    os.sync()


@test
def metadata_journalled_and_not(scratch):
    """A file of somebody else's that has the journal's name keeps the journal away (cloche-journal(5))."""
    folder = device("STICK")
    have_kernels_driver(folder, *FILE_SYSTEMS)
    target = scratch / "stick"
    target.mkdir()
    for kind in ("vfat", "exfat"):
        for _ in range(ROUNDS):
            for journal in (True, False):
                subprocess.run([f"mkfs.{kind}", kernel_disk(folder)], check=True, capture_output=True)
                kernel_lets_go(folder)
                if not journal:
                    with Kernel(folder, kind, target):
                        (target / "CLOCHE.JNL").write_text("somebody else's")
                with Ours(folder, kind, target):
                    seconds = timed(change_metadata, target)
                tell(f"{kind}, {3 * SMALL} names", "journal" if journal else "none", seconds=seconds)


if __name__ == "__main__":
    main()
