"""cloche-runtime update: limits, device rules and device nodes of a container that runs.

Runs on the machine (cgroup v1) and in the guest (v2).
"""

import contextlib
import json
import os
import pathlib
import subprocess

from bundles import World, cgroup_file, cgroup_version, world
from harness import main, run, wait_for

V2 = cgroup_version() == 2
MIB = 1 << 20
SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def control(w, controller, v1, v2):
    return cgroup_file(w.name, controller, v2 if V2 else v1)


def memory_limit(w):
    return int(control(w, "memory", "memory.limit_in_bytes", "memory.max").replace("max", "-1"))


def bandwidth(w):
    """(quota, period); quota -1: none."""
    if V2:
        quota, period = cgroup_file(w.name, "", "cpu.max").split()
        return (-1 if quota == "max" else int(quota), int(period))
    return (int(cgroup_file(w.name, "cpu", "cpu.cfs_quota_us")),
            int(cgroup_file(w.name, "cpu", "cpu.cfs_period_us")))


def running(w, script=SLEEP):
    return w.runtime.container(w.bundle.script(script), w.name)


def update(w, *options, code=0, resources=None):
    if resources is not None:
        return w.runtime("update", "-r", "-", w.name, code=code, input=json.dumps(resources))
    return w.runtime("update", *options, w.name, code=code)


def user_namespace(w):
    w.bundle.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        w.bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    subprocess.run(["chown", "-R", "100000:100000", w.bundle.rootfs], check=True)


def loop_device(w, stack):
    """A disk of 1 MiB; its end is a callback of the stack. None: the machine has no such disks."""
    image = w.scratch / "disk"
    image.write_bytes(bytes(MIB))
    result = run("losetup", "--find", "--show", image, code=None)
    if result.code:
        return None
    disk = result.out.strip()
    stack.callback(run, "losetup", "-d", disk)
    return pathlib.Path(disk)


def execute(w, script, code=0):
    return w.runtime("exec", w.name, "sh", "-c", script, code=code)


# ---------------------------------------------------------------- limits

@world
def flags_change_limits(w):
    w.bundle.resources.update(memory={"limit": 32 * MIB, "reservation": 24 * MIB},
                              cpu={"shares": 100, "quota": 500000, "period": 1000000},
                              pids={"limit": 20})
    with running(w):
        update(w, "--memory", "50M", "--memory-reservation", str(30 * MIB), "--pids-limit", "10",
               "--cpuset-cpus", "0")
        assert memory_limit(w) == 50 * MIB
        reservation = control(w, "memory", "memory.soft_limit_in_bytes", "memory.low")
        assert int(reservation) == 30 * MIB
        assert cgroup_file(w.name, "pids", "pids.max") == "10"
        assert cgroup_file(w.name, "cpuset", "cpuset.cpus") == "0"
        update(w, "--pids-limit", "-1", "--memory", "-1")
        assert cgroup_file(w.name, "pids", "pids.max") == "max"
        assert memory_limit(w) in (-1, (1 << 63) - 4096)
        update(w, "--cpu-share", "1024")
        assert control(w, "cpu", "cpu.shares", "cpu.weight") == ("100" if V2 else "1024")


@world
def quota_and_period_are_one_thing(w):
    w.bundle.resources["cpu"] = {"quota": 500000, "period": 1000000}
    with running(w):
        update(w, "--cpu-period", "900000")
        assert bandwidth(w) == (500000, 900000)
        update(w, "--cpu-quota", "600000")
        assert bandwidth(w) == (600000, 900000)
        update(w, "--cpu-quota", "-1")
        assert bandwidth(w) == (-1, 900000)
        update(w, "--cpu-quota", "30000", "--cpu-period", "50000")
        assert bandwidth(w) == (30000, 50000)
        update(w, resources={"cpu": {"quota": 500000, "period": 1000000}})
        assert bandwidth(w) == (500000, 1000000)


@world
def a_period_below_the_parents_share_is_set_with_its_quota(w):
    if V2:
        return
    parent = pathlib.Path("/sys/fs/cgroup/cpu") / w.name
    parent.mkdir()
    try:
        (parent / "cpu.cfs_quota_us").write_text("50000")
        w.bundle.linux["cgroupsPath"] = f"/{w.name}/c"
        with running(w):
            update(w, "--cpu-quota", "60000", code=1)
            update(w, "--cpu-quota", "30000")
            update(w, "--cpu-period", "10000", "--cpu-quota", "3000")
            assert (parent / "c" / "cpu.cfs_period_us").read_text() == "10000\n"
        assert parent.exists() and not (parent / "c").exists()
    finally:
        parent.rmdir()


@world
def memory_and_swap_go_up_and_down_together(w):
    swap_file = ("memory.swap.max" if V2 else "memory.memsw.limit_in_bytes")
    w.bundle.resources["memory"] = {"limit": 32 * MIB}
    with running(w):
        try:
            cgroup_file(w.name, "memory", swap_file)
        except FileNotFoundError:
            return
        for limit, both in ((30, 50), (60, 80), (20, 25)):
            update(w, "--memory", f"{limit}M", "--memory-swap", f"{both}M")
            assert memory_limit(w) == limit * MIB
            assert int(cgroup_file(w.name, "memory", swap_file)) == \
                (both - limit if V2 else both) * MIB
        update(w, "--memory", "-1")
        assert cgroup_file(w.name, "memory", swap_file) in ("max", str((1 << 63) - 4096))


@world
def what_an_update_set_is_known_to_the_next(w):
    with running(w):
        update(w, "--memory", "40M")
        update(w, "--memory-swap", "60M")  # v2 needs the limit of the update before
        update(w, "--cpu-quota", "20000")
        update(w, "--cpu-period", "50000")
        assert bandwidth(w) == (20000, 50000)


@world
def numbers_that_cannot_be_are_refused_and_nothing_changes(w):
    w.bundle.resources["pids"] = {"limit": 20}
    with running(w):
        for option in ("--cpu-period=x", "--memory=12Q", "--cpu-idle=no", "--pids-limit=many"):
            result = update(w, option, code=1)
            assert f"invalid value for {option[2:].split('=')[0]}" in result.err, result
        update(w, "--pids-limit", "30", "--cpu-period", "1", code=1)
        # What did go in before the failure is taken back.
        assert cgroup_file(w.name, "pids", "pids.max") == "20"
        update(w, resources={"memory": {"limit": "much"}}, code=1)
        assert "container does not exist" in \
            w.runtime("update", "--pids-limit", "3", "nobody", code=1).err
    w.runtime("create", "-b", w.bundle.script("true").path, w.name)
    w.runtime("start", w.name)
    wait_for(lambda: w.runtime.status(w.name) == "stopped")
    assert "not running" in update(w, "--pids-limit", "3", code=1).err
    w.runtime("delete", w.name)


@world
def a_limit_below_the_use_is_refused_when_asked(w):
    w.bundle.resources["memory"] = {"limit": 64 * MIB}
    with running(w, "head -c 9000000 /dev/zero > /dev/shm/x; " + SLEEP):
        usage = ("memory.usage_in_bytes", "memory.current")
        wait_for(lambda: int(control(w, "memory", *usage)) > 9000000)
        result = update(w, resources={"memory": {"limit": MIB, "checkBeforeUpdate": True}}, code=1)
        assert "rejecting memory limit" in result.err, result
        result = update(w, resources={"memory": {"limit": MIB, "swap": 2 * MIB,
                                                 "checkBeforeUpdate": True}}, code=1)
        assert "rejecting memory+swap limit" in result.err, result
        assert memory_limit(w) == 64 * MIB and w.runtime.status(w.name) == "running"


@world
def a_paused_container_stays_paused(w):
    with running(w):
        w.runtime("pause", w.name)
        update(w, "--pids-limit", "30")
        assert cgroup_file(w.name, "pids", "pids.max") == "30"
        assert w.runtime.status(w.name) == "paused"
        w.runtime("resume", w.name)


@world
def what_is_idle_has_no_weight(w):
    """The kernel's words, on either version: a weight for an idle cgroup is EINVAL. On v2, where
    runc and systemd let idle win, that is a warning."""
    with running(w):
        update(w, "--cpu-idle", "1")
        update(w, "--cpu-period", "50000")  # does not end it
        assert control(w, "cpu", "cpu.idle", "cpu.idle") == "1"
        for number in ("-1", "2", "3"):
            update(w, "--cpu-idle", number, code=1)
        assert control(w, "cpu", "cpu.idle", "cpu.idle") == "1"
        both = update(w, "--cpu-idle", "1", "--cpu-share", "200", code=0 if V2 else 1)
        assert ("unable to apply both" in w.runtime.log.read_text()) == V2, both
        assert control(w, "cpu", "cpu.idle", "cpu.idle") == "1"
        if V2:
            update(w, resources={"unified": {"cpu.idle": "1", "cpu.weight": "8"}})
        update(w, "--cpu-share", "200", code=1)
        update(w, "--cpu-idle", "0")
        update(w, "--cpu-share", "200")


@world
def weights_of_disks(w):
    """For one disk beside the default, which only the scheduler BFQ knows."""
    with contextlib.ExitStack() as stack:
        disk = loop_device(w, stack)
        scheduler = pathlib.Path("/sys/block", disk.name, "queue", "scheduler") if disk else None
        if not disk or "bfq" not in scheduler.read_text():
            return
        scheduler.write_text("bfq")
        number = os.stat(disk).st_rdev
        number = {"major": os.major(number), "minor": os.minor(number)}
        text = f"{number['major']}:{number['minor']}"
        w.bundle.resources["blockIO"] = {"weight": 333, "weightDevice": [{**number, "weight": 444}]}
        w.bundle.write()
        with running(w):
            def weights():
                return control(w, "blkio", "blkio.bfq.weight_device", "io.bfq.weight").splitlines()
            assert {"default 333", f"{text} 444"} <= set(weights()), weights()
            update(w, resources={"blockIO": {"weight": 111,
                                             "weightDevice": [{**number, "weight": 222}]}})
            assert {"default 111", f"{text} 222"} <= set(weights()), weights()


@world
def old_and_unavailable_flags(w):
    with running(w):
        update(w, "--kernel-memory", "1M", "--kernel-memory-tcp", "1M")
        assert "is ignored" in w.runtime.log.read_text()
        assert "l3 cache schema is not enabled" in update(w, "--l3-cache-schema", "x", code=1).err


@world
def a_file_of_cgroup_v2(w):
    with running(w):
        if not V2:
            result = update(w, resources={"unified": {"pids.max": "10"}}, code=1)
            assert "invalid configuration" in result.err
            return
        update(w, resources={"unified": {"pids.max": "10", "cpu.max": "max 50000"}})
        assert cgroup_file(w.name, "", "pids.max") == "10" and bandwidth(w) == (-1, 50000)


# ---------------------------------------------------------------- device rules

def open_device(w, path, mode="<"):
    """Whether the container may open it."""
    result = w.runtime("exec", w.name, "sh", "-c", f": {mode} {path}", code=None)
    assert result.code == 0 or "not permitted" in result.err, result
    return result.code == 0


def with_node(w, path="/dev/other", number=(1, 11)):
    w.bundle.linux["devices"] = [{"path": path, "type": "c", "major": number[0],
                                  "minor": number[1]}]
    w.bundle.all_capabilities("CAP_MKNOD", "CAP_SYSLOG", "CAP_DAC_OVERRIDE")


@world
def rules_come_and_go(w):
    with_node(w)
    with running(w):
        assert not open_device(w, "/dev/other")
        update(w, "--device-allow", "c 1:11 r")
        assert open_device(w, "/dev/other") and not open_device(w, "/dev/other", ">")
        update(w, "--device-allow", "c 1:11 w")
        assert open_device(w, "/dev/other", ">")
        update(w, "--device-deny", "c 1:11 rw")
        assert not open_device(w, "/dev/other") and open_device(w, "/dev/null")
        update(w, resources={"devices": [{"allow": True, "type": "c", "major": 1, "minor": 11,
                                          "access": "r"}]})
        assert open_device(w, "/dev/other")
        # Limits do not touch them.
        update(w, "--pids-limit", "50")
        assert open_device(w, "/dev/other")
        update(w, resources={"devices": []})
        assert not open_device(w, "/dev/other") and open_device(w, "/dev/zero")


@world
def everything_can_be_allowed_and_taken_back(w):
    with_node(w)
    with running(w):
        update(w, resources={"devices": [{"allow": True, "access": "rwm"}]})
        assert open_device(w, "/dev/other")
        update(w, resources={"devices": [{"allow": False, "access": "rwm"}]})
        assert not open_device(w, "/dev/other") and open_device(w, "/dev/null", ">")
        assert w.runtime.status(w.name) == "running"


@world
def what_stays_allowed_works_all_the_time(w):
    with_node(w)
    script = ("while :; do : > /dev/null || echo refused; : < /dev/zero || echo refused; "
              "[ -e /dev/shm/end ] && exit 0; done > /dev/shm/out 2>&1")
    with running(w, "mkdir -p /dev/shm; " + script + "; " + SLEEP):
        for i in range(20):
            update(w, "--device-allow" if i % 2 == 0 else "--device-deny", "c 1:11 rw")
        assert execute(w, "cat /dev/shm/out").out == ""


@world
def many_updates_of_rules(w):
    """More than programs may be attached to a cgroup (v2: 64)."""
    with_node(w)
    with running(w):
        for _ in range(40):
            update(w, "--device-allow", "c 1:11 r")
            update(w, "--device-deny", "c 1:11 r")
        assert not open_device(w, "/dev/other")


@world
def rules_that_are_none_are_refused(w):
    with running(w):
        for rule in ("c 1:11", "d 1:1 r", "c a:1 r", "c 1:1 x", "c 1:11 rwm more",
                     "c 99999999999:1 r"):
            assert "is not a device rule" in update(w, "--device-allow", rule, code=1).err, rule


@world
def a_hole_in_a_wildcard(w):
    """v1 takes such a rule and does not obey it: it is refused there. On v2 it works."""
    with_node(w)
    with running(w):
        update(w, "--device-allow", "c 1:* rwm")
        assert open_device(w, "/dev/other")
        result = update(w, "--device-deny", "c 1:11 rw", code=0 if V2 else 1)
        if not V2:
            assert "wildcard" in result.err
        assert open_device(w, "/dev/other") is not V2


# ---------------------------------------------------------------- device nodes

@world
def a_node_comes_and_goes(w):
    w.bundle.all_capabilities("CAP_DAC_OVERRIDE")
    with running(w):
        update(w, "--device-add", "/dev/full:/dev/bus/usb/001")
        out = execute(w, "ls -ln /dev/bus/usb/001; : < /dev/bus/usb/001 && echo opened").out
        assert "1,   7" in out.replace("1, 7", "1,   7") and "opened" in out, out
        assert out.startswith("crw-rw-rw-"), out
        assert "has it already" in \
            update(w, "--device-add", "/dev/full:/dev/bus/usb/001", code=1).err
        update(w, "--device-remove", "/dev/bus/usb/001")
        execute(w, "test ! -e /dev/bus/usb/001")
        assert "neither the configuration nor an update" in \
            update(w, "--device-remove", "/dev/bus/usb/001", code=1).err
        update(w, "--device-add", "/dev/full:/dev/bus/usb/001")


@world
def a_node_brings_its_rule_and_takes_it_along(w):
    w.bundle.all_capabilities("CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYSLOG")
    node = w.scratch / "node"
    os.mknod(node, 0o20640, os.makedev(1, 11))
    with running(w):
        execute(w, "mknod /dev/own c 1 11")
        assert not open_device(w, "/dev/own")
        update(w, "--device-add", f"{node}:/dev/added:r")
        assert open_device(w, "/dev/added") and not open_device(w, "/dev/added", ">")
        assert execute(w, "stat -c %a /dev/added").out == "640\n"
        update(w, "--device-remove", "/dev/added")
        assert not open_device(w, "/dev/own")


@world
def a_configured_node_can_be_removed(w):
    with_node(w)
    w.bundle.resources["devices"] = [{"allow": False, "access": "rwm"},
                                     {"allow": True, "type": "c", "major": 1, "minor": 11,
                                      "access": "rw"}]
    with running(w):
        assert open_device(w, "/dev/other")
        update(w, "--device-remove", "/dev/other")
        execute(w, "test ! -e /dev/other; mknod /dev/again c 1 11")
        assert not open_device(w, "/dev/again")


@world
def a_node_in_a_user_namespace(w):
    """No device of a file system that was mounted there works: it is bound from outside."""
    user_namespace(w)
    node = w.scratch / "node"
    os.mknod(node, 0o20664, os.makedev(1, 7))
    os.chown(node, 0, 5)
    node.chmod(0o664)
    with running(w):
        update(w, "--device-add", f"{node}:/dev/added")
        out = execute(w, "stat -c '%a %u:%g' /dev/added; : < /dev/added && echo opened").out
        assert out == "664 0:5\nopened\n", out
        update(w, "--device-remove", "/dev/added")
        assert execute(w, "ls /dev/added; grep -c added /proc/self/mountinfo", code=1).out == "0\n"


@world
def a_node_where_devices_are_off(w):
    w.bundle.mount("/mnt", "tmpfs", "tmpfs", ["nodev"])
    with running(w):
        update(w, "--device-add", "/dev/full:/mnt/full")
        assert execute(w, ": < /mnt/full && echo opened").out == "opened\n"
        update(w, "--device-remove", "/mnt/full")
        execute(w, "test ! -e /mnt/full")


@world
def configured_nodes_in_a_user_namespace(w):
    """Those that the host does not have so are made outside; a name may end in a slash."""
    user_namespace(w)
    w.bundle.linux["devices"] = [
        {"path": "/dev/foo", "type": "b", "major": 1, "minor": 5, "uid": 10, "gid": 11,
         "fileMode": 0o157},
        {"path": "/dev/bar/", "type": "c", "major": 1, "minor": 7}]
    assert w.run("stat -c '%a %u:%g %F' /dev/foo; : < /dev/bar && echo opened").out == \
        "157 10:11 block special file\nopened\n"


@world
def links_lead_nowhere_but_into_the_container(w):
    outside = w.scratch / "outside"
    outside.mkdir()
    w.bundle.all_capabilities("CAP_DAC_OVERRIDE")
    with running(w):
        execute(w, f"ln -s {outside} /dev/away; ln -s ../../../../..{outside} /dev/up; "
                "ln -s /proc/1/root /dev/magic; touch /dev/taken; ln -s /dev/null /dev/link")
        for path in ("/dev/away/x", "/dev/up/x", "/dev/magic/x"):
            w.runtime("update", "--device-add", f"/dev/full:{path}", w.name, code=None)
        assert list(outside.iterdir()) == []
        for path in ("/dev/taken", "/dev/link"):
            result = update(w, "--device-add", f"/dev/full:{path}", code=1)
            assert " has incorrect ftype" in result.err, result
        execute(w, "test -f /dev/taken && test -L /dev/link")
        # A failure takes the rule back, too.
        os.mknod(w.scratch / "node", 0o20640, os.makedev(1, 11))
        update(w, "--device-add", f"{w.scratch}/node:/dev/taken", code=1)
    for path in ("relative", "/dev/..", "/"):
        with running(w):
            update(w, "--device-add", f"/dev/full:{path}", code=1)
            update(w, "--device-add", f"{w.scratch}:/dev/x", code=1)


@world
def another_thing_in_its_place_is_left_there(w):
    with running(w):
        update(w, "--device-add", "/dev/full:/dev/added")
        execute(w, "rm /dev/added; echo mine > /dev/added")
        assert "is another thing by now" in update(w, "--device-remove", "/dev/added", code=1).err
        assert execute(w, "cat /dev/added").out == "mine\n"
        execute(w, "rm /dev/added")
        update(w, "--device-remove", "/dev/added")


@world
def a_container_that_changes_its_folders_all_the_time(w):
    """Nodes are made in its root, or not at all; nothing outside gets an owner or a mode."""
    target = w.scratch / "target"
    target.write_text("outside")
    target.chmod(0o600)
    w.bundle.all_capabilities("CAP_DAC_OVERRIDE", "CAP_MKNOD")
    script = (f"mkdir -p /dev/a /dev/b; while :; do rm -f /dev/a/n; ln -s {target} /dev/a/n; "
              "mv /dev/a /dev/c; mv /dev/b /dev/a; mv /dev/c /dev/b; done 2>/dev/null")
    with running(w, script):
        for i in range(20):
            w.runtime("update", "--device-add", "/dev/full:/dev/a/n", w.name, code=None)
            w.runtime("update", "--device-remove", "/dev/a/n", w.name, code=None)
    assert target.read_text() == "outside" and target.stat().st_mode & 0o777 == 0o600


if __name__ == "__main__":
    main()
