"""cloche-usb as its daemon starts it, and the stick model that it reads: for the tests of both."""

import array
import contextlib
import ctypes
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time

from harness import BUILD, PROGRAMS, run

PROGRAM = str(PROGRAMS / "cloche-usb")
# The guest of tests/vm has the programs in a folder of its own, all else where it was built.
MODEL = str((pathlib.Path(os.environ["BUILD"]) if "CLOCHE_GUEST" in os.environ else BUILD) / "tests/unit/stick")

ENDED, FAILED, GONE = 0, 1, 3


class Refused(Exception):
    """What the process answered with an error."""

    def __init__(self, failure):
        super().__init__(failure["message"])
        self.code = -failure["code"]


class Model:
    """A stick by USB/IP on loopback: tests/usb/stick_main.c."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([MODEL, *arguments], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait_for_loss(self):
        """Of a volatile one: until it has lost what was not flushed."""
        assert self.process.stdout.readline() == b"lost\n"

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Talk:
    """A connection to the process."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.events = []
        self.answers = {}
        self.ids = 0
        self.arrived = threading.Condition()
        self.ended = False
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        data = b""
        while True:
            try:
                piece = self.socket.recv(65536)
            except OSError:
                piece = b""
            with self.arrived:
                if not piece:
                    self.ended = True
                    self.arrived.notify_all()
                    return
                *lines, data = (data + piece).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "event" in message:
                        self.events.append(message["event"])
                    else:
                        self.answers[message["id"]] = message
                self.arrived.notify_all()

    def ask(self, what, fds=(), **parameters):
        """Sends a request; its id."""
        self.ids += 1
        request = {"version": 1, "id": self.ids, what: parameters}
        if fds:
            request["fds"] = len(fds)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([json.dumps(request).encode() + b"\n"], rights)
        return self.ids

    def answer(self, number, timeout=60):
        with self.arrived:
            if not self.arrived.wait_for(lambda: number in self.answers or self.ended, timeout):
                raise TimeoutError(f"no answer to {number}")
            if number not in self.answers:
                raise ConnectionError("the process hung up")
            message = self.answers.pop(number)
        if "error" in message:
            raise Refused(message["error"])
        return message["result"]

    def call(self, what, fds=(), timeout=60, **parameters):
        result = self.answer(self.ask(what, fds, **parameters), timeout)
        return result.get(what, result)

    def wait_for(self, what, timeout=30, **members):
        """The first event of this name with these members, taken out of the list."""
        def find():
            for event in self.events:
                if what in event and all(event[what].get(k) == v for k, v in members.items()):
                    return event
            return None
        with self.arrived:
            self.arrived.wait_for(lambda: find() or self.ended, timeout)
            event = find()
            if not event:
                raise TimeoutError(f"no event {what} {members}: {self.events}")
            self.events.remove(event)
        return event[what]

    def ready(self, units=1, timeout=30):
        """Waits until what the units have is known, and returns the status."""
        deadline = time.monotonic() + timeout
        while True:
            status = self.call("status")
            states = [unit["state"] for unit in status["units"]]
            if len(states) >= units and not {"waiting", "reading"} & set(states):
                return status
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready: {status}")
            time.sleep(0.005)

    def close(self):
        self.socket.close()


class Process:
    """cloche-usb with a socket in a folder of its own."""

    program = PROGRAM

    def __init__(self, source, fd, *options, under=()):
        """under: a program, and its arguments, that executes it."""
        self.folder = tempfile.TemporaryDirectory(prefix="cloche-test-usb-", dir="/var/tmp")
        self.path = os.path.join(self.folder.name, "stick.sock")
        self.log = open(os.path.join(self.folder.name, "log"), "w+b")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(4)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*under, PROGRAM, "--listen", str(listener.fileno()), "--" + source, str(fd), *options],
            pass_fds=(listener.fileno(), fd), stdin=subprocess.DEVNULL, stderr=self.log)
        listener.close()

    def talk(self):
        return Talk(self.path)

    def wait(self, timeout=30):
        return self.process.wait(timeout)

    def jailed(self):
        """The process ID of the jailed one."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
                children = file.read().split()
            if children:
                return int(children[0])
            time.sleep(0.001)
        raise TimeoutError("no jailed process")

    def said(self):
        self.log.flush()
        with open(self.log.name, "rb") as file:
            return file.read().decode()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()


def serve(model, *options, under=()):
    """cloche-usb over a connection to the model."""
    with model.connect() as connection:
        return Process("usbip", connection.fileno(), *options, under=under)


# What the filter refuses in everyday work, and what comes of it: glibc makes threads by clone(2) then; libfuse
# wants to see that the descriptors 0 to 2 are in use, and they are; libusb looks where the devices are, and has one.
REFUSED = ("clone3(", 'openat(AT_FDCWD, "/dev/null", O_RDWR', 'openat(AT_FDCWD, "/dev/bus/usb", O_RDONLY',
           'openat(AT_FDCWD, "/dev", O_RDONLY', 'readlink("/proc/self/fd/4"', 'statfs("/sys"')


def whole_calls(lines):
    """Of strace -f: what another thread's calls came between is one line again."""
    begun, whole = {}, []
    for line in lines:
        thread = line.split()[0]
        if line.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix("<unfinished ...>")
        elif "<... " in line:
            whole.append(begun.pop(thread, thread + " ") + line.split("resumed>", 1)[-1])
        else:
            whole.append(line)
    return whole


def refused_calls(process_of, folder, eject=True):
    """Everything that a stick's user does, under strace: the calls that the filter refused, but for REFUSED.
    process_of(under) starts the process; its first volume is made anew."""
    trace = folder / "trace"
    process = process_of(("strace", "-f", "-qq", "-o", str(trace)))
    mount = folder / "traced"
    mount.mkdir()
    try:
        talk = process.talk()
        talk.ready()
        for kind in ("fat16", "exfat"):
            volume = talk.call("status")["volumes"][0]["number"]
            talk.call("format", volume=volume, kind=kind, label="TRACED")
            fd = mount_fuse(str(mount))
            talk.call("mount", [fd], volume=volume)
            os.close(fd)
            use_files(mount)
            talk.call("sync")
            talk.call("stats")
            unmount(str(mount))
            talk.wait_for("unmounted")
            talk.call("check", volume=volume, repair=True)
        if eject:
            talk.call("eject")
        talk.call("end", timeout=120)
        process.wait()
    finally:
        process.end()
    lines = whole_calls(trace.read_text().splitlines())
    assert len(lines) > 500 and any("epoll_wait" in line for line in lines), len(lines)
    return [line for line in lines if re.search(r"= -1 (EPERM|ENOSYS) ", line)
            and not any(known in line for known in REFUSED)]


def use_files(folder):
    (folder / "file").write_bytes(os.urandom(1 << 20))
    assert len((folder / "file").read_bytes()) == 1 << 20
    (folder / "folder").mkdir()
    os.rename(folder / "file", folder / "folder/moved")
    os.truncate(folder / "folder/moved", 100)
    os.utime(folder / "folder/moved", (1e9, 1e9))
    os.statvfs(folder)
    with open(folder / "folder/moved", "rb") as file:
        os.fsync(file.fileno())
    (folder / "folder/moved").unlink()
    assert os.listdir(folder / "folder") == []
    (folder / "folder").rmdir()


def can_be_real_time(priority):
    """None: yes; else what the refusal names."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return f"real-time of priority {priority}"
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    child = subprocess.run(["sh", "-c", "ulimit -H -l unlimited"], stderr=subprocess.DEVNULL)
    return "locked memory" if child.returncode else None


libc = ctypes.CDLL(None, use_errno=True)


def check(value):
    if value < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return value


def mount_fuse(target, read_only=False):
    """Mounts a FUSE connection and returns its descriptor."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=040000,user_id=0,group_id=0,allow_other,default_permissions"
    flags = 2 | 4 | (1 if read_only else 0)  # MS_NOSUID, MS_NODEV, MS_RDONLY
    try:
        check(libc.mount(b"cloche-test", target.encode(), b"fuse.cloche-test", flags, options.encode()))
    except OSError:
        os.close(fd)
        raise
    return fd


def unmount(target):
    check(libc.umount2(target.encode(), 2))  # MNT_DETACH


# By the daemon.

class Stick:
    """A stick model with a file system on it."""

    def __init__(self, *arguments, kind="vfat", size=32, files=()):
        self.image = tempfile.NamedTemporaryFile(prefix="cloche-test-", dir="/var/tmp")
        os.truncate(self.image.name, size << 20)
        if kind == "vfat":
            run("mkfs.vfat", "-n", "SHOP", self.image.name)
            for name, text in files:
                run("mcopy", "-i", self.image.name, "-", f"::{name}", input=text)
        elif kind:
            run("mkfs.exfat", "-L", "SHOP", self.image.name)
        self.arguments = arguments
        self.process = None
        self.port = 0
        self.plug_in()

    def plug_in(self):
        self.process = subprocess.Popen([MODEL, "--port", str(self.port), "--image", self.image.name, *self.arguments],
                                        stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        self.process.stdout.close()

    def pull_out(self):
        self.process.kill()
        self.process.wait()

    @property
    def url(self):
        return f"usbip://127.0.0.1:{self.port}/1-1"

    def read(self, name):
        return run("mtype", "-i", self.image.name, f"::{name}").out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pull_out()
        self.image.close()


def attach(instance, stick):
    return instance.cloche("usb", "attach", stick.url).out.strip()


def inspect(instance, name):
    return json.loads(instance.cloche("usb", "inspect", name).out)[0]


def start(instance, images, *options, name="shop"):
    instance.cloche("load", "-q", "-i", images.small())
    instance.cloche("run", "-d", "--name", name, *options, "small:1", "sleep", "1000")
