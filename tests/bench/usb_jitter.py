#!/usr/bin/env python3
"""How late reads from a stick come while all processors are busy, with cloche-usb as usual and real-time, in turn in one
boot of the guest (tests/vm). Under emulation only the ratios mean something."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
LABELS = ("p50 us", "p99 us", "p99.9 us", "worst us")


def results(build, rounds):
    """case -> side -> a list of results, one a round."""
    found = {}
    command = [sys.executable, SOURCE / "tests/vm/run_guest.py", build, "tiny",
               SOURCE / "tests/bench/usb_jitter_guest.py"]
    guest = subprocess.run(command, env=dict(os.environ, CLOCHE_USB_ROUNDS=str(rounds), CLOCHE_USB_STICK_MB="16"),
                           capture_output=True, text=True, check=False)
    for line in guest.stdout.splitlines():
        if line.startswith('# {"case"'):
            entry = json.loads(line[2:])
            found.setdefault(entry["case"], {}).setdefault(entry["side"], []).append(entry["result"])
    if guest.returncode != 0 or not found:
        sys.exit(guest.stdout + guest.stderr)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.environ.get("CLOCHE_BUILD", SOURCE / "build"))
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    for case, sides in results(options.build, options.rounds).items():
        print(f"{case:26}" + "".join(f"{label:>12}" for label in LABELS))
        for side, rounds in sides.items():
            print(f"  {side:24}" + "".join(f"{statistics.median(values):12.1f}" for values in zip(*rounds)))


if __name__ == "__main__":
    main()
