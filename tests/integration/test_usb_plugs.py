"""Sticks that come and go, again and again: of the daemon nothing grows, and nothing of them is left. (In ports of the
machine: tests/vm/test_usb_hostile_guest.py.)"""

import os
import pathlib
import time

from harness import main, note, only, test, wait_for
from sticks import Stick, start
from test_usb import PATH, is_there, need_fuse
from test_usb_room import CGROUPS

TIMES = int(os.environ.get("CLOCHE_USB_PLUGS", "12"))  # 200 in the slow one


def resident(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) << 10


def left(instance, daemon):
    """What there may not be more of afterwards."""
    return {
        "descriptors": len(os.listdir(f"/proc/{daemon}/fd")),
        "threads": len(os.listdir(f"/proc/{daemon}/task")),
        "processes": len(instance.processes()),
        "records": sorted(path.name for path in (instance.run_folder / "usb").iterdir()),
        "mounts": sum(instance.name in line for line in pathlib.Path(f"/proc/{daemon}/mountinfo").read_text().splitlines()),
        # Those of others come and go meanwhile, which os.walk() bears.
        "cgroups": sum(name.startswith("usb-") and instance.cgroup_parent in path
                       for path, names, _ in os.walk(CGROUPS) for name in names),
    }


def expect_as_before(instance, daemon, before, memory):
    """Threads of the loop's pool are made once, as they are needed."""
    assert instance.daemon_pid() == daemon, "the daemon has died"
    def same():
        now = left(instance, daemon)
        return now["threads"] <= before["threads"] + 4 and {**now, "threads": 0} == {**before, "threads": 0}
    try:
        wait_for(same, timeout=60)
    except AssertionError:
        raise AssertionError(f"{before} before, {left(instance, daemon)} now") from None
    grown = resident(daemon) - memory
    note(f"{TIMES} times, {grown >> 10} KiB more")
    assert grown < (2 << 20) + TIMES * (32 << 10), grown  # events are kept for a while


@test
def sticks_that_are_attached_and_pulled_out_leave_nothing(instance, images):
    """By turns: pulled out amid its files, detached, ejected, gone before it is ready."""
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    daemon, before = instance.daemon_pid(), None
    for number in range(TIMES):
        with Stick(size=4) as stick:
            if number % 4 == 3:
                waits = instance.start("usb", "attach", stick.url)
                time.sleep(0.01 * (number % 8))
                stick.pull_out()
                waits.communicate(timeout=60)
            else:
                name = instance.cloche("usb", "attach", stick.url).out.strip()
                wait_for(lambda: is_there(instance), what="the stick in the container")
                if number % 4 == 0:
                    stick.pull_out()
                else:
                    instance.cloche("usb", "detach" if number % 4 == 1 else "eject", name)
            wait_for(lambda: not is_there(instance), what="the stick gone from the container")
            for row in instance.cloche("usb", "ls", "-q").lines:
                instance.cloche("usb", "detach", row, code=None)
        wait_for(lambda: not instance.cloche("usb", "ls", "-q").out, what="nothing in the list")
        if number == 3:
            wait_for(lambda: not any(left(instance, daemon)[what] for what in ("records", "cgroups")),
                     what="nothing of the first ones")
            before, memory = left(instance, daemon), resident(daemon)
    expect_as_before(instance, daemon, before, memory)


only(sticks_that_are_attached_and_pulled_out_leave_nothing)

if __name__ == "__main__":
    main()
