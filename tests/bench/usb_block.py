#!/usr/bin/env python3
"""A whole stick by the ring of libcloche-usb beside NBD: random reads of a model of a stick by USB/IP on
loopback, in turn. Only the ratios mean something where others work."""

import argparse
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/integration"))

from sticks import Model, serve  # noqa: E402

CASES = ((4096, 1, 2000), (4096, 16, 6000), (65536, 1, 1000), (65536, 16, 2000), (1 << 20, 4, 200))
LABELS = ("p50 us", "least us", "MB/s", "switches")


def once(talk, program, folder, way, size, depth, count):
    """One round of one case: what usb_block.c says."""
    path = pathlib.Path(folder) / way
    path.unlink(missing_ok=True)
    kind = socket.SOCK_SEQPACKET if way == "ring" else socket.SOCK_STREAM
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(path))
        listener.listen(1)
        given = talk.call("block", [listener.fileno()], unit=0, door="ring") if way == "ring" else None
        client = subprocess.Popen([program, way, path, str(size), str(depth), str(count)], stdout=subprocess.PIPE, text=True)
        if way == "nbd":
            with listener.accept()[0] as connection:
                given = talk.call("block", [connection.fileno()], unit=0, door="nbd")
    out = client.communicate()[0]
    if way == "ring":
        talk.call("unblock", block=given["block"])
    else:
        talk.wait_for("unblocked", block=given["block"])
    talk.ready()
    return [float(word) for word in out.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.environ.get("CLOCHE_BUILD", SOURCE / "build"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cloche-bench-", dir="/var/tmp") as folder:
        program = f"{folder}/usb-block"
        subprocess.run(["cc", "-O2", "-I", SOURCE / "include", SOURCE / "tests/bench/usb_block.c",
                        pathlib.Path(options.build) / "src/usb/lib/libcloche-usb.a", "-o", program], check=True)
        image = pathlib.Path(folder) / "image"
        image.write_bytes(os.urandom(64 << 20))
        model = Model("--image", str(image))
        process = serve(model)
        talk = process.talk()
        talk.ready()
        print(f"{'size, depth':20}{'':8}" + "".join(f"{label:>12}" for label in LABELS))
        for size, depth, count in CASES:
            rounds = {"ring": [], "nbd": []}
            for _ in range(options.rounds):
                for way, results in rounds.items():
                    results.append(once(talk, program, folder, way, size, depth, count))
            medians = {way: [statistics.median(values) for values in zip(*results)] for way, results in rounds.items()}
            for way, values in medians.items():
                print(f"{f'{size}, {depth}':20}{way:8}" + "".join(f"{value:12.2f}" for value in values), flush=True)
        process.end()
        model.end()


if __name__ == "__main__":
    main()
