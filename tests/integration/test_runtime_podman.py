"""podman with cloche-runtime as its OCI runtime: its bundles, its monitor (conmon), its reading of
our errors."""

import os

from engines import LIMITS, Podman
from harness import main, test, wait_for
from terminal import Terminal

def podman(function):
    def call(scratch, images, unique):
        engine = Podman(scratch, images, unique)
        try:
            function(engine)
        finally:
            engine.clean()
    call.__name__ = function.__name__
    return test(call)


@podman
def run_and_exit_codes(engine):
    assert engine.run("echo", "hello").out == "hello\n"
    engine.run("sh", "-c", "exit 9", code=9)
    assert "not found" in engine.run("nothing", code=127).err
    engine.run("/etc", code=126)
    assert engine.run("hostname", options=["--hostname", "named"]).out == "named\n"


@podman
def options_reach_the_container(engine):
    out = engine.run(
        "sh", "-c", "id -u; cat /proc/self/oom_score_adj; pwd; echo $A; touch /x 2>&1; "
        "grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status; ls /t; cat /proc/sys/kernel/msgmax",
        options=["--user", "12", "--oom-score-adj", "200", "--workdir", "/bin", "-e", "A=b",
                 "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
                 "--tmpfs", "/t", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5",
                 "--cpu-shares", "300", "--sysctl", "kernel.msgmax=5555"]).lines
    assert out[:4] == ["12", "200", "/bin", "b"] and "Read-only" in out[4], out
    values = dict(line.split(":") for line in out[5:8])
    assert values["Seccomp"].strip() == "2" and values["NoNewPrivs"].strip() == "1", out
    assert int(values["CapEff"], 16) == 0 and out[-1] == "5555", out


@podman
def a_life_in_the_background(engine):
    engine("run", "-d", "--name", "one", *engine.options(), "small:1", "sh", "-c",
           "trap 'exit 4' TERM; echo started; while :; do sleep 0.1; done")
    wait_for(lambda: engine("logs", "one").out == "started\n")
    assert engine("exec", "one", "sh", "-c", "echo inside; exit 3", code=3).out == "inside\n"
    assert "not found" in engine("exec", "one", "nothing", code=127).err
    engine("pause", "one")
    assert engine("inspect", "--format", "{{.State.Status}}", "one").out == "paused\n"
    engine("unpause", "one")
    assert "sh" in engine("top", "one", "comm").out
    engine("kill", "-s", "TERM", "one")
    assert engine("wait", "one").out == "4\n"
    engine("start", "one")
    engine("pause", "one")
    engine("kill", "one")
    assert engine("wait", "one").out == "137\n"
    engine("start", "one")
    engine("stop", "-t", "5", "one")
    engine("rm", "one")


@podman
def a_terminal(engine):
    words = [*engine.base, "run", "--rm", "-it", *engine.options(), "small:1", "sh", "-c",
             "test -t 0 && echo is-a-terminal; read word; echo got $word; exit 5"]
    with Terminal([str(word) for word in words], dict(os.environ)) as terminal:
        terminal.expect("is-a-terminal", timeout=60)
        terminal.send("xyz\n")
        terminal.expect("got xyz")
        assert terminal.wait(60) == 5


@podman
def a_user_namespace(engine):
    out = engine.run("sh", "-c", "cat /proc/self/uid_map; echo >/dev/null && id -u",
                     options=["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"]).out
    assert out.split()[:3] == ["0", "100000", "5000"] and out.endswith("\n0\n"), out


@podman
def an_idmapped_volume(engine):
    folder = engine.base[2].parent / "volume"
    folder.mkdir()
    (folder / "file").write_text("")
    users = ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"]
    for option, owner in (("rw", "65534"), ("idmap", "0"),
                          ("idmap=uids=0-100007-1;gids=0-100007-1", "7")):
        out = engine.run("stat", "-c", "%u", "/volume/file",
                    options=[*users, "-v", f"{folder}:/volume:{option}"]).out
        assert out.strip() == owner, (option, out)


@podman
def privileged(engine):
    out = engine.run("sh", "-c", "ls /dev | wc -l; grep CapEff /proc/self/status; "
                     "mount -t tmpfs x /etc && echo mounted",
                     options=["--privileged", "--pids-limit=-1"]).out
    assert "mounted" in out, out


@podman
def the_hosts_namespaces(engine):
    out = engine("run", "--rm", "--network", "host", "--pid", "host", "--ipc", "host",
                 "--cgroup-parent", "/" + engine.unique, *LIMITS, "small:1", "sh", "-c",
                 "for n in net pid ipc; do readlink /proc/self/ns/$n; done").lines
    assert out[0] == os.readlink("/proc/self/ns/net"), out
    assert out[1:] == [os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/ipc")], out


@podman
def containers_share_namespaces(engine):
    engine("run", "-d", "--name", "one", *engine.options(), "small:1", "sleep", "100")
    out = engine("run", "--rm", "--network", "container:one", "--pid", "container:one", "--ipc",
                 "container:one", "--cgroup-parent", "/" + engine.unique, *LIMITS, "small:1", "ps").out
    assert "sleep 100" in out, out


@podman
def devices_capabilities_and_volumes(engine):
    out = engine.run(
        "sh", "-c", "test -c /dev/nought && echo device; touch /host/x 2>&1; ulimit -n; id -G; "
        "grep CapBnd /proc/self/status; wc -c </proc/keys; df -m /dev/shm | tail -1",
        options=["--device", "/dev/zero:/dev/nought", "-v", "/usr:/host:ro", "--cap-drop", "ALL",
                 "--cap-add", "CHOWN", "--group-add", "77", "--shm-size", "3m"]).lines
    assert out[0] == "device" and "Read-only" in out[1] and out[2] == "1024", out
    assert "77" in out[3].split() and int(out[4].split()[1], 16) == 1 and out[5] == "0", out
    assert out[6].split()[1] == "3", out


@podman
def exec_with_options_and_a_terminal(engine):
    engine("run", "-d", "--name", "one", *engine.options(), "small:1", "sleep", "1000")
    out = engine("exec", "-u", "12:34", "-w", "/bin", "-e", "A=b", "one", "sh", "-c",
                 "id -u; id -g; pwd; echo $A").out
    assert out.split() == ["12", "34", "/bin", "b"], out
    assert engine("exec", "-i", "one", "cat", input="through\n").out == "through\n"
    words = [*engine.base, "exec", "-it", "one", "sh", "-c", "tty; read word; exit 6"]
    with Terminal([str(word) for word in words], dict(os.environ)) as terminal:
        terminal.expect("/dev/pts/", timeout=60)
        terminal.send("xyz\n")
        assert terminal.wait(60) == 6
    engine("restart", "-t", "0", "one")
    assert engine("exec", "one", "echo", "again").out == "again\n"


@podman
def health_checks_and_inits(engine):
    engine("run", "-d", "--name", "one", "--health-cmd", "test -e /tmp/well", "--health-interval",
           "disable", *engine.options(), "small:1", "sleep", "1000")
    engine("healthcheck", "run", "one", code=1)
    engine("exec", "one", "touch", "/tmp/well")
    engine("healthcheck", "run", "one")


@podman
def a_pod(engine):
    engine("pod", "create", "--name", "group", "--infra=false", "--cgroup-parent",
           "/" + engine.unique)
    engine("run", "-d", "--name", "first", "--pod", "group", "--network", "none", *LIMITS,
           "small:1", "sleep", "1000")
    engine("run", "-d", "--name", "second", "--pod", "group", "--network", "none", *LIMITS,
           "small:1", "sleep", "1000")
    engine("pod", "pause", "group")
    states = engine("ps", "-a", "--format", "{{.State}}").out.lower().split()
    assert states == ["paused", "paused"], states
    engine("pod", "unpause", "group")
    engine("pod", "kill", "group")
    engine("pod", "rm", "-f", "group")


if __name__ == "__main__":
    main()
