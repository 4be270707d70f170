"""The daemon's side of cloche-monitor's protocol (src/monitor/include/monitor/protocol.h), in
Python, so that tests can do to a monitor what cloched never would."""

import ctypes
import json
import os
import pathlib
import select
import socket
import struct
import subprocess
import time

from harness import PROGRAMS, program, run, wait_for

MAGIC, VERSION = 0x434C4F4D, 2
HEADER = struct.Struct("=IHHII")
(HELLO, START, ATTACH, FOLLOW, SIGNAL, STOP, RESIZE, EXEC, STATUS, UPDATE) = range(1, 11)
(OK, ERROR, STARTED, START_FAILED, EXITED, EXEC_EXITED, EXEC_RUNNING, RESTARTING,
 HEALTH) = range(64, 73)
ATTACH_STDIN, ATTACH_STDOUT, ATTACH_STDERR, ATTACH_LOGS = 1, 2, 4, 8
EXEC_TTY, EXEC_STDIN, EXEC_DETACH = 1, 2, 4
STATUS_STRUCT_1 = struct.Struct("=IiiiIIQQQ")
STATUS_STRUCT = struct.Struct("=IiiiIIQQQIIQ")
STATE_CREATED, STATE_STARTING, STATE_RUNNING, STATE_EXITED, STATE_RESTARTING = range(1, 6)
FOLLOW_NOT = 1
RESTART_NO, RESTART_ALWAYS, RESTART_ON_FAILURE = range(3)
WHEN_UNHEALTHY = 1
HEALTH_NONE, HEALTH_STARTING, HEALTH_HEALTHY, HEALTH_UNHEALTHY = range(4)

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The monitor answered with an error."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


def policy(restart=RESTART_NO, flags=0, retries=0, restarts=0, delay=100, delay_max=60000,
           reset=10000, log_files=3, log_size=0, check="", interval=200, timeout=5000,
           start_period=0, start_interval=50, check_retries=3):
    """A struct monitor_policy; times in milliseconds."""
    return struct.pack("=8IQ128s6I", restart, flags, retries, restarts, delay, delay_max, reset,
                       log_files, log_size, check.encode(), interval, timeout, start_period,
                       start_interval, check_retries, 0)


class Message:
    def __init__(self, kind, request, payload):
        self.kind, self.request, self.payload = kind, request, payload

    def error(self):
        return struct.unpack_from("=i", self.payload)[0], self.payload[4:].decode()

    def exited(self):
        code, oom, started, finished = struct.unpack("=iIQQ", self.payload)
        return {"code": code, "oom": oom, "started": started, "finished": finished}

    def restarting(self):
        names = ("code", "oom", "started", "finished", "next", "restarts", "_")
        return dict(zip(names, struct.unpack("=iIQQQII", self.payload)))

    def health(self):
        return struct.unpack("=II", self.payload)

    def started(self):
        return dict(zip(("pid", "restarts", "started"), struct.unpack("=iIQ", self.payload)))

    def exec_exited(self):
        name, code = struct.unpack_from("=72si", self.payload)
        return name.rstrip(b"\0").decode(), code


class Daemon:
    """One connection to a monitor."""

    def __init__(self, sock, version=VERSION):
        self.socket = sock
        self.socket.settimeout(120)
        self.number = 0
        self.kept = []
        self.version = version

    def send(self, kind, payload=b"", fds=(), version=None, request=None):
        version = version or self.version
        self.number += 1
        number = self.number if request is None else request
        data = HEADER.pack(MAGIC, version, kind, number, len(payload)) + payload
        socket.send_fds(self.socket, [data], list(fds))
        return number

    def receive(self):
        """The next message, or None at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return None
        if not data:
            return None
        magic, _, kind, request, length = HEADER.unpack_from(data)
        assert magic == MAGIC and length == len(data) - HEADER.size, data
        return Message(kind, request, data[HEADER.size:])

    def wait_for(self, wanted):
        """The next message that wanted says yes to; others are kept for later."""
        for message in self.kept:
            if wanted(message):
                self.kept.remove(message)
                return message
        while True:
            message = self.receive()
            assert message, "the monitor closed the connection"
            if wanted(message):
                return message
            self.kept.append(message)

    def answer(self, number):
        message = self.wait_for(lambda message: message.request == number)
        if message.kind in (ERROR, START_FAILED):
            raise Refused(*message.error())
        return message

    def call(self, kind, payload=b"", fds=()):
        return self.answer(self.send(kind, payload, fds))

    # ---- requests

    def hello(self):
        return self._status(self.call(HELLO))

    def status(self):
        return self._status(self.call(STATUS))

    def _status(self, message):
        names = ("state", "pid", "monitor", "code", "oom", "health", "started", "finished",
                 "log_size", "restarts", "streak", "next")
        form = STATUS_STRUCT if self.version > 1 else STATUS_STRUCT_1
        return dict(zip(names, form.unpack(message.payload)))

    def start(self, how=None):
        message = self.call(START, b"" if self.version == 1 else how or policy())
        assert message.kind == STARTED, message.kind
        return struct.unpack_from("=i", message.payload)[0]

    def detach(self, keys):
        """The keys that part a client, as messages have them."""
        return b"" if self.version == 1 else struct.pack("=I16s", len(keys), keys)

    def attach(self, flags=ATTACH_STDOUT | ATTACH_STDERR, keys=b""):
        mine, theirs = socket.socketpair()
        with theirs:
            self.call(ATTACH, struct.pack("=I", flags) + self.detach(keys), [theirs.fileno()])
        return Stream(mine)

    def follow(self, offset=0, inode=0, flags=0):
        mine, theirs = socket.socketpair()
        payload = struct.pack("=QQII", offset, inode, flags, 0)
        with theirs:
            self.call(FOLLOW, payload[:8] if self.version == 1 else payload, [theirs.fileno()])
        return Stream(mine)

    def signal(self, number):
        self.call(SIGNAL, struct.pack("=I", number))

    def stop(self, timeout_ms, number=0):
        self.call(STOP, struct.pack("=Ii", number, timeout_ms))

    def resize(self, rows, columns, name=""):
        self.call(RESIZE, struct.pack("=72sHHI", name.encode(), rows, columns, 0))

    def exec(self, name, process, flags=0, rows=0, columns=0, keys=b""):
        """Returns the stream, or None when detached."""
        fds, mine = [], None
        if not flags & EXEC_DETACH:
            mine, theirs = socket.socketpair()
            fds.append(theirs.fileno())
        try:
            self.call(EXEC, struct.pack("=72s128sIHH", name.encode(), process.encode(), flags, rows,
                                        columns) + self.detach(keys), fds)
        finally:
            if mine:
                theirs.close()
        return Stream(mine) if mine else None

    def wait_exec(self, name):
        return self.wait_for(lambda message: message.kind == EXEC_EXITED and
                             message.exec_exited()[0] == name).exec_exited()[1]

    def update(self, how):
        self.call(UPDATE, how)

    def wait_restarting(self):
        return self.wait_for(lambda message: message.kind == RESTARTING).restarting()

    def wait_restarted(self):
        return self.wait_for(lambda message: message.kind == STARTED and
                             message.request == 0).started()

    def wait_health(self):
        return self.wait_for(lambda message: message.kind == HEALTH).health()[0]

    def wait_exited(self):
        return self.wait_for(lambda message: message.kind == EXITED).exited()

    def close(self):
        self.socket.close()


class Stream:
    """A client's end of an attach or follow stream."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.settimeout(120)
        self.data = b""

    def write(self, data):
        self.socket.sendall(data)

    def end_input(self):
        self.socket.shutdown(socket.SHUT_WR)

    def read_all(self):
        """Everything to the end."""
        while True:
            data = self.socket.recv(1 << 20)
            if not data:
                return self.data
            self.data += data

    def read_until(self, wanted):
        """Reads until `wanted` (bytes) has come; returns everything so far."""
        while wanted not in self.data:
            data = self.socket.recv(1 << 16)
            assert data, f"ended without {wanted!r}: {self.data[-2000:]!r}"
            self.data += data
        return self.data

    def close(self):
        self.socket.close()


def unframe(data):
    """Attach frames -> (stdout, stderr)."""
    out = {1: b"", 2: b""}
    parts = {1: [], 2: []}
    at = 0
    while at < len(data):
        stream, length = struct.unpack_from(">BxxxI", data, at)
        assert stream in out and at + 8 + length <= len(data), data[at:at + 16]
        parts[stream].append(data[at + 8:at + 8 + length])
        at += 8 + length
    return b"".join(parts[1]), b"".join(parts[2])


def unlog(data):
    """Log lines -> (stdout, stderr), checking the form of each line."""
    parts = {b"stdout": [], b"stderr": []}
    assert data == b"" or data.endswith(b"\n")
    for line in data.split(b"\n")[:-1]:
        time_text, stream, tag, text = line.split(b" ", 3)
        assert len(time_text) == 30 and time_text.endswith(b"Z"), line
        assert tag in (b"F", b"P") and len(text) <= 16384, line[:100]
        parts[stream].append(text + (b"\n" if tag == b"F" else b""))
    return b"".join(parts[b"stdout"]), b"".join(parts[b"stderr"])


def runtime():
    """Path of the OCI runtime under the monitor."""
    own = PROGRAMS / "cloche-runtime"
    return str(own) if own.exists() else "/usr/sbin/runc"


def open_tree(path):
    """A detached clone of a mount, as a descriptor."""
    fd = _libc.syscall(428, -100, os.fsencode(path), 1 | os.O_CLOEXEC)  # OPEN_TREE_CLONE
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


def new_netns():
    """A new network namespace, as a descriptor."""
    keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        mine = os.stat("/proc/self/ns/net").st_ino
        wait_for(lambda: os.stat(f"/proc/{keeper.pid}/ns/net").st_ino != mine)
        return os.open(f"/proc/{keeper.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        keeper.kill()
        keeper.wait()


class Monitor:
    """A running cloche-monitor with a bundle of its own."""

    def __init__(self, folder, name, root, command, tty=False, options=(), env=(), memory=0,
                 netns=False, pidns=True, program_name="cloche-monitor", protocol=VERSION):
        self.folder, self.name = pathlib.Path(folder), name
        self.bundle, self.log = self.folder / "bundle", self.folder / "log"
        self.runtime_root = self.folder / "runtime"
        (self.bundle / "rootfs").mkdir(parents=True, exist_ok=True)
        self.runtime_root.mkdir(exist_ok=True)
        self._write_config(command, tty, env, memory, netns, pidns)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = {"--control-fd": theirs.detach(), "--rootfs-fd": open_tree(root)}
        if netns:
            fds["--netns-fd"] = new_netns()
        argv = [program(program_name), "--protocol", protocol, "--id", name,
                "--bundle", self.bundle, "--runtime", runtime(), "--runtime-root",
                self.runtime_root, "--log", self.log, *(["--tty"] if tty else []), *options]
        for option, fd in fds.items():
            argv += [option, fd]
        with open(self.folder / "complaints", "ab") as complaints:
            self.process = subprocess.Popen([str(word) for word in argv], pass_fds=fds.values(),
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=complaints)
        for fd in fds.values():
            os.close(fd)
        self.daemon = Daemon(mine, protocol)

    def _write_config(self, command, tty, env, memory, netns, pidns):
        (self.bundle / "config.json").unlink(missing_ok=True)
        run("runc", "spec", cwd=self.bundle)
        config = json.loads((self.bundle / "config.json").read_text())
        config["process"]["args"] = list(command)
        config["process"]["env"] += list(env)
        config["process"]["terminal"] = tty
        config["root"]["readonly"] = False
        config["linux"]["cgroupsPath"] = "/" + self.name
        if memory:
            config["linux"]["resources"]["memory"] = {"limit": memory}
        kinds = config["linux"]["namespaces"]
        for kind in kinds:
            if kind["type"] == "network" and netns:
                kind["path"] = str(self.bundle / "netns")
        if not pidns:
            config["linux"]["namespaces"] = [k for k in kinds if k["type"] != "pid"]
        (self.bundle / "config.json").write_text(json.dumps(config))

    def write_process(self, name, command, tty=False):
        process = {"terminal": tty, "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": list(command),
                   "env": ["PATH=/bin:/usr/bin", "TERM=xterm"]}
        (self.bundle / name).write_text(json.dumps(process))
        return name

    def connect(self, version=VERSION):
        """A further daemon."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.bundle / "monitor.sock"))
        return Daemon(sock, version)

    def wait(self, timeout=120):
        """The monitor's end; must be a good one."""
        code = self.process.wait(timeout)
        text = (self.folder / "complaints").read_text()
        assert code == 0 and not text, f"the monitor ended with {code}: {text}"

    def state(self):
        """BUNDLE/status as a dictionary."""
        lines = (self.bundle / "status").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def log_files(self):
        """Those of the log, oldest first."""
        number = lambda path: int(path.name.partition(".")[2] or 0)
        return sorted(self.log.parent.glob("log*"), key=number, reverse=True)

    def output(self):
        """What the log holds: (stdout, stderr)."""
        return unlog(b"".join(path.read_bytes() for path in self.log_files()))

    def checks(self):
        """The results of health checks that are kept, oldest first."""
        found = []
        for path in self.bundle.glob("health.?"):
            head, _, output = path.read_bytes().partition(b"\n\n")
            fields = dict(line.split("=", 1) for line in head.decode().splitlines())
            fields["output"] = output
            found.append(fields)
        return sorted(found, key=lambda fields: int(fields["number"]))

    def remove(self):
        """Ends whatever is left; for tests that fail half-way."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        run(runtime(), "--root", self.runtime_root, "delete", "--force", self.name, code=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.daemon.close()
        self.remove()
