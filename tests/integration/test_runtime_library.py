"""libcloche-runtime: runtime_embed.c is a program that has the public header and the shared library
only.

Under ThreadSanitizer: meson setup build-thread -Db_sanitize=thread -Dstatic_runtime=disabled
-Dfuzzing=disabled, and CLOCHE_BUILD=$PWD/build-thread test_runtime_library.py eight. (gcc 12's is no
good for the tests that fork most.)"""

import os
import pathlib

from bundles import Bundle
from harness import TOP, main, run, test

BUILD = pathlib.Path(os.environ["CLOCHE_BUILD"])
LIBRARY = BUILD / "src/runtime/libcloche-runtime.so"
EMBED = BUILD / "tests/integration/runtime_embed"
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
        result = embed(scratch, bundle.path, unique, way, env=exact)
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
    bundle = Bundle(scratch / "bundle", images, unique, "true")
    missing, nowhere, descriptors, left = embed(scratch, bundle.path, unique, "errors").lines
    assert "does not exist" in missing
    assert "/nowhere" in nowhere
    assert "stdio[1]" in descriptors and "999" in descriptors
    assert left == "left: none"


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
    header = TOP / "include/cloche/runtime.h"
    run("clang-14", "-fsyntax-only", "-std=c99", "-pedantic-errors", "-Werror", header)
    run("clang-14", "-x", "c++", "-fsyntax-only", "-Werror", header)
    tags = run("ctags", "-x", "--c-kinds=p", "--language-force=C", header).lines
    declared = {line.split()[0] for line in tags}
    symbols = run("nm", "-D", "--defined-only", LIBRARY).out
    defined = {word.partition("@")[0] for word in symbols.split() if word.startswith("cloche_")}
    assert declared and declared == defined, declared ^ defined


if __name__ == "__main__":
    main()
