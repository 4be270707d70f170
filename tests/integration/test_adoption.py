#!/usr/bin/env python3
"""The daemon dies, containers do not: what the next daemon finds, and what it makes of it."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import threading
import time

from harness import PROGRAMS, http_get, main, program, run, test, wait_for

IMAGE = "small:1"


def load(instance, images):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))


def start(instance, name, script, *options):
    return instance.cloche("run", "-d", "--name", name, *options, IMAGE, "sh", "-c",
                           script).out.strip()


def details(instance, name):
    return json.loads(instance.cloche("inspect", name).out)[0]


def state(instance, name):
    return details(instance, name)["State"]


def alive(pid):
    return os.path.exists(f"/proc/{pid}")


def gone(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def monitors(instance):
    found = []
    for pid in instance.processes():
        with contextlib.suppress(OSError):  # others come and go
            if open(f"/proc/{pid}/comm").read().strip() == "cloche-monitor":
                found.append(pid)
    return found


def run_folders(instance):
    return list((instance.run_folder / "containers").iterdir())


@test
def containers_run_on_and_are_adopted(instance, images):
    load(instance, images)
    start(instance, "web", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp",
          "-p", "127.0.0.1:9731:80")
    before = state(instance, "web")
    assert http_get("127.0.0.1", 9731, "/index.html") == "hello\n"
    old = instance.kill_daemon()
    assert alive(before["Pid"])
    assert http_get("127.0.0.1", 9731, "/index.html") == "hello\n", "no daemon, no port"
    assert "9731->80/tcp" in instance.cloche("ps").out
    assert instance.daemon_pid() != old
    after = state(instance, "web")
    for field in ("Pid", "StartedAt", "Status", "MonitorPid"):
        assert after[field] == before[field], field
    assert http_get("127.0.0.1", 9731, "/index.html") == "hello\n"
    assert instance.cloche("exec", "web", "cat", "/tmp/index.html").out == "hello\n"
    assert instance.cloche("stop", "-t", "1", "web").out == "web\n"
    assert not alive(before["Pid"])
    wait_for(lambda: run_folders(instance) == [], what="the run folder goes")


@test
def a_daemon_elsewhere_finds_them_too(instance, images):
    """What a daemon mounts that was started in another mount namespace, the next one does not see."""
    load(instance, images)
    run("unshare", "-m", program("cloche"), "run", "-d", "--name", "box", IMAGE, "sleep", "1000", env=instance.env)
    before = state(instance, "box")
    instance.kill_daemon()
    assert state(instance, "box")["Pid"] == before["Pid"] and alive(before["Pid"])
    assert instance.cloche("exec", "box", "echo", "hello").out == "hello\n"
    instance.cloche("stop", "-t", "0", "box")
    assert not alive(before["Pid"]) and state(instance, "box")["ExitCode"] == 137
    instance.cloche("start", "box")


@test
def an_end_without_a_daemon_is_recorded(instance, images):
    load(instance, images)
    start(instance, "short", "sleep 2; echo last words; exit 7")
    start(instance, "killed", "sleep 1000")
    pids = [state(instance, name)["Pid"] for name in ("killed", "short")]
    instance.kill_daemon()
    os.kill(pids[0], signal.SIGKILL)
    wait_for(lambda: all(map(gone, pids)), what="both end")
    assert instance.cloche("wait", "short").out == "7\n"
    assert instance.cloche("wait", "killed").out == "137\n"
    assert instance.cloche("logs", "short").out == "last words\n"
    ended = state(instance, "short")
    assert ended["Status"] == "exited" and ended["FinishedAt"] > ended["StartedAt"], ended
    wait_for(lambda: run_folders(instance) == [], what="the run folders go")


@test
def a_container_that_removes_itself_is_gone_afterwards(instance, images):
    load(instance, images)
    identifier = start(instance, "brief", "sleep 2", "--rm")
    pid = state(instance, "brief")["Pid"]
    instance.kill_daemon()
    wait_for(lambda: gone(pid), what="it ends")
    wait_for(lambda: instance.cloche("ps", "-aq").out == "")
    wait_for(lambda: not (instance.root / "containers" / identifier).exists())


@test
def a_wait_goes_on_with_the_next_daemon(instance, images):
    load(instance, images)
    start(instance, "slow", "sleep 2; exit 9")
    waiting = instance.start("wait", "slow", stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    instance.kill_daemon()
    out, _ = waiting.communicate(timeout=60)
    assert (out, waiting.returncode) == ("9\n", 0), (out, waiting.returncode)


@test
def a_start_that_is_cut_off_did_not_happen(instance, images, scratch):
    """Daemon and monitor are killed while the runtime is at work, which takes its time here."""
    for name in ("cloched", "cloche-monitor", "cloche-image"):
        (scratch / name).symlink_to(PROGRAMS / name)
    slow = scratch / "cloche-runtime"
    (scratch / "wait").touch()
    slow.write_text(f'#!/bin/sh\ncase "$*" in *" run "*) while [ -e {scratch}/wait ]; do sleep 0.1; done;; esac\n'
                    f'exec {PROGRAMS}/cloche-runtime "$@"\n')
    slow.chmod(0o755)
    load(instance, images)
    instance.cloche("create", "--name", "fresh", IMAGE, "true")
    instance.cloche("run", "--name", "again", IMAGE, "sh", "-c", "exit 5", code=5)
    instance.kill_daemon()
    env = {"CLOCHE_LIBEXEC": str(scratch)}
    starting = [instance.start("start", name, env=env, stderr=subprocess.DEVNULL)
                for name in ("fresh", "again")]
    wait_for(lambda: len(monitors(instance)) == 2, what="both monitors run")
    instance.kill_daemon()
    for pid in monitors(instance):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: run("pgrep", "-f", slow, code=None).code == 1,
             what="the runtimes go with their monitors")
    (scratch / "wait").unlink()
    for process in starting:
        process.wait(timeout=60)
    fresh, again = state(instance, "fresh"), state(instance, "again")
    assert fresh["Status"] == "created" and "cut off" in fresh["Error"], fresh
    assert (again["Status"], again["ExitCode"]) == ("exited", 5), again
    instance.cloche("start", "-a", "again", code=5)


@test
def a_killed_monitor_ends_its_container(instance, images):
    load(instance, images)
    start(instance, "orphan", "sleep 1000 & sleep 1000", "-p", "9732:80")
    facts = state(instance, "orphan")
    os.kill(facts["MonitorPid"], signal.SIGKILL)
    wait_for(lambda: state(instance, "orphan")["Status"] == "exited")
    ended = state(instance, "orphan")
    assert ended["ExitCode"] == 255 and "monitor" in ended["Error"], ended
    assert gone(facts["Pid"])
    # Its port is free again, and it starts again.
    start(instance, "other", "sleep 1000", "-p", "9732:80")
    instance.cloche("start", "orphan", code=1)
    instance.cloche("rm", "-f", "other")
    instance.cloche("start", "orphan")
    assert state(instance, "orphan")["Running"]


@test
def a_monitor_killed_without_a_daemon_is_cleaned_by_the_next(instance, images):
    load(instance, images)
    start(instance, "orphan", "sleep 1000 & sleep 1000", "-p", "9733:80")
    facts = state(instance, "orphan")
    instance.kill_daemon()
    os.kill(facts["MonitorPid"], signal.SIGKILL)
    assert instance.cloche("ps", "-aq").out != ""
    ended = state(instance, "orphan")
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 255), ended
    assert gone(facts["Pid"])
    start(instance, "other", "sleep 1000", "-p", "9733:80")


@test
def followers_and_waiters_of_a_dead_daemon(instance, images):
    load(instance, images)
    start(instance, "talker", "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done; exit 3")
    follower = instance.start("logs", "-f", "talker")
    time.sleep(0.4)
    instance.kill_daemon()
    out, _ = follower.communicate(timeout=60)
    assert out.decode().splitlines() == [f"line {i}" for i in range(1, 7)], out
    assert instance.cloche("wait", "talker").out == "3\n"


@test
def an_exec_session_goes_on(instance, images):
    load(instance, images)
    start(instance, "box", "sleep 1000")
    session = instance.start("exec", "box", "sh", "-c", "echo up; sleep 1; echo done; exit 4")
    assert session.stdout.readline() == b"up\n"
    instance.kill_daemon()
    out, _ = session.communicate(timeout=60)
    assert out == b"done\n", out


@test
def a_stopped_daemon_leaves_containers_alone(instance, images):
    load(instance, images)
    start(instance, "box", "sleep 1000")
    pid = state(instance, "box")["Pid"]
    instance.kill_daemon(signal.SIGTERM)
    assert alive(pid) and not instance.socket.exists()
    assert state(instance, "box")["Pid"] == pid


@test
def what_removes_itself_and_does_not_run_is_gone(instance, images):
    instance.cloche("load", "-i", images.small("small:1"))
    instance.cloche("create", "--rm", "--name", "made", "small:1")
    instance.cloche("create", "--name", "kept", "small:1")
    instance.cloche("run", "-d", "--rm", "--name", "runs", "small:1", "sleep", "1000")
    instance.kill_daemon()
    assert sorted(instance.cloche("ps", "-a", "--format", "{{.Names}}").lines) == ["kept", "runs"]
    instance.cloche("rm", "-f", "kept", "runs")


@test
def a_commit_cut_off_does_not_leave_the_container_frozen(instance, images):
    load(instance, images)
    start(instance, "box", "dd if=/dev/urandom of=/big bs=1M count=60 2>/dev/null; echo ready;"
          "while :; do date +%s%N > /tick; sleep 0.05; done")
    wait_for(lambda: "ready" in instance.cloche("logs", "box").out)
    commit = instance.start("commit", "box", "cut:1")
    time.sleep(0.25)
    instance.kill_daemon()
    commit.communicate(timeout=60)
    first = instance.cloche("exec", "box", "cat", "/tick").out
    wait_for(lambda: instance.cloche("exec", "box", "cat", "/tick").out != first,
             what="the container goes on")

    def tidy():
        """A worker that dies with its daemon may still write while the next ones tidy up."""
        instance.kill_daemon()
        instance.start_daemon()
        return not list((instance.root / "staging").glob("*"))
    wait_for(tidy, what="no staging folder is left")


@test
def a_reboot_ends_everything(instance, images):
    """What a reboot does: processes and RUN are gone, ROOT is there."""
    load(instance, images)
    start(instance, "box", "echo kept > /kept; sleep 1000", "-p", "9734:80")
    facts = state(instance, "box")
    instance.kill_daemon()
    os.kill(facts["MonitorPid"], signal.SIGKILL)
    os.kill(facts["Pid"], signal.SIGKILL)
    wait_for(lambda: not alive(facts["Pid"]))
    instance.forget_run()
    ended = state(instance, "box")
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 255), ended
    instance.cloche("start", "box")
    assert instance.cloche("exec", "box", "cat", "/kept").out == "kept\n"


def in_memory(folder):
    return os.path.ismount(folder) or run("stat", "-f", "-c", "%T", folder).out.strip() == "tmpfs"


@test
def folders_and_cgroups_are_there_as_long_as_the_daemon(instance, images):
    """Made once, not for each container; what a container that removes itself leaves goes behind it."""
    load(instance, images)
    folders = [instance.run_folder / "containers", instance.run_folder / "runtime"]
    cgroups = list(pathlib.Path("/sys/fs/cgroup").glob("*/cgroup.procs")) or ["/sys/fs/cgroup/cgroup.procs"]
    parents = [pathlib.Path(file).parent / instance.cgroup_parent for file in cgroups]
    assert all(in_memory(folder) for folder in folders)
    instance.cloche("run", "--rm", IMAGE, "true")
    assert all(parent.is_dir() for parent in parents), parents
    for folder in (instance.root / "containers", folders[0]):
        wait_for(lambda: not list(folder.iterdir()), what=f"{folder} is empty")
    start(instance, "box", "sleep 1000")
    instance.kill_daemon(signal.SIGTERM)
    assert all(in_memory(folder) for folder in folders) and all(parent.is_dir() for parent in parents)
    assert state(instance, "box")["Status"] == "running"
    instance.cloche("rm", "-f", "box")
    instance.kill_daemon(signal.SIGTERM)
    assert not any(os.path.ismount(folder) for folder in folders)
    assert not any(parent.is_dir() for parent in parents), parents


class Churn:
    """Clients that never stop asking, while somebody kills the daemon."""

    SCRIPTS = (("run", "--rm", IMAGE, "true"), ("run", "-d", IMAGE, "sleep", "0.2"),
               ("run", "--rm", "-p", "80", IMAGE, "echo", "hi"), ("ps", "-a"))

    def __init__(self, instance, seed):
        self.instance, self.random, self.stopping = instance, random.Random(seed), False
        self.threads = [threading.Thread(target=self.work, args=(i,)) for i in range(3)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        chosen = random.Random(number)
        while not self.stopping:
            # Whatever it says: the daemon may be killed under it.
            self.instance.cloche(*chosen.choice(self.SCRIPTS), code=None)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()


@test
def killed_at_random_moments(instance, images):
    load(instance, images)
    start(instance, "witness", "sleep 1000")
    pid = state(instance, "witness")["Pid"]
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"# seed {seed}")
    churn = Churn(instance, seed)
    for _ in range(14):
        time.sleep(churn.random.uniform(0.02, 0.6))
        daemon = instance.daemon_pid()
        if daemon:
            with contextlib.suppress(ProcessLookupError):  # one that found another there has ended
                os.kill(daemon, churn.random.choice((signal.SIGKILL, signal.SIGTERM)))
            wait_for(lambda: gone(daemon), what="the daemon ends")
    churn.stop()
    assert state(instance, "witness")["Pid"] == pid, "a bystander was hurt"
    # Everything comes to rest: nothing but the witness runs, and all that is there can be removed.
    wait_for(lambda: instance.cloche("ps", "--format", "{{.Names}}").out == "witness\n")
    for identifier in instance.cloche("ps", "-aq").lines:
        instance.cloche("rm", "-f", identifier)
    wait_for(lambda: run_folders(instance) == [], what="the run folders go")
    assert list((instance.root / "containers").iterdir()) == []
    assert instance.cloche("run", "--rm", IMAGE, "echo", "well").out == "well\n"


if __name__ == "__main__":
    main()
