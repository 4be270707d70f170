"""Whole sticks as block devices: NBD and rings of cloche-usb, over sticks by USB/IP; and --usb-block with
rings. (NBD and CUSE of the kernel: tests/vm/test_usb_block.py.)"""

import contextlib
import errno
import mmap
import os
import pathlib
import random
import socket
import struct
import subprocess

from harness import BUILD, Skip, main, run, test, wait_for
from sticks import ENDED, GONE, Model, Refused, Stick, attach, inspect, mount_fuse, serve, start, unmount

MIB = 1 << 20
LIBRARY = BUILD / "src/usb/lib"
SOURCES = pathlib.Path(__file__).parents[2]
HELLO = struct.Struct("=IIQ")
WELCOME = struct.Struct("=IIiIIIQQ")
MAGIC = 0x676E6972


@contextlib.contextmanager
def stick(scratch, *options, size=16 * MIB):
    """A model of a stick with random content, the process that serves it, and a talk with that."""
    path = scratch / "image"
    path.write_bytes(random.Random(size).randbytes(size))
    model = Model("--image", str(path), *options)
    process = serve(model)
    try:
        talk = process.talk()
        talk.ready()
        yield path, model, process, talk
    except BaseException:
        print(f"# exit status {process.process.poll()}: {process.said()}")
        raise
    finally:
        process.end()
        model.end()


def refused(code, function, *arguments, **parameters):
    try:
        function(*arguments, **parameters)
    except Refused as refusal:
        assert refusal.code == code, f"{errno.errorcode[refusal.code]}: {refusal}"
        return str(refusal)
    raise AssertionError("it was not refused")


def give_nbd(talk, **parameters):
    """Our end of the socket, and the answer."""
    ours, its = socket.socketpair()
    with its:
        answer = talk.call("block", [its.fileno()], unit=0, door="nbd", **parameters)
    ours.settimeout(20)
    return ours, answer


def ring_socket(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(8)
    return listener


def give_ring(talk, path, **parameters):
    with ring_socket(path) as listener:
        return talk.call("block", [listener.fileno()], unit=0, door="ring", **parameters)


def nbd_program(talk, scratch, *command):
    """Runs a client of NBD whose connection cloche-usb gets; URI in its words is where that is."""
    path = scratch / "nbd.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        uri = f"nbd+unix:///?socket={path}"
        client = subprocess.Popen([uri if word == "URI" else str(word) for word in command], stdout=subprocess.DEVNULL)
        listener.settimeout(20)
        connection = listener.accept()[0]
        with connection:
            answer = talk.call("block", [connection.fileno()], unit=0, door="nbd", negotiates=True)
    assert client.wait(60) == 0
    assert talk.wait_for("unblocked", block=answer["block"])["reason"] == "closed"


def request(client, command, offset, length, data=b"", cookie=7):
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, offset, length) + data)


def reply(client, size=0):
    data = b""
    while len(data) < 16 + size:
        more = client.recv(16 + size - len(data))
        assert more, "the server closed"
        data += more
    return struct.unpack(">IIQ", data[:16])[1:] + (data[16:],)


@test
def programs_of_nbd_copy_a_whole_stick(scratch):
    with stick(scratch) as (path, _, _, talk):
        nbd_program(talk, scratch, "nbdcopy", "URI", scratch / "copy")
        assert (scratch / "copy").read_bytes() == path.read_bytes()
        new = scratch / "new"
        new.write_bytes(b"")
        os.truncate(new, 16 * MIB)
        run("mkfs.vfat", "-F", "16", "-n", "WHOLE", new)
        assert talk.call("status")["volumes"][0]["kind"] == "unknown"
        nbd_program(talk, scratch, "nbdcopy", "--flush", new, "URI")
        assert path.read_bytes() == new.read_bytes()
        (volume,) = talk.ready()["volumes"]  # looked at anew
        assert (volume["kind"], volume["label"]) == ("fat16", "WHOLE"), volume


@test
def what_is_given_out_is_nobody_elses(scratch):
    with stick(scratch) as (_, _, _, talk):
        client, answer = give_nbd(talk)
        assert answer == {"block": 1, "unit": 0, "door": "nbd", "readOnly": False, "sectorSize": 512,
                          "sectors": 32768, "flushes": True, "discards": True}
        status = talk.call("status")
        assert status["blocks"] == [answer] and status["volumes"][0]["busy"] == "block", status
        assert "given out" in refused(errno.EBUSY, give_nbd, talk)
        assert "given out" in refused(errno.EBUSY, talk.call, "format", unit=0, kind="fat16")
        refused(errno.EBUSY, talk.call, "format", volume=1, kind="fat16")
        refused(errno.EBUSY, talk.call, "check", volume=1)
        with open("/dev/null", "rb") as nothing:
            assert "busy: block" in refused(errno.EBUSY, talk.call, "mount", [nothing.fileno()], volume=1)
        refused(errno.ENOENT, talk.call, "unblock", block=7)
        refused(errno.ENOMEDIUM, talk.call, "block", [client.fileno()], unit=3, door="nbd")
        talk.call("unblock", block=1)
        assert client.recv(1) == b""
        assert talk.ready()["blocks"] == []
        talk.call("format", unit=0, kind="fat16")
        talk.call("end")


@test
def what_is_mounted_is_not_given_out(scratch):
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")
    with stick(scratch) as (_, _, _, talk):
        talk.call("format", unit=0, kind="fat16")
        (volume,) = talk.ready()["volumes"]
        folder = scratch / "mount"
        folder.mkdir()
        fd = mount_fuse(str(folder))
        try:
            mount = talk.call("mount", [fd], volume=volume["number"])
            os.close(fd)
            assert "mounted" in refused(errno.EBUSY, give_nbd, talk)
            talk.call("unmount", mount=mount["mount"])
        finally:
            unmount(str(folder))
        client, _ = give_nbd(talk)
        client.close()


@test
def nothing_is_written_where_only_reading_is_allowed(scratch):
    with stick(scratch) as (path, _, _, talk):
        before = path.read_bytes()
        client, answer = give_nbd(talk, readOnly=True)
        assert answer["readOnly"]
        request(client, 1, 0, 512, b"x" * 512)
        assert reply(client)[0] == errno.EPERM
        request(client, 0, 512, 512)
        assert reply(client, 512) == (0, 7, before[512:1024])
        client.close()
        assert talk.wait_for("unblocked") == {"block": 1, "unit": 0, "reason": "closed"}
        give_ring(talk, scratch / "ring", readOnly=True)
        assert ring_program(scratch, scratch / "ring").out == "ok, read-only\n"
        talk.call("end")
        assert path.read_bytes() == before


@test
def what_is_ejected_or_pulled_out_ends_it(scratch):
    with stick(scratch) as (_, model, process, talk):
        client, _ = give_nbd(talk)
        talk.call("eject")
        assert talk.wait_for("unblocked") == {"block": 1, "unit": 0, "reason": "ejected"}
        assert client.recv(1) == b""
    with stick(scratch) as (_, model, process, talk):
        give_ring(talk, scratch / "ring")
        with subprocess.Popen([ring_built(scratch), scratch / "ring", "hold"], stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "holds\n"
            model.end()
            assert holder.stdout.readline() in ("No such device\n", "No medium found\n")
        assert talk.wait_for("unblocked")["reason"] == "gone"
        assert process.wait() == GONE


@test
def the_end_takes_block_devices_along(scratch):
    with stick(scratch) as (_, _, process, talk):
        client, _ = give_nbd(talk)
        request(client, 1, 0, 4096, b"e" * 4096)
        assert reply(client)[0] == 0
        talk.call("end")
        assert process.wait() == ENDED
        assert (scratch / "image").read_bytes()[:4096] == b"e" * 4096


def ring_built(scratch):
    program = scratch / "usb-ring"
    if not program.exists():
        run("cc", "-Wall", "-Wextra", "-Werror", "-I", SOURCES / "include", SOURCES / "tests/integration/usb_ring.c",
            LIBRARY / "libcloche-usb.a", "-o", program)
    return program


def ring_program(scratch, path, **options):
    return run(ring_built(scratch), path, **options)


@test
def a_program_moves_sectors_through_shared_memory(scratch):
    with stick(scratch) as (path, _, _, talk):
        give_ring(talk, scratch / "ring")
        assert ring_program(scratch, scratch / "ring").out == "ok\n"
        talk.call("unblock", block=1)
        expected = bytes((i * 31 + i // 4096) & 255 for i in range(64 * 4096))
        content = path.read_bytes()
        assert content[:65536] == expected[:65536]
        assert content[69632:len(expected)] == expected[69632:]  # between them is what was trimmed
        assert ring_program(scratch, scratch / "ring", code=1).out == "open: Connection refused\n"
        for options in (["-lcloche-usb"], ["-x", "c++", "-fsyntax-only"]):  # the shared library; the header in C++
            source = scratch / "both.c"
            source.write_text("#include <cloche/usb.h>\nint main(void) { cloche_usb_close(0); return 0; }\n")
            run("cc", "-I", SOURCES / "include", *options[:2], source, f"-L{LIBRARY}", *options, "-o", scratch / "both")
        run(scratch / "both", env={**os.environ, "LD_LIBRARY_PATH": str(LIBRARY)})


class Program:
    """A program that keeps to nothing."""

    def __init__(self, path, size=65536, version=1):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.socket.send(HELLO.pack(MAGIC, version, size))
        data, fds, _, _ = socket.recv_fds(self.socket, 64, 1)
        self.result = WELCOME.unpack(data)[2]
        self.memory = mmap.mmap(fds[0], 16384 + size) if fds else None
        for fd in fds:
            self.fd = fd

    def set_word(self, offset, value):
        self.memory[offset:offset + 4] = struct.pack("=I", value)
        self.socket.send(b"x")

    def is_out(self):
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(64):
                pass
        return True


@test
def a_hostile_program_is_put_out_and_the_others_go_on(scratch):
    with stick(scratch) as (_, _, process, talk):
        give_ring(talk, scratch / "ring")
        for offset, value in ((0, 257), (0, 0xFFFFFFFF), (4, 5)):
            bad = Program(scratch / "ring")
            if offset:  # of what it has looked at; there has to be something to do
                bad.memory[0:4] = struct.pack("=I", 1)
            bad.set_word(offset, value)
            assert bad.is_out()
        assert Program(scratch / "ring", size=5).result == -errno.EINVAL
        assert Program(scratch / "ring", size=1 << 40).result == -errno.EINVAL
        assert Program(scratch / "ring", version=9).result == -errno.EPROTONOSUPPORT
        small = Program(scratch / "ring")
        try:
            os.ftruncate(small.fd, 4096)
            raise AssertionError("the memory shrinks")
        except OSError as failure:
            assert failure.errno == errno.EPERM
        small.socket.close()
        assert ring_program(scratch, scratch / "ring").out == "ok\n"
        assert "disconnected" in process.said()


@test
def only_so_many_programs_at_a_time(scratch):
    with stick(scratch) as (_, _, _, talk):
        give_ring(talk, scratch / "ring")
        programs = [Program(scratch / "ring") for _ in range(4)]
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        waiting.connect(str(scratch / "ring"))
        waiting.send(HELLO.pack(MAGIC, 1, 65536))
        waiting.settimeout(0.3)
        try:
            waiting.recv(64)
            raise AssertionError("a fifth program was let in")
        except TimeoutError:
            pass
        programs[0].socket.close()
        waiting.settimeout(20)
        assert WELCOME.unpack(waiting.recv(64))[2] == 0


# By the daemon.

def ring_folder(instance, scratch):
    """What the container has at its path: by a way that is short enough for a socket."""
    way = scratch / "way"
    way.unlink(missing_ok=True)
    way.symlink_to(next((instance.run_folder / "containers").glob("*/usb-ring.0")))
    return way


@test
def a_container_has_a_whole_stick_through_a_ring(instance, images, scratch):
    start(instance, images, "--usb-block", "/run/stick:via=ring")
    with Stick(kind=None) as one:
        name = attach(instance, one)
        wait_for(lambda: inspect(instance, name).get("blocks"), what="the block device in the container")
        (block,) = inspect(instance, name)["blocks"]
        assert (block["target"], block["via"], block["readOnly"]) == ("/run/stick", "ring", False), block
        assert "socket" in instance.cloche("exec", "shop", "ls", "/run/stick").out
        assert ring_program(scratch, ring_folder(instance, scratch)).out == "ok\n"
        instance.kill_daemon()
        wait_for(lambda: inspect(instance, name)["state"] == "ready", what="the stick taken over")
        assert inspect(instance, name)["blocks"] == [block]
        assert ring_program(scratch, ring_folder(instance, scratch)).out == "ok\n"
        one.pull_out()
        wait_for(lambda: instance.cloche("exec", "shop", "ls", "/run/stick").out == "", what="the socket gone")
        wait_for(lambda: not instance.cloche("usb", "ls", "--format", "json").lines, what="the stick gone from the list")
        one.plug_in()
        name = attach(instance, one)
        wait_for(lambda: inspect(instance, name).get("blocks"), what="the block device in the container again")
        instance.cloche("restart", "-t", "0", "shop")
        wait_for(lambda: inspect(instance, name).get("blocks"), what="the block device after a restart")
        assert ring_program(scratch, ring_folder(instance, scratch)).out == "ok\n"
        instance.cloche("rm", "-f", "shop")
        wait_for(lambda: not inspect(instance, name).get("blocks"), what="the block device back")


@test
def what_cannot_be_given_is_said(instance, images):
    instance.cloche("load", "-q", "-i", images.small())
    for option, said in (("stick", "must be absolute"), ("/dev/x:via=tape", "via is nbd, cuse or ring"),
                         ("/dev/x:colour=red", "unknown option"), ("/dev/x:unit=99", "invalid value for unit"),
                         ("/media/x:via=nbd", "no path below /dev"), ("/dev/x:usb=12345:789", "invalid USB device")):
        assert said in instance.cloche("run", "--usb-block", option, "small:1", "true", code=125).err, option
    if os.path.exists("/sys/module/nbd") or os.path.exists("/dev/cuse"):
        return
    instance.cloche("run", "-d", "--name", "shop", "--usb-block", "/dev/usbblk0", "small:1", "sleep", "1000")
    with Stick(kind=None) as one:
        attach(instance, one)
        events = instance.cloche("events", "--since", "60s", "--until", "0s", "--filter", "type=usb")
        wait_for(lambda: "no CUSE" in instance.cloche("events", "--since", "60s", "--until", "0s", "--filter",
                                                      "type=usb").out, what=f"the reason: {events.out}")


if __name__ == "__main__":
    main()
