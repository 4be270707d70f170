"""Many containers at once, with a network, names and a port of their own each. A few in every run of the
tests; CLOCHE_MANY says how many (`meson test --suite many`: 500, on two cores and 24 GiB)."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import sys
import time

from harness import http_get, main, note, run, test, wait_for
from raw_rpc import Rpc

COUNT = int(os.environ.get("CLOCHE_MANY", "80"))
IMAGE = "small:1"
AT_ONCE = 8

# Asks for the addresses of the names that come on standard input, and prints those that are not known.
_ASK = """
import socket, struct, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.settimeout(20)
peer.connect(("127.0.0.11", 53))
for number, name in enumerate(sys.stdin.read().split()):
    query = struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + name.encode() + b"\\0"
    peer.send(query + struct.pack(">HH", 1, 1))
    if struct.unpack_from(">HHHH", peer.recv(4096))[3] != 1:
        print(name)
"""


class Clock:
    """Says what each step took; nothing is expected of it."""

    def __enter__(self):
        self.started = time.monotonic()
        return self

    def __exit__(self, *_):
        pass

    def lap(self, what):
        now = time.monotonic()
        note(f"{what}: {now - self.started:.1f} s")
        self.started = now


def listed(instance, *options):
    return instance.cloche("ps", "-q", *options).out.split()


def unknown_names(instance, asker, names):
    pid = json.loads(instance.cloche("inspect", asker).out)[0]["State"]["Pid"]
    return run("nsenter", "--net", "--target", pid, sys.executable, "-c", _ASK, input="\n".join(names)).out.split()


def name_server():
    """Its process; there is no other in our namespace."""
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text() == "cloche-names\n":
                return int(entry.name)
    raise AssertionError("there is no name server")


def memory(instance):
    """Resident KiB of the daemon."""
    with open(f"/proc/{instance.daemon_pid()}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@test
def containers_in_great_number(instance, images):
    """They start at the same time, survive the daemon with all names, and are stopped and removed."""
    names = [f"many{number}" for number in range(COUNT)]
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    instance.cloche("network", "create", "--subnet", "10.123.0.0/16", "crowd")

    def start(name):
        instance.cloche("run", "-d", "--name", name, "--network", "crowd", "-p", f"{22000 + int(name[4:])}:80", IMAGE,
                        "sh", "-c", f"echo {name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp", timeout=600)

    def everything_works():
        assert len(listed(instance)) == COUNT
        assert unknown_names(instance, names[0], names) == []
        for number in (0, COUNT // 2, COUNT - 1):
            assert http_get("127.0.0.1", 22000 + number) == f"many{number}\n"

    with Clock() as clock:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(start, names))
        clock.lap(f"{COUNT} started")
        everything_works()
        clock.lap("names and ports")
        for _ in range(10):
            listed(instance)
        clock.lap("10 times ps")
        busy = memory(instance)
        wait_for(lambda: memory(instance) < busy * 3 // 4, what="the idle daemon gives memory back", interval=0.2)
        clock.lap(f"the daemon has {memory(instance)} KiB after {busy}")
        instance.kill_daemon()
        server = name_server()
        os.kill(server, signal.SIGSTOP)  # it reads later what it is told of all of them
        with Rpc(wait_for_daemon(instance), timeout=600) as rpc:
            clock.lap("another daemon has taken over")
            assert len(rpc.call("container.list")["containers"]) == COUNT
        os.kill(server, signal.SIGCONT)
        everything_works()
        clock.lap("names and ports")
        instance.cloche("stop", "-t", "0", *names, timeout=600)
        clock.lap("stopped")
        assert listed(instance) == [] and len(listed(instance, "-a")) == COUNT
        instance.cloche("rm", *names, timeout=600)
        clock.lap("removed")
        assert listed(instance, "-a") == []
        wait_for(lambda: not list((instance.root / "containers").iterdir()), what="their files are gone")


def wait_for_daemon(instance):
    instance.cloche("version", timeout=600)
    return instance.socket


if __name__ == "__main__":
    main()
