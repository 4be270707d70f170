#!/usr/bin/env python3
"""cloche-monitor under a daemon of the test's own, with a real runtime below it."""

import hashlib
import os
import signal
import socket
import struct
import threading
import time

from fake_daemon import *
from harness import main, note, run, test, wait_for


def sh(script):
    return ["/bin/sh", "-c", script]


@test
def output_exit_code_and_files(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("echo out; echo err >&2; exit 7")) as monitor:
        stream = monitor.daemon.attach()
        assert monitor.daemon.start() > 1
        assert unframe(stream.read_all()) == (b"out\n", b"err\n")
        end = monitor.daemon.wait_exited()
        assert end["code"] == 7 and not end["oom"] and end["finished"] >= end["started"] > 0, end
        monitor.wait()
        assert monitor.output() == (b"out\n", b"err\n")
        state = monitor.state()
        assert state["state"] == "exited" and state["exit_code"] == "7", state
        assert sorted(os.listdir(monitor.bundle)) == ["config.json", "rootfs", "status"]
        assert not os.listdir(monitor.runtime_root)


@test
def killed_by_signal_is_128_and_more(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        monitor.daemon.signal(signal.SIGKILL)
        assert monitor.daemon.wait_exited()["code"] == 137
        monitor.wait()


@test
def partial_lines_and_long_lines(images, scratch, unique):
    script = "printf 'no end'; read x; printf ' yet\\n'; printf tail"
    with Monitor(scratch, unique, images.root(), sh(script), options=["--open-stdin"]) as monitor:
        stream = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        monitor.daemon.start()
        wait_for(lambda: b"no end" in monitor.log.read_bytes())
        stream.write(b"\n")
        monitor.daemon.wait_exited()
        lines = [line.split(b" ", 2)[2] for line in monitor.log.read_bytes().splitlines()]
        assert lines == [b"P no end", b"F  yet", b"P tail"], lines
        monitor.wait()


@test
def lines_beyond_the_limit_are_cut(images, scratch, unique):
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short"
    with Monitor(scratch, unique, images.root(), sh(script)) as monitor:
        stream = monitor.daemon.attach()
        monitor.daemon.start()
        assert unframe(stream.read_all())[0] == b"x" * 40000 + b"\nshort\n"
        assert monitor.output()[0] == b"x" * 40000 + b"\nshort\n"
        monitor.wait()


@test
def binary_output_survives(images, scratch, unique):
    script = "head -c 3000000 /dev/urandom | tee /dev/stderr | sha256sum"
    with Monitor(scratch, unique, images.root(), sh(script)) as monitor:
        stream = monitor.daemon.attach()
        monitor.daemon.start()
        out, err = unframe(stream.read_all())
        assert len(err) == 3000000
        assert hashlib.sha256(err).hexdigest() == out.split()[0].decode()
        assert monitor.output() == (out, err)
        monitor.wait()


@test
def ten_megabytes_a_second_without_loss(images, scratch, unique):
    # 64 MB as fast as it goes: lines of 100 bytes.
    script = "yes $(head -c 99 /dev/zero | tr '\\0' y) | head -c 64000000"
    with Monitor(scratch, unique, images.root(), sh(script)) as monitor:
        started = time.monotonic()
        monitor.daemon.start()
        end = monitor.daemon.wait_exited()
        seconds = time.monotonic() - started
        assert end["code"] == 0
        assert monitor.output()[0] == (b"y" * 99 + b"\n") * 640000
        assert seconds < 64, f"64 MB took {seconds:.1f} s"
        note(f"64 MB in {seconds:.2f} s")
        monitor.wait()


@test
def a_client_that_does_not_read_holds_nobody_up(images, scratch, unique):
    script = "yes 0123456789 | head -c 8000000; echo done >&2"
    with Monitor(scratch, unique, images.root(), sh(script)) as monitor:
        slow, quick = monitor.daemon.attach(), monitor.daemon.attach()
        follower = monitor.daemon.follow()
        monitor.daemon.start()
        assert monitor.daemon.wait_exited()["code"] == 0
        expected = (b"0123456789\n" * 727273)[:8000000]
        for stream in (quick, slow):
            out, err = unframe(stream.read_all())
            assert out == expected and err == b"done\n"
        assert unlog(follower.read_all())[0] == expected
        monitor.wait()


@test
def attach_with_logs_brings_what_was_before(images, scratch, unique):
    script = "echo early; read line; echo got $line"
    with Monitor(scratch, unique, images.root(), sh(script), options=["--open-stdin"]) as monitor:
        monitor.daemon.start()
        wait_for(lambda: b"early" in monitor.log.read_bytes())
        stream = monitor.daemon.attach(ATTACH_LOGS | ATTACH_STDOUT | ATTACH_STDIN)
        stream.read_until(b"early\n")
        stream.write(b"late\n")
        assert unframe(stream.read_all())[0] == b"early\ngot late\n"
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def only_the_stream_that_was_asked_for(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("echo out; echo err >&2")) as monitor:
        stream = monitor.daemon.attach(ATTACH_STDERR)
        monitor.daemon.start()
        assert unframe(stream.read_all()) == (b"", b"err\n")
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def end_of_input_reaches_the_container(images, scratch, unique):
    options = ["--open-stdin", "--stdin-once"]
    with Monitor(scratch, unique, images.root(), ["/bin/sha256sum"], options=options) as monitor:
        stream = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        monitor.daemon.start()
        data = os.urandom(3_000_000)
        stream.write(data)
        stream.end_input()
        out = unframe(stream.read_all())[0]
        assert out.split()[0].decode() == hashlib.sha256(data).hexdigest()
        assert monitor.daemon.wait_exited()["code"] == 0
        monitor.wait()


@test
def input_of_a_client_that_has_left_still_arrives(images, scratch, unique):
    options = ["--open-stdin", "--stdin-once"]
    with Monitor(scratch, unique, images.root(), sh("sleep 0.5; wc -c"), options=options) as monitor:
        stream = monitor.daemon.attach(ATTACH_STDIN)
        monitor.daemon.start()
        stream.write(b"z" * 150_000)
        stream.close()
        monitor.daemon.wait_exited()
        assert monitor.output()[0] == b"150000\n"
        monitor.wait()


@test
def input_of_a_client_that_has_left_arrives_though_output_came_for_it(images, scratch, unique):
    # The monitor stands still while both happen, and sees the output first.
    root = scratch / "root"
    images.make_root(root)
    script = "until [ -e /go ]; do sleep 0.05; done; echo tick; touch /ticked; read line; echo got $line"
    with Monitor(scratch, unique, root, sh(script), options=["--open-stdin"]) as monitor:
        stream = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        monitor.daemon.start()
        monitor.process.send_signal(signal.SIGSTOP)
        (root / "go").touch()
        wait_for((root / "ticked").exists)
        stream.write(b"word\n")
        stream.close()
        monitor.process.send_signal(signal.SIGCONT)
        monitor.daemon.wait_exited()
        assert monitor.output()[0] == b"tick\ngot word\n", monitor.output()
        monitor.wait()


@test
def detach_keys_part_a_client_from_a_terminal(images, scratch, unique):
    keys = b"\x10\x11"
    with Monitor(scratch, unique, images.root(), ["/bin/cat"], tty=True,
                 options=["--open-stdin"]) as monitor:
        first = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT, keys)
        monitor.daemon.start()
        first.write(b"a\x10b\n")  # half of them and something else: it is all the container's
        first.read_until(b"a\x10b\r\n")
        first.write(b"\x10")
        first.write(b"\x11never\n")
        first.read_all()
        # The container's input is as it was.
        second = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        second.write(b"again\n")
        second.read_until(b"again")
        assert b"never" not in monitor.output()[0], monitor.output()
        document = monitor.write_process("p.json", ["/bin/cat"], tty=True)
        session = monitor.daemon.exec("e", document, EXEC_TTY | EXEC_STDIN, keys=keys)
        session.write(b"x" + keys)
        session.read_all()
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def without_open_stdin_there_is_none(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("wc -c")) as monitor:
        stream = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        stream.write(b"for nobody")
        monitor.daemon.start()
        assert unframe(stream.read_all())[0] == b"0\n"
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def terminal_with_size_and_input(images, scratch, unique):
    # The terminal gets its size when the monitor has it.
    script = "until stty size 2>&1 | grep -q 33; do sleep 0.1; done; stty size; read line; echo got $line; stty size"
    with Monitor(scratch, unique, images.root(), sh(script), tty=True,
                 options=["--open-stdin"]) as monitor:
        monitor.daemon.resize(33, 111)
        stream = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
        monitor.daemon.start()
        stream.read_until(b"33 111\r\n")
        monitor.daemon.resize(44, 122)
        stream.write(b"hello\n")
        data = stream.read_all()
        assert data == b"33 111\r\nhello\r\ngot hello\r\n44 122\r\n", data
        assert monitor.daemon.wait_exited()["code"] == 0
        assert monitor.output()[0] == data
        monitor.wait()


@test
def stop_waits_then_kills(images, scratch, unique):
    script = "trap 'echo term' TERM; echo ready; while true; do sleep 0.1; done"
    with Monitor(scratch, unique, images.root(), sh(script)) as monitor:
        stream = monitor.daemon.attach()
        monitor.daemon.start()
        stream.read_until(b"ready")
        started = time.monotonic()
        monitor.daemon.stop(700)
        assert monitor.daemon.wait_exited()["code"] == 137
        assert 0.6 < time.monotonic() - started < 60
        assert b"term" in monitor.output()[0]
        monitor.wait()


@test
def stop_with_the_containers_own_signal(images, scratch, unique):
    script = "trap 'exit 3' USR1; echo ready; while true; do sleep 0.1; done"
    with Monitor(scratch, unique, images.root(), sh(script),
                 options=["--stop-signal", signal.SIGUSR1]) as monitor:
        stream = monitor.daemon.attach()
        monitor.daemon.start()
        stream.read_until(b"ready")
        monitor.daemon.stop(20000)
        assert monitor.daemon.wait_exited()["code"] == 3
        monitor.wait()


@test
def sigterm_to_the_monitor_stops_the_container(images, scratch, unique):
    script = "trap 'exit 4' TERM; echo ready; while true; do sleep 0.1; done"
    with Monitor(scratch, unique, images.root(), sh(script)) as monitor:
        stream = monitor.daemon.attach()
        monitor.daemon.start()
        stream.read_until(b"ready")
        monitor.process.terminate()
        assert monitor.daemon.wait_exited()["code"] == 4
        monitor.wait()


@test
def exec_with_streams_and_exit_code(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        document = monitor.write_process("p1.json", sh("cat; echo err >&2; exit 9"))
        stream = monitor.daemon.exec("e1", document, EXEC_STDIN)
        data = os.urandom(500_000)
        writer = threading.Thread(target=lambda: (stream.write(data), stream.end_input()))
        writer.start()
        assert unframe(stream.read_all()) == (data, b"err\n")
        writer.join()
        assert monitor.daemon.wait_exec("e1") == 9
        assert not (monitor.bundle / "p1.json").exists()
        assert monitor.log.read_bytes() == b""
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def exec_on_a_terminal(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        document = monitor.write_process("p.json", sh(
            "until stty size 2>&1 | grep -q 20; do sleep 0.1; done; tty; stty size; read x; stty size"), tty=True)
        stream = monitor.daemon.exec("e", document, EXEC_TTY | EXEC_STDIN, 20, 70)
        stream.read_until(b"20 70\r\n")
        monitor.daemon.resize(25, 75, "e")
        stream.write(b"\n")
        stream.read_until(b"25 75\r\n")
        assert b"/dev/pts/" in stream.read_all()
        assert monitor.daemon.wait_exec("e") == 0
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def exec_output_waits_for_a_slow_client(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        document = monitor.write_process("p.json", sh("yes abcdefg | head -c 4000000"))
        stream = monitor.daemon.exec("e", document)
        time.sleep(1.2)  # longer than the grace for streams that are held open
        out = unframe(stream.read_all())[0]
        assert out == b"abcdefg\n" * 500000, len(out)
        assert monitor.daemon.wait_exec("e") == 0
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def exec_goes_on_when_its_client_leaves(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        document = monitor.write_process("p.json", sh("echo a; sleep 0.5; yes | head -c 900000; "
                                                      "exit 5"))
        stream = monitor.daemon.exec("e", document)
        stream.read_until(b"a\n")
        stream.close()
        assert monitor.daemon.wait_exec("e") == 5
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def exec_streams_held_by_a_grandchild_end_after_a_grace(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        document = monitor.write_process("p.json", sh("sleep 50 & echo started"))
        started = time.monotonic()
        stream = monitor.daemon.exec("e", document)
        assert unframe(stream.read_all())[0] == b"started\n"
        assert monitor.daemon.wait_exec("e") == 0
        assert time.monotonic() - started < 40
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def exec_detached_and_many_at_once(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        numbers = []
        for i in range(10):
            document = monitor.write_process(f"p{i}.json", sh(f"exit {i}"))
            payload = struct.pack("=72s128sIHH", f"e{i}".encode(), document.encode(), EXEC_DETACH,
                                  0, 0) + monitor.daemon.detach(b"")
            numbers.append(monitor.daemon.send(EXEC, payload))
        for number in numbers:
            monitor.daemon.answer(number)
        assert [monitor.daemon.wait_exec(f"e{i}") for i in range(10)] == list(range(10))
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def exec_of_a_missing_program_is_127(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        document = monitor.write_process("p.json", ["/no/such/program"])
        refused = None
        try:
            monitor.daemon.exec("e", document)
        except Refused as refusal:
            refused = refusal
        assert refused and refused.code == 127, refused
        monitor.daemon.stop(0)
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def start_of_a_missing_program_is_127(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/no/such/program"]) as monitor:
        stream = monitor.daemon.attach()
        try:
            monitor.daemon.start()
            raise AssertionError("it started")
        except Refused as refusal:
            assert refusal.code == 127 and "/no/such/program" in refusal.text, refusal
        assert stream.read_all() == b""
        monitor.wait()
        state = monitor.state()
        assert state["exit_code"] == "127" and "/no/such/program" in state["error"], state


@test
def start_of_what_is_no_program_is_126(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/etc/passwd"]) as monitor:
        try:
            monitor.daemon.start()
            raise AssertionError("it started")
        except Refused as refusal:
            assert refusal.code == 126, refusal
        monitor.wait()


@test
def a_broken_config_is_125(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/true"]) as monitor:
        (monitor.bundle / "config.json").write_text("{")
        try:
            monitor.daemon.start()
            raise AssertionError("it started")
        except Refused as refusal:
            assert refusal.code == 125, refusal
        monitor.wait()


@test
def the_next_daemon_takes_over(images, scratch, unique):
    script = "echo one; read line; echo $line; exit 6"
    with Monitor(scratch, unique, images.root(), sh(script), options=["--open-stdin"]) as monitor:
        pid = monitor.daemon.start()
        follower = monitor.daemon.follow()
        follower.read_until(b"one\n")
        monitor.write_process("p.json", sh("sleep 0.5; exit 8"))
        monitor.daemon.exec("e", "p.json")
        monitor.daemon.close()  # as a daemon that dies; the exec ends after it
        time.sleep(1)
        second = monitor.connect()
        status = second.hello()
        assert status["state"] == STATE_RUNNING and status["pid"] == pid, status
        assert status["log_size"] == monitor.log.stat().st_size
        assert second.wait_exec("e") == 8
        monitor.write_process("p2.json", sh("read x; exit 10"))
        input_of_e2 = second.exec("e2", "p2.json", EXEC_STDIN)
        third = monitor.connect()
        third.hello()
        running = [message for message in third.kept if message.kind == EXEC_RUNNING]
        assert len(running) == 1 and running[0].payload.startswith(b"e2\0"), running
        input_of_e2.write(b"\n")
        assert third.wait_exec("e2") == 10
        assert second.receive() is None, "the second daemon was to lose its connection"
        stream = third.attach(ATTACH_STDIN | ATTACH_STDOUT)
        stream.write(b"two\n")
        assert unframe(stream.read_all())[0] == b"two\n"
        assert third.wait_exited()["code"] == 6
        assert unlog(follower.read_all())[0] == b"one\ntwo\n"
        monitor.wait()


@test
def without_a_daemon_the_status_file_tells(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("read x; echo late; exit 3"),
                 options=["--open-stdin"]) as monitor:
        stream = monitor.daemon.attach(ATTACH_STDIN)
        monitor.daemon.start()
        assert monitor.state()["state"] == "running"
        monitor.daemon.close()
        stream.write(b"\n")
        monitor.wait()
        assert monitor.state()["exit_code"] == "3"
        assert monitor.output()[0] == b"late\n"
        assert not (monitor.bundle / "monitor.sock").exists()


@test
def daemon_gone_before_start_ends_the_monitor(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/true"]) as monitor:
        assert monitor.daemon.hello()["state"] == STATE_CREATED
        monitor.daemon.close()
        monitor.wait()
        assert not (monitor.bundle / "monitor.sock").exists()


@test
def killed_monitor_leaves_no_mount_and_no_netns(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"], netns=True) as monitor:
        pid = monitor.daemon.start()
        inside = os.stat(f"/proc/{pid}/ns/net").st_ino
        assert inside != os.stat("/proc/self/ns/net").st_ino
        assert str(monitor.bundle) not in open("/proc/self/mountinfo").read()
        assert str(monitor.bundle) in open(f"/proc/{monitor.process.pid}/mountinfo").read()
        monitor.process.kill()
        monitor.process.wait()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}/ns/net"))
        assert str(monitor.bundle) not in open("/proc/self/mountinfo").read()
        assert monitor.state()["state"] == "running"  # and nobody answers: killed
        (monitor.bundle / "monitor.sock").unlink()
    with Monitor(scratch, unique, images.root(), ["/bin/true"], netns=True) as monitor:
        monitor.daemon.start()
        assert monitor.daemon.wait_exited()["code"] == 0
        monitor.wait()


@test
def out_of_memory_is_told(images, scratch, unique):
    group = f"/sys/fs/cgroup/memory/{unique}"
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        group = f"/sys/fs/cgroup/{unique}"
    script = "x=$(yes | head -c 200000000); echo survived"
    with Monitor(scratch, unique, images.root(), ["/bin/sh", "-c", "exec " + "tail /dev/zero"],
                 memory=16 << 20, options=["--memory-cgroup", group]) as monitor:
        monitor.daemon.start()
        end = monitor.daemon.wait_exited()
        assert end["code"] == 137 and end["oom"] == 1, end
        monitor.wait()


@test
def a_full_disk_costs_the_log_and_nobody_else(images, scratch, unique):
    disk = scratch / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk)
    try:
        script = "i=0; while [ $i -lt 400 ]; do head -c 999 /dev/zero | tr '\\0' x; echo; " \
                 "i=$((i+1)); done; read word; echo $word"
        with Monitor(scratch, unique, images.root(), sh(script),
                     options=["--open-stdin", "--log", disk / "log"]) as monitor:
            stream = monitor.daemon.attach(ATTACH_STDIN | ATTACH_STDOUT)
            reader = threading.Thread(target=stream.read_all)
            reader.start()
            monitor.daemon.start()
            wait_for(lambda: (scratch / "complaints").stat().st_size)
            assert "No space left" in (scratch / "complaints").read_text()
            stream.write(b"word\n")
            reader.join()
            assert monitor.daemon.wait_exited()["code"] == 0
            out = unframe(stream.data)[0]
            assert out.endswith(b"word\n") and out.count(b"\n") == 401, out.count(b"\n")
            whole = unlog((disk / "log").read_bytes())[0]
            assert 200_000 < len(whole) < 262_144 and out.startswith(whole[:200_000])
            monitor.process.wait(60)
    finally:
        run("umount", disk)


@test
def the_stragglers_of_a_shared_pid_namespace_do_not_hold_it(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("sleep 55 & echo started"),
                 pidns=False) as monitor:
        started = time.monotonic()
        monitor.daemon.start()
        monitor.daemon.wait_exited()
        assert time.monotonic() - started < 50
        assert monitor.output()[0] == b"started\n"
        monitor.wait()


@test
def malformed_messages_are_refused(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        daemon = monitor.daemon
        for kind, payload in ((77, b""), (0, b""), (START, b"x"), (ATTACH, b"\0\0\0\0"),
                              (SIGNAL, struct.pack("=I", 65)), (RESIZE, b"e" * 80),
                              (SIGNAL, struct.pack("=I", 9)), (FOLLOW, b"\0" * 8)):
            try:
                daemon.call(kind, payload)
                raise AssertionError(f"{kind} was accepted")
            except Refused as refusal:
                assert refusal.code < 0, refusal
        number = daemon.send(HELLO, version=9)
        assert daemon.wait_for(lambda m: m.request == number).error()[0] == -93
        daemon.socket.send(b"short")
        assert daemon.receive().error()[0] == -74
        daemon.socket.send(b"\xff" * 300)
        assert daemon.receive().error()[0] == -74
        # Descriptors that nobody asked for are closed.
        before = len(os.listdir(f"/proc/{monitor.process.pid}/fd"))
        for _ in range(20):
            try:
                daemon.call(STATUS, b"", [0, 1, 2])
            except Refused:
                pass
        # The answer goes out a moment before they are closed.
        wait_for(lambda: len(os.listdir(f"/proc/{monitor.process.pid}/fd")) == before)
        daemon.start()
        try:
            daemon.start()
            raise AssertionError("started twice")
        except Refused as refusal:
            assert refusal.code == -114, refusal
        stranger = monitor.connect()
        number = stranger.send(STOP, struct.pack("=Ii", 9, 0))
        assert stranger.receive().error()[0] == -71  # HELLO comes first
        stranger.close()
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()


@test
def a_daemon_that_does_not_read_is_dropped(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), ["/bin/sleep", "100"]) as monitor:
        monitor.daemon.start()
        monitor.daemon.socket.settimeout(120)
        try:
            for _ in range(100000):
                monitor.daemon.send(STATUS)
            raise AssertionError("100000 answers are kept for a daemon that does not read")
        except (BrokenPipeError, ConnectionResetError):
            pass
        second = monitor.connect()
        assert second.hello()["state"] == STATE_RUNNING
        second.stop(0)
        second.wait_exited()
        monitor.wait()


@test
def no_descriptor_leaks_into_the_container(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("ls /proc/self/fd")) as monitor:
        stream = monitor.daemon.attach()
        monitor.daemon.start()
        assert unframe(stream.read_all())[0].split() == [b"0", b"1", b"2", b"3"]
        monitor.daemon.wait_exited()
        monitor.wait()


@test
def memory_of_a_monitor(images, scratch, unique):
    with Monitor(scratch, unique, images.root(), sh("yes | head -c 5000000; sleep 100")) as monitor:
        monitor.daemon.start()
        wait_for(lambda: monitor.log.exists() and monitor.log.stat().st_size > 100_000_000, 180)
        monitor.daemon.close()
        rollup = open(f"/proc/{monitor.process.pid}/smaps_rollup").read()
        pss = int([line for line in rollup.splitlines() if line.startswith("Pss:")][0].split()[1])
        note(f"PSS {pss} KB")
        assert pss < 2048, rollup
        daemon = monitor.connect()
        daemon.hello()
        daemon.stop(0)
        daemon.wait_exited()
        monitor.wait()


if __name__ == "__main__":
    main()
