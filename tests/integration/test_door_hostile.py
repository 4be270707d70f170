"""Clients that mean harm: after each of them, and beside them, everybody else is served, and the door holds no more
memory or descriptors than before."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import struct
import time

from door import HANDSHAKE, Certificates, Door, read_all, rpc
from harness import main, program, run, test, wait_for

MESSAGE_MAX = 1 << 20
SANITIZED_KB = 512 * 1024  # AddressSanitizer keeps what was freed for a while


def connect(door, scheme, source="127.0.0.2", timeout=20):
    """From another address than the well-behaved clients'."""
    return socket.create_connection(("127.0.0.1", door.ports[scheme]), timeout=timeout, source_address=(source, 0))


def websocket(door, source="127.0.0.2"):
    return rpc.WebSocket(connect(door, "ws", source), f"127.0.0.1:{door.ports['ws']}")


def frame(opcode, data=b"", fin=True, length=None):
    """Masked with nothing, so that what is in it can be read here."""
    length = len(data) if length is None else length
    head = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65536:
        head += struct.pack(">BH", 0x80 | 126, length)
    else:
        head += struct.pack(">BQ", 0x80 | 127, length)
    return head + b"\0\0\0\0" + data


def descriptors(door):
    return len(os.listdir(f"/proc/{door.process.pid}/fd"))


def memory(door):
    """KiB."""
    with open(f"/proc/{door.process.pid}/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))


def spare():
    """KiB that a build of this kind may hold beyond what it needs."""
    with open(program("cloche-door"), "rb") as file:
        return SANITIZED_KB if b"__asan_init" in file.read() else 0


def push(sock, data):
    """As much of it as they take."""
    with contextlib.suppress(OSError):
        sock.sendall(data)


# ---- all kinds, one after the other

def half_open(door):
    sockets = [connect(door, scheme, f"127.0.0.{2 + i % 8}") for i, scheme in enumerate(["ws", "tls", "wss", "tcp"] * 50)]
    for i, sock in enumerate(sockets):
        if i % 3 == 0:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
    return sockets


def slow_handshakes(door):
    """A byte of a ClientHello, or of a request, now and then."""
    sockets = [(connect(door, scheme, f"127.0.0.{2 + i % 4}"), start)
               for i, (scheme, start) in enumerate([("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
                                                    ("wss", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
                                                    ("ws", b"GET /rpc HTTP/1.1")] * 8)]
    for at in range(10):
        for sock, start in sockets:
            push(sock, start[at:at + 1])
        time.sleep(0.02)
    return [sock for sock, _ in sockets]


def fragments_of_a_byte(door):
    wire = websocket(door)
    push(wire.sock, frame(1, b"[", fin=False) + frame(0, b" ", fin=False) * 20_000 + frame(0, b'"x'))
    return [wire]


def empty_fragments(door):
    wire = websocket(door)
    push(wire.sock, frame(1, b"", fin=False) + frame(0, b"", fin=False) * 50_000)
    return [wire]


def control_frames(door):
    """Pings whose answers nobody reads."""
    wires = [websocket(door) for _ in range(4)]
    for wire in wires:
        wire.sock.settimeout(0.5)
        push(wire.sock, frame(9, b"x" * 125) * 20_000)
        push(wire.sock, frame(10, b"x" * 125) * 5_000)
    return wires


def wrong_frames(door):
    wires = []
    for data in (b"\x81\x02{}", frame(1, length=1 << 62), frame(1, length=MESSAGE_MAX + 1), frame(1, b"\xc3\x28"),
                 frame(1, b"\xed\xa0\x80"), frame(1, b"\xf8\x88\x80\x80\x80"), frame(3), frame(8, b"\x03"), b"\xf1\x80\0\0\0\0",
                 frame(0, b"x"), frame(9, b"x", fin=False), os.urandom(4096)):
        for _ in range(4):
            wire = websocket(door)
            push(wire.sock, data)
            wires.append(wire)
    return wires


def long_messages(door):
    """Nearly a whole one each, and no end."""
    wires = [websocket(door, f"127.0.0.{2 + i % 2}") for i in range(40)]
    for wire in wires:
        push(wire.sock, frame(1, b"[" + b" " * (MESSAGE_MAX - 100), length=MESSAGE_MAX - 1))
    return wires


def resets(door):
    for scheme in ("tcp", "tls", "ws", "wss") * 20:
        sock = connect(door, scheme)
        push(sock, b'{"jsonrpc":"2.0","id":1,"method":"a"}\n' if scheme == "tcp" else b"GET /rpc HTTP/1.1\r\n")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    for _ in range(20):  # after the request, before the answer
        sock = connect(door, "ws")
        push(sock, HANDSHAKE.format(host="x", more="").encode() + frame(1, b"[") * 10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    return []


def noise(door):
    dice = random.Random(7)
    sockets = []
    for scheme in ("tcp", "tls", "ws", "wss") * 8:
        sock = connect(door, scheme, f"127.0.0.{2 + len(sockets) % 4}")
        push(sock, dice.randbytes(3000))
        sockets.append(sock)
    return sockets


def pages_not_read(door):
    sockets = [connect(door, "ws") for _ in range(10)]
    for sock in sockets:
        push(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
    return sockets


ATTACKS = [half_open, slow_handshakes, fragments_of_a_byte, empty_fragments, control_frames, wrong_frames, long_messages,
           resets, noise, pages_not_read]


@test
def hostile_clients_change_nothing_for_others(scratch):
    certificates = Certificates(scratch)
    page = scratch / "page.html"
    page.write_text("<!doctype html>" + "x" * 200_000)
    with Door("tcp", "tls", "ws", "wss", options=[*certificates.door_options(), "--page", page]) as door:

        def serve_all():
            for scheme in ("tcp", "tls", "ws", "wss"):
                client = door.connect(scheme, **(certificates.client_options() if scheme in ("tls", "wss") else {}))
                assert client.call("shop.open", {"till": 7}) == ["shop.open", {"till": 7}]
                client.wire.close()

        constant = door.connect("ws")
        serve_all()
        before = descriptors(door)
        held = []
        for _ in range(2):
            for attack in ATTACKS:
                sockets = attack(door)
                serve_all()
                for sock in sockets:
                    sock.close()
                wait_for(lambda: descriptors(door) <= before, 30, f"descriptors of {attack.__name__} are closed")
                serve_all()
                assert constant.call("shop.open")[0] == "shop.open", attack
            held.append(memory(door))
        # What the allocator keeps differs from round to round; what a round sends is several times this.
        assert held[1] < held[0] + 24 * 1024 + spare(), held
        assert door.process.poll() is None


# ---- room

@test
def silent_clients_of_many_addresses_keep_nobody_out(scratch):
    """They have no certificate, and hold their connections until the time for the handshake is over."""
    certificates = Certificates(scratch)
    options = [*certificates.door_options(), "--connections", "16", "--handshake-seconds", "60"]
    with Door("tls", options=options) as door:
        crowd = [connect(door, "tls", f"127.0.0.{2 + i % 20}") for i in range(60)]
        start = time.monotonic()
        clients = []
        for _ in range(4):
            clients.append(door.connect("tls", **certificates.client_options()))
            clients[-1].call("a")
            crowd += [connect(door, "tls", f"127.0.0.{30 + i}") for i in range(10)]
        assert time.monotonic() - start < 45
        for client in clients:
            assert client.call("b")[0] == "b"
        for sock in crowd:
            sock.close()


@test
def unfinished_messages_of_one_keep_nobody_from_theirs():
    with Door("ws") as door:
        hogs = [websocket(door) for _ in range(64)]
        for hog in hogs:
            push(hog.sock, frame(1, b"[" + b" " * (MESSAGE_MAX - 2), length=MESSAGE_MAX))
        wait_for(lambda: memory(door) > 60_000 or door.said("too much waits"), 30, "all of it has come in")
        honest = door.connect("ws")
        for _ in range(5):
            text = "x" * 500_000
            body = ('{"jsonrpc":"2.0","id":99,"method":"note","params":{"text":"%s"}}' % text).encode()
            honest.wire.send_frame(1, body[:250_000], fin=False)
            time.sleep(0.1)
            honest.wire.send_frame(0, body[250_000:])
            assert honest.take(99) == ["note", {"text": text}]
        for hog in hogs:
            hog.close()


@test
def messages_have_a_time_to_become_whole():
    """Answers to pings are no part of it."""
    with Door("ws", options=["--stall-seconds", "2", "--ping-seconds", "1"]) as door:
        wire = websocket(door)
        wire.send_frame(1, b"[", fin=False)
        codes = []
        with contextlib.suppress(EOFError):
            for _ in range(60):  # it is pinged each second
                _, opcode, data = wire.receive_frame()
                if opcode == wire.PING:
                    wire.send_frame(wire.PONG, data)
                elif opcode == wire.CLOSE:
                    codes.append((struct.unpack(">H", data[:2])[0], data[2:]))
                    break
        assert codes == [(1008, b"a message took too long")], codes
        # Slow, but it goes on.
        wire = websocket(door)
        wire.send_frame(1, b'{"id":1,"method":"a"', fin=False)
        for _ in range(8):
            time.sleep(0.5)
            wire.send_frame(0, b" ", fin=False)
        wire.send_frame(0, b"}")
        opcode = wire.PING
        while opcode == wire.PING:
            _, opcode, data = wire.receive_frame()
        assert b'"result":["a",null]' in data, data


@test
def messages_that_have_gone_leave_no_memory():
    with Door("ws") as door:
        clients = [door.connect("ws") for _ in range(40)]
        before = memory(door)
        text = "x" * (MESSAGE_MAX - 200)
        for client in clients:
            assert client.call("note", {"text": text})[0] == "note"
        assert memory(door) < before + 24_000 + spare(), (before, memory(door))


@test
def a_daemon_that_does_not_read_is_not_the_clients_fault():
    """Its answers to pings lie behind what the daemon does not take."""
    def late(connection, lines):
        time.sleep(6)
        for _ in lines:
            pass

    with Door("ws", serve=late, options=["--ping-seconds", "1"]) as door:
        wire = websocket(door)
        wire.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(200):
                wire.sock.sendall(frame(1, b"[" + b" " * 60_000))
        stop = time.monotonic() + 5
        wire.sock.settimeout(20)
        while time.monotonic() < stop:
            assert not door.said("no answer to a ping")
            time.sleep(0.2)


# ---- TLS

class Gnutls:
    """A client that can do what the others refuse to."""

    def __init__(self, sock, certificates):
        self.lib = lib = ctypes.CDLL("libgnutls.so.30")
        self.sock = sock
        credentials, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        lib.gnutls_certificate_allocate_credentials(ctypes.byref(credentials))
        assert lib.gnutls_certificate_set_x509_key_file(credentials, certificates.path("client.pem").encode(),
                                                        certificates.path("client.key").encode(), 1) >= 0
        lib.gnutls_init(ctypes.byref(self.session), 2)  # a client
        lib.gnutls_priority_set_direct(self.session, b"NORMAL:-VERS-ALL:+VERS-TLS1.2", None)
        lib.gnutls_credentials_set(self.session, 1, credentials)
        lib.gnutls_transport_set_int2(self.session, sock.fileno(), sock.fileno())
        sock.settimeout(None)
        assert lib.gnutls_handshake(self.session) == 0

    def warn(self):
        return self.lib.gnutls_alert_send(self.session, 1, 90)  # user_canceled


@test
def warnings_of_tls_are_not_listened_to_for_ever(scratch):
    certificates = Certificates(scratch)
    with Door("tls", options=certificates.door_options()) as door:
        client = Gnutls(connect(door, "tls"), certificates)

        def ended():
            return client.warn() < 0

        wait_for(ended, 20, "the connection is ended")
        client.sock.close()
        other = door.connect("tls", **certificates.client_options())
        assert other.call("a")[0] == "a"


@test
def browsers_are_no_clients_of_lines(scratch):
    """What they offer to speak (ALPN) gives them away before a byte of theirs is read."""
    certificates = Certificates(scratch)
    with Door("tls", "wss", options=certificates.door_options()) as door:
        def shakes_hands(scheme, *offer):
            result = run("sh", "-c", f"sleep 1 | timeout 10 openssl s_client {' '.join(offer)} -CAfile "
                         f"{certificates.path('ca.pem')} -cert {certificates.path('client.pem')} -key "
                         f"{certificates.path('client.key')} -connect 127.0.0.1:{door.ports[scheme]}", code=None)
            return "Verify return code: 0" in result.out and "no application protocol" not in result.err

        assert not shakes_hands("tls", "-alpn", "h2,http/1.1")
        assert shakes_hands("tls") and shakes_hands("tls", "-alpn", "cloche-rpc")
        assert shakes_hands("wss", "-alpn", "h2,http/1.1")


# ---- small things

@test
def pages_of_the_usual_ports_come_in():
    """Browsers leave out the port that a scheme has anyway."""
    listen = "ws://127.0.0.77:80"
    with Door("ws", options=["--listen", listen]) as door:
        def status(host, origin):
            with socket.create_connection(("127.0.0.77", 80), timeout=10) as sock:
                sock.sendall(HANDSHAKE.format(host=host, more=f"Origin: {origin}\r\n").encode())
                return sock.recv(4096).split(b" ")[1]

        for host, origin in (("127.0.0.77", "http://127.0.0.77"), ("127.0.0.77:80", "http://127.0.0.77"),
                             ("localhost", "http://localhost")):
            assert status(host, origin) == b"101", (host, origin)
        for host, origin in (("127.0.0.77", "https://127.0.0.77"), ("127.0.0.77:81", "http://127.0.0.77:81"),
                             ("127.0.0.77", "http://127.0.0.77:81"), ("shop.example", "http://shop.example")):
            assert status(host, origin) == b"403", (host, origin)


@test
def the_log_is_not_filled_by_strangers():
    """So many lines a second, however many come."""
    with Door("ws", options=["--handshakes-per-address", "1"]) as door:
        waiting = connect(door, "ws")
        start, times = time.monotonic(), 1000
        for _ in range(times):
            connect(door, "ws").close()
        waiting.close()
        door.handshake("Origin: http://shop.example\r\n")
        assert len(door.log) < min(times, 200 + 60 * (time.monotonic() - start)), len(door.log)

        def told():
            door.handshake("Origin: http://shop.example\r\n")
            return door.said("were left out")

        wait_for(told, 20, "how many were left out is told", interval=0.3)


@test
def options_that_make_no_sense_are_refused(scratch):
    long = scratch / "long.html"
    long.write_text("x" * (2 << 20))
    listen = ["--listen", "ws://127.0.0.1:1", "--insecure-loopback", "--connect", "/nowhere"]
    for options, message in ((["--uid", "65527"], "come together"), (["--gid", "65527"], "come together"),
                             (["--page", str(long)], "larger than"), (["--page", "/nowhere"], "/nowhere")):
        result = run(program("cloche-door"), *listen, *options, "--check", code=1)
        assert message in result.err, (options, result)


if __name__ == "__main__":
    main()
