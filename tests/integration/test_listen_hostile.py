#!/usr/bin/env python3
"""Further sockets of the daemon under those who should not be there, or want more than is theirs."""

import contextlib
import json
import os
import socket
import stat
import sys
import textwrap
import time

from harness import main, run, test
from raw_rpc import Rpc
from sockets import CALLS, as_user, configure, in_container, reload


def code_of(answer):
    return answer.get("error", {}).get("code", 0)


# The first thread of the process ends, another one calls.
HEADLESS = textwrap.dedent("""
    import ctypes, json, os, socket, threading, time
    def call():
        while open("/proc/self/stat").read().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.01)
        s = socket.socket(socket.AF_UNIX)
        s.connect("/d/api.sock")
        s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"system.version"}\\n')
        os.write(1, s.makefile().readline().encode())
        os._exit(0)
    threading.Thread(target=call).start()
    ctypes.CDLL(None).syscall(60, 0)  # exit, of this thread alone
    """)


@test
def a_process_without_its_first_thread_is_not_the_hosts(instance, scratch):
    folder = scratch / "door"
    configure(instance, scratch, {"path": str(folder / "api.sock"), "mode": "0666", "users": ["root"],
                                  "methods": ["system.version"]})
    instance.start_daemon()
    out = instance.cloche("run", "--rm", "-v", f"{folder}:/d:ro", "host", "/usr/bin/python3", "-c", HEADLESS).out
    assert code_of(json.loads(out)) == -4, out


@test
def links_in_the_place_of_a_socket_are_left_alone(instance, scratch):
    folder = scratch / "door"
    path, prey = folder / "api.sock", scratch / "prey"
    section = {"path": str(path), "mode": "0666", "owner": "4001", "group": "4001", "methods": ["rpc.*"]}
    configure(instance, scratch, section)
    instance.start_daemon()
    prey.write_text("secret")
    os.chmod(prey, 0o600)
    path.rename(folder / "away")
    path.symlink_to(prey)
    reload(instance)
    status = prey.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    path.unlink()
    # Nor another socket.
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        os.chmod(path, 0o600)
        reload(instance)
        status = path.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
        assert "not ours" in (instance.run_folder / "cloched.log").read_text()
    path.unlink()
    (folder / "away").rename(path)
    reload(instance)
    with Rpc(path) as rpc:
        rpc.call("rpc.ping")


@test
def sockets_that_cannot_be_asked_stay(instance, scratch):
    datagram, busy = scratch / "datagram", scratch / "busy"
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(socket.socket(socket.AF_UNIX, kind))
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        one.bind(str(datagram))
        two.bind(str(busy))
        two.listen(0)
        waiting = []
        with contextlib.suppress(BlockingIOError):
            while len(waiting) < 100:
                waiting.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(busy))
        before = [path.stat().st_ino for path in (datagram, busy)]
        configure(instance, scratch, *({"path": str(path), "methods": ["rpc.*"]} for path in (datagram, busy)))
        instance.start_daemon()
        assert [path.stat().st_ino for path in (datagram, busy)] == before
        assert "find out whether somebody listens" in (instance.run_folder / "cloched.log").read_text()


@test
def who_is_not_welcome_keeps_nobody_out(instance, scratch):
    path = scratch / "api.sock"
    configure(instance, scratch, {"path": str(path), "mode": "0666", "users": ["4001"],
                                  "methods": ["system.version"], "limits": {"connections": 4}})
    instance.start_daemon()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(40)]
        for one in crowd:
            one.connect(str(path))
        [answer] = as_user(4001, 4001, "", path, "system.version")
        assert code_of(answer) == 0, answer
        # And their time is short.
        for one in crowd:
            one.settimeout(60)
            while one.recv(4096):
                pass
    with Rpc(path) as rpc:
        assert rpc.fails("system.version").code == -4, "one that comes is told why"


@test
def a_reload_ends_those_who_are_not_welcome_any_more(instance, scratch):
    path = scratch / "api.sock"
    section = {"path": str(path), "mode": "0666", "users": ["0"], "methods": ["events.*", "system.version"]}
    configure(instance, scratch, section)
    instance.start_daemon()
    with Rpc(path) as rpc:
        rpc.call("events.subscribe")
        section["users"] = ["4001"]
        configure(instance, scratch, section)
        reload(instance)
        while (message := rpc.receive()) is not None:
            assert message["params"]["event"]["action"] != "reload", "it heard what was not for it any more"
    assert code_of(as_user(4001, 4001, "", path, "system.version")[0]) == 0


@test
def users_do_not_mean_those_in_containers_of_others(instance, scratch):
    path = scratch / "api.sock"
    section = {"path": str(path), "mode": "0666", "users": ["root"], "methods": ["system.version"]}
    configure(instance, scratch, section)
    instance.start_daemon()

    def call(*how):
        return json.loads(run("unshare", *how, sys.executable, "-c", CALLS, path, '["system.version"]').out)[0]
    assert code_of(call("--net")) == 0
    for how in (("--pid", "--fork"), ("--user", "--map-root-user")):
        answer = call(*how)
        assert code_of(answer) == -4 and "foreignContainers" in answer["error"]["data"]["hint"], answer
    section["foreignContainers"] = True
    configure(instance, scratch, section)
    reload(instance)
    assert code_of(call("--pid", "--fork")) == 0


@test
def patterns_are_of_names_and_not_of_ids(instance, scratch):
    folder = scratch / "door"
    section = {"path": str(folder / "api.sock"), "mode": "0666", "containers": ["[0-9a-f]*"],
               "methods": ["system.version"]}
    configure(instance, scratch, section)
    instance.start_daemon()
    assert code_of(in_container(instance, "zebra", folder, "system.version")[0]) == -4
    assert code_of(in_container(instance, "beaver", folder, "system.version")[0]) == 0
    identity = instance.cloche("run", "-d", "--name", "zebra", "-v", f"{folder}:/d:ro", "host",
                               "sleep", "1000").out.strip()
    section["containers"] = [identity[:12]]
    configure(instance, scratch, section)
    reload(instance)
    answer = json.loads(instance.cloche("exec", "zebra", "/usr/bin/python3", "-c", CALLS, "/d/api.sock",
                                        '["system.version"]').out)
    assert code_of(answer[0]) == 0, answer


# Takes so many connections, says how many got an answer, and keeps them until its input ends.
GREEDY = textwrap.dedent("""
    import os, socket, sys
    held, lines = [], 0
    for i in range(int(sys.argv[1])):
        os.seteuid(0)
        os.seteuid(int(sys.argv[2]) and int(sys.argv[2]) + i)
        s = socket.socket(socket.AF_UNIX)
        s.connect("/d/api.sock")
        try:
            s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"rpc.ping"}\\n')
            lines += '"result"' in s.makefile().readline()
        except OSError:
            pass
        held.append(s)
    print(lines, flush=True)
    sys.stdin.read()
    """)


@test
def a_container_counts_by_itself_whoever_it_is_inside(instance, scratch):
    folder = scratch / "door"
    configure(instance, scratch, {"path": str(folder / "api.sock"), "mode": "0666", "methods": ["rpc.*"],
                                  "limits": {"connections": 100, "connectionsPerUser": 3}})
    instance.start_daemon()
    with contextlib.ExitStack() as stack:
        def greedy(name, count, uid):
            process = stack.enter_context(instance.start(
                "run", "-i", "--rm", "--name", name, "-v", f"{folder}:/d:ro", "host", "/usr/bin/python3",
                "-c", GREEDY, str(count), str(uid), text=True))
            stack.callback(process.stdin.close)
            return int(process.stdout.readline())
        assert greedy("one", 6, 0) == 3
        assert greedy("two", 6, 4001) == 3, "other users of the same container"
        with Rpc(folder / "api.sock") as rpc:
            rpc.call("rpc.ping")


if __name__ == "__main__":
    main()
