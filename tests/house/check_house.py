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
PUBLIC = TOP / "include"  # for programs outside of this tree

# What a folder may include besides itself. Everything may use base.
MAY_USE = {
    "base": set(),
    "schema": {"base"},
    "runtime": {"base", "schema"},
    "store": {"base", "schema"},
    "image": {"base", "schema"},
    "names": {"base", "schema"},
    "net": {"base", "schema"},
    "cni": {"base", "schema"},
    "usb": {"base", "schema"},
    "rpc": {"base", "schema"},
    "monitor": {"base"},
    "engine": {"base", "schema", "store", "image", "names", "net", "cni", "usb", "rpc",
               "monitor"},
    "kiosk": {"base", "schema", "engine"},
    "jobs": {"base", "schema", "engine"},
    "api": {"base", "schema", "rpc", "engine", "kiosk", "jobs", "store", "image", "net"},
    "door": {"base", "schema", "rpc"},
    "programs": None,  # anything
}
# Programs that are thin users of a public library: of this tree they include this and their own.
THIN_PROGRAMS = {
    # schema/json.h: the writer of JSON text, for the log and for update's flags.
    "cloche-runtime": re.compile(r"cloche/runtime\.h|base/\w+\.h|schema/json\.h"),
}
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70


def sources():
    return sorted(SRC.rglob("*.[ch]")) + sorted(PUBLIC.rglob("*.h"))


def includes_of(path):
    """(line, "<" or '"', path) of every #include."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)', line)
        if match:
            yield number, match[1], match[2]


def readmes():
    return [f"src/{d.name} has no README.md" for d in sorted(SRC.iterdir())
            if d.is_dir() and any(d.rglob("*.c")) and not (d / "README.md").exists()]


def includes():
    problems = []
    for path in sorted(SRC.rglob("*.[ch]")):
        module = path.relative_to(SRC).parts[0]
        allowed = MAY_USE.get(module)
        if allowed is None:
            continue
        for number, _, name in includes_of(path):
            used = name.split("/")[0]
            # <net/if.h> is libc's; the schema's headers are generated.
            ours = used in MAY_USE and (used == "schema" or (SRC / used / "include" / name).exists())
            if ours and used not in allowed | {module}:
                problems.append(f"{path.relative_to(TOP)}:{number}: {module} may not use {used}")
    return problems


def thin_programs():
    """They have of their library what programs outside of this tree have, the public header."""
    problems = []
    for program, allowed in THIN_PROGRAMS.items():
        folder = SRC / "programs" / program
        for path in sorted(folder.rglob("*.[ch]")):
            for number, mark, name in includes_of(path):
                own = mark == '"' and "/" not in name and (folder / name).exists()
                # Folders of system headers: sys/stat.h, linux/sched.h.
                system = mark == "<" and ("/" not in name or re.match("(sys|linux)/", name))
                if not (own or system or allowed.fullmatch(name)):
                    problems.append(f"{path.relative_to(TOP)}:{number}: {program} may not use {name}")
    return problems


def public_headers():
    """What is installed stands alone: it includes nothing that is not."""
    return [f"{path.relative_to(TOP)}:{number}: {name} is not installed"
            for path in sorted(PUBLIC.rglob("*.h")) for number, mark, name in includes_of(path)
            if mark == '"' or re.match("(base|schema|runtime)/", name)]


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
    others = [p for folder in ("tests", "contrib") for p in sorted((TOP / folder).rglob("*.[ch]"))]
    files = [str(p) for p in sources() + others]
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
    checks = [readmes, includes, thin_programs, public_headers, lengths, functions, formatting, promises]
    return tap.run(checks, "clang-format is not installed")


if __name__ == "__main__":
    sys.exit(main())
