"""In the guest: the host stack and the kernel's usb-storage on one stick of QEMU's, in turn. Prints a
JSON document a measurement; usb.py boots the guest and makes the table."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness import main, test  # noqa: E402
from guest_sticks import device, modules, node  # noqa: E402
from sticks import Process, mount_fuse, unmount  # noqa: E402

PROBE = pathlib.Path(os.environ["BUILD"]) / "tests/unit/usb-probe"
DRIVER = pathlib.Path("/sys/bus/usb/drivers/usb-storage")
ROUNDS = int(pathlib.Path("/share/rounds").read_text()) if pathlib.Path("/share/rounds").exists() else 1
CASES = (("read 4K", 4096, 400, ()), ("read 64K", 65536, 120, ()), ("read 1M", 1 << 20, 24, ()),
         ("write 4K", 4096, 400, ("write",)), ("write 64K", 65536, 120, ("write",)),
         ("write 1M", 1 << 20, 24, ("write",)),
         ("random read 4K", 4096, 400, ("random",)),
         ("random read 4K, depth 8", 4096, 400, ("random", "depth", "8")),
         ("random write 4K, depth 8", 4096, 400, ("write", "random", "depth", "8")))
_LINE = re.compile(r"p50 ([\d.]+) us, p99 ([\d.]+) us, p99.9 ([\d.]+) us, ([\d.]+) MB/s")


def measure(target, size, count, words):
    out = subprocess.run([PROBE, target, "time", str(size), str(count), *words], check=True,
                         capture_output=True, text=True, timeout=300).stdout
    return [float(text) for text in _LINE.search(out).groups()]


def kernel_disk(folder):
    """The kernel's driver for sticks takes the stick. Returns its disk."""
    (DRIVER / "bind").write_text(f"{folder.name}:1.0")
    for _ in range(200):
        disks = list((folder / f"{folder.name}:1.0").glob("host*/target*/*/block/sd*"))
        if disks and int((disks[0] / "size").read_text()):
            return pathlib.Path("/dev") / disks[0].name
        time.sleep(0.05)
    raise AssertionError("no disk of the kernel's")


def kernel_lets_go(folder):
    (DRIVER / "unbind").write_text(f"{folder.name}:1.0")


@test
def raw_beside_the_kernel():
    folder = device("STICK")
    ours = node(folder)
    measure(ours, 4096, 10, ())  # no driver had it before
    modules("sd_mod", "usb_storage")
    pathlib.Path("/sys/module/usb_storage/parameters/delay_use").write_text("0")
    modprobed = DRIVER / f"{folder.name}:1.0"
    if modprobed.exists():
        kernel_lets_go(folder)
    for _ in range(ROUNDS):
        for name, size, count, words in CASES:
            for side in ("cloche", "kernel"):
                target = ours if side == "cloche" else kernel_disk(folder)
                result = measure(target, size, count, words)
                if side == "kernel":
                    kernel_lets_go(folder)
                print("# " + json.dumps({"case": name, "side": side, "result": result}), flush=True)


SMALL, LARGE = 300, 24 << 20


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
    modules("sd_mod", "usb_storage", "vfat", "exfat", "nls_utf8", "nls_ascii", "fuse")
    if (DRIVER / f"{folder.name}:1.0").exists():
        kernel_lets_go(folder)
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
                    print("# " + json.dumps({"case": f"{kind}, {name.replace('_', ' ')} files",
                                             "side": "cloche" if side is Ours else "kernel",
                                             "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
