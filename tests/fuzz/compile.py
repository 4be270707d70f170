#!/usr/bin/env python3
"""Compiles and links a fuzz target as `clang ARGUMENT...` would, but shares the objects of sources that
several targets compile alike: they are in `fuzz-objects` beside OUTPUT's folder (in which the fuzzer
looks for inputs), named by what the preprocessor made of the source and by the other arguments.

usage: compile.py CLANG ARGUMENT... -o OUTPUT
"""

import fcntl
import hashlib
import os
import pathlib
import re
import subprocess
import sys

# Which folders it was looked for in says nothing once it has been found.
_FOR_PREPROCESSOR = ("-I", "-D", "-U")


def compiled(clang, flags, source, folder):
    text = subprocess.run([clang, *flags, "-E", source], check=True, capture_output=True).stdout
    key = [clang, *(flag for flag in flags if not flag.startswith(_FOR_PREPROCESSOR)), str(source)]
    name = hashlib.sha256("\0".join(key).encode() + b"\0" + text).hexdigest()[:32]
    made = folder / f"{name}.o"
    with open(folder / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            half_made = made.with_suffix(".half.o")
            subprocess.run([clang, *flags, "-c", source, "-o", half_made], check=True)
            os.rename(half_made, made)
    return made


def main(clang, *arguments):
    output = pathlib.Path(arguments[arguments.index("-o") + 1])
    sources = [word for word in arguments if word.endswith(".c")]
    flags = [word for word in arguments if re.match(r"-(?!l|o$)", word)]
    others = [word for word in arguments if word not in sources and word not in flags]
    folder = output.parent.parent / "fuzz-objects"
    folder.mkdir(exist_ok=True)
    of_compiler = [flag for flag in flags if not flag.startswith("-Wl,")]
    objects = [compiled(clang, of_compiler, source, folder) for source in sources]
    subprocess.run([clang, *flags, *objects, *others], check=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as failure:
        sys.stderr.buffer.write(failure.stderr or b"")
        sys.exit(failure.returncode or 1)
