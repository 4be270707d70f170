"""libcloche-runtime: runtime_embed.c is a program that has the public header and the shared library
only.

Under ThreadSanitizer: meson setup build-thread -Db_sanitize=thread -Dstatic_runtime=disabled
-Dfuzzing=disabled, and CLOCHE_BUILD=$PWD/build-thread test_runtime_library.py eight. (gcc 12's is no
good for the tests that fork most.)"""

import os
import pathlib
import re
import sys

from bundles import Bundle
from harness import TOP, main, run, test

BUILD = pathlib.Path(os.environ["CLOCHE_BUILD"])
LIBRARY = BUILD / "src/runtime/libcloche-runtime.so"
EMBED = BUILD / "tests/integration/runtime_embed"
CTYPES = TOP / "tests/integration/runtime_ctypes.py"
HEADER = TOP / "include/cloche/runtime.h"
EXAMPLE = TOP / "contrib/examples/embed.c"
THREADS = 4


def embed(scratch, bundle, name, scenario, **options):
    return run(EMBED, scratch / "state", bundle, name, scenario, **options)


@test
def a_program_with_threads_embeds_it(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "echo hello; exec sleep 60")
    result = embed(scratch, bundle.path, unique, "life")
    assert result.lines == [
        "container: hello", "status: running", "exec: 7", "processes: 1, the first as in state",
        "ended by signal 9", "caller: unchanged"], result
    assert not result.err and not list((scratch / "state").glob(unique)), result


@test
def threads_run_containers_at_once(scratch, images, unique):
    for number in range(THREADS):
        Bundle(scratch / f"bundle-{number}", images, f"{unique}-{number}",
               f"echo {number}; exit {number}")
    result = embed(scratch, scratch / "bundle", unique, "threads")
    assert result.out == f"{THREADS} ran\n" and not result.err, result


@test
def eight_threads_make_and_end_containers_at_once(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "exec sleep 60")
    bundle.config["linux"].pop("cgroupsPath")
    bundle.write()
    assert embed(scratch, bundle.path, unique, "stress").out == "32 lives\n"
    assert not list((scratch / "state").glob(f"{unique}*"))


@test
def nothing_is_left_in_the_program(scratch, images, unique):
    """Of 200 containers, in the descriptors, mappings and memory of the embedding program."""
    bundle = Bundle(scratch / "bundle", images, unique, "exec sleep 60")
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}
    bundle.write()
    # What malloc keeps at hand for a thread counts as in use, so it is to keep nothing.
    exact = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    for way in ("repeat-direct", "repeat-in-forks"):
        result = embed(scratch, bundle.path, unique, way, env=exact, timeout=400)
        assert result.out == "left: 0 descriptors, 0 mappings, 0 bytes\n", result


@test
def a_program_with_one_thread_is_the_parent(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "exit 3")
    assert embed(scratch, bundle.path, unique, "direct").out == "exit code 3\n"


@test
def warnings_reach_the_program(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "exit 3")
    bundle.process["capabilities"]["bounding"].append("CAP_NOT_YET_INVENTED")
    bundle.write()
    result = embed(scratch, bundle.path, unique, "direct")
    assert result.lines[0].startswith("warning: ") and "CAP_NOT_YET_INVENTED" in result.lines[0]


@test
def failures_have_a_text(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "exec sleep 60")
    lines = embed(scratch, bundle.path, unique, "errors").lines
    missing, nowhere, descriptors, second, running, left = lines
    assert "does not exist" in missing
    assert "/nowhere" in nowhere
    assert "stdio[1]" in descriptors and "999" in descriptors
    assert second == f"container with id exists: {unique}"
    assert "not stopped: running" in running
    assert left == "left: none"


@test
def programs_of_other_versions_are_understood_or_told(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "true")
    same, newer, none, older, flag = embed(scratch, bundle.path, unique, "versions").lines
    assert "/nowhere" in same
    assert "does not know" in newer
    assert "size" in none
    assert older == "done"
    assert "0x80000000" in flag


@test
def hooks_are_waited_for_where_children_are_ignored(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "exec sleep 60")
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"sleep 0.2; echo {kind} >> {scratch}/told"]}]
        for kind in ("createRuntime", "poststart", "poststop")}
    bundle.write()
    assert embed(scratch, bundle.path, unique, "reaper").out == "exec: 7\n"
    assert (scratch / "told").read_text().split() == ["createRuntime", "poststart", "poststop"]


@test
def events_end_when_asked_and_with_the_container(scratch, images, unique):
    bundle = Bundle(scratch / "bundle", images, unique, "exec sleep 60")
    said, stopped, killed, pidfd, criu = embed(scratch, bundle.path, unique, "watch").lines
    assert (said, stopped, killed, pidfd) == ("7", "0", "0", "ended")
    assert "cannot be checkpointed in stopped state" in criu


def sanitizer():
    """The one that the library was built with, as a program that is built without a build system
    needs it: (flags of the compiler, environment of a program without it)."""
    if "__asan_init" not in run("nm", "-D", LIBRARY).out:
        return [], {}
    runtime = run("gcc", "-print-file-name=libasan.so").out.strip()
    return ["-fsanitize=address"], {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}


def installed(scratch):
    """What an installed pkg-config says, with everything below a folder of the scratch."""
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", scratch / "installed",
        "--tags", "devel,runtime", timeout=400)
    found = next((scratch / "installed").rglob("libcloche-runtime.pc"))
    words = run("pkg-config", "--cflags", "--libs", "libcloche-runtime", env={
        "PKG_CONFIG_PATH": found.parent, "PKG_CONFIG_SYSROOT_DIR": scratch / "installed",
        "PKG_CONFIG_DISABLE_UNINSTALLED": "1"}).out.split()
    assert str(scratch / "installed") in words[0], words
    return words, next((scratch / "installed").rglob("libcloche-runtime.so.0")).parent


@test
def the_example_runs_as_installed(scratch, images, unique):
    """contrib/examples/embed.c, with nothing but what is installed."""
    words, folder = installed(scratch)
    flags, _ = sanitizer()
    program = scratch / "embed"
    run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", EXAMPLE, *flags, *words, "-o", program)
    bundle = Bundle(scratch / "bundle", images, unique, "sleep 2; exit 4")
    result = run(program, bundle.path, unique, code=4, env={"LD_LIBRARY_PATH": folder})
    assert re.fullmatch(rf"{unique}: process \d+, created", result.lines[0]), result
    assert result.lines[1].startswith('{"type":"stats"'), result
    assert result.lines[-1] == f"{unique}: exit status 4" and not result.err, result
    again = run(program, bundle.path, "no/name", code=1, env={"LD_LIBRARY_PATH": folder})
    assert again.err.startswith("create: invalid container ID"), again


@test
def programs_in_other_languages_use_it(scratch, images, unique):
    """Python, by ctypes; C++, with the structures as C++20 initializes them."""
    bundle = Bundle(scratch / "bundle", images, unique, "exec sleep 60")
    _, environment = sanitizer()
    result = run(sys.executable, CTYPES, LIBRARY, scratch / "state", bundle.path, unique,
                 env=environment)
    assert result.lines == ["container does not exist", "exit code 9"], result
    source = scratch / "program.cc"
    source.write_text("""
        #include <cloche/runtime.h>
        int main()
        {
            const cloche_runtime_create_options options{.size = sizeof(options), .id = "one"};
            cloche_runtime *runtime;
            return cloche_runtime_open(nullptr, &runtime) || cloche_runtime_create(runtime, &options);
        }""")
    run("g++", "-std=c++20", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror",
        "-fsyntax-only", "-I", TOP / "include", source)


@test
def the_examples_in_the_texts_compile(scratch):
    page = (TOP / "man/libcloche-runtime.3.scd").read_text().split("```")[1]
    comment = HEADER.read_text().split("*/")[0]
    lines = [line[6:] for line in comment.splitlines() if line.startswith(" *     ")]
    for text in (page, "\n".join(lines).replace("return;", "return 1;")):
        assert "cloche_runtime_close" in text, text
        source = scratch / "example.c"
        source.write_text("#include <stdio.h>\n#include <cloche/runtime.h>\n"
                          f"int main(void) {{\n{text}\nreturn 0; }}\n")
        run("gcc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
            "-I", TOP / "include", source)


@test
def the_report_is_out_of_the_programs_reach(scratch, images, unique):
    """Descriptors to be kept that are not open are none of the library's either."""
    bundle = Bundle(scratch / "bundle", images, unique, "exec sleep 60")
    result = embed(scratch, bundle.path, unique, "preserve")
    lines = [line for line in result.lines if not line.startswith("warning: ")]
    assert lines[:-1] == ["0", "1", "2", "3"], result  # 3: the folder that ls has open
    assert lines[-1] == "exec: 0", result


@test
def the_programs_file_is_sealed(scratch, unique):
    # The copy has no folder, so that $ORIGIN, by which a program of the build finds the library,
    # leads nowhere.
    result = embed(scratch, "none", unique, "seal", env={"LD_LIBRARY_PATH": LIBRARY.parent})
    assert result.out == "sealed\n"


@test
def the_library_gives_away_its_own_names_only():
    symbols = run("nm", "-D", "--defined-only", LIBRARY).lines
    names = [line.split()[-1].partition("@")[0] for line in symbols]
    strangers = [name for name in names
                 if not name.startswith("cloche_runtime_") and name != "CLOCHE_RUNTIME_0"]
    assert names and not strangers, strangers


@test
def the_header_is_c_and_cxx_and_complete(scratch):
    """Every function of the header is in the library; the header stands alone."""
    run("clang-14", "-fsyntax-only", "-std=c99", "-pedantic-errors", "-Werror", HEADER)
    run("clang-14", "-x", "c++", "-fsyntax-only", "-Werror", HEADER)
    tags = run("ctags", "-x", "--c-kinds=p", "--language-force=C", HEADER).lines
    declared = {line.split()[0] for line in tags}
    symbols = run("nm", "-D", "--defined-only", LIBRARY).out
    defined = {word.partition("@")[0] for word in symbols.split() if word.startswith("cloche_")}
    assert declared and declared == defined, declared ^ defined


if __name__ == "__main__":
    main()
