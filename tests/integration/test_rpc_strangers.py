#!/usr/bin/env python3
"""A server of libcloche-rpc and a door before it, as strangers see them: JSON-RPC's own examples over every
transport and in both encodings, and the WebSocket and line clients that other languages come with."""

import contextlib
import json
import pathlib
import struct
import subprocess

from calculator import LIBRARY, SPECIFICATION, TOP, calculator, error, result, sanitizer, without_words
from door import Certificates, free_port, rpc
from harness import main, program, run, test

import cbor2  # Debian's, by door.py's path

PYTHON = "/usr/bin/python3"  # the one that Debian's modules are for
CLIENTS = pathlib.Path(__file__).parent / "clients"


@contextlib.contextmanager
def everywhere(scratch, *schemes):
    """The calculator of contrib/examples behind a door: (URLs by scheme, its certificates)."""
    certificates = Certificates(scratch)
    with calculator(scratch) as (path, _):
        urls = {scheme: f"{scheme}://127.0.0.1:{free_port()}" for scheme in schemes}
        listen = [word for url in urls.values() for word in ("--listen", url)]
        door = subprocess.Popen([program("cloche-door"), *listen, "--insecure-loopback", "--connect", path,
                                 *certificates.door_options()], stderr=subprocess.PIPE)
        try:
            line = door.stderr.readline()
            assert b"ready" in line, line
            yield {"unix": f"unix://{path}", **urls}, certificates
        finally:
            door.kill()
            door.communicate()


# Beyond the examples of the specification: what its words allow.
MORE = [
    ('{"jsonrpc":"2.0","id":null,"method":"subtract","params":[5,3]}', result(None, 2)),
    ('{"jsonrpc":"2.0","id":1.5,"method":"subtract","params":[5,3]}', result(1.5, 2)),
    ('{"jsonrpc":"2.0","id":-3,"method":"subtract","params":[5,3]}', result(-3, 2)),
    ('{"jsonrpc":"2.0","id":"","method":"subtract","params":[5,3]}', result("", 2)),
    ('{"jsonrpc":"2.0","id":"\\u00e9\\"\\\\\\u0001","method":"subtract","params":[5,3]}', result('é"\\\x01', 2)),
    ('{"jsonrpc":"2.0","id":18446744073709551615,"method":"subtract","params":[5,3]}', result(2**64 - 1, 2)),
    ('{"jsonrpc":"2.0","id":true,"method":"subtract","params":[5,3]}', error(None, -32600)),
    ('{"jsonrpc":"2.0","id":{},"method":"subtract","params":[5,3]}', error(None, -32600)),
    ('{"jsonrpc":"2.0","id":1,"method":"subtract","params":7}', error(1, -32600)),
    ('{"jsonrpc":"1.0","id":1,"method":"subtract","params":[5,3]}', error(1, -32600)),
    ('{"jsonrpc":"2.0","id":1}', error(1, -32600)),
    ('{"jsonrpc":"2.0","id":1,"method":"","params":[]}', error(1, -32601)),
    ('[[]]', [error(None, -32600)]),
    ('7', error(None, -32600)),
    ('"text"', error(None, -32600)),
    ('[{"jsonrpc":"2.0","id":4,"method":"subtract","params":[5,3]},{"jsonrpc":"2.0","id":4,"method":"get_data"}]',
     [result(4, 2), result(4, ["hello", 5])]),
]


def check(client, say, hear):
    for number, (text, expected) in enumerate(SPECIFICATION + MORE):
        try:
            say(text)
        except ValueError:
            continue  # cannot be said in CBOR
        if expected is not None:
            answer = without_words(hear())
            assert answer == expected, (text, answer)
        # Nothing else has come.
        say(f'{{"jsonrpc":"2.0","method":"rpc.ping","id":"p{number}"}}')
        assert hear()["id"] == f"p{number}", text
    # The same id twice in flight, both are answered; a batch waits for its last; others go past.
    say('[{"jsonrpc":"2.0","id":"x","method":"take_long"},'
        '{"jsonrpc":"2.0","id":"y","method":"subtract","params":[2,1]}]')
    say('{"jsonrpc":"2.0","id":"x","method":"subtract","params":[9,1]}')
    assert hear() == result("x", 8)
    say('{"jsonrpc":"2.0","id":"c","method":"rpc.cancel","params":["x"]}')
    batch, cancelled = sorted((hear(), hear()), key=lambda answer: isinstance(answer, dict))
    assert cancelled == result("c", {"cancelled": True}), cancelled
    batch = sorted(without_words(batch), key=lambda answer: answer["id"])
    assert batch == [error("x", -11), result("y", 1)], batch


@test
def the_specifications_examples_hold_over_every_transport(scratch):
    with everywhere(scratch, "tcp", "tls", "ws", "wss") as (urls, certificates):
        for url in urls.values():
            client = rpc.connect(url, **certificates.client_options())
            client.wire.sock.settimeout(30)
            check(client, client.wire.send, lambda: json.loads(client.wire.receive()))
            client.wire.close()


class Binary:
    """What was JSON in CBOR: length first, or in binary messages."""

    def __init__(self, wire):
        self.wire = wire
        wire.send('{"jsonrpc":"2.0","id":1,"method":"rpc.hello","params":[["cbor"]]}')
        assert json.loads(wire.receive())["result"]["encoding"] == "cbor"

    def send(self, text):
        data = cbor2.dumps(json.loads(text))
        if isinstance(self.wire, rpc.WebSocket):
            self.wire.send_frame(self.wire.BINARY, data)
        else:
            self.wire.sock.sendall(struct.pack(">I", len(data)) + data)

    def receive(self):
        if isinstance(self.wire, rpc.WebSocket):
            fin, opcode, data = self.wire.receive_frame()
            assert fin and opcode == self.wire.BINARY, opcode
            return self.named(cbor2.loads(data))
        length, = struct.unpack(">I", self.wire.file.read(4))
        return self.named(cbor2.loads(self.wire.file.read(length)))

    def named(self, answer):
        """With the member that CBOR may leave out."""
        if isinstance(answer, list):
            return [self.named(one) for one in answer]
        return {"jsonrpc": "2.0", **answer}


@test
def they_hold_in_cbor_of_another_library(scratch):
    with everywhere(scratch, "tcp", "tls", "ws", "wss") as (urls, certificates):
        for url in urls.values():
            client = rpc.connect(url, **certificates.client_options())
            client.wire.sock.settimeout(30)
            binary = Binary(client.wire)
            check(client, binary.send, binary.receive)
            client.wire.close()


# ---------------------------------------------------------------- clients of other languages

CALL = '{"jsonrpc":"2.0","id":1,"method":"subtract","params":[42,23]}'


@test
def pythons_websocket_client_speaks_with_it(scratch):
    with everywhere(scratch, "ws", "wss") as (urls, certificates):
        for scheme in ("ws", "wss"):
            lines = run(PYTHON, CLIENTS / "websocket_client.py", urls[scheme], *map(certificates.path, (
                "ca.pem", "client.pem", "client.key"))).lines
            assert lines == ["19", "True"], lines


@test
def ruby_and_perl_speak_with_it(scratch):
    with everywhere(scratch, "ws") as (urls, _):
        assert run("ruby", CLIENTS / "websocket_client.rb", urls["ws"]).lines == ["faye 19 cloche-rpc", "1000"]
        assert run("perl", CLIENTS / "websocket_client.pl", urls["ws"]).lines == ["perl 19"]


@test
def gos_gorilla_and_nhooyr_speak_with_it(scratch):
    build = pathlib.Path(program("cloche")).parents[2]
    path = build / "tests" / "integration" / "go_websocket_client"
    run("go", "build", "-o", path, CLIENTS / "websocket_client.go", timeout=300,
        env={"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(build / "go-cache")})
    with everywhere(scratch, "tcp", "ws") as (urls, _):
        lines = run(path, urls["ws"], urls["tcp"]).lines
        assert lines == ["gorilla 19", "websocket: close 1000 (normal): bye", "nhooyr 19 cloche-rpc", "json 19"], lines


@test
def a_shell_needs_socat_and_jq(scratch):
    with everywhere(scratch, "tcp", "tls") as (urls, certificates):
        identity = ",".join(f"{option}={certificates.path(name)}" for option, name in (
            ("cafile", "ca.pem"), ("cert", "client.pem"), ("key", "client.key")))
        for address in (urls["unix"].replace("unix://", "UNIX-CONNECT:"), urls["tcp"].replace("tcp://", "TCP:"),
                        urls["tls"].replace("tls://", "OPENSSL:") + "," + identity):
            said = run("sh", "-c", f"printf '%s\\r\\n' '{CALL}' | socat -t 20 - {address} | jq .result").lines
            assert said == ["19"], (address, said)


@test
def prometheus_reads_what_both_sides_have_counted(scratch):
    flags, _ = sanitizer()
    run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", *flags, "-I", TOP / "include",
        CLIENTS.parent / "rpc_metrics.c", "-L", LIBRARY.parent, "-lcloche-rpc", "-o", scratch / "client")
    with calculator(scratch) as (path, _):
        ours = run(scratch / "client", f"unix:{path}", env={"LD_LIBRARY_PATH": LIBRARY.parent}).out
        theirs = run(program("cloche"), "rpc", "stats", "--socket", path, "--format", "openmetrics").out
    ours, theirs = (run(PYTHON, CLIENTS / "open_metrics.py", input=text).lines for text in (ours, theirs))
    for line in ("counter cloche_rpc_client_calls_total{} 3", "counter cloche_rpc_client_timeouts_total{} 1",
                 "counter cloche_rpc_client_errors_total{code=-32601} 1",
                 "histogram cloche_rpc_client_latency_seconds_count{} 2"):
        assert line in ours, (line, ours)
    # Whether the other one was ever tried is left to chance.
    assert any(line.startswith("gauge cloche_rpc_client_endpoint_in{endpoint=unix:/nothing/there}") for line in ours)
    for line in ("counter cloche_rpc_server_calls_total{method=subtract} 1",
                 "counter cloche_rpc_server_unknown_total{} 1",
                 "histogram cloche_rpc_server_latency_seconds_bucket{le=+Inf,method=subtract} 1"):
        assert line in theirs, (line, theirs)
    # Bounds that come and go with the calls would spoil rates.
    bounds = [line.split("{")[1].split(",")[0] for line in theirs if "_bucket{" in line]
    assert bounds.count(bounds[0]) * len(set(bounds)) == len(bounds) > 60, bounds


if __name__ == "__main__":
    main()
