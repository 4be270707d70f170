#!/usr/bin/env python3
"""Calls a method of the Cloche daemon, with nothing but Python's standard library.

    rpc.py unix:///run/cloche/cloche.sock container.list '{"all": true}'
    rpc.py --cert me.pem --key me.key --cacert ca.pem tls://kiosk7:7071 system.version
    rpc.py ws://127.0.0.1:8080 --watch events.subscribe     # prints what comes, until interrupted

The messages are JSON-RPC 2.0: one on a line over Unix, TCP and TLS sockets, one in a text message over
WebSockets (RFC 6455). cloche-rpc(7) describes the methods.
"""
import argparse
import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import urllib.parse


class Lines:
    """A message a line."""

    def __init__(self, sock):
        self.sock = sock
        self.file = sock.makefile("rb")

    def send(self, text):
        self.sock.sendall(text.encode() + b"\n")

    def receive(self):
        """Text of the next message; None at the end."""
        line = self.file.readline()
        return line.decode().rstrip("\n") if line else None

    def close(self):
        self.file.close()
        self.sock.close()


class WebSocket:
    """The client's side of RFC 6455, as far as one needs it."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, sock, host, path="/rpc", protocol="cloche-rpc", headers=()):
        self.sock = sock
        self.file = sock.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
                 f"Sec-WebSocket-Protocol: {protocol}", *headers]
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.check_answer(key)

    def check_answer(self, key):
        status = self.file.readline().decode().split(" ", 2)
        headers = {}
        for line in iter(self.file.readline, b"\r\n"):
            if not line:
                raise ConnectionError("the door hung up")
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if status[1] != "101":
            why = self.file.read(int(headers.get("content-length", 0))).decode().strip()
            raise ConnectionError(f"HTTP {status[1]}: {why}")
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if headers.get("sec-websocket-accept") != base64.b64encode(digest).decode():
            raise ConnectionError("that was no WebSocket")

    def send_frame(self, opcode, data, fin=True):
        """A frame of a client is masked (5.3)."""
        head = bytes([(0x80 if fin else 0) | opcode])
        if len(data) < 126:
            head += bytes([0x80 | len(data)])
        elif len(data) < 65536:
            head += struct.pack(">BH", 0x80 | 126, len(data))
        else:
            head += struct.pack(">BQ", 0x80 | 127, len(data))
        mask = os.urandom(4)
        stream = (mask * (len(data) // 4 + 1))[:len(data)]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")
        self.sock.sendall(head + mask + masked)

    def read(self, count):
        data = self.file.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def receive_frame(self):
        """(fin, opcode, data)"""
        first, length = self.read(2)
        if length == 126:
            length, = struct.unpack(">H", self.read(2))
        elif length == 127:
            length, = struct.unpack(">Q", self.read(8))
        return bool(first & 0x80), first & 0x0f, self.read(length)

    def send(self, text):
        self.send_frame(self.TEXT, text.encode())

    def receive(self):
        """Text of the next message; None at the end. Pings are answered."""
        message = b""
        while True:
            try:
                fin, opcode, data = self.receive_frame()
            except EOFError:
                return None
            if opcode == self.PING:
                self.send_frame(self.PONG, data)
            elif opcode == self.CLOSE:
                self.send_frame(self.CLOSE, data[:2])
                return None
            elif opcode != self.PONG:
                message += data
                if fin:
                    return message.decode()

    def close(self):
        self.file.close()
        self.sock.close()


class Client:
    """One connection. Calls are answered in any order; what the daemon says by itself goes to
    `notified`."""

    def __init__(self, wire, notified=None):
        self.wire = wire
        self.notified = notified
        self.last = 0
        self.answers = {}

    def send(self, method, params=None):
        """Sends a request; returns its number."""
        self.last += 1
        self.wire.send(json.dumps({"jsonrpc": "2.0", "id": self.last, "method": method,
                                   "params": params or {}}))
        return self.last

    def take(self, number=None):
        """The answer to a request; without a number: notifications until the end."""
        while number is None or number not in self.answers:
            text = self.wire.receive()
            if text is None:
                raise EOFError("the daemon has ended the connection")
            message = json.loads(text)
            if "method" in message:
                if self.notified:
                    self.notified(message["method"], message.get("params"))
            else:
                self.answers[message["id"]] = message
        answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{answer['error']['message']} ({answer['error']['code']})")
        return answer["result"]

    def call(self, method, params=None):
        return self.take(self.send(method, params))


def tls_context(cacert=None, cert=None, key=None):
    """What we show, and whom we believe."""
    context = ssl.create_default_context(cafile=cacert)
    if cert:
        context.load_cert_chain(cert, key)
    return context


def connect(endpoint, cacert=None, cert=None, key=None, notified=None):
    url = urllib.parse.urlsplit(endpoint)
    if url.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(url.path)
        return Client(Lines(sock), notified)
    sock = socket.create_connection((url.hostname, url.port))
    if url.scheme in ("tls", "wss"):
        sock = tls_context(cacert, cert, key).wrap_socket(sock, server_hostname=url.hostname)
    wire = WebSocket(sock, url.netloc) if url.scheme in ("ws", "wss") else Lines(sock)
    return Client(wire, notified)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("endpoint", help="unix:///PATH, tcp://, tls://, ws:// or wss://HOST:PORT")
    parser.add_argument("method")
    parser.add_argument("params", nargs="?", default="{}", help="JSON")
    parser.add_argument("--cacert", help="authority of the door's certificate")
    parser.add_argument("--cert", help="our certificate")
    parser.add_argument("--key", help="and its key")
    parser.add_argument("--watch", action="store_true", help="go on and print notifications")
    args = parser.parse_args()
    try:
        client = connect(args.endpoint, args.cacert, args.cert, args.key,
                         lambda method, params: print(method, json.dumps(params), flush=True))
        print(json.dumps(client.call(args.method, json.loads(args.params)), indent=2), flush=True)
        if args.watch:
            client.take()
    except (OSError, EOFError, RuntimeError) as problem:
        sys.exit(f"rpc.py: {problem}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
