"""cloche-runtime as an ordinary user: with the own id alone, and with more through newuidmap.

Runs on the machine and in the guest (cgroup v2, where cgroups can be delegated).
"""

import json
import os
import stat
import subprocess

from bundles import ConsoleSocket, Runtime, cgroup_version
from harness import main, run, test, wait_for
from users import delegated_cgroup, user_world

world = user_world(test)


# ---------------------------------------------------------------- the own id alone

@world
def an_ordinary_user_runs_a_container(w):
    out = w.run("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; "
                "hostname; echo >/dev/null; mount -t tmpfs none /tmp 2>&1; exit 3", code=3).out
    own = ["0", str(w.user.uid), "1"]
    words = out.split()
    assert words[:9] == ["0", "0", *own, *own, "deny"], out
    assert "denied" in out or "not permitted" in out, out
    assert w.runtime.names() == []


@world
def the_state_is_in_the_users_runtime_folder(w):
    w.run("true")
    status = os.stat(w.user.runtime_folder / "cloche-runtime")
    assert stat.S_IMODE(status.st_mode) == 0o1700 and status.st_uid == w.user.uid, status
    result = w.run("true", code=1, environment={"XDG_RUNTIME_DIR": None})
    assert "XDG_RUNTIME_DIR is not set" in result.err and "--root" in result.err, result
    result = w.run("true", code=1, environment={"XDG_RUNTIME_DIR": "run"})
    assert "not an absolute path" in result.err, result
    result = w.runtime("list", environment={"XDG_RUNTIME_DIR": "/proc"}, code=1)
    assert "must be writable by the user" in result.err, result
    other = w.user.home / "elsewhere"
    w.runtime("--root", other, "run", "-b", w.bundle.path, w.name,
              environment={"XDG_RUNTIME_DIR": None})
    assert other.is_dir()


@world
def spec_rootless_is_that_of_runc(w):
    w.user.run("runc", "spec", "--rootless")
    theirs = json.loads((w.user.home / "config.json").read_text())
    ours = json.loads((w.bundle.path / "config.json").read_text())
    # runc 1.1.5 is from before ambient capabilities went and the TPM was masked.
    del theirs["process"]["capabilities"]["ambient"]
    theirs["linux"]["maskedPaths"].append("/sys/devices/virtual/tpm")
    theirs["ociVersion"], theirs["hostname"] = ours["ociVersion"], ours["hostname"]
    assert ours == theirs, (ours, theirs)


@world
def a_life_without_a_cgroup(w):
    pid_file = w.user.home / "pid"
    w.bundle.script("trap 'exit 3' TERM; sleep 100 & while :; do sleep 0.05; done")
    w.runtime("create", "-b", w.bundle.path, "--pid-file", pid_file, w.name)
    state = w.runtime.state(w.name)
    assert state["status"] == "created" and state["pid"] == int(pid_file.read_text()), state
    assert state["owner"] == w.user.name, state
    assert w.runtime("exec", w.name, "id", "-u").out == "0\n"
    w.runtime("start", w.name)
    try:
        out = w.runtime("exec", w.name, "sh", "-c", "echo $$; readlink /proc/self/ns/user; pwd")
        pid, users, folder = out.lines
        assert int(pid) < 50 and folder == "/", out
        assert users == os.readlink(f"/proc/{state['pid']}/ns/user"), out
        wait_for(lambda: "sleep 100" in w.runtime("ps", w.name).out)
        pids = json.loads(w.runtime("ps", "-f", "json", w.name).out)
        assert state["pid"] in pids and len(pids) >= 2, pids
        # Nothing is counted: that is no failure, as with runc.
        event = json.loads(w.runtime("events", "--stats", w.name).out)
        assert event["data"]["pids"] == {} and "raw" not in event["data"]["memory"], event
        result = w.runtime("pause", w.name, code=1)
        assert "no cgroup" in result.err and "cannot be paused" in result.err, result
        assert w.runtime.status(w.name) == "running"
        assert "not stopped: running" in w.runtime("delete", w.name, code=1).err
    finally:
        w.runtime("kill", w.name, "KILL")
    wait_for(lambda: w.runtime.status(w.name) == "stopped")
    w.runtime("delete", w.name)
    assert w.runtime.names() == []


@world
def kill_all_goes_by_the_pid_namespace(w):
    w.bundle.script("trap 'echo init' USR1; echo up; sh -c \"trap 'echo child; exit' USR1; echo up; "
                    "while :; do sleep 0.05; done\" & while :; do sleep 0.05; done")
    w.bundle.write()
    output = w.user.home / "out"
    with open(output, "wb") as out:
        run_ = w.runtime.start("run", "-b", w.bundle.path, w.name, stdout=out,
                               stdin=subprocess.DEVNULL)
    wait_for(lambda: w.runtime.is_running(w.name))
    wait_for(lambda: output.read_text().count("up\n") == 2)  # both shells have set their traps
    w.runtime("kill", "--all", w.name, "USR1")
    wait_for(lambda: sorted(output.read_text().split()) == ["child", "init", "up", "up"])
    w.runtime("delete", "--force", w.name)
    run_.wait()


@world
def limits_without_a_cgroup_are_refused(w):
    w.bundle.resources["devices"] = [{"allow": False, "access": "rwm"}]
    w.run("true")
    w.bundle.resources["pids"] = {"limit": 10}
    w.fails("cannot set pids limit: container could not join or create cgroup"
            if cgroup_version() == 1 else
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups")
    w.bundle.linux["resources"] = {}
    w.bundle.linux["cgroupsPath"] = f"/{w.name}"
    w.fails("cgroup", "ermission denied")


@world
def a_delegated_cgroup_is_used(w):
    with delegated_cgroup(w.user, w.name + "d") as folders:
        w.bundle.linux["cgroupsPath"] = f"/{w.name}d/box"
        if cgroup_version() == 2:
            # The right to move there takes the right to write to the common parent.
            os.chown("/sys/fs/cgroup/cgroup.procs", w.user.uid, 0)
        w.bundle.resources["pids"] = {"limit": 20}
        w.bundle.script("sleep 100")
        try:
            with w.runtime.container(w.bundle, w.name):
                box = [folder / "box" for folder in folders]
                limits = [(path / "pids.max").read_text() for path in box
                          if (path / "pids.max").exists()]
                assert limits == ["20\n"], limits
                assert all((path / "cgroup.procs").read_text() for path in box), box
                w.runtime("pause", w.name)
                assert w.runtime.status(w.name) == "paused"
                w.runtime("resume", w.name)
                assert f"{w.name}d/box" in w.runtime("exec", w.name, "cat",
                                                     "/proc/1/cgroup").out or \
                    cgroup_version() == 2
                assert len(json.loads(w.runtime("ps", "-f", "json", w.name).out)) == 1
            assert not any(path.exists() for path in box)
        finally:
            if cgroup_version() == 2:
                os.chown("/sys/fs/cgroup/cgroup.procs", 0, 0)


@world
def a_cgroup_beside_the_callers_own(w):
    """Without linux.cgroupsPath, where the caller's parent cgroup is delegated (v2 alone)."""
    if cgroup_version() == 1:
        assert w.run("cat /proc/self/cgroup").out == open("/proc/self/cgroup").read()
        return
    out = w.run("cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs").lines
    assert out[0] == "0::/" and "1" in out, out  # its own view of the caller's
    with delegated_cgroup(w.user, w.name + "d") as (folder,):
        leaf = folder / "leaf"
        leaf.mkdir()
        os.chown(leaf, w.user.uid, w.user.uid)
        (folder.parent / "cgroup.subtree_control").write_text("+pids")
        w.bundle.resources["pids"] = {"limit": 20}
        w.bundle.script("sleep 100").write()
        argv = w.user.argv(w.runtime.path, "run", "-d", "-b", w.bundle.path, w.name)
        run("sh", "-c", f'echo $$ >{leaf}/cgroup.procs; exec "$@"', "sh", *argv, cwd=w.user.home)
        try:
            pid = w.runtime.state(w.name)["pid"]
            assert open(f"/proc/{pid}/cgroup").read() == f"0::/{w.name}d/{w.name}\n"
            assert (folder / w.name / "pids.max").read_text() == "20\n"
            w.runtime("pause", w.name)
            assert w.runtime.status(w.name) == "paused"
        finally:
            w.runtime("delete", "--force", w.name)
        assert not (folder / w.name).exists()
        leaf.rmdir()


@world
def what_an_ordinary_user_cannot_have_is_named(w):
    w.bundle.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [5]}
    w.fails("cannot set any additional groups in a rootless container")
    w.bundle.process["user"] = {"uid": 1, "gid": 0}
    w.fails("process.user.uid")
    w.bundle.process["user"] = {"uid": 0, "gid": 0}
    w.bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 1 << 24}]
    w.fails("process.rlimits[0]")
    w.bundle.process["rlimits"] = []
    w.bundle.namespace("user", remove=True)
    w.bundle.linux.pop("uidMappings"), w.bundle.linux.pop("gidMappings")
    w.fails("rootless container requires user namespaces")
    w.bundle.namespace("user").namespace("mount", remove=True)
    w.bundle.linux["uidMappings"] = w.bundle.linux["gidMappings"] = [
        {"containerID": 0, "hostID": w.user.uid, "size": 1}]
    w.fails("only root mounts in the host's mount namespace")


@world
def a_score_for_the_memory_killer(w):
    w.bundle.process["oomScoreAdj"] = 300
    assert w.run("cat /proc/self/oom_score_adj").out == "300\n"
    w.bundle.process["oomScoreAdj"] = -500
    own = open("/proc/self/oom_score_adj").read()
    assert w.run("cat /proc/self/oom_score_adj").out == own
    w.bundle.process["oomScoreAdj"] = 400
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        assert w.runtime("exec", w.name, "cat", "/proc/self/oom_score_adj").out == "400\n"


@world
def a_terminal_and_a_console_socket(w):
    w.bundle.process["terminal"] = True
    w.bundle.script("test -t 0 && test -t 1 && tty && sleep 100")
    socket = ConsoleSocket(w.user.runtime_folder)
    os.chown(socket.path, w.user.uid, w.user.uid)
    w.runtime("create", "-b", w.bundle.path, "--console-socket", socket.path, w.name)
    try:
        main_fd = socket.take()
        w.runtime("start", w.name)
        assert b"/dev/" in os.read(main_fd, 100)
        os.close(main_fd)
    finally:
        w.runtime("delete", "--force", w.name)


@world
def hooks_run_as_the_user(w):
    log = w.user.home / "hooks"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"(id -u; cat; echo) >>{log}"]}
    w.bundle.config["hooks"] = {kind: [hook] for kind in ("createRuntime", "poststart", "poststop")}
    w.run("sleep 0.2")
    lines = log.read_text().splitlines()
    states = [json.loads(line) for line in lines if line.startswith("{")]
    assert [line for line in lines if not line.startswith("{")] == [str(w.user.uid)] * 3, lines
    assert [state["status"] for state in states][1:] == ["running", "stopped"], states


@world
def descriptors_are_kept(w):
    (w.user.home / "note").write_text("kept\n")
    out = w.user.run("sh", "-c", f"exec 3<{w.user.home}/note; exec {w.runtime.path} run "
                     f"--preserve-fds 1 -b {w.bundle.script('cat <&3').path} {w.name}").out
    assert out == "kept\n", out


@world
def a_time_namespace_has_its_offsets(w):
    w.bundle.namespace("time")
    w.bundle.linux["timeOffsets"] = {"boottime": {"secs": 1337, "nanosecs": 7}}
    assert ["boottime", "1337", "7"] in [line.split() for line in
                                         w.run("cat /proc/self/timens_offsets").lines]


@world
def filters_need_no_privileges(w):
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}
    for no_new_privileges in (True, False):
        w.bundle.process["noNewPrivileges"] = no_new_privileges
        result = w.run("chmod 777 /tmp", code=1)
        assert "not supported" in result.err, result


@world
def a_network_of_its_own_and_its_parameters(w):
    w.bundle.namespace("network")
    w.bundle.linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80"}
    w.bundle.config["mounts"] = [mount for mount in w.bundle.config["mounts"]
                                 if not mount["destination"].startswith("/sys")]
    w.bundle.mount("/sys", "sysfs", "sysfs", ["ro", "nosuid", "noexec", "nodev"])
    out = w.run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net").out
    assert out.split() == ["80", "lo"], out


@world
def a_container_joins_the_namespaces_of_another(w):
    w.bundle.namespace("network").script("sleep 100")
    other = w.new_bundle("other")
    with w.runtime.container(w.bundle, w.name):
        pid = w.runtime.state(w.name)["pid"]
        for kind, file in (("user", "user"), ("network", "net"), ("ipc", "ipc"), ("pid", "pid")):
            other.namespace(kind, f"/proc/{pid}/ns/{file}")
        del other.linux["uidMappings"], other.linux["gidMappings"]
        other.script("readlink /proc/self/ns/user; readlink /proc/self/ns/net; ps; sleep 100")
        out = w.user.home / "out"
        with open(out, "wb") as file:
            second = w.runtime.start("run", "-b", other.path, w.name + "b", stdout=file,
                                     stdin=subprocess.DEVNULL)
        wait_for(lambda: "sleep 100" in out.read_text())
        text = out.read_text()
        assert os.readlink(f"/proc/{pid}/ns/user") in text, text
        assert os.readlink(f"/proc/{pid}/ns/net") in text, text
        assert w.runtime("exec", w.name + "b", "readlink", "/proc/self/ns/net").out in text
        w.runtime("delete", "--force", w.name + "b")
        second.wait()


# ---------------------------------------------------------------- more ids

@world
def more_ids_are_mapped_by_newuidmap(w):
    w.map_more()
    w.bundle.config["root"]["readonly"] = False
    w.bundle.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [5, 6]}
    w.bundle.all_capabilities("CAP_CHOWN")
    lines = w.run("cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -G; "
                  "touch /file; chown 1000:1001 /file").lines
    count, uid = str(w.user.count), str(w.user.uid)
    assert [line.split() for line in lines] == [
        ["0", uid, "1"], ["1", str(w.user.subuid), count],
        ["0", uid, "1"], ["1", str(w.user.subgid), count], ["allow"], ["0", "5", "6"]], lines
    status = os.stat(w.bundle.rootfs / "file")
    assert (status.st_uid, status.st_gid) == (w.user.subuid + 999, w.user.subgid + 1000), status


@world
def an_unprivileged_user_inside_and_exec(w):
    w.map_more()
    w.bundle.process["user"] = {"uid": 1000, "gid": 1001}
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        assert w.runtime("exec", w.name, "id").out.startswith("uid=1000(shop) gid=1001")
        assert w.runtime("exec", "-u", "0:0", "-g", "7", w.name, "id", "-G").out == "0 7\n"
        pids = json.loads(w.runtime("ps", "-f", "json", w.name).out)
        assert len(pids) == 1 and os.stat(f"/proc/{pids[0]}").st_uid == w.user.subuid + 999


@world
def sources_that_only_the_caller_may_read(w):
    """The container's root is another user than the caller."""
    for key, first in (("uidMappings", w.user.subuid), ("gidMappings", w.user.subgid)):
        w.bundle.linux[key] = [{"containerID": 0, "hostID": first, "size": 1000}]
    for path in [w.bundle.rootfs, *w.bundle.rootfs.rglob("*")]:
        os.lchown(path, w.user.subuid, w.user.subgid)
    source = w.user.home / "private" / "source"
    source.mkdir(parents=True)
    (source / "file").write_text("seen\n")
    w.user.own(source.parent)
    os.chmod(source.parent, 0o700)
    w.bundle.mount("/tmp", source, options=["bind"])
    assert w.run("cat /tmp/file").out == "seen\n"


@world
def mapping_that_is_not_allowed_is_named(w):
    w.map_more()
    w.bundle.linux["uidMappings"][1]["hostID"] = 5000000
    w.fails("linux.uidMappings", "newuidmap", "/etc/subuid", f"{w.user.uid}:5000000:65536")
    w.map_more()
    w.bundle.linux["gidMappings"][1]["hostID"] = 5000000
    w.fails("linux.gidMappings", "newgidmap", "/etc/subgid")
    w.map_more()
    # The usual place counts where PATH does not lead there; without the program it is named.
    w.run("true", environment={"PATH": "/nowhere"})
    run("mount", "--bind", "/dev/null", "/usr/bin/newgidmap")
    try:
        w.fails("newgidmap", "package uidmap", environment={"PATH": "/nowhere"})
    finally:
        run("umount", "/usr/bin/newgidmap")


# ---------------------------------------------------------------- root of a user namespace

@world
def root_of_a_user_namespace_needs_no_further_one(w):
    w.bundle.namespace("user", remove=True)
    del w.bundle.linux["uidMappings"], w.bundle.linux["gidMappings"]
    w.bundle.script("id -u; cat /proc/self/uid_map; echo >/dev/null").write()
    inside = ["unshare", "--user", "--map-root-user", "--mount", w.runtime.path]
    out = w.user.run(*inside, "run", "-b", w.bundle.path, w.name).out
    assert out.split() == ["0", "0", str(w.user.uid), "1"], out
    assert (w.user.runtime_folder / "cloche-runtime").is_dir()
    w.bundle.linux["resources"] = {"pids": {"limit": 10}}
    w.bundle.write()
    result = w.user.run(*inside, "run", "-b", w.bundle.path, w.name, code=1)
    assert "cgroup" in result.err, result


@world
def root_may_be_told_to_go_without(w):
    """--rootless=true: what would be an error for root is none."""
    rooted = Runtime(w.scratch)
    w.bundle.linux["cgroupsPath"] = ""
    w.bundle.script("cat /proc/self/cgroup").write()
    run("mount", "-t", "tmpfs", "none", "/sys/fs/cgroup")
    try:
        assert "cgroup" in rooted("run", "-b", w.bundle.path, w.name, code=1).err
        rooted("--rootless=true", "run", "-b", w.bundle.path, w.name)
        assert "cgroup" in rooted("--rootless=false", "run", "-b", w.bundle.path, w.name,
                                  code=1).err
    finally:
        run("umount", "/sys/fs/cgroup")
    assert "--rootless" in rooted("--rootless=maybe", "list", code=1).err


# ---------------------------------------------------------------- hostile users

@world
def state_of_others_is_not_trusted(w):
    """A user's state file would make root signal and remove what the user likes."""
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        rooted = Runtime(w.scratch)
        rooted.root = w.runtime.root
        for command in (("state",), ("kill",), ("delete", "--force"), ("exec",)):
            result = rooted(*command, w.name, *(["true"] if command == ("exec",) else []),
                            code=None)
            assert result.code and f"belongs to user {w.user.uid}" in result.err, result
        assert "belongs to user" in rooted("run", "-b", w.bundle.path, "other", code=1).err
        for mode, group in ((0o707, w.user.uid), (0o770, 50)):
            os.chown(w.runtime.root / w.name, w.user.uid, group)
            os.chmod(w.runtime.root / w.name, mode)
            assert "may be written to by others" in w.runtime("state", w.name, code=1).err
        os.chown(w.runtime.root / w.name, w.user.uid, w.user.uid)
        w.runtime("state", w.name)
        os.chmod(w.runtime.root / w.name, 0o700)
    # A folder of somebody else, and a link, in one of root's.
    rooted.root = w.scratch / "state"
    rooted("list")
    rooted.root.mkdir(exist_ok=True)
    (rooted.root / "theirs").mkdir()
    os.chown(rooted.root / "theirs", w.user.uid, w.user.uid)
    (rooted.root / "theirs" / "status").write_text("{}")
    assert f"belongs to user {w.user.uid}" in rooted("state", "theirs", code=1).err
    (rooted.root / "link").symlink_to(rooted.root / "theirs")
    assert "does not exist" in rooted("state", "link", code=1).err


@world
def bundles_of_others_do_not_hold_root_up(w):
    rooted = Runtime(w.scratch)
    os.unlink(w.bundle.path / "config.json")
    os.mkfifo(w.bundle.path / "config.json")
    os.chown(w.bundle.path / "config.json", w.user.uid, w.user.uid)
    result = rooted("run", "-b", w.bundle.path, w.name, code=1)
    assert "no regular file" in result.err and str(w.user.uid) in result.err, result
    # What the file holds is told to nobody.
    os.unlink(w.bundle.path / "config.json")
    (w.scratch / "shadow").write_text("root:$y$j9T$secret:19000:0:::::\n")
    (w.bundle.path / "config.json").symlink_to(w.scratch / "shadow")
    result = rooted("run", "-b", w.bundle.path, w.name, code=1)
    assert "secret" not in result.err + rooted.log.read_text(), result
    # The name of the pid file is replaced, not followed.
    target = w.scratch / "target"
    target.write_text("precious")
    os.unlink(w.bundle.path / "config.json")
    w.bundle.linux["cgroupsPath"] = f"/{w.name}"
    w.bundle.script("true")
    os.chown(w.bundle.path, w.user.uid, w.user.uid)
    (w.bundle.path / "pid").symlink_to(target)
    rooted("run", "-b", w.bundle.path, "--pid-file", w.bundle.path / "pid", w.name)
    assert target.read_text() == "precious" and not (w.bundle.path / "pid").is_symlink()


@world
def a_waiting_container_shows_nothing_of_the_host(w):
    """exec has to look at it, so that it is not opaque: but nothing is open there."""
    w.bundle.all_capabilities("CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE")
    w.bundle.process["noNewPrivileges"] = False
    w.bundle.write()
    with w.runtime.container(w.bundle.script("true"), w.name, start=False):
        out = w.runtime("exec", w.name, "sh", "-c", "for fd in /proc/1/fd/*; do "
                        "echo ${fd##*/} $(readlink $fd); done 2>&1", code=None).out
        others = [line for line in out.splitlines()
                  if line.split()[0] not in ("0", "1", "2") and "exec.fifo" not in line]
        assert not [line for line in others if "*" not in line and "denied" not in line], out


@world
def mounts_come_to_a_running_container(w):
    folder = w.user.home / "source"
    folder.mkdir()
    (folder / "file").write_text("own\n")
    w.user.own(folder)
    w.bundle.config["root"]["readonly"] = False
    w.bundle.script("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    text = json.dumps([{"destination": "/srv/data", "type": "bind", "source": str(folder),
                        "options": ["bind", "ro"]},
                       {"destination": "/srv/tmp", "type": "tmpfs", "source": "tmpfs"}])
    private = w.user.home / "private"
    (private / "x").mkdir(parents=True)
    private.chmod(0o700)
    with w.runtime.container(w.bundle, w.name):
        w.runtime("mounts", "add", w.name, "-", input=text)
        out = w.runtime("exec", w.name, "sh", "-c",
                        "cat /srv/data/file; touch /srv/data/x 2>&1; echo >/srv/tmp/made").out
        assert out.startswith("own\n") and "Read-only" in out, out
        # What only root may read is not reached through the container's rights either.
        result = w.runtime("mounts", "add", w.name, "-", code=1, input=json.dumps(
            [{"destination": "/srv/x", "type": "bind", "source": str(private / "x"),
              "options": ["bind"]}]))
        assert "ermission denied" in result.err, result.err
        w.runtime("mounts", "remove", w.name, "-", input=text)
        out = w.runtime("exec", w.name, "cat", "/proc/mounts").out
        assert "/srv" not in out, out


if __name__ == "__main__":
    main()
