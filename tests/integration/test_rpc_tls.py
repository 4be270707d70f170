"""TLS endpoints of libcloche-rpc: a daemon behind its door, which wants a certificate."""

import contextlib
import ctypes
import json
import os
import pathlib
import subprocess
import threading

from door import Certificates, free_port
from harness import BUILD, PROGRAMS, main, program, test, wait_for

LIBRARY = BUILD / "src/rpc/libcloche-rpc.so"


class Settings(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("endpoints", ctypes.POINTER(ctypes.c_char_p)),
                ("connections", ctypes.c_uint), ("balance", ctypes.c_int), ("encoding", ctypes.c_int),
                ("polled", ctypes.c_bool), ("fail_fast", ctypes.c_bool), ("timeout_ms", ctypes.c_uint64),
                ("attempt_timeout_ms", ctypes.c_uint64), ("connect_timeout_ms", ctypes.c_uint64),
                ("probe_first_ms", ctypes.c_uint64), ("probe_most_ms", ctypes.c_uint64),
                ("attempts", ctypes.c_uint), ("waiting", ctypes.c_uint), ("tls_ca", ctypes.c_char_p),
                ("tls_cert", ctypes.c_char_p), ("tls_key", ctypes.c_char_p), ("tls_name", ctypes.c_char_p)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("fault", ctypes.c_int), ("message", ctypes.c_char_p),
                ("hint", ctypes.c_char_p), ("what", ctypes.c_char_p), ("where", ctypes.c_char_p),
                ("reserved", ctypes.c_void_p * 4)]


DONE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t,
                        ctypes.POINTER(Error))


class Client:
    def __init__(self, endpoints, certificates, name="client", **settings):
        self.library = ctypes.CDLL(str(LIBRARY))
        self.library.cloche_client_call_async.restype = ctypes.c_int64
        self.handle = ctypes.c_void_p()
        # The first connection starts the door, on a machine that may be busy.
        settings = {"connect_timeout_ms": 20000, "timeout_ms": 40000, **settings}
        if certificates:
            settings["tls_ca"] = certificates.path("ca.pem").encode()
        if certificates and name:
            settings["tls_cert"] = certificates.path(name + ".pem").encode()
            settings["tls_key"] = certificates.path(name + ".key").encode()
        given = (ctypes.c_char_p * (len(endpoints) + 1))(*[url.encode() for url in endpoints], None)
        self.error = Error()
        code = self.library.cloche_client_open(ctypes.byref(Settings(ctypes.sizeof(Settings), given, **settings)),
                                               ctypes.byref(self.handle), ctypes.byref(self.error))
        assert code == 0, self.error.message

    def call(self, method):
        """The result, or what was said of the error."""
        result = ctypes.c_void_p()
        code = self.library.cloche_client_call(self.handle, method.encode(), None, None, ctypes.byref(result),
                                               ctypes.byref(self.error))
        return json.loads(ctypes.string_at(result)) if code == 0 else self.error.message.decode()

    def call_async(self, method):
        ended, outcome = threading.Event(), []

        @DONE
        def done(_data, result, _fds, _count, error):
            outcome.append(json.loads(result) if result else error.contents.message.decode())
            ended.set()

        assert self.library.cloche_client_call_async(self.handle, method.encode(), None, None, done, None) > 0
        assert ended.wait(60)
        return outcome[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.cloche_client_close(self.handle)


@contextlib.contextmanager
def daemon(instance, folder, certificates, port):
    settings = {"listen": [f"tls://127.0.0.1:{port}"], "tlsCert": certificates.path("server.pem"),
                "tlsKey": certificates.path("server.key"), "tlsClientCa": certificates.path("ca.pem")}
    file = pathlib.Path(folder) / "cloched.conf"
    file.write_text(json.dumps({"door": settings}))
    log = pathlib.Path(folder) / "log"
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen([program("cloched"), "--instance", instance.name, "--config", str(file)],
                                   stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **instance.env})
    try:
        wait_for(lambda: instance.socket.exists() or process.poll() is not None, 30, "the daemon is ready")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


@test
def calls_go_over_mutual_tls(instance, scratch):
    certificates, port = Certificates(scratch), free_port()
    os.environ["CLOCHE_LIBEXEC"] = str(PROGRAMS)
    url = f"tls:127.0.0.1:{port}"
    with daemon(instance, scratch, certificates, port):
        with Client([url], certificates) as client:
            assert "version" in client.call("system.version"), "synchronous"
            assert "version" in client.call_async("system.version"), "asynchronous"
            assert "version" in client.call("system.version"), "on the same connection"
            assert "there is no method" in client.call("no.such")
        with Client([f"tls:127.0.0.1:{free_port()}", url], certificates) as client:
            for _ in range(4):
                assert "version" in client.call("system.version"), "fail-over"
                assert "version" in client.call_async("system.version"), "fail-over"
        with Client([url], certificates, fail_fast=True, tls_name=b"elsewhere") as client:
            assert "certificate" in client.call("system.version")
        with Client([f"tls:localhost:{port}"], certificates, tls_name=b"127.0.0.1") as client:
            assert "version" in client.call("system.version"), "the name in place of the host"
        with Client([url], certificates, None, timeout_ms=3000) as client:
            assert isinstance(client.call("system.version"), str), "without a certificate"
    # They ended with their connections, and are nobody's children: none is left to wait for.
    try:
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        pass


@test
def without_the_program_there_is_no_tls(scratch):
    os.environ["CLOCHE_LIBEXEC"] = str(scratch)
    with Client(["tls:127.0.0.1:1"], None, fail_fast=True) as client:
        assert "cloche-dial" in client.call("x"), client.error.message
    os.environ["CLOCHE_LIBEXEC"] = str(PROGRAMS)


if __name__ == "__main__":
    main()
