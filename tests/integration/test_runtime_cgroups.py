"""cloche-runtime and cgroups: conversions, hybrid machines, delegation, exec --cgroup, events, ps,
escapes.

Runs on the machine (cgroup v1, hybrid) and in the guest (v2).
"""

import json
import os
import pathlib
import subprocess

import bundles
from bundles import CGROUPS, cgroup_file, cgroup_version
from harness import main, run, wait_for

V2 = cgroup_version() == 2
HYBRID = (CGROUPS / "unified" / "cgroup.procs").exists()
MIB = 1 << 20
SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def world(function):
    """With a cgroup namespace: the container sees its own cgroup at /sys/fs/cgroup."""
    def call(w):
        w.bundle.namespace("cgroup")
        function(w)
    call.__name__ = function.__name__
    return bundles.world(call)


def running(w, script=SLEEP):
    return w.runtime.container(w.bundle.script(script), w.name)


def execute(w, *words, code=0):
    return w.runtime("exec", w.name, *words, code=code)


def shell(w, script, code=0):
    return execute(w, "sh", "-c", script, code=code)


def user_namespace(w, base=100000):
    w.bundle.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        w.bundle.linux[kind] = [{"containerID": 0, "hostID": base, "size": 65536}]
    subprocess.run(["chown", "-R", f"{base}:{base}", w.bundle.rootfs], check=True)


def writable_cgroups(w):
    for mount in w.bundle.config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"].remove("ro")
    w.bundle.write()


@world
def what_was_there_in_one_hierarchy_stays_in_it_alone(w):
    if V2:
        return
    w.bundle.linux["cgroupsPath"] = f"/{w.name}/inner/c"
    there = [CGROUPS / "cpu" / w.name, CGROUPS / "memory" / w.name / "inner" / "c"]
    for folder in there:
        folder.mkdir(parents=True)
    try:
        with running(w):
            assert len(list(CGROUPS.glob(f"*/{w.name}/inner/c"))) > len(there)
        left = {folder.parent.name: folder for folder in CGROUPS.glob(f"*/{w.name}")
                if not folder.parent.is_symlink()}
        assert sorted(left) == sorted({f.resolve().relative_to(CGROUPS).parts[0] for f in there})
        assert not (there[0] / "inner").exists() and there[1].exists()
    finally:
        there[0].rmdir()
        for folder in (there[1], *there[1].parents[:2]):
            folder.rmdir()


# ---------------------------------------------------------------- limits

@world
def shares_become_weights_by_the_new_curve(w):
    if not V2:
        return
    for shares, weight in ((2, 1), (100, 17), (1024, 100), (3333, 256), (262144, 10000)):
        w.bundle.resources["cpu"] = {"shares": shares}
        assert w.run("cat /sys/fs/cgroup/cpu.weight").out == f"{weight}\n", shares


@world
def shares_out_of_range_are_refused(w):
    if V2:
        return
    w.bundle.resources["cpu"] = {"shares": 1}
    w.fails("minimum allowed cpu-shares is 2")


@world
def no_processes_is_one(w):
    """What 0 means since 1.3: runc 1.4 takes it as 1, which the container's first process is. Before
    it was no limit, and so do podman 4.3 and its like still write --pids-limit=-1."""
    w.bundle.config["ociVersion"] = "1.3.0"
    w.bundle.resources["pids"] = {"limit": 0}
    w.bundle.args("cat", "/sys/fs/cgroup/pids.max" if V2 else "/sys/fs/cgroup/pids/pids.max")
    assert w.run().out == "1\n"
    w.bundle.resources["pids"] = {"limit": -1}
    assert w.run().out == "max\n"
    for version in ("1.0.2-dev", "1.2.1"):
        w.bundle.config["ociVersion"] = version
        w.bundle.resources["pids"] = {"limit": 0}
        assert w.run().out == "max\n"


@world
def a_burst_with_its_quota(w):
    w.bundle.resources["cpu"] = {"quota": 50000, "period": 100000, "burst": 10000}
    with running(w):
        name = "cpu.max.burst" if V2 else "cpu.cfs_burst_us"
        assert cgroup_file(w.name, "cpu", name) == "10000"


@world
def files_of_cgroup_v2(w):
    w.bundle.resources["unified"] = {"memory.high": str(64 * MIB), "memory.low": str(MIB)}
    if not V2:
        w.fails("invalid configuration")
        return
    assert w.run("cat /sys/fs/cgroup/memory.high").out == f"{64 * MIB}\n"
    for key, message in (
            ("nothing", "the specified key has not the form CONTROLLER.VALUE `nothing`"),
            ("../x.y", "has not the form"), ("memory.x/../y", "has not the form"),
            ("foo.bar", "the requested cgroup controller `foo` is not available"),
            ("memory.foo", "No such file or directory"), ("cgroup.procs", "is no limit"),
            ("cgroup.kill", "is no limit"), ("cgroup.subtree_control", "is no limit")):
        w.bundle.resources["unified"] = {key: "1"}
        w.fails(message)


@world
def swap_of_0_is_none_unless_a_limit_stands_beside_it(w):
    if not V2:
        return  # v1 has only the sum of both
    for memory, expected in (({"swap": 0}, "0\n"), ({"swap": 0, "limit": 0}, "max\n"),
                             ({"swap": 0, "limit": 64 * MIB}, "max\n")):
        w.bundle.resources["memory"] = memory
        assert w.run("cat /sys/fs/cgroup/memory.swap.max").out == expected, memory


@world
def a_rule_that_v1_would_not_obey_is_refused(w):
    w.bundle.resources["devices"] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rw"}]
    if V2:
        w.run("true")
    else:
        w.fails("linux.resources.devices", "wildcard")


# ---------------------------------------------------------------- where the container is

@world
def on_a_hybrid_machine_it_is_in_the_v2_tree_too(w):
    if not HYBRID:
        return
    w.bundle.namespace("cgroup", remove=True)
    with running(w):
        pid = w.runtime.state(w.name)["pid"]
        last = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1]
        assert last == f"0::/{w.name}", last
        assert execute(w, "cat", "/proc/self/cgroup").lines[-1] == last
    assert not (CGROUPS / "unified" / w.name).exists()


@world
def a_writable_cgroup_in_its_own_namespace_is_the_containers(w):
    if not V2:
        return
    user_namespace(w)

    def owner(*files):
        with running(w):
            return execute(w, "stat", "-c", "%u", "/sys/fs/cgroup",
                           *(f"/sys/fs/cgroup/{name}" for name in files)).out.split()
    assert owner("cgroup.procs", "memory.max") == ["65534"] * 3
    writable_cgroups(w)
    assert owner("cgroup.procs", "memory.max") == ["0", "0", "65534"]
    w.bundle.namespace("cgroup", remove=True)  # what is mounted there is the machine's then
    assert owner("cgroup.procs") == ["65534"] * 2


@world
def a_container_makes_cgroups_in_its_own(w):
    if not V2:
        return
    user_namespace(w)
    writable_cgroups(w)
    with running(w):
        shell(w, "mkdir -p /sys/fs/cgroup/a/b/c && echo 1 > /sys/fs/cgroup/a/b/cgroup.procs")
    assert not (CGROUPS / w.name).exists()


@world
def hidden_cgroups_are_cgroups(w):
    """A name that begins with a full stop hides a cgroup from ls, not from us: `ps`, kill and
    delete reach what is in there. Red with walk_down() skipping such names."""
    writable_cgroups(w)
    w.bundle.all_capabilities("CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN")
    w.bundle.namespace("pid", remove=True)
    top = "/sys/fs/cgroup" if V2 else "/sys/fs/cgroup/devices"
    w.runtime("run", "-d", "-b", w.bundle.script("sleep 100").write().path, w.name)
    try:
        shell(w, f"mkdir -p {top}/.x/..y && (sleep 77 & echo $! >{top}/.x/..y/cgroup.procs)")
        pids = json.loads(w.runtime("ps", "-f", "json", w.name).out)
        assert len(pids) == 2, pids
        w.runtime("kill", "--all", w.name, "KILL")
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids))
    finally:
        w.runtime("delete", "--force", w.name)
    assert not list(CGROUPS.glob(f"*/{w.name}")) and not (CGROUPS / w.name).exists()


@world
def cgroups_deeper_than_there_are_descriptors(w):
    """A container nests them to be left behind, or to hide processes from kill."""
    depth, descriptors = 150, 100
    writable_cgroups(w)
    w.bundle.all_capabilities("CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN")
    top = "/sys/fs/cgroup" if V2 else "/sys/fs/cgroup/devices"
    w.runtime("run", "-d", "-b", w.bundle.script("sleep 100").write().path, w.name)
    shell(w, f"cd {top} && for i in $(seq {depth}); do mkdir x y && cd x || exit 1; done; "
             "(sleep 100 & echo $! >cgroup.procs)")
    limited = ["prlimit", f"--nofile={descriptors}", w.runtime.path, "--root", w.runtime.root]
    listed = run(*limited, "ps", "-f", "json", w.name).out
    assert len(json.loads(listed)) == 2, listed
    run(*limited, "delete", "--force", w.name)
    assert not list(CGROUPS.glob(f"*/{w.name}")) and not (CGROUPS / w.name).exists()


# ---------------------------------------------------------------- exec

@world
def exec_into_a_cgroup_below(w):
    writable_cgroups(w)
    w.bundle.all_capabilities("CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN")
    with running(w):
        for bad, message in (("..", "bad sub cgroup path: .. leads out"),
                             ("a/../../b", "bad sub cgroup path"),
                             (f"../{w.name}-sibling", "bad sub cgroup path"),
                             ("nonexistent", "/nonexistent/cgroup.procs: no such file "),
                             ("whaaat:/", "unknown controller ")):
            result = w.runtime("exec", "--cgroup", bad, w.name, "true", code=255)
            assert message in result.err, result
        top = execute(w, "cat", "/proc/self/cgroup").out
        assert w.runtime("exec", "--cgroup", "/", w.name, "cat", "/proc/self/cgroup").out == top
        if V2:
            shell(w, "mkdir /sys/fs/cgroup/sub")
            out = w.runtime("exec", "--cgroup", "sub", w.name, "cat", "/proc/self/cgroup").out
            assert out == "0::/sub\n", out
        else:
            shell(w, "mkdir /sys/fs/cgroup/memory/sub /sys/fs/cgroup/pids/sub")
            out = w.runtime("exec", "--cgroup", "memory:sub", "--cgroup", "pids:sub", w.name, "cat",
                            "/proc/self/cgroup").lines
            below = {line.split(":")[1] for line in out if line.endswith("/sub")}
            assert below == {"memory", "pids"}, out


@world
def exec_where_the_top_takes_no_processes(w):
    if not V2:
        return
    writable_cgroups(w)
    with running(w):
        shell(w, "mkdir /sys/fs/cgroup/sub && echo 1 > /sys/fs/cgroup/sub/cgroup.procs")
        assert execute(w, "cat", "/proc/self/cgroup").out == "0::/\n"
        shell(w, "echo $$ > /sys/fs/cgroup/sub/cgroup.procs && "
                 "echo +memory > /sys/fs/cgroup/cgroup.subtree_control")
        assert execute(w, "cat", "/proc/self/cgroup").out == "0::/sub\n"
        result = w.runtime("exec", "--cgroup", "/", w.name, "true", code=255)
        assert "device or resource busy" in result.err, result


@world
def exec_where_the_first_process_went(w):
    """It left the container's cgroup, which is then removed: what the container makes now is where
    it is (runc#5089)."""
    if not V2:
        return
    elsewhere = CGROUPS / (w.name + "-elsewhere")
    elsewhere.mkdir()
    writable_cgroups(w)
    w.bundle.namespace("cgroup", remove=True)
    try:
        with running(w, f"echo 1 > {elsewhere}/cgroup.procs; " + SLEEP):
            wait_for(lambda: (elsewhere / "cgroup.procs").read_text())
            assert w.name + "\n" in execute(w, "cat", "/proc/self/cgroup").out
            wait_for(lambda: not (CGROUPS / w.name / "cgroup.procs").read_text())
            (CGROUPS / w.name).rmdir()
            out = execute(w, "cat", "/proc/self/cgroup").lines
            assert f"0::/{elsewhere.name}" in out, out
            result = w.runtime("exec", "--cgroup", "/", w.name, "true", code=255)
            assert "is gone" in result.err, result
    finally:
        wait_for(lambda: not (elsewhere / "cgroup.procs").read_text())
        elsewhere.rmdir()


@world
def a_delegated_cgroup_below_the_containers(w):
    """crun's annotation: what the container divides up lies below what has its limits."""
    w.bundle.config["annotations"] = {"run.oci.delegate-cgroup": "/payload/init"}
    writable_cgroups(w)
    if not V2:
        w.fails("run.oci.delegate-cgroup: only cgroup v2", script="true")
        return
    with running(w):
        pid = w.runtime.state(w.name)["pid"]
        place = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1]
        assert place == f"0::/{w.name}/payload/init", place
        assert execute(w, "cat", "/proc/self/cgroup").lines[-1] == "0::/payload/init"
        assert "payload" in execute(w, "ls", "/sys/fs/cgroup").out.split()
        assert str(pid) in w.runtime("ps", "-f", "json", w.name).out
    assert not (CGROUPS / w.name).exists()
    for bad in ("../up", "a/../..", "/"):
        w.bundle.config["annotations"] = {"run.oci.delegate-cgroup": bad}
        w.fails("run.oci.delegate-cgroup", script="true")


@world
def none_at_all(w):
    """crun's --cgroup-manager=disabled: the process stays where its caller is."""
    def create(code=0):
        return w.runtime("--cgroup-manager=disabled", "create", "-b", w.bundle.write().path, w.name,
                         code=code)

    def of(pid):
        return pathlib.Path(f"/proc/{pid}/cgroup").read_text()

    w.bundle.script(SLEEP)
    create()
    try:
        w.runtime("start", w.name)
        assert of(w.runtime.state(w.name)["pid"]) == of("self")
        assert not list(CGROUPS.glob(f"*/{w.name}")) and not (CGROUPS / w.name).exists()
        assert execute(w, "echo", "inside").out == "inside\n"
        assert "no cgroup" in w.runtime("pause", w.name, code=1).err
        assert str(w.runtime.state(w.name)["pid"]) in w.runtime("ps", "-f", "json", w.name).out
    finally:
        w.runtime("delete", "--force", w.name)
    w.bundle.resources["pids"] = {"limit": 30}
    assert "pids" in create(code=1).err


# ---------------------------------------------------------------- events, ps, pause

def statistics(w):
    event = json.loads(w.runtime("events", "--stats", w.name).out)
    assert list(event) == ["type", "id", "data"], event
    assert (event["type"], event["id"]) == ("stats", w.name)
    return event["data"]


@world
def statistics_of_a_container(w):
    w.bundle.resources.update(memory={"limit": 64 * MIB}, pids={"limit": 30})
    with running(w, "head -c 9000000 /dev/zero > /dev/shm/x; " + SLEEP):
        usage = "memory.current" if V2 else "memory.usage_in_bytes"
        wait_for(lambda: int(cgroup_file(w.name, "memory", usage)) > 9000000)
        data = statistics(w)
        assert list(data) == ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt",
                              "network_interfaces"]
        assert data["memory"]["usage"]["limit"] == 64 * MIB
        assert data["memory"]["usage"]["usage"] > 9000000
        # The kernel sums memory.stat up every two seconds.
        wait_for(lambda: statistics(w)["memory"].get("cache", 0) >= 9000000)
        assert statistics(w)["memory"]["raw"]["file" if V2 else "cache"] >= 9000000
        assert data["pids"]["limit"] == 30 and data["pids"]["current"] >= 1
        assert data["cpu"]["usage"]["total"] > 0
        assert {"kernel", "user"} <= set(data["cpu"]["usage"])
        if V2:
            assert {"some", "full"} == set(data["cpu"]["psi"])
            assert {"avg10", "avg60", "avg300", "total"} == set(data["memory"]["psi"]["some"])
        else:
            assert len(data["cpu"]["usage"]["percpu"]) >= 1 and data["cpuset"]["cpus"]
            assert len(data["cpu"]["usage"]["percpu_user"]) >= 1


@world
def events_end_with_the_container(w):
    with running(w):
        events = w.runtime.start("events", "--interval", "100ms", w.name, stdout=subprocess.PIPE)
        line = json.loads(events.stdout.readline())
        assert line["type"] == "stats" and line["data"]["pids"]["current"] >= 1
        w.runtime("delete", "-f", w.name)
        assert events.wait(60) == 0
        events.stdout.close()
    assert "does not exist" in w.runtime("events", "--stats", w.name, code=1).err


def open_files(pid):
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            yield os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass


@world
def a_kill_for_want_of_memory_is_an_event(w):
    w.bundle.resources["memory"] = {"limit": 16 * MIB, "swap": 16 * MIB}
    with running(w):
        events = w.runtime.start("events", "--interval", "1h", w.name, stdout=subprocess.PIPE)
        wait_for(lambda: "[timerfd]" in " ".join(open_files(events.pid)))
        w.runtime("exec", w.name, "sh", "-c", "x=$(head -c 99999999 /dev/zero | tr '\\0' x)",
                  code=None)
        assert events.stdout.readline() == b'{"type":"oom","id":"%s"}\n' % w.name.encode()
        w.runtime("delete", "-f", w.name)
        assert events.wait(60) == 0
        events.stdout.close()


@world
def a_limit_too_low_to_start(w):
    """Where the process is in its cgroup from the beginning (v2) it dies before it is the program;
    on v1 it comes in last of all, and the program is what dies."""
    w.bundle.resources["memory"] = {"limit": 4096, "swap": 4096}
    result = w.run("true", code=None)
    assert result.code == 137 or \
        "container init was OOM-killed (memory limit too low?)" in result.err, result
    assert w.runtime.names() == []


@world
def killed_while_it_is_made(w):
    """What the image has to be copied takes more memory than there is: whoever waits for the
    container hears of it, and nothing is left."""
    folder = w.bundle.rootfs / "full"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * (24 << 20))
    w.bundle.mount("/full", "tmpfs", "tmpfs", ["tmpcopyup"])
    w.bundle.resources["memory"] = {"limit": 8 << 20, "swap": 8 << 20}
    w.bundle.script("true").write()
    for words in (["create"], ["run", "--detach"], ["run"]):
        result = w.runtime(*words, "-b", w.bundle.path, w.name, code=1)
        assert "container init was OOM-killed (memory limit too low?)" in result.err, (words, result)
        assert w.runtime.names() == []


@world
def intervals_are_checked(w):
    with running(w):
        for interval in ("0", "x", "-1s", "5", "1y", "0s"):
            result = w.runtime("events", "--interval", interval, w.name, code=1)
            assert interval not in ("0", "0s") or "greater than 0" in result.err, result


@world
def processes_after_the_end(w):
    with running(w):
        pid = w.runtime.state(w.name)["pid"]
        assert str(pid) in w.runtime("ps", w.name).out
        assert pid in json.loads(w.runtime("ps", "-f", "json", w.name).out)
        out = w.runtime("ps", w.name, "-e", "-x").out
        assert "PID" in out and "COMMAND" in out
        w.runtime("kill", w.name, "KILL")
        wait_for(lambda: w.runtime.status(w.name) == "stopped")
        assert str(pid) not in w.runtime("ps", w.name).out


@world
def paused_containers_are_killed_and_deleted(w):
    with running(w):
        w.runtime("pause", w.name)
        w.runtime("kill", w.name, "KILL")
        wait_for(lambda: w.runtime.status(w.name) == "stopped")
        w.runtime("delete", "-f", w.name)
    with running(w):
        w.runtime("pause", w.name)
        w.runtime("kill", "--all", w.name, "KILL")
        wait_for(lambda: w.runtime.status(w.name) == "stopped")


# ---------------------------------------------------------------- escapes

@world
def a_release_agent_cannot_be_set(w):
    """CVE-2022-0492 and its like: a container that may mount cgroups, or has them mounted writable,
    must not come to release_agent, which the kernel runs outside of every container.
    What is written is what is there, so that nothing happens where it can be. Seen red on ours with
    capability_limit_bounding() and capability_apply() left out of workload.c, and in mounts_cgroup.c the
    hierarchy's root bound, writable: "set /sys/fs/cgroup/blkio/release_agent"."""
    attempt = "(cat $f; echo) 2>/dev/null > $f && echo set $f"
    mounting = ("mkdir /tmp/c; for k in memory rdma cpuset pids freezer devices; do "
                "mount -t cgroup -o $k c /tmp/c 2>/dev/null && for f in /tmp/c/release_agent "
                f"/tmp/c/*/release_agent; do [ -e $f ] && {attempt}; done; "
                "umount /tmp/c 2>/dev/null; done; "
                "find /sys/fs/cgroup -name release_agent 2>/dev/null | while read f; do "
                f"{attempt}; done; echo end")
    w.bundle.mount("/tmp", "tmpfs", "tmpfs", [])
    assert w.run(mounting).out == "end\n"
    writable_cgroups(w)
    assert w.run(mounting).out == "end\n"
    # In user and cgroup namespaces of its own, as CVE-2022-0492 had it.
    user_namespace(w)
    w.bundle.all_capabilities("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE")
    assert w.run(mounting).out == "end\n"


if __name__ == "__main__":
    main()
