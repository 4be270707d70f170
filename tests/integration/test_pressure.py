#!/usr/bin/env python3
"""The daemon's sockets under pressure: clients that do not read, that are many, that come when there
are no descriptors left, and a daemon that is killed in the middle of their calls."""

import json
import os
import resource
import signal
import socket
import threading
import time

from harness import main, note, test, wait_for
from raw_rpc import Rpc

IMAGE = "small:1"


def load(instance, images):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))


def memory(pid):
    """Bytes of a process that are in memory and its own."""
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def happen(rpc, times):
    """So many events: an image gets a name it has."""
    left = times
    while left:
        part = min(left, 20)
        rpc.socket.sendall(b"".join(
            json.dumps({"jsonrpc": "2.0", "id": number, "method": "image.tag",
                        "params": {"image": IMAGE, "name": "other:1"}}).encode() + b"\n"
            for number in range(part)))
        for _ in range(part):
            answer = rpc.receive()
            assert "result" in answer, answer
        left -= part


@test
def readers_that_do_not_read_hold_nobody_up_and_cost_little(instance, images):
    load(instance, images)
    pid = instance.start_daemon()
    slow = [Rpc(instance.socket) for _ in range(8)]
    for rpc in slow:
        for _ in range(4):
            rpc.call("events.subscribe")
    heard = []

    def listen(rpc):
        while len(heard) < 4000:
            heard.append(rpc.event(timeout=60)[0])
    with Rpc(instance.socket) as quick, Rpc(instance.socket) as worker:
        first = quick.call("events.subscribe", filters={"type": ["image"]})["next"]
        reader = threading.Thread(target=listen, args=(quick,))
        reader.start()
        happen(worker, 1500)
        before = memory(pid)
        happen(worker, 2500)
        reader.join(300)
        assert heard == list(range(first, first + 4000)), "one that reads hears everything, in order"
        grown = memory(pid) - before
        # 8 connections with 256 KiB and an event, and the ring, were there before.
        assert grown < 4 << 20, f"{grown} bytes more after 2500 events that 8 readers did not read"
    happen_more = Rpc(instance.socket)
    happen(happen_more, 1500)
    happen_more.close()
    # One that wakes up is told what it has lost, and misses nothing else.
    at = {number: None for number in range(1, 5)}
    lost = 0
    while min(value or 0 for value in at.values()) < first + 5500:
        notice = slow[0].notice()["params"]
        which = notice["subscription"]
        if "count" in notice:
            assert notice["reason"] == "slow" and notice["from"] == at[which], notice
            at[which] = notice["from"] + notice["count"]
            lost += notice["count"]
        else:
            assert at[which] in (None, notice["sequence"]), (notice, at)
            at[which] = notice["sequence"] + 1
    assert lost > 0
    for rpc in slow:
        rpc.close()


@test
def ten_thousand_idle_connections(instance):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 15000), hard))
    pid = instance.start_daemon()
    idle = []
    try:
        before = memory(pid)
        with Rpc(instance.socket) as rpc:
            for number in range(10000):
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(str(instance.socket))
                idle.append(connection)
                if number % 100 == 0:  # as others do meanwhile; and the backlog is finite
                    rpc.call("rpc.ping")
            # Each has been of use once.
            for connection in idle:
                connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"rpc.ping"}\n')
            for connection in idle:
                assert b"result" in connection.recv(4096)
            each = (memory(pid) - before) / len(idle)
            note(f"{each:.0f} bytes of the daemon's memory for each idle connection")
            assert each < 2048, f"{each} bytes for each idle connection"
            spent = cpu_seconds(pid)
            time.sleep(1)
            assert cpu_seconds(pid) - spent < 0.5, "idle connections cost no time"
            rpc.call("container.list")
            for connection in idle:
                connection.close()
            idle.clear()
            wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 200, what="their descriptors are given back")
            rpc.call("rpc.ping")
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@test
def without_descriptors_clients_are_turned_away_and_the_daemon_is_quiet(instance, scratch):
    config = scratch / "cloched.conf"
    config.write_text('{"limits": {"connections": 5000, "connectionsPerUser": 5000}}')
    os.chmod(config, 0o644)
    instance.env["CLOCHE_CONFIG"] = str(config)
    pid = instance.start_daemon()
    with Rpc(instance.socket) as first:
        first.call("rpc.ping")
        few = len(os.listdir(f"/proc/{pid}/fd")) + 20
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        crowd = [Rpc(instance.socket) for _ in range(60)]
        served = turned = 0
        for rpc in crowd:
            try:
                rpc.send({"jsonrpc": "2.0", "id": 1, "method": "rpc.ping"})
            except OSError:
                pass  # told already, and closed
            answer = rpc.receive()
            if answer and "result" in answer:
                served += 1
            else:
                assert answer is None or answer["error"]["code"] == -12, answer
                turned += 1
        assert served > 5 and turned > 5, (served, turned)
        first.call("rpc.ping")
        spent = cpu_seconds(pid)
        time.sleep(1)
        assert cpu_seconds(pid) - spent < 0.5, "no busy loop"
        for rpc in crowd:
            rpc.close()
        first.call("rpc.ping")

        def serves():
            try:
                with Rpc(instance.socket) as rpc:
                    return rpc.call("rpc.ping") == {}
            except (OSError, KeyError, AssertionError):
                return False
        wait_for(serves, what="clients are served again")


@test
def calls_of_a_daemon_that_is_killed_end_at_once(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    waiting = [Rpc(instance.socket) for _ in range(20)]
    for rpc in waiting:
        for number in range(10):
            rpc.send({"jsonrpc": "2.0", "id": number, "method": "container.wait", "params": {"container": "box"}})
    subscribed = Rpc(instance.socket)
    boot = subscribed.call("events.subscribe")["boot"]
    watching = instance.start("wait", "box")
    time.sleep(0.3)
    instance.kill_daemon()
    for rpc in [*waiting, subscribed]:
        try:
            assert rpc.receive() is None
        except ConnectionResetError:
            pass
        rpc.close()
    instance.start_daemon()
    with Rpc(instance.socket) as rpc:
        assert rpc.call("events.subscribe")["boot"] != boot
        rpc.call("container.kill", container="box")
        assert rpc.call("container.wait", container="box")["exitCode"] == 137
    watching.communicate(timeout=60)


if __name__ == "__main__":
    main()
