#!/usr/bin/env python3
"""usage: codecs.py [--rounds N] [--count N] [--build FOLDER] [--record FILE]

Times our JSON and our CBOR beside json-c and libcbor, as codecs alone, on a container's record: bytes to
a value and its release, and a value to bytes. They take turns, each round in another order; times are of
the processor. MB/s are of the bytes that a codec itself reads or writes, and once more of the JSON text that
the record would have been, which is the same work for all. A library that is not installed is left out.
"""

import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
CODECS = {"cloche_json": "json", "json_c": "json", "cloche_cbor": "cbor", "libcbor": "cbor"}


def measure(program, mode, document, count):
    """Records a second."""
    done = subprocess.run([program, mode, document, str(count)], stdout=subprocess.PIPE, check=True)
    return count / float(done.stdout)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--build", default=os.environ.get("CLOCHE_BUILD", TOP / "build"), type=pathlib.Path)
    parser.add_argument("--record", default=HERE / "record.json", type=pathlib.Path)
    options = parser.parse_args()
    folder = options.build / "tests/bench/codec"
    programs = {name: folder / f"codec_{name}" for name in CODECS
                if (folder / f"codec_{name}").exists()}
    with tempfile.TemporaryDirectory() as scratch:
        documents = {}
        for format in ("json", "cbor"):
            documents[format] = pathlib.Path(scratch) / f"record.{format}"
            with documents[format].open("wb") as file:
                subprocess.run([programs[f"cloche_{format}"], "convert", options.record], stdout=file,
                               check=True)
        sizes = {format: path.stat().st_size for format, path in documents.items()}
        cases = [(name, mode) for name in programs for mode in ("parse", "write")]
        rates = {case: [] for case in cases}
        for _ in range(options.rounds):
            random.shuffle(cases)
            for name, mode in cases:
                rates[name, mode].append(measure(programs[name], mode, documents[CODECS[name]],
                                                 options.count))
    print(f"{sizes['json']} bytes of JSON, {sizes['cbor']} of CBOR; median of {options.rounds} rounds, "
          "fastest in brackets")
    print(f"{'':12} {'':6} {'records/s':>19} {'us':>6} {'MB/s':>7} {'as JSON':>8}")
    for mode in ("parse", "write"):
        for name in programs:
            rate = statistics.median(rates[name, mode])
            print(f"{name:12} {mode:6} {rate:9.0f} ({max(rates[name, mode]):7.0f}) {1e6 / rate:6.2f} "
                  f"{rate * sizes[CODECS[name]] / 1e6:7.0f} {rate * sizes['json'] / 1e6:8.0f}")


if __name__ == "__main__":
    sys.exit(main())
