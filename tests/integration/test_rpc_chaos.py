#!/usr/bin/env python3
"""The client library against servers that are killed, stopped and started again at random: each call
ends exactly once and in time, with the answer that is its own; what may be done only once is not done
twice; what may be repeated succeeds as long as one server lives; memory stays flat, and when it is over
all endpoints are in again.

CLOCHE_CHAOS_SECONDS (12) says for how long, CLOCHE_CHAOS_CALLS (100000) how many calls the second
test makes: `ninja chaos` runs both for minutes."""

import collections
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time

from harness import BUILD, main, note, test

PROGRAM = BUILD / "tests" / "integration" / "rpc_chaos"
SECONDS = float(os.environ.get("CLOCHE_CHAOS_SECONDS", "12"))
CALLS = int(os.environ.get("CLOCHE_CHAOS_CALLS", "100000"))
MEMORY_KB = 4096  # that the allocator may still take when all is warm; a hundred thousand calls are made
SANITIZED_KB = 512 * 1024  # AddressSanitizer keeps what was freed for a while
WIDTHS = (256, 20000)  # calls at a time: on the wire, and many more than it takes
FDS_MOST = 8 * (4 + 3 * 2 * 2) + 20  # clients, each with its own and two of each kind to each endpoint


def free_port():
    """Not among those that connections get by themselves: else one could connect to itself."""
    while True:
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                port = random.randrange(20000, 30000)
                probe.bind(("127.0.0.1", port))
                return port


class Server:
    """One of the endpoints, as a process."""

    def __init__(self, scratch, number, tcp=False):
        self.endpoint = f"tcp:127.0.0.1:{free_port()}" if tcp else scratch / f"{number}.sock"
        self.log = scratch / f"{number}.log"
        self.process = None

    def start(self):
        self.process = subprocess.Popen([PROGRAM, "server", self.endpoint, self.log],
                                        stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def pause(self, seconds):
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)


def memory_is_flat(tally):
    limit = SANITIZED_KB if b"__asan_init" in PROGRAM.read_bytes() else MEMORY_KB
    return tally.memoryAfterKb - tally.memoryBeforeKb < limit


def clients(servers, mode, *numbers):
    return subprocess.Popen([PROGRAM, mode, *map(str, numbers), *[server.endpoint for server in servers]],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process, timeout):
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, process.returncode
    note(out)
    return collections.namedtuple("Tally", json.loads(out))(**json.loads(out))


def tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def torment(servers, process, dice, seconds):
    """One at a time is dead or stopped, the others live; in the end all do."""
    kills, until = 0, time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        server = dice.choice(servers)
        if dice.random() < 0.8:
            server.kill()
            time.sleep(dice.uniform(0, 0.3))
            server.start()
            kills += 1
        else:
            server.pause(dice.choice((dice.uniform(0.1, 0.8), dice.uniform(0.8, 2.5))))
        time.sleep(dice.uniform(0, 0.3))
    return kills


def check_done_once(servers):
    """What the servers wrote down before they answered, or died."""
    done = collections.Counter()
    for server in servers:
        if server.log.exists():
            done.update(server.log.read_text().split())
    twice = [number for number, times in done.items() if times > 1]
    assert done, "nothing was written"
    assert not twice, f"done more than once: {twice[:10]}"


@test
def calls_survive_servers_that_die_at_random(scratch):
    seed = random.randrange(1 << 32)
    note(f"seed {seed}")
    dice = random.Random(seed)
    servers = [Server(scratch, number, tcp=number == 2) for number in range(3)]
    for server in servers:
        server.start()
    process = clients(servers, "clients")
    kills = torment(servers, process, dice, SECONDS / 3)
    tell(process)
    kills += torment(servers, process, dice, SECONDS * 2 / 3)
    tell(process)
    tally = finish(process, 120)
    for server in servers:
        server.kill()
    note(f"{kills} kills")
    assert kills > SECONDS / 6 and tally.answered > 100
    assert tally.begun == tally.ended and tally.inFlight == 0, "a call never ended"
    assert tally.twice == 0, "a call ended twice"
    assert tally.wrong == 0, "an answer came to another call"
    assert tally.late == 0, "a call hung beyond its deadline"
    assert tally.lostReads == 0, "an idempotent call failed while a server lived"
    assert tally.unexpected == 0, "a call failed otherwise than it may"
    assert memory_is_flat(tally), "memory grows"
    assert tally.endpointsOut == 0, "an endpoint is out though it lives"
    assert tally.fdsAfter <= FDS_MOST, "more connections than agreed"
    assert tally.fdsLast == tally.fdsFirst, "a descriptor is left"
    check_done_once(servers)


@test
def many_calls_take_no_memory(scratch):
    server = Server(scratch, 0)
    server.start()
    tallies = [finish(clients([server], "many", CALLS, width), 1800) for width in WIDTHS]
    server.kill()
    for tally in tallies:
        assert tally.failed == 0
        assert memory_is_flat(tally), "memory grows"


if __name__ == "__main__":
    main()
