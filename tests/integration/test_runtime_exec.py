"""exec: its options, process.json, terminals, exit codes.

Runs on the machine and in the guest (cgroup v2).
"""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time

from bundles import ConsoleSocket, world
from harness import main, wait_for
from terminal import Terminal

STATUS = ("cat", "/proc/self/status")


def fields(text):
    return {key: value.strip() for key, _, value in
            (line.partition(":") for line in text.splitlines())}


class Running:
    """A container that sleeps, and exec in it."""

    def __init__(self, w, start=True):
        self.w, self.holder = w, w.runtime.container(w.bundle.write(), w.name, start=start)

    def __enter__(self):
        self.holder.__enter__()
        return self

    def __exit__(self, *failure):
        return self.holder.__exit__(*failure)

    def exec(self, *words, code=0, options=(), debug=False, **more):
        globals_ = ["--debug"] if debug else []
        return self.w.runtime(*globals_, "exec", *options, self.w.name, *words, code=code, **more)

    def process(self, code=0, options=(), debug=False, **settings):
        file = self.w.scratch / "process.json"
        file.write_text(json.dumps({"cwd": "/", "env": ["PATH=/bin"], **settings}))
        return self.exec(code=code, options=["--process", file, *options], debug=debug)


# ---------------------------------------------------------------- exit codes and messages

@world
def exit_codes(w):
    w.bundle.script("sleep 100")
    with Running(w) as box:
        box.exec("false", code=1)
        box.exec("sh", "-c", "exit 42", code=42)
        box.exec("sh", "-c", "kill -TERM $$", code=143)
        assert "exec failed" in box.exec("true", code=255,
                                         options=["--pid-file", "/nowhere/at/all"]).err
        assert "exec failed" in box.exec("no-such-program", code=255).err
        box.exec("no-such-program", code=255, options=["-d"])
        box.exec("true", code=255, options=["--user", "one"])
        box.exec("true", code=255, options=["--bogus"])
        box.exec(code=255)
        # "--" ends the options, before the name and after it.
        assert box.exec("--", "echo", "-x").out == "-x\n"
        assert box.exec("echo", "-n", options=["--"]).out == ""
    w.runtime("exec", w.name, "true", code=255)


@world
def a_script_without_its_interpreter(w):
    script = w.bundle.rootfs / "run.sh"
    script.write_text("#!/mmnnttbb foo bar\nsh\n")
    script.chmod(0o755)
    w.bundle.script("sleep 100")
    with Running(w) as box:
        result = box.exec("/run.sh", code=255)
        assert "exec /run.sh: no such file or directory" in result.err, result
        assert len(result.err.splitlines()) == 1, result


@world
def a_created_container_takes_it_a_paused_one_does_not(w):
    w.bundle.script("sleep 100")
    with Running(w, start=False) as box:
        assert box.exec("echo", "early").out == "early\n"
        assert w.runtime.status(w.name) == "created"
        w.runtime("start", w.name)
        w.runtime("pause", w.name)
        try:
            result = box.exec("true", code=255)
            assert "cannot exec in a paused container (use --ignore-paused to override)" in \
                result.err, result
            late = w.runtime.start("exec", "--ignore-paused", w.name, "echo", "late",
                                   stdout=subprocess.PIPE, text=True)
            time.sleep(0.2)
            assert late.poll() is None
        finally:
            w.runtime("resume", w.name)
        assert late.communicate(timeout=60)[0] == "late\n"


# ---------------------------------------------------------------- options

@world
def options_change_what_the_container_has(w):
    w.bundle.process["user"] = {"uid": 7, "gid": 8, "additionalGids": [9]}
    w.bundle.process["env"] = ["PATH=/bin", "A=container"]
    w.bundle.process["noNewPrivileges"] = False
    w.bundle.process["cwd"] = "/tmp"
    w.bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 300, "soft": 200}]
    w.bundle.process["oomScoreAdj"] = 111
    w.bundle.script("sleep 100")
    with Running(w) as box:
        out = box.exec("sh", "-c", "id; pwd; echo $A; ulimit -n; cat /proc/self/oom_score_adj").lines
        assert out == ["uid=7 gid=8 groups=8,9", "/tmp", "container", "200", "111"] or \
            out[0].startswith("uid=7 gid=8") and out[1:] == ["/tmp", "container", "200", "111"], out
        out = box.exec("sh", "-c", "id -u; id -g; id -G; pwd; echo $A$B; grep NoNewP /proc/self/status",
                       options=["-u", "1000:100", "-g", "55", "--additional-gids", "66", "--cwd",
                                "/etc", "-e", "A=option", "--env=B=2", "--no-new-privs"]).lines
        assert out[:2] == ["1000", "100"] and set(out[2].split()) == {"100", "9", "55", "66"}, out
        assert out[3:] == ["/etc", "option2", "NoNewPrivs:\t1"], out
        assert fields(box.exec(*STATUS).out)["NoNewPrivs"] == "0"
        assert box.exec("sh", "-c", "echo $HOME", options=["-u", "1000"]).out == "/home/shop\n"
        assert box.exec("sh", "-uc", "echo $HOME", options=["-u", "1001"]).out == "/\n"


@world
def capabilities_are_added_but_not_inheritable(w):
    """CVE-2022-29162."""
    w.bundle.process["capabilities"] = {}
    w.bundle.script("sleep 100")
    with Running(w) as box:
        none = "0" * 16
        sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        status = fields(box.exec(*STATUS).out)
        assert [status[name] for name in sets] == [none] * 5, status
        status = fields(box.exec(*STATUS, options=["--cap", "CAP_KILL", "-c", "CAP_AUDIT_WRITE"]).out)
        both = "0000000020000020"
        assert [status[name] for name in sets] == [none, both, both, both, none], status
        status = fields(box.exec(*STATUS, options=["--cap", "CAP_UNKNOWN"]).out)
        assert [status[name] for name in sets] == [none] * 5, status
        assert "CAP_UNKNOWN" in w.runtime.log.read_text()


@world
def added_capabilities_are_ambient_if_they_can_be_inherited(w):
    w.bundle.process["capabilities"] = {
        "inheritable": ["CAP_CHOWN", "CAP_SYSLOG"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"], "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"],
        "ambient": ["CAP_CHOWN"]}
    w.bundle.script("sleep 100")
    with Running(w) as box:
        for options, ambient in (([], 1), (["--cap", "CAP_SYSLOG"], 0x400000001),
                                 (["--cap", "CAP_KILL"], 1)):
            status = fields(box.exec(*STATUS, options=options).out)
            assert int(status["CapAmb"], 16) == ambient, (options, status)
            assert int(status["CapInh"], 16) == 0x400000001, (options, status)
    assert "ambient" not in w.runtime.log.read_text()


@world
def a_process_document(w):
    w.bundle.process["capabilities"] = {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                                        "effective": ["CAP_KILL"]}
    w.bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 300, "soft": 200}]
    w.bundle.process["user"] = {"uid": 7, "gid": 8, "umask": 0o77}
    w.bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 1}
    w.bundle.process["scheduler"] = {"policy": "SCHED_BATCH"}
    w.bundle.script("sleep 100")
    show = ["sh", "-c", "id -u; ulimit -n; umask; env; ionice; "
                        "grep -E 'CapEff|NoNewPrivs' /proc/self/status"]
    with Running(w) as box:
        # What it does not say: the container's, but for user, environment and new privileges.
        out = box.process(args=show).lines
        assert out[:3] == ["0", "200", "0077"], out
        assert "best-effort: prio 1" in out and "CapEff:\t0000000000000020" in out, out
        assert "NoNewPrivs:\t0" in out and "PATH=/bin" in out and "HOME=/root" in out, out
        out = box.process(args=show, user={"uid": 1000, "gid": 1, "umask": 0o7}, noNewPrivileges=True,
                          rlimits=[{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 50}],
                          ioPriority={"class": "IOPRIO_CLASS_IDLE"}, capabilities={},
                          env=["PATH=/bin", "ONE=1"]).lines
        assert out[:3] == ["1000", "50", "0007"] and "idle" in out and "ONE=1" in out, out
        assert "CapEff:\t0000000000000000" in out and "NoNewPrivs:\t1" in out, out
        for settings, text in (({"args": []}, "args must not be empty"),
                               ({"args": ["true"], "cwd": "x"}, "Cwd must be an absolute path"),
                               ({"args": ["true"], "env": ["X"]}, "process.env[0]"),
                               ({"args": ["true"], "scheduler": {"policy": "X"}}, "policy")):
            result = box.process(code=255, **settings)
            assert text in result.err, result
        result = box.exec(code=255, options=["-p", "/nowhere"])
        assert "/nowhere" in result.err, result


@world
def the_cpu_affinity_of_exec(w):
    if os.cpu_count() < 2:
        return
    w.bundle.script("sleep 100")
    show = ["grep", "Cpus_allowed_list", "/proc/self/status"]
    everything = run_show(show)
    with Running(w) as box:
        assert box.process(args=show).out.split()[1] == everything
        for cpus, final in (("1", "1"), ("0,1", "0-1"), ("0", "0")):
            out = box.process(args=show, execCPUAffinity={"initial": "0", "final": cpus}).out
            assert out.split()[1] == final, out
        w.runtime.log.unlink()
        box.process(args=["true"], execCPUAffinity={"initial": "1"}, debug=True)
        assert "affinity: 0x2" in w.runtime.log.read_text()
        for cpus in ("x", "3-1", "99999"):
            assert "invalid CPU affinity" in box.process(code=255, args=["true"],
                                                         execCPUAffinity={"final": cpus}).err
    w.bundle.process["execCPUAffinity"] = {"initial": "0", "final": "1"}
    with Running(w) as box:
        assert box.exec(*show).out.split()[1] == "1"
        assert fields(box.exec("cat", "/proc/1/status").out)["Cpus_allowed_list"] == everything


def run_show(show):
    return subprocess.run(show, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[1]


@world
def the_steps_are_told_to_who_debugs(w):
    w.bundle.script("sleep 100")
    with Running(w) as box:
        box.exec("true", debug=True)
        log = w.runtime.log.read_text()
        for text in ("level=debug", "nsexec container setup", "child process in init()",
                     "setns_init: about to exec"):
            assert text in log, log


# ---------------------------------------------------------------- detached, waiting

@world
def a_named_pipe_holds_the_program_back(w):
    w.bundle.config["root"]["readonly"] = False
    w.bundle.script("sleep 100")
    fifo, marker = w.scratch / "fifo", w.bundle.rootfs / "marker"
    os.mkfifo(fifo, 0o600)
    with Running(w) as box:
        box.exec("touch", "/marker", options=["-d", "-u", "0", "--pid-file", w.scratch / "pid",
                                              "--exec-wait-fifo", fifo])
        pid = int((w.scratch / "pid").read_text())
        time.sleep(0.2)
        assert not marker.exists() and pathlib.Path(f"/proc/{pid}").exists()
        assert fifo.read_bytes() == b""
        wait_for(marker.exists)
        # A program of a user without rights to the pipe, and one that is waited for.
        box.exec("touch", "/tmp/x", options=["-d", "-u", "1000", "--exec-wait-fifo", fifo])
        assert fifo.read_bytes() == b""
        reader = threading.Timer(0.2, fifo.read_bytes)
        reader.start()
        assert box.exec("echo", "through", options=["--exec-wait-fifo", fifo]).out == "through\n"
        reader.join()
        # Killed before it was the program: that is no exit code of one.
        waiting = w.runtime.start("exec", "--exec-wait-fifo", fifo, w.name, "true",
                                  stderr=subprocess.PIPE, text=True)
        first = w.runtime.state(w.name)["pid"]
        others = lambda: [pid for pid in json.loads(w.runtime("ps", "-f", "json", w.name).out)
                          if pid != first]
        wait_for(lambda: len(others()) == 1)
        time.sleep(0.2)
        os.kill(others()[0], signal.SIGKILL)
        assert waiting.wait(60) == 255
        assert "killed before it could execute" in waiting.stderr.read()
        result = box.exec("true", code=255, options=["--exec-wait-fifo", w.bundle.path])
        assert "is not a fifo" in result.err, result
        result = box.exec("true", code=255, options=["--exec-wait-fifo", w.scratch / "none"])
        assert "failed to open exec wait fifo" in result.err, result


@world
def the_pid_file_is_there_when_exec_returns(w):
    w.bundle.script("sleep 100")
    file = w.scratch / "pid"
    with Running(w) as box:
        file.write_text("old and much longer than a number")
        box.exec("sleep", "100", options=["-d", "--pid-file", file])
        pid = int(file.read_text())
        wait_for(lambda: pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00100\x00")
        assert [name.name for name in w.scratch.glob("*pid*")] == ["pid"]


@world
def signals_are_passed_on(w):
    w.bundle.script("sleep 100")
    with Running(w):
        process = w.runtime.start("exec", w.name, "sh", "-c",
                                  "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done",
                                  stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 9


# ---------------------------------------------------------------- terminals

@world
def a_terminal_belongs_to_the_user(w):
    w.bundle.script("sleep 100")
    with Running(w) as box:
        command = ["sh", "-c", "stat -c %u:%g $(tty); readlink /proc/self/fd/1; stty size"]
        out = box.exec(*command, options=["-t", "-u", "1000"], stdin=subprocess.DEVNULL).out
        assert out.split()[:2] == ["1000:5", "/dev/pts/0"], out


@world
def the_size_of_a_terminal(w):
    w.bundle.script("sleep 100")
    with Running(w) as box:
        environment = dict(os.environ)
        command = [w.runtime.path, "--root", str(w.runtime.root), "exec", "-t", w.name, "sh", "-c",
                   "stty size; trap 'stty size; exit 3' WINCH; echo up; while :; do sleep 0.05; done"]
        with Terminal(command, environment, rows=30, columns=90) as terminal:
            terminal.expect("30 90")
            terminal.expect("up")
            terminal.resize(41, 111)
            terminal.expect("41 111")
            assert terminal.wait() == 3
        console = ConsoleSocket(w.scratch)
        box.process(options=["-d", "--console-socket", console.path], args=["sh", "-c", "stty size"],
                    terminal=True, consoleSize={"height": 10, "width": 110})
        main_fd = console.take()
        assert b"10 110" in os.read(main_fd, 100)
        os.close(main_fd)


@world
def terminals_that_cannot_be(w):
    w.bundle.script("sleep 100")
    with Running(w) as box:
        result = box.exec("true", code=255, options=["-t", "-d"])
        assert "detach without setting console socket" in result.err, result
        assert "use --console-socket" in result.err, result
        result = box.exec("true", code=255, options=["--console-socket", w.scratch / "none"])
        assert "cannot use console socket" in result.err, result
        for size in ({"height": 65536, "width": 1}, {"height": -1, "width": 1}):
            result = box.process(code=255, args=["true"], terminal=True, consoleSize=size)
            assert "consoleSize.height" in result.err, result


if __name__ == "__main__":
    main()
