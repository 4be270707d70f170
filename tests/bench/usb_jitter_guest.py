"""In the guest: how late reads of 4 KiB from a stick's file come while processors are busy, with the threads of
cloche-usb as usual and real-time, in turn. And how long a stick that is plugged in takes until it is ready. Prints a
JSON document a measurement; usb_jitter.py boots the guest and makes the table."""

import contextlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))
sys.path.insert(0, str(HERE.parent / "integration"))

from harness import main, test, wait_for  # noqa: E402
from guest_sticks import HAND, command_blocks, device, modules, node, plug_in, pull_out  # noqa: E402
from sticks import Process, mount_fuse, unmount  # noqa: E402

ROUNDS = int(pathlib.Path("/share/rounds").read_text()) if pathlib.Path("/share/rounds").exists() else 1
READS, SIZE, BLOCK = 1500, 4 << 20, 4096
SIDES = {"usual": (), "real-time": ("--real-time", "40"),
         "real-time, one processor": ("--real-time", "40", "--cpus", "1")}


def tell(**entry):
    print("# " + json.dumps(entry), flush=True)


@contextlib.contextmanager
def busy_processors():
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
    try:
        time.sleep(1)
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def reads(path):
    """Microseconds that each took. Who reads is real-time as well: what is measured is what serves it."""
    chance, buffer = random.Random(1), __import__("mmap").mmap(-1, BLOCK)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    found = []
    try:
        for _ in range(READS):
            at = chance.randrange(SIZE // BLOCK) * BLOCK
            begun = time.monotonic_ns()
            assert os.preadv(fd, [buffer], at) == BLOCK
            found.append((time.monotonic_ns() - begun) / 1000)
            time.sleep(0.001)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.close(fd)
    return sorted(found)


@test
def jitter(scratch):
    folder = device("STICK")
    modules("fuse")
    target = scratch / "stick"
    target.mkdir()
    pathlib.Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
    made = False
    for _ in range(ROUNDS):
        for side, words in SIDES.items():
            fd = os.open(node(folder), os.O_RDWR)
            process = Process("device", fd, *words)
            os.close(fd)
            talk = process.talk()
            volume = talk.ready(timeout=120)["volumes"][0]["number"]
            if not made:
                talk.call("format", volume=volume, kind="exfat")
            connection = mount_fuse(str(target))
            talk.call("mount", fds=[connection], volume=volume)
            os.close(connection)
            if not made:
                (target / "file").write_bytes(os.urandom(SIZE))
            made = True
            with busy_processors():
                found = reads(target / "file")
            tell(case="jitter", side=side, result=[found[int(len(found) * part)] for part in (0.5, 0.99, 0.999)]
                 + [found[-1]])
            unmount(str(target))
            talk.wait_for("unmounted", timeout=120)
            talk.call("end", timeout=120)
            process.wait()
            process.end()


def uevents():
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)  # NETLINK_KOBJECT_UEVENT
    listener.bind((0, 1))
    listener.setblocking(False)
    return listener


def schedstat(pid):
    total = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e6


@test
def plugged_in(instance, scratch):
    modules("fuse", "usb-storage", "sd_mod", "xhci_pci")
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"usb": {"exclusive": True}}))
    path.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(path)
    daemon = instance.start_daemon()
    subprocess.run(["mkfs.vfat", "-n", "SHOP", HAND / "later0.img"], check=True, capture_output=True)
    wait_for(lambda: not {"idle", "starting"} & set(instance.cloche("usb", "ls", "--format", "{{.State}}").lines),
             timeout=120, what="the guest's own sticks")
    for number in range(ROUNDS + 1):
        serial = f"READY{number}"
        listener, before = uevents(), schedstat(daemon)
        plug_in(serial, "later0")
        begun = None
        while begun is None:
            with contextlib.suppress(BlockingIOError):
                text = listener.recv(65536)
                if text.startswith((b"add@", b"bind@")) and b"DEVTYPE=usb_device" in text:
                    begun = time.time()
            time.sleep(0.0005)
        listener.close()
        wait_for(lambda: any(f'"{serial}"' in line for line in instance.cloche("usb", "ls", "--format", "json").lines
                             if '"ready"' in line), timeout=120, what=f"{serial} ready")
        records = [json.loads(line) for line in instance.cloche(
            "events", "--since", "10m", "--until", "0s", "--filter", "type=usb", "--format", "json").lines]
        ready = [record["timeNano"] / 1e9 for record in records
                 if record["Action"] == "ready" and record["Actor"]["Attributes"].get("serial") == serial][-1]
        pid = json.loads(instance.cloche("usb", "inspect", serial).out)[0]["pid"]
        child = int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        tell(case="attach to ready", side="cloche", result=[(ready - begun) * 1000, schedstat(pid) + schedstat(child)],
             commands=len(command_blocks(HAND / f"{serial}.pcap")))
        instance.cloche("usb", "eject", serial)
        pull_out(serial)
        wait_for(lambda: serial not in instance.cloche("usb", "ls", "--format", "json").out, timeout=60)
        assert before < schedstat(daemon)


if __name__ == "__main__":
    main()
