#!/usr/bin/env python3
"""The documentation says what the code says, as TAP.

usage: check_docs.py [BUILD FOLDER]

What can be compared without running containers: pages against programs, options, tables, fields and
messages; pages of runtime-spec/ against the tests that they name; links. The page of `cloche` is
compared with its --help by tests/integration/test_cli.py.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

import tap

TOP = pathlib.Path(__file__).resolve().parents[2]
MAN = TOP / "man"
PROGRAMS = TOP / "src" / "programs"
EXAMPLES = {"runtime-spec/x.json", "runtime-spec/my-thing.json"}  # of src/schema/README.md
BUILD = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None


def read(path):
    return (TOP / path).read_text(encoding="utf-8")


def page(name):
    return re.sub(r"\\(.)", r"\1", read(f"man/{name}.scd"))


def programs():
    return re.findall(r"^executable\('([\w-]+)'", read("src/programs/meson.build"), re.M)


def page_of(program):
    found = [p for p in MAN.glob(f"{program}.[18].scd")]
    return found[0] if found else None


def sources_of(program):
    folder = PROGRAMS / program
    files = sorted(folder.glob("*.c")) if folder.is_dir() else [PROGRAMS / f"{program}.c"]
    return "\n".join(f.read_text() for f in files)


def differences(what, left, left_name, right, right_name):
    return [f"{what}: {item} is in {left_name}, not in {right_name}" for item in sorted(left - right)] + \
           [f"{what}: {item} is in {right_name}, not in {left_name}" for item in sorted(right - left)]


def every_program_has_a_page():
    installed = set(re.findall(r"^  '([\w.-]+)',$", read("man/meson.build"), re.M))
    problems = [f"src/programs: {name} has no page in man/" for name in programs() if not page_of(name)]
    return problems + differences("pages", {p.stem for p in MAN.glob("*.scd")}, "man/", installed,
                                  "man/meson.build")


def pages_have_the_options_of_the_sources():
    problems = []
    for program in programs():
        if program == "cloche" or not page_of(program):
            continue
        source = sources_of(program)
        table = re.findall(r'\{"([\w-]+)", (?:no|required|optional)_argument', source)
        table += re.findall(r'\.name = (?:run \? )?"([\w-]+)"(?:, \.\w+ = [^,{}]+)*, \.(?:value|flag|list|refused)',
                            source)
        table += re.findall(r'\{"([\w-]+)", "\w+", "\w+", FLAG_', source)
        table += re.findall(r'\.name = run \? "([\w-]+)"', source)
        named = re.findall(r"\*--([\w-]+)\*", page_of(program).read_text())
        problems += differences(program, set(table), "its sources", set(named), "its page")
    return problems


def pages_have_the_options_of_the_help():
    if not BUILD:
        return None
    problems = []
    for program in programs():
        path = BUILD / "src" / "programs" / program
        if program in ("cloche", "cloche-monitor", "cloche-image", "cloche-registry", "cloche-dial", "cloche-runtime-systemd") or not path.exists():
            continue
        text = subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
        for command in re.findall(r"^ {2,3}([a-z]+) ", text, re.M):
            text += subprocess.run([path, command, "--help"], capture_output=True, text=True,
                                   check=False).stdout
        named = set(re.findall(r"\*--([\w-]+)\*", page_of(program).read_text()))
        shown = set(re.findall(r"(?<![\w-])--([a-z][\w-]+)", text))
        problems += [f"{program} --help: --{option} is not in its page" for option in sorted(shown - named)]
    return problems


def tables_of_the_database():
    text = re.sub(r'"\s*"', "", read("src/store/db.c") + read("src/store/store.c") +
                  read("src/engine/records.c") + read("src/engine/volumes.c"))
    in_code = set()
    for name, body in re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) ?\((.*?)\)(?: WITHOUT ROWID)?;", text,
                                 re.S):
        columns = [part.split()[0] for part in re.sub(r"\([^)]*\)", "", body).split(",")
                   if part.split()[0] != "PRIMARY"]
        in_code.add(f"{name}({', '.join(columns)})")
    in_page = {f"{name}({columns})" for name, columns in
               re.findall(r"^\*(\w+)\*\(([\w, ]+)\)$", page("cloche-state.5"), re.M)}
    return differences("state.db", in_code, "the sources", in_page, "cloche-state(5)")


def fields_of_the_status_file():
    in_code = set(re.findall(r'"(\w+)=', read("src/monitor/status.c")))
    in_code |= set(re.findall(r"\\n(\w+)=%", read("src/monitor/status.c")))
    section = page("cloche-state.5").split("# STATUS FILE")[1].split("\n# ")[0]
    terms = [line for line in section.splitlines() if re.match(r"\*\w+\*(, \*\w+\*)*$", line)]
    in_page = set(re.findall(r"\*(\w+)\*", " ".join(terms)))
    return differences("status", in_code, "status.c", in_page, "cloche-state(5)")


def fields_of_the_runtime_state():
    schema = json.loads(read("runtime-spec/runtime-state.json"))
    in_page = set()
    for line in page("cloche-runtime-state.5").splitlines():
        if re.match(r"\*\w+\*(, \*\w+\*)* \(", line):
            in_page |= set(re.findall(r"\*(\w+)\*", line))
    return differences("runtime status", set(schema["$defs"]["state"]["properties"]), "its schema", in_page,
                       "cloche-runtime-state(5)")


def messages_of_the_monitor():
    header = read("src/monitor/include/monitor/protocol.h")
    body = re.sub(r"/\*.*?\*/", "", re.search(r"enum monitor_type \{(.*?)\};", header, re.S)[1], flags=re.S)
    in_code = set(re.findall(r"MONITOR_(\w+)", body))
    in_page = set(re.findall(r"^\*([A-Z_]+)\* \(@MONITOR_\1@", page("cloche-monitor-protocol.7"), re.M))
    return differences("monitor", in_code, "protocol.h", in_page, "cloche-monitor-protocol(7)")


def variables_of_the_environment():
    in_code = set()
    for path in (TOP / "src").rglob("*.c"):
        in_code |= set(re.findall(r'(?:getenv|environment_or)\("(CLOCHE_\w+)"', path.read_text()))
    in_page = set(re.findall(r"^\*(CLOCHE_\w+)\*", page("cloche-instance.7"), re.M))
    return differences("environment", in_code, "the sources", in_page, "cloche-instance(7)")


def error_codes_of_the_socket():
    header = read("src/rpc/include/rpc/server.h")
    in_code = set(re.findall(r"RPC_\w+ = (-\d+),", header))
    in_schema = set(json.loads(read("runtime-spec/management.json"))["x-errors"])
    named = set(re.findall(r"^    (RPC_\w+) = -\d+,", header, re.M))
    with_word = set(re.findall(r"\{(RPC_\w+), \"\w+\"\}", read("src/rpc/fault.c")))
    return differences("errors", in_code, "rpc/server.h", in_schema, "management.json") + \
        differences("errors", named, "rpc/server.h", with_word, "rpc/fault.c")


def members_of_messages():
    in_code = set(re.findall(r'MEMBER\("(\w+)"\)', read("src/rpc/codec.c")))
    wire = re.search(r"^# THE WIRE\n(.*?)^# ", page("cloche-rpc.7"), re.M | re.S)[1]
    in_page = {name for line in re.findall(r"^(\*\w+\*(?:, \*\w+\*)*)$", wire, re.M)
               for name in re.findall(r"\w+", line)}
    return differences("members", in_code, "rpc/codec.c", in_page, "cloche-rpc(7)")


def limits_of_the_socket():
    """Each limit that rpc.hello tells is named in the page, by the constant that is its default."""
    told = set(re.search(r"rpc_bounds_of_peer ours = \{(.*?)\};", read("src/rpc/builtin.c"), re.S)[1]
               .replace("\n", " ").split("."))
    names = {name.strip() for part in told for name in re.findall(r"^(\w+) =", part)}
    constants = {name: f"RPC_{name.upper()}_MAX" for name in names}
    limits = re.search(r"^# LIMITS\n(.*?)^# ", read("man/cloche-rpc.7.scd"), re.M | re.S)[1]
    return [f"cloche-rpc(7): LIMITS does not name {constant}" for name, constant in sorted(constants.items())
            if f"@{constant}" not in limits] + ([] if len(names) > 5 else ["rpc/builtin.c: no limits found"])


def pages_refer_to_pages_that_exist():
    problems = []
    for path in sorted(MAN.glob("*.scd")):
        for name, section in re.findall(r"\*(cloche[\w-]*)\*\((\d)\)", path.read_text()):
            if not (MAN / f"{name}.{section}.scd").exists():
                problems.append(f"{path.name}: there is no {name}({section})")
    return problems


TEST_FILES = {
    "unit": ("tests/unit/test_{}.c", r"^static void {}\(void \*\*"),
    "integration": ("tests/integration/test_{}.py", r"^def {}\("),
    "vm": ("tests/vm/test_{}.py", r"^def {}\("),
    "house": ("tests/house/check_{}.py", r"^def {}\("),
}


def tests_that_promises_name():
    """In runtime-spec/*.md a test is `SUITE:FILE.TEST`."""
    problems = []
    for path in sorted((TOP / "runtime-spec").glob("*.md")):
        for suite, file, name in re.findall(r"`(\w+):(\w+)\.(\w+)`", path.read_text()):
            pattern, definition = TEST_FILES.get(suite, (None, None))
            source = TOP / pattern.format(file) if pattern else None
            if not source or not source.exists() or \
                    not re.search(definition.format(name), source.read_text(), re.M):
                problems.append(f"runtime-spec/{path.name}: there is no test {suite}:{file}.{name}")
    return problems


def markdown():
    folders = (".", "contrib", "runtime-spec", "src", "tests")
    return sorted({str(p.relative_to(TOP)) for folder in folders
                   for p in (TOP / folder).glob("*.md" if folder == "." else "**/*.md")})


def links_lead_somewhere():
    problems = []
    for name in markdown():
        text = re.sub(r"```.*?```", "", read(name), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"#]+)"', text):
            if "://" not in target and not (TOP / name).parent.joinpath(target).exists():
                problems.append(f"{name}: {target} does not exist")
    return problems


def paths_that_are_named_exist():
    problems = []
    for name in markdown() + sorted(str(p.relative_to(TOP)) for p in MAN.glob("*.scd")):
        for path in re.findall(r"(?<![\w./-])((?:src|tests|contrib|man|runtime-spec|\.ci)/[\w./-]*\w)", read(name)):
            if "NAME" not in path and path not in EXAMPLES and not list(TOP.glob(path + "*")):
                problems.append(f"{name}: {path} does not exist")
    return problems


def main():
    checks = [every_program_has_a_page, pages_have_the_options_of_the_sources,
              pages_have_the_options_of_the_help, tables_of_the_database, fields_of_the_status_file,
              fields_of_the_runtime_state, messages_of_the_monitor, variables_of_the_environment,
              error_codes_of_the_socket, members_of_messages, limits_of_the_socket, pages_refer_to_pages_that_exist, tests_that_promises_name,
              links_lead_somewhere, paths_that_are_named_exist]
    return tap.run(checks, "no build folder was given")


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main())
