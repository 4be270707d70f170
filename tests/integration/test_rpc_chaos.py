#!/usr/bin/env python3
"""The client library against servers that are killed, stopped and started again at random: each call
ends exactly once and in time, with the answer that is its own; what may be done only once is not done
twice; what may be repeated succeeds as long as one server lives; memory stays flat.

CLOCHE_CHAOS_SECONDS (12) says for how long, CLOCHE_CHAOS_CALLS (100000) how many calls the second
test makes: `ninja chaos` runs both for minutes."""

import collections
import json
import os
import random
import signal
import subprocess
import time

from harness import BUILD, main, note, test

PROGRAM = BUILD / "tests" / "integration" / "rpc_chaos"
SECONDS = float(os.environ.get("CLOCHE_CHAOS_SECONDS", "12"))
CALLS = int(os.environ.get("CLOCHE_CHAOS_CALLS", "100000"))
MEMORY_KB = 1024  # that the allocator may still take when all is warm
SANITIZED_KB = 512 * 1024  # AddressSanitizer keeps what was freed for a while


class Server:
    """One of the endpoints, as a process."""

    def __init__(self, scratch, number):
        self.socket = scratch / f"{number}.sock"
        self.log = scratch / f"{number}.log"
        self.process = None

    def start(self):
        self.process = subprocess.Popen([PROGRAM, "server", self.socket, self.log],
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


def clients(mode, number, servers):
    return subprocess.Popen([PROGRAM, mode, str(number), *[server.socket for server in servers]],
                            stdout=subprocess.PIPE, text=True)


def finish(process, timeout):
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, process.returncode
    note(out)
    return collections.namedtuple("Tally", json.loads(out))(**json.loads(out))


def torment(servers, process, dice):
    """One at a time is dead or stopped, the others live."""
    kills = 0
    while process.poll() is None:
        server = dice.choice(servers)
        if dice.random() < 0.8:
            server.kill()
            time.sleep(dice.uniform(0, 0.3))
            server.start()
            kills += 1
        else:
            server.pause(dice.uniform(0.1, 0.8))
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
    servers = [Server(scratch, number) for number in range(3)]
    for server in servers:
        server.start()
    process = clients("clients", SECONDS, servers)
    kills = torment(servers, process, random.Random(seed))
    tally = finish(process, 120)
    for server in servers:
        server.kill()
    note(f"{kills} kills")
    assert kills > SECONDS / 4 and tally.answered > 100
    assert tally.begun == tally.ended and tally.inFlight == 0, "a call never ended"
    assert tally.twice == 0, "a call ended twice"
    assert tally.wrong == 0, "an answer came to another call"
    assert tally.late == 0, "a call hung beyond its deadline"
    assert tally.lostReads == 0, "an idempotent call failed while a server lived"
    assert tally.unexpected == 0, "a call failed otherwise than it may"
    assert memory_is_flat(tally), "memory grows"
    check_done_once(servers)


@test
def many_calls_take_no_memory(scratch):
    server = Server(scratch, 0)
    server.start()
    tally = finish(clients("many", CALLS, [server]), 1800)
    server.kill()
    assert tally.failed == 0
    assert memory_is_flat(tally), "memory grows"


if __name__ == "__main__":
    main()
