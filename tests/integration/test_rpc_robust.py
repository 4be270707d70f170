#!/usr/bin/env python3
"""The daemon's socket under clients of other languages, and under clients that are many, slow, broken or hostile."""

import contextlib
import json
import os
import pathlib
import random
import resource
import select
import socket
import subprocess
import threading
import time

from door import free_port
from harness import TOP, main, note, program, run, settled, test, wait_for

CLIENTS = TOP / "tests" / "integration" / "clients"
PYTHON = "/usr/bin/python3"  # with Debian's modules, whatever else is first on the path
MESSAGE_MAX = 1 << 20


def call(number, method="rpc.ping", **params):
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


class Raw:
    """A connection that is spoken to in bytes."""

    def __init__(self, instance):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(instance.socket))
        self.input = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *messages):
        self.socket.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def lines(self, count):
        """So many messages, or fewer when the connection ends before."""
        while self.input.count(b"\n") < count:
            data = self.socket.recv(1 << 16)
            if not data:
                break
            self.input += data
        *whole, rest = self.input.split(b"\n")
        self.input = b"".join(line + b"\n" for line in whole[count:]) + rest
        return [json.loads(line) for line in whole[:count]]


def serving(instance):
    """Starts its daemon, which has answered once. Returns its pid."""
    pid = instance.start_daemon()
    answers_at_once(instance)
    return pid


def memory(pid):
    """The process's own, in KiB."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def sockets(pid):
    """How many the process has; of other descriptors it gets and closes some by itself, and a
    network to spare, which has one, is made when there is time."""
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return (sum(link.startswith("socket:") for link in links) -
            sum(link.startswith("net:[") for link in links))


def answers_at_once(instance):
    with Raw(instance) as client:
        client.send(call("x"))
        assert client.lines(1) == [{"jsonrpc": "2.0", "id": "x", "result": {}}]


# ---------------------------------------------------------------- other languages

def check_said(instance, said):
    assert said["version"]["apiVersion"] == "1.0"
    assert said["error"] == [-1, "No such container: shop"], said["error"]
    answers_at_once(instance)


@test
def pythons_aiorpcx_speaks_with_it(instance):
    serving(instance)
    port = free_port()
    door = subprocess.Popen([program("cloche-door"), "--listen", f"tcp://127.0.0.1:{port}", "--insecure-loopback",
                             "--connect", str(instance.socket)], stderr=subprocess.PIPE)
    try:
        line = door.stderr.readline()
        assert b"ready" in line, line
        said = json.loads(run(PYTHON, CLIENTS / "aiorpcx_client.py", port).out)
    finally:
        door.kill()
        door.communicate()
    check_said(instance, said)
    assert said["many"] == [{"containers": []}] * 40
    assert said["batch"] == [{}, {"containers": []}]


@test
def messages_of_pythons_libraries_are_understood(instance):
    serving(instance)
    said = json.loads(run(PYTHON, CLIENTS / "messages_client.py", instance.socket).out)
    check_said(instance, said)
    assert said["batch"] == [{"jsonrpc": "2.0", "id": "a", "result": {"containers": []}}]


@contextlib.contextmanager
def go_client(images):
    """Built once for those who need it; what was compiled stays in the folder of the build."""
    build = pathlib.Path(program("cloche")).parents[2]
    path = build / "tests" / "integration" / "go_client"
    run("go", "build", "-o", path, CLIENTS / "client.go", timeout=300,
        env={"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(build / "go-cache")})
    yield path


@test
def gos_jsonrpc2_speaks_with_it(instance, images):
    serving(instance)
    with go_client(images) as client:
        check_said(instance, json.loads(run(client, "2", instance.socket).out))


@test
def json_rpc_1_0_is_refused_with_the_reason(instance, images):
    serving(instance)
    with go_client(images) as client:
        said = run(client, "1", instance.socket).out
    assert "code:-32600" in said and '"jsonrpc":"2.0" is missing' in said, said
    answers_at_once(instance)


@test
def libjson_rpc_cpp_speaks_with_it(instance, images):
    serving(instance)
    path = pathlib.Path(program("cloche")).parents[2] / "tests" / "integration" / "cpp_client"
    run("g++", "-std=c++14", "-o", path, CLIENTS / "client.cc", "-I/usr/include/jsoncpp", "-ljsonrpccpp-client",
        "-ljsonrpccpp-common", "-ljsoncpp", timeout=300)
    said = json.loads(run(path, instance.socket).out)
    check_said(instance, said)
    assert said["list"] == {"containers": []}


# ---------------------------------------------------------------- pieces and garbage

@test
def messages_in_pieces_of_any_size_are_whole(instance):
    serving(instance)
    chance = random.Random(5)
    messages = [json.dumps(call(i, "container.list", all=True)) for i in range(300)]
    data = b"".join(b" " * chance.randrange(0, 3000) + message.encode() + b"\n" * chance.randrange(1, 3)
                    for message in messages)
    with Raw(instance) as client:
        def send():
            at = 0
            while at < len(data):
                size = chance.choice((1, 2, 7, 100, 4096, 100000))
                client.socket.sendall(data[at:at + size])
                at += size
        sender = threading.Thread(target=send)
        sender.start()
        answers = client.lines(len(messages))
        sender.join()
    assert sorted(answer["id"] for answer in answers) == list(range(300))
    assert all(answer["result"] == {"containers": []} for answer in answers)


@test
def batches_that_wait_do_not_hold_up_others(instance):
    serving(instance)
    instance.cloche("create", "--name", "web", "host", "true")
    with Raw(instance) as client:
        waiting = [[call(f"w{i}", "container.wait", container="web", condition="removed"),
                    call(f"p{i}"), {"jsonrpc": "2.0", "method": "rpc.ping"}] for i in range(20)]
        for i, batch in enumerate(waiting):
            client.send(batch, [call(f"a{i}"), call(f"b{i}", "container.list", all=True)], call(f"c{i}"))
        early = client.lines(40)
        names = {part["id"] for line in early for part in (line if isinstance(line, list) else [line])}
        assert names == {f"{letter}{i}" for letter in "abc" for i in range(20)}, names
        client.send(call("rm", "container.remove", container="web"))
        late = client.lines(21)
    assert sum(line == {"jsonrpc": "2.0", "id": "rm", "result": {}} for line in late) == 1
    batches = [{part["id"]: part for part in line} for line in late if isinstance(line, list)]
    assert sorted(map(sorted, batches)) == sorted([f"p{i}", f"w{i}"] for i in range(20))
    assert all("result" in part for batch in batches for part in batch.values()), batches


@test
def garbage_between_messages_is_answered_and_passed_over(instance):
    pid = serving(instance)
    chance = random.Random(7)
    before = settled(lambda: sockets(pid))
    good = json.dumps(call(1)).encode()

    def garbage():
        kind = chance.randrange(4)
        if kind == 0:
            return bytes(chance.choice([b for b in range(256) if b != 10]) for _ in range(chance.randrange(1, 500)))
        if kind == 1:  # cut off
            return good[:chance.randrange(1, len(good))]
        if kind == 2:  # a bit turned
            at, copy = chance.randrange(len(good)), bytearray(good)
            copy[at] ^= 1 << chance.randrange(7)
            return bytes(copy).replace(b"\n", b"?")
        return chance.choice((b"[", b"[]", b"{}", b"[1,2]", b"null", b"[" * 200, b'{"a":' * 100, b'"\xed\xa0\x80"'))

    for _ in range(20):
        with Raw(instance) as client:
            pieces = [garbage() for _ in range(50)]
            client.socket.sendall(b"\n".join(pieces) + b"\n" + json.dumps(call("end")).encode() + b"\n")
            answer = None
            while answer is None or answer.get("id") != "end":
                lines = client.lines(1)
                assert lines, "the connection ended at what was only garbage"
                answer = lines[0] if isinstance(lines[0], dict) else {}
                assert "error" in answer or answer.get("result") == {} or isinstance(lines[0], list), lines
    answers_at_once(instance)
    wait_for(lambda: sockets(pid) <= before, what="the connections are let go")


@test
def a_line_that_never_ends_is_given_up(instance):
    pid = serving(instance)
    before = memory(pid)
    for _ in range(5):
        with Raw(instance) as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.socket.sendall(b"x" * (4 * MESSAGE_MAX))
            with contextlib.suppress(ConnectionResetError):
                lines = client.lines(1)
                assert not lines or lines[0]["error"]["code"] == -12, lines
    answers_at_once(instance)
    assert memory(pid) < before + 8 * 1024


# ---------------------------------------------------------------- many

@test
def a_hundred_clients_at_once_get_their_own_answers(instance):
    pid = serving(instance)
    before = settled(lambda: sockets(pid))
    problems = []

    def work(index):
        try:
            with Raw(instance) as client:
                for turn in range(20):
                    names = [f"{index}.{turn}.{i}" for i in range(5)]
                    client.send(*(call(name, "container.list", all=True) for name in names))
                    found = sorted(answer["id"] for answer in client.lines(5))
                    assert found == sorted(names), (found, names)
        except Exception as problem:  # told below, in the test's own thread
            problems.append(problem)

    threads = [threading.Thread(target=work, args=[i]) for i in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]
    wait_for(lambda: sockets(pid) <= before, what="the connections are let go")


@test
def ten_thousand_idle_connections_cost_little(instance):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10000, hard // 2)
    pid = serving(instance)
    answers_at_once(instance)
    before, idle = memory(pid), []
    try:
        for i in range(count):
            client = socket.socket(socket.AF_UNIX)
            idle.append(client)
            client.connect(str(instance.socket))
            if i % 10 == 0:  # some were used, some were not
                client.sendall(json.dumps(call(1)).encode() + b"\n")
                assert client.recv(4096)
        each = (memory(pid) - before) * 1024 / count
        note(f"{count} connections, {each:.0f} bytes each")
        assert each < 4096, each
        answers_at_once(instance)
        for client in (idle[0], idle[-1]):
            client.sendall(json.dumps(call(2)).encode() + b"\n")
            assert client.recv(4096)
        stats = json.loads(instance.cloche("rpc", "stats", "-f", "json").out)
        assert stats["connections"] == count + 1 and stats["refused"] == 0, stats["connections"]
    finally:
        for client in idle:
            client.close()
    wait_for(lambda: sockets(pid) < 200, what="the connections are let go")


@test
def clients_that_say_half_or_read_nothing_hold_up_nobody(instance):
    pid = serving(instance)
    before = memory(pid)
    with contextlib.ExitStack() as stack:
        for i in range(100):
            half = stack.enter_context(Raw(instance))
            half.socket.sendall(json.dumps(call(i)).encode()[:-1 - i % 20])
        for _ in range(20):
            deaf = stack.enter_context(Raw(instance))
            deaf.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                for _ in range(2000):
                    deaf.socket.send(json.dumps(call(1, "rpc.discover")).encode() + b"\n")
        start = time.monotonic()
        for _ in range(20):
            answers_at_once(instance)
        note(f"20 connections and calls took {time.monotonic() - start:.3f} s")
        # Each owes one answer beyond where it is not read any more.
        assert memory(pid) < before + 20 * 1024, memory(pid) - before
    answers_at_once(instance)


# ---------------------------------------------------------------- the end of the daemon

@test
def a_daemon_killed_in_the_middle_is_an_error_in_time(instance):
    pid = serving(instance)
    instance.cloche("create", "--name", "web", "host", "true")
    wait = [program("cloche"), "rpc", "call", "container.wait", "container=web", "condition=removed"]
    clients = [subprocess.Popen(wait, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, **instance.env}) for _ in range(3)]
    watcher = subprocess.Popen([program("cloche"), "rpc", "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, **instance.env})
    with Raw(instance) as client:
        client.send(call(1, "container.wait", container="web", condition="removed"))

        def all_wait():
            """Four calls are being worked at, and the watcher has its answer: it knows where it is."""
            methods = {method["method"]: method for method in
                       json.loads(instance.cloche("rpc", "stats", "-f", "json").out)["methods"]}
            subscribed = methods.get("events.subscribe", {"calls": 0, "inFlight": 0})
            return methods.get("container.wait", {}).get("inFlight") == 4 and \
                subscribed["calls"] - subscribed["inFlight"] == 1
        wait_for(all_wait, what="the clients wait")
        instance.kill_daemon()
        assert client.lines(1) == []
    for process in clients:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1 and b"connection" in err, (process.args, err)
    assert json.loads(instance.cloche("rpc", "call", "container.list", "all=true").out)["containers"]
    assert instance.daemon_pid() not in (None, pid)
    told = iter(lambda: json.loads(watcher.stdout.readline()), None)
    lost = next(line for line in told if "reason" in line)
    assert (lost["reason"], lost["from"]) == ("restarted", 1), lost
    event = next(told)
    assert (event["sequence"], event["event"]["type"], event["boot"]) == (1, "daemon", lost["boot"]), event
    watcher.kill()
    assert b"waited for" in watcher.communicate()[1]


if __name__ == "__main__":
    main()
