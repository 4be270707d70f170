"""Volumes of images, mounted through FUSE doors by tests/usb/fuse_tool.c."""

import contextlib
import os
import pathlib
import select
import signal
import subprocess

from harness import BUILD, run, wait_for

TOOL = BUILD / "tests" / "unit" / "fuse-tool"
KINDS = ("fat16", "fat32", "exfat")
MIB = 1 << 20


def make_image(path, kind, size=128 * MIB):
    """An empty volume."""
    with open(path, "wb") as image:
        image.truncate(size)
    if kind == "exfat":
        run("mkfs.exfat", str(path))
    else:
        run("mkfs.vfat", "-F", kind[3:], "-s", "1" if kind == "fat32" else "8", str(path))
    return path


def check_image(path, kind):
    """What the checker of others says of it."""
    if kind == "exfat":
        run("fsck.exfat", "-n", str(path))
    else:
        result = run("fsck.vfat", "-n", str(path))
        assert "Dirty bit" not in result.out, result.out


class Door:
    """A running fuse-tool. folder: the first mount."""

    def __init__(self, image, *folders, **options):
        self.image, self.folders = image, [pathlib.Path(folder) for folder in folders]
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
        argv = [str(TOOL)]
        for name, value in options.items():
            argv.append("--" + name.replace("_", "-"))
            if value is not True:
                argv.append(str(value))
        self.process = subprocess.Popen([*argv, str(image), *map(str, self.folders)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self.said = b""
        self.wait_until_said("ready\n")

    @property
    def folder(self):
        return self.folders[0]

    def wait_until_said(self, text):
        def heard():
            while select.select([self.process.stdout], [], [], 0)[0]:
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    assert text.encode() in self.said, (self.said, self.process.stderr.read())
                    break
                self.said += more
            return text.encode() in self.said
        wait_for(heard, what=f"the door says {text!r}")

    def pull(self):
        self.process.send_signal(signal.SIGUSR1)
        self.wait_for_gone = True

    def end(self, code=0):
        """Ends it as its owner does. What it said, and its log."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        out, log = self.process.communicate(timeout=60)
        self.said += out
        assert self.process.returncode == code, (self.process.returncode, self.said, log)
        return self.said.decode(), log.decode()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for folder in self.folders:
            while os.path.ismount(folder) or _is_dead(folder):
                run("umount", "-l", str(folder))

    def counts(self):
        """At the end: a number by its name."""
        line = [line for line in self.said.decode().splitlines() if line.startswith("counts:")][0]
        words = line.split()[1:]
        return {words[i]: int(words[i + 1]) for i in range(0, len(words), 2)}


def _is_dead(folder):
    try:
        os.stat(folder)
    except OSError:
        return True
    return False


@contextlib.contextmanager
def door(scratch, kind, size=128 * MIB, folders=1, image=None, check=True, **options):
    """A new volume (or `image`), mounted; at the end it is unmounted, and checked."""
    if image is None:
        image = make_image(scratch / f"{kind}.img", kind, size)
    opened = Door(image, *(scratch / f"{kind}-{i}" for i in range(folders)), **options)
    try:
        yield opened
        if opened.process.poll() is None:
            opened.end()
    finally:
        opened.kill()
    if check:
        check_image(image, kind)
