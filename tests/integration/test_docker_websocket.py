#!/usr/bin/env python3
"""Containers attached to over a WebSocket: docker-py's way to it, and frames that nobody should send."""

import base64
import hashlib
import os
import socket
import struct
import subprocess
import sys
import textwrap

from dockers import DEBIAN_PYTHON, Docker, daemon
from door import free_port
from harness import Skip, main, test, wait_for

KEY = base64.b64encode(b"sixteen bytes ok").decode()
FIN, CLOSE, PING, PONG = 0x80, 8, 9, 10


def frame(data, opcode=2, fin=True, masked=True, reserved=0, length=None):
    mask = os.urandom(4)
    size = len(data) if length is None else length
    head = bytes([fin << 7 | reserved | opcode])
    if size < 126:
        head += bytes([masked << 7 | size])
    elif size < 65536:
        head += bytes([masked << 7 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([masked << 7 | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + data
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


class WebSocket:
    def __init__(self, docker, name, query="stream=1&stdin=1&stdout=1&stderr=1", version="/v1.44", **headers):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(docker.path)
        headers = {"Host": "d", "Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket",
                   "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY} | headers
        lines = [f"GET {version}/containers/{name}/attach/ws?{query} HTTP/1.1"]
        lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items() if value is not None]
        self.sock.sendall("\r\n".join(lines + ["", ""]).encode())
        self.head = b""
        while b"\r\n\r\n" not in self.head:
            part = self.sock.recv(1)
            assert part, self.head
            self.head += part
        self.status = int(self.head.split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                return None
            data += part
        return data

    def receive(self):
        """Opcode and data; None: the end."""
        head = self.exactly(2)
        if not head:
            return None
        assert head[0] & 0x70 == 0 and head[1] < 128, head
        size = head[1]
        if size >= 126:
            size = int.from_bytes(self.exactly(2 if size == 126 else 8), "big")
        return head[0] & 15, self.exactly(size)

    def data_until(self, words):
        data = b""
        while words not in data:
            opcode, part = self.receive()
            assert opcode == 2, (opcode, part, data)
            data += part
        return data

    def end_code(self):
        while received := self.receive():
            if received[0] == CLOSE:
                return int.from_bytes(received[1][:2], "big")
        return None


@test
def streams_go_both_ways_in_frames(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    name = docker("create", "-i", "small:1", "sh", "-c", "echo first; cat; echo over >&2").out.strip()
    with WebSocket(docker, name) as ws:
        assert ws.status == 101, ws.head
        expected = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        assert b"Sec-WebSocket-Accept: " + expected in ws.head, ws.head
        docker("start", name)
        assert ws.data_until(b"first\n") == b"first\n"
        ws.sock.sendall(frame(b"he", 1, fin=False) + frame(b"words", PING) + frame(b"", 0, fin=False) +
                        frame(b"llo\n", 0))
        assert ws.receive() == (PONG, b"words")
        assert ws.data_until(b"hello\n") == b"hello\n"
        for piece in frame(b"byte by byte\n"):
            ws.sock.sendall(bytes([piece]))
        assert ws.data_until(b"byte\n") == b"byte by byte\n"
        big = os.urandom(300).hex().encode() * 500 + b"\n"
        ws.sock.sendall(frame(big))
        assert ws.data_until(b"\n") == big
        ws.sock.shutdown(socket.SHUT_WR)
        assert ws.data_until(b"over\n") == b"over\n"
        assert ws.receive() == (CLOSE, b"\x03\xe8") and ws.receive() is None
    docker("rm", name)


@test
def parameters_choose_the_streams(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    name = docker("run", "-d", "small:1", "sh", "-c", "echo out; echo err >&2; sleep 1000").out.strip()
    wait_for(lambda: docker("logs", name).out and docker("logs", name).err, what="both streams are logged")
    with WebSocket(docker, name, "logs=1&stdout=1") as ws:
        assert ws.data_until(b"\n") == b"out\n" and ws.end_code() == 1000
    with WebSocket(docker, name, "logs=1&stderr=1") as ws:
        assert ws.data_until(b"\n") == b"err\n" and ws.end_code() == 1000
    # Clients before 1.42 have all three without asking.
    with WebSocket(docker, name, "logs=1", version="/v1.41") as ws:
        assert sorted(ws.data_until(b"r\n")) == sorted(b"out\nerr\n") and ws.end_code() == 1000
    with WebSocket(docker, name, "logs=1&stream=1&stdout=1") as ws:
        assert ws.data_until(b"\n") == b"out\n"
        ws.sock.sendall(frame(struct.pack(">H", 1000) + b"bye", CLOSE))
        assert ws.end_code() == 1000 and ws.receive() is None
    assert docker("inspect", "-f", "{{.State.Status}}", name).out == "running\n"
    docker("rm", "-f", name)


@test
def what_is_said_before_the_end_arrives(instance, images):
    """Also what waits for the container longer than for its client, who may be gone at once."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    end = frame(struct.pack(">H", 1000), CLOSE)
    large = os.urandom(300).hex().encode() * 1000
    for data, waits in ((b"last words", True), (b"last words", False), (large, True), (large[:100000], False)):
        name = docker("run", "-di", "small:1", "sh", "-c", f"sleep 1; head -c {len(data)} | md5sum").out.strip()
        with WebSocket(docker, name) as ws:
            ws.sock.sendall(frame(data) + end)
            if waits:
                assert ws.end_code() == 1000 and ws.receive() is None
        wait_for(lambda: docker("logs", name).out, what=f"{len(data)} bytes arrive")
        assert docker("logs", name).out.split()[0] == hashlib.md5(data).hexdigest()
        docker("rm", "-f", name)
    # Who reads nothing is not waited for.
    name = docker("run", "-di", "small:1", "sleep", "1000").out.strip()
    with WebSocket(docker, name) as ws:
        ws.sock.sendall(frame(large[:250000]) + end)
        assert ws.end_code() == 1000 and ws.receive() is None
    docker("rm", "-f", name)


@test
def a_terminal_and_its_detach_keys(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    name = docker("run", "-dit", "small:1", "cat").out.strip()
    with WebSocket(docker, name, "stream=1&stdin=1&stdout=1&detachKeys=ctrl-x") as ws:
        ws.sock.sendall(frame(b"typed\n"))
        assert b"typed" in ws.data_until(b"typed\r\n")
        ws.sock.sendall(frame(b"\x18"))
        assert ws.end_code() == 1000
    assert docker("inspect", "-f", "{{.State.Status}}", name).out == "running\n"
    docker("rm", "-f", name)


@test
def hostile_frames_end_it(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    name = docker("run", "-di", "small:1", "cat").out.strip()
    for bad in (frame(b"x", masked=False), frame(b"x", 3), frame(b"x", 11), frame(b"x", reserved=0x40),
                frame(b"x", reserved=0x10), frame(b"x", PING, fin=False), frame(b"x" * 126, PING),
                frame(b"x", 0), frame(b"x", fin=False) + frame(b"y"), frame(b"x", CLOSE),
                b"\x82\xff" + b"\xff" * 8, b"\x82\xfe\x00\x01", b"\x82\xff" + b"\0" * 7 + b"\x01"):
        with WebSocket(docker, name) as ws:
            ws.sock.sendall(bad + b"\0" * 20)
            assert ws.end_code() == 1002, bad
    # What is said to be long is not waited for in memory, and who leaves in the middle takes nothing along.
    with WebSocket(docker, name) as ws:
        ws.sock.sendall(b"\x82\xff" + (1 << 62).to_bytes(8, "big") + b"mask" + b"some")
    # Pings that nobody reads the answers of.
    with WebSocket(docker, name) as ws:
        ws.sock.settimeout(5)
        try:
            for _ in range(20000):
                ws.sock.sendall(frame(b"x" * 125, PING))
        except socket.timeout:
            pass
    with WebSocket(docker, name) as ws:
        ws.sock.sendall(frame(b"alive\n"))
        assert ws.data_until(b"alive\n") == b"alive\n"
    docker("rm", "-f", name)


@test
def what_is_no_websocket_is_told_so(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    name = docker("run", "-di", "small:1", "cat").out.strip()
    for headers in ({"Upgrade": None}, {"Upgrade": "tcp"}, {"Connection": "close"}, {"Sec_WebSocket_Version": "8"},
                    {"Sec_WebSocket_Key": "short"}, {"Sec_WebSocket_Key": None},
                    {"Sec_WebSocket_Key": "!" * 22 + "=="}):
        if "Sec_WebSocket_Version" in headers:
            headers["Sec-WebSocket-Version"] = headers.pop("Sec_WebSocket_Version")
        if "Sec_WebSocket_Key" in headers:
            headers["Sec-WebSocket-Key"] = headers.pop("Sec_WebSocket_Key")
        with WebSocket(docker, name, **headers) as ws:
            assert ws.status == 400, (headers, ws.head)
    with WebSocket(docker, "nobody") as ws:
        assert ws.status == 404, ws.head
    docker("pause", name)
    with WebSocket(docker, name) as ws:
        assert ws.status == 409, ws.head
    docker("rm", "-f", name)


PYTHON = textwrap.dedent("""
    import sys
    import docker
    client = docker.APIClient(base_url=sys.argv[1], version="auto", timeout=60)
    made = client.create_container("small:1", ["sh", "-c", "cat; sleep 1000"], stdin_open=True)
    ws = client.attach_socket(made, {"stdin": 1, "stdout": 1, "stream": 1}, ws=True)
    client.start(made)
    ws.send("through a websocket\\n")
    assert ws.recv() == b"through a websocket\\n"
    ws.close()
    client.remove_container(made, force=True)
    try:
        client.attach_socket("nobody", {"stream": 1}, ws=True)
    except Exception as error:
        assert "404" in str(error), error
    else:
        sys.exit("nobody was attached to")
""")


@test
def docker_py_attaches_over_a_websocket(instance, images, scratch):
    """websocket-client names the host it asks as its origin; pages of others are refused still."""
    if subprocess.run([DEBIAN_PYTHON, "-c", "import docker, websocket"], stderr=subprocess.DEVNULL).returncode:
        raise Skip("python3-docker is not installed")
    instance.start_daemon()
    instance.kill_daemon()
    port = free_port()
    with daemon(instance, scratch, listen=[f"docker+tcp://127.0.0.1:{port}"], insecureLoopback=True):
        instance.cloche("load", "-i", images.small("small:1"))
        done = subprocess.run([DEBIAN_PYTHON, "-c", PYTHON, f"tcp://127.0.0.1:{port}"], stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()
        name = instance.cloche("run", "-di", "small:1", "cat").out.strip()
        for origin, status in ((f"http://127.0.0.1:{port}", b"101"), ("http://evil.example", b"403"),
                               (f"https://127.0.0.1:{port}", b"403"), ("null", b"403")):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                sock.sendall((f"GET /containers/{name}/attach/ws?stream=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                              "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                              f"Sec-WebSocket-Key: {KEY}\r\nOrigin: {origin}\r\n\r\n").encode())
                assert sock.recv(4096).split()[1] == status, origin
        instance.cloche("rm", "-f", name)


if __name__ == "__main__":
    sys.exit(main())
