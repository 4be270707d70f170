"""FAT and exFAT of src/usb/files and the guest kernel's own, on one volume in turn: one writes, the
other reads all of it and goes on. Both are used through mounts, ours by fuse-tool.

In the check there is a sample: a volume of FAT and one of exFAT, few rounds. All kinds, sizes of
sectors and of clusters, and more rounds: `meson test --suite vm-more vm_usb_volumes_all`, or
CLOCHE_USB_VOLUMES=N (rounds) before run_guest.py."""

import contextlib
import errno
import os
import pathlib
import random
import shutil
import subprocess

from harness import main, note, run, test
from guest_sticks import modules
import fuse_doors

TOOLS = pathlib.Path(os.environ["BUILD"]) / "tests/unit"
fuse_doors.TOOL = TOOLS / "fuse-tool"
ROUNDS = pathlib.Path("/share/volumes")
OURS_ONLY = ("CLOCHE.JNL", "CLOCHE.DEL")
KERNEL_OPTIONS = {"vfat": "utf8=1,iocharset=ascii,codepage=437,tz=UTC", "exfat": "iocharset=utf8"}
MIB = 1 << 20
# kind, MiB, bytes of a sector, how it was formatted
SAMPLE = [
    ("fat16", 12, 512, ("mkfs.vfat", "-F", 16, "-s", 1)),
    ("exfat", 8, 512, ("format", "exfat")),
]
KINDS = SAMPLE + [
    ("fat12", 3, 512, ("format", "fat12")),
    ("fat32", 36, 512, ("format", "fat32")),
    ("exfat", 16, 4096, ("format", "exfat")),
]
MORE = KINDS + [
    ("fat12", 8, 512, ("mkfs.vfat", "-F", 12, "-s", 64)),
    ("fat12", 8, 4096, ("format", "fat12")),
    ("fat16", 40, 512, ("format", "fat16")),
    ("fat16", 64, 1024, ("mkfs.vfat", "-F", 16, "-S", 1024)),
    ("fat16", 256, 512, ("mkfs.vfat", "-F", 16, "-s", 128)),
    ("fat32", 40, 512, ("mkfs.vfat", "-F", 32, "-s", 1, "-f", 1)),
    ("fat32", 300, 4096, ("format", "fat32")),
    ("exfat", 8, 512, ("mkfs.exfat", "-c", 512)),
    ("exfat", 64, 512, ("mkfs.exfat", "-c", "1M")),
    ("exfat", 64, 512, ("mkfs.exfat", "-b", "1M", "--pack-bitmap")),
    ("exfat", 16, 512, ("format", "exfat", "cluster=512")),
    ("exfat", 300, 512, ("format", "exfat", "cluster=2097152")),
]
NAMES = ["a", "B.TXT", "lower.txt", "MiXed.Dat", "read me.txt", "no-extension-and-long", "größe.txt",
         "日本語 名前.txt", "smile 😀", ".hidden", "dots.in.a.name.tar.gz", "A~1", "a+b=[c],d;e.f", "UPPER",
         "x" * 200, "LONGNAME~1.TXT", "longname that is shortened 1.txt", "longname that is shortened 2.txt"]
FOLDERS = ["folder", "ORDNER", "Ordner ÄÖ", "d.d", "deep er"]
SIZES = [0, 1, 511, 512, 513, 4095, 4096, 5000, 20000, 66000]
CONTENT_MOST = 700 << 10


def fail(number):
    raise OSError(number, os.strerror(number))


class Tree:
    """What is to be there, and what each operation is to answer: POSIX, without regard to the case
    of Latin letters. path -> content, None for a folder; times -> where the test has set them."""

    def __init__(self, holes):
        self.content = {"": None}
        self.times = {}
        self.holes = holes  # may be made

    def folder_of(self, path):
        parent = path.rpartition("/")[0]
        for at in [i for i, letter in enumerate(parent) if letter == "/"] + [len(parent)]:
            if parent[:at] not in self.content:
                fail(errno.ENOENT)
            if self.content[parent[:at]] is not None:
                fail(errno.ENOTDIR)

    def find(self, path):
        self.folder_of(path)
        if path not in self.content:
            fail(errno.ENOENT)
        return self.content[path]

    def below(self, path):
        return [other for other in self.content if other.startswith(path + "/")]

    def write(self, path, offset, data):
        self.folder_of(path)
        old = self.content.get(path, b"")
        if old is None:
            fail(errno.EISDIR)
        if data:
            old = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data):]
        self.content[path] = old
        self.times.pop(path, None)

    def truncate(self, path, size):
        old = self.find(path)
        if old is None:
            fail(errno.EISDIR)
        self.content[path] = old[:size].ljust(size, b"\0")
        self.times.pop(path, None)

    def mkdir(self, path):
        self.folder_of(path)
        if path in self.content:
            fail(errno.EEXIST)
        self.content[path] = None

    def remove(self, path):
        if self.find(path) is None:
            fail(errno.EISDIR)
        del self.content[path]
        self.times.pop(path, None)

    def rmdir(self, path):
        if self.find(path) is not None:
            fail(errno.ENOTDIR)
        if self.below(path):
            fail(errno.ENOTEMPTY)
        del self.content[path]

    def rename(self, old, new):
        self.folder_of(new)
        content = self.find(old)
        if new == old:
            return
        if new.startswith(old + "/"):
            fail(errno.EINVAL)
        if new in self.content:
            if self.content[new] is not None and content is None:
                fail(errno.ENOTDIR)
            if self.content[new] is None:
                if old.startswith(new + "/"):
                    fail(errno.ENOTEMPTY)
                if content is not None:
                    fail(errno.EISDIR)
                if self.below(new):
                    fail(errno.ENOTEMPTY)
        self.times.pop(new, None)
        for path in [old, *self.below(old)]:
            self.content[new + path[len(old):]] = self.content.pop(path)
            if path in self.times:
                self.times[new + path[len(old):]] = self.times.pop(path)

    def utime(self, path, seconds):
        if self.find(path) is not None:
            self.times[path] = seconds


class Mounted:
    """The same on a mounted volume."""

    def __init__(self, top):
        self.top = str(top)

    def write(self, path, offset, data):
        fd = os.open(self.top + path, os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.pwrite(fd, data, offset)
            if len(data) % 5 == 0:
                os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, path, size):
        os.truncate(self.top + path, size)

    def mkdir(self, path):
        os.mkdir(self.top + path)

    def remove(self, path):
        os.unlink(self.top + path)

    def rmdir(self, path):
        os.rmdir(self.top + path)

    def rename(self, old, new):
        os.rename(self.top + old, self.top + new)

    def utime(self, path, seconds):
        os.utime(self.top + path, (seconds, seconds))

    def verify(self, tree, who):
        found = {""}
        folders = [""]
        while folders:
            folder = folders.pop()
            for name in os.listdir(self.top + folder):
                path = f"{folder}/{name}"
                if not folder and name.upper() in OURS_ONLY:
                    continue
                assert path in tree.content, (who, "too much", path)
                found.add(path)
                if tree.content[path] is None:
                    folders.append(path)
                    continue
                there = pathlib.Path(self.top + path).read_bytes()
                assert there == tree.content[path], \
                    (who, "content", path, len(there), len(tree.content[path]), first_difference(there, tree.content[path]))
                seconds = os.stat(self.top + path).st_mtime
                assert seconds == tree.times.get(path, seconds), (who, "time", path, seconds, tree.times[path])
        assert found == set(tree.content), (who, "missing", set(tree.content) - found)


def first_difference(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


class Chance:
    """Operations for a tree: most of them can be done."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.turn = 0

    def path(self, tree, names):
        folders = [path for path in tree.content if tree.content[path] is None and path.count("/") < 4]
        if self.random.random() < 0.04:
            folders = ["/there is none", *[path for path in tree.content if tree.content[path] is not None]]
        return f"{self.random.choice(folders)}/{self.random.choice(names)}"

    def there(self, tree, folders=None):
        paths = [path for path in tree.content if path and
                 (folders is None or (tree.content[path] is None) == folders)]
        return self.random.choice(paths) if paths else "/nothing"

    def bytes(self, size):
        return self.random.randbytes(size)

    def operation(self, tree):
        """A name and its arguments."""
        chance = self.random
        self.turn += 1
        files = sum(len(content) for content in tree.content.values() if content)
        kinds = ["new"] * 8 + ["mkdir"] * 3 + ["over"] * 5 + ["truncate"] * 3 + ["remove"] * 3 + \
                ["rmdir"] * 2 + ["rename"] * 6 + ["utime"] * 2
        kind = "remove" if files > CONTENT_MOST else chance.choice(kinds)
        any_kind = None if chance.random() < 0.1 else False
        if kind == "new":
            return "write", self.path(tree, NAMES), 0, self.bytes(chance.choice(SIZES))
        if kind == "mkdir":
            return "mkdir", self.path(tree, FOLDERS)
        if kind == "rmdir":
            return "rmdir", self.there(tree, any_kind if any_kind is None else True)
        if kind == "rename":
            folder = chance.random() < 0.4
            return "rename", self.there(tree, folder), self.path(tree, FOLDERS if folder else NAMES) \
                if chance.random() < 0.8 else self.there(tree)
        path = self.there(tree, any_kind)
        size = len(tree.content.get(path) or b"")
        beyond = size + (chance.choice(SIZES) if tree.holes else 0)
        if kind == "over":
            return "write", path, chance.choice([0, size // 2, size, beyond]), self.bytes(chance.choice(SIZES))
        if kind == "truncate":
            return "truncate", path, chance.choice([0, size // 2, max(size - 1, 0), beyond])
        if kind == "utime":
            return "utime", path, chance.randrange(330000000, 2000000000) * 2
        return "remove", path


def outcome(target, name, *arguments):
    try:
        getattr(target, name)(*arguments)
        return "done"
    except OSError as failure:
        return errno.errorcode[failure.errno]


def make_volume(scratch, size, sector_size, how):
    image = scratch / "volume.img"
    with open(image, "wb") as file:
        file.truncate(size * MIB)
    if how[0] == "format":
        run(TOOLS / "volume-tool", "--sector-size", sector_size, image, *how)
    elif how[0] == "mkfs.exfat" and sector_size != 512:
        raise AssertionError("mkfs.exfat takes the size of a sector from the device")
    else:
        run(*how, image)
    return image


@contextlib.contextmanager
def by_kernel(image, kind, sector_size):
    top = image.parent / "kernel"
    top.mkdir(exist_ok=True)
    file_system = "exfat" if kind == "exfat" else "vfat"
    loop = run("losetup", "-b", sector_size, "-f", "--show", image).out.strip()
    try:
        run("mount", "-t", file_system, "-o", KERNEL_OPTIONS[file_system], loop, top)
        try:
            yield Mounted(top)
        finally:
            run("umount", top)
    finally:
        run("losetup", "-d", loop)


@contextlib.contextmanager
def by_us(image, sector_size):
    door = fuse_doors.Door(image, image.parent / "ours", sector_size=sector_size)
    try:
        yield Mounted(door.folder)
        door.end()
    finally:
        door.kill()


def mounted(who, image, kind, sector_size):
    return by_us(image, sector_size) if who == "ours" else by_kernel(image, kind, sector_size)


def check(image, kind, sector_size, what):
    """Both checks find nothing."""
    result = run(TOOLS / "volume-tool", "--sector-size", sector_size, image, "check", code=None)
    assert result.out == "left 0\n", (what, result.out)
    if kind == "exfat":
        result = run("fsck.exfat", "-n", image, code=None)
        assert result.code == 0 and ": clean" in result.out, (what, result.out)
    else:
        result = run("fsck.fat", "-n", image, code=None)
        assert result.code == 0 and len(result.out.splitlines()) == 2, (what, result.out)


def play(scratch, seed, turns, steps, kind, size, sector_size, how):
    """The two in turn, from a new volume on."""
    image = make_volume(scratch, size, sector_size, how)
    # The guest's kernel takes an exFAT file for as long as its valid data (so did every Linux before 6.8).
    tree = Tree(holes=kind != "exfat")
    chance = Chance(seed)
    for turn in range(turns + 1):
        who = ("ours", "kernel")[(turn + seed) % 2]
        what = (how, seed, turn, who)
        with mounted(who, image, kind, sector_size) as volume:
            volume.verify(tree, what)
            for step in range(steps if turn < turns else 0):
                operation = chance.operation(tree)
                wanted = outcome(tree, *operation)
                got = outcome(volume, *operation)
                assert got == wanted, (what, step, [str(word)[:80] for word in operation], got, wanted)
            volume.verify(tree, (*what, "its own"))
        check(image, kind, sector_size, what)
    note(f"{how}: {turns} rounds, {len(tree.content)} names")
    image.unlink()


def load():
    modules("loop", "vfat", "exfat", "nls_cp437", "nls_ascii", "nls_utf8", "fuse")


def volumes(all_of_them):
    return all_of_them if ROUNDS.exists() else SAMPLE


def rounds():
    """How many, and operations in each."""
    return (int(ROUNDS.read_text()), 80) if ROUNDS.exists() else (2, 40)


@test
def what_one_writes_the_other_reads(scratch):
    load()
    for seed, kind in enumerate(volumes(MORE)):
        play(scratch, seed, *rounds(), *kind)


def write_durably(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@test
def the_kernel_writes_after_our_power_cut(scratch):
    """Our journal is carried out where the kernel has left everything alone, and harms nothing of the
    kernel's where it has not."""
    load()
    for number, (kind, size, sector_size, how) in enumerate(volumes(KINDS)):
        for kernel_writes in (False, True) if ROUNDS.exists() else (number == 1,):
            image, cut = make_volume(scratch, size, sector_size, how), scratch / "cut.img"
            chance = random.Random(size)
            durable = {f"file {i}.bin": chance.randbytes(3000 * i) for i in range(12)}
            with by_us(image, sector_size) as volume:
                for name, data in durable.items():
                    write_durably(f"{volume.top}/{name}", data)
                shutil.copy(image, cut)
            theirs = chance.randbytes(50000)
            if kernel_writes:
                with by_kernel(cut, kind, sector_size) as volume:
                    write_durably(f"{volume.top}/of the kernel", theirs)
            with by_us(cut, sector_size) as volume:
                there = pathlib.Path(volume.top)
                if kernel_writes:
                    assert (there / "of the kernel").read_bytes() == theirs, how
                else:
                    for name, data in durable.items():
                        assert (there / name).read_bytes() == data, (how, name)
                (there / "afterwards").write_bytes(b"x" * 5000)
            with by_kernel(cut, kind, sector_size) as volume:
                if kernel_writes:
                    assert pathlib.Path(volume.top, "of the kernel").read_bytes() == theirs, how
                assert pathlib.Path(volume.top, "afterwards").read_bytes() == b"x" * 5000, how
            if not kernel_writes:
                check(cut, kind, sector_size, (how, "cut"))


@test
def a_full_volume_is_full_for_both(scratch):
    """What one could not write is not there for the other, and the room is given back."""
    load()
    for kind, size, sector_size, how in KINDS[:3] if ROUNDS.exists() else SAMPLE[1:]:
        image = make_volume(scratch, size, sector_size, how)
        for who in "ours", "kernel":
            with mounted(who, image, kind, sector_size) as volume:
                before = os.statvfs(volume.top).f_bfree
                try:
                    pathlib.Path(volume.top, "large").write_bytes(b"l" * (size + 1) * MIB)
                    raise AssertionError("all of it was written")
                except OSError as failure:
                    assert failure.errno == errno.ENOSPC, failure
            check(image, kind, sector_size, (who, "full"))
            other = {"ours": "kernel", "kernel": "ours"}[who]
            with mounted(other, image, kind, sector_size) as volume:
                there = pathlib.Path(volume.top, "large")
                data = there.read_bytes()
                assert data.strip(b"l") == b"" and len(data) < size * MIB, (who, len(data))
                there.unlink()
            with mounted(who, image, kind, sector_size) as volume:
                assert os.statvfs(volume.top).f_bfree <= before
            check(image, kind, sector_size, (who, "emptied"))
        image.unlink()


if __name__ == "__main__":
    main()
