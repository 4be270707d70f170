"""cloche-runtime, through its command line: everything that needs no other program than busybox.

Runs on the machine and in the guest (cgroup v2).
"""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from bundles import CGROUPS, Bundle, ConsoleSocket, cgroup_file, cgroup_version, world
from harness import main, run, wait_for

DEFAULT_DEVICES = {"null": "1, 3", "zero": "1, 5", "full": "1, 7", "random": "1, 8",
                   "urandom": "1, 9", "tty": "5, 0"}


def fields(text):
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


# ---------------------------------------------------------------- life

@world
def run_gives_output_and_exit_code(w):
    result = w.run("echo out; echo err >&2; exit 7", code=7)
    assert (result.out, result.err) == ("out\n", "err\n"), result
    assert w.runtime.names() == []


@world
def a_signal_is_128_and_its_number(w):
    # As init it has no default action for signals, so a child of it takes the blow.
    w.run("sh -c 'kill -9 $$'; exit $?", code=137)


@world
def create_start_state_kill_delete(w):
    w.bundle.config["annotations"] = {"org.example": "yes"}
    w.bundle.script("trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done")
    pid_file = w.scratch / "pid"
    with open(w.scratch / "out", "wb") as out:
        w.runtime.start("create", "-b", w.bundle.path, "--pid-file", pid_file, w.name,
                        stdout=out).wait()
    state = w.runtime.state(w.name)
    assert state["status"] == "created" and state["pid"] == int(pid_file.read_text())
    assert state["bundle"] == str(w.bundle.path) and state["rootfs"] == str(w.bundle.rootfs)
    assert state["annotations"] == {"org.example": "yes"} and state["id"] == w.name
    assert f'\n  "id": "{w.name}",\n' in w.runtime("state", w.name).out
    assert (w.scratch / "out").read_text() == ""
    w.runtime("start", w.name)
    wait_for(lambda: (w.scratch / "out").read_text() == "ready\n")
    assert w.runtime.status(w.name) == "running"
    assert "already running" in w.runtime("start", w.name, code=1).err
    assert "not stopped: running" in w.runtime("delete", w.name, code=1).err
    w.runtime("kill", w.name, "TERM")
    wait_for(lambda: w.runtime.status(w.name) == "stopped")
    assert w.runtime.state(w.name)["pid"] == 0
    assert "container not running" in w.runtime("kill", w.name, "TERM", code=1).err
    assert "stopped" in w.runtime("start", w.name, code=1).err
    w.runtime("delete", w.name)
    assert "container does not exist" in w.runtime("state", w.name, code=1).err
    assert "container does not exist" in w.runtime("delete", w.name, code=1).err
    w.runtime("delete", "--force", w.name)


@world
def a_created_container_can_be_deleted(w):
    w.runtime("create", "-b", w.bundle.script("true").path, w.name)
    pid = w.runtime.state(w.name)["pid"]
    w.runtime("delete", w.name)
    wait_for(lambda: not pathlib.Path(f"/proc/{pid}/exe").exists())
    assert w.runtime.names() == []


@world
def a_created_container_ends_by_the_signals_that_ask_for_it(w):
    """Though its init is the first of its pid namespace. In the program they are as always."""
    for name in ("HUP", "INT", "QUIT", "TERM"):
        with w.runtime.container(w.bundle.script("true"), w.name, start=False):
            w.runtime("kill", w.name, name)
            wait_for(lambda: w.runtime.status(w.name) == "stopped", what=name)
    with w.runtime.container(w.bundle.script("sleep 100; true"), w.name):
        pid = w.runtime.state(w.name)["pid"]
        # `start` comes back once the program is about to be executed, not when it has been.
        path = pathlib.Path(f"/proc/{pid}/status")
        status = wait_for(lambda: "cloche" not in (found := fields(path.read_text()))["Name"] and found)
        assert not int(status["SigCgt"], 16) & 0x4007 or "sh" in status["Name"], status
        w.runtime("kill", w.name, "TERM")
        assert w.runtime.status(w.name) == "running"


@world
def delete_takes_a_pattern(w):
    names = [f"{w.name}-{letter}" for letter in "abc"]
    for name in names:
        w.bundle.linux["cgroupsPath"] = f"/{w.name}/{name}"
        w.runtime("create", "-b", w.bundle.write().path, name)
    try:
        w.runtime("delete", "--regex", f"^{w.name}-[ab]$")
        assert w.runtime.names() == names[2:]
        assert "regular expression" in w.runtime("delete", "--regex", "[", code=1).err
    finally:
        w.runtime("delete", "--force", "--regex", w.name)
        for folder in [*CGROUPS.glob(f"*/{w.name}"), *CGROUPS.glob(w.name)]:
            folder.rmdir()


@world
def an_id_is_taken_once_and_checked(w):
    with w.runtime.container(w.bundle.script("sleep 100"), w.name):
        result = w.runtime("create", "-b", w.bundle.path, w.name, code=1)
        assert "container with id exists" in result.err
        assert w.runtime.status(w.name) == "running"
    for name in ("..", "a/b", "a b", "", ".hidden"):
        assert "invalid container ID" in w.runtime("create", "-b", w.bundle.path, name, code=1).err


@world
def detached_run_leaves_it_running(w):
    pid_file = w.scratch / "pid"
    w.bundle.script("sleep 100")
    w.runtime("run", "-d", f"--pid-file={pid_file}", f"--bundle={w.bundle.path}", w.name)
    try:
        assert w.runtime.status(w.name) == "running"
        lines = w.runtime("list", "--format=json").lines
        assert len(lines) == 1, lines
        listed = json.loads(lines[0])
        assert [entry["pid"] for entry in listed] == [int(pid_file.read_text())]
        table = w.runtime("list").lines
        assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        assert table[1].split()[:3] == [w.name, pid_file.read_text(), "running"]
    finally:
        w.runtime("delete", "-f", w.name)


@world
def keep_leaves_a_stopped_container(w):
    w.run("exit 5", code=5, options=["--keep"])
    assert w.runtime.status(w.name) == "stopped"
    w.runtime("delete", w.name)


@world
def foreground_run_passes_signals_on(w):
    w.bundle.script("trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.1; done")
    output = w.scratch / "out"
    with open(output, "wb") as out:
        process = w.runtime.start("run", "-b", w.bundle.path, w.name, stdout=out)
    wait_for(lambda: output.read_text() == "ready\n")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 9
    assert output.read_text() == "ready\ngot\n"


@world
def kill_all_reaches_every_process(w):
    w.bundle.namespace("pid", remove=True)
    w.bundle.script("sleep 1000 & sleep 1000 & wait")
    with w.runtime.container(w.bundle, w.name):
        wait_for(lambda: len(json.loads(w.runtime("ps", "-f", "json", w.name).out)) == 3)
        pids = json.loads(w.runtime("ps", "-f", "json", w.name).out)
        w.runtime("kill", "--all", w.name, "KILL")
        wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}/exe").exists() for pid in pids))


@world
def pause_and_resume(w):
    with w.runtime.container(w.bundle.script("while :; do sleep 0.01; done"), w.name):
        w.runtime("pause", w.name)
        assert w.runtime.status(w.name) == "paused"
        assert "paused" in w.runtime("exec", w.name, "true", code=255).err
        w.runtime("resume", w.name)
        assert w.runtime.status(w.name) == "running"
        w.runtime("pause", w.name)  # and delete --force ends a paused one


@world
def a_created_container_is_paused_and_resumed(w):
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name, start=False):
        w.runtime("pause", w.name)
        assert w.runtime.status(w.name) == "paused"
        assert "paused" in w.runtime("start", w.name, code=1).err
        w.runtime("resume", w.name)
        assert w.runtime.status(w.name) == "created"
        w.runtime("start", w.name)
        assert w.runtime.status(w.name) == "running"


@world
def ps_shows_the_processes(w):
    with w.runtime.container(w.bundle.script("sleep 7654 & wait"), w.name):
        wait_for(lambda: "sleep 7654" in w.runtime("ps", w.name).out)
        lines = w.runtime("ps", w.name).lines
        assert lines[0].split()[:2] == ["UID", "PID"] and len(lines) == 3, lines
        assert len(w.runtime("ps", w.name, "-eo", "pid,comm").lines) == 3


@world
def a_half_made_container_goes_by_force(w):
    (w.runtime.root / w.name).mkdir(parents=True)
    assert "half made" in w.runtime("state", w.name, code=1).err
    w.runtime("delete", "--force", w.name)
    assert not (w.runtime.root / w.name).exists()


@world
def a_newer_state_is_refused(w):
    with w.runtime.container(w.bundle.script("sleep 100"), w.name):
        file = w.runtime.root / w.name / "status"
        state = file.read_text()
        file.write_text(state.replace('"formatVersion":1', '"formatVersion":2'))
        assert "format version 2" in w.runtime("state", w.name, code=1).err
        file.write_text(state)


# ---------------------------------------------------------------- what is inside

@world
def the_bundle_of_runc_spec(w):
    w.bundle.script("id -u; id -g; hostname; pwd; echo $PATH; ls /proc/self/fd | wc -l; "
                    "touch /x 2>&1; ulimit -n")
    lines = w.run().lines
    assert lines[:4] == ["0", "0", "runc", "/"] and "/usr/local/sbin" in lines[4]
    assert lines[5] == "4" and "Read-only" in lines[6] and lines[7] == "1024"


@world
def devices_and_links_of_dev(w):
    out = w.run("ls -l /dev; cat /dev/null; echo x >/dev/null; head -c 4 /dev/zero | wc -c").out
    for name, numbers in DEFAULT_DEVICES.items():
        line = next(line for line in out.splitlines() if line.endswith(" " + name))
        assert line.startswith("crw-rw-rw-") and " ".join(line.split()[4:6]) == numbers, line
    for link in ("fd -> /proc/self/fd", "stdin -> /proc/self/fd/0", "ptmx -> pts/ptmx"):
        assert link in out, out


@world
def configured_devices(w):
    w.bundle.linux["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 12,
         "gid": 13},
        {"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600}]
    out = w.run("ls -ln /dev/mine /dev/sub/pipe").out
    assert out.splitlines()[0].split()[:6] == ["crw-r-----", "1", "12", "13", "1,", "3"], out
    assert out.splitlines()[1].startswith("prw-------"), out


@world
def what_is_in_the_place_of_a_device(w):
    """The same device stays, with the image's mode; anything else is an error. A default device may
    be listed again."""
    data = w.bundle.rootfs / "data"
    data.mkdir()
    os.mknod(data / "null", 0o20600, os.makedev(1, 3))
    w.bundle.linux["devices"] = [
        {"path": "/data/null", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]
    lines = w.run("ls -lLn /data/null /dev/tty /dev/ptmx").lines
    assert [line.split()[:6] for line in lines] == [
        ["crw-------", "1", "0", "0", "1,", "3"], ["crw-rw-rw-", "1", "0", "0", "5,", "2"],
        ["crw-rw-rw-", "1", "0", "0", "5,", "0"]], lines
    (data / "null").unlink()
    (data / "null").touch()
    w.fails("/data/null has incorrect ftype")
    (data / "null").unlink()
    os.mknod(data / "null", 0o20600, os.makedev(1, 5))
    w.fails("/data/null has incorrect major:minor: 1:5 doesn't match expected 1:3")


@world
def device_rules_hold(w):
    """10:229 (fuse) for reading only; 1:1 (mem) not at all; making nodes is allowed."""
    w.bundle.all_capabilities("CAP_MKNOD")
    w.bundle.config["root"]["readonly"] = False
    w.bundle.linux["devices"] = [{"path": "/dev/d1", "type": "c", "major": 1, "minor": 1},
                                 {"path": "/dev/d2", "type": "c", "major": 10, "minor": 229}]
    w.bundle.resources["devices"] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"}]
    out = w.run("for d in d1 d2; do for mode in '<' '>'; do "
                "( eval \": $mode/dev/$d\" ) 2>&1 | grep -q 'not permitted' && echo no $d $mode; "
                "done; done; mknod /made c 9 9 && echo made").out
    assert out == "no d1 <\nno d1 >\nno d2 >\nmade\n", out


@world
def masked_and_readonly_paths(w):
    w.bundle.linux["maskedPaths"] += ["/secret", "/folder", "/not/there"]
    w.bundle.linux["readonlyPaths"] += ["/kept"]
    w.bundle.config["root"]["readonly"] = False
    (w.bundle.rootfs / "secret").write_text("secret")
    for folder in ("folder", "kept"):
        (w.bundle.rootfs / folder).mkdir()
        (w.bundle.rootfs / folder / "file").write_text("content")
    out = w.run("cat /secret; ls /folder; cat /kept/file; touch /kept/x 2>&1; "
                "touch /folder/x 2>&1; echo 1 >/proc/sys/kernel/printk; cat /proc/keys").out
    assert out.startswith("content") and out.count("Read-only") == 2, out


@world
def mounts_of_all_kinds(w):
    source = w.scratch / "source"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("from outside\n")
    w.bundle.mount("/a/b", source)
    w.bundle.mount("/ro", source, options=["rbind", "ro", "nosuid", "nodev", "noexec"])
    w.bundle.mount("/etc/one", source / "file")
    w.bundle.mount("/tmpfs", "tmpfs", "tmpfs", ["size=64k", "mode=1777", "noatime"])
    w.bundle.config["root"]["readonly"] = False
    out = w.run("cat /a/b/file /etc/one; echo new >/a/b/new; touch /ro/x 2>&1; "
                "grep -E ' (/ro|/tmpfs|/a/b) ' /proc/mounts; ls -ld /tmpfs; "
                "head -c 100000 /dev/zero >/tmpfs/big; wc -c </tmpfs/big").out
    assert out.startswith("from outside\nfrom outside\n"), out
    assert (source / "new").read_text() == "new\n"
    assert "Read-only" in out and "65536" in out and "drwxrwxrwt" in out, out
    mounts = {line.split()[1]: line.split()[3].split(",") for line in out.splitlines()
              if line.split()[1:2] in (["/ro"], ["/tmpfs"], ["/a/b"])}
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mounts["/ro"]), mounts
    assert "rw" in mounts["/a/b"] and {"noatime", "size=64k"} <= set(mounts["/tmpfs"]), mounts


@world
def a_recursive_readonly_bind(w):
    source = w.scratch / "source"
    (source / "below").mkdir(parents=True)
    run("mount", "-t", "tmpfs", "tmpfs", source / "below")
    try:
        w.bundle.mount("/plain", source, options=["rbind", "ro"])
        w.bundle.mount("/strict", source, options=["rbind", "rro"])
        w.bundle.config["root"]["readonly"] = False
        out = w.run("for d in plain strict; do touch /$d/below/x 2>/dev/null && echo $d; done; true").out
        assert out == "plain\n", out
    finally:
        run("umount", source / "below")


@world
def names_in_another_case(w):
    """As Go reads them: a limit must not get lost in a spelling that other runtimes take."""
    w.bundle.resources["PIDS"] = {"Limit": 33}
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        assert cgroup_file(w.name, "pids", "pids.max") == "33"
        update = json.dumps({"Pids": {"limit": 34}})
        w.runtime("update", "-r", "-", w.name, input=update)
        assert cgroup_file(w.name, "pids", "pids.max") == "34"
    w.bundle.resources["pids"] = {"limit": 34}
    w.fails("duplicate key")
    del w.bundle.resources["PIDS"]
    w.bundle.resources["PIDS"] = {"limit": 33}  # nor behind it: readers would differ
    w.fails("duplicate key")
    w.bundle.resources["cpu"] = {"shares": 100}
    w.bundle.resources["CPU"] = {"Cpus": "0"}  # an object goes on
    del w.bundle.resources["PIDS"]
    with w.runtime.container(w.bundle.write(), w.name):
        if cgroup_version() == 1:
            assert cgroup_file(w.name, "cpu", "cpu.shares") == "100"
        assert cgroup_file(w.name, "cpuset", "cpuset.cpus") == "0"


@world
def propagation_into_the_container(w):
    source = w.scratch / "source"
    source.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", source)
    run("mount", "--make-shared", source)
    (source / "slave").mkdir()
    try:
        w.bundle.mount("/slave", source, options=["rbind", "rslave"])
        w.bundle.mount("/private", source, options=["rbind", "rprivate"])
        w.bundle.config["root"]["readonly"] = False
        w.bundle.script("sleep 100")
        with w.runtime.container(w.bundle, w.name):
            run("mount", "-t", "tmpfs", "late", source / "slave")
            out = w.runtime("exec", w.name, "cat", "/proc/mounts").out
            assert "late /slave/slave" in out and "/private/slave" not in out, out
            run("umount", source / "slave")
    finally:
        run("umount", source)


@world
def tmpcopyup_keeps_the_content(w):
    (w.bundle.rootfs / "data/deep").mkdir(parents=True)
    (w.bundle.rootfs / "data/deep/file").write_text("kept\n")
    os.chmod(w.bundle.rootfs / "data/deep", 0o711)
    os.symlink("deep/file", w.bundle.rootfs / "data/link")
    w.bundle.mount("/data", "tmpfs", "tmpfs", ["tmpcopyup", "rw", "nosuid"])
    out = w.run("cat /data/link; ls -ld /data/deep; echo changed >/data/deep/file").out
    assert out.startswith("kept\ndrwx--x--x"), out
    assert (w.bundle.rootfs / "data/deep/file").read_text() == "kept\n"


@world
def links_of_the_image_do_not_lead_out(w):
    outside = w.scratch / "outside"
    outside.mkdir()
    os.symlink(outside, w.bundle.rootfs / "link")
    os.symlink("../../../../../../../../" + str(outside), w.bundle.rootfs / "dots")
    source = w.scratch / "source"
    source.mkdir()
    w.bundle.config["root"]["readonly"] = False
    w.bundle.mount("/link/x", source).mount("/dots/y", source)
    w.bundle.linux["maskedPaths"] += ["/link/z"]
    w.run("true")
    assert list(outside.iterdir()) == []
    assert (w.bundle.rootfs / str(outside)[1:] / "x").is_dir()


@world
def proc_is_not_mounted_behind_a_link(w):
    w.bundle.rootfs.joinpath("proc").rmdir() if w.bundle.rootfs.joinpath("proc").exists() else None
    (w.bundle.rootfs / "other").mkdir()
    os.symlink("other", w.bundle.rootfs / "proc")
    w.fails("mounts[0]", "\"proc\" must be mounted on ordinary directory")


@world
def the_users_and_groups(w):
    w.bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 77], "umask": 0o027}
    (w.bundle.rootfs / "etc/passwd").write_text("me:x:1000:1001::/home/me:/bin/sh\n")
    w.bundle.process["cwd"] = "/work/dir"
    w.bundle.config["root"]["readonly"] = False
    w.bundle.script("grep -E '^(Uid|Gid|Groups)' /proc/self/status; umask; echo $HOME; pwd; "
                    "echo to-stdout >/dev/stdout")
    command = [w.runtime.path, "--root", w.runtime.root, "run", "-b", w.bundle.path, w.name]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert [line.split()[1:] for line in out[:3]] == [["1000"] * 4, ["1001"] * 4, ["5", "77"]], out
    assert out[3:] == ["0027", "/home/me", "/work/dir", "to-stdout"], out


@world
def the_capability_sets(w):
    w.bundle.process["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"], "effective": ["CAP_KILL"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_CHOWN", "CAP_KILL"]}
    w.bundle.process["user"] = {"uid": 1, "gid": 1}
    caps = fields(w.run("grep Cap /proc/self/status").out)
    assert {name: int(value, 16) for name, value in caps.items()} == {
        "CapInh": 0x21, "CapPrm": 0x21, "CapEff": 0x21, "CapBnd": 0x2021, "CapAmb": 0x21}, caps
    w.bundle.process["user"] = {"uid": 0, "gid": 0}
    w.bundle.process["capabilities"] = {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    caps = fields(w.run("grep Cap /proc/self/status").out)
    assert int(caps["CapBnd"], 16) == 0x20 and int(caps["CapInh"], 16) == 0, caps


@world
def ambient_capabilities_that_are_not_inheritable_are_left_out_with_a_warning(w):
    w.bundle.process["capabilities"].update(inheritable=["CAP_KILL"],
                                            ambient=["CAP_KILL", "CAP_CHOWN"])
    caps = fields(w.run("grep Cap /proc/self/status").out)
    assert int(caps["CapAmb"], 16) == 0x20, caps
    text = w.runtime.log.read_text()
    assert "level=warning msg=\"can't raise ambient capability CAP_CHOWN: " in text, text
    assert "CAP_KILL" not in text


@world
def without_capabilities_there_are_none(w):
    del w.bundle.process["capabilities"]
    caps = fields(w.run("grep Cap /proc/self/status").out)
    assert all(int(value, 16) == 0 for value in caps.values()), caps


@world
def an_executed_process_has_no_more_capabilities_than_the_container(w):
    w.bundle.all_capabilities("CAP_KILL", "CAP_CHOWN")
    process = w.scratch / "process.json"
    process.write_text(json.dumps({"cwd": "/", "env": ["PATH=/bin"],
                                   "args": ["grep", "Cap", "/proc/self/status"]}))
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        caps = fields(w.runtime("exec", "--process", process, w.name).out)
    assert {int(caps[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0x21}, caps


@world
def an_unknown_capability_is_a_warning(w):
    w.bundle.process["capabilities"]["bounding"].append("CAP_FUTURE")
    assert w.run("echo ran").out == "ran\n"
    log = w.runtime.log.read_text()
    assert "CAP_FUTURE" in log and "level=warning" in log, log


@world
def limits_oom_score_and_privileges(w):
    w.bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 200, "soft": 100},
                                   {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]
    w.bundle.process["oomScoreAdj"] = 321
    out = w.run("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; "
                "grep NoNewPrivs /proc/self/status").lines
    assert out[:4] == ["100", "200", "0", "321"] and out[4].split()[1] == "1", out


@world
def sysctl_names_and_hostname(w):
    w.bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321",
                                "net/ipv4/conf/lo/rp_filter": "2"}
    w.bundle.config["hostname"] = "inside"
    w.bundle.config["domainname"] = "example.org"
    before = pathlib.Path("/proc/sys/kernel/msgmax").read_text()
    out = w.run("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax "
                "/proc/sys/net/ipv4/conf/lo/rp_filter /proc/sys/kernel/domainname; hostname; "
                "ip addr show lo").out
    assert out.startswith("1\n4321\n2\nexample.org\ninside\n") and "127.0.0.1" in out, out
    assert pathlib.Path("/proc/sys/kernel/msgmax").read_text() == before


@world
def sysctl_of_the_host_is_refused(w):
    w.bundle.linux["sysctl"] = {"kernel.panic": "1"}
    w.fails("linux.sysctl: 'kernel.panic'")
    w.bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    w.bundle.namespace("network", remove=True)
    w.fails("linux.sysctl: 'net.ipv4.ip_forward' is not allowed in the host's namespace")
    # Nor by its path.
    w.bundle.namespace("network", "/proc/self/ns/net")
    w.fails("linux.sysctl: 'net.ipv4.ip_forward' is not allowed in the host's namespace")


@world
def sysctls_of_a_user_namespace(w):
    w.bundle.linux["sysctl"] = {"user.max_inotify_instances": "77"}
    w.fails("linux.sysctl: 'user.max_inotify_instances' is not allowed in the host's namespace",
            script="true")
    w.bundle.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        w.bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert w.run("cat /proc/sys/user/max_inotify_instances").out == "77\n"


@world
def sysctl_names_do_not_lead_out(w):
    """CVE-2022-0811 and its like: what is checked is what is written. The first two passed the check
    and changed the host before is_plain() was there."""
    delay = pathlib.Path("/proc/sys/kernel/printk_delay").read_text().strip()
    for name in ("net/../kernel/printk_delay", "net.//.kernel.printk_delay",
                 "net/ipv4/../../kernel/printk_delay", "net/..//kernel/printk_delay",
                 "/net/ipv4/ip_forward", ".net.ipv4.ip_forward", "net//ipv4", "net.", "net/./x",
                 "fs/mqueue/../../kernel/printk_delay", ""):
        w.bundle.linux["sysctl"] = {name: delay}
        w.fails(f"linux.sysctl: '{name}' contains an invalid path", script="true")
    for name in ("kernel.shm_rmid_forced=1+kernel.printk_delay", "kernel.shmmax\nkernel.printk_delay",
                 "kernel/printk_delay", "kernel.printk_delay"):
        w.bundle.linux["sysctl"] = {name: delay}
        w.fails("is not in a separate kernel namespace", script="true")
    for name in ("net.ipv4.ip_forward=1+net.ipv4.ip_default_ttl", "net.ipv4.ip_forward\n"):
        w.bundle.linux["sysctl"] = {name: "1"}
        w.fails("linux.sysctl: open", script="true")
    w.bundle.linux["sysctl"] = {"net.ipv4.ip_forward": ""}
    w.fails("linux.sysctl: 'net.ipv4.ip_forward' has no value", script="true")


@world
def the_domain_name_is_one(w):
    w.bundle.config["domainname"] = "example"
    w.bundle.linux["sysctl"] = {"kernel.domainname": "example"}
    assert w.run("cat /proc/sys/kernel/domainname").out == "example\n"
    w.bundle.linux["sysctl"] = {"kernel/domainname": "other"}
    w.fails("conflicts with the field domainname", script="true")
    w.bundle.linux["sysctl"] = {"kernel.hostname": "other"}
    w.fails("conflicts with the field hostname", script="true")


@world
def namespaces_are_new_or_the_hosts(w):
    # Ours by number; the guest's init and the test share them.
    def own(kind):
        return os.readlink(f"/proc/self/ns/{kind}")
    w.bundle.namespace("cgroup").namespace("time").namespace("ipc", remove=True)
    seen = dict(line.split() for line in w.run(
        "for n in pid net ipc uts mnt cgroup time user; do "
        "echo $n $(readlink /proc/self/ns/$n); done").lines)
    for kind in ("pid", "net", "uts", "mnt", "cgroup", "time"):
        assert seen[kind] != own(kind), (kind, seen)
    for kind in ("ipc", "user"):
        assert seen[kind] == own(kind), (kind, seen)


@world
def time_offsets(w):
    w.bundle.namespace("time")
    w.bundle.linux["timeOffsets"] = {"boottime": {"secs": 864000}}
    uptime = float(w.run("cat /proc/uptime").out.split()[0])
    assert uptime > 864000, uptime


@world
def namespaces_are_joined_by_path(w):
    w.bundle.script("sleep 100")
    other = Bundle(w.scratch / "other", w.images, w.name + "b")
    with w.runtime.container(w.bundle, w.name):
        pid = w.runtime.state(w.name)["pid"]
        kinds = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
        for kind, file in kinds.items():
            other.namespace(kind, f"/proc/{pid}/ns/{file}")
        del other.config["hostname"]
        other.script("for n in net ipc uts pid; do echo $n $(readlink /proc/self/ns/$n); done; "
                     "hostname; ps | grep -c 'sleep 100'")
        lines = w.runtime("run", "-b", other.path, w.name + "b").lines
        seen = dict(line.split() for line in lines[:4])
        for file in kinds.values():
            assert seen[file] == os.readlink(f"/proc/{pid}/ns/{file}"), seen
        assert lines[4] == "runc" and int(lines[5]) >= 1, lines
        other.namespace("network", f"/proc/{pid}/ns/ipc").script("true")
        result = w.runtime("run", "-b", other.path, w.name + "b", code=1)
        assert "linux.namespaces" in result.err and "another type" in result.err, result


# ---------------------------------------------------------------- user namespaces

def map_users(bundle, base=100000):
    mapping = [{"containerID": 0, "hostID": base, "size": 65536}]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = mapping
    for path in [bundle.rootfs, *bundle.rootfs.rglob("*")]:
        os.lchown(path, base, base)
    return bundle.namespace("user")


@world
def a_user_namespace(w):
    map_users(w.bundle)
    os.chmod(w.scratch, 0o700)  # the container's root has no rights on the way to its root
    source = w.scratch / "source"
    source.mkdir()
    (source / "file").write_text("bound\n")
    w.bundle.mount("/bound", source, options=["rbind", "ro"])
    w.bundle.config["root"]["readonly"] = False
    w.bundle.process["oomScoreAdj"] = 100
    out = w.run("cat /proc/self/uid_map; id -u; cat /bound/file; echo >/dev/null && touch /x; "
                "ls -ln / | grep x$; grep CapEff /proc/self/status; hostname").lines
    assert out[0].split() == ["0", "100000", "65536"] and out[1:3] == ["0", "bound"], out
    assert (w.bundle.rootfs / "x").stat().st_uid == 100000
    assert out[-1] == "runc", out


@world
def exec_into_a_user_namespace(w):
    map_users(w.bundle).script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        out = w.runtime("exec", w.name, "cat", "/proc/self/uid_map").out
        assert out.split() == ["0", "100000", "65536"], out


@world
def a_user_namespace_with_a_joined_network(w):
    """As an engine prepares it: the network namespace belongs to the host."""
    target = w.scratch / "netns"
    target.touch()
    run("unshare", f"--net={target}", "true")
    try:
        map_users(w.bundle).namespace("network", target)
        # sysfs belongs to whoever owns the network namespace.
        w.bundle.config["mounts"] = [mount for mount in w.bundle.config["mounts"]
                                     if not mount["destination"].startswith("/sys")]
        seen = w.run("readlink /proc/self/ns/net; cat /proc/self/uid_map").lines
        assert seen[0].startswith("net:[") and seen[1].split()[1] == "100000", seen
    finally:
        run("umount", target)


@world
def a_user_namespace_is_joined(w):
    map_users(w.bundle).script("sleep 100")
    other = Bundle(w.scratch / "other", w.images, w.name + "b")
    for path in [other.rootfs, *other.rootfs.rglob("*")]:
        os.lchown(path, 100000, 100000)
    with w.runtime.container(w.bundle, w.name):
        pid = w.runtime.state(w.name)["pid"]
        other.namespace("user", f"/proc/{pid}/ns/user")
        other.namespace("network", f"/proc/{pid}/ns/net")
        other.script("cat /proc/self/uid_map; readlink /proc/self/ns/user; cat /proc/self/cgroup")
        out = w.runtime("run", "-b", other.path, w.name + "b").out
        assert out.split()[:3] == ["0", "100000", "65536"], out
        assert os.readlink(f"/proc/{pid}/ns/user") in out and w.name + "b" in out, out


# ---------------------------------------------------------------- cgroups

@world
def the_limits_of_a_cgroup(w):
    w.bundle.resources.update({
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 33}})
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        if cgroup_version() == 2:
            wanted = {("memory", "memory.max"): str(64 << 20),
                      ("memory", "memory.low"): str(32 << 20), ("cpu", "cpu.weight"): "59",
                      ("cpu", "cpu.max"): "50000 100000", ("cpuset", "cpuset.cpus"): "0",
                      ("pids", "pids.max"): "33"}
        else:
            wanted = {("memory", "memory.limit_in_bytes"): str(64 << 20),
                      ("memory", "memory.soft_limit_in_bytes"): str(32 << 20),
                      ("cpu", "cpu.shares"): "512", ("cpu", "cpu.cfs_quota_us"): "50000",
                      ("cpu", "cpu.cfs_period_us"): "100000", ("cpuset", "cpuset.cpus"): "0",
                      ("pids", "pids.max"): "33"}
        for (controller, file), value in wanted.items():
            assert cgroup_file(w.name, controller, file) == value, (file, value)


@world
def processes_above_the_limit_do_not_start(w):
    w.bundle.resources["pids"] = {"limit": 4}
    out = w.run("for i in 1 2 3 4 5 6; do sleep 100 & done 2>&1; wait", code=2).out
    assert "fork" in out, out


@world
def memory_above_the_limit_is_killed(w):
    w.bundle.resources["memory"] = {"limit": 16 << 20}
    if cgroup_version() == 2:
        w.bundle.resources["memory"]["swap"] = 16 << 20
    w.run("tail /dev/zero; exit $?", code=137)


@world
def cgroup_namespace_and_mount(w):
    w.bundle.namespace("cgroup")
    if not any(mount["type"] == "cgroup" for mount in w.bundle.config["mounts"]):
        w.bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", "nosuid", "nodev", "noexec"])
    out = w.run("cat /proc/self/cgroup; ls /sys/fs/cgroup; "
                "cat /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null; "
                "mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x 2>&1; true").out
    assert w.name not in out and "1\n" in out and "Read-only" in out, out


@world
def cgroups_below_the_container_are_removed_with_it(w):
    w.bundle.script("sleep 100")
    parent = w.name + "/group"
    w.bundle.linux["cgroupsPath"] = f"/{parent}"
    with w.runtime.container(w.bundle, w.name):
        for folder in ([CGROUPS / parent] if cgroup_version() == 2 else
                       [CGROUPS / "pids" / parent, CGROUPS / "memory" / parent]):
            (folder / "below/deeper").mkdir(parents=True)
    assert not list(CGROUPS.glob(f"*/{w.name}")) and not (CGROUPS / w.name).exists()


@world
def a_cgroup_of_others_is_left_alone(w):
    folder = CGROUPS / w.name if cgroup_version() == 2 else CGROUPS / "pids" / w.name
    folder.mkdir()
    child = subprocess.Popen(["sleep", "100"])
    try:
        (folder / "cgroup.procs").write_text(str(child.pid))
        result = w.run("true", code=1)
        assert "container's cgroup is not empty: 1 process" in result.err, result
        assert child.poll() is None and folder.exists()
    finally:
        child.kill()
        child.wait()
        wait_for(lambda: not (folder / "cgroup.procs").read_text())
        folder.rmdir()
    assert not list(CGROUPS.glob(f"*/{w.name}"))


@world
def a_frozen_cgroup_is_refused(w):
    freezer = CGROUPS if cgroup_version() == 2 else CGROUPS / "freezer"
    folder = freezer / w.name
    folder.mkdir()
    try:
        if cgroup_version() == 2:
            (folder / "cgroup.freeze").write_text("1")
        else:
            (folder / "freezer.state").write_text("FROZEN")
        w.bundle.script("true")
        result = w.runtime("run", "-b", w.bundle.path, w.name, code=1)
        assert "container's cgroup unexpectedly frozen" in result.err, result
        assert w.runtime.names() == []
    finally:
        folder.rmdir()


@world
def without_a_path_the_cgroup_has_the_containers_name(w):
    del w.bundle.linux["cgroupsPath"]
    w.bundle.namespace("cgroup", remove=True)
    assert f"/{w.name}" in w.run("cat /proc/self/cgroup").out


@world
def limits_that_cannot_be_are_refused_by_name(w):
    w.bundle.resources["memory"] = {"swappiness": 101}
    w.fails("linux.resources.memory.swappiness")
    w.bundle.resources["memory"] = {}
    w.bundle.resources["hugepageLimits"] = [{"pageSize": "3MB", "limit": 0}]
    w.fails("linux.resources.hugepageLimits")
    del w.bundle.resources["hugepageLimits"]
    w.bundle.linux["cgroupsPath"] = "/a/../../b"
    w.fails("linux.cgroupsPath")


# ---------------------------------------------------------------- seccomp

def filter_of(default, *rules):
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
            if os.uname().machine == "x86_64" else [], "syscalls": list(rules)}


@world
def a_filter_with_errno_and_arguments(w):
    w.bundle.linux["seccomp"] = filter_of(
        "SCMP_ACT_ALLOW",
        {"names": ["mkdir", "mkdirat", "not_a_system_call"], "action": "SCMP_ACT_ERRNO",
         "errnoRet": 28},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]})
    w.bundle.mount("/tmp", "tmpfs", "tmpfs", [])
    out = w.run("mkdir /tmp/x 2>&1; kill -10 $$ 2>&1; kill -0 $$ && echo zero; "
                "grep Seccomp: /proc/self/status").out
    assert "No space left" in out and "zero\n" in out and out.split()[-1] == "2", out
    assert "not permitted" in out, out


@world
def a_filter_without_no_new_privileges(w):
    w.bundle.process["noNewPrivileges"] = False
    w.bundle.process["user"] = {"uid": 1000, "gid": 1000}
    w.bundle.linux["seccomp"] = filter_of(
        "SCMP_ACT_ALLOW", {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"})
    out = w.run("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status").lines
    assert [line.split()[1] for line in out] == ["0", "2"], out


@world
def a_filter_that_allows_almost_nothing(w):
    """Our own system calls on the way are not the container's matter."""
    w.bundle.linux["seccomp"] = filter_of(
        "SCMP_ACT_ERRNO", {"names": [
            "execve", "brk", "arch_prctl", "mmap", "mprotect", "munmap", "write", "exit_group",
            "exit", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlink",
            "readlinkat", "getrandom", "uname", "newfstatat", "fstat", "prctl", "capset", "ioctl",
            "getuid"],
            "action": "SCMP_ACT_ALLOW"})
    w.bundle.args("/bin/echo", "hello")
    assert w.run().out == "hello\n"


@world
def filters_that_cannot_be_are_refused_by_name(w):
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW",
                                 "architectures": ["SCMP_ARCH_PDP11"]}
    w.fails("linux.seccomp: architectures[0]: 'SCMP_ARCH_PDP11'")


# ---------------------------------------------------------------- terminals

@world
def a_terminal_over_the_console_socket(w):
    w.bundle.process["terminal"] = True
    w.bundle.process["consoleSize"] = {"height": 33, "width": 99}
    w.bundle.script("tty; stty size; ls -l /dev/console; read line; echo got $line; exit 4")
    console = ConsoleSocket(w.scratch)
    w.runtime("create", "-b", w.bundle.path, "--console-socket", console.path, w.name)
    main_fd = console.take()
    try:
        w.runtime("start", w.name)
        os.write(main_fd, b"hello\n")
        seen = b""
        while b"got hello" not in seen:
            seen += os.read(main_fd, 4096)
        assert b"/dev/pts/0" in seen and b"33 99" in seen and b"crw" in seen, seen
        wait_for(lambda: w.runtime.status(w.name) == "stopped")
    finally:
        os.close(main_fd)
        w.runtime("delete", "-f", w.name)


@world
def a_terminal_in_the_foreground(w):
    from terminal import Terminal
    w.bundle.process["terminal"] = True
    w.bundle.script("stty size; read line; echo got $line; exit 6")
    with Terminal([w.runtime.path, "--root", str(w.runtime.root), "run", "-b", str(w.bundle.path),
                   w.name], dict(os.environ), rows=31, columns=77) as terminal:
        terminal.expect("31 77")
        terminal.send("word\n")
        terminal.expect("got word")
        assert terminal.wait() == 6


@world
def terminals_that_cannot_be(w):
    w.bundle.process["terminal"] = True
    w.bundle.script("true")
    result = w.runtime("create", "-b", w.bundle.path, w.name, code=1)
    assert "console socket" in result.err
    w.bundle.config["mounts"] = [mount for mount in w.bundle.config["mounts"]
                                 if mount["destination"] != "/dev/pts"]
    w.fails("/dev/pts/ptmx")


# ---------------------------------------------------------------- exec

@world
def exec_joins_everything(w):
    w.bundle.script("sleep 100")
    w.bundle.namespace("cgroup").namespace("time")
    with w.runtime.container(w.bundle, w.name):
        pid = w.runtime.state(w.name)["pid"]
        out = w.runtime("exec", w.name, "sh", "-c",
                        "for n in pid net ipc uts mnt cgroup time; do "
                        "readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; "
                        "grep -E 'Cap(Eff|Bnd)|NoNew' /proc/self/status").out
        lines = out.splitlines()
        for line, kind in zip(lines, ("pid", "net", "ipc", "uts", "mnt", "cgroup", "time")):
            assert line == os.readlink(f"/proc/{pid}/ns/{kind}"), (kind, out)
        assert w.name not in out and "0000000020000420" in out, out
        assert w.runtime("exec", w.name, "sh", "-c", "exit 12", code=12)
        assert w.runtime("exec", w.name, "sh", "-c", "kill -9 $$", code=137)


@world
def exec_options(w):
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        out = w.runtime("exec", "--user", "12:34", "-g", "55", "--cwd", "/bin", "-e", "A=1",
                        "--env=B=2", "--cap", "CAP_CHOWN", w.name, "sh", "-c",
                        "id -u; id -g; id -G; pwd; echo $A$B; grep CapBnd /proc/self/status").lines
        assert out[:2] == ["12", "34"] and "55" in out[2].split() and out[3:5] == ["/bin", "12"]
        assert int(out[5].split()[1], 16) == 0x20000421, out
        spec = {"args": ["sh", "-c", "echo from-file; id -u"], "cwd": "/", "user": {"uid": 9},
                "env": ["PATH=/bin"]}
        (w.scratch / "process.json").write_text(json.dumps(spec))
        out = w.runtime("exec", "-p", w.scratch / "process.json", w.name).lines
        assert out == ["from-file", "9"], out
        pid_file = w.scratch / "pid"
        w.runtime("exec", "-d", "--pid-file", pid_file, w.name, "sleep", "55")
        line = pathlib.Path(f"/proc/{pid_file.read_text()}/cmdline")
        wait_for(lambda: line.read_text() == "sleep\x0055\x00")


@world
def exec_with_a_terminal(w):
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        console = ConsoleSocket(w.scratch)
        w.runtime("exec", "-d", "-t", "--console-socket", console.path, w.name, "sh", "-c",
                  "tty; sleep 5")
        main_fd = console.take()
        assert b"/dev/pts/0" in os.read(main_fd, 100)
        os.close(main_fd)


@world
def exec_failures(w):
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        for args, text in ((["nothing"], 'exec: "nothing": executable file not found in $PATH'),
                           (["/no/file"], "no such file or directory"),
                           (["/etc"], "is a directory"),
                           (["--user", "1000", "/etc/shadow-like"], "permission denied")):
            if "shadow" in args[-1]:
                (w.bundle.rootfs / "etc/shadow-like").write_text("")
            option, command = args[:-1], args[-1]
            result = w.runtime("exec", *option, w.name, command, code=255)
            assert text in result.err, result
        w.runtime("kill", w.name, "KILL")
        wait_for(lambda: w.runtime.status(w.name) == "stopped")
        assert "stopped container" in w.runtime("exec", w.name, "true", code=255).err
    assert "does not exist" in w.runtime("exec", w.name, "true", code=255).err


@world
def no_descriptor_of_ours_gets_in(w):
    """CVE-2024-21626."""
    w.bundle.script("sleep 100")
    probe = "for f in /proc/self/fd/*; do readlink $f; done; true"
    with w.runtime.container(w.bundle, w.name):
        out = w.runtime("exec", w.name, "sh", "-c", probe).lines
    assert all(str(w.runtime.root) not in line and "cgroup" not in line for line in out), out
    assert len(out) <= 4, out
    w.bundle.process["cwd"] = "/proc/self/fd/7"
    w.fails("process.cwd")


@world
def the_program_cannot_be_overwritten_from_inside(w):
    """CVE-2019-5736: what /proc/PID/exe of our process leads to stays read-only for ever."""
    copy = w.scratch / "copy"
    shutil.copy(w.runtime.path, copy)
    w.runtime.path = str(copy)
    w.bundle.script("true")
    with w.runtime.container(w.bundle, w.name, start=False):
        pid = w.runtime.state(w.name)["pid"]
        link = os.open(f"/proc/{pid}/exe", os.O_PATH)
        mapped = pathlib.Path(f"/proc/{pid}/map_files")
        for part in mapped.iterdir():
            if os.stat(part).st_ino == copy.stat().st_ino:
                assert os.statvfs(part).f_flag & os.ST_RDONLY, part
    try:
        wait_for(lambda: not pathlib.Path(f"/proc/{pid}/exe").exists())
        try:
            os.close(os.open(f"/proc/self/fd/{link}", os.O_WRONLY))
            raise AssertionError("opened for writing")
        except OSError as error:
            assert error.errno in (errno.EROFS, errno.EPERM), error
    finally:
        os.close(link)


@world
def preserved_descriptors(w):
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)
    w.bundle.script("echo through >&3")
    command = [w.runtime.path, "--root", str(w.runtime.root), "run", "--preserve-fds", "1", "-b",
               str(w.bundle.path), w.name]
    assert subprocess.run(["sh", "-c", f'exec "$@" 3>&{write_fd}', "sh", *command],
                          pass_fds=[write_fd], check=False).returncode == 0
    assert os.read(read_fd, 100) == b"through\n"
    os.close(read_fd), os.close(write_fd)
    # What the caller has not open (3 is the log's then) the program has not: nothing of ours takes the place. The shell's
    # glob is one more while it looks.
    result = w.run("ls -l /proc/$$/fd | tail -n +2 | sed 's/.*[0-9] //; s/.*-> //'; echo /proc/$$/fd/*",
                   options=["--preserve-fds", "90"])
    assert "--preserve-fds: descriptor 3 is not open" in w.runtime.log.read_text()
    numbers = [int(word.rsplit("/", 1)[1]) for word in result.lines[-1].split()]
    assert [n for n in numbers if n > 2] in ([], [3], [10]), result
    # More than there can be: what we open ourselves still finds a place.
    limited = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", w.runtime.path, "--root",
               str(w.runtime.root), "--log", str(w.runtime.log), "run", "--preserve-fds", "60000",
               "-b", str(w.bundle.script("echo $(ls /proc/self/fd)").path), w.name]
    assert subprocess.run(limited, check=True, capture_output=True, text=True).stdout == "0 1 2 3\n"


# ---------------------------------------------------------------- failures

@world
def programs_that_cannot_be_executed(w):
    for args, text in ((["nothing"], 'exec: "nothing": executable file not found in $PATH'),
                       (["/not/there"], 'exec: "/not/there": stat /not/there: '
                                        'no such file or directory'),
                       (["/etc"], "is a directory"), (["/etc/plain"], "permission denied")):
        (w.bundle.rootfs / "etc/plain").write_text("")
        w.bundle.args(*args)
        result = w.runtime("run", "-b", w.bundle.path, w.name, code=1)
        assert text in result.err, result
        result = w.runtime("create", "-b", w.bundle.path, w.name, code=1)
        assert text in result.err and w.runtime.names() == [], result
    broken = w.bundle.rootfs / "etc/plain"
    broken.write_text("\x7fELF nonsense")
    broken.chmod(0o755)
    w.bundle.args("/etc/plain")
    assert "xec format error" in w.runtime("run", "-b", w.bundle.path, w.name, code=1).err
    assert w.runtime.names() == []


@world
def refused_fields_are_named(w):
    def refused(change, *words):
        config = json.loads(json.dumps(w.bundle.config))
        change(w.bundle.config)
        w.fails(*words)
        w.bundle.config = config
    if not pathlib.Path("/sys/fs/resctrl/tasks").exists():
        refused(lambda c: c["linux"].update(intelRdt={"closID": "x"}),
                "linux.intelRdt: Intel RDT is not supported", "/sys/fs/resctrl")
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW"}
    call = {"names": ["mkdir"], "action": "SCMP_ACT_LOG", "errnoRet": 1}
    for part, words in (({"defaultErrnoRet": 1}, "errno value specified for action SCMP_ACT_ALLOW"),
                        ({"syscalls": [call]}, "syscalls[0]")):
        refused(lambda c: c["linux"].update(seccomp=seccomp | part), words)
    for part, words in (({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}},
                         "weightDevice[0]: needs weight or leafWeight"),
                        ({"rdma": {"mlx": {}}}, "rdma.mlx: needs hcaHandles or hcaObjects")):
        refused(lambda c: c["linux"].setdefault("resources", {}).update(part), words)
    for name in ("..", "a/b", "../../cgroup"):
        refused(lambda c: c["linux"].update(intelRdt={"closID": name}), "linux.intelRdt.closID")
    for schema in ("L3:0=f", "MB:0=10\nMB:0=20"):
        refused(lambda c: c["linux"].update(intelRdt={"memBwSchema": schema}),
                "linux.intelRdt.memBwSchema")
    refused(lambda c: c["linux"].update(intelRdt={"schemata": ["L3:0=f\nMB:0=10"]}),
            "linux.intelRdt.schemata[0]")
    refused(lambda c: c["process"].update(apparmorProfile="p"), "process.apparmorProfile")
    refused(lambda c: c["process"].update(selinuxLabel="l"), "process.selinuxLabel")
    refused(lambda c: c.update(windows={}), "windows is not supported")
    refused(lambda c: c["mounts"][0].update(options=["idmap"]), "mounts[0]", "id-mapped mounts")
    refused(lambda c: c["mounts"].append({"destination": "/x", "type": "nofs", "source": "x"}),
            "mounts[", "no file system 'nofs'")
    refused(lambda c: c["mounts"].append({"destination": "/dev/shm", "type": "tmpfs",
                                          "source": "x", "options": ["bogus=1"]}), "bogus=1")
    refused(lambda c: c["mounts"].append({"destination": "/x", "type": "bind", "options": ["bind"],
                                          "source": "/not/there"}), "/not/there")
    refused(lambda c: c["linux"]["namespaces"].append({"type": "pid"}), "there twice")
    refused(lambda c: c["linux"].update(uidMappings=[
        {"containerID": 0, "hostID": 0, "size": 1}]), "linux.uidMappings")
    refused(lambda c: c["process"].update(rlimits=[
        {"type": "RLIMIT_X", "hard": 1, "soft": 1}]), "process.rlimits[0].type")
    refused(lambda c: c["process"].update(args=[]), "process.args")
    refused(lambda c: c["process"].update(cwd="relative"), "process.cwd")
    for field in ("uid", "gid"):  # the kernel's "unchanged": the program would be root
        refused(lambda c, field=field: c["process"]["user"].update({field: 2 ** 32 - 1}),
                f"process.user.{field}: 4294967295")
    refused(lambda c: c["root"].update(path="nowhere"), "root.path")
    refused(lambda c: c["root"].update(path=""), "root.path: must not be empty")
    refused(lambda c: c.update(hooks={"poststop": [{"path": "relative"}]}), "hooks.poststop[0].path")
    refused(lambda c: c.update(hooks={"poststart": [{"path": "/bin/true", "timeout": 0}]}),
            "hooks.poststart[0].timeout")
    device = {"major": 254, "minor": 2 ** 32, "rate": 1000}  # the kernel would take it for 254:0
    refused(lambda c: c["linux"]["resources"].update(blockIO={"throttleReadBpsDevice": [device]}),
            "linux.resources.blockIO.throttleReadBpsDevice[0]")
    refused(lambda c: c.update(ociVersion="2.0.0"), "ociVersion")


@world
def broken_configurations_are_placed(w):
    file = w.bundle.path / "config.json"
    text = json.dumps(w.bundle.config, indent=4)

    def fails(content, *words):
        file.write_text(content)
        result = w.runtime("run", "-b", w.bundle.path, w.name, code=1)
        assert all(word in result.err for word in words), result
        assert w.runtime.names() == []
    line = 1 + next(i for i, l in enumerate(text.splitlines()) if '"noNewPrivileges"' in l)
    fails(text.replace('"noNewPrivileges": true', '"noNewPrivileges": 7'),
          f"config.json:{line}: process.noNewPrivileges", "boolean")
    fails(text[:len(text) // 2], "config.json:")
    fails("", "config.json")
    fails("[]", "config.json:1")
    file.unlink()
    assert "config.json" in w.runtime("run", "-b", w.bundle.path, w.name, code=1).err


@world
def logs_are_written_as_runc_writes_them(w):
    w.bundle.args("nothing")
    log = w.scratch / "json.log"
    result = w.runtime("--log", log, "--log-format=json", "run", "-b", w.bundle.path, w.name,
                       code=1, log=False)
    line = json.loads(log.read_text())
    assert line["level"] == "error" and "executable file not found in $PATH" in line["msg"]
    assert line["time"].endswith("Z") and "T" in line["time"]
    assert result.err == line["msg"] + "\n", result
    result = w.runtime("run", "-b", w.bundle.path, w.name, code=1, log=False)
    assert result.err.startswith('time="')
    assert ' level=error msg="runc run failed: unable to start container process: ' in result.err
    w.runtime("--log", log, "create", "-b", w.scratch, w.name, code=1, log=False)
    assert 'msg="runc create failed: ' in log.read_text()


@world
def what_the_kernel_says_of_a_program_stays_bare(w):
    """One line on standard error, as from runc's init."""
    script = w.bundle.rootfs / "run.sh"
    script.write_text("#!/nobody/has/this\n")
    script.chmod(0o755)
    w.bundle.args("/run.sh")
    result = w.runtime("run", "-b", w.bundle.path, w.name, code=1, log=False)
    assert result.err == "exec /run.sh: no such file or directory\n", result


@world
def steps_are_shown_with_debug(w):
    w.bundle.script("true")
    log = w.scratch / "debug.log"
    w.runtime("--debug", "--log", log, "run", "-b", w.bundle.path, w.name, log=False)
    text = log.read_text()
    assert "level=debug" in text and "nsexec container setup" in text, text
    assert "init: closing the pipe to signal completion" in text, text
    assert w.runtime("run", "-b", w.bundle.path, w.name, log=False).err == ""


@world
def another_configuration_can_be_named(w):
    """crun's --config: within the bundle, or absolute."""
    (w.bundle.path / "sub").mkdir()
    w.bundle.script("echo second")
    (w.bundle.path / "config.json").rename(w.bundle.path / "sub/other.json")
    for name in ("sub/other.json", w.bundle.path / "sub/other.json"):
        assert w.runtime("run", "-b", w.bundle.path, "--config", name, w.name).out == "second\n"


@world
def options_of_the_command_line(w):
    for args, word in ((["nonsense"], "No help topic for 'nonsense'"), (["run"], "ID"),
                       (["run", "--what", "x"], "flag provided but not defined: -what"),
                       (["kill", "x", "SIGNOTHING"], "unknown signal"),
                       (["--log-format", "xml", "list"], "log-format")):
        assert word in w.runtime(*args, code=3 if args == ["nonsense"] else 1).err, args
    assert w.runtime("--version").out.startswith("cloche-runtime version ")
    assert "spec: 1." in w.runtime("version").out
    version = w.runtime("--version").lines
    assert "runc version 1." in version[0] and version[1].startswith("commit: ")
    assert w.runtime("--help").lines[0] == "NAME:"
    assert "runc - Open Container Initiative runtime" in w.runtime("-h").lines[1]
    assert "cloche-runtime kill" in w.runtime("help", "kill").lines[1]
    assert "create" in w.runtime("--help").out and "--preserve-fds" in w.runtime("run", "--help").out
    features = json.loads(w.runtime("features").out)
    assert features["linux"]["seccomp"]["enabled"] and "rbind" in features["mountOptions"]
    assert w.runtime("list").lines[0].split()[0] == "ID"
    assert w.runtime("list", "-f", "json").out == "null\n"  # as runc


@world
def spec_runs(w):
    folder = w.scratch / "fresh"
    folder.mkdir()
    w.runtime("spec", "-b", folder)
    assert "exists" in w.runtime("spec", "-b", folder, code=1).err
    config = json.loads((folder / "config.json").read_text())
    config["process"].update(terminal=False, args=["echo", "from spec"])
    config["root"]["path"] = str(w.bundle.rootfs)
    config["linux"]["cgroupsPath"] = w.name
    (folder / "config.json").write_text(json.dumps(config))
    assert w.runtime("run", "-b", folder, w.name, cwd=folder).out == "from spec\n"


@world
def a_killed_creation_can_be_cleaned_up(w):
    """SIGKILL at any moment of create: the container's process ends with it, delete --force cleans."""
    w.bundle.script("sleep 100")
    for i in range(12):
        process = w.runtime.start("create", "-b", w.bundle.path, w.name,
                                  stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(i * 0.0006)
        process.kill()
        process.wait()
        w.runtime("delete", "--force", w.name)
        # Before the record there is nothing to find its cgroup by.
        for folder in [*CGROUPS.glob(f"*/{w.name}"), CGROUPS / w.name]:
            if folder.exists():
                wait_for(lambda folder=folder: not (folder / "cgroup.procs").read_text())
                folder.rmdir()
    assert w.runtime.names() == []


@world
def a_killed_creation_that_stands_still_can_be_cleaned_up(w):
    """Its process cannot see that the runtime is gone: delete --force has to end it."""
    v2 = cgroup_version() == 2
    folder = (CGROUPS if v2 else CGROUPS / "freezer") / w.name
    w.bundle.config["hooks"] = {"createContainer": [{"path": "/bin/sleep", "args": ["sleep", "77"]}]}
    w.bundle.write()
    process = w.runtime.start("create", "-b", w.bundle.path, w.name, stderr=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: folder.exists() and len((folder / "cgroup.procs").read_text().split()) > 1)
        (folder / ("cgroup.freeze" if v2 else "freezer.state")).write_text("1" if v2 else "FROZEN")
    finally:
        process.kill()
        process.wait()
    w.runtime("delete", "--force", w.name)
    assert w.runtime.names() == [] and not folder.exists()


if __name__ == "__main__":
    main()
