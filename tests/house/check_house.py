#!/usr/bin/env python3
"""The rules of the house that a machine can check, as TAP.

- a folder of src/ has a README.md;
- a file includes only public headers of modules that its folder may use (design: dependencies point
  one way);
- no source file is longer than 800 lines, no function longer than 70;
- sources are formatted as .clang-format says, when clang-format is there;
- no line promises later work.
"""
import pathlib
import re
import shutil
import subprocess
import sys

import tap

TOP = pathlib.Path(__file__).resolve().parents[2]
SRC = TOP / "src"

# What a folder may include besides itself. Everything may use base.
MAY_USE = {
    "base": set(),
    "schema": {"base"},
    "runtime": {"base", "schema"},
    "store": {"base", "schema"},
    "image": {"base", "schema"},
    "net": {"base", "schema"},
    "usb": {"base", "schema"},
    "rpc": {"base", "schema"},
    "monitor": {"base"},
    "engine": {"base", "schema", "store", "image", "net", "usb", "rpc", "monitor"},
    "kiosk": {"base", "schema", "engine"},
    "jobs": {"base", "schema", "engine"},
    "api": {"base", "schema", "rpc", "engine", "kiosk", "jobs", "store", "image", "net"},
    "door": {"base", "schema", "rpc"},
    "programs": None,  # anything
}
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70


def sources():
    return sorted(p for p in SRC.rglob("*.[ch]"))


def readmes():
    return [f"src/{d.name} has no README.md" for d in sorted(SRC.iterdir())
            if d.is_dir() and any(d.rglob("*.c")) and not (d / "README.md").exists()]


def includes():
    problems = []
    for path in sources():
        module = path.relative_to(SRC).parts[0]
        allowed = MAY_USE.get(module)
        if allowed is None:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+[<"](([a-z]+)/[^>"]+)', line)
            # <net/if.h> is libc's; the schema's headers are generated.
            ours = match and match[2] in MAY_USE and (
                match[2] == "schema" or (SRC / match[2] / "include" / match[1]).exists())
            if ours and match[2] not in allowed | {module}:
                problems.append(f"{path.relative_to(TOP)}:{number}: {module} may not use {match[2]}")
    return problems


def lengths():
    problems = []
    for path in sources():
        lines = len(path.read_text().splitlines())
        if lines > FILE_LINES_MAX:
            problems.append(f"{path.relative_to(TOP)}: {lines} lines, the limit is {FILE_LINES_MAX}")
    return problems


def functions():
    """A function starts at a line that begins in column 0 and ends at the next '}' in column 0."""
    problems = []
    for path in sources():
        start = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line == "{":
                start = number
            elif line.startswith("}") and start is not None:
                if line == "}" and number - start > FUNCTION_LINES_MAX:
                    problems.append(f"{path.relative_to(TOP)}:{start}: a function of "
                                    f"{number - start} lines, the limit is {FUNCTION_LINES_MAX}")
                start = None
    return problems


def formatting():
    tool = shutil.which("clang-format")
    if not tool:
        return None
    files = [str(p) for p in sources()] + [str(p) for p in sorted((TOP / "tests").rglob("*.[ch]"))]
    result = subprocess.run([tool, "--dry-run", *files], capture_output=True, text=True)
    found = sorted({line.split(":")[0] for line in result.stderr.splitlines() if "warning:" in line})
    return [f"{pathlib.Path(f).relative_to(TOP)}: run clang-format -i" for f in found]


def promises():
    problems = []
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    for path in sources() + sorted((TOP / "tests").rglob("*.[ch]")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if words.search(line):
                problems.append(f"{path.relative_to(TOP)}:{number}: {line.strip()}")
    return problems


def main():
    checks = [readmes, includes, lengths, functions, formatting, promises]
    return tap.run(checks, "clang-format is not installed")


if __name__ == "__main__":
    sys.exit(main())
