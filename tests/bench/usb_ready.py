#!/usr/bin/env python3
"""From attach to ready: how long a stick takes until its volumes are known, and how much of that is ours.

The stick is the tests' model by USB/IP on loopback, whose commands take next to nothing. `cloche-usb` is the process
of the stick alone, from its start; `usb.attach` is the whole, from the daemon's call to its answer. CPU time is that of
cloche-usb with its jail, and of the daemon; on a busy machine it says more than the clock does."""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/integration"))


def cpu_ms(pid):
    """Of the process's threads that are there."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        total += int(pathlib.Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e6


def children(pid):
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def of_process(model):
    from sticks import serve
    begun = time.perf_counter()
    process = serve(model)
    try:
        talk = process.talk()
        talk.ready()
        wall = (time.perf_counter() - begun) * 1e3
        cpu = cpu_ms(process.process.pid) + cpu_ms(process.jailed())
        commands = talk.call("stats")["commands"]
        talk.call("end")
        process.wait()
    finally:
        process.end()
    return wall, cpu, commands


class Management:
    """Calls on the daemon's socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.number = 0

    def call(self, method, **params):
        self.number += 1
        line = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        self.socket.sendall(json.dumps(line).encode() + b"\n")
        while True:
            answer = json.loads(self.file.readline())
            if answer.get("id") == self.number:
                return answer["result"]


def of_daemon(management, daemon, model):
    before = cpu_ms(daemon)
    begun = time.perf_counter()
    stick = management.call("usb.attach", stick=f"usbip://127.0.0.1:{model.port}/1-1")
    wall = (time.perf_counter() - begun) * 1e3
    cpu = cpu_ms(daemon) - before
    cpu += sum(cpu_ms(pid) for pid in (stick["pid"], *children(stick["pid"])))
    management.call("usb.detach", stick=stick["id"])
    return wall, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.environ.get("CLOCHE_BUILD", SOURCE / "build"))
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    os.environ["CLOCHE_BUILD"] = str(options.build)
    from harness import Instance
    from sticks import Model
    rows = {"cloche-usb": [], "usb.attach": []}
    instance = Instance(f"t{os.getpid() % 10**6:06}")
    with tempfile.NamedTemporaryFile(prefix="cloche-test-", dir="/var/tmp") as image:
        os.truncate(image.name, 64 << 20)
        subprocess.run(["mkfs.vfat", "-F", "32", image.name], check=True, capture_output=True)
        model = Model("--image", image.name)
        try:
            daemon = instance.start_daemon()
            management = Management(str(instance.socket))
            for _ in range(options.rounds):
                wall, cpu, commands = of_process(model)
                rows["cloche-usb"].append((wall, cpu))
                rows["usb.attach"].append(of_daemon(management, daemon, model))
        finally:
            model.end()
            instance.cloche("system", "remove", "--force", code=None)
    print(f"{'':12} {'wall min':>9} {'median':>9} {'CPU min':>9} {'median':>9}   ms, {commands} commands")
    for name, results in rows.items():
        values = [find(column) for column in zip(*results) for find in (min, statistics.median)]
        print(f"{name:12} " + " ".join(f"{value:9.2f}" for value in values))


if __name__ == "__main__":
    main()
