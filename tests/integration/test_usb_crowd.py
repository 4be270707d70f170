"""Folders of very many entries through a FUSE door: all are there, none twice, also while they are deleted, and the last one
costs no more than the first ones."""

import errno
import os
import subprocess
import time

from fuse_doors import MIB, Door, door
from harness import main, note, only, test

ENTRIES = int(os.environ.get("CLOCHE_USB_ENTRIES", "20000"))  # 100,000 in the slow one
SLOTS = 65_536  # of a FAT folder: 2 MiB of 32 bytes
PARTS = 10


def create(folder, name, numbers):
    begun = time.monotonic()
    for number in numbers:
        os.close(os.open(folder / name(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return time.monotonic() - begun


def create_all(folder, name, count):
    """In parts; what is asserted is that none takes much longer than those before, whatever the machine does."""
    took = [create(folder, name, range(part * count // PARTS, (part + 1) * count // PARTS)) for part in range(PARTS)]
    note(f"{folder.parent.name}: {count} entries in {sum(took):.1f} s, {took[0]:.2f} s the first, {took[-1]:.2f} s the last part")
    assert min(took[PARTS // 2:]) < 4 * max(min(took[:PARTS // 2]), 0.05), took


def count_by_ls(folder):
    lines = subprocess.run(f"ls -f '{folder}' | wc -l", shell=True, check=True, capture_output=True, text=True).stdout
    return int(lines) - 2


def delete_while_reading(folder, count):
    seen = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            assert entry.name not in seen, f"{entry.name} comes twice"
            seen.add(entry.name)
            os.unlink(entry.path)
    assert len(seen) == count, len(seen)
    assert os.listdir(folder) == []
    os.rmdir(folder)


def look_up(folder, names):
    begun = time.monotonic()
    for name in names:
        os.stat(folder / name)
    return time.monotonic() - begun


def use(opened, name, count):
    folder = opened.folder / "crowd"
    folder.mkdir()
    create_all(folder, name, count)
    assert count_by_ls(folder) == count
    opened.end()
    again = Door(opened.image, opened.folder)
    try:
        first = look_up(folder, [name(0)])  # this one reads the folder
        last = look_up(folder, [name(count - 1)])
        others = look_up(folder, [name(number) for number in range(1, count, count // 500)])
        note(f"{first * 1000:.0f} ms for the first name, {last * 1000:.1f} ms for the last, {others * 1000:.0f} ms for 500")
        assert last < max(first, 0.05)
        assert count_by_ls(folder) == count
        try:
            os.stat(folder / "nobody")
            raise AssertionError("nobody is there")
        except FileNotFoundError:
            pass
        delete_while_reading(folder, count)
        again.end()
    finally:
        again.kill()


@test
def a_crowd_on_exfat(scratch):
    with door(scratch, "exfat", size=256 * MIB) as opened:
        use(opened, lambda number: f"entry number {number}", ENTRIES)


def fill(folder, name):
    """Until the folder has no more room; how many there are."""
    for number in range(SLOTS + 1):
        try:
            os.close(os.open(folder / name(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError as failure:
            assert failure.errno in (errno.ENOSPC, errno.EFBIG), failure
            return number
    raise AssertionError("a folder of FAT has no end")


def is_bounded(scratch, kind, name, slots):
    """The limit is that of the folder: elsewhere there is room."""
    with door(scratch, kind, size=256 * MIB) as opened:
        folder = opened.folder / "crowd"
        folder.mkdir()
        count = fill(folder, name)
        assert count == (SLOTS - 2) // slots, count
        assert count_by_ls(folder) == count
        (opened.folder / "elsewhere").write_text("here")
        os.unlink(folder / name(0))
        assert create(folder, name, [0]) >= 0
        delete_while_reading(folder, count)


@test
def a_folder_of_fat_has_an_end(scratch):
    """Of names that take 21 entries each."""
    is_bounded(scratch, "fat32", lambda number: f"{number:06}".ljust(250, "x"), 21)


@test
def a_folder_of_fat_has_room_for_all_of_its_entries(scratch):
    if ENTRIES >= 100_000:
        is_bounded(scratch, "fat32", lambda number: f"F{number:07}", 1)
    with door(scratch, "fat16", size=256 * MIB) as opened:
        use(opened, lambda number: f"F{number:07}", min(ENTRIES // 2, SLOTS - 2))


only(a_crowd_on_exfat, a_folder_of_fat_has_an_end, a_folder_of_fat_has_room_for_all_of_its_entries)

if __name__ == "__main__":
    main()
