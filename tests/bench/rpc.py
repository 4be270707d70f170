#!/usr/bin/env python3
"""usage: rpc.py [--rounds N] [--calls N] [--width N] [--long N] [--idle N] [--build FOLDER]

Times calls over a Unix socket with 128 bytes of payload each way, on two processes of this machine:

    sync     one call after the other, beside a raw echo of 128 bytes, ttrpc and nng
    async    --width calls in flight on one connection, beside ttrpc and nng
    long     --long calls: what memory both sides have after a tenth of them and after all
    idle     --idle connections that were used once: what memory each costs on both sides

The peers take turns, each round in another order, and their ratios are those of the same round. Times are by
the clock, and of the processor (client and server together) for a machine that has other work too. A peer
that is not built is left out; no --long and no --idle leave those out.
"""

import argparse
import contextlib
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
START_SECONDS = 20


class Peer:
    """A program with the modes server, sync and async."""

    def __init__(self, name, words, server="server", prefix="", more=()):
        self.name, self.words, self.server_mode, self.prefix = name, words, server, prefix
        self.more = more

    @contextlib.contextmanager
    def serving(self, folder):
        self.socket = folder / f"{self.name}.sock"
        self.server = subprocess.Popen([*self.words, self.server_mode, self.socket, *self.more])
        deadline = time.monotonic() + START_SECONDS
        while not self.socket.exists():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"rpc.py: the server of {self.name} does not listen")
            time.sleep(0.01)
        try:
            yield self
        finally:
            self.server.kill()
            self.server.wait()

    def server_seconds(self):
        """Of the processor, in all its threads."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.server.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def run(self, mode, *numbers):
        """Seconds by the clock, and of the processor on both sides."""
        before = self.server_seconds()
        client = subprocess.Popen([*self.words, self.prefix + mode, self.socket, *map(str, numbers)],
                                  stdout=subprocess.PIPE)
        printed = client.stdout.read()
        client.stdout.close()
        _, status, usage = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
        if client.returncode:
            raise SystemExit(f"rpc.py: {self.name} {mode} ended with {client.returncode}")
        return float(printed), self.server_seconds() - before + usage.ru_utime + usage.ru_stime


def resident(pid):
    """Memory that is the process's own, in KiB."""
    total = 0
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total


def compare(title, mode, peers, numbers, options, baseline):
    times = {peer.name: [] for peer in peers}
    order = list(peers)
    for _ in range(options.rounds):
        random.shuffle(order)
        for peer in order:
            times[peer.name].append(peer.run(mode, *numbers))
    calls = numbers[0]
    print(f"\n{title}: {calls} calls, median of {options.rounds} rounds, fastest in brackets")
    print(f"{'':14} {'calls/s':>19} {'us':>7} {'CPU us':>7}   time / {baseline}'s")
    for peer in peers:
        seconds = [clock for clock, _ in times[peer.name]]
        cpu = statistics.median(cpu for _, cpu in times[peer.name])
        ratio = statistics.median(own / base for (own, _), (base, _)
                                  in zip(times[peer.name], times[baseline]))
        middle = statistics.median(seconds)
        print(f"{peer.name:14} {calls / middle:8.0f} ({calls / min(seconds):8.0f}) "
              f"{middle * 1e6 / calls:7.2f} {cpu * 1e6 / calls:7.2f}   {ratio:.2f}")


def long_run(peer, calls, width):
    """Many calls of one client: memory of both sides after a tenth, and after all."""
    client = subprocess.Popen([*peer.words, "long", peer.socket, str(calls), str(width)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    sizes = []
    for _ in range(2):
        client.stdout.readline()
        sizes.append((resident(client.pid), resident(peer.server.pid)))
        client.stdin.write("\n")
        client.stdin.flush()
    client.communicate()
    print(f"\nlong: {calls} calls of {peer.name}; client {sizes[0][0]} KiB after a tenth, {sizes[1][0]} after all; "
          f"server {sizes[0][1]}, {sizes[1][1]}")


def idle_run(peer, connections):
    before = resident(peer.server.pid)
    client = subprocess.Popen([*peer.words, "idle", peer.socket, str(connections)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first = int(client.stdout.readline())
    client.stdout.readline()
    after, own = resident(peer.server.pid), resident(client.pid) - first
    client.communicate()
    if client.returncode:
        raise SystemExit(f"rpc.py: {connections} idle connections: the client ended with {client.returncode}")
    print(f"\nidle: {connections} connections of {peer.name}; each {own * 1024 / connections:.0f} bytes in the client, "
          f"{(after - before) * 1024 / connections:.0f} in the server")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=30000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--build", default=os.environ.get("CLOCHE_BUILD", TOP / "build"), type=pathlib.Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    folder = options.build / "tests/bench/rpc"
    calls = [folder / "calls"]
    echo = Peer("echo", calls, server="echo-server", prefix="echo-")
    cloche = Peer("cloche", calls)
    # The same through the client of several endpoints, and that in CBOR; with a thread of its own.
    client, cbor = (Peer(name, calls, prefix=f"{name}-") for name in ("client", "cbor"))
    thread = Peer("thread", calls, prefix="thread-")
    others = [Peer(name, [folder / name], more=more)
              for name, more in (("ttrpc", ()), ("nng", (str(options.width),)))
              if (folder / name).exists()]
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        for peer in (echo, cloche, client, cbor, thread, *others):
            stack.enter_context(peer.serving(pathlib.Path(scratch)))
        compare("sync", "sync", [cloche, client, cbor, echo, *others], [options.calls], options, "echo")
        compare(f"async, {options.width} in flight", "async", [cloche, client, cbor, thread, *others],
                [options.calls, options.width], options, "cloche")
        if options.long:
            long_run(cloche, options.long, options.width)
        if options.idle:
            idle_run(cloche, options.idle)


if __name__ == "__main__":
    sys.exit(main())
