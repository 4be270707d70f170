"""containerd with cloche-runtime behind its shim (io.containerd.runc.v2): ctr's run, tasks, exec,
pause, kill and events of the end. The daemon is one for all tests, with folders and a cgroup parent
of its own."""

import json
import os
import pathlib
import subprocess

from engines import Containerd, value_of
from harness import main, test, wait_for
from terminal import Terminal


def run_and_exit_codes(engine):
    assert engine.run("one", "echo", "hello").out == "hello\n"
    engine.run("one", "sh", "-c", "exit 9", code=9)
    result = engine.run("one", "nothing", code=1)
    assert 'exec: "nothing": executable file not found in $PATH' in result.err, result.err
    assert "OCI runtime create failed" in result.err, result.err


def a_life_in_the_background(engine):
    with engine.background("one", "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done") as name:
        wait_for(lambda: engine.status(name) == "RUNNING")
        assert engine("tasks", "exec", "--exec-id", "e1", name, "sh", "-c", "echo inside; exit 3",
                      code=3).out == "inside\n"
        out = engine("tasks", "exec", "--exec-id", "e2", "--cwd", "/bin", "--user", "12", name, "sh",
                     "-c", "pwd; id -u").out
        assert out == "/bin\n12\n", out
        engine("tasks", "pause", name)
        assert engine.status(name) == "PAUSED"
        engine("tasks", "resume", name)
        assert engine.status(name) == "RUNNING"
        pids = [int(line.split()[0]) for line in engine("tasks", "ps", name).lines[1:]]
        # The shell is there; the others are programs of a tenth of a second.
        assert pids and pathlib.Path(f"/proc/{min(pids)}").exists(), pids
        engine("tasks", "kill", "-s", "TERM", name)
        wait_for(lambda: engine.status(name) == "STOPPED")
        engine("tasks", "start", "-d", name, code=1)  # its task is still there
        assert "exit code 4" in engine("tasks", "delete", name).err
        engine("tasks", "start", "-d", name)
        wait_for(lambda: engine.status(name) == "RUNNING")


def limits_of(pid):
    return [value_of(pid, "memory", "memory.limit_in_bytes", "memory.max"),
            value_of(pid, "pids", "pids.max", "pids.max"),
            value_of(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]]


def update_of_limits(engine):
    with engine.background("one", "sleep", "1000",
                           options=["--memory-limit", str(64 << 20)]) as name:
        answer = engine.update(name, {"memory": {"limit": 128 << 20}, "pids": {"limit": 77},
                                      "cpu": {"quota": 50000, "period": 100000}})
        assert "grpc-status: 0" in answer, answer
        pid = int(engine("tasks", "ps", name).lines[1].split()[0])
        assert limits_of(pid) == [str(128 << 20), "77", "50000"], limits_of(pid)
        answer = engine.update(name, {"pids": {"limit": 78}, "cpu": {"cpus": "7999"}})
        assert "grpc-status: 0" not in answer and "cpuset" in answer, answer
        assert limits_of(pid) == [str(128 << 20), "77", "50000"], limits_of(pid)


def kill_all_and_metrics(engine):
    with engine.background("one", "sh", "-c", "sleep 1000 & wait") as name:
        wait_for(lambda: len(engine("tasks", "ps", name).lines) >= 3)
        metrics = json.loads(engine("tasks", "metrics", "--format", "json", name).out)
        assert metrics, metrics
        engine("tasks", "kill", "-a", "-s", "KILL", name)
        wait_for(lambda: engine.status(name) == "STOPPED")


def options_reach_the_container(engine):
    out = engine.run("one", "sh", "-c", "echo $A; pwd; touch /x 2>&1; touch /host/x 2>&1; grep -E '^(CapBnd|Seccomp):' /proc/self/status",
                     options=["--env", "A=b", "--cwd", "/bin", "--read-only", "--rootfs-propagation",
                              "rslave", "--mount", "type=bind,src=/usr,dst=/host,options=rbind:ro",
                              "--cap-drop", "CAP_CHOWN", "--seccomp", "--memory-limit",
                              str(64 << 20), "--pid-file", engine.scratch / "pid"]).lines
    assert out[:2] == ["b", "/bin"], out
    assert "Read-only" in out[2] and "Read-only" in out[3], out
    values = dict(line.split(":") for line in out[4:])
    assert not int(values["CapBnd"], 16) & 1 and values["Seccomp"].strip() == "2", out
    assert int((engine.scratch / "pid").read_text()) > 0


def privileged(engine):
    out = engine.run("one", "sh", "-c", "mount -t tmpfs x /etc && echo mounted",
                     options=["--privileged"]).out
    assert out == "mounted\n", out


def a_terminal(engine):
    words = [*engine.base, "run", "--rm", "-t", *engine.options(), engine.image, "one", "sh", "-c",
             "test -t 0 && echo is-a-terminal; read word; echo got $word; exit 5"]
    with Terminal([str(word) for word in words], dict(os.environ)) as terminal:
        terminal.expect("is-a-terminal", timeout=60)
        terminal.send("xyz\n")
        terminal.expect("got xyz")
        assert terminal.wait(60) == 5


PARTS = (run_and_exit_codes, a_life_in_the_background, update_of_limits, kill_all_and_metrics,
         options_reach_the_container, privileged, a_terminal)


@test
def containerd_uses_it_for_everything(scratch, images, unique):
    """One daemon for all: it takes seconds to start and to stop."""
    engine = Containerd(scratch, images, unique)
    failed = []
    try:
        for part in PARTS:
            try:
                part(engine)
            except (AssertionError, subprocess.TimeoutExpired) as problem:
                failed.append(f"{part.__name__}: {problem}")
    finally:
        engine.close()
    assert not failed, "\n".join(failed)


if __name__ == "__main__":
    main()
