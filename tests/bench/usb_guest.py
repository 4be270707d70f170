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
from usb_sides import ROUNDS, have_kernels_driver, kernel_disk, kernel_lets_go, tell, told  # noqa: E402

SMALL, LARGE = 300, 48 << 20
FILE_SYSTEMS = ("vfat", "exfat", "nls_utf8", "nls_ascii", "fuse")
MANY, IN_FOLDER = told("many", 10000), 100  # files of 4 KiB
NAMES = 300
CACHE_SETTINGS = (("read_ahead_kb", "4096"), ("max_ratio", "7"), ("min_ratio", "3"))


def flush_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def timed(action, *words):
    begun = time.monotonic()
    action(*words)
    return time.monotonic() - begun


def forget_large(folder):
    """What writing takes is not what removing takes."""
    (folder / "large").unlink(missing_ok=True)
    (folder / "first").write_bytes(b"")  # nor what the first change costs
    os.sync()


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


def folders_of_many(folder):
    return [folder / f"many{number}" for number in range(MANY // IN_FOLDER)]


def write_many(folder):
    data = b"x" * 4096
    for below in folders_of_many(folder):
        below.mkdir()
        for number in range(IN_FOLDER):
            file = os.open(f"{below}/file{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(file, data)
            os.close(file)
    os.sync()


def read_many(folder):
    for below in folders_of_many(folder):
        for name in os.listdir(below):
            file = os.open(f"{below}/{name}", os.O_RDONLY)
            assert len(os.read(file, 65536)) == 4096
            os.close(file)


def remove_many(folder):
    for below in folders_of_many(folder):
        for name in os.listdir(below):
            os.unlink(f"{below}/{name}")
        below.rmdir()
    os.sync()


def change_names(folder):
    """Nothing but metadata, made durable now and then."""
    folder = folder / "names"  # FAT's root has room for some hundred only
    folder.mkdir()
    root = os.open(folder, os.O_RDONLY)
    for number in range(NAMES):
        os.close(os.open(f"{folder}/name{number}", os.O_WRONLY | os.O_CREAT))
        os.rename(f"{folder}/name{number}", f"{folder}/renamed{number}")
        if number % 50 == 49:
            os.fsync(root)
    for number in range(NAMES):
        os.unlink(f"{folder}/renamed{number}")
    os.fsync(root)
    os.close(root)


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


def beside_the_kernel(scratch, rounds, steps):
    """Each step is done with a stick that was plugged in anew, and cold caches."""
    folder, target = file_stick(scratch)
    for kind in ("vfat", "exfat"):
        format_stick(folder, kind)
        for _ in range(rounds):
            for side in (Ours, Kernel):
                done = {}
                for actions in steps:
                    with side(folder, kind, target):
                        for action in actions:
                            flush_caches()
                            done[action.__name__] = timed(action, target)
                done.pop("forget_large", None)
                for name, seconds in done.items():
                    tell(f"{kind}, {name.replace('_', ' ')} files",
                         "cloche" if side is Ours else "kernel", seconds=seconds)


@test
def files_beside_the_kernel(scratch):
    beside_the_kernel(scratch, ROUNDS, ((forget_large, write_large, write_small), (read_large, read_small),
                                        (remove_small,)))


@test
def many_files_beside_the_kernel(scratch):
    beside_the_kernel(scratch, 1, ((write_many,), (read_many,), (remove_many,)))


@test
def metadata_with_and_without_a_journal(scratch):
    folder, target = file_stick(scratch)
    for kind in ("vfat", "exfat"):
        for _ in range(ROUNDS):
            for side in ("journal", "none"):
                format_stick(folder, kind)
                if side == "none":
                    without_journal(folder, kind, target)
                with Ours(folder, kind, target):
                    (target / "first").write_bytes(b"")  # what the first change costs is not meant
                    tell(f"{kind}, metadata", side, seconds=timed(change_names, target))


if __name__ == "__main__":
    main()
