#!/usr/bin/env python3
"""cloche-rpcgen as others have it: a program with a schema of its own, built with nothing but what is
installed in a folder of the scratch."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess

from harness import main, run, test

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["CLOCHE_BUILD"])
EXAMPLE = TOP / "contrib/examples/phonebook"
STRICT = "-O1 -Wall -Wextra -Wshadow -Wconversion -Werror"


class Installed:
    """What `meson install` puts below a folder, used from there."""

    def __init__(self, folder):
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", folder, "--tags", "devel,runtime",
            timeout=400)
        file = next(folder.rglob("libcloche-rpc.pc"))
        prefix = file.read_text().splitlines()[0].removeprefix("prefix=")
        self.environment = {"PKG_CONFIG_PATH": file.parent, "PKG_CONFIG_DISABLE_UNINSTALLED": "1"}
        self.pkg_config = f"pkg-config --define-variable=prefix={folder}{prefix}"
        self.library = next(folder.rglob("libcloche-rpc.so.0"))
        self.generator = self.ask("--variable=rpcgen")[0]
        assert self.generator.startswith(str(folder)), self.generator

    def ask(self, *words):
        return run(*self.pkg_config.split(), *words, "libcloche-rpc", env=self.environment).out.split()

    def sanitizer(self):
        return ["-fsanitize=address"] if b"__asan_init" in self.library.read_bytes() else []


@contextlib.contextmanager
def running(program, path, installed):
    """A server; it has ended well behind it."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(installed.library.parent)}
    process = subprocess.Popen([program, path], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout.readline() == "ready\n"
        yield
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def phonebook(scratch):
    """The example, built and running: (path of its socket, its folder, what runs its client)."""
    installed = Installed(scratch / "installed")
    folder = scratch / "phonebook"
    shutil.copytree(EXAMPLE, folder)
    run("make", "-C", folder, f"PKG_CONFIG={installed.pkg_config}", timeout=400, env={
        **installed.environment, "CFLAGS": " ".join([STRICT, *installed.sanitizer()])})
    path = scratch / "phonebook.sock"

    def client(*words, code=0):
        result = run(folder / "client", path, *words, code=code,
                     env={"LD_LIBRARY_PATH": installed.library.parent})
        return result.err.strip() if code else result.lines

    with running(folder / "server", path, installed):
        yield path, folder, client


def exchange(file, *texts):
    for text in texts:
        file.write(text.encode() + b"\n")
    file.flush()
    return json.loads(file.readline())


@test
def a_program_with_a_schema_of_its_own_needs_only_what_is_installed(scratch):
    with phonebook(scratch) as (_, _, client):
        assert client("put", "Ada", "1815") == ["added"]
        assert client("put", "Bob", "2", "work") == ["added"]
        assert client("put", "Ada", "1") == ["replaced"]
        assert client("find", "Ada") == ["Ada: 1 (home)"]
        assert client("list") == ["Ada: 1", "Bob: 2"]
        assert client("put", "Eve", "3", "cave", code=1) == 'kind: expected one of "home", "work", got "cave"'
        assert client("forget", "Ada") == []
        assert client("forget", "Ada", code=1) == "Nobody has this name: see phonebook.list"
        assert client("list") == ["Bob: 2"]


@test
def its_server_speaks_to_anybody_and_describes_itself(scratch):
    with phonebook(scratch) as (path, folder, _), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.settimeout(60)
        file = client.makefile("rwb")
        answer = exchange(file, '{"jsonrpc":"2.0","id":1,"method":"phonebook.put","params":["Ada","1",null,1815]}')
        assert answer["error"]["code"] == -32602 and "born" in answer["error"]["message"], answer
        answer = exchange(file, '{"jsonrpc":"2.0","method":"phonebook.put","params":["Ada","1"]}',
                          '{"jsonrpc":"2.0","id":2,"method":"phonebook.list"}')
        assert answer["result"] == {"people": [{"name": "Ada", "number": "1"}]}, answer
        answer = exchange(file, '{"jsonrpc":"2.0","id":3,"method":"phonebook.forget","params":{"name":"Ada"}}')
        assert answer == {"jsonrpc": "2.0", "id": 3, "result": None}, answer
        answer = exchange(file, '{"jsonrpc":"2.0","id":4,"method":"rpc.discover"}')
        assert answer["result"] == json.loads((folder / "openrpc.json").read_text()), answer
        methods = {method["name"]: method for method in answer["result"]["methods"]}
        assert {"phonebook.put", "phonebook.find", "rpc.ping", "rpc.cancel"} <= methods.keys()
        assert [param["name"] for param in methods["phonebook.put"]["params"]] == ["name", "number", "kind", "born"]
        assert exchange(file, '{"jsonrpc":"2.0","id":5,"method":"rpc.hello","params":[["cbor"]]}')
        request = b"\xa3\x62id\x06\x66method\x6ephonebook.find\x66params\x81\x63Ada"
        client.sendall(struct.pack(">I", len(request)) + request)
        length, = struct.unpack(">I", file.read(4))
        assert b"Nobody has this name" in file.read(length)


COMMON = {
    "x-c-prefix": "common",
    "$defs": {"point": {"type": "object", "required": ["x", "y"], "additionalProperties": False, "properties": {
        "x": {"type": "integer", "format": "int32"}, "y": {"type": "integer", "format": "int32"}}}},
}
WIDE = {
    "x-c-prefix": "wide",
    "$defs": {
        "numbers": {"type": "array", "items": {"type": "number"}},
        "total": {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "bag": {"type": "object", "x-keep-unknown": True, "properties": {
            "class": {"type": "string"},  # a word of C++
            "any": {"x-raw": True},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "raw": {"type": "object", "additionalProperties": {"x-raw": True}},
            "path": {"type": "array", "items": {"$ref": "common.json#/$defs/point"}},
            "maybe": {"type": ["integer", "null"]}}},
    },
    "x-methods": {
        "sum": {"summary": "Of all.", "params": {"$ref": "#/$defs/numbers"}, "result": {"$ref": "#/$defs/total"}},
        "wide.echo": {"params": {"$ref": "#/$defs/bag"}, "result": {"$ref": "#/$defs/bag"}},
        "move": {"params": {"$ref": "common.json#/$defs/point"}, "result": {"$ref": "common.json#/$defs/point"}},
        "swapFile": {"summary": "A file for another.", "x-param-fds": 1, "x-result-fds": 1},
        "sleep": {"summary": "Until it is told not to.", "x-long": True},
        "absent": {"summary": "Nobody does this one."},
    },
}


def generate(installed, folder, *schemas):
    for name, schema in schemas:
        (folder / name).write_text(json.dumps(schema))
    return run(installed.generator, "--output", folder, *[folder / name for name, _ in schemas], code=None)


@test
def every_kind_of_member_and_method_has_its_functions(scratch):
    """tests/integration/rpc_generated.c is server and client at once, over all that a schema can say."""
    installed = Installed(scratch / "installed")
    generate(installed, scratch, ("common.json", COMMON), ("wide.json", WIDE))
    words = [*installed.ask("--cflags"), "-I", scratch, *STRICT.split(), *installed.sanitizer()]
    run("g++", "-std=c++17", *words, "-Wno-shadow", "-fsyntax-only", "-x", "c++", scratch / "wide.h")
    run("gcc", "-std=gnu11", "-D_GNU_SOURCE", *words, TOP / "tests/integration/rpc_generated.c", scratch / "wide.c",
        scratch / "common.c", *installed.ask("--libs"), "-o", scratch / "program", timeout=400)
    lines = run(scratch / "program", scratch / "wide.sock",
                env={"LD_LIBRARY_PATH": installed.library.parent}).lines
    assert lines == ["sum 6.5", "echo lion [1,{\"a\":null}] b=c d=[2] 3 points, null, kept {\"e\":5}",
                     "move 3 4", "file from the client", "file from the server", "sleep was cancelled",
                     "absent: -32601", "echo again lion"], lines


@test
def schemas_that_cannot_be_are_refused_with_their_place(scratch):
    installed = Installed(scratch / "installed")

    def refused(schema, words):
        result = generate(installed, scratch, ("x.json", schema))
        assert result.code == 1 and "Traceback" not in result.err, result.err
        assert words in result.err, result.err
        assert not (scratch / "x.h").exists()

    refused({"x-c-prefix": "cloche"}, "#/x-c-prefix: \"cloche\" is taken")
    refused({"x-c-prefix": "p", "x-methods": {"rpc.mine": {}}}, "names that begin with \"rpc.\"")
    refused({"x-c-prefix": "p", "x-methods": {"1": {}}}, "#/x-methods/1: no C name can be made of it")
    refused({"x-c-prefix": "p", "x-methods": {"serve": {}}}, "\"p_serve\" is a name of")
    refused({"x-c-prefix": "p", "x-methods": {"a": []}}, "#/x-methods/a: is described by an object")
    refused({"x-c-prefix": "p", "x-methods": {"a": {"summary": 1}}}, "#/x-methods/a/summary: is a string")
    refused({"x-c-prefix": "p", "x-methods": {"a": {"x-result-fds": 2}}}, "one descriptor at most")
    refused({"x-c-prefix": "p", "$defs": {"a": {"type": "object", "required": [1]}}}, "is a list of names")
    result = run(installed.generator, "--output", scratch / "nowhere", scratch / "x.json", code=None)
    assert result.code == 1 and "Traceback" not in result.err, result.err
    (scratch / "x.c").write_text("int main(void) { return 0; }\n")  # somebody's own
    refused({"x-c-prefix": "p"}, "x.c is not of cloche-rpcgen: rename it")
    result = run(installed.generator, scratch / "missing.json", code=None)
    assert result.code == 1 and "missing.json" in result.err and "Traceback" not in result.err, result.err


if __name__ == "__main__":
    main()
