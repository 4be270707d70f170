"""What the processes of sticks have for themselves: a user, limits."""

import os
import pathlib
import signal
import subprocess
import time

from harness import Skip, main, only, test, wait_for
from sticks import Stick, attach, inspect
from test_usb import configure, processes
from test_usb_stuck import jailed

CGROUPS = pathlib.Path("/sys/fs/cgroup")
V2 = (CGROUPS / "cgroup.controllers").exists()


def user(pid):
    """Of all its user and group IDs, which are one."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    ids = {word for line in lines if line.startswith(("Uid:", "Gid:")) for word in line.split()[1:]}
    one, = ids
    return int(one)


def may_signal(own, other):
    """Whether a process of this user may send signals to another."""
    return subprocess.run(["setpriv", f"--reuid={own}", f"--regid={own}", "--clear-groups", "sh", "-c",
                           f"kill -0 {other}"], stderr=subprocess.DEVNULL).returncode == 0


@test
def each_process_of_a_stick_has_a_user_of_its_own(instance):
    with Stick() as first, Stick() as second, Stick() as third:
        attach(instance, first)
        attach(instance, second)
        one, two = (jailed(pid) for pid in processes(instance))
        assert user(one) != user(two) and min(user(one), user(two)) >= 1879048192
        assert may_signal(user(one), one) and not may_signal(user(one), two) and not may_signal(user(two), one)
        instance.kill_daemon()
        attach(instance, third)
        assert len({user(jailed(pid)) for pid in processes(instance)}) == 3
        assert {one, two} < {jailed(pid) for pid in processes(instance)}


@test
def users_are_those_of_the_configuration(instance, scratch):
    configure(instance, scratch, users=3_000_000_000)
    with Stick() as first, Stick() as second:
        attach(instance, first)
        attach(instance, second)
        assert {user(jailed(pid)) for pid in processes(instance)} == {3_000_000_000, 3_000_000_001}


def cgroup(instance, controller, name):
    folder = CGROUPS if V2 else CGROUPS / controller
    return folder / instance.cgroup_parent / name


@test
def each_process_of_a_stick_has_limits(instance, scratch):
    configure(instance, scratch, memory=50 << 20)
    with Stick() as stick:
        name = attach(instance, stick)
        pid, = processes(instance)
        key, = (path.stem for path in instance.run_folder.glob("usb/remote*.json"))
        read = lambda controller, file: (cgroup(instance, controller, f"usb-{key}") / file).read_text().strip()
        for controller in ("memory", "pids", "cpu"):
            if not cgroup(instance, controller, "").exists():
                continue
            there = {int(word) for word in read(controller, "cgroup.procs").split()}
            assert there == {pid, jailed(pid)}, (controller, there)
        assert int(read("memory", "memory.max" if V2 else "memory.limit_in_bytes")) == 50 << 20
        if cgroup(instance, "pids", "").exists():
            assert read("pids", "pids.max") == "320"
        if cgroup(instance, "cpu", "").exists():
            quota = read("cpu", "cpu.max").split()[0] if V2 else read("cpu", "cpu.cfs_quota_us")
            assert quota == "200000"
        limits = pathlib.Path(f"/proc/{jailed(pid)}/limits").read_text()
        assert f"Max data size             {50 << 20} " in limits, limits
        instance.cloche("usb", "detach", name)
        wait_for(lambda: not any(cgroup(instance, controller, f"usb-{key}").exists()
                                 for controller in ("memory", "pids", "cpu")), what="the end of its cgroups")


@test
def what_an_earlier_daemon_left_of_a_cgroup_is_removed(instance):
    instance.start_daemon()
    left = cgroup(instance, "memory", "usb-1-9.abcdef01")
    left.mkdir(parents=True)
    instance.kill_daemon()
    instance.start_daemon()
    assert not left.exists()


@test
def a_process_is_started_again_when_nothing_is_left_of_the_one_before(instance):
    with Stick() as stick:
        name = attach(instance, stick)
        key, = (path.stem for path in instance.run_folder.glob("usb/remote*.json"))
        pid, = processes(instance)
        folder = cgroup(instance, "memory", f"usb-{key}")
        if not folder.exists():
            raise Skip("no cgroups")
        with subprocess.Popen(["sleep", "1000"]) as left:
            try:
                (folder / "cgroup.procs").write_text(str(left.pid))
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: inspect(instance, name)["state"] == "waiting", what="the end of the process")
                time.sleep(3)
                assert inspect(instance, name)["state"] == "waiting" and processes(instance) == []
            finally:
                left.kill()
        wait_for(lambda: inspect(instance, name)["state"] == "ready", what="another one")
        assert folder.exists()


only(each_process_of_a_stick_has_a_user_of_its_own, users_are_those_of_the_configuration,
     each_process_of_a_stick_has_limits, what_an_earlier_daemon_left_of_a_cgroup_is_removed,
     a_process_is_started_again_when_nothing_is_left_of_the_one_before)

if __name__ == "__main__":
    main()
