#!/usr/bin/env python3
"""Restart policies, health checks and limits of logs, through the daemon: what it tells of them, and
that they hold when it, or a monitor, dies."""

import contextlib
import ctypes
import gzip
import json
import os
import pathlib
import random
import signal
import socket
import sqlite3
import time

from harness import PROGRAMS, main, note, run, test, wait_for

IMAGE = "small:1"


def load(instance, images, **options):
    instance.cloche("load", "-q", "-i", images.small(IMAGE, **options))


def details(instance, name):
    return json.loads(instance.cloche("inspect", name).out)[0]


def state(instance, name):
    return details(instance, name)["State"]


def create(instance, name, *command, **spec):
    """container.create with what the CLI may not have a flag for; started."""
    create_only(instance, name=name, command=list(command), **spec)
    instance.cloche("start", name)


def create_only(instance, code=0, **spec):
    words = [f"{key}:={json.dumps(value)}" for key, value in {"image": IMAGE, **spec}.items()]
    return instance.cloche("rpc", "call", "container.create", *words, code=code)


def status_line(instance, name):
    return instance.cloche("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").out.strip()


@test
def a_container_is_restarted_and_counted(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sh", "-c", "echo run; sleep 0.2; exit 3",
           restartPolicy={"name": "always"})
    wait_for(lambda: details(instance, "box")["RestartCount"] >= 2)
    wait_for(lambda: state(instance, "box")["Status"] == "restarting")
    seen = state(instance, "box")
    assert seen["ExitCode"] == 3 or seen["Status"] == "running", seen
    wait_for(lambda: "Restarting (3)" in status_line(instance, "box"))
    refused = instance.cloche("rm", "box", code=1)
    assert "a restarting container" in refused.err or "a running container" in refused.err, refused.err
    instance.cloche("stop", "-t", "1", "box")
    assert state(instance, "box")["Status"] == "exited"
    count = instance.cloche("logs", "box").out.count("run\n")
    time.sleep(1)
    assert instance.cloche("logs", "box").out.count("run\n") == count
    instance.cloche("rm", "box")


@test
def a_stop_while_it_waits_is_answered_at_once(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "false", restartPolicy={"name": "always"})
    # 0.1 + 0.2 + ... : waits of seconds after some runs.
    wait_for(lambda: details(instance, "box")["RestartCount"] >= 5)
    wait_for(lambda: state(instance, "box")["Status"] == "restarting")
    instance.cloche("stop", "-t", "100", "box")
    seen = state(instance, "box")
    assert seen["Status"] == "exited" and seen["ExitCode"] in (1, 143, 137), seen
    instance.cloche("start", "box")
    assert details(instance, "box")["RestartCount"] <= 3  # begun anew
    instance.cloche("kill", "box", code=None)
    wait_for(lambda: state(instance, "box")["Status"] == "exited")
    instance.cloche("start", "box")
    instance.cloche("rm", "-f", "box")


@test
def removal_by_force_at_any_moment_of_a_restart(instance, images):
    load(instance, images)
    instance.start_daemon()
    for number in range(8):
        create(instance, f"box{number}", "false", restartPolicy={"name": "always"})
        time.sleep(number * 0.05)
        instance.cloche("rm", "-f", f"box{number}")
    assert instance.cloche("ps", "-aq").out == ""


@test
def on_failure_gives_up_and_wait_tells(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sh", "-c", "exit 4",
           restartPolicy={"name": "on-failure", "maximumRetryCount": 2})
    wait_for(lambda: state(instance, "box")["Status"] == "exited")
    assert details(instance, "box")["RestartCount"] == 2
    assert state(instance, "box")["ExitCode"] == 4
    assert instance.cloche("wait", "box").out == "4\n"


@test
def restarts_go_on_without_a_daemon_and_are_adopted(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sh", "-c", "echo run; sleep 0.1; exit 1",
           restartPolicy={"name": "unless-stopped"})
    instance.kill_daemon()
    log = pathlib.Path(instance.root) / "containers"
    runs = lambda: sum(path.read_text().count("F run") for path in log.glob("*/log"))
    before = runs()
    wait_for(lambda: runs() >= before + 3)
    instance.start_daemon()
    wait_for(lambda: details(instance, "box")["RestartCount"] >= 3)
    instance.cloche("stop", "-t", "1", "box")
    assert state(instance, "box")["Status"] == "exited"


@test
def the_daemon_dies_at_any_moment_of_a_restart(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sh", "-c", "echo run; exit 1", restartPolicy={"name": "always"})
    for number in range(8):
        time.sleep(0.03 * number)
        instance.kill_daemon()
        instance.start_daemon()
        assert state(instance, "box")["Status"] in ("running", "restarting"), number
    count = details(instance, "box")["RestartCount"]
    wait_for(lambda: details(instance, "box")["RestartCount"] > count, 120)
    instance.cloche("rm", "-f", "box")


@test
def a_lost_monitor_s_container_is_started_again(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sleep", "1000", restartPolicy={"name": "always"})
    create(instance, "plain", "sleep", "1000")
    for _ in range(2):
        monitor = state(instance, "box")["MonitorPid"]
        os.kill(monitor, signal.SIGKILL)
        wait_for(lambda: state(instance, "box")["Status"] == "running" and
                 state(instance, "box").get("MonitorPid") not in (None, monitor))
    assert details(instance, "box")["RestartCount"] == 2
    # And while no daemon lives.
    monitor = state(instance, "box")["MonitorPid"]
    plain = state(instance, "plain")["MonitorPid"]
    instance.kill_daemon()
    os.kill(monitor, signal.SIGKILL)
    os.kill(plain, signal.SIGKILL)
    instance.start_daemon()
    wait_for(lambda: state(instance, "box")["Status"] == "running")
    assert state(instance, "plain")["Status"] == "exited"
    assert state(instance, "plain")["ExitCode"] == 255
    instance.cloche("kill", "box")
    assert state(instance, "box")["Status"] == "exited"


@test
def a_stop_takes_back_what_the_daemon_would_start(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sleep", "1000", restartPolicy={"name": "always"})
    # Each loss makes the next wait longer: in one of them the stop must come.
    for _ in range(5):
        monitor = state(instance, "box")["MonitorPid"]
        os.kill(monitor, signal.SIGKILL)
        wait_for(lambda: state(instance, "box").get("MonitorPid") not in (None, monitor) and
                 state(instance, "box")["Status"] == "running")
    os.kill(state(instance, "box")["MonitorPid"], signal.SIGKILL)
    wait_for(lambda: state(instance, "box")["Status"] == "restarting")
    instance.cloche("stop", "box")
    assert state(instance, "box")["Status"] == "exited"
    time.sleep(5)
    assert state(instance, "box")["Status"] == "exited"
    instance.cloche("rm", "box")


@test
def health_is_told_and_changes_are_events(instance, images):
    load(instance, images)
    instance.start_daemon()
    second = 1_000_000_000
    create(instance, "box", "sh", "-c", "touch /well; sleep 1000",
           healthcheck={"test": ["CMD-SHELL", "echo looked; test -e /well"],
                        "interval": second // 5, "retries": 2})
    wait_for(lambda: state(instance, "box")["Health"]["Status"] == "healthy")
    health = state(instance, "box")["Health"]
    assert health["FailingStreak"] == 0 and health["Log"][0]["Output"] == "looked\n", health
    assert health["Log"][0]["ExitCode"] == 0 and health["Log"][0]["Start"] <= health["Log"][0]["End"]
    assert "(healthy)" in status_line(instance, "box")
    instance.cloche("exec", "box", "rm", "/well")
    wait_for(lambda: state(instance, "box")["Health"]["Status"] == "unhealthy")
    assert "(unhealthy)" in status_line(instance, "box")
    found = instance.cloche("rpc", "call", "container.list", 'filters:={"health": ["unhealthy"]}').out
    assert [one["names"] for one in json.loads(found)["containers"]] == [["box"]], found
    instance.kill_daemon()
    instance.start_daemon()
    assert state(instance, "box")["Health"]["Status"] == "unhealthy"
    assert len(state(instance, "box")["Health"]["Log"]) >= 1
    instance.cloche("exec", "box", "touch", "/well")
    wait_for(lambda: state(instance, "box")["Health"]["Status"] == "healthy")
    instance.cloche("rm", "-f", "box")


@test
def health_changes_are_events(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sleep", "1000",
           healthcheck={"test": ["CMD", "false"], "interval": 100_000_000, "retries": 1})
    wait_for(lambda: state(instance, "box")["Health"]["Status"] == "unhealthy")
    events = instance.cloche("events", "--since", "1h", "--until", "0s",
                             "--format", "{{.Action}}", code=None).out
    assert "health_status: unhealthy" in events, events
    instance.cloche("rm", "-f", "box")


@test
def an_unhealthy_container_is_restarted(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sh", "-c", "rm -f /sick; exec sleep 1000", stopTimeout=1,
           healthcheck={"test": ["CMD-SHELL", "test ! -e /sick"], "interval": 100_000_000,
                        "retries": 1},
           restartPolicy={"name": "no", "whenUnhealthy": True})
    wait_for(lambda: state(instance, "box")["Health"]["Status"] == "healthy")
    instance.cloche("exec", "box", "touch", "/sick")
    wait_for(lambda: details(instance, "box")["RestartCount"] == 1)
    wait_for(lambda: state(instance, "box")["Health"]["Status"] == "healthy")
    instance.cloche("rm", "-f", "box")


@test
def a_paused_container_is_not_checked(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sleep", "1000",
           healthcheck={"test": ["CMD", "true"], "interval": 50_000_000, "timeout": 300_000_000,
                        "retries": 1})
    wait_for(lambda: state(instance, "box")["Health"]["Status"] == "healthy")
    instance.cloche("rpc", "call", "container.pause", "container=box")
    time.sleep(1.5)
    assert state(instance, "box")["Health"]["Status"] == "healthy"
    instance.cloche("rpc", "call", "container.unpause", "container=box")
    last = state(instance, "box")["Health"]["Log"][-1]
    wait_for(lambda: state(instance, "box")["Health"]["Log"][-1] != last)
    assert state(instance, "box")["Health"]["Status"] == "healthy"
    instance.cloche("rm", "-f", "box")


@test
def logs_go_over_several_files(instance, images):
    load(instance, images)
    instance.start_daemon()
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 1000"
    create(instance, "box", "sh", "-c", script,
           logConfig={"type": "json-file", "config": {"max-size": "50k", "max-file": "10"}})
    lines = lambda *options: instance.cloche("logs", *options, "box").out.splitlines()
    expected = [f"line {number}" for number in range(3000)]
    wait_for(lambda: lines()[-1:] == ["line 2999"])
    for running in (True, False):
        assert lines() == expected, running
        assert lines("--tail", "2900") == expected[-2900:]
        assert lines("--tail", "5") == expected[-5:]
        assert lines("--tail", "0") == []
        stamps = [line.split(" ", 1) for line in lines("--timestamps")]
        since = stamps[100][0]
        assert lines("--since", since) == [text for stamp, text in stamps if stamp >= since]
        if running:
            instance.cloche("stop", "-t", "0", "box")
        else:
            assert lines("--follow", "--tail", "10") == expected[-10:]
    folder = pathlib.Path(details(instance, "box")["LogPath"]).parent
    assert len(list(folder.glob("log*"))) == 3, list(folder.glob("log*"))


@test
def an_attached_run_gets_its_exit_code_without_a_daemon(instance, images):
    load(instance, images)
    instance.start_daemon()
    client = instance.start("run", "-i", "--name", "box", "--restart", "always", IMAGE, "sh", "-c",
                            "read x; exit 6")
    wait_for(lambda: status_line(instance, "box").startswith("Up"))
    os.kill(instance.daemon_pid(), signal.SIGSTOP)
    pid = instance.daemon_pid()
    os.kill(pid, signal.SIGKILL)
    client.stdin.write(b"\n")
    client.stdin.flush()
    out, err = client.communicate(timeout=60)
    assert client.returncode == 6, (client.returncode, err)
    instance.cloche("rm", "-f", "box")


@test
def killed_at_random_everything_comes_back(instance, images):
    load(instance, images)
    instance.start_daemon()
    seed = random.randrange(1 << 32)
    note(f"seed {seed}")
    chance = random.Random(seed)
    health = {"test": ["CMD", "true"], "interval": 100_000_000}
    names = [f"box{number}" for number in range(8)]
    for number, name in enumerate(names):
        script = f"echo run; sleep {number % 4}; exit 1" if number % 4 else "echo run; sleep 1000"
        create(instance, name, "sh", "-c", script, restartPolicy={"name": "unless-stopped"},
               healthcheck=health)
    ended = time.monotonic() + 12
    while time.monotonic() < ended:
        time.sleep(chance.random() * 0.7)
        processes = instance.processes()
        victims = [pid for pid in processes if _name(pid) in ("cloched", "cloche-monitor")]
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
        if chance.random() < 0.3:
            instance.cloche("ps", code=None)
    instance.start_daemon()
    up = lambda: [name for name in names if state(instance, name)["Status"] in ("running", "restarting")]
    try:
        wait_for(lambda: up() == names, what="all of them are back")
    except AssertionError:
        note(instance.cloche("ps", "-a").out)
        raise
    assert all(details(instance, name)["RestartCount"] > 0 for name in names[1:4])
    instance.cloche("rm", "-f", *names)
    assert instance.cloche("ps", "-aq").out == ""


def _name(pid):
    try:
        return open(f"/proc/{pid}/comm").read().strip()
    except OSError:
        return ""


@test
def init_reaps_and_passes_signals_on(instance, images):
    load(instance, images)
    instance.start_daemon()
    script = ("trap 'echo got TERM; exit 9' TERM; (sleep 0.1 & exec true); echo up; "
              "while :; do sleep 0.1; done")
    create(instance, "box", "sh", "-c", script, init=True)
    wait_for(lambda: "up" in instance.cloche("logs", "box").out)
    wait_for(lambda: " Z" not in instance.cloche("exec", "box", "ps", "-o", "pid,stat,args").out)
    first = instance.cloche("exec", "box", "cat", "/proc/1/cmdline").out.split("\0")
    assert first[:2] == ["/dev/docker-init", "--"], first
    instance.cloche("stop", "box")
    assert state(instance, "box")["ExitCode"] == 9
    assert "got TERM" in instance.cloche("logs", "box").out
    assert instance.cloche("diff", "box").out.count("docker-init") == 0
    for command, code in ((["sh", "-c", "kill -9 $$"], 137), (["/no/such"], 127), (["/etc"], 126)):
        create(instance, f"box{code}", *command, init=True)
        assert instance.cloche("wait", f"box{code}").out == f"{code}\n"


@test
def what_makes_no_sense_is_refused(instance, images):
    load(instance, images)
    instance.start_daemon()
    wrong = [
        ({"restartPolicy": {"name": "always", "maximumRetryCount": 3}}, "maximum retry count"),
        ({"restartPolicy": {"name": "on-failure", "maximumRetryCount": -1}}, "negative"),
        ({"restartPolicy": {"name": "always"}, "autoRemove": True}, "AutoRemove"),
        ({"healthcheck": {"test": ["WHAT", "x"]}}, "healthcheck type"),
        ({"healthcheck": {"test": ["CMD", "x"], "interval": 5}}, "less than 1ms"),
        ({"healthcheck": {"test": ["CMD", "x"], "retries": -1}}, "negative"),
        ({"logConfig": {"type": "syslog"}}, "no log driver named 'syslog'"),
        ({"logConfig": {"config": {"max-size": "lots"}}}, "max-size"),
        ({"logConfig": {"config": {"max-file": "0"}}}, "less than 1"),
        ({"logConfig": {"config": {"colour": "red"}}}, "unknown log opt 'colour'"),
    ]
    for spec, text in wrong:
        result = create_only(instance, code=None, command=["true"], **spec)
        assert result.code != 0 and text in result.err, (spec, result.err)
    create(instance, "quiet", "echo", "x", logConfig={"type": "none"})
    assert "does not support reading" in instance.cloche("logs", "quiet", code=1).err


@test
def after_the_machine_s_restart(instance, images):
    load(instance, images)
    instance.start_daemon()
    for name, policy, stopped in (("always", "always", True), ("unless", "unless-stopped", False),
                                  ("stopped", "unless-stopped", True), ("none", "no", False),
                                  ("failed", "on-failure", False)):
        create(instance, name, "sleep", "1000", restartPolicy={"name": policy})
        if stopped:
            instance.cloche("stop", "-t", "0", name)
    create_only(instance, name="never", command=["sleep", "1"], restartPolicy={"name": "always"})
    # Another daemon of the same boot lets those be that somebody stopped.
    instance.kill_daemon()
    instance.start_daemon()
    assert state(instance, "always")["Status"] == "exited"
    # The machine goes down: everything is gone but the disk.
    instance.kill_daemon()
    for process in instance.processes():
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: not instance.processes())
    forget_boot(instance)
    instance.start_daemon()
    running = lambda: sorted(instance.cloche("ps", "--format", "{{.Names}}").out.split())
    wait_for(lambda: running() == ["always", "failed", "unless"])
    assert state(instance, "never")["Status"] == "created"
    assert state(instance, "stopped")["Status"] == "exited"


def forget_boot(instance):
    with sqlite3.connect(f"{instance.root}/state.db") as db:
        db.execute("UPDATE engine_settings SET value = 'another' WHERE name = 'boot'")


STUBBORN = ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")


def programs_with_slow_runtime(instance, scratch):
    """A runtime that does not come back from `run` as long as the file that is returned is there."""
    flag = scratch / "hang"
    folder = scratch / "libexec"
    folder.mkdir()
    for path in PROGRAMS.iterdir():
        if path.name != "cloche-runtime":
            (folder / path.name).symlink_to(path)
    script = folder / "cloche-runtime"
    script.write_text(f'''#!/bin/sh
if [ -e {flag} ]; then
    for word; do
        if [ "$word" = run ]; then sleep 1000; fi
    done
fi
exec {PROGRAMS}/cloche-runtime "$@"
''')
    script.chmod(0o755)
    instance.env["CLOCHE_LIBEXEC"] = str(folder)
    return flag


def hangs(instance):
    return any(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0" b"1000\0"
               for pid in instance.processes() if os.path.exists(f"/proc/{pid}/cmdline"))


@test
def what_was_asked_to_end_ends(instance, images, scratch):
    """A runtime that hangs, a monitor that hangs, stops that wait for stops, pauses at the wrong time."""
    flag = programs_with_slow_runtime(instance, scratch)
    load(instance, images)
    instance.start_daemon()
    create(instance, "again", "sleep", "0.2", restartPolicy={"name": "always"})
    flag.touch()
    wait_for(lambda: hangs(instance))
    assert instance.cloche("stop", "-t", "1", "again").out
    assert state(instance, "again")["Status"] == "exited" and not hangs(instance)
    create_only(instance, name="box", command=["true"])
    starting = instance.start("start", "box")
    wait_for(lambda: hangs(instance))
    instance.cloche("rm", "-f", "box")
    assert "killed while it was started" in starting.communicate()[1].decode() and starting.returncode == 1
    flag.unlink()
    assert not hangs(instance) and instance.cloche("ps", "-aq", "-f", "name=box").out == ""
    # Two monitors that do not do anything any more, and meanwhile a stop that gives much time.
    for name in ("removed", "stopped"):
        create(instance, name, "sleep", "1000")
        os.kill(state(instance, name)["MonitorPid"], signal.SIGSTOP)
    waiting = [instance.start("rm", "-f", "removed"), instance.start("stop", "-t", "0", "stopped")]
    create(instance, "box", *STUBBORN)
    patient = instance.start("stop", "-t", "3600", "box")
    wait_for(lambda: instance.cloche("events", "--since", "1m", "--until", "0s", "-f", "event=kill", "-f",
                                     "container=box").out)
    assert "a running container" in instance.cloche("rm", "box", code=1).err
    instance.cloche("stop", "-t", "1", "box")
    assert patient.wait() == 0 and state(instance, "box")["ExitCode"] == 137
    # A pause meets the end of a run, or a kill.
    create(instance, "short", "sleep", "0.05", restartPolicy={"name": "always"})
    for _ in range(15):
        instance.cloche("pause", "short", code=None)
        instance.cloche("unpause", "short", code=None)
    instance.cloche("rm", "-f", "short")
    for _ in range(4):
        instance.cloche("start", "box")
        pausing = instance.start("pause", "box")
        instance.cloche("kill", "box", code=None)
        pausing.communicate()
        instance.cloche("kill", "box", code=None)
        assert state(instance, "box")["Status"] == "exited"
    assert [process.wait() for process in waiting] == [0, 0]
    assert state(instance, "stopped")["Status"] == "exited"
    assert instance.cloche("ps", "-aq", "-f", "name=removed").out == ""


@test
def a_stop_is_known_before_its_end(instance, images):
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", *STUBBORN, restartPolicy={"name": "unless-stopped"})
    # An unhealthy one that gives no time to stop is killed.
    create(instance, "sick", "sleep", "1000", stopTimeout=0,
           healthcheck={"test": ["CMD", "false"], "interval": 100_000_000, "retries": 1},
           restartPolicy={"name": "no", "whenUnhealthy": True})
    stopping = instance.start("stop", "-t", "2", "box")
    wait_for(lambda: instance.cloche("events", "--since", "1m", "--until", "0s", "-f", "event=kill").out)
    instance.cloche("volume", "create", "behind")  # what was to be written before this, is
    instance.kill_daemon()
    stopping.communicate()
    instance.start_daemon()
    wait_for(lambda: state(instance, "box")["Status"] == "exited")
    wait_for(lambda: details(instance, "sick")["RestartCount"] >= 1)
    instance.cloche("rm", "-f", "sick")
    instance.kill_daemon()
    forget_boot(instance)
    instance.start_daemon()
    assert state(instance, "box")["Status"] == "exited"


def change_rows(instance, statement):
    """While no daemon lives."""
    database = sqlite3.connect(instance.root / "state.db")
    with database:
        database.execute(statement)
    database.close()


@test
def what_is_half_removed_or_unreadable_is_dead(instance, images):
    load(instance, images)
    instance.start_daemon()
    instance.cloche("run", "--name", "stuck", IMAGE, "touch", "/x")
    instance.cloche("create", "--name", "strange", IMAGE)
    create(instance, "alive", "sleep", "1000", restartPolicy={"name": "always"})
    folder = instance.root / "containers" / details(instance, "stuck")["Id"]
    # Something of the machine's is mounted in it: nobody may delete that.
    run("mount", "--bind", "/etc/hostname", folder / "hosts")
    try:
        assert "Device or resource busy" in instance.cloche("rm", "stuck", code=1).err
        for _ in range(2):
            assert state(instance, "stuck")["Status"] == "dead" and status_line(instance, "stuck") == "Dead"
            assert "marked for removal" in instance.cloche("start", "stuck", code=1).err
            instance.kill_daemon()
            change_rows(instance, "UPDATE engine_containers SET effective = '{' WHERE name = 'strange'")
            instance.start_daemon()
    finally:
        run("umount", folder / "hosts")
    instance.cloche("rm", "stuck")
    assert not folder.exists()
    assert status_line(instance, "strange") == "Dead" and state(instance, "alive")["Status"] == "running"
    assert "strange" in instance.cloche("ps", "-a").out and state(instance, "strange")["Error"]
    instance.cloche("rm", "strange")
    assert status_line(instance, "strange") == ""


def log_files(instance, name):
    folder = instance.root / "containers" / details(instance, name)["Id"]
    return sorted(path.name for path in folder.glob("log*"))


def packed(instance, name, files):
    """Waits until all but the file in use are packed."""
    wanted = sorted(["log"] + [f"log.{number}.gz" for number in range(1, files)])
    wait_for(lambda: log_files(instance, name) == wanted, what=f"{wanted} {log_files(instance, name)}")


def attached_with_logs(instance, name, count):
    """So many lines of what a client of docker's gets that attaches with the log."""
    text, rest = b"", b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(instance.run_folder / "docker.sock"))
        sock.sendall(f"POST /v1.41/containers/{name}/attach?logs=1&stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n"
                     "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode())
        while b"\r\n\r\n" not in rest:
            rest += sock.recv(65536)
        assert rest.startswith(b"HTTP/1.1 101"), rest
        rest = rest.partition(b"\r\n\r\n")[2]
        while text.count(b"\n") < count:
            while len(rest) < 8 or len(rest) < 8 + int.from_bytes(rest[4:8], "big"):
                rest += sock.recv(65536)
            length = 8 + int.from_bytes(rest[4:8], "big")
            text, rest = text + rest[8:length], rest[length:]
    return text.decode().splitlines()


@test
def full_files_of_a_log_are_packed_and_read_all_the_same(instance, images):
    load(instance, images)
    script = "i=0; while [ $i -lt 900 ]; do echo line $i; i=$((i+1)); test $((i%200)) = 0 && sleep 0.3; done; " \
             "exec sleep 1000"
    options = ("--log-opt", "max-size=8k", "--log-opt", "max-file=20", "--log-opt", "compress=true")
    instance.cloche("run", "-d", "--name", "box", *options, IMAGE, "sh", "-c", script)
    instance.kill_daemon()  # the monitor does it
    monitor = instance.root / "containers"
    log = wait_for(lambda: [path for path in monitor.glob("*/log") if "line 899\n" in path.read_text()])[0]
    # A file that is being packed is there twice, and its packed half has a name of its own.
    count = len({path.name.removesuffix(".gz") for path in log.parent.glob("log*")} - {"log.packing"})
    assert count > 4, list(log.parent.iterdir())
    instance.start_daemon()
    packed(instance, "box", count)
    assert log.with_name("log.1.gz").stat().st_size < 4000
    lines = [f"line {number}" for number in range(900)]
    assert instance.cloche("logs", "box").lines == lines
    for tail in (1, 250, 700, 899, 5000):
        assert instance.cloche("logs", "--tail", tail, "box").lines == lines[-tail:], tail
    for number in (0, 200, 600):  # the first of those that came together
        stamp = instance.cloche("logs", "-t", "box").lines[number].split()[0]
        assert instance.cloche("logs", "--since", stamp, "box").lines == lines[number:], number
        part = instance.cloche("logs", "--until", stamp, "box").lines
        assert part == lines[:len(part)] and number <= len(part) <= number + 200, (number, len(part))
    # Followers begin in what is packed and go on.
    for start in (("--tail", "850"), ()):
        with instance.start("logs", "-f", *start, "box") as following:
            wanted = lines[-850:] if start else lines
            got = [following.stdout.readline().decode().rstrip("\n") for _ in wanted]
            assert got == wanted
            following.kill()
    # So does who attaches with what is in the log.
    assert attached_with_logs(instance, "box", len(lines)) == lines
    assert not list(log.parent.glob("log.packing"))
    # What a monitor that was killed has left is packed by the next one, from its beginning.
    instance.cloche("stop", "-t", "0", "box")
    whole = gzip.decompress(log.with_name("log.2.gz").read_bytes())
    log.with_name("log.2").write_bytes(whole)
    log.with_name("log.2.gz").write_bytes(b"cut off")
    log.with_name("log.packing").write_bytes(b"cut off")
    assert instance.cloche("logs", "box").lines == lines
    instance.cloche("start", "box")
    wait_for(lambda: "log.2" not in log_files(instance, "box") and "log.packing" not in log_files(instance, "box"))
    wait_for(lambda: instance.cloche("logs", "box").lines == lines + lines)
    # One that is damaged is said to be.
    log.with_name("log.3.gz").write_bytes(b"no such thing")
    assert "cannot be unpacked" in instance.cloche("logs", "box", code=1).err
    assert instance.cloche("logs", "--tail", "10", "box").lines == lines[-10:]
    instance.cloche("rm", "-f", "box")


def trace(pid):
    """From now on its end waits for us, and so does that of the init of its PID namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    assert libc.ptrace(0x4206, pid, None, None) == 0, os.strerror(ctypes.get_errno())  # PTRACE_SEIZE


@test
def what_was_killed_and_does_not_end_is_told_and_not_paused(instance, images):
    """Or it would stand still before its end. Whoever waits for that is told when it does not come."""
    load(instance, images)
    instance.start_daemon()
    create(instance, "box", "sh", "-c", "sleep 1000 & wait")
    init = state(instance, "box")["Pid"]
    children = pathlib.Path(f"/proc/{init}/task/{init}/children")
    wait_for(lambda: children.read_text().split())
    child = int(children.read_text().split()[0])
    trace(child)
    killing = instance.start("kill", "box")
    wait_for(lambda: instance.cloche("events", "--since", "1m", "--until", "0s", "-f", "event=kill", "-f",
                                     "container=box").out)
    assert state(instance, "box")["Running"], "it cannot end yet"
    assert "is not running" in instance.cloche("pause", "box", code=1).err
    assert not state(instance, "box")["Paused"]
    assert "a process of it does not react" in killing.communicate()[1].decode() and killing.returncode == 1
    assert state(instance, "box")["Running"]
    os.waitpid(child, 0x40000000)  # __WALL
    instance.cloche("wait", "box")
    assert state(instance, "box")["ExitCode"] == 137


@test
def packing_goes_with_limits_only(instance, images):
    load(instance, images)
    for options in (("max-file=1",), ("max-size=-1",)):
        words = [word for option in (*options, "compress=true") for word in ("--log-opt", option)]
        assert "compress cannot be true" in instance.cloche("create", *words, IMAGE, code=125).err
    assert "invalid value for compress" in instance.cloche("create", "--log-opt", "compress=yes", IMAGE, code=125).err
    for driver in ("syslog", "journald", "fluentd", "gelf"):
        assert f"no log driver named '{driver}'" in instance.cloche("create", "--log-driver", driver, IMAGE, code=125).err
    for driver in ("none", "local", "json-file"):
        instance.cloche("run", "--name", driver, "--log-driver", driver, IMAGE, "echo", "said")
    for driver in ("local", "json-file"):
        assert instance.cloche("logs", driver).out == "said\n"
    assert "does not support reading" in instance.cloche("logs", "none", code=1).err


@test
def what_an_unreadable_container_holds_is_nobody_elses(instance, images):
    """A container of a newer version goes on, and its address and port stay its own."""
    load(instance, images)
    instance.cloche("network", "create", "--subnet", "10.213.7.0/29", "tight")
    instance.cloche("run", "-d", "--name", "strange", "--network", "tight", "-p", "18093:80",
                    "--restart", "always", IMAGE, "sleep", "1000")
    (network,) = details(instance, "strange")["NetworkSettings"]["Networks"].values()
    address = network["IPAddress"]
    instance.kill_daemon()
    change_rows(instance, "UPDATE engine_containers SET record = '{' WHERE name = 'strange'")
    instance.start_daemon()
    assert status_line(instance, "strange") == "Dead"
    # Of six addresses one is the gateway's.
    found = []
    for number in range(4):
        instance.cloche("run", "-d", "--name", f"box{number}", "--network", "tight", IMAGE, "sleep", "1000")
        (network,) = details(instance, f"box{number}")["NetworkSettings"]["Networks"].values()
        found.append(network["IPAddress"])
    assert address not in found, (address, found)
    assert "no free address" in instance.cloche("run", "--rm", "--network", "tight", IMAGE, "true",
                                                code=125).err
    assert "in use" in instance.cloche("run", "--rm", "--network", "tight", "--ip", address, IMAGE, "true",
                                       code=125).err
    assert "in use" in instance.cloche("run", "--rm", "-p", "18093:80", IMAGE, "true", code=125).err
    instance.cloche("rm", "-f", *(f"box{number}" for number in range(4)))
    assert "active endpoints" in instance.cloche("network", "rm", "tight", code=1).err
    assert "cannot be read" in instance.cloche("rm", "strange", code=1).err
    instance.cloche("rm", "-f", "strange")
    assert status_line(instance, "strange") == ""
    instance.cloche("run", "--rm", "--network", "tight", "--ip", address, "-p", "18093:80", IMAGE, "true")
    instance.cloche("network", "rm", "tight")


if __name__ == "__main__":
    main()
