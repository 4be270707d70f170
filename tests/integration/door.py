"""A door of the build under test, the daemon's side of it in Python, and certificates."""

import array
import contextlib
import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

from harness import TOP, note, program, run, wait_for

sys.path.insert(0, str(TOP / "contrib" / "examples"))
sys.path.append("/usr/lib/python3/dist-packages")  # Debian's websockets, for whichever Python this is

import rpc  # noqa: E402 (the example)

DOOR_UID = 64999
HANDSHAKE = ("GET /rpc HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n")


_ports = itertools.count(20001)  # below those that the kernel gives to clients


def free_port():
    """Nobody else's: the network namespace is the test file's own (harness.py)."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = next(_ports)
            probe.bind(("127.0.0.1", port))
            return port


class Door:
    """cloche-door in its jail with a daemon of ours behind it: `serve(connection, lines)` is called
    in a thread for each connection that it hands over; who has come is in introductions. Without
    serve, every request is answered with its own method and params."""

    def __init__(self, *schemes, serve=None, options=(), jailed=True, insecure=True):
        self.ports = {scheme: free_port() for scheme in schemes}
        self.urls = {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in self.ports.items()}
        self.serve = serve or echo
        self.introductions = []
        self.connections = []
        self.options = list(options)
        self.jailed = jailed
        self.insecure = insecure

    def __enter__(self):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [program("cloche-door"), "--control-fd", str(theirs.fileno()), *map(str, self.options)]
        for url in self.urls.values():
            argv += ["--listen", url]
        if self.jailed:
            argv += ["--uid", str(DOOR_UID), "--gid", str(DOOR_UID)]
        if self.insecure:
            argv += ["--insecure-loopback"]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        theirs.close()
        self.log = []
        threading.Thread(target=self._read_log, daemon=True).start()
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()
        wait_for(lambda: self.said("ready") or self.process.poll() is not None, what="the door is ready")
        assert self.process.poll() is None, self.log
        return self

    def __exit__(self, kind, *_):
        if kind:
            note("".join(self.log[-40:]))
        self.control.close()
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        for connection in self.connections:
            connection.close()

    def _read_log(self):
        try:
            for line in self.process.stderr:
                self.log.append(line.decode(errors="replace"))
        except ValueError:
            pass  # closed

    def said(self, text):
        return any(text in line for line in self.log)

    def _accept(self):
        while True:
            try:
                data, ancillary, _, _ = self.control.recvmsg(1 << 16, socket.CMSG_SPACE(4))
            except OSError:
                return
            if not data:
                return
            fds = array.array("i")
            fds.frombytes(ancillary[0][2][:4])
            connection = socket.socket(fileno=fds[0])
            connection.setblocking(True)
            self.connections.append(connection)
            self.introductions.append(json.loads(data))
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.serve(connection, connection.makefile("rb"))
        except (OSError, ValueError):
            pass
        finally:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def connect(self, scheme, **options):
        return rpc.connect(self.urls[scheme], **options)

    def plain(self, scheme="ws", timeout=60):
        """A TCP connection, and no word yet."""
        return socket.create_connection(("127.0.0.1", self.ports[scheme]), timeout=timeout)

    def websocket(self, scheme="ws", **options):
        """A WebSocket whose frames are made by hand."""
        return rpc.WebSocket(self.plain(scheme), f"127.0.0.1:{self.ports[scheme]}", **options)

    def ask(self, text, scheme="ws"):
        """All that comes back for these bytes."""
        with self.plain(scheme) as sock:
            sock.sendall(text)
            return read_all(sock)

    def handshake(self, more=""):
        return self.ask(HANDSHAKE.format(host=f"127.0.0.1:{self.ports['ws']}", more=more).encode())


def read_all(sock):
    data = b""
    try:
        while True:
            part = sock.recv(65536)
            if not part:
                return data
            data += part
    except ConnectionResetError:
        return data


def echo(connection, lines):
    for line in lines:
        request = json.loads(line)
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": [request["method"], request.get("params")]}
        connection.sendall(json.dumps(answer, separators=(",", ":")).encode() + b"\n")


class Certificates:
    """Two authorities, ours and a stranger's, with a certificate each for a server and clients."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.authority("ca")
        self.authority("strange-ca")
        self.make("server", "ca", "/CN=door", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth")
        self.make("client", "ca", "/O=Shop/CN=till 7",
                  "subjectAltName=DNS:till7.example,email:till7@example.org,IP:192.0.2.7\n"
                  "extendedKeyUsage=clientAuth")
        self.make("stranger", "strange-ca", "/CN=stranger", "extendedKeyUsage=clientAuth")
        self.make("not-client", "ca", "/CN=till 7", "extendedKeyUsage=serverAuth")

    def path(self, name):
        return str(self.folder / name)

    def key(self, name):
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
            self.path(name + ".key"))

    def authority(self, name):
        self.key(name)
        run("openssl", "req", "-x509", "-new", "-key", self.path(name + ".key"), "-subj", f"/CN={name}",
            "-days", "2", "-out", self.path(name + ".pem"))

    def make(self, name, issuer, subject, extensions):
        self.key(name)
        (self.folder / "extensions").write_text(extensions + "\n")
        run("openssl", "req", "-new", "-key", self.path(name + ".key"), "-subj", subject, "-out",
            self.path(name + ".csr"))
        run("openssl", "x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path(issuer + ".pem"),
            "-CAkey", self.path(issuer + ".key"), "-CAcreateserial", "-days", "2", "-extfile",
            self.path("extensions"), "-out", self.path(name + ".pem"))

    def door_options(self):
        return ["--tls-cert", self.path("server.pem"), "--tls-key", self.path("server.key"),
                "--tls-client-ca", self.path("ca.pem")]

    def client_options(self, name="client"):
        return {"cacert": self.path("ca.pem"), "cert": self.path(name + ".pem"),
                "key": self.path(name + ".key")}
