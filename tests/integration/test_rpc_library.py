#!/usr/bin/env python3
"""libcloche-rpc as others have it: a server of contrib/examples, built with what is installed, and called
by the JSON-RPC clients of other languages; and the examples of JSON-RPC 2.0 itself."""

import contextlib
import json
import os
import pathlib
import re
import resource
import socket
import struct
import subprocess
import sys

from calculator import LIBRARY, SPECIFICATION, calculator, error, limit_files, result, sanitizer, without_words
from harness import main, note, run, test, wait_for

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["CLOCHE_BUILD"])
HERE = TOP / "tests/integration"
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's packages are for


def installed(scratch):
    """What an installed pkg-config says, with everything below a folder of the scratch."""
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", scratch / "installed",
        "--tags", "devel,runtime", timeout=400)
    found = next((scratch / "installed").rglob("libcloche-rpc.pc"))
    words = run("pkg-config", "--cflags", "--libs", "libcloche-rpc", env={
        "PKG_CONFIG_PATH": found.parent, "PKG_CONFIG_SYSROOT_DIR": scratch / "installed",
        "PKG_CONFIG_DISABLE_UNINSTALLED": "1"}).out.split()
    return words, next((scratch / "installed").rglob("libcloche-rpc.so.0")).parent


def private_memory(process):
    """Bytes that nobody shares with it."""
    lines = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.settimeout(60)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def say(self, text):
        self.socket.sendall(text.encode() + b"\n")

    def hear(self):
        return json.loads(self.file.readline())

    def ask(self, text):
        self.say(text)
        return self.hear()


@test
def the_specifications_own_examples_hold(scratch):
    with calculator(scratch) as (path, _), Client(path) as client:
        for number, (text, expected) in enumerate(SPECIFICATION):
            client.say(text)
            if expected is not None:
                answer = without_words(client.hear())
                assert answer == expected, (text, answer)
            # Nothing else has come.
            assert client.ask(f'{{"jsonrpc":"2.0","method":"rpc.ping","id":"p{number}"}}')["id"] == \
                f"p{number}", text


@test
def the_example_runs_as_installed(scratch):
    words, folder = installed(scratch)
    assert str(scratch / "installed") in " ".join(words), words
    with calculator(scratch, words, folder) as (path, process), Client(path) as client:
        answer = client.ask('{"jsonrpc":"2.0","id":1,"method":"greet","params":["\\"\\u00e4\\n"]}')
        assert answer["result"] == {"hello": '"ä\n'}, answer
        answer = client.ask('{"jsonrpc":"2.0","id":1,"method":"greet","params":{"nom":1}}')
        assert answer["error"]["message"] == 'unknown parameter "nom"', answer
        assert answer["error"]["data"] == {"what": "invalidParams", "where": "greet"}, answer
        answer = client.ask('{"jsonrpc":"2.0","id":1,"method":"subtract","params":[1]}')
        assert answer["error"]["message"] == '"subtrahend" is missing', answer
        answer = client.ask('{"jsonrpc":"2.0","id":1,"method":"subtract","params":[1,2,3]}')
        assert answer["error"]["message"] == "more than 2 parameters", answer
        client.say('{"jsonrpc":"2.0","id":9,"method":"take_long","progress":true,"timeoutMs":60000}')
        assert client.hear()["params"] == {"id": 9, "done": 0, "total": 2, "unit": "halves",
                                           "text": "thinking"}
        assert client.hear()["method"] == "rpc.progress"
        client.say('{"jsonrpc":"2.0","id":10,"method":"rpc.cancel","params":[9]}')
        assert without_words(client.hear()) == error(9, -11)
        assert client.hear() == result(10, {"cancelled": True})
        answer = client.ask('{"jsonrpc":"2.0","id":11,"method":"take_long","timeoutMs":20}')
        assert without_words(answer) == error(11, -10), answer
        assert [process.stderr.readline() for _ in range(2)] == ["a call was given up\n"] * 2


@test
def cbor_of_another_hand(scratch):
    """A few bytes of RFC 8949, written here."""
    with calculator(scratch) as (path, _), Client(path) as client:
        answer = client.ask('{"jsonrpc":"2.0","id":1,"method":"rpc.hello","params":[["cbor"]]}')
        assert answer["result"]["encoding"] == "cbor", answer
        request = b"\xa3\x62id\x05\x66method\x68subtract\x66params\x82\x18\x2a\x17"
        client.socket.sendall(struct.pack(">I", len(request)) + request)
        length, = struct.unpack(">I", client.file.read(4))
        assert client.file.read(length) == b"\xa2\x62id\x05\x66result\x13"


@test
def ten_thousand_idle_connections_cost_little(scratch):
    """Less than a kilobyte each, also after each has made a call; and one more is served beside them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10000, before[1] * 9 // 16 - 100)  # 3/4 for connections, and 3/4 of those for a user
    limit_files(before[1])
    clients = []
    ping = b'{"jsonrpc":"2.0","id":1,"method":"rpc.ping","params":[]}\n'
    try:
        with calculator(scratch, files=before[1]) as (path, process):
            empty = private_memory(process)
            for _ in range(count):
                client = socket.socket(socket.AF_UNIX)
                client.connect(str(path))  # without a time-out: it would not wait for a place
                client.settimeout(60)
                client.sendall(ping)
                clients.append(client)
            for client in clients:
                assert client.recv(4096).endswith(b'"result":{}}\n')
            each = (private_memory(process) - empty) / count
            note(f"{count} connections, {each:.0f} bytes each")
            assert sanitizer()[0] or each < 1024, each
            with Client(path) as client:
                stats = client.ask('{"jsonrpc":"2.0","id":1,"method":"rpc.stats"}')["result"]
            assert stats["connections"] == count + 1 and stats["refused"] == 0, stats
            for client in clients:
                client.close()
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@test
def connections_beyond_the_limit_are_told_so(scratch):
    with calculator(scratch, files=64) as (path, _):  # 48 connections, 36 of one user
        clients = [Client(path) for _ in range(36)]
        with Client(path) as client:
            answer = client.hear()
            assert without_words(answer) == error(None, -12), answer
            assert answer["error"]["data"]["hint"] == "close others, or try again later", answer
            assert client.file.read() == b""
        clients.pop().__exit__()

        def is_served():
            with Client(path) as client:
                answer = client.ask('{"jsonrpc":"2.0","id":1,"method":"rpc.ping"}')
                return answer == result(1, {})

        wait_for(is_served, what="the server sees that one has gone")
        for client in clients:
            client.__exit__()


@test
def a_go_program_calls_it(scratch):
    run("go", "build", "-o", scratch / "client", HERE / "rpc_client.go", timeout=300, env={
        "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": scratch / "cache",
        "GOFLAGS": "-p=1"})
    with calculator(scratch) as (path, _):
        assert run(scratch / "client", path).lines == ["19", "19", "-32601"]


@test
def a_cxx_program_calls_it(scratch):
    run("g++", "-std=c++14", "-w", HERE / "rpc_client.cc", "-I/usr/include/jsoncpp",
        "-ljsonrpccpp-client", "-ljsonrpccpp-common", "-ljsoncpp", "-o", scratch / "client", timeout=400)
    with calculator(scratch) as (path, _):
        assert run(scratch / "client", path).lines == ["19", "19", "65 hello", "-32601"]


@test
def a_python_program_calls_it(scratch):
    with calculator(scratch) as (path, _):
        lines = run(SYSTEM_PYTHON, HERE / "rpc_client_aiorpcx.py", path).lines
        assert lines == ["19", "19", "7 -32601 ['hello', 5]"], lines


@test
def programs_in_other_languages_embed_it(scratch):
    """Python, by ctypes; C++, with the structures as C++20 initializes them."""
    _, environment = sanitizer()
    lines = run(sys.executable, HERE / "rpc_ctypes.py", LIBRARY, env=environment).lines
    assert lines == ["GRÜSS", "A", "B", '"text" is missing', 'unknown parameter "word"',
                     '"text" is not a string'], lines
    source = scratch / "program.cc"
    source.write_text("""
        #include <cloche/rpc.h>
        int main()
        {
            const cloche_rpc_settings settings{.size = sizeof(settings), .depth_max = 8};
            cloche_rpc_loop *loop;
            cloche_rpc_server *server;
            return cloche_rpc_loop_create(&loop) || cloche_rpc_server_create(loop, &settings, &server);
        }""")
    run("g++", "-std=c++20", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror",
        "-fsyntax-only", "-I", TOP / "include", source)


@test
def servers_have_topics_of_their_own(scratch):
    def call(client, text):
        client.say('{"jsonrpc":"2.0","id":1,' + text + "}")
        return client.hear()

    with calculator(scratch, source=HERE / "rpc_topic.c") as (path, _), Client(path) as client, \
            Client(path) as seller:
        first = call(client, '"method":"sales.subscribe"')["result"]
        assert (first["subscription"], first["next"]) == (1, 1), first
        for number in (1, 2, 3):
            assert call(seller, f'"method":"sell","params":{{"item":"tea","count":{number}}}')["result"] == number
            event = client.hear()
            assert event["method"] == "sales.event" and event["params"] == {
                "subscription": 1, "sequence": number, "event": {"item": "tea", "count": number}}, event
        assert call(client, '"method":"sales.unsubscribe","params":[1]')["result"] == {"next": 4}
        assert without_words(call(client, '"method":"sales.unsubscribe","params":[1]')) == error(1, -1)
        # From a number on, and from one of another server.
        assert call(client, f'"method":"sales.subscribe","params":[2,"{first["boot"]}"]')["result"]["next"] == 4
        assert [client.hear()["params"]["sequence"] for _ in range(2)] == [2, 3]
        assert call(client, '"method":"sales.subscribe","params":{"since":9,"boot":"another"}')["result"]
        lost = client.hear()
        assert lost["method"] == "sales.lost" and lost["params"]["reason"] == "restarted", lost
        for params in ('[-1]', '{"boot":7}', '{"sinceTime":"x"}', '{"filters":{}}'):
            answer = call(client, f'"method":"sales.subscribe","params":{params}')
            while "method" in answer:
                answer = client.hear()
            assert without_words(answer) == error(1, -32602), answer
        client.say('[{"jsonrpc":"2.0","id":1,"method":"sales.subscribe"}]')
        assert without_words(client.hear()) == [error(1, -2)]
        assert without_words(call(seller, '"method":"sell","params":[1]')) == error(1, -3)
        watched = run(BUILD / "src/programs/cloche", "rpc", "watch", "--socket", path, "--topic", "sales", "-n", "2",
                      "since=2").lines
        assert [json.loads(line)["sequence"] for line in watched] == [2, 3], watched


@test
def the_example_in_the_header_compiles(scratch):
    comment = (TOP / "include/cloche/rpc.h").read_text().split("*/")[0]
    lines = [line[7:] for line in comment.splitlines() if line.startswith(" *     ") or line == " *"]
    text = "\n".join(lines)
    split = text.index("if (cloche_rpc_loop_create")
    source = scratch / "example.c"
    outside = text[:split].replace("const struct", "static const struct")
    source.write_text(f"#include <stdlib.h>\n#include <cloche/rpc.h>\n{outside}int main(void) {{\n"
                      "struct cloche_rpc_loop *loop; struct cloche_rpc_server *server;\n"
                      f"bool running = true;\n{text[split:]}\n}}\n")
    run("gcc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
        "-I", TOP / "include", source)


@test
def the_manual_page_tells_the_truth(scratch):
    page = (TOP / "man/libcloche-rpc.3.scd").read_text()
    header = "".join((TOP / f"include/cloche/{name}.h").read_text() for name in ("rpc", "client"))
    for name in re.findall(r"cloche_(?:rpc|client|subscription)_\w+", page):
        assert f"{name}(" in header or f"struct {name}" in header, name
    _, server, _, client, *_ = page.replace("\\\\", "\\").split("```")
    source = scratch / "example.c"
    source.write_text(f"#include <stdio.h>\n#include <stdlib.h>\n#include <cloche/client.h>\n"
                      f"#include <cloche/rpc.h>\n{server}\n{client}\n"
                      "void *used[] = {(void *)add, (void *)print_sum};\n")
    run("gcc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
        "-I", TOP / "include", source)


@test
def only_its_own_names_are_given_away(scratch):
    names = {line.split()[-1].partition("@")[0]
             for line in run("nm", "-D", "--defined-only", LIBRARY).lines}
    assert {"cloche_rpc_server_create", "cloche_client_open", "cloche_container_list"} <= names
    assert all(name.lower().startswith("cloche_") for name in names), names


if __name__ == "__main__":
    main()
