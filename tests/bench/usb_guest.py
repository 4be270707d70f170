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
from usb_files import Kernel, Ours, file_stick, flush_caches, format_stick, without_journal  # noqa: E402
from usb_sides import ROUNDS, tell, told  # noqa: E402

SMALL, LARGE = 300, 48 << 20
MANY, IN_FOLDER = told("many", 10000), 100  # files of 4 KiB
NAMES = 300


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
