"""A Python program that embeds libcloche-runtime, for test_runtime_library.py.

usage: runtime_ctypes.py LIBRARY ROOT BUNDLE ID
"""

import ctypes
import errno
import json
import os
import sys

FORCE = 1  # CLOCHE_RUNTIME_DELETE_FORCE


class Settings(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("root", ctypes.c_char_p), ("direct", ctypes.c_bool)]


class CreateOptions(ctypes.Structure):  # as far as it is used
    _fields_ = [("size", ctypes.c_size_t), ("id", ctypes.c_char_p), ("bundle", ctypes.c_char_p)]


class ExecOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("id", ctypes.c_char_p), ("process_file", ctypes.c_char_p),
                ("args", ctypes.POINTER(ctypes.c_char_p))]


def main():
    path, root, bundle, name = (os.fsencode(word) for word in sys.argv[1:])
    library = ctypes.CDLL(os.fsdecode(path))
    library.cloche_runtime_features.restype = ctypes.c_void_p
    for function in ("version", "spec_version", "error"):
        getattr(library, f"cloche_runtime_{function}").restype = ctypes.c_char_p
    handle = ctypes.c_void_p()

    def check(result):
        if result < 0:
            sys.exit(library.cloche_runtime_error(handle).decode())

    features = json.loads(ctypes.string_at(library.cloche_runtime_features()))
    assert features["ociVersionMax"] == library.cloche_runtime_spec_version().decode()
    settings = Settings(ctypes.sizeof(Settings), root)
    check(library.cloche_runtime_open(ctypes.byref(settings), ctypes.byref(handle)))
    found = ctypes.c_void_p()
    assert library.cloche_runtime_state(handle, name, ctypes.byref(found)) == -errno.ENOENT
    print(library.cloche_runtime_error(handle).decode())
    options = CreateOptions(ctypes.sizeof(CreateOptions), name, bundle)
    check(library.cloche_runtime_create(handle, ctypes.byref(options)))
    check(library.cloche_runtime_start(handle, name, None))
    args = (ctypes.c_char_p * 4)(b"/bin/sh", b"-c", b"exit 9", None)
    further = ExecOptions(ctypes.sizeof(ExecOptions), name, None, args)
    code = ctypes.c_int()
    check(library.cloche_runtime_exec(handle, ctypes.byref(further), ctypes.byref(code)))
    print("exit code", code.value)
    check(library.cloche_runtime_delete(handle, name, FORCE))
    library.cloche_runtime_close(handle)


main()
