"""NBD doors through other people's clients: qemu-io, qemu-img, nbdinfo, nbdcopy; and by hand."""

import os
import socket
import struct
import subprocess

from harness import BUILD, main, run, test

TOOL = BUILD / "tests" / "unit" / "nbd-tool"
MIB = 1 << 20
READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28
REQUEST, REPLY, OPTION, ANSWER = 0x25609513, 0x67446698, 0x49484156454F5054, 0x3E889045565A9


class Server:
    def __init__(self, scratch, *options, size=16 * MIB):
        self.image, self.socket = scratch / "image", scratch / "socket"
        self.socket.unlink(missing_ok=True)
        if not self.image.exists():
            self.image.write_bytes(os.urandom(size))
        self.process = subprocess.Popen([str(TOOL), *options, str(self.image), str(self.socket)],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self.uri = f"nbd+unix:///?socket={self.socket}"

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.socket))
        client.settimeout(20)
        return client

    def end(self):
        out = self.process.communicate(timeout=20)[0]
        assert self.process.returncode == 0
        return out


def request(client, command, offset, length, data=b"", flags=0, cookie=7):
    client.sendall(struct.pack(">IHHQQI", REQUEST, flags, command, cookie, offset, length) + data)


def receive(client, size):
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        assert more, f"the server closed after {len(data)} bytes of {size}"
        data += more
    return data


def reply(client, cookie=7):
    magic, error, named = struct.unpack(">IIQ", receive(client, 16))
    assert magic == REPLY and named == cookie
    return error


@test
def qemu_reads_and_writes(scratch):
    server = Server(scratch)
    run("qemu-io", "-f", "raw", "-c", "write -P 0x11 1M 64k", "-c", "read -P 0x11 1M 64k", "-c", "write -f -P 0x22 512 512",
        "-c", "write -z 2M 1M", "-c", "read -P 0 2M 1M", "-c", "flush", "-c", "discard 4M 1M", "-c", "read 0 16M", server.uri)
    assert server.end().startswith("ended: ")
    data = server.image.read_bytes()
    assert data[MIB:MIB + 65536] == b"\x11" * 65536 and data[512:1024] == b"\x22" * 512
    assert data[2 * MIB:3 * MIB] == bytes(MIB)


@test
def others_copy_all_of_it(scratch):
    for command in (["qemu-img", "convert", "-f", "raw", "-O", "raw"], ["nbdcopy", "--connections=1"]):
        server = Server(scratch)
        run(*command, server.uri, str(scratch / "copy"))
        server.end()
        assert (scratch / "copy").read_bytes() == server.image.read_bytes()
    server = Server(scratch, "--read-only")
    told = run("nbdinfo", server.uri).out
    server.end()
    for fact in ("export-size: 16777216", "is_read_only: true", "block_size_minimum: 512", "structured"):
        assert fact in told, (fact, told)


@test
def the_kernels_way_begins_with_requests(scratch):
    server = Server(scratch, "--bare")
    content = bytearray(server.image.read_bytes())
    with server.connect() as client:
        request(client, READ, 4096, 8192)
        assert reply(client) == 0 and receive(client, 8192) == content[4096:12288]
        request(client, WRITE, 512, 1024, b"w" * 1024, flags=1)
        assert reply(client) == 0
        request(client, FLUSH, 0, 0)
        assert reply(client) == 0
        for command, offset, length, error in ((READ, 1, 512, EINVAL), (READ, 0, 511, EINVAL), (READ, 0, 0, EINVAL),
                                               (READ, 16 * MIB, 512, EINVAL), (READ, 2**64 - 512, 1024, EINVAL),
                                               (TRIM, 16 * MIB - 512, 1024, EINVAL), (99, 0, 512, EINVAL)):
            request(client, command, offset, length, cookie=offset & 99)
            assert reply(client, offset & 99) == error, (command, offset, length)
        request(client, WRITE, 16 * MIB - 512, 1024, b"x" * 1024)
        assert reply(client) == ENOSPC
        request(client, READ, 0, 512, flags=1 << 9)
        assert reply(client) == EINVAL
        request(client, DISCONNECT, 0, 0)
    assert server.end() == "ended: the client disconnected\n"
    content[512:1536] = b"w" * 1024
    assert server.image.read_bytes() == content


@test
def a_read_only_door_takes_no_writes(scratch):
    server = Server(scratch, "--read-only", "--bare")
    before = server.image.read_bytes()
    with server.connect() as client:
        for command, data in ((WRITE, b"x" * 512), (TRIM, b""), (WRITE_ZEROES, b"")):
            request(client, command, 0, 512, data)
            assert reply(client) == EPERM
        request(client, READ, 0, 512)
        assert reply(client) == 0 and receive(client, 512) == before[:512]
    assert server.end() == "Connection reset by peer: the client has gone\n"
    assert server.image.read_bytes() == before


@test
def what_is_no_request_ends_the_connection(scratch):
    cases = [(True, b"junk" * 7, "Protocol error: what the client sent is no request\n"),
             (True, struct.pack(">IHHQQI", REQUEST, 0, WRITE, 0, 0, (32 << 20) + 512), "Protocol error: a request of "),
             (False, b"\xff" * 4, "Protocol error: the client speaks another dialect"),
             (False, struct.pack(">I", 3) + b"junk" * 4, "Protocol error: what the client sent is no option\n"),
             (False, struct.pack(">I", 3) + struct.pack(">QII", OPTION, 99, 0) * 64,
              "Protocol error: the client only asks for options\n")]
    for bare, sent, said in cases:
        server = Server(scratch, *(["--bare"] if bare else []))
        with server.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
        assert server.end().startswith(said), said


@test
def options_that_cannot_be_are_refused(scratch):
    server = Server(scratch)
    with server.connect() as client:
        assert receive(client, 16) == b"NBDMAGIC" + struct.pack(">Q", OPTION)
        receive(client, 2)
        client.sendall(struct.pack(">I", 3))

        def ask(option, data=b""):
            client.sendall(struct.pack(">QII", OPTION, option, len(data)) + data)
            magic, named, kind, length = struct.unpack(">QIII", receive(client, 20))
            assert magic == ANSWER and named == option
            return kind, receive(client, length)

        refused = 1 << 31
        assert ask(5) == (refused | 1, b"")  # TLS
        assert ask(8, b"x") == (refused | 3, b"")
        assert ask(7, b"\0\0\0\xff\0\0") == (refused | 3, b"")
        assert ask(7, b"\xff\xff\xff\xff\0\0") == (refused | 3, b"")
        assert ask(6, b"\0") == (refused | 3, b"")
        assert ask(6, bytes(9000)) == (refused | 9, b"")
        assert ask(3)[0] == 2
        assert struct.unpack(">QIII", receive(client, 20))[2] == 1
        assert ask(2) == (1, b"")
    assert server.end() == "Connection reset by peer: the client gave up\n"


if __name__ == "__main__":
    main()
