"""The guest's first file system: a cpio archive, uncompressed, since unpacking would cost more than
reading."""

import os
import pathlib
import stat

# What the boot needs before 9p gives it the rest.
_MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "crc32c_generic", "ext4", "overlay")
_FOLDERS = ("dev", "proc", "sys", "root", "etc", "modules")
_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "hosts", "alternatives")


class Archive:
    """A cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/
    buffer-format.rst)."""

    def __init__(self):
        self._parts = []
        self._inode = 0

    def add(self, name, mode, data=b""):
        self._inode += 1
        encoded = name.encode() + b"\0"
        numbers = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        self._parts += [_padded(header + encoded), _padded(data)]

    def folder(self, name):
        self.add(name, stat.S_IFDIR | 0o755)

    def copy(self, path, name):
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            self.add(name, info.st_mode, os.readlink(path).encode())
        elif stat.S_ISDIR(info.st_mode):
            self.folder(name)
            for entry in sorted(os.listdir(path)):
                self.copy(f"{path}/{entry}", f"{name}/{entry}")
        elif stat.S_ISREG(info.st_mode):
            self.add(name, info.st_mode, pathlib.Path(path).read_bytes())

    def bytes(self):
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _padded(data):
    return data + b"\0" * (-len(data) % 4)


def write(path, kernel, init):
    """Writes it to path. init: the file that becomes /init."""
    archive = Archive()
    for name in _FOLDERS:
        archive.folder(name)
    archive.copy("/bin/busybox", "busybox")
    archive.copy(init, "init")
    for name in _ETC:
        if os.path.lexists(f"/etc/{name}"):
            archive.copy(f"/etc/{name}", f"etc/{name}")
    for number, module in enumerate(kernel.with_dependencies(_MODULES)):
        archive.copy(module, f"modules/{number:02d}-{module.name}")
    pathlib.Path(path).write_bytes(archive.bytes())
