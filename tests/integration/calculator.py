"""The server of contrib/examples, running, and JSON-RPC 2.0's own examples for it."""

import contextlib
import os
import pathlib
import resource
import subprocess

from harness import run

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["CLOCHE_BUILD"])
LIBRARY = BUILD / "src/rpc/libcloche-rpc.so"
EXAMPLE = TOP / "contrib/examples/calculator.c"


def sanitizer():
    """Options for the compiler, and the environment for other programs, to fit the build's."""
    if b"__asan_init" not in LIBRARY.read_bytes():
        return [], {}
    runtime = run("gcc", "-print-file-name=libasan.so").out.strip()
    return ["-fsanitize=address"], {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}


def limit_files(count):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, most), most))


@contextlib.contextmanager
def calculator(scratch, words=None, folder=LIBRARY.parent, files=1024, source=EXAMPLE):
    """The example, running; yields its socket and process."""
    words = words or ["-I", TOP / "include", "-L", LIBRARY.parent, "-lcloche-rpc"]
    flags, _ = sanitizer()
    program, path = scratch / "calculator", scratch / "calculator.sock"
    run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", source, *flags, *words, "-o", program)
    process = subprocess.Popen([program, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
                               preexec_fn=lambda: limit_files(files))
    try:
        assert process.stdout.readline() == "ready\n"
        yield path, process
        process.terminate()
        assert process.wait(60) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.communicate()


def without_words(answer):
    """An answer without what is free to choose: message and data of an error."""
    if isinstance(answer, list):
        return [without_words(one) for one in answer]
    if "error" in answer:
        return {**answer, "error": answer["error"]["code"]}
    return answer


def result(number, value):
    return {"jsonrpc": "2.0", "result": value, "id": number}


def error(number, code):
    return {"jsonrpc": "2.0", "error": code, "id": number}


# Section 7 of the specification; an answer of None is none.
SPECIFICATION = [
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', result(1, 19)),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', result(2, -19)),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
     result(3, 19)),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
     result(4, 19)),
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', error("1", -32601)),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', error(None, -32700)),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', error(None, -32600)),
    ('[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
     ' {"jsonrpc": "2.0", "method" ]', error(None, -32700)),
    ('[]', error(None, -32600)),
    ('[1]', [error(None, -32600)]),
    ('[1,2,3]', [error(None, -32600)] * 3),
    ('[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
     ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
     ' {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
     ' {"foo": "boo"},'
     ' {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
     ' {"jsonrpc": "2.0", "method": "get_data", "id": "9"} ]',
     [result("1", 7), result("2", 19), error(None, -32600), error("5", -32601),
      result("9", ["hello", 5])]),
    ('[ {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
     ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]} ]', None),
]
