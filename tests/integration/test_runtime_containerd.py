"""containerd with cloche-runtime behind its shim (io.containerd.runc.v2): ctr's run, tasks, exec,
pause, kill and events of the end. The daemon is one for all tests, with folders and a cgroup parent
of its own."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

from harness import Skip, main, program, run, test, wait_for
from terminal import Terminal

IMAGE = "docker.io/library/small:1"
DAEMON_START = 60  # seconds
CONFIG = '''version = 2
root = "{scratch}/root"
state = "{scratch}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{scratch}/c.sock"
[ttrpc]
  address = "{scratch}/t.sock"
'''


class Containerd:
    def __init__(self, scratch, images, unique):
        if not shutil.which("containerd"):
            raise Skip("containerd is not installed")
        self.unique, self.scratch = unique, scratch
        self.base = ["ctr", "--address", scratch / "c.sock", "--namespace", unique]
        self.shims = pathlib.Path("/run/containerd")  # the sockets of the shims have no other place
        self.shims.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", self.shims)
        (scratch / "config.toml").write_text(CONFIG.format(scratch=scratch))
        with open(scratch / "log", "wb") as log:
            self.daemon = subprocess.Popen(["containerd", "-c", scratch / "config.toml"], stdout=log,
                                           stderr=log)
        wait_for(self._answers, DAEMON_START, "containerd answers")
        self("image", "import", "--snapshotter", "native", images.docker_archive("small:1"))

    def _answers(self):
        if self.daemon.poll() is not None:
            raise AssertionError((self.scratch / "log").read_text()[-2000:])
        return run(*self.base, "version", code=None).code == 0

    def __call__(self, *args, **options):
        return run(*self.base, *args, timeout=120, **options)

    def options(self, *more):
        return ["--snapshotter", "native", "--runc-binary", program("cloche-runtime"), "--cgroup",
                f"/{self.unique}/c", *more]

    def run(self, name, *words, options=(), **more):
        return self("run", "--rm", *self.options(*options), IMAGE, name, *words, **more)

    def status(self, name):
        for line in self("tasks", "list").lines[1:]:
            if line.split()[0] == name:
                return line.split()[2]
        return None

    @contextlib.contextmanager
    def background(self, name, *words, options=()):
        self("run", "-d", *self.options(*options), IMAGE, name, *words)
        try:
            yield name
        finally:
            self("tasks", "rm", "-f", name, code=None)
            self("containers", "rm", name)

    def close(self):
        self.daemon.terminate()
        self.daemon.wait(60)
        run("umount", "-l", self.shims)
        found = subprocess.run(["find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path",
                                f"*/{self.unique}*"], capture_output=True, text=True,
                               check=False).stdout.split()
        for folder in found:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


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
        assert pids and all(pathlib.Path(f"/proc/{pid}").exists() for pid in pids), pids
        engine("tasks", "kill", "-s", "TERM", name)
        wait_for(lambda: engine.status(name) == "STOPPED")
        engine("tasks", "start", "-d", name, code=1)  # its task is still there
        assert "exit code 4" in engine("tasks", "delete", name).err
        engine("tasks", "start", "-d", name)
        wait_for(lambda: engine.status(name) == "RUNNING")


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
    words = [*engine.base, "run", "--rm", "-t", *engine.options(), IMAGE, "one", "sh", "-c",
             "test -t 0 && echo is-a-terminal; read word; echo got $word; exit 5"]
    with Terminal([str(word) for word in words], dict(os.environ)) as terminal:
        terminal.expect("is-a-terminal", timeout=60)
        terminal.send("xyz\n")
        terminal.expect("got xyz", timeout=20)
        assert terminal.wait(60) == 5


PARTS = (run_and_exit_codes, a_life_in_the_background, kill_all_and_metrics,
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
