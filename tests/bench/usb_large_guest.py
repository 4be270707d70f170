"""In the guest: one large file on a stick of QEMU's, by the host stack and by the kernel's usb-storage and file systems, in
turn, many rounds. What write(2) takes and what fsync(2) takes are told apart. Prints JSON as usb_guest.py does."""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import main, test  # noqa: E402
from usb_files import Kernel, Ours, file_stick, flush_caches, format_stick  # noqa: E402
from usb_sides import ROUNDS, tell  # noqa: E402

PIECE, PIECES = 1 << 20, 48


def write(path):
    """Seconds until the last write(2) returned, and those of fsync(2)."""
    zeros, data = os.open("/dev/zero", os.O_RDONLY), bytearray(PIECE)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    begun = time.monotonic()
    for _ in range(PIECES):
        os.readv(zeros, [data])  # as dd does
        os.write(file, data)
    written = time.monotonic()
    os.fsync(file)
    synced = time.monotonic()
    os.close(file)
    os.close(zeros)
    return written - begun, synced - written


def read(path):
    data = bytearray(PIECE)
    file = os.open(path, os.O_RDONLY)
    begun = time.monotonic()
    while os.readv(file, [data]):
        pass
    seconds = time.monotonic() - begun
    os.close(file)
    return seconds


@test
def a_large_file_beside_the_kernels(scratch):
    folder, target = file_stick(scratch)
    for kind in ("vfat", "exfat"):
        format_stick(folder, kind)
        for _ in range(ROUNDS):
            for side in (Ours, Kernel):
                name = "cloche" if side is Ours else "kernel"
                with side(folder, kind, target):
                    (target / "large").unlink(missing_ok=True)
                    (target / "first").write_bytes(b"")  # what the first change costs is not meant
                    flush_caches()
                    writing, syncing = write(target / "large")
                with side(folder, kind, target):
                    flush_caches()
                    reading = read(target / "large")
                tell(f"{kind}, large written", name, seconds=writing + syncing)
                tell(f"{kind}, ... by write(2)", name, seconds=writing)
                tell(f"{kind}, ... by fsync(2)", name, seconds=syncing)
                tell(f"{kind}, large read", name, seconds=reading)


if __name__ == "__main__":
    main()
