"""A Python program that is a server of libcloche-rpc, for test_rpc_library.py: it calls itself.

usage: rpc_ctypes.py LIBRARY
"""

import ctypes
import json
import os
import socket
import sys

HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


class Method(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p),
                ("params", ctypes.POINTER(ctypes.c_char_p)), ("handler", HANDLER),
                ("fds", ctypes.c_uint)]


def main():
    library = ctypes.CDLL(sys.argv[1])
    for function in ("cloche_rpc_loop_run_once", "cloche_rpc_server_destroy", "cloche_rpc_loop_destroy"):
        getattr(library, function).restype = None

    @HANDLER
    def upper(request, _context):
        text = ctypes.c_char_p()
        if library.cloche_rpc_string(ctypes.c_void_p(request), b"text", ctypes.byref(text)) < 0:
            library.cloche_rpc_fail_params(ctypes.c_void_p(request))
        else:
            library.cloche_rpc_reply(ctypes.c_void_p(request),
                                     json.dumps(text.value.decode().upper()).encode())

    def check(result):
        assert result >= 0, os.strerror(-result)

    loop, server = ctypes.c_void_p(), ctypes.c_void_p()
    check(library.cloche_rpc_loop_create(ctypes.byref(loop)))
    check(library.cloche_rpc_server_create(loop, None, ctypes.byref(server)))
    params = (ctypes.c_char_p * 2)(b"text", None)
    method = Method(ctypes.sizeof(Method), b"upper", params, upper, 0)
    check(library.cloche_rpc_server_add(server, ctypes.byref(method)))
    ours, theirs = socket.socketpair()
    check(library.cloche_rpc_server_adopt(server, theirs.detach()))
    for params in (["gr\u00fc\u00df"], {"text": "a\nb"}, {}, {"word": "x"}, [1]):
        ours.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "upper",
                                 "params": params}).encode() + b"\n")
        library.cloche_rpc_loop_run_once(loop, -1)
        answer = json.loads(ours.recv(65536))
        print(answer.get("result", answer.get("error", {}).get("message")))
    library.cloche_rpc_server_destroy(server)
    library.cloche_rpc_loop_destroy(loop)


main()
