"""A disk that remembers every write, and what it would hold had the power gone at any moment.

    with Recorder(scratch, megabytes=128) as disk:
        run("mkfs.ext4", ..., disk.device)          # a loop device
        ...
        disk.mark(1)                                # "up to here everything was acknowledged"
    log = Log(disk)
    for cut in log.cuts():
        with log.crashed(cut, random) as device:    # a loop device again
            ...

Between the device and its file sits qemu-storage-daemon with blklogwrites, which writes down each write and
each flush in the order in which they were completed (Linux's dm-log-writes format). A crash keeps what was
flushed; of what was written since the last flush, each block of 4096 bytes is there or not, as chance has it.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess

from harness import run, wait_for

SECTOR = 512
BLOCK = 4096
MAGIC = 0x6A736677736872
FLUSH, DISCARD, MARK = 1, 4, 8
HEADER = struct.Struct("<QQQQ")
SUPER = struct.Struct("<QQQI")


def attach(path):
    """A loop device for a file."""
    return run("losetup", "--find", "--show", "--direct-io=off", path).out.strip()


def detach(device):
    run("losetup", "--detach", device)


class Recorder:
    def __init__(self, folder, megabytes=128, log_megabytes=2048):
        self.folder = pathlib.Path(folder)
        self.size = megabytes << 20
        self.log_size = log_megabytes << 20
        self.data, self.log = self.folder / "disk", self.folder / "log"
        self.export, self.socket = self.folder / "export", self.folder / "qmp"
        self.device = None

    def __enter__(self):
        # The last block is not the file system's: marks are written there.
        for path, size in ((self.data, self.size + BLOCK), (self.log, self.log_size), (self.export, 0)):
            path.touch()
            os.truncate(path, size)
        nodes = [f"driver=file,filename={self.data},node-name=data,discard=ignore",
                 f"driver=file,filename={self.log},node-name=log",
                 "driver=blklogwrites,node-name=disk,file=data,log=log"]
        self.daemon = subprocess.Popen(
            ["qemu-storage-daemon", *(f"--blockdev={node}" for node in nodes),
             f"--export=type=fuse,id=disk,node-name=disk,mountpoint={self.export},writable=on",
             f"--chardev=socket,id=qmp,path={self.socket},server=on,wait=off", "--monitor=chardev=qmp"])
        wait_for(lambda: os.path.getsize(self.export) == self.size + BLOCK, what="the disk is exported")
        self.device = run("losetup", "--find", "--show", f"--sizelimit={self.size}", self.export).out.strip()
        return self

    def mark(self, number):
        """Writes a number behind the file system: what is in the log before it was done before it."""
        with open(self.export, "r+b", buffering=0) as file:
            file.seek(self.size)
            file.write(struct.pack("<Q", number).ljust(BLOCK, b"\0"))

    def __exit__(self, *_):
        detach(self.device)
        with socket.socket(socket.AF_UNIX) as monitor:  # to its end in order, so that the log is whole
            monitor.connect(str(self.socket))
            lines = monitor.makefile("rw")
            lines.readline()
            for command in ("qmp_capabilities", "quit"):
                lines.write(json.dumps({"execute": command}) + "\n")
                lines.flush()
                lines.readline()
        if self.daemon.wait(60) != 0:
            raise AssertionError(f"qemu-storage-daemon ended with {self.daemon.returncode}")


class Log:
    """What a recorder wrote down."""

    def __init__(self, recorder):
        self.folder, self.size, self.path = recorder.folder, recorder.size, recorder.log
        self.entries = list(self._read())  # (kind, byte offset, place of the data in the log, length)
        self.base = self.folder / "base"
        self.base.touch()
        os.truncate(self.base, self.size)
        self.applied = 0  # entries that base holds

    def _read(self):
        with open(self.path, "rb") as file:
            magic, _, count, sector = SUPER.unpack(file.read(SUPER.size))
            assert magic == MAGIC and sector == SECTOR, (magic, sector)
            at = SECTOR
            for _ in range(count):
                file.seek(at)
                start, sectors, flags, _ = HEADER.unpack(file.read(HEADER.size))
                at += SECTOR
                if flags & FLUSH:
                    yield ("flush", 0, 0, 0)
                elif flags & DISCARD:
                    yield ("discard", start * SECTOR, 0, sectors * SECTOR)
                else:
                    yield ("write", start * SECTOR, at, sectors * SECTOR)
                    at += sectors * SECTOR

    def marks(self):
        """Of each entry, the number of the last mark before it."""
        last, found = 0, []
        with open(self.path, "rb") as file:
            for kind, offset, place, _ in self.entries:
                if kind == "write" and offset >= self.size:
                    file.seek(place)
                    last = struct.unpack("<Q", file.read(8))[0]
                found.append(last)
        return found

    def _apply(self, log, disk, entry, chance=None):
        kind, offset, place, length = entry
        if kind == "flush" or offset >= self.size:
            return
        if kind == "discard":
            log.seek(0)
            data = bytes(length)
        else:
            log.seek(place)
            data = log.read(length)
        for start in range(0, length, BLOCK):
            if chance is None or chance.random() < 0.5:
                disk.seek(offset + start)
                disk.write(data[start:start + BLOCK])

    @contextlib.contextmanager
    def crashed(self, cut, chance):
        """A device with what would be there, had the power gone behind entry `cut`. Cuts must rise."""
        flushes = [at for at in range(self.applied, cut) if self.entries[at][0] == "flush"]
        with open(self.path, "rb") as log:
            if flushes:
                with open(self.base, "r+b") as disk:
                    for entry in self.entries[self.applied:flushes[-1]]:
                        self._apply(log, disk, entry)
                self.applied = flushes[-1]
            after = self.folder / "after"
            run("cp", "--sparse=always", self.base, after)
            with open(after, "r+b") as disk:
                for entry in self.entries[self.applied:cut]:
                    self._apply(log, disk, entry, chance)
        device = attach(after)
        try:
            yield device
        finally:
            detach(device)
            after.unlink()
