#!/usr/bin/env python3
"""The client of libcloche-rpc in a program that knows nothing of this tree but its public headers,
against real daemons."""

import json
import os
import pathlib

from harness import BUILD, main, run, test

TOP = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = TOP / "contrib/examples/containers.c"
LIBRARY = BUILD / "src/rpc/libcloche-rpc.so"


def build(scratch):
    program = scratch / "containers"
    flags = []
    if b"__asan_init" in LIBRARY.read_bytes():
        flags = ["-fsanitize=address"]
    run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", EXAMPLE, *flags, "-I", TOP / "include",
        "-I", BUILD / "include", "-L", LIBRARY.parent, "-lcloche-rpc", "-o", program)
    return program


def containers(program, *sockets, code=0):
    return run(program, *sockets, code=code, env={"LD_LIBRARY_PATH": str(LIBRARY.parent)})


@test
def a_program_of_another_house_sees_the_containers(instance, images, scratch):
    program = build(scratch)
    instance.cloche("load", "-q", "-i", images.small("small:1"))
    instance.cloche("run", "-d", "--name", "shop", "small:1", "sleep", "1000")
    instance.cloche("run", "--name", "till", "small:1", "true")
    lines = containers(program, instance.socket).lines
    assert lines[0] == "2 containers"
    assert set(lines[1:3]) == {"shop is running", "till is exited"}, lines
    counts = json.loads(lines[3])
    assert counts["answered"] == 3 and counts["endpoints"][0]["state"] == "in", counts
    instance.cloche("rm", "-f", "shop", "till")


@test
def it_goes_on_with_the_endpoint_that_lives(instance, images, scratch):
    program = build(scratch)
    instance.start_daemon()
    for _ in range(4):
        lines = containers(program, scratch / "nobody", instance.socket).lines
        assert lines[0] == "0 containers"
    result = containers(program, scratch / "nobody", scratch / "nobody-2", code=1)
    assert "nobody" in result.err and "No such file" in result.err, result


if __name__ == "__main__":
    main()
