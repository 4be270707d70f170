"""cloche-door: TCP, TLS and WebSocket end in it, and every connection reaches the daemon with a name."""

import contextlib
import asyncio
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

from door import DOOR_UID, HANDSHAKE, Certificates, Door, echo, read_all, rpc
from harness import main, note, program, run, test, wait_for

MESSAGE_MAX = 1 << 20


def request(number, method="shop.open", params=None):
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}})


class Talk:
    """A program that is spoken to, and whose output and errors are waited for."""

    def __init__(self, *argv):
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(list(map(str, argv)), stdin=subprocess.PIPE, stdout=self.output,
                                        stderr=self.output)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.output.close()

    def said(self):
        return os.pread(self.output.fileno(), 1 << 20, 0).decode(errors="replace")

    def say(self, line):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def expect(self, text):
        """All it has said once this is among it."""
        wait_for(lambda: text in self.said() or self.process.poll() is not None, what=f"it says {text!r}")
        assert text in self.said(), self.said()
        return self.said()


def close_code(websocket):
    """The code of the frame that ends it, whatever comes before."""
    while True:
        _, opcode, data = websocket.receive_frame()
        if opcode == websocket.CLOSE:
            return struct.unpack(">H", data[:2])[0] if data else None


# ---- what passes

@test
def lines_pass_both_ways():
    with Door("tcp") as door:
        client = door.connect("tcp")
        assert client.call("shop.open", {"till": 7}) == ["shop.open", {"till": 7}]
        numbers = [client.send("shop.sell", {"item": item}) for item in range(100)]
        for item, number in reversed(list(enumerate(numbers))):
            assert client.take(number) == ["shop.sell", {"item": item}]
        client.wire.close()


@test
def a_shut_half_still_gets_answers():
    def at_the_end(connection, lines):
        texts = list(lines)  # until the other half is shut
        for text in texts:
            connection.sendall(text)

    with Door("tcp", serve=at_the_end) as door, door.plain("tcp") as sock:
        sock.sendall(b"[1]\n[2]\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"[1]\n[2]\n"


@test
def requests_of_browsers_are_no_calls():
    """A page may send HTTP to any port of the machine, with lines of its own in the body."""
    def tell(connection, lines):
        seen.extend(lines)

    seen = []
    with Door("tcp", serve=tell) as door, door.plain("tcp") as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" +
                     b'{"jsonrpc":"2.0","id":1,"method":"shop.open"}\n')
        with contextlib.suppress(ConnectionResetError):
            assert read_all(sock) == b""
    assert not any(b"POST" in line or b"shop" in line for line in seen), seen


@test
def messages_pass_through_websockets():
    with Door("ws") as door:
        client = door.connect("ws")
        assert client.call("shop.open", {"till": "\u20ac\n"}) == ["shop.open", {"till": "\u20ac\n"}]
        text = "x" * (MESSAGE_MAX - 200)
        assert client.call("shop.note", {"text": text}) == ["shop.note", {"text": text}]
        # JSON may be written over several lines.
        client.wire.send('{\n"jsonrpc": "2.0",\r\n"id": 9, "method": "shop.shut"\n}')
        assert client.take(9) == ["shop.shut", None]
        client.wire.close()


@test
def long_answers_come_in_fragments():
    answer = b'{"text":"' + b"0123456789abcdef" * 200_000 + b'"}'

    def tell(connection, lines):
        connection.sendall(answer + b"\n" + b"{}\n")
        lines.readline()

    with Door("ws", serve=tell) as door:
        websocket = door.websocket()
        fin, opcode, data = websocket.receive_frame()
        assert opcode == websocket.TEXT and not fin
        while not fin:
            fin, opcode, part = websocket.receive_frame()
            assert opcode == 0
            data += part
        assert data == answer
        assert websocket.receive() == "{}"
        websocket.close()


@test
def fragments_and_control_frames_may_mix():
    with Door("ws") as door:
        websocket = door.websocket()
        text = request(1, params={"name": "caf\u00e9"}).encode()
        cut = text.index(b"\xc3") + 1 if b"\xc3" in text else 9
        websocket.send_frame(websocket.TEXT, text[:cut], fin=False)
        websocket.send_frame(websocket.PING, b"there?")
        websocket.send_frame(0, b"", fin=False)
        websocket.send_frame(0, text[cut:])
        assert websocket.receive_frame() == (True, websocket.PONG, b"there?")
        assert json.loads(websocket.receive())["result"][1] == {"name": "caf\u00e9"}
        websocket.close()


@test
def frames_may_come_a_byte_at_a_time():
    with Door("ws") as door, door.plain("ws") as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        recorder = type("Recorder", (), {"data": b"", "sendall": lambda self, data: setattr(
            self, "data", self.data + data)})()
        rpc.WebSocket.send_frame(type("W", (), {"sock": recorder})(), 1, request(1).encode())
        text = HANDSHAKE.format(host=f"127.0.0.1:{door.ports['ws']}", more="").encode() + recorder.data
        for i in range(len(text)):
            sock.sendall(text[i:i + 1])
        data = b""
        while b"shop.open" not in data:
            data += sock.recv(4096)
        assert data.startswith(b"HTTP/1.1 101 ")


@test
def a_message_may_begin_behind_another():
    """Half a message is at hand while the one before it goes on to the daemon."""
    def speak(connection, lines):
        lines.readline()
        connection.sendall(agreed.encode() + b"\n")
        for _ in range(2):
            head = lines.read(4)
            connection.sendall(head + lines.read(struct.unpack(">I", head)[0]))

    def frame(opcode, data):
        return bytes([0x80 | opcode, 0x80 | 126]) + struct.pack(">H", len(data)) + b"\0\0\0\0" + data

    with Door("ws") as door:
        websocket = door.websocket()
        first, second = (frame(1, request(number, params={"x": "y" * (1000 // number)}).encode())
                         for number in (1, 2))
        websocket.sock.sendall(first + second[:300])
        assert json.loads(websocket.receive())["id"] == 1
        websocket.sock.sendall(second[300:])
        assert json.loads(websocket.receive())["id"] == 2
        websocket.close()
    agreed = '{"jsonrpc":"2.0","id":"a\\\\\\",","result":{"encoding":"cbor"}}'
    with Door("ws", serve=speak) as door:
        websocket = door.websocket()
        websocket.send('"rpc.hello"')
        assert websocket.receive() == agreed
        first, second = frame(2, b"a" * 1000), frame(2, b"b" * 500)
        websocket.sock.sendall(first + second[:300])
        assert websocket.receive_frame() == (True, websocket.BINARY, b"a" * 1000)
        websocket.sock.sendall(second[300:])
        assert websocket.receive_frame() == (True, websocket.BINARY, b"b" * 500)
        websocket.close()


@test
def frames_that_come_with_the_handshake_are_not_lost():
    with Door("ws") as door, door.plain("ws") as sock:
        key = b"\0\0\0\0"
        body = request(1).encode()
        sock.sendall(HANDSHAKE.format(host=f"127.0.0.1:{door.ports['ws']}", more="").encode() +
                     bytes([0x81, 0x80 | len(body)]) + key + body)
        data = b""
        while b"shop.open" not in data:
            part = sock.recv(4096)
            assert part, data
            data += part


@test
def binary_messages_pass_once_cbor_is_agreed_on():
    def speak(connection, lines):
        hello = json.loads(lines.readline())
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": hello["id"], "result": {"encoding": "cbor"}},
                                      separators=(",", ":")).encode() + b"\n")
        while True:
            head = lines.read(4)
            if not head:
                return
            length, = struct.unpack(">I", head)
            connection.sendall(struct.pack(">I", length) + lines.read(length))

    with Door("ws", serve=speak) as door:
        client = door.connect("ws")
        assert client.call("rpc.hello", {"encodings": ["cbor"]}) == {"encoding": "cbor"}
        websocket = client.wire
        for payload in (b"\xa1\n\n\n", b"\n" * 70_000, b"{"):
            websocket.send_frame(websocket.BINARY, payload)
            fin, opcode, data = websocket.receive_frame()
            assert opcode == websocket.BINARY
            while not fin:
                fin, opcode, part = websocket.receive_frame()
                data += part
            assert data == payload
        websocket.send_frame(websocket.TEXT, b"{}")
        assert close_code(websocket) == 1003


@test
def words_of_others_agree_on_nothing():
    """What looks like the answer to rpc.hello, within other answers and notifications."""
    labels = b'{"labels":{"encoding":"cbor","result":{"encoding":"cbor"}}}'

    def speak(connection, lines):
        for line in lines:
            number = json.loads(line)["id"]
            connection.sendall(b'{"jsonrpc":"2.0","method":"events.event","params":%s}\n' % labels +
                               b'{"jsonrpc":"2.0","id":%d,"result":%s}\n' % (number, labels))

    with Door("ws", serve=speak) as door:
        client = door.connect("ws")
        for method in ("rpc.hello", "container.list", "container.list"):
            assert "labels" in client.call(method)


@test
def what_was_said_before_the_end_arrives(scratch):
    """Farewell and message in one segment; an end of TLS without close_notify; a daemon that is slow."""
    def listen(connection, lines):
        time.sleep(1)
        seen.extend(lines)

    seen = []
    certificates = Certificates(scratch)
    with Door("ws", "tls", serve=listen, options=certificates.door_options()) as door:
        sock = door.plain("ws")
        text = b'{"id":1}'
        sock.sendall(HANDSHAKE.format(host=f"127.0.0.1:{door.ports['ws']}", more="").encode() +
                     bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text + b"\x88\x80\0\0\0\0")
        assert b"\x88" in read_all(sock)
        wait_for(lambda: seen == [text + b"\n"])
        context = rpc.tls_context(**certificates.client_options())
        for long in (10, 600_000):
            seen.clear()
            sock = door.plain("tls")
            tls = context.wrap_socket(sock, server_hostname="127.0.0.1")
            tls.sendall(b'["' + b"x" * long + b'"]\n')
            time.sleep(0.2)
            os.close(tls.detach())  # as of a program that ended
            wait_for(lambda: seen, 20)
            assert len(seen) == 1 and len(seen[0]) == long + 5, [len(line) for line in seen]


@test
def the_daemon_learns_who_has_come(scratch):
    certificates = Certificates(scratch)
    with Door("tcp", "tls", "ws", "wss", options=certificates.door_options() + ["--origin", "https://shop.example"]) as door:
        door.connect("tcp").call("a")
        door.connect("tls", **certificates.client_options()).call("a")
        door.websocket(headers=["Origin: https://shop.example"])
        door.connect("wss", **certificates.client_options()).call("a")
        wait_for(lambda: len(door.introductions) == 4)
        # Each is read in a thread of its own: in any order.
        by_transport = {introduction["transport"]: introduction for introduction in door.introductions}
        tcp, tls, ws, wss = (by_transport[name] for name in ("tcp", "tls", "ws", "wss"))
        assert tcp["transport"] == "tcp" and tcp["address"].startswith("127.0.0.1:") and "name" not in tcp
        assert tls["name"] == "till 7" and tls["subject"] == "CN=till 7,O=Shop", tls
        assert tls["names"] == ["DNS:till7.example", "email:till7@example.org", "IP:192.0.2.7"]
        shown = run("openssl", "x509", "-in", certificates.path("client.pem"), "-noout", "-fingerprint",
                    "-sha256").out.split("=")[1].strip().replace(":", "").lower()
        assert tls["fingerprint"] == shown
        assert ws["origin"] == "https://shop.example"
        assert wss["transport"] == "wss" and wss["name"] == "till 7" and wss["listener"] == door.urls["wss"]


# ---- stock clients

@test
def pythons_websockets_speak_with_it(scratch):
    import websockets
    certificates = Certificates(scratch)

    async def talk(door):
        context = rpc.tls_context(**certificates.client_options())
        for scheme, options in (("ws", {}), ("wss", {"ssl": context})):
            async with websockets.connect(door.urls[scheme] + "/rpc", subprotocols=["other", "cloche-rpc"],
                                          **options) as websocket:
                assert websocket.subprotocol == "cloche-rpc"
                assert not websocket.extensions  # it offers permessage-deflate
                await websocket.send([request(1)[:10], request(1)[10:]])
                assert json.loads(await websocket.recv())["id"] == 1
                await asyncio.wait_for(await websocket.ping(), 10)
            assert websocket.close_code == 1000

    with Door("ws", "wss", options=certificates.door_options()) as door:
        asyncio.run(talk(door))


@test
def nodes_ws_speaks_with_it():
    script = """
        const WebSocket = require('ws');
        const socket = new WebSocket(process.argv[1], 'cloche-rpc');
        socket.on('open', () => socket.send(JSON.stringify({jsonrpc: '2.0', id: 7, method: 'node'})));
        socket.on('message', data => { console.log(JSON.parse(data).result[0]); socket.close(1000); });
        socket.on('close', code => console.log(code));
    """
    with Door("ws") as door:
        result = run("node", "-e", script, door.urls["ws"] + "/rpc", env={"NODE_PATH": "/usr/share/nodejs"})
        assert result.lines == ["node", "1000"], result


SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 300_000)


@test
def pythons_websocket_client_speaks_with_it():
    import websocket
    with Door("ws") as door:
        client = websocket.create_connection(door.urls["ws"] + "/rpc", subprotocols=["cloche-rpc"], timeout=20)
        assert client.getsubprotocol() == "cloche-rpc"
        for size in SIZES:
            text = request(size, params={"text": "\u20ac" * (size // 3)})
            client.send(text)
            assert json.loads(client.recv())["id"] == size
            # The same in frames of uneven lengths, with pings between them.
            data, step = text.encode(), max(1, len(text) // 7)
            parts = [data[at:at + step] for at in range(0, len(data), step)]
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                client.send_frame(websocket.ABNF.create_frame(
                    part, websocket.ABNF.OPCODE_TEXT if number == 0 else websocket.ABNF.OPCODE_CONT, int(last)))
                if not last:
                    client.ping(b"p" * (number % 126))
            assert json.loads(client.recv())["id"] == size
        client.send_close(1000, b"bye")
        frame = client.recv_frame()
        while frame.opcode == websocket.ABNF.OPCODE_PONG:
            frame = client.recv_frame()
        assert frame.opcode == websocket.ABNF.OPCODE_CLOSE and frame.data[:2] == b"\x03\xe8", frame
        client.shutdown()


@test
def autobahn_finds_no_fault():
    """A client that checks what a server sends: masks, lengths, UTF-8, order of fragments, closing handshake."""
    script = """
import asyncio, json, sys
from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol

SIZES = json.loads(sys.argv[2])
ended = None

class Client(WebSocketClientProtocol):
    def onOpen(self):
        self.left = [(size, part) for size in SIZES for part in (None, 100, 4099)]
        self.next()
    def next(self):
        if not self.left:
            if "broken" in sys.argv:
                self.sendMessage(bytes([0xc3, 0x28]), False)
            else:
                self.sendClose(1000, "bye")
            return
        size, part = self.left.pop()
        self.sendPing(b"p" * min(size, 125))
        message = json.dumps({"jsonrpc": "2.0", "id": size, "method": "a", "params": {"text": "x" * size}})
        self.expected = size
        self.sendMessage(message.encode(), False, fragmentSize=part)
    def onMessage(self, payload, binary):
        assert not binary and json.loads(payload)["id"] == self.expected
        self.next()
    def onClose(self, clean, code, reason):
        print(clean, self.remoteCloseCode)
        ended.set_result(None)

async def main():
    global ended
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    factory = WebSocketClientFactory(sys.argv[1] + "/rpc", protocols=["cloche-rpc"], loop=loop)
    factory.protocol = Client
    factory.setProtocolOptions(failByDrop=False, utf8validateIncoming=True, acceptMaskedServerFrames=False)
    host, port = sys.argv[1].split("//")[1].split(":")
    await loop.create_connection(factory, host, int(port))
    await asyncio.wait_for(ended, 60)

asyncio.run(main())
"""
    with Door("ws") as door:
        for options, outcome in (([], "True 1000"), (["broken"], "True 1007")):
            result = run("/usr/bin/python3", "-c", script, door.urls["ws"], json.dumps(SIZES), *options, timeout=90)
            assert result.lines == [outcome], result


@test
def openssl_and_curl_speak_with_it(scratch):
    certificates = Certificates(scratch)
    with Door("tls", "wss", options=certificates.door_options()) as door:
        identity = ["-cert", certificates.path("client.pem"), "-key", certificates.path("client.key")]
        with Talk("openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", certificates.path("ca.pem"),
                  *identity, "-connect", f"127.0.0.1:{door.ports['tls']}") as talk:
            talk.say(request(5))
            talk.expect('"id":5')
        with Talk("curl", "-siN", "--http1.1", "--cacert", certificates.path("ca.pem"),
                  "--cert", certificates.path("client.pem"), "--key", certificates.path("client.key"),
                  "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
                  "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                  f"https://127.0.0.1:{door.ports['wss']}/rpc") as talk:
            answer = talk.expect("\r\n\r\n")
        # The example of RFC 6455, 1.3.
        assert answer.startswith("HTTP/1.1 101") and "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer, answer


# ---- who may come in

def refused_by_tls(door, scheme="tls", **options):
    """Whether a request gets no answer."""
    try:
        door.connect(scheme, **options).call("a")
    except (OSError, EOFError):
        return True
    return False


@test
def nobody_comes_in_without_a_certificate_of_ours(scratch):
    certificates = Certificates(scratch)
    with Door("tls", "wss", options=certificates.door_options(), insecure=False) as door:
        for scheme in ("tls", "wss"):
            assert refused_by_tls(door, scheme, cacert=certificates.path("ca.pem"))
            assert refused_by_tls(door, scheme, **certificates.client_options("stranger"))
            assert refused_by_tls(door, scheme, **certificates.client_options("not-client"))
            assert not refused_by_tls(door, scheme, **certificates.client_options())
        assert len(door.introductions) == 2


@test
def revoked_certificates_do_not_come_in(scratch):
    certificates = Certificates(scratch)
    for name, text in (("index", ""), ("number", "01\n")):
        (scratch / name).write_text(text)
    (scratch / "ca.cnf").write_text(f"[ca]\ndefault_ca=a\n[a]\ndatabase={scratch}/index\ncrlnumber={scratch}/number\n"
                                    "default_md=sha256\ndefault_crl_days=2\n")
    authority = ["-config", scratch / "ca.cnf", "-cert", certificates.path("ca.pem"), "-keyfile",
                 certificates.path("ca.key")]
    run("openssl", "ca", *authority, "-revoke", certificates.path("client.pem"))
    run("openssl", "ca", *authority, "-gencrl", "-out", certificates.path("crl.pem"))
    options = certificates.door_options() + ["--tls-crl", certificates.path("crl.pem")]
    with Door("tls", options=options) as door:
        assert refused_by_tls(door, **certificates.client_options())
        wait_for(lambda: door.said("revoked"))


@test
def old_versions_and_renegotiation_are_refused(scratch):
    certificates = Certificates(scratch)
    with Door("tls", options=certificates.door_options()) as door:
        line = (f"openssl s_client -cipher ALL:@SECLEVEL=0 -CAfile {certificates.path('ca.pem')} -cert "
                f"{certificates.path('client.pem')} -key {certificates.path('client.key')} -connect "
                f"127.0.0.1:{door.ports['tls']}")
        for version in ("-tls1", "-tls1_1"):
            assert run("sh", "-c", f"{line} {version}", code=None).code != 0
        assert not door.introductions
        with Talk(*line.split(), "-tls1_2") as talk:
            talk.expect("Verify return code")
            talk.say("R")
            talk.expect("RENEGOTIATING")
            talk.say(request(1))
            assert '"id":1' not in talk.expect("renegotiation")


@test
def pages_of_other_origins_do_not_come_in():
    with Door("ws", options=["--origin", "https://shop.example", "--origin", "null"]) as door:
        port = door.ports["ws"]
        for origin, host, status in (
                ("https://shop.example", None, 101), ("null", None, 101),
                (f"http://127.0.0.1:{port}", None, 101),
                (f"http://localhost:{port}", f"localhost:{port}", 101),
                ("https://evil.example", None, 403), ("http://shop.example", None, 403),
                (f"https://127.0.0.1:{port}", None, 403), (f"http://127.0.0.1:{port + 1}", None, 403),
                # A name of theirs that points here is not ours (DNS rebinding).
                (f"http://evil.example:{port}", f"evil.example:{port}", 403)):
            text = HANDSHAKE.format(host=host or f"127.0.0.1:{port}", more=f"Origin: {origin}\r\n").encode()
            with door.plain() as sock:
                sock.sendall(text)
                answer = sock.recv(4096).decode()
            assert answer.startswith(f"HTTP/1.1 {status} "), (origin, host, answer)


@test
def the_configuration_has_to_be_safe(scratch):
    certificates = Certificates(scratch)
    tls = ["--tls-cert", certificates.path("server.pem"), "--tls-key", certificates.path("server.key")]
    mutual = certificates.door_options()

    def check(*options):
        return run(program("cloche-door"), "--check", "--connect", "/run/x.sock", *options, code=None)

    for options in (["--listen", "tls://0.0.0.0:7071", *mutual], ["--listen", "wss://[::]:7071", *mutual],
                    ["--listen", "ws://[::1]:80", "--insecure-loopback"],
                    ["--listen", "wss://localhost:80", "--insecure-loopback", *tls]):
        assert check(*options).code == 0, options
    for options, message in (
            (["--listen", "tcp://127.0.0.1:1"], "would let in whoever"),
            (["--listen", "tcp://0.0.0.0:1", "--insecure-loopback", *mutual], "would let in whoever"),
            (["--listen", "wss://0.0.0.0:1", "--insecure-loopback", *tls], "would let in whoever"),
            (["--listen", "tls://0.0.0.0:1"], "needs a certificate"),
            (["--listen", "http://0.0.0.0:1"], "does not begin with"),
            (["--listen", "tcp://shop.example:1"], "is not an address"),
            (["--listen", "tcp://127.0.0.1:65536"], "no port number"),
            (["--listen", "tcp://127.0.0.1"], "no port number"), ([], "listens at 1 to"),
            (["--listen", "tls://127.0.0.1:1", "--tls-cert", "/nowhere", "--tls-key", "/nowhere",
              "--tls-client-ca", "/nowhere"], "/nowhere"),
            (["--listen", "tls://127.0.0.1:1", "--tls-cert", certificates.path("server.pem"), "--tls-key",
              certificates.path("client.key"), "--tls-client-ca", certificates.path("ca.pem")], "server.pem")):
        result = check(*options)
        assert result.code == 1 and message in result.err, (options, result)


# ---- hostile bytes

@test
def malformed_handshakes_are_refused():
    with Door("ws") as door:
        good = HANDSHAKE.format(host="127.0.0.1", more="Connection: close\r\n")
        for old, new, status in (
                ("GET /rpc", "POST /rpc", 405), ("HTTP/1.1", "HTTP/1.0", 400), ("GET /rpc", "GET /other", 404),
                ("Host: 127.0.0.1\r\n", "", 400), ("Host: 127.0.0.1\r\n", "Host: a\r\nHost: b\r\n", 400),
                ("Upgrade: websocket\r\n", "", 426), ("Version: 13", "Version: 8", 426),
                ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
                ("dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!==", 400),
                ("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: ", 400),
                ("Connection: close", "Sec-WebSocket-Protocol: mqtt, CLOCHE-RPC", 400),
                ("Connection: close", "Origin: http://a\r\nOrigin: http://a", 400)):
            assert old in good
            text = good.replace(old, new, 1)
            with door.plain() as sock:
                sock.sendall(text.encode())
                answer = sock.recv(4096).decode()
            assert answer.startswith(f"HTTP/1.1 {status} "), (new, answer)
        assert not door.introductions


@test
def long_headers_are_refused():
    with Door("ws") as door:
        answer = door.handshake(f"X-Padding: {'x' * 40_000}\r\n")
        assert b" 101 " not in answer and (not answer or answer.startswith(b"HTTP/1.1 4")), answer[:200]
        answer = door.handshake("".join(f"X-{i}: y\r\n" for i in range(5_000)))
        assert b" 101 " not in answer
        door.connect("ws").call("a")


@test
def wrong_frames_end_the_websocket():
    masked = bytes([0x80]) + b"\0\0\0\0"
    cases = {
        "not masked": (b"\x81\x02{}", 1002),
        "reserved bit (compressed)": (b"\xc1\x82\0\0\0\0{}", 1002),
        "reserved opcode": (b"\x83" + masked, 1002),
        "continuation of nothing": (b"\x80" + masked, 1002),
        "new message within another": (b"\x01" + masked + b"\x81" + masked, 1002),
        "long ping": (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),
        "ping in fragments": (b"\x09" + masked, 1002),
        "close with half a code": (b"\x88\x81\0\0\0\0\x03", 1002),
        "close with a code that there is not": (b"\x88\x82\0\0\0\0\x03\xed", 1002),
        "not UTF-8": (b"\x81\x82\0\0\0\0\xc3\x28", 1007),
        "half a character at the end": (b"\x81\x81\0\0\0\0\xc3", 1007),
        "too long": (b"\x81\xff" + struct.pack(">Q", MESSAGE_MAX + 1) + b"\0\0\0\0x", 1009),
        "too long by fragments": ((b"\x01\xff" + struct.pack(">Q", MESSAGE_MAX - 1) + b"\0\0\0\0" +
                                   b"x" * (MESSAGE_MAX - 1) + b"\x80\x82\0\0\0\0xx"), 1009),
        "impossibly long": (b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", 1002),
        "binary without agreement": (b"\x82" + masked, 1003),
    }
    with Door("ws") as door:
        for name, (frames, code) in cases.items():
            websocket = door.websocket()
            websocket.sock.sendall(frames)
            try:
                found = close_code(websocket)
            except (EOFError, OSError) as problem:
                found = problem
            assert found == code, (name, found)
            websocket.close()
        door.connect("ws").call("a")


@test
def nothing_of_a_broken_message_reaches_the_daemon():
    seen = []

    def listen(connection, lines):
        seen.extend(lines)

    with Door("ws", serve=listen) as door:
        websocket = door.websocket()
        websocket.send_frame(websocket.TEXT, b"whole")
        websocket.send_frame(websocket.TEXT, b"first half", fin=False)
        websocket.send_frame(0, b"\xff")
        assert close_code(websocket) == 1007
        wait_for(lambda: len(seen) == 1)
        assert seen == [b"whole\n"]


@test
def lines_in_binary_messages_are_not_messages():
    """What looks like JSON lines within a binary message before CBOR is agreed on."""
    seen = []
    with Door("ws", serve=lambda connection, lines: seen.extend(lines)) as door:
        websocket = door.websocket()
        websocket.send_frame(websocket.BINARY, b'\n{"jsonrpc":"2.0","method":"rpc.peer","params":{}}\n')
        assert close_code(websocket) == 1003
        assert not seen


# ---- time and room

@test
def slow_handshakes_are_cut_off(scratch):
    certificates = Certificates(scratch)
    options = ["--handshake-seconds", "1", *certificates.door_options()]
    with Door("ws", "tls", "wss", options=options) as door:
        silent = [door.plain(scheme) for scheme in ("ws", "tls", "wss")]
        dripping = door.plain("ws")
        stop = time.monotonic() + 20
        while time.monotonic() < stop:
            try:
                dripping.sendall(b"G")
            except OSError:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("a byte now and then keeps a connection open")
        for sock in silent:
            assert read_all(sock) == b""
        for sock in [*silent, dripping]:
            sock.close()


@test
def connections_are_limited():
    options = ["--connections", "6", "--connections-per-address", "4", "--handshakes-per-address", "3"]
    with Door("tcp", "ws", options=options) as door:
        waiting = [door.plain("ws") for _ in range(3)]
        with door.plain("ws") as fourth:  # too many handshakes
            assert read_all(fourth) == b""
        for sock in waiting:
            sock.close()

        def let_in():
            try:
                clients.append(door.connect("tcp"))
                clients[-1].call("a")
                return True
            except (OSError, EOFError):
                clients.pop().wire.close()
                return False

        clients = []
        wait_for(let_in)
        wait_for(let_in)
        wait_for(let_in)
        wait_for(let_in)
        with door.plain("tcp") as fifth:
            assert read_all(fifth) == b""
        wait_for(lambda: door.said("too many connections"))
        clients.pop().wire.close()
        wait_for(let_in, what="there is room again")


@test
def a_slow_reader_is_not_read_for():
    """Back-pressure: the daemon cannot write more than the door and the kernel hold."""
    written = [0]

    def pour(connection, lines):
        lines.readline()
        connection.settimeout(3)
        line = b'{"text":"' + b"x" * 60_000 + b'"}\n'
        try:
            while True:
                connection.sendall(line)
                written[0] += len(line)
        except OSError:
            pass
        lines.readline()

    for scheme in ("tcp", "ws"):
        written[0] = 0
        with Door(scheme, serve=pour) as door:
            client = door.connect(scheme)
            client.send("pour")
            before = -1
            while before != written[0]:
                before = written[0]
                time.sleep(0.5)
            assert written[0] < 16 << 20, written
            memory = int(next(line.split()[1] for line in open(f"/proc/{door.process.pid}/status")
                              if line.startswith("VmRSS")))
            assert memory < 40_000, memory
            # Others do not wait for it.
            other = door.connect(scheme)
            other.send("pour")
            other.wire.receive()
            client.wire.close()
            other.wire.close()


@test
def a_slow_daemon_is_not_written_to():
    sent = [0]
    with Door("tcp", "ws", serve=lambda connection, lines: time.sleep(30)) as door:
        for scheme in ("tcp", "ws"):
            sent = 0
            client = door.connect(scheme)
            client.wire.sock.settimeout(2)
            try:
                while sent < 64 << 20:
                    client.wire.send("[" + "x" * 65_000)
                    sent += 65_000
            except (TimeoutError, socket.timeout):
                pass
            assert 0 < sent < 16 << 20, (scheme, sent)
            client.wire.close()


@test
def readers_that_stall_are_given_up():
    def pour(connection, lines):
        lines.readline()
        while True:
            connection.sendall(b'{"text":"' + b"x" * 60_000 + b'"}\n')

    with Door("tcp", "ws", serve=pour, options=["--stall-seconds", "1"]) as door:
        for scheme in ("tcp", "ws"):
            client = door.connect(scheme)
            client.send("pour")
            wait_for(lambda: door.said("nothing was read for too long"), 30)
            client.wire.close()
            door.log.clear()


@test
def silent_websockets_are_pinged():
    with Door("ws", options=["--ping-seconds", "3"]) as door:
        websocket = door.websocket()
        for _ in range(2):
            assert websocket.receive_frame() == (True, websocket.PING, b"")
            websocket.send_frame(websocket.PONG, b"")
        assert websocket.receive_frame()[1] == websocket.PING
        assert close_code(websocket) == 1008
        websocket.close()


@test
def idle_connections_are_closed_when_asked_for():
    with Door("tcp", "ws", options=["--idle-seconds", "1"]) as door:
        client = door.connect("tcp")
        client.call("a")
        assert client.wire.receive() is None
        assert close_code(door.websocket()) == 1008


# ---- ends

@test
def the_end_of_the_daemons_half_is_told():
    with Door("tcp", "ws", serve=lambda connection, lines: connection.sendall(b"{}\n")) as door:
        websocket = door.websocket()
        assert websocket.receive() == "{}"
        assert close_code(websocket) == 1001
        tcp = door.plain("tcp")
        assert read_all(tcp) == b"{}\n"
        tcp.close()
        websocket.close()


@test
def a_farewell_is_answered():
    gone = threading.Event()

    def listen(connection, lines):
        lines.readline()
        gone.set()

    with Door("ws", serve=listen) as door:
        websocket = door.websocket()
        websocket.send_frame(websocket.CLOSE, struct.pack(">H", 1000) + b"bye")
        assert close_code(websocket) == 1000
        assert websocket.sock.recv(1) == b""
        assert gone.wait(60)


@test
def without_a_daemon_there_is_a_503(scratch):
    """By hand, as a client of the daemon's socket that is not there."""
    port = 18099
    door = subprocess.Popen([program("cloche-door"), "--listen", f"ws://127.0.0.1:{port}", "--insecure-loopback",
                             "--connect", str(scratch / "nobody.sock")], stderr=subprocess.DEVNULL)
    try:
        def answer():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                    sock.sendall(HANDSHAKE.format(host=f"127.0.0.1:{port}", more="").encode())
                    return sock.recv(4096)
            except OSError:
                return b""

        text = wait_for(answer)
        assert text.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in text, text
    finally:
        door.terminate()
        assert door.wait() == 0


@test
def the_door_ends_with_the_daemon():
    with Door("ws") as door:
        websocket = door.websocket()
        wait_for(lambda: door.introductions)
        door.control.shutdown(socket.SHUT_RDWR)
        assert close_code(websocket) == 1001
        websocket.close()
        assert door.process.wait(60) == 0


@test
def an_unused_door_ends():
    with Door("tcp", options=["--exit-seconds", "3"]) as door:
        client = door.connect("tcp")
        client.call("a")
        time.sleep(4)
        client.call("a")
        client.wire.close()
        assert door.process.wait(60) == 0


@test
def a_door_in_its_jail_has_nothing():
    with Door("ws") as door:
        client = door.connect("ws")  # which stays: what is being closed cannot be looked at
        client.call("a")
        pid = door.process.pid
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines()
                      if ":\t" in line)
        assert status["Uid"].split() == [str(DOOR_UID)] * 4 and status["Gid"].split() == [str(DOOR_UID)] * 4
        assert status["Groups"].strip() == ""
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert os.listdir(f"/proc/{pid}/root") == []
        for space in ("net", "mnt", "ipc", "uts"):
            assert os.readlink(f"/proc/{pid}/ns/{space}") != os.readlink(f"/proc/self/ns/{space}")
        # Its sockets, the daemon's end, the loop, signals, the log: nothing else.
        kinds = {os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")}
        assert kinds <= {"socket", "anon_inode", "pipe", "/dev/null"}, kinds
        client.wire.close()


@test
def the_example_calls_over_every_transport(scratch, instance):
    instance.start_daemon()
    certificates = Certificates(scratch)
    example = os.path.join(os.path.dirname(rpc.__file__), "rpc.py")
    ports = {"tcp": 18091, "tls": 18092, "ws": 18093, "wss": 18094}
    argv = [program("cloche-door"), "--connect", str(instance.socket), "--insecure-loopback",
            *certificates.door_options()]
    for scheme, port in ports.items():
        argv += ["--listen", f"{scheme}://127.0.0.1:{port}"]
    door = subprocess.Popen(argv, stderr=subprocess.PIPE)
    try:
        assert b"ready" in door.stderr.readline()
        identity = ["--cacert", certificates.path("ca.pem"), "--cert", certificates.path("client.pem"), "--key",
                    certificates.path("client.key")]
        for endpoint in [f"unix://{instance.socket}", *(f"{s}://127.0.0.1:{p}" for s, p in ports.items())]:
            result = run(sys.executable, example, *identity, endpoint, "system.version")
            assert json.loads(result.out)["os"] == "linux", result
        result = run(sys.executable, example, "ws://127.0.0.1:18093", "container.inspect", '{"container": "none"}',
                     code=1)
        assert "none" in result.err, result
    finally:
        door.terminate()
        door.wait()
        door.stderr.close()


if __name__ == "__main__":
    main()
