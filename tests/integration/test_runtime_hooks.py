"""Hooks of cloche-runtime: what they get, in which order and where they run, what a failure does."""

import json
import os
import pathlib
import time

from bundles import world
from harness import main, run, wait_for

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
BEFORE = KINDS[:4]  # the program does not start when one of them fails


def shell(text, **more):
    return {"path": "/bin/sh", "args": ["sh", "-c", text], **more}


def fails(w, *words, code=1, **options):
    """As World.fails, but the poststop hooks may warn."""
    result = w.run(code=code, **options)
    for word in words:
        assert word in result.err, result
    assert w.runtime.names() == []
    return result


@world
def all_kinds_in_order(w):
    log = w.scratch / "hooks"
    inside = w.bundle.rootfs / "hooklog"
    inside.touch()
    log.touch()
    w.bundle.mount("/hooklog", log)
    w.bundle.config["annotations"] = {"org.example": "yes"}
    w.bundle.config["hooks"] = {kind: [shell(f"echo {kind}{number} $(cat) >>" + (
        "/hooklog" if kind == "startContainer" else str(log))) for number in (1, 2)]
        for kind in KINDS}
    w.run("true")
    lines = [line.split(None, 1) for line in log.read_text().splitlines()]
    assert [name for name, _ in lines] == [f"{kind}{n}" for kind in KINDS for n in (1, 2)], lines
    states = {name[:-1]: json.loads(text) for name, text in lines}
    assert [states[kind]["status"] for kind in KINDS] == [
        "created", "created", "created", "created", "running", "stopped"]
    # The number as it is where the hook runs; none when it is over.
    pids = [states[kind]["pid"] for kind in KINDS]
    assert pids[0] == pids[1] == pids[4] > 1 and pids[2:4] == [1, 1] and pids[5] == 0, pids
    for state in states.values():
        assert state["id"] == w.name and state["bundle"] == str(w.bundle.path)
        assert state["ociVersion"].startswith("1.") and state["annotations"] == {
            "org.example": "yes"}


@world
def arguments_and_environment(w):
    log = w.scratch / "log"

    def seen(hook, env):
        log.unlink(missing_ok=True)
        w.bundle.config["hooks"] = {"createRuntime": [hook]}
        w.run("true", env=env)
        return log.read_text()
    env = {"PATH": os.environ["PATH"], "FOO": "caller"}
    # Without the field it is the runtime's, as with runc and crun; an empty list is empty.
    assert seen(shell(f"echo $0 $1 $FOO >{log}"), env) == "sh caller\n"
    assert seen(shell(f"echo $FOO- >{log}", env=[]), env) == "-\n"
    hook = {"path": "/bin/sh", "args": ["other", "-c", f"echo $0 $1 $FOO >{log}", "zero", "one"],
            "env": ["FOO=hook"]}
    assert seen(hook, env) == "zero one hook\n"
    # Without arguments the path is the name.
    script = w.scratch / "hook"
    script.write_text(f"#!/bin/sh\necho $0 $# >{log}\n")
    script.chmod(0o755)
    assert seen({"path": str(script)}, env) == f"{script} 0\n"
    assert "{" not in log.read_text()


@world
def the_state_for_a_hook_ends_where_it_ends(w):
    log = w.scratch / "hook"
    w.bundle.config["hooks"] = {"createContainer": [{"path": "/usr/bin/tee",
                                                     "args": ["tee", str(log)]}]}
    # Memory that was not written to shows.
    w.run("true", env={"MALLOC_PERTURB_": "165"})
    assert json.loads(log.read_bytes())["id"] == w.name


@world
def where_they_run(w):
    log = w.scratch / "log"
    host = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("mnt", "uts", "pid")}
    (w.bundle.rootfs / "marker").touch()

    def seen(kind):
        log.write_text("")
        text = "pwd; for n in mnt uts pid; do stat -Lc %i /proc/self/ns/$n; done; ls"
        w.bundle.config["hooks"] = {kind: [shell(f"({text}) >{log} 2>&1")]}
        w.run("true")
        return log.read_text().splitlines()
    for kind in ("prestart", "createRuntime"):
        lines = seen(kind)
        assert lines[0] == str(w.bundle.path) and "config.json" in lines, lines
        assert [int(line) for line in lines[1:4]] == list(host.values())
    lines = seen("createContainer")
    assert lines[0] == str(w.bundle.rootfs) and "marker" in lines, lines
    assert int(lines[1]) != host["mnt"] and int(lines[2]) != host["uts"]
    for kind in ("poststart", "poststop"):
        assert [int(line) for line in seen(kind)[1:4]] == list(host.values())


@world
def the_bundle_is_named_as_it_was_given(w):
    log = w.scratch / "log"
    link = w.scratch / "link"
    link.symlink_to(w.bundle.path)
    w.bundle.config["hooks"] = {"createRuntime": [shell(f"cat >{log}")]}
    w.bundle.script("true")
    for directory, argument in ((w.scratch, "link"), (w.scratch, f"{link}/"), ("/", str(link))):
        w.runtime("run", "-b", argument, w.name, cwd=directory)
        assert json.loads(log.read_text())["bundle"] == str(link), argument


@world
def failures_before_the_program(w):
    for kind in BEFORE:
        w.bundle.config["hooks"] = {kind: [{"path": "/bin/true"}, {"path": "/bin/false"}]}
        result = fails(w, f"error running {kind} hook #1: exit status 1", script="echo Hello")
        assert "Hello" not in result.out
        if kind != "startContainer":
            result = w.runtime("create", "-b", w.bundle.path, w.name, code=1)
            assert f"error running {kind} hook #1:" in result.err and w.runtime.names() == []
    w.bundle.config["hooks"] = {"prestart": [shell("echo out; echo because >&2; exit 3")]}
    fails(w, "error running prestart hook #0: exit status 3, stdout: out, stderr: because")
    w.bundle.config["hooks"] = {"createRuntime": [shell("kill -9 $$")]}
    fails(w, "error running createRuntime hook #0: signal: killed")
    w.bundle.config["hooks"] = {"createContainer": [{"path": "/missing"}]}
    fails(w, "error running createContainer hook #0:", "/missing")
    w.bundle.config["hooks"] = {"poststop": [{"path": "relative"}]}
    fails(w, "hooks.poststop[0].path: 'relative' is not absolute")
    w.bundle.config["hooks"] = {"poststop": [{"path": "/bin/true", "timeout": 0}]}
    fails(w, "hooks.poststop[0].timeout: must be more than 0")


@world
def failures_after_the_program_has_started(w):
    """runtime.md: the container is stopped and goes on to its deletion."""
    log = w.scratch / "log"
    w.bundle.config["hooks"] = {"poststart": [{"path": "/bin/true"}, {"path": "/bin/false"}],
                                "poststop": [shell(f"cat >{log}")]}
    fails(w, "error running poststart hook #1:", script="sleep 100")
    assert json.loads(log.read_text())["status"] == "stopped"
    log.unlink()
    w.runtime("create", "-b", w.bundle.path, w.name)
    pid = w.runtime.state(w.name)["pid"]
    assert "error running poststart hook #1:" in w.runtime("start", w.name, code=1).err
    assert w.runtime.names() == [] and not pathlib.Path(f"/proc/{pid}/exe").exists()
    assert json.loads(log.read_text())["status"] == "stopped"


@world
def poststop_runs_after_failures(w):
    log = w.scratch / "log"
    for kind, hook in (("createRuntime", {"path": "/bin/false"}), ("createContainer", {
            "path": "/bin/false"}), ("prestart", shell("exec sleep 20", timeout=1))):
        w.bundle.config["hooks"] = {kind: [hook], "poststop": [shell(f"cat >{log}")]}
        fails(w, f"error running {kind} hook #0:")
        assert json.loads(log.read_text())["id"] == w.name
        log.unlink()
    # Nothing was begun.
    w.bundle.config["root"]["path"] = "missing"
    fails(w, "root.path")
    assert not log.exists()


@world
def failing_poststop_hooks_are_warnings(w):
    log = w.scratch / "log"
    w.bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}, {"path": "/missing"},
                                             shell(f"cat >{log}; exit 3")]}
    w.bundle.script("echo fine").write()
    result = w.runtime("run", "-b", w.bundle.path, w.name, log=False)
    assert result.out == "fine\n" and result.err.count("level=warning") == 3, result
    assert "poststop hook failed with exit code 1" in result.err
    assert "poststop hook failed with exit code 3" in result.err and "/missing" in result.err
    assert json.loads(log.read_text())["id"] == w.name and w.runtime.names() == []


@world
def a_timeout_ends_the_hook_and_its_children(w):
    pids = w.scratch / "pids"
    w.bundle.config["hooks"] = {"createRuntime": [
        shell(f"sleep 1000 & echo $$ $! >{pids}; wait", timeout=3)]}
    begin = time.monotonic()
    fails(w, "error running createRuntime hook #0: hook ran past specified timeout of 3.0s")
    assert time.monotonic() - begin >= 3
    for pid in pids.read_text().split():
        wait_for(lambda: not pathlib.Path(f"/proc/{pid}/exe").exists())
    # One that is quick enough is left alone.
    w.bundle.config["hooks"] = {"createRuntime": [shell("sleep 0.1", timeout=100)]}
    w.run("true")


@world
def start_hooks_are_confined(w):
    w.bundle.process["user"] = {"uid": 1000, "gid": 1000}
    w.bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    # As root in the container's namespaces a hook could undo what confines the program.
    w.bundle.config["hooks"] = {"startContainer": [shell(
        "id -u >/dev/shm/hook; grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status "
        ">>/dev/shm/hook; ls /proc/self/fd | wc -l >>/dev/shm/hook")]}
    for no_new_privileges in (True, False):
        w.bundle.process["noNewPrivileges"] = no_new_privileges
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["sethostname", "memfd_create", "clone3", "close_range", "poll"],
             "action": "SCMP_ACT_ERRNO"}]}
        lines = w.run("cat /dev/shm/hook").out.split()
        assert lines == ["1000", "CapEff:", "0" * 16, "NoNewPrivs:", str(int(no_new_privileges)),
                         "Seccomp:", "2", "4"], lines
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]}
        hooks, w.bundle.config["hooks"] = w.bundle.config["hooks"], {
            "startContainer": [shell("exec mkdir /dev/shm/x")]}
        fails(w, "error running startContainer hook #0: signal: bad system call")
        w.bundle.config["hooks"] = hooks


@world
def hooks_mount_into_the_container(w):
    """From the host by the number in the state, and from inside before the root is changed: both
    know the root by the host's path."""
    for name in ("runtime", "container"):
        (w.scratch / name).write_text(f"of the {name} hook\n")
        (w.bundle.rootfs / name).touch()
    enter = ('pid=$(sed "s/.*\\"pid\\":\\([0-9]*\\).*/\\1/"); nsenter -t $pid -m '
             f"mount --bind {w.scratch}/runtime {w.bundle.rootfs}/runtime")
    w.bundle.config["hooks"] = {
        "createRuntime": [shell(enter)],
        "createContainer": [shell(f"mount --bind {w.scratch}/container ./container")]}
    for propagation in (None, "rprivate", "slave"):
        if propagation:
            w.bundle.linux["rootfsPropagation"] = propagation
        assert w.run("cat /runtime /container").out == \
            "of the runtime hook\nof the container hook\n", propagation
    assert run("grep", "-c", w.scratch, "/proc/self/mounts", code=1).out == "0\n"


@world
def output_goes_where_the_annotations_say(w):
    out, err = w.scratch / "out", w.scratch / "err"
    w.bundle.config["annotations"] = {"run.oci.hooks.stdout": str(out),
                                      "run.oci.hooks.stderr": str(err)}
    w.bundle.config["hooks"] = {kind: [shell(f"echo {kind}; echo {kind}! >&2")] for kind in KINDS}
    w.run("true")
    assert out.read_text().split() == list(KINDS)
    assert err.read_text().split() == [kind + "!" for kind in KINDS]
    w.bundle.config["annotations"] = {"run.oci.hooks.stdout": "/missing/folder"}
    fails(w, "annotations.run.oci.hooks.stdout: open /missing/folder")


if __name__ == "__main__":
    main()
