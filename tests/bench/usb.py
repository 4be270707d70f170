#!/usr/bin/env python3
"""The USB host stack beside the kernel's usb-storage, in one boot of the guest (tests/vm), in turn on
one of QEMU's sticks. Under emulation only the ratios mean something."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
LABELS = ("p50 us", "p99 us", "p99.9 us", "MB/s", "waits")
RATE = 3  # of these: more is better


PARTS = {"raw": ["usb_raw_guest.py"], "files": ["usb_guest.py"], "large": ["usb_large_guest.py"],
         "all": ["usb_raw_guest.py", "usb_guest.py"]}


def results(build, rounds, part, many):
    """case -> side -> a list of results, one a round."""
    found = {}
    command = [sys.executable, SOURCE / "tests/vm/run_guest.py", build, "tiny",
               *(SOURCE / "tests/bench" / name for name in PARTS[part])]
    guest = subprocess.run(command, env=dict(os.environ, CLOCHE_USB_ROUNDS=str(rounds), CLOCHE_USB_STICK_MB="128",
                                             CLOCHE_USB_MANY=str(many)),
                           capture_output=True, text=True, check=False)
    for line in guest.stdout.splitlines():
        if line.startswith('# {"case"'):
            entry = json.loads(line[2:])
            result = entry.get("result") or [entry["seconds"]]
            found.setdefault(entry["case"], {}).setdefault(entry["side"], []).append(result)
    if guest.returncode != 0 or not found:
        sys.exit(guest.stdout + guest.stderr)
    return found


def ratio(column, ours, theirs):
    """The median of the rounds' own ratios: both sides of a round had the same neighbours."""
    def of(pair):
        mine, other = (results[column] for results in pair)
        return mine / other if column == RATE else other / mine if mine else float("nan")
    return statistics.median(map(of, zip(ours, theirs)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.environ.get("CLOCHE_BUILD", SOURCE / "build"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=PARTS, default="all")
    parser.add_argument("--many", type=int, default=10000, help="files that are many; each 1000 take a minute or so")
    options = parser.parse_args()
    print(f"{'case':26} {'':8}" + "".join(f"{label:>12}" for label in LABELS) + "   (one figure: seconds)")
    for case, sides in results(options.build, options.rounds, options.part, options.many).items():
        medians = {side: [statistics.median(values) for values in zip(*rounds)]
                   for side, rounds in sides.items()}
        first, second = medians  # ours and the kernel's; with a journal and without
        ratios = [ratio(column, sides[first], sides[second]) for column in range(len(medians[first]))]
        for name, values in (*medians.items(), ("ratio", ratios)):
            label = case if name == first else ""
            print(f"{label:26} {name:8}" + "".join(f"{value:12.2f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
