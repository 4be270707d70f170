#!/usr/bin/env python3
"""`cloche rpc` against the daemon, and against a server of our own that says what it was asked."""

import contextlib
import json
import os
import pathlib
import re
import socket
import tempfile
import threading

from harness import TOP, main, program, run, test, wait_for

DOCUMENT = {
    "openrpc": "1.3.2",
    "info": {"title": "A server of the tests", "version": "1"},
    "methods": [
        {"name": "echo", "summary": "Answers its parameters.", "paramStructure": "either", "params": [
            {"name": "text", "required": True, "description": "Any text.", "schema": {"type": "string"}},
            {"name": "number", "schema": {"type": "integer", "format": "int64"}},
            {"name": "part", "schema": {"type": "number"}},
            {"name": "flag", "schema": {"type": "boolean"}},
            {"name": "words", "schema": {"type": "array", "items": {"type": "string"}}},
            {"name": "numbers", "schema": {"type": "array", "items": {"type": "integer"}}},
            {"name": "labels", "schema": {"type": "object", "additionalProperties": {"type": "string"}}},
            {"name": "place", "schema": {"$ref": "#/components/schemas/place"}},
            {"name": "places", "schema": {"type": "array", "items": {"$ref": "#/components/schemas/place"}}},
            {"name": "command", "schema": {"oneOf": [{"type": "string"},
                                                     {"type": "array", "items": {"type": "string"}}]}},
            {"name": "kind", "schema": {"type": "string", "enum": ["small", "large"]}},
            {"name": "maybe", "schema": {"type": ["integer", "null"]}},
            {"name": "any", "schema": {}},
        ], "result": {"name": "echo", "schema": {"type": "object"}}},
        {"name": "fail", "summary": "Fails.", "params": [], "result": {"name": "x", "schema": {}}},
        {"name": "silent", "summary": "Says nothing.", "params": [], "result": {"name": "x", "schema": {}}},
        {"name": "stream", "summary": "Comes with one.", "params": [], "result": {"name": "x", "schema": {}}},
        {"name": "events.subscribe", "summary": "Subscribes.", "params": [
            {"name": "since", "schema": {"type": "integer"}}], "result": {"name": "x", "schema": {}}},
    ],
    "components": {"schemas": {"place": {"type": "object", "properties": {
        "x": {"type": "integer", "description": "To the right."}, "name": {"type": "string"},
        "next": {"$ref": "#/components/schemas/place"}}, "required": ["x"]}}},
}


class Server:
    """Answers on a socket; what it was called with is in `calls`."""

    def __init__(self, folder, document=DOCUMENT):
        self.path = pathlib.Path(folder) / "server.sock"
        self.document, self.calls, self.fds = document, [], []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has what it wanted
            self.serve_lines(connection)

    def serve_lines(self, connection):
        data = b""
        while True:
            piece, fds, _, _ = socket.recv_fds(connection, 65536, 4)
            self.fds += fds
            if not piece:
                return
            data += piece
            while b"\n" in data:
                line, data = data.split(b"\n", 1)
                self.answer(connection, json.loads(line))

    def answer(self, connection, call):
        def send(message, fds=()):
            text = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
            socket.send_fds(connection, [text], fds) if fds else connection.sendall(text)

        self.calls.append(call)
        name, number = call["method"], call.get("id")
        if name == "rpc.discover" and self.document:
            send({"id": number, "result": self.document})
        elif name == "fail":
            send({"id": number, "error": {"code": -3, "message": "not today", "data": {
                "what": "invalidArgument", "where": "fail", "hint": "Try tomorrow."}}})
        elif name == "stream":
            ours, theirs = os.pipe()
            os.write(theirs, b"what came beside it\n")
            os.close(theirs)
            send({"id": number, "result": {"tty": False}, "fds": 1}, [ours])
            os.close(ours)
        elif name == "events.subscribe":
            send({"id": number, "result": {"subscription": 1, "boot": "b", "next": 4, "oldest": 1}})
            for sequence in (4, 5, 6):
                send({"method": "events.event", "params": {"subscription": 1, "sequence": sequence,
                                                           "event": {"type": "start"}}})
                send({"method": "other.event", "params": {"subscription": 9}})
            send({"method": "events.lost", "params": {"subscription": 1, "from": 7, "count": 2,
                                                  "reason": "slow"}})
        elif name == "echo":
            send({"id": number, "result": call.get("params", {})})
        elif name != "silent":
            send({"id": number, "error": {"code": -32601, "message": f"there is no method '{name}'"}})

    def call(self, *words, **options):
        return run(program("cloche"), "rpc", "call", "--socket", self.path, *words, **options)

    def close(self):
        self.listener.close()
        for fd in self.fds:
            os.close(fd)


@contextlib.contextmanager
def serving(document=DOCUMENT):
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, document)
        try:
            yield server
        finally:
            server.close()


# ---------------------------------------------------------------- parameters

@test
def values_are_what_the_description_says():
    cases = {
        ("text=12",): {"text": "12"},
        ("text=",): {"text": ""},
        ("text=a=b:=c",): {"text": "a=b:=c"},
        ("text=äö\"\\",): {"text": "äö\"\\"},
        ("number=-12", "part=1.5e3", "flag=true"): {"number": -12, "part": 1500.0, "flag": True},
        ("words[]=a", "words[]=2", "numbers[]=3"): {"words": ["a", "2"], "numbers": [3]},
        ("labels.com.example.x=1", "labels.y=2"): {"labels": {"com.example.x": "1", "y": "2"}},
        ("place.x=4", "place.next.x=5", "place.name=7"): {"place": {"x": 4, "next": {"x": 5}, "name": "7"}},
        ("places[].x=1", "places[].x=2", "places[0].name=a"): {"places": [{"x": 1, "name": "a"}, {"x": 2}]},
        ("command=a b",): {"command": "a b"},
        ("command[]=a", "command[]=b"): {"command": ["a", "b"]},
        ("maybe=null",): {"maybe": None},
        ("maybe=3",): {"maybe": 3},
        ("any=3",): {"any": 3},
        ("any=x",): {"any": "x"},
        ('any:={"a": [1,\n 2]}',): {"any": {"a": [1, 2]}},
        ("text=a", "text=b"): {"text": "b"},
        ("number:=18446744073709551615",): {"number": 18446744073709551615},
        (): {},
    }
    with serving() as server:
        for words, expected in cases.items():
            assert json.loads(server.call("echo", *words).out) == expected, words


@test
def values_that_do_not_fit_are_refused_here():
    cases = {
        ("number=x",): "echo: 'x' is not what number takes: int64",
        ("number=1 2",): "echo: '1 2' is not what number takes: int64",
        ("flag=yes",): "'yes' is not what flag takes: boolean",
        ("words=a",): "Write words[]=VALUE for each element, or words:=JSON.",
        ("place=a",): "Write place.MEMBER=VALUE for each member, or place:=JSON.",
        ("txet=a",): "Did you mean 'text'?",
        ("frob=a",): "echo has no parameter 'frob'\nIt has: text, number,",
        ("text",): "'text' is no parameter\nWrite NAME=VALUE",
        ("=a",): "'=a' is no parameter",
        ("any:=[1",): "any: not JSON:",
        ("words[1]=a",): "words[1]: [] or a number up to [0] is wanted there",
        ("words[x]=a",): "words[x]: [] or a number up to [0] is wanted there",
        ("words[]x=a",): "'.' or '=' is expected behind ']'",
        ("place.=a",): "'place.': a name is missing",
        ("place.x=1", "place[]=1"): "a part of it was given in another way before",
        ("text=@/nothing/there",): "open /nothing/there: No such file",
        ("-",): "standard input: an object is wanted",
    }
    with serving() as server:
        for words, expected in cases.items():
            failed = server.call("echo", *words, input="[]", code=1)
            assert expected in failed.err and not failed.out, (words, failed.err)
        assert all(call["method"] == "rpc.discover" for call in server.calls), "a mistake was sent"


@test
def values_come_from_files_and_standard_input():
    with serving() as server, tempfile.NamedTemporaryFile("w") as file:
        file.write('{"x": 3}\n')
        file.flush()
        assert json.loads(server.call("echo", f"text=@{file.name}").out) == {"text": '{"x": 3}\n'}
        assert json.loads(server.call("echo", f"place:=@{file.name}").out) == {"place": {"x": 3}}
        assert json.loads(server.call("echo", "text=@-", input="a\nb").out) == {"text": "a\nb"}
        whole = '{"text": "a",\n "number": 1}'
        assert json.loads(server.call("echo", "-", input=whole).out) == {"text": "a", "number": 1}
        assert json.loads(server.call("echo", "-", "number=2", input=whole).out) == {"text": "a", "number": 2}
        too_long = server.call("echo", "text=@-", input="x" * (1 << 20) + "x", code=1)
        assert "standard input" in too_long.err, too_long


@test
def a_server_that_tells_nothing_of_itself_can_be_called():
    with serving(None) as server:
        answer = json.loads(server.call("echo", "n=3", "t=x", "b=true", "s=3a", "l[]=1", "o.p=null").out)
        assert answer == {"n": 3, "t": "x", "b": True, "s": "3a", "l": [1], "o": {"p": None}}
        failed = run(program("cloche"), "rpc", "methods", "--socket", server.path, code=1)
        assert "the server tells nothing of its methods" in failed.err


# ---------------------------------------------------------------- answers

@test
def results_have_the_form_that_was_asked_for():
    with serving() as server:
        assert server.call("echo", "number=1").out == '{\n    "number": 1\n}\n'
        assert server.call("--format", "json", "echo", "number=1").out == '{"number":1}\n'
        assert server.call("-f", "<{{.number}}>", "echo", "number=1").out == "<1>\n"
        assert server.call("-f", "json", "stream").out == '{"tty":false}\nwhat came beside it\n'


@test
def failures_name_their_code_place_and_what_to_try():
    with serving() as server:
        failed = server.call("fail", code=1)
        assert failed.err == "Error: not today (-3 in fail)\nTry tomorrow.\n" and not failed.out
        failed = json.loads(server.call("-f", "json", "fail", code=1).err)["error"]
        assert failed == {"code": -3, "message": "not today",
                          "data": {"where": "fail", "hint": "Try tomorrow."}}
        assert "Did you mean 'silent'?" in server.call("slient", "a=1", code=1).err
        failed = server.call("slient", code=1)
        assert failed.err == "Error: there is no method 'slient' (-32601 in slient)\nDid you mean 'silent'?\n", failed
        assert server.call("nothing-like-it", code=1).err.count("\n") == 1
        assert "cannot be the name of a method" in server.call('a","id":1', code=1).err
    assert "Is a server listening" in run(program("cloche"), "rpc", "call", "--socket", "/nothing", "x", code=1).err


@test
def calls_end_with_their_time():
    with serving() as server:
        failed = server.call("--timeout", "1s", "silent", code=1)
        assert "silent" in failed.err and failed.seconds >= 1, failed
        for wrong in ("1x", "", "-1s", "0", "s", "1s2"):
            assert "a time is wanted" in server.call("--timeout", wrong, "silent", code=125).err, wrong
        assert server.call("--timeout", "1m30s", "echo").out == "{}\n"


@test
def a_descriptor_goes_with_a_call():
    with serving() as server, tempfile.TemporaryFile() as file:
        words = " ".join(["rpc", "call", "--socket", str(server.path), "--fd", "7", "echo"])
        run("bash", "-c", f"{program('cloche')} {words} 7<{TOP}/README.md")
        assert server.calls[-1]["fds"] == 1
        wait_for(lambda: server.fds, what="the descriptor")
        assert os.read(server.fds[0], 16) == (TOP / "README.md").read_bytes()[:16]


# ---------------------------------------------------------------- the other commands

@test
def methods_are_listed_and_described():
    with serving() as server:
        def methods(*words, **options):
            return run(program("cloche"), "rpc", "methods", "--socket", server.path, *words, **options)

        assert re.search(r"^echo +Answers its parameters\.$", methods().out, re.M)
        one = methods("echo").out
        assert one.startswith("echo(text, number?, part?,") and re.search(
            r"^  text +string +required +Any text\.$", one, re.M), one
        assert re.search(r"^  place\.next\.x +integer +required +To the right\.$", one, re.M), one
        assert re.search(r"^  places\[\]\.name +string *$", one, re.M), one
        assert re.search(r'^  kind +"small"\|"large" *$', one, re.M), one
        assert re.search(r"^  command +string or array of string *$", one, re.M), one
        assert json.loads(methods("--format", "json").out) == DOCUMENT
        assert json.loads(methods("--format", "json", "fail").out) == DOCUMENT["methods"][1]
        assert "Did you mean 'echo'?" in methods("ehco", code=1).err


@test
def watching_prints_what_comes_a_line_each():
    with serving() as server:
        def watch(*words, **options):
            return run(program("cloche"), "rpc", "watch", "--socket", server.path, *words, **options)

        lines = [json.loads(line) for line in watch("-n", "4").lines]
        assert [line.get("sequence") for line in lines] == [4, 5, 6, None]
        assert lines[3] == {"boot": "b", "from": 7, "count": 2, "reason": "slow"}
        assert watch("-n", "2", "-f", "{{.sequence}}:{{.event.type}}", "since=3").out == "4:start\n5:start\n"
        assert server.calls[-1]["params"] == {"since": 3}
        assert "(-32601 in x.subscribe)" in watch("--topic", "x", code=1).err


def offered(expected, *words, env=None):
    """A server that takes long is not waited for by who presses a key."""
    wait_for(lambda: offers(*words, env=env) == expected, what=f"{words} gives {expected}")


def offers(*words, env=None):
    lines = run(program("cloche"), "__complete", "--", *words, env=env).lines
    return [line.split("\t")[0] for line in lines]


@test
def words_are_completed_from_the_description():
    with serving() as server:
        call = ("rpc", "call", "--socket", str(server.path))
        assert offers("rpc", "") == ["call", "methods", "ping", "stats", "watch"]
        offered(["echo", "events.subscribe"], *call, "e")
        offered(["place=", "places[]="], *call, "echo", "pla")
        offered(["flag=true", "flag=false"], *call, "echo", "flag=")
        offered(["kind=large"], *call, "echo", "kind=l")
        offered(["since="], "rpc", "watch", "--socket", str(server.path), "")
        offered(["fail"], "rpc", "methods", "--socket", str(server.path), "fa")
        assert offers("rpc", "methods", "--socket", str(server.path), "fail", "") == []


@test
def words_are_completed_without_a_daemon(instance):
    environment = {"CLOCHE_INSTANCE": instance.name}
    assert "container.list" in offers("rpc", "call", "", env=environment)
    assert offers("rpc", "call", "container.list", "a", env=environment) == ["all="]
    assert instance.daemon_pid() is None


# ---------------------------------------------------------------- the daemon

@test
def the_daemon_is_called(instance):
    created = json.loads(instance.cloche(
        "rpc", "call", "container.create", "image=host", "name=web", "command[]=sleep", "command[]=100",
        "env[]=A=b", "labels.com.example.desk=4", "resources.memory=67108864", "readOnlyRoot=true").out)
    details = json.loads(instance.cloche("rpc", "call", "container.inspect", "container=web").out)
    assert details["id"] == created["id"] and details["spec"]["resources"]["memory"] == 67108864
    assert details["spec"]["labels"] == {"com.example.desk": "4"} and details["spec"]["readOnlyRoot"] is True
    offered(["container=web"], "rpc", "call", "container.start", "container=w",
            env={"CLOCHE_INSTANCE": instance.name})
    failed = instance.cloche("rpc", "call", "container.start", "container=shop", code=1)
    assert failed.err.startswith("Error: No such container: shop (-1 in container.start)"), failed.err


@test
def the_daemon_describes_its_methods(instance):
    listed = {line.split()[0] for line in instance.cloche("rpc", "methods").lines[1:]}
    root = json.loads((TOP / "runtime-spec/management.json").read_text())
    methods = set(root["x-methods"])
    for part in root["x-include"]:
        methods |= set(json.loads((TOP / "runtime-spec" / part).read_text())["x-methods"])
    assert listed >= methods | {"rpc.ping", "rpc.discover"}
    document = json.loads(instance.cloche("rpc", "methods", "-f", "json").out)
    assert {method["name"] for method in document["methods"]} == listed
    assert instance.cloche("rpc", "methods", "container.start").out.startswith("container.start(container)\n")


@test
def pings_and_counts_start_no_daemon(instance):
    for command in ("ping", "stats"):
        failed = instance.cloche("rpc", command, code=1)
        assert "No daemon runs." in failed.err, failed
    assert instance.daemon_pid() is None
    instance.start_daemon()
    assert [line.split(":")[0] for line in instance.cloche("rpc", "ping", "-c", "3").lines] == ["1", "2", "3"]
    answers = [json.loads(line) for line in instance.cloche("rpc", "ping", "-c", "2", "-f", "json").lines]
    assert [answer["number"] for answer in answers] == [1, 2] and answers[0]["microseconds"] > 0


@test
def counts_have_three_forms(instance):
    instance.cloche("ps")
    instance.cloche("rpc", "call", "container.inspect", "container=shop", code=1)
    stats = json.loads(instance.cloche("rpc", "stats", "-f", "json").out)
    by_name = {method["method"]: method for method in stats["methods"]}
    assert by_name["container.list"]["calls"] == 1 and by_name["container.inspect"]["errors"] == {"-1": 1}
    table = instance.cloche("rpc", "stats").out
    assert re.search(r"^container\.inspect +1 +1 +0 +0 +0 ", table, re.M), table
    text = instance.cloche("rpc", "stats", "-f", "openmetrics").out
    assert text.endswith("# EOF\n")
    assert 'cloche_rpc_server_calls_total{method="container.list"} 1\n' in text
    assert 'cloche_rpc_server_errors_total{method="container.inspect",code="-1"} 1\n' in text
    for line in text.splitlines():
        assert re.fullmatch(r'# (TYPE|HELP|UNIT) \S+ .+|# EOF|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [-\d.e+]+', line), line
    buckets = [int(line.split()[-1]) for line in text.splitlines()
               if line.startswith('cloche_rpc_server_latency_seconds_bucket{method="container.list"')]
    assert buckets == sorted(buckets) and buckets[-1] == 1, buckets


if __name__ == "__main__":
    main()
