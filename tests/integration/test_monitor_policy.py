#!/usr/bin/env python3
"""What cloche-monitor does by itself: restarts, health checks, rotation of the log. Under a daemon of
the test's own, which may be away."""

import os
import signal
import threading
import time

from fake_daemon import *
from harness import main, note, test, wait_for


def sh(script):
    return ["/bin/sh", "-c", script]


# ---------------------------------------------------------------- restarts


@test
def restarted_always_with_growing_delays_until_stopped(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("echo run; exit 0")) as monitor:
        daemon = monitor.daemon
        follower = daemon.follow()
        first = daemon.start(policy(RESTART_ALWAYS, delay=20, delay_max=80))
        ends, pids = [], [first]
        for number in range(1, 6):
            end = daemon.wait_restarting()
            assert end["code"] == 0 and end["restarts"] == number, end
            ends.append((end["next"] - end["finished"]) // 1_000_000)
            started = daemon.wait_restarted()
            assert started["restarts"] == number and started["started"] >= end["next"], started
            pids.append(started["pid"])
        # What a run leaves takes its time too: never less than the delay.
        assert all(took >= wanted for took, wanted in zip(ends, (20, 40, 80, 80, 80))), ends
        daemon.stop(0)
        assert daemon.wait_exited()["code"] in (0, 137)
        assert len(set(pids)) == 6
        monitor.wait()
        assert unlog(follower.read_all())[0].count(b"run\n") >= 5
        assert not os.listdir(monitor.runtime_root)


@test
def on_failure_is_bounded_and_success_ends_it(images, scratch, unique):
    root = images.root()
    with Monitor(scratch, unique, root, sh("exit 3")) as monitor:
        monitor.daemon.start(policy(RESTART_ON_FAILURE, retries=2, delay=10))
        assert [monitor.daemon.wait_restarting()["code"] for _ in range(2)] == [3, 3]
        assert monitor.daemon.wait_exited()["code"] == 3
        monitor.wait()
        assert monitor.state()["restarts"] == "2", monitor.state()
    script = "test -e /mark && exit 0; touch /mark; exit 1"
    (scratch / "second").mkdir()
    with Monitor(scratch / "second", unique + "b", root, sh(script)) as monitor:
        monitor.daemon.start(policy(RESTART_ON_FAILURE, delay=10))
        assert monitor.daemon.wait_restarting()["code"] == 1
        assert monitor.daemon.wait_exited()["code"] == 0
        monitor.wait()
    os.unlink(f"{root}/mark")


@test
def a_long_run_resets_the_delay(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("sleep 0.5; exit 1")) as monitor:
        monitor.daemon.start(policy(RESTART_ALWAYS, delay=10, delay_max=5000, reset=300))
        for _ in range(3):
            end = monitor.daemon.wait_restarting()
            monitor.daemon.wait_restarted()
        waited = (end["next"] - end["finished"]) / 1e6
        assert waited < 5000, waited
        monitor.daemon.update(policy(RESTART_ALWAYS, delay=10, delay_max=5000, reset=60000))
        monitor.daemon.wait_restarting()
        later = monitor.daemon.wait_restarting()
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        assert later["next"] - later["finished"] >= 20_000_000, later
        monitor.wait()


@test
def restarted_while_no_daemon_lives(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("echo run; sleep 0.05; exit 1"),
                 netns=True) as monitor:
        monitor.daemon.start(policy(RESTART_ALWAYS, delay=10, delay_max=20))
        monitor.daemon.close()
        wait_for(lambda: int(monitor.state().get("restarts", 0)) >= 3)
        daemon = monitor.connect()
        status = daemon.hello()
        assert status["restarts"] >= 3 and status["code"] == 1, status
        assert status["state"] in (STATE_RUNNING, STATE_RESTARTING), status
        daemon.wait_restarting()
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()
        assert monitor.output()[0].count(b"run\n") >= 4


@test
def a_stop_while_it_waits_takes_the_restart_back(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("exit 5")) as monitor:
        monitor.daemon.start(policy(RESTART_ALWAYS, delay=3600_000, delay_max=3600_000))
        monitor.daemon.wait_restarting()
        status = monitor.daemon.status()
        assert status["state"] == STATE_RESTARTING and status["pid"] == 0, status
        assert monitor.state()["state"] == "restarting"
        monitor.daemon.stop(10_000)
        assert monitor.daemon.wait_exited()["code"] == 5
        monitor.wait()
        state = monitor.state()
        assert (state["state"], state["exit_code"], state.get("restarts", "0")) == ("exited", "5", "0")


@test
def kill_ends_it_for_good_other_signals_do_not(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        daemon = monitor.daemon
        pid = daemon.start(policy(RESTART_ALWAYS, delay=10))
        os.kill(pid, signal.SIGKILL)  # not through the monitor: as a crash
        assert daemon.wait_restarting()["code"] == 137
        daemon.wait_restarted()
        daemon.signal(signal.SIGKILL)
        assert daemon.wait_exited()["code"] == 137
        monitor.wait()
    (scratch / "waits").mkdir()
    with Monitor(scratch / "waits", unique + "b", images.root(), sh("exit 1")) as monitor:
        daemon = monitor.daemon
        daemon.start(policy(RESTART_ALWAYS, delay=3600_000, delay_max=3600_000))
        daemon.wait_restarting()
        daemon.signal(signal.SIGHUP)
        assert daemon.status()["state"] == STATE_RESTARTING
        daemon.signal(signal.SIGKILL)
        assert daemon.wait_exited()["code"] == 1
        monitor.wait()


@test
def a_stop_at_any_moment_of_a_restart_holds(images, scratch, unique):
    for round_number in range(12):
        folder = scratch / str(round_number)
        folder.mkdir()
        with Monitor(folder, f"{unique}{round_number}", images.root(), sh("exit 1")) as monitor:
            monitor.daemon.start(policy(RESTART_ALWAYS, delay=1, delay_max=1))
            monitor.daemon.wait_restarting()
            time.sleep(round_number * 0.003)
            monitor.daemon.stop(5000)
            assert monitor.daemon.wait_exited()["code"] in (1, 137, 143)
            monitor.wait()
            assert not os.listdir(monitor.runtime_root)


@test
def a_restart_that_cannot_start_is_tried_again(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("exit 1")) as monitor:
        daemon = monitor.daemon
        config = monitor.bundle / "config.json"
        text = config.read_text()
        daemon.start(policy(RESTART_ALWAYS, delay=300, delay_max=600))
        daemon.wait_restarting()
        config.write_text("{}")
        wait_for(lambda: daemon.wait_restarting()["code"] == 125)
        config.write_text(text)
        daemon.wait_restarted()
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()


@test
def a_first_start_that_fails_is_not_tried_again(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/no/such/program"]) as monitor:
        try:
            monitor.daemon.start(policy(RESTART_ALWAYS))
            raise AssertionError("started")
        except Refused as refusal:
            assert refusal.code == 127, refusal
        monitor.wait()


@test
def attached_clients_end_with_the_run_followers_go_on(images, scratch, unique):
    script = "read line; echo got $line; exit 1"
    with Monitor(scratch, unique, images.root(), sh(script), options=["--open-stdin"]) as monitor:
        daemon = monitor.daemon
        follower = daemon.follow()
        stream = daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        daemon.start(policy(RESTART_ALWAYS, delay=10))
        for word in (b"one", b"two"):
            stream.write(word + b"\n")
            assert unframe(stream.read_all())[0] == b"got " + word + b"\n"
            stream.close()
            daemon.wait_restarted()
            stream = daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        daemon.stop(0)
        assert unframe(stream.read_all())[0] == b""
        assert unlog(follower.read_all())[0] == b"got one\ngot two\n"
        monitor.wait()


@test
def a_daemon_of_version_1_is_served(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("echo out; sleep 100"), protocol=1) as monitor:
        monitor.daemon.start()
        assert monitor.daemon.status()["state"] == STATE_RUNNING
        monitor.daemon.follow(0).read_until(b"out\n")
        try:
            monitor.daemon.call(UPDATE, policy())
            raise AssertionError("version 1 has an update")
        except Refused as refusal:
            assert refusal.code == -38, refusal
        new = monitor.connect()
        new.hello()
        new.update(policy(RESTART_ALWAYS, delay=10))
        os.kill(new.status()["pid"], signal.SIGKILL)
        new.wait_restarted()
        new.stop(0)
        new.wait_exited()
        monitor.wait()


# ---------------------------------------------------------------- health checks


def checked(monitor, script, how=RESTART_NO, **options):
    monitor.write_process("check.json", sh(script))
    return policy(how, check="check.json", **options)


@test
def health_goes_from_starting_to_healthy_to_unhealthy(images, scratch, unique):
    root = images.root()
    with Monitor(scratch, unique, root, ["/bin/sleep", "100"]) as monitor:
        daemon = monitor.daemon
        daemon.start(checked(monitor, "echo seen; test ! -e /sick", check_retries=2, interval=50))
        assert daemon.status()["health"] == HEALTH_STARTING
        assert daemon.wait_health() == HEALTH_HEALTHY
        result = monitor.checks()[0]
        assert result["output"] == b"seen\n" and result["exit_code"] == "0", result
        open(f"{root}/sick", "w").close()
        assert daemon.wait_health() == HEALTH_UNHEALTHY
        assert daemon.status()["streak"] >= 2
        os.unlink(f"{root}/sick")
        assert daemon.wait_health() == HEALTH_HEALTHY
        wait_for(lambda: int(monitor.checks()[-1]["number"]) > 5)
        assert len(monitor.checks()) == 5
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()
        assert "exec-health.pid" not in os.listdir(monitor.bundle)


@test
def failures_in_the_start_period_do_not_count(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        daemon = monitor.daemon
        daemon.start(checked(monitor, "exit 1", check_retries=1, interval=100, start_interval=20,
                             start_period=1500))
        wait_for(lambda: monitor.checks() and int(monitor.checks()[-1]["number"]) >= 3)
        status = daemon.status()
        result = monitor.checks()[2]
        started, checked_at = int(monitor.state()["started"]), int(result["finished"])
        assert checked_at - started > 1_500_000_000 or result["status"] == "starting", result
        assert daemon.wait_health() == HEALTH_UNHEALTHY
        assert time.time_ns() - started > 1_500_000_000, status
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()


@test
def a_check_that_hangs_is_killed_and_has_failed(images, scratch, unique):
    script = "sleep 1000 & sleep 2000"
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        daemon = monitor.daemon
        pid = daemon.start(checked(monitor, script, check_retries=2, interval=50, timeout=300))
        assert daemon.wait_health() == HEALTH_UNHEALTHY
        result = monitor.checks()[0]
        assert result["exit_code"] == "-1", result
        assert result["output"] == b"Health check exceeded timeout (0.300s)", result
        children = lambda: [int(p) for p in os.listdir("/proc") if p.isdigit() and
                            b"2000" in _cmdline(p)]
        wait_for(lambda: len(children()) <= 2)
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()


def _cmdline(pid):
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        return b""


@test
def restarted_when_unhealthy(images, scratch, unique):
    root = images.root()
    with Monitor(scratch, unique, root, sh("rm -f /sick; exec sleep 1000"),
                 options=["--stop-timeout", "1"]) as monitor:
        daemon = monitor.daemon
        daemon.start(checked(monitor, "test ! -e /sick", flags=WHEN_UNHEALTHY, check_retries=1,
                             interval=100, delay=10))
        assert daemon.wait_health() == HEALTH_HEALTHY
        daemon.close()
        open(f"{root}/sick", "w").close()
        wait_for(lambda: monitor.state().get("restarts") == "1")
        wait_for(lambda: monitor.state().get("health") == "healthy")
        daemon = monitor.connect()
        assert daemon.hello()["restarts"] == 1
        # Its own end is another matter: this policy does not restart it then.
        os.kill(daemon.status()["pid"], signal.SIGKILL)
        assert daemon.wait_exited()["code"] == 137
        monitor.wait()


@test
def the_end_of_the_container_is_no_failure_of_its_check(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        daemon = monitor.daemon
        daemon.start(checked(monitor, "sleep 50", check_retries=1, interval=10, timeout=60_000))
        wait_for(lambda: any(b"sleep\0" in _cmdline(p) and b"50" in _cmdline(p)
                             for p in os.listdir("/proc") if p.isdigit()))
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()
        assert not monitor.checks(), monitor.checks()


@test
def a_check_that_cannot_be_started_fails(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.write_process("check.json", ["/no/such/check"])
        monitor.daemon.start(policy(check="check.json", interval=50, check_retries=2))
        assert monitor.daemon.wait_health() == HEALTH_UNHEALTHY
        assert b"no such" in monitor.checks()[0]["output"].lower(), monitor.checks()[0]
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


# ---------------------------------------------------------------- the log's limit


def numbered(count, pause=""):
    return sh(f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); {pause} done")


def lines(count):
    return b"".join(b"line %d\n" % number for number in range(count))


@test
def the_log_is_rotated_and_followers_miss_nothing(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), numbered(20000)) as monitor:
        daemon = monitor.daemon
        follower, attached, lazy = daemon.follow(), daemon.attach(), daemon.follow()
        reader = threading.Thread(target=follower.read_all)
        reader.start()
        daemon.start(policy(log_size=200_000, log_files=3))
        out = unframe(attached.read_all())[0]
        assert out == lines(20000), len(out)
        daemon.wait_exited()
        reader.join()
        assert unlog(follower.data)[0] == lines(20000), len(follower.data)
        files = monitor.log_files()
        assert [path.name for path in files] == ["log.2", "log.1", "log"], files
        assert all(path.stat().st_size < 500_000 for path in files), files
        kept = monitor.output()[0]
        assert lines(20000).endswith(kept) and len(kept) > 60_000
        # One that does not read loses whole files, and at most a line is torn for it.
        rest = [line for line in lazy.read_all().split(b"\n") if line]
        torn = [line for line in rest if b" F line " not in line]
        assert rest[-1].endswith(b"F line 19999") and len(torn) <= 1, (len(rest), torn)
        monitor.wait()


@test
def a_follower_may_begin_in_an_older_file(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh(numbered(3000)[2] + "; sleep 100")) as monitor:
        daemon = monitor.daemon
        daemon.start(policy(log_size=50_000, log_files=10))
        wait_for(lambda: monitor.log.exists() and monitor.output()[0] == lines(3000))
        oldest = monitor.log_files()[0]
        assert oldest.name == "log.2", oldest
        stream = daemon.follow(0, oldest.stat().st_ino, FOLLOW_NOT)
        assert unlog(stream.read_all())[0] == lines(3000)
        attached = daemon.attach(ATTACH_STDOUT | ATTACH_LOGS)
        attached.read_until(b"line 2999\n")
        gone = daemon.follow(0, 1, FOLLOW_NOT)  # an inode that is no file of the log: the oldest
        assert unlog(gone.read_all())[0] == lines(3000)
        daemon.stop(0)
        daemon.wait_exited()
        assert unframe(attached.read_all())[0] == lines(3000)
        monitor.wait()


@test
def one_attached_gets_all_of_it_however_slow(images, scratch, unique):
    script = "yes 0123456789 | head -c 8000000; echo done"
    expected = (b"0123456789\n" * 727273)[:8000000] + b"done\n"
    with Monitor(scratch, unique, images.root(), sh(script)) as monitor:
        daemon = monitor.daemon
        slow, follower = daemon.attach(), daemon.follow()
        daemon.start(policy(log_size=1_000_000, log_files=2))
        size = lambda: sum(path.stat().st_size for path in monitor.log_files())
        wait_for(lambda: size() > 2_000_000)
        time.sleep(0.5)
        # The container stands: it has filled log and pipe.
        assert daemon.status()["state"] == STATE_RUNNING
        assert size() < 4_000_000, size()
        assert unframe(slow.read_all())[0] == expected
        daemon.wait_exited()
        assert follower.read_all().endswith(b"done\n")
        monitor.wait()


@test
def a_log_of_one_file_begins_anew(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), numbered(5000)) as monitor:
        monitor.daemon.start(policy(log_size=30_000, log_files=1))
        monitor.daemon.wait_exited()
        monitor.wait()
        assert [path.name for path in monitor.log_files()] == ["log"]
        assert monitor.log.stat().st_size < 40_000
        assert lines(5000).endswith(monitor.output()[0])


@test
def a_malformed_policy_is_refused(images, scratch, unique):
    wrong = [policy(7), policy(delay=0), policy(delay=10, delay_max=5), policy(log_files=0),
             policy(log_files=101), policy(check="../x"), policy(check="x" * 128),
             policy(check="check.json", interval=0), policy(check="c", timeout=0),
             policy(check="c", check_retries=0), policy()[:-4], policy() + b"\0"]
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        for how in wrong:
            try:
                monitor.daemon.start(how)
                raise AssertionError(f"taken: {how!r}")
            except Refused as refusal:
                assert refusal.code in (-22, -74), refusal
        monitor.daemon.start(policy())
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def memory_of_an_idle_monitor(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "1000"]) as monitor:
        daemon = monitor.daemon
        daemon.start(checked(monitor, "echo fine", interval=50, how=RESTART_ALWAYS))
        daemon.wait_health()
        wait_for(lambda: int(monitor.checks()[-1]["number"]) > 20)
        pss = lambda: int(open(f"/proc/{monitor.process.pid}/smaps_rollup").read()
                          .split("Pss:")[1].split()[0])
        note(f"PSS {pss()} KB after 20 health checks")
        assert pss() < 2048
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()


if __name__ == "__main__":
    main()
