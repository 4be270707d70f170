"""dockerd with cloche-runtime as a runtime of its own (--add-runtime): run, exec, pause,
update, restarts, terminals. The daemon is one for all tests, with folders and a cgroup parent of its own and
without networks."""

import os
import subprocess

from engines import Docker, value_of
from harness import main, test, wait_for
from terminal import Terminal


def run_and_exit_codes(engine):
    assert engine.run("echo", "hello").out == "hello\n"
    assert engine("info", "-f", "{{.DefaultRuntime}}").out == "cloche\n"
    engine.run("sh", "-c", "exit 9", code=9)
    result = engine.run("nothing", code=127)
    assert "executable file not found in $PATH" in result.err, result.err
    assert engine.run("/etc", code=126).err
    assert engine.run("hostname", options=["--hostname", "named"]).out == "named\n"
    assert engine.run("echo", "late", options=["--init"]).out == "late\n"


def exec_in_a_container(engine):
    with engine.background("one", "sleep", "1000") as name:
        assert engine("exec", name, "sh", "-c", "echo inside; exit 3", code=3).out == "inside\n"
        out = engine("exec", "-u", "12:34", "-w", "/bin", "-e", "A=b", name, "sh", "-c",
                     "id -u; id -g; pwd; echo $A").out
        assert out.split() == ["12", "34", "/bin", "b"], out
        assert "executable file not found in $PATH" in engine("exec", name, "nothing", code=126).out
        assert engine("exec", "-i", name, "cat", input="through\n").out == "through\n"
        assert int(engine("exec", "--privileged", name, "sh", "-c",
                          "grep CapEff /proc/self/status").out.split()[1], 16) > 1 << 37
        assert "sleep 1000" in engine("top", name).out
        engine("exec", "-d", name, "sh", "-c", "echo made >/tmp/made")
        wait_for(lambda: engine("exec", name, "cat", "/tmp/made", code=None).out == "made\n")


def pause_and_unpause(engine):
    with engine.background("one", "sleep", "1000") as name:
        engine("pause", name)
        assert engine.inspect(name, ".State.Status") == "paused"
        assert "is paused" in engine("exec", name, "true", code=1).err
        engine("unpause", name)
        assert engine.inspect(name, ".State.Status") == "running"
        engine("exec", name, "true")


def update_of_limits(engine):
    with engine.background("one", "sleep", "1000", options=["--memory", "64m"]) as name:
        pid = engine.pid(name)
        assert value_of(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
        engine("update", "--memory", "128m", "--memory-swap", "-1", "--pids-limit", "77",
               "--cpu-shares", "300", name)
        assert value_of(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(128 << 20)
        assert value_of(pid, "pids", "pids.max", "pids.max") == "77"


def stop_kill_restart(engine):
    with engine.background("one", "sh", "-c", "trap 'exit 4' TERM; echo started; "
                           "while :; do sleep 0.1; done") as name:
        wait_for(lambda: engine("logs", name).out == "started\n")
        engine("kill", "-s", "TERM", name)
        assert engine("wait", name).out == "4\n"
        engine("start", name)
        wait_for(lambda: engine("logs", name).out == "started\n" * 2)
        first = engine.pid(name)
        engine("restart", "-t", "5", name)
        assert engine.pid(name) != first
        engine("stop", "-t", "5", name)
        assert engine.inspect(name, ".State.ExitCode") in ("4", "137")


def a_policy_restarts_it(engine):
    with engine.background("one", "sh", "-c", "echo x >>/count; test $(wc -l </count) -ge 3",
                           options=["--restart", "on-failure:5"]) as name:
        wait_for(lambda: engine.inspect(name, ".State.Status") == "exited")
        assert engine.inspect(name, ".RestartCount") == "2"


def options_reach_the_container(engine):
    with engine.background("one", "sleep", "1000", options=[
            "--read-only", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt",
            "no-new-privileges", "--tmpfs", "/t", "--ulimit", "nofile=100:200", "--oom-score-adj",
            "200", "--device", "/dev/zero:/dev/nought", "--user", "12", "--group-add", "77",
            "-v", "/usr:/host:ro", "--shm-size", "1m", "--sysctl", "kernel.msgmax=5555"]) as name:
        out = engine("exec", name, "sh", "-c",
                     "id -u; id -G; ulimit -n; cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax; "
                     "touch /x 2>&1; touch /host/x 2>&1; test -c /dev/nought && echo device; "
                     "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status").lines
    assert out[:5] == ["12", out[1], "100", "200", "5555"] and "77" in out[1], out
    assert "Read-only" in out[5] and "Read-only" in out[6] and out[7] == "device", out
    values = dict(line.split(":") for line in out[8:])
    assert int(values["CapBnd"], 16) == 1 and values["NoNewPrivs"].strip() == "1", out
    assert values["Seccomp"].strip() == "2", out


def privileged(engine):
    out = engine.run("sh", "-c", "mount -t tmpfs x /etc && echo mounted; ls /dev | wc -l; "
                     "cat /proc/self/attr/current 2>/dev/null; test -w /proc/sys/kernel/domainname "
                     "&& echo writable", options=["--privileged"]).out
    assert "mounted" in out and "writable" in out, out


def a_terminal(engine):
    words = [*engine.base, "run", "--rm", "-it", "--network", "none", engine.image, "sh", "-c",
             "test -t 0 && stty size && echo is-a-terminal; read word; echo got $word; exit 5"]
    with Terminal([str(word) for word in words], dict(os.environ)) as terminal:
        terminal.expect("is-a-terminal", timeout=60)
        terminal.send("xyz\n")
        terminal.expect("got xyz")
        assert terminal.wait(60) == 5
    with engine.background("one", "sleep", "1000") as name:
        words = [*engine.base, "exec", "-it", name, "sh", "-c", "tty; read word; exit 6"]
        with Terminal([str(word) for word in words], dict(os.environ)) as terminal:
            terminal.expect("/dev/pts/", timeout=60)
            terminal.send("xyz\n")
            assert terminal.wait(60) == 6


def a_health_check_runs_in_it(engine):
    with engine.background("one", "sleep", "1000", options=[
            "--health-cmd", "test -e /tmp/well", "--health-interval", "300ms", "--health-retries",
            "1"]) as name:
        wait_for(lambda: engine.inspect(name, ".State.Health.Status") == "unhealthy")
        engine("exec", name, "touch", "/tmp/well")
        wait_for(lambda: engine.inspect(name, ".State.Health.Status") == "healthy")


def namespaces_are_shared(engine):
    with engine.background("one", "sleep", "1000", options=["--ipc", "shareable"]) as name:
        out = engine("run", "--rm", "--network", f"container:{name}", "--pid", f"container:{name}",
                     "--ipc", f"container:{name}", engine.image, "ps").out
        assert "sleep 1000" in out, out
    out = engine("run", "--rm", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host",
                 engine.image, "readlink", "/proc/self/ns/pid").out.strip()
    assert out == os.readlink("/proc/self/ns/pid")


PARTS = (run_and_exit_codes, exec_in_a_container, pause_and_unpause,
         update_of_limits, stop_kill_restart, a_policy_restarts_it, options_reach_the_container, privileged, a_terminal,
         a_health_check_runs_in_it, namespaces_are_shared)


@test
def dockerd_uses_it_for_everything(scratch, images, unique):
    """One daemon for all: it takes seconds to start and to stop."""
    engine = Docker(scratch, images, unique)
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
