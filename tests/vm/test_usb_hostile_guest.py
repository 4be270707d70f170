"""Every misbehaviour of the stick's model in ports of the guest's kernel: the kernel enumerates it, the daemon judges it,
cloche-usb has it by usbfs, a container has its files. Of which kind they are is said in tests/usb/stick.h."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

from guest_sticks import modules
from guest_vhci import Plugged, bus, free_ports
from harness import main, note, only, test, wait_for
from sticks import MODEL
from test_usb_engine import blocks, configure

PLACE = "/media/stick"
ALL = pathlib.Path("/share/faults")  # run_guest.py: all of them, or these, not only those below
FILES, SIZE = 6, 60_000
SLOTS = 4  # at once
# Of each kind some: what usbfs, the kernel's own enumeration and the controller make of it. The others are in vm-more.
CHOSEN = """
babble disconnect stall-data stall-cbw stall-csw-twice short-csw phase-error@20+ usbip-cut short-silent
medium-gone@20 medium-change@20 write-protect@20 disconnect@20 capacity-huge inquiry-stalls lun-lie becomes-ready
device-short total-lie length-zero keyboard also-keyboard string-junk dead
""".split()
WHILE_WRITING = "disconnect dead stall-data wrong-tag medium-error usbip-cut usbip-number usbip-length medium-gone " \
                "medium-change write-protect sense-junk babble short-silent phase-error aborted reset-stalls".split()


# The kernel itself makes nothing of them. All others it sees, as soon as its thread of the ports has time for them.
UNREADABLE = {"device-short", "device-many", "device-stalls", "random"}


def faults():
    if not ALL.exists():
        return CHOSEN
    if ALL.read_text().strip() != "all":
        return ALL.read_text().strip().split(",")
    text = subprocess.run([MODEL, "--help"], stdout=subprocess.PIPE, check=True, text=True).stdout
    names = text[text.index("all that follow)") + len("all that follow)"):].replace(".", "").split()
    return names + [f"{name}@{number}" for name in WHILE_WRITING for number in (12, 24)]


class Daemon:
    """What it says of all devices, asked again and again by one thread."""

    def __init__(self, instance):
        self.instance = instance
        self.rows = {}
        self.round = 0
        self.ends = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self):
        while not self.ends:
            rows = [json.loads(line) for line in
                    self.instance.cloche("usb", "ls", "--all", "--format", "json").lines]
            with self.changed:
                self.rows = {row["ID"]: row for row in rows}
                self.round += 1
                self.changed.notify_all()
            time.sleep(0.2)

    def wait(self, condition, timeout, what):
        """Until it holds of a list that was asked for from now on; its value, or None."""
        with self.changed:
            begun = self.round + 1
            value = None

            def holds():
                nonlocal value
                value = condition(self.rows)
                return self.round > begun and value
            return value if self.changed.wait_for(holds, timeout) else None

    def close(self):
        self.ends = True
        self.thread.join()


class Slot:
    """A port, and the container that has what is in it."""

    def __init__(self, instance, scratch, daemon, port):
        self.instance, self.daemon, self.port = instance, daemon, port
        self.name = f"{bus()}-{port + 1}"
        self.image = scratch / f"image{port}"
        self.pristine = scratch / "image"
        self.container = f"slot{port}"
        instance.cloche("run", "-d", "--name", self.container, "--usb-storage", f"{PLACE}:port={self.name}", "small:1",
                        "sleep", "10000")
        self.pid = int(instance.cloche("inspect", "-f", "{{.State.Pid}}", self.container).out)
        self.failure = None
        self.folder = pathlib.Path(f"/proc/{self.pid}/root{PLACE}")

    def is_mounted(self):
        """Over the empty folder that is there without a stick."""
        lines = pathlib.Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return any(f" {PLACE} " in line and " - fuse" in line for line in lines)

    def write(self):
        """Files until an error; whether there was none."""
        try:
            for number in range(FILES):
                with open(self.folder / f"file{number}", "wb") as file:
                    file.write(bytes([number]) * SIZE)
                    file.flush()
                    os.fsync(file.fileno())
            return True
        except OSError as failure:
            self.failure = failure
            return False

    def suffer(self, fault):
        """Everything with a stick of this fault; why it was not as it should, or None."""
        shutil.copy(self.pristine, self.image)
        begun = time.monotonic()
        plugged = Plugged("--image", str(self.image), fault, port=self.port)
        settled = {"ready", "failed", "denied", "ejected", "kernel"}
        try:
            known = self.daemon.wait(lambda rows: self.name in rows or self.port in free_ports(),
                                     20 if fault in UNREADABLE else 400, "known, or gone by itself")
            if not known and fault not in UNREADABLE:
                return f"{fault}: it is not known"
            state = known and self.daemon.wait(
                lambda rows: (rows[self.name]["State"] in settled and rows[self.name]) if self.name in rows else "gone",
                200, "settled")
            if known and not state:
                return f"{fault}: it is never settled: {self.daemon.rows.get(self.name)}"
            written = None
            if state and state != "gone" and state["State"] == "ready" and state["Volumes"]:
                deadline = time.monotonic() + 60
                while not self.is_mounted() and time.monotonic() < deadline and self.name in self.daemon.rows:
                    time.sleep(0.1)
                written = self.is_mounted() and self.write()
            if blocks():
                return f"{fault}: the kernel has {blocks()}"
        finally:
            plugged.pull_out()
        gone = self.daemon.wait(lambda rows: self.name not in rows, 100, "gone")
        wait_for(lambda: not self.is_mounted(), timeout=100, what=f"{fault}: nothing in the container")
        outcome = "not known" if not known else state if isinstance(state, str) else state["State"]
        note(f"{fault}: {outcome}, {written}, {time.monotonic() - begun:.0f} s")
        return None if gone else f"{fault}: it is still there: {self.daemon.rows[self.name]}"

    def is_good(self):
        """With a stick that is none of these."""
        shutil.copy(self.pristine, self.image)
        with Plugged("--image", str(self.image), port=self.port):
            wait_for(self.is_mounted, timeout=60, what=f"the next stick in {self.container}")
            assert self.write(), f"the next stick is not written: {self.failure}"
            self.instance.cloche("usb", "eject", self.name)  # what is in the journal alone others do not see
        wait_for(lambda: not self.is_mounted(), timeout=60)
        names = subprocess.run(["mdir", "-b", "-i", self.image, "::"], check=True, stdout=subprocess.PIPE, text=True).stdout
        assert all(f"file{number}" in names.lower() for number in range(FILES)), names


def processes_of_sticks():
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().startswith("cloche-usb"):
                found.append(path.parent.name)
        except OSError:
            pass
    return found


@test
def no_misbehaviour_of_a_stick_in_a_port_does_harm(instance, images, scratch):
    modules("fuse", "usb-storage", "uas", "sd_mod", "usbhid", "hid-generic", "vhci-hcd")
    configure(instance, scratch, exclusive=True)
    with open(scratch / "image", "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.vfat", str(scratch / "image")], stdout=subprocess.DEVNULL, check=True)
    wait_for(lambda: instance.cloche("version", code=None).code == 0, timeout=200, what="the daemon")  # a busy machine
    pid = instance.start_daemon()
    instance.cloche("load", "-q", "-i", images.small())
    names = faults()
    daemon = Daemon(instance)
    try:
        slots = [Slot(instance, scratch, daemon, port) for port in range(SLOTS)]
        slots[0].is_good()
        inputs = sorted(path.name for path in pathlib.Path("/sys/class/input").glob("input*"))
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        free = list(slots)

        def suffer(name):
            slot = free.pop()
            try:
                return slot.suffer(name)
            except (AssertionError, OSError) as failure:
                return f"{name}: {failure!r}"
            finally:
                free.append(slot)
        with concurrent.futures.ThreadPoolExecutor(len(slots)) as pool:
            problems = [problem for problem in pool.map(suffer, names) if problem]
        assert not problems, "\n".join(problems)
        assert instance.daemon_pid() == pid, "the daemon has died"
        slots[0].is_good()
        slots[-1].is_good()
    finally:
        daemon.close()
    assert blocks() == []
    assert sorted(path.name for path in pathlib.Path("/sys/class/input").glob("input*")) == inputs
    # What waits for the deaf one ends when the thread of the ports has come to it.
    wait_for(lambda: not processes_of_sticks(), timeout=300, what="no process of a stick")
    wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 2, timeout=60, what="no descriptor left")
    left = [path.name for path in (instance.run_folder / "usb").iterdir() if path.name != "exclusive.json"]
    assert not left, left
    cgroups = [path for path in pathlib.Path("/sys/fs/cgroup").rglob("usb-*") if instance.cgroup_parent in str(path)]
    assert not cgroups, cgroups


only(no_misbehaviour_of_a_stick_in_a_port_does_harm)

if __name__ == "__main__":
    main()
