#!/usr/bin/env python3
"""What a container can be asked for: each option of run and create, by what the container sees, and
by what the kernel was told."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess

from harness import main, run, test, wait_for

IMAGE = "small:1"
CGROUPS = "/sys/fs/cgroup"


def load(instance, images):
    instance.cloche("load", "-i", images.small(IMAGE))


def inside(instance, *options, script, code=0):
    """What a script prints in a new container, stripped."""
    return instance.cloche("run", "--rm", "--network", "none", *options, IMAGE, "sh", "-c", script,
                           code=code).out.strip()


def refused(instance, text, *options):
    result = instance.cloche("run", "--rm", *options, IMAGE, "true", code=125)
    assert text in result.err, result.err


def capabilities(instance, *options, kind="CapBnd"):
    status = inside(instance, *options, script="cat /proc/self/status")
    return int(re.search(rf"^{kind}:\s*(\w+)", status, re.M)[1], 16)


def bit(number):
    return 1 << number


# ---------------------------------------------------------------- what it may do

@test
def capabilities_are_added_and_taken(instance, images):
    load(instance, images)
    usual = capabilities(instance)
    assert usual & bit(0) and not usual & bit(12), hex(usual)
    assert capabilities(instance, "--cap-add", "net_admin") == usual | bit(12)
    assert capabilities(instance, "--cap-drop", "CAP_CHOWN") == usual & ~bit(0)
    assert capabilities(instance, "--cap-drop", "ALL", "--cap-add", "CHOWN") == bit(0)
    assert capabilities(instance, "--cap-drop", "ALL", "-u", "1000", kind="CapEff") == 0
    refused(instance, 'invalid CapAdd: unknown capability: "CAP_FLY"', "--cap-add", "fly")
    # An exec session has no more than the container.
    instance.cloche("run", "-d", "--name", "box", "--cap-drop", "ALL", IMAGE, "sleep", "1000")
    status = instance.cloche("exec", "box", "cat", "/proc/self/status").out
    assert int(re.search(r"^CapEff:\s*(\w+)", status, re.M)[1], 16) == 0
    instance.cloche("rm", "-f", "box")


@test
def system_calls_follow_capabilities_and_profiles(instance, images, scratch):
    load(instance, images)
    mount = "mount -t tmpfs none /tmp 2>&1 && echo mounted || true"
    assert "mounted" not in inside(instance, script=mount)
    assert inside(instance, "--cap-add", "SYS_ADMIN", script=mount) == "mounted"
    profile = scratch / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [], "comment": "",
         "includes": {}, "excludes": {"caps": ["CAP_NET_ADMIN"]}}]}))
    option = ["--security-opt", f"seccomp={profile}"]
    make = "mkdir /x 2>/dev/null && echo made || echo denied"
    assert inside(instance, *option, script=make) == "denied"
    assert inside(instance, *option, "--cap-add", "NET_ADMIN", script=make) == "made"
    filters = "grep -c '^Seccomp:.*2' /proc/self/status || true"
    assert inside(instance, script=filters) == "1"
    assert inside(instance, "--security-opt", "seccomp=unconfined", script=filters) == "0"
    profile.write_text('{"defaultAction": 5}')
    refused(instance, "seccomp profile:1: defaultAction: expected", *option)


@test
def privileged_containers_are_not_confined(instance, images):
    load(instance, images)
    show = "ls /proc/kcore >/dev/null; test -b /dev/loop0 -o -c /dev/tty1 -o -c /dev/kmsg && echo devices; " \
           "grep '^Seccomp:' /proc/self/status; grep ' /sys ' /proc/mounts; grep -c ' /proc/[a-z]' /proc/mounts"
    lines = inside(instance, "--privileged", script=show + " || true").splitlines()
    assert lines[0] == "devices" and lines[1].split() == ["Seccomp:", "0"], lines
    assert re.search(r"\brw\b", lines[2]) and lines[3] == "0", lines
    confined = inside(instance, script=show + " || true").splitlines()
    assert confined[0].split() == ["Seccomp:", "2"] and re.search(r"\bro\b", confined[1]), confined
    assert int(confined[2]) > 3
    assert capabilities(instance, "--privileged") & bit(21)


@test
def paths_and_privileges_by_security_options(instance, images):
    load(instance, images)
    count = "grep -c ' /proc/[a-z]' /proc/mounts || true"
    assert inside(instance, "--security-opt", "systempaths=unconfined", script=count) == "0"
    flag = "grep NoNewPrivs /proc/self/status"
    assert inside(instance, script=flag).split()[1] == "0"
    assert inside(instance, "--security-opt", "no-new-privileges", script=flag).split()[1] == "1"
    assert inside(instance, "--security-opt", "label=disable", script="echo ran") == "ran"
    refused(instance, "invalid --security-opt 2", "--security-opt", "fly=1")


@test
def limits_of_processes_groups_and_kernel_settings(instance, images):
    load(instance, images)
    assert inside(instance, "--ulimit", "nofile=100:200", "--ulimit", "core=0",
                  script="ulimit -Sn; ulimit -Hn; ulimit -c") == "100\n200\n0"
    assert inside(instance, "--group-add", "staff", "--group-add", "4321", "-u", "shop",
                  script="id -G") == "1001 50 4321"
    refused(instance, "Unable to find group nobody-has", "--group-add", "nobody-has")
    assert inside(instance, "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4096",
                  script="cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax") == "1\n4096"
    result = instance.cloche("run", "--rm", "--network", "host", "--sysctl", "net.ipv4.ip_forward=1",
                             IMAGE, "true", code=125)
    assert "not allowed in host network namespace" in result.err
    assert inside(instance, "--oom-score-adj", "500", script="cat /proc/self/oom_score_adj") == "500"
    assert inside(instance, "--shm-size", "8m", script="df -k /dev/shm | tail -n 1").split()[1] == "8192"


# ---------------------------------------------------------------- namespaces

@test
def namespaces_of_the_machine_and_of_others(instance, images):
    load(instance, images)

    def link(kind, *options):
        return inside(instance, *options, script=f"readlink /proc/self/ns/{kind}")

    for kind, option in (("pid", "--pid"), ("ipc", "--ipc"), ("uts", "--uts"), ("cgroup", "--cgroupns")):
        ours = os.readlink(f"/proc/self/ns/{kind}")
        assert link(kind, option, "host") == ours, kind
    assert link("cgroup", "--cgroupns", "private") != os.readlink("/proc/self/ns/cgroup")
    instance.cloche("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    pid = json.loads(instance.cloche("inspect", "box").out)[0]["State"]["Pid"]
    assert link("pid", "--pid", "container:box") == os.readlink(f"/proc/{pid}/ns/pid")
    assert "sleep 1000" in inside(instance, "--pid", "container:box", script="ps")
    assert inside(instance, "--uts", "host", script="hostname") == os.uname().nodename
    assert inside(instance, "--ipc", "none", script="ls -d /dev/shm 2>&1 || true").endswith("No such file or directory")
    instance.cloche("stop", "-t", "0", "box")
    refused(instance, "cannot join pid namespace of a non running container", "--pid", "container:box")
    refused(instance, "No such container: nobody", "--pid", "container:nobody")
    refused(instance, "invalid PID mode: fly", "--pid", "fly")
    instance.cloche("rm", "box")


def described(instance, name):
    return json.loads(instance.cloche("inspect", name).out)[0]


@test
def memory_is_shared_with_who_may(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "donor", "--ipc", "shareable", "--shm-size", "8m", IMAGE,
                    "sh", "-c", "echo there > /dev/shm/file; exec sleep 1000")
    pid = described(instance, "donor")["State"]["Pid"]
    wait_for(lambda: instance.cloche("exec", "donor", "ls", "/dev/shm").out)
    look = "readlink /proc/self/ns/ipc; cat /dev/shm/file; df -k /dev/shm | tail -n 1"
    found = inside(instance, "--ipc", "container:donor", script=look).split()
    assert found[:2] == [os.readlink(f"/proc/{pid}/ns/ipc"), "there"] and found[3] == "8192", found
    # What one that joined writes is seen by the donor, and by who joins that one.
    instance.cloche("run", "-d", "--name", "second", "--ipc", "container:donor", IMAGE, "sh", "-c",
                    "echo back > /dev/shm/other; exec sleep 1000")
    wait_for(lambda: "other" in instance.cloche("exec", "donor", "ls", "/dev/shm").out)
    assert inside(instance, "--ipc", "container:second", script="cat /dev/shm/other") == "back"
    assert described(instance, "second")["HostConfig"]["IpcMode"] == "container:donor"
    # The memory is there as long as somebody has it.
    instance.cloche("rm", "-f", "donor")
    assert instance.cloche("exec", "second", "cat", "/dev/shm/file").out == "there\n"
    assert inside(instance, "--ipc", "container:second", script="cat /dev/shm/file") == "there"
    instance.cloche("run", "-d", "--name", "machine", "--ipc", "host", IMAGE, "sleep", "1000")
    assert inside(instance, "--ipc", "container:machine", script="readlink /proc/self/ns/ipc"
                  ) == os.readlink("/proc/self/ns/ipc")
    for mode in ("private", "none", ""):
        instance.cloche("run", "-d", "--name", "alone", *(("--ipc", mode) if mode else ()), IMAGE,
                        "sleep", "1000")
        refused(instance, "non-shareable IPC", "--ipc", "container:alone")
        instance.cloche("rm", "-f", "alone")
    refused(instance, "No such container: nobody", "--ipc", "container:nobody")
    refused(instance, "invalid IPC mode: fly", "--ipc", "fly")
    instance.cloche("stop", "-t", "0", "machine")
    refused(instance, "cannot join IPC of a non running container", "--ipc", "container:machine")
    instance.cloche("rm", "-f", "second", "machine")


@test
def who_restarts_joins_the_others_as_they_are_then(instance, images):
    """Also while no daemon lives."""
    load(instance, images)
    kinds = ("pid", "ipc", "net")
    instance.cloche("run", "-d", "--name", "donor", "--ipc", "shareable", IMAGE, "sleep", "1000")
    instance.cloche("run", "-d", "--name", "guest", "--restart", "always", "--pid", "container:donor",
                    "--ipc", "container:donor", "--network", "container:donor", IMAGE, "sh", "-c",
                    "echo run >> /log; ls /dev/shm >> /log; exec sleep 1000")

    def namespaces(name):
        pid = described(instance, name)["State"]["Pid"]
        return pid and [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds]

    first = namespaces("donor")
    assert namespaces("guest") == first
    # Its own end: the same ones again.
    os.kill(described(instance, "guest")["State"]["Pid"], 9)
    wait_for(lambda: described(instance, "guest")["RestartCount"] == 1
             and described(instance, "guest")["State"]["Status"] == "running")
    assert namespaces("guest") == first
    # The donor ends, and takes the processes along: nobody is joined until it is there again.
    instance.cloche("stop", "-t", "0", "donor")
    wait_for(lambda: described(instance, "guest")["State"]["Restarting"]
             and "non running container" in described(instance, "guest")["State"]["Error"])
    status = instance.run_folder / "containers" / described(instance, "guest")["Id"] / "status"
    instance.cloche("start", "donor")
    instance.cloche("exec", "donor", "touch", "/dev/shm/anew")
    instance.kill_daemon()
    wait_for(lambda: "state=running" in status.read_text())
    assert not described(instance, "guest")["State"]["Error"]
    second = namespaces("donor")
    assert all(old != new for old, new in zip(first, second))
    assert namespaces("guest") == second
    assert "anew" in instance.cloche("exec", "guest", "tail", "-n", "1", "/log").out
    # One that is gone for good.
    count = described(instance, "guest")["RestartCount"]
    instance.cloche("update", "--restart", f"on-failure:{count + 1}", "guest")
    instance.cloche("rm", "-f", "donor")
    wait_for(lambda: described(instance, "guest")["State"]["Status"] == "exited")
    state = described(instance, "guest")["State"]
    assert state["ExitCode"] == 125 and "non running container" in state["Error"], state
    instance.cloche("rm", "-f", "guest")


@test
def who_has_got_the_number_of_a_monitor_is_not_joined(instance, images):
    """A process of a container, with the words of a monitor and a child."""
    load(instance, images)
    instance.cloche("run", "-d", "--name", "donor", IMAGE, "sleep", "1000")
    instance.cloche("run", "-d", "--name", "guest", "--restart", "always", "--pid", "container:donor",
                    IMAGE, "sleep", "1000")
    bundle = instance.run_folder / "containers" / described(instance, "donor")["Id"]
    guest = instance.run_folder / "containers" / described(instance, "guest")["Id"] / "status"
    facts = dict(line.split("=", 1) for line in (bundle / "status").read_text().splitlines())
    instance.kill_daemon()
    for name in ("monitor", "pid"):
        os.kill(int(facts[name]), signal.SIGKILL)
    impostor = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait", "--bundle", bundle],
                                stdout=subprocess.PIPE, text=True)
    child = int(impostor.stdout.readline())
    try:
        # As if the numbers had come round.
        facts.update(monitor=impostor.pid, pid=child)
        (bundle / "status").write_text("".join(f"{name}={facts[name]}\n" for name in facts))
        wait_for(lambda: "state=restarting" in guest.read_text()
                 and "non running container" in guest.read_text())
    finally:
        os.kill(child, signal.SIGKILL)
        impostor.wait()
    instance.cloche("rm", "-f", "guest", "donor")


# ---------------------------------------------------------------- mounts

@contextlib.contextmanager
def mounted(place, how):
    """A tmpfs whose mounts go to others as `how` says; what was mounted below it goes, too."""
    place.mkdir()
    run("mount", "-t", "tmpfs", "none", place)
    run("mount", "--make-private", place)
    if how == "slave":
        run("mount", "--make-shared", place)
        (place.parent / "copy").mkdir()
        run("mount", "--bind", place, place.parent / "copy")
        run("mount", "--make-slave", place)
    else:
        run("mount", f"--make-{how}", place)
    try:
        yield place
    finally:
        run("umount", "--recursive", place)
        if how == "slave":
            run("umount", "--recursive", place.parent / "copy")


@test
def mounts_below_binds_go_to_and_fro(instance, images, scratch):
    load(instance, images)
    with mounted(scratch / "shared", "shared") as place:
        (place / "in").mkdir()
        (place / "out").mkdir()
        make = ["sh", "-c", "mount -t tmpfs none /b/in && echo inner > /b/in/file && exec sleep 1000"]
        for how, back, there in (("rshared", True, True), ("shared", True, True), ("rslave", False, True),
                                 ("slave", False, True), ("rprivate", False, False), ("private", False, False),
                                 (None, False, False)):
            bind = f"{place}:/b" + (f":{how}" if how else "")
            instance.cloche("run", "-d", "--name", "box", "--privileged", "-v", bind, IMAGE, *make)
            wait_for(lambda: instance.cloche("exec", "box", "cat", "/b/in/file", code=None).out == "inner\n")
            assert (place / "in/file").exists() == back, how
            run("mount", "-t", "tmpfs", "none", place / "out")
            (place / "out/file").write_text("outer")
            seen = instance.cloche("exec", "box", "cat", "/b/out/file", code=None).out
            assert (seen == "outer") == there, (how, seen)
            assert described(instance, "box")["Mounts"][0]["Propagation"] == (how or "rprivate")
            instance.cloche("rm", "-f", "box")
            # What the machine has stays, whatever the container's end unmounts.
            assert (place / "out/file").read_text() == "outer", how
            assert (place / "in/file").exists() == back, how
            for folder in ("out", *(["in"] if back else [])):
                run("umount", place / folder)
        mount = f"type=bind,source={place},target=/b,bind-propagation=rshared"
        instance.cloche("run", "--rm", "--privileged", "--mount", mount, IMAGE, "mount", "-t", "tmpfs", "none", "/b/in")
        assert os.path.ismount(place / "in")
        # Of what is below only the folder, not what is mounted there.
        look = ["sh", "-c", "mount | grep -c ' /b/in ' || true"]
        assert instance.cloche("run", "--rm", "-v", f"{place}:/b", IMAGE, *look).out == "1\n"
        assert instance.cloche("run", "--rm", "--mount", f"type=bind,source={place},target=/b,bind-nonrecursive",
                               IMAGE, *look).out == "0\n"


@test
def binds_are_shared_where_the_machine_shares(instance, images, scratch):
    load(instance, images)
    with mounted(scratch / "private", "private") as place:
        for how, words in (("rshared", "a shared mount"), ("shared", "a shared mount"),
                           ("rslave", "a shared or slave mount"), ("slave", "a shared or slave mount")):
            refused(instance, f"path {place}/x is mounted on {place} but it is not {words}", "-v", f"{place}/x:/b:{how}")
    with mounted(scratch / "slave", "slave") as place:
        refused(instance, "it is not a shared mount", "-v", f"{place}:/b:rshared")
        instance.cloche("run", "-d", "--name", "box", "-v", f"{place}:/b:rslave", IMAGE, "sleep", "1000")
        (scratch / "copy/later").mkdir()
        run("mount", "-t", "tmpfs", "none", scratch / "copy/later")
        (scratch / "copy/later/file").write_text("later")
        assert instance.cloche("exec", "box", "cat", "/b/later/file").out == "later"
        instance.cloche("rm", "-f", "box")


@test
def a_restart_keeps_what_is_shared(instance, images, scratch):
    """Also while no daemon lives; and the end of the monitor takes nothing from the machine."""
    load(instance, images)
    with mounted(scratch / "shared", "shared") as place:
        (place / "in").mkdir()
        instance.cloche("run", "-d", "--name", "box", "--privileged", "--restart", "always", "-v", f"{place}:/b:rshared",
                        IMAGE, "sh", "-c", "umount /b/in; mount -t tmpfs none /b/in; cat /proc/sys/kernel/random/uuid > /b/in/file; sleep 1000")
        wait_for((place / "in/file").exists)
        pid = described(instance, "box")["State"]["Pid"]
        instance.kill_daemon()
        before = (place / "in/file").read_text()
        os.kill(pid, 9)
        wait_for(lambda: (place / "in/file").exists() and (place / "in/file").read_text() not in ("", before))
        os.kill(described(instance, "box")["State"]["Pid"], 0)
        for monitor in [pid for pid in instance.processes()
                        if b"cloche-monitor" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]:
            os.kill(monitor, 9)
        instance.cloche("rm", "-f", "box")
        assert os.path.ismount(place / "in") and os.path.ismount(place)


@test
def mounts_of_all_kinds(instance, images, scratch):
    load(instance, images)
    (scratch / "a,b").mkdir()
    (scratch / "a,b/file").write_text("here")
    source = f'"source={scratch}/a,b"'
    mount = f"type=bind,{source},target=/data/deep,readonly"
    assert inside(instance, "--mount", mount, script="cat /data/deep/file; touch /data/deep/x 2>/dev/null || echo no"
                  ) == "hereno"
    assert inside(instance, "--tmpfs", "/t:size=1m,mode=700", "--mount", "type=tmpfs,target=/u,tmpfs-size=2m",
                  script="df -k /t /u | awk 'NR>1{print $2}'; stat -c %a /t; grep ' /t ' /proc/mounts"
                  ).splitlines()[:3] == ["1024", "2048", "700"]
    assert "noexec" in inside(instance, "--tmpfs", "/t", script="grep ' /t ' /proc/mounts")
    assert "noexec" not in inside(instance, "--tmpfs", "/t:exec", script="grep ' /t ' /proc/mounts")
    # A child is mounted after its parent, in whatever order they come.
    assert inside(instance, "-v", f"{scratch}/a,b:/p/q", "--tmpfs", "/p", script="cat /p/q/file") == "here"
    assert inside(instance, "--tmpfs", "/dev/shm:size=1m", script="df -k /dev/shm | tail -n 1").split()[1] == "1024"
    refused(instance, "bind source path does not exist: /nothing/there", "--mount",
            "type=bind,source=/nothing/there,target=/x")
    refused(instance, "Duplicate mount point: /x", "-v", "/tmp:/x", "--tmpfs", "/x/")
    refused(instance, "invalid mode: fly", "-v", "/tmp:/x:fly")
    assert not pathlib.Path("/nothing").exists()


@test
def read_only_binds_are_read_only_below_too(instance, images, scratch):
    load(instance, images)
    (scratch / "outer/inner").mkdir(parents=True)
    os.system(f"mount -t tmpfs none {scratch}/outer/inner")
    try:
        write = "touch /x/inner/f 2>/dev/null && echo written || echo no"
        assert inside(instance, "-v", f"{scratch}/outer:/x:ro", script=write) == "no"
        option = f"type=bind,source={scratch}/outer,target=/x,ro,bind-recursive=writable"
        assert inside(instance, "--mount", option, script=write) == "written"
    finally:
        os.system(f"umount {scratch}/outer/inner")


# ---------------------------------------------------------------- devices and resources

@test
def devices_are_given_with_the_access_asked_for(instance, images):
    load(instance, images)
    open_it = "(: <%s) 2>/dev/null && echo r; (: >%s) 2>/dev/null && echo w; true" % (2 * ("/dev/mine",))
    assert inside(instance, "--device", "/dev/net/tun:/dev/mine:r", script=open_it) == "r"
    assert inside(instance, "--device", "/dev/net/tun:/dev/mine", script=open_it) == "r\nw"
    assert inside(instance, "--device", "/dev/net:/dev/deep", script="ls /dev/deep") == "tun"
    make = "mknod /tmp/k c 10 200 && (: </tmp/k) 2>/dev/null && echo opened || echo no"
    assert inside(instance, script=make) == "no"
    assert inside(instance, "--device-cgroup-rule", "c 10:200 rwm", script=make) == "opened"
    refused(instance, 'custom device "/dev/nothing": no such file or directory', "--device", "/dev/nothing")
    refused(instance, "invalid device cgroup rule format", "--device-cgroup-rule", "c 1 rwm")


def control(instance, box, old, new):
    """Content of a control file; on v1 below its controller's hierarchy."""
    unified = not os.path.isdir(f"{CGROUPS}/memory")
    identifier = json.loads(instance.cloche("inspect", box).out)[0]["Id"]
    folder, name = ("", new) if unified else old.split("/")
    found = list(pathlib.Path(CGROUPS, folder).glob(f"**/{identifier}/{name}"))
    assert found, (old, identifier)
    return found[0].read_text().strip()


@test
def limits_reach_their_control_files(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "box", "-m", "64m", "--memory-reservation", "32m", "--memory-swap",
                    "96m", "-c", "512", "--cpu-period", "50000", "--cpu-quota", "25000", "--cpuset-cpus", "0",
                    "--pids-limit", "40", IMAGE, "sleep", "1000")
    assert control(instance, "box", "memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert control(instance, "box", "memory/memory.soft_limit_in_bytes", "memory.low") == str(32 << 20)
    assert control(instance, "box", "cpuset/cpuset.cpus", "cpuset.cpus") == "0"
    assert control(instance, "box", "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    assert control(instance, "box", "pids/pids.max", "pids.max") == "40"
    if os.path.isdir(f"{CGROUPS}/memory"):
        assert control(instance, "box", "cpu/cpu.shares", "") == "512"
    instance.cloche("rm", "-f", "box")
    refused(instance, "Minimum memoryswap limit should be larger than memory limit", "-m", "64m", "--memory-swap", "32m")
    refused(instance, "Nano CPUs and CPU Period cannot both be set", "--cpus", "1", "--cpu-period", "50000")
    refused(instance, "should always set the Memory limit", "--memory-swap", "64m")


@test
def what_the_machine_has_not_is_refused_when_it_is_asked_for(instance, images):
    load(instance, images)
    online = pathlib.Path("/sys/devices/system/cpu/online").read_text().strip()
    for words, text in ((("--cpuset-cpus", "99"), f"Requested CPUs are not available - requested 99, available: {online}"),
                        (("--cpuset-cpus", "0-"), "Invalid value 0- for cpuset cpus: invalid format: 0-"),
                        (("--cpuset-cpus", "100000"), "value of out range, maximum is 8192"),
                        (("--cpuset-mems", "77"), "Requested memory nodes are not available - requested 77, available: "),
                        (("--kernel-memory", "1m"), "Minimum kernel memory limit allowed is 6MB"),
                        (("-v", "rel/ative:/x"), 'create rel/ative: "rel/ative" includes invalid characters for a local '
                         'volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
                         "directory, use absolute path"),
                        (("-v", "x:/x"), "create x: volume name is too short"),
                        (("-v", "/tmp:/x:nocopy"), "field VolumeOptions must not be specified"),
                        (("-v", "name:/x:rslave"), "field BindOptions must not be specified"),
                        (("-v", "name:/x:ro,rw"), "invalid mode: ro,rw")):
        result = instance.cloche("create", *words, IMAGE, code=125)
        assert text in result.err, result
    assert instance.cloche("ps", "-aq").out == ""
    made = instance.cloche("create", "--name", "box", "--kernel-memory", "64m", "-v", "name:/x", IMAGE, "true")
    assert "kernel memory limit capabilities" in made.err and "Limitation discarded" in made.err, made
    assert "available: " + online in instance.cloche("update", "--cpuset-cpus", "99", "box", code=1).err
    instance.cloche("start", "box")
    instance.cloche("rm", "-f", "box")


@test
def limits_change_while_it_runs(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "box", "-m", "64m", "--restart", "on-failure", IMAGE, "sh", "-c",
                    "trap 'exit 3' TERM; while :; do sleep 0.1; done")

    def limit():
        return control(instance, "box", "memory/memory.limit_in_bytes", "memory.max")

    assert instance.cloche("update", "-m", "96m", "--pids-limit", "30", "box").out == "box\n"
    assert limit() == str(96 << 20) and control(instance, "box", "pids/pids.max", "pids.max") == "30"
    result = instance.cloche("update", "-m", "512m", "box", code=1)
    assert "update the memoryswap at the same time" in result.err, result.err
    instance.cloche("update", "-m", "512m", "--memory-swap", "1g", "box")
    result = instance.cloche("update", "--cpu-period", "5", "box", code=1)
    assert "CPU cfs period" in result.err and limit() == str(512 << 20)
    # A restart, with and without its monitor, and another daemon keep them.
    pid = json.loads(instance.cloche("inspect", "box").out)[0]["State"]["Pid"]
    instance.kill_daemon()
    os.kill(pid, 15)
    wait_for(lambda: "Up" in instance.cloche("ps", "--format", "{{.Status}}").out and
             json.loads(instance.cloche("inspect", "box").out)[0]["State"]["Pid"] not in (0, pid), 20)
    assert limit() == str(512 << 20)
    config = json.loads(instance.cloche("inspect", "box").out)[0]["HostConfig"]
    assert (config["Memory"], config["MemorySwap"], config["PidsLimit"]) == (512 << 20, 1 << 30, 30), config
    # The monitor hears of another policy.
    instance.cloche("update", "--restart", "no", "box")
    instance.cloche("kill", "-s", "TERM", "box")
    wait_for(lambda: "Exited (3)" in instance.cloche("ps", "-a", "--format", "{{.Status}}").out, 20)
    instance.cloche("update", "-c", "256", "box")
    instance.cloche("start", "box")
    assert limit() == str(512 << 20)
    instance.cloche("rm", "-f", "box")
    result = instance.cloche("update", "box", code=1)
    assert "you must provide one or more flags" in result.err


@test
def a_cgroup_parent_of_ones_own(instance, images, unique):
    load(instance, images)
    parent = f"{unique}-parent"
    try:
        instance.cloche("run", "-d", "--name", "box", "--cgroup-parent", f"/{parent}", IMAGE, "sleep", "1000")
        pid = json.loads(instance.cloche("inspect", "box").out)[0]["State"]["Pid"]
        assert f"/{parent}/" in pathlib.Path(f"/proc/{pid}/cgroup").read_text()
        instance.cloche("pause", "box")
        instance.cloche("unpause", "box")
    finally:
        instance.cloche("rm", "-f", "box")
        for folder in [*pathlib.Path(CGROUPS).glob(f"*/{parent}"), *pathlib.Path(CGROUPS).glob(parent)]:
            folder.rmdir()


# ---------------------------------------------------------------- names

@test
def names_and_name_servers(instance, images):
    load(instance, images)
    options = ["--dns", "9.9.9.9", "--dns", "2620:fe::fe", "--dns-search", "shop.example", "--dns-option", "ndots:2"]
    assert inside(instance, *options, script="cat /etc/resolv.conf").splitlines()[-4:] == [
        "nameserver 9.9.9.9", "nameserver 2620:fe::fe", "search shop.example", "options ndots:2"]
    hosts = instance.cloche("run", "--rm", "--add-host", "db:10.1.2.3", "--add-host", "six=[fd00::1]",
                            "--add-host", "gate:host-gateway", "-h", "till", "--domainname", "shop.example",
                            IMAGE, "sh", "-c", "cat /etc/hosts; hostname; cat /proc/sys/kernel/domainname").out
    assert "10.1.2.3\tdb\n" in hosts and "fd00::1\tsix\n" in hosts, hosts
    assert re.search(r"^[\d.]+\ttill\.shop\.example till$", hosts, re.M), hosts
    assert re.search(r"^[\d.]+\tgate$", hosts, re.M) and hosts.endswith("till\nshop.example\n"), hosts
    refused(instance, 'bad format for add-host: "db"', "--add-host", "db")
    refused(instance, "not an IP address", "--dns", "x")


# ---------------------------------------------------------------- files and streams of the command itself

@test
def files_with_labels_and_the_identifier(instance, images, scratch):
    load(instance, images)
    (scratch / "labels").write_text("# ours\na=1\nb\n")
    place = scratch / "cid"
    identifier = instance.cloche("create", "--cidfile", place, "--label-file", scratch / "labels", "--label", "a=2",
                                 "--annotation", "x=y", IMAGE, "true").out.strip()
    assert place.read_text() == identifier
    labels = json.loads(instance.cloche("inspect", identifier).out)[0]["Config"]["Labels"]
    assert labels == {"a": "2", "b": ""}, labels
    result = instance.cloche("create", "--cidfile", place, IMAGE, code=125)
    assert "container ID file found" in result.err, result.err
    instance.cloche("create", "--cidfile", scratch / "other", "--pid", "fly", IMAGE, code=125)
    assert not (scratch / "other").exists()
    instance.cloche("rm", identifier)


@test
def only_the_streams_that_are_asked_for(instance, images):
    load(instance, images)
    script = ["sh", "-c", "echo out; echo err >&2; cat"]
    result = instance.cloche("run", "--rm", "-a", "stderr", IMAGE, *script)
    assert (result.out, result.err) == ("", "err\n"), repr(result)
    result = instance.cloche("run", "--rm", "-i", "-a", "stdin", "-a", "STDOUT", IMAGE, *script, input="in\n")
    assert (result.out, result.err) == ("out\nin\n", ""), repr(result)


@test
def a_platform_that_the_image_is_not_for(instance, images):
    load(instance, images)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert inside(instance, "--platform", f"linux/{machine}", script="echo ran") == "ran"
    result = instance.cloche("create", "--pull", "never", "--platform", "linux/s390x", IMAGE, code=125)
    assert "does not match the specified platform: wanted linux/s390x" in result.err, result.err


if __name__ == "__main__":
    main()
