#!/usr/bin/env python3
"""Further sockets of the daemon, and who may do what on them."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import stat

from harness import main, program, run, test, wait_for
from raw_rpc import Rpc
from sockets import CALLS, as_user, configure, in_container, reload

ALWAYS = {"rpc.hello", "rpc.ping", "rpc.cancel", "rpc.whoami", "rpc.discover"}


@test
def a_socket_has_its_methods_and_no_others(instance, scratch):
    path = scratch / "made" / "api.sock"
    configure(instance, scratch, {"path": str(path), "mode": "0620", "group": "4711",
                                  "methods": ["container.list", "events.*"]})
    instance.start_daemon()
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o620
    assert (status.st_uid, status.st_gid) == (0, 4711)
    with Rpc(path) as rpc:
        assert rpc.call("container.list") == {"containers": []}
        rpc.call("events.subscribe")
        refused = rpc.fails("container.create", image="host")
        assert refused.code == -4 and str(path) in refused.message and "container.create" in refused.message
        assert str(scratch / "cloched.conf") in refused.data["hint"] and "methods" in refused.data["hint"]
        assert rpc.fails("system.shutdown").code == -4
        assert rpc.fails("rpc.stats").code == -4
        assert rpc.fails("no.such").code == -32601
        rpc.call("rpc.ping")
        me = rpc.call("rpc.whoami")
        allowed = {"container.list", "events.subscribe", "events.unsubscribe", "events.list"} | ALWAYS
        assert set(me["methods"]) == allowed, me
        assert (me["uid"], me["pid"], me["socket"]) == (0, os.getpid(), str(path)), me
        assert "container" not in me
        shown = {method["name"] for method in rpc.call("rpc.discover")["methods"]}
        assert shown <= allowed and "container.list" in shown, shown
    with Rpc(instance.socket) as rpc:
        assert rpc.call("rpc.whoami")["socket"] == str(instance.socket)
        assert {"system.shutdown", "rpc.stats"} <= set(rpc.call("rpc.whoami")["methods"])
        assert len(rpc.call("rpc.discover")["methods"]) > len(shown)


@test
def a_container_calls_what_it_is_given_and_sees_who_it_is(instance, scratch):
    folder = scratch / "door"
    configure(instance, scratch, {"path": str(folder / "api.sock"), "mode": "0666", "methods": ["container.list"],
                                  "containers": ["browser-*"]})
    instance.start_daemon()
    me, listed, refused, shown = in_container(instance, "browser-1", folder, "rpc.whoami", "container.list",
                                              "container.create", "rpc.discover")
    assert me["result"]["containerName"] == "browser-1", me
    [this] = listed["result"]["containers"]
    assert this["id"] == me["result"]["container"] and this["pid"] > 0
    assert me["result"]["uid"] == 0 and set(me["result"]["methods"]) == {"container.list"} | ALWAYS
    assert refused["error"]["code"] == -4, refused
    assert {method["name"] for method in shown["result"]["methods"]} <= {"container.list"} | ALWAYS
    # Another container, and root outside, are not those that are named.
    for answer in in_container(instance, "other", folder, "container.list", "rpc.whoami"):
        assert answer["error"]["code"] == -4 and "container other" in answer["error"]["message"], answer
        assert "containers" in answer["error"]["data"]["hint"]
    with Rpc(folder / "api.sock") as rpc:
        outside = rpc.fails("container.list")
        assert outside.code == -4 and "user 0" in outside.message
    # Through the folder a container reaches the socket of the next daemon, too.
    instance.cloche("run", "-d", "--name", "browser-2", "-v", f"{folder}:/d:ro", "host", "sleep", "1000")
    instance.kill_daemon()
    instance.start_daemon()
    again = json.loads(instance.cloche("exec", "browser-2", "/usr/bin/python3", "-c", CALLS, "/d/api.sock",
                                       '["rpc.whoami"]').out)
    assert again[0]["result"]["containerName"] == "browser-2", again


@test
def users_and_groups_are_told_apart(instance, scratch):
    path = scratch / "api.sock"
    configure(instance, scratch, {"path": str(path), "mode": "0666", "methods": ["system.version"],
                                  "users": ["4001"], "groups": ["4100"]})
    instance.start_daemon()

    def code(uid, gid, groups):
        [answer] = as_user(uid, gid, groups, path, "system.version")
        return answer.get("error", {}).get("code", 0)
    assert code(4001, 9, "") == 0
    assert code(4002, 9, "") == -4
    assert code(4002, 4100, "") == 0
    assert code(4002, 9, "4099,4100,4101") == 0, "all of its groups count"
    assert code(4002, 9, "4099,4101") == -4
    assert code(0, 0, "") == -4, "root is named like others"
    [me] = as_user(4002, 9, "4099,4100", path, "rpc.whoami")
    assert me["result"]["uid"] == 4002 and me["result"]["gid"] == 9
    assert sorted(me["result"]["groups"]) == [4099, 4100], me
    # A container's root has our root's number, and is not meant by it.
    folder = scratch / "door"
    configure(instance, scratch, {"path": str(folder / "api.sock"), "mode": "0666", "users": ["root"],
                                  "methods": ["*"]})
    reload(instance)
    with Rpc(folder / "api.sock") as rpc:
        rpc.call("system.version")
    [answer] = in_container(instance, "box", folder, "system.version")
    assert answer["error"]["code"] == -4, answer


@test
def the_main_socket_is_root_s(instance):
    instance.start_daemon()
    status = instance.socket.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o660)
    assert as_user(4001, 4001, "", instance.socket, "rpc.ping")[0] == {"errno": 13}


@test
def a_reload_adds_and_removes_and_leaves_the_others_alone(instance, scratch):
    one, two, three = ({"path": str(scratch / f"{name}.sock"), "methods": ["rpc.*"]}
                       for name in ("one", "two", "three"))
    configure(instance, scratch, one, two)
    pid = instance.start_daemon()
    with Rpc(instance.socket) as main_one, Rpc(one["path"]) as kept, Rpc(two["path"]) as dropped:
        for rpc in (main_one, kept, dropped):
            rpc.call("rpc.ping")
        assert kept.fails("container.list").code == -4
        one["methods"].append("container.list")
        one["mode"] = "0660"
        configure(instance, scratch, one, three)
        reload(instance)
        assert kept.call("container.list") == {"containers": []}, "what is allowed changes under a connection"
        assert "container.list" in {method["name"] for method in kept.call("rpc.discover")["methods"]}
        assert stat.S_IMODE(os.stat(one["path"]).st_mode) == 0o660
        main_one.call("rpc.ping")
        try:
            dropped.call("rpc.ping")
            raise AssertionError("a socket that is not named any more still answers")
        except (ConnectionError, BrokenPipeError):
            pass
        assert not os.path.exists(two["path"])
        with Rpc(three["path"]) as added:
            added.call("rpc.ping")
        # A configuration that is wrong changes nothing.
        path = scratch / "cloched.conf"
        path.write_text('{"listen": [\n{"path": "/x", "methods": ["contaner.*"]}]}')
        main_one.call("events.subscribe", filters={"type": ["daemon"]})
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: "stays as it was" in (instance.run_folder / "cloched.log").read_text())
        kept.call("container.list")
        with Rpc(three["path"]) as added:
            added.call("rpc.ping")
        assert f"{path}:2: listen[0].methods" in (instance.run_folder / "cloched.log").read_text()
        assert instance.daemon_pid() == pid
        main_one.call("rpc.ping")
        assert not main_one.notices, "nothing was read again"


WRONG = [
    ('{\n"lisen": []}', 2, "lisen"),
    ('{"listen": [\n\n{"path": "/a"}]}', 3, "methods"),
    ('{"listen": [{"path": "/a", "methods": []}]}', 1, "methods"),
    ('{"listen": [{"path": "/a",\n"methods": ["rpc.*",\n"nothing.*"]}]}', 3, "no method fits 'nothing.*'"),
    ('{"listen": [{"path": "/a", "methods": ["*"],\n"mode": "0999"}]}', 2, "mode"),
    ('{"listen": [{"path": "/a", "methods": ["*"],\n"mode": "7777"}]}', 2, "mode"),
    ('{"listen": [{"path": "/a", "methods": ["*"], "mode": 384}]}', 1, "expected a string"),
    ('{"listen": [{"path": "/a", "methods": ["*"]},\n{"path": "/a", "methods": ["*"]}]}', 2, "already"),
    ('{"listen": [{"path": "/a", "methods": ["*"],\n\n"group": "no-such-group"}]}', 3, "no-such-group"),
    ('{"listen": [{"path": "/a", "methods": ["*"],\n"users": ["root",\n"no-such-user"]}]}', 3, "no-such-user"),
    ('{"listen": [{"path": "/a/../b", "methods": ["*"]}]}', 1, "plainly"),
    ('{"listen": [{"path": "/a", "methods": ["*"],\n"limits": {"connections": 0}}]}', 2, "connections"),
    ('{"listen": [{"path": "/a", "methods": ["*"],\n"limits": {"conections": 1}}]}', 2, "conections"),
    ('{"listen": [}', 1, ""),
    ('{"limits": {}}\n# fine\nx', 3, ""),
]


@test
def what_is_wrong_in_the_configuration_is_told_with_its_line(instance, scratch):
    path = scratch / "cloched.conf"

    def check(code=1):
        return run(program("cloched"), "--instance", instance.name, "--config", path, "--check-config",
                   code=code).err
    for text, line, word in WRONG:
        path.write_text(text)
        complaint = check()
        assert f"{path}:{line}: " in complaint and word in complaint, (text, complaint)
    path.write_text('# a comment\n{\n  # of\n  "listen": [{"path": "kiosk.sock",\n # all "kinds"\n'
                    '    "methods": ["container.*"]}]\n}\n')
    check(code=0)
    os.chmod(path, 0o666)
    assert "written by others" in check() and "chmod go-w" in check()
    os.chmod(path, 0o644)
    os.chown(path, 4001, 0)
    assert "written by others" in check()
    path.unlink()
    assert "cloched.conf" in check(), "a file that is named has to be there"
    os.mkfifo(path)
    assert "regular" in check()


@test
def limits_of_a_socket_are_its_own(instance, scratch):
    path = scratch / "api.sock"
    configure(instance, scratch, {"path": str(path), "methods": ["*"],
                                  "limits": {"connections": 2, "message": 1000, "inFlight": 3}})
    instance.start_daemon()
    with Rpc(path) as one, Rpc(path) as two:
        one.call("rpc.ping"), two.call("rpc.ping")
        with Rpc(path) as three:
            with contextlib.suppress(OSError):
                three.send({"jsonrpc": "2.0", "id": 1, "method": "rpc.ping"})
            answer = three.receive()
            assert answer is None or answer["error"]["code"] == -12, answer
        with Rpc(instance.socket) as rpc:
            rpc.call("rpc.ping")
        limits = one.call("rpc.hello")["limits"]
        assert limits["message"] == 1000 and limits["inFlight"] == 3, limits
        two.send({"jsonrpc": "2.0", "id": 1, "method": "rpc.ping", "params": {"x": "y" * 1000}})
        assert two.receive()["error"]["code"] == -12
    with Rpc(instance.socket) as rpc:
        assert rpc.call("rpc.hello")["limits"]["message"] == 1 << 20


@test
def files_of_others_are_left_alone(instance, scratch):
    taken, stale, busy, fine = (scratch / name for name in ("taken", "stale", "busy", "fine"))
    taken.write_text("something")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(busy))
        other.listen()
        configure(instance, scratch, *({"path": str(path), "methods": ["rpc.*"]}
                                       for path in (taken, stale, busy, fine)))
        instance.start_daemon()
        assert taken.read_text() == "something"
        for path in (stale, fine):
            with Rpc(path) as rpc:
                rpc.call("rpc.ping")
        log = (instance.run_folder / "cloched.log").read_text()
        assert "is no socket" in log and "somebody listens" in log, log
    instance.kill_daemon()
    assert fine.exists(), "whoever is killed cleans nothing up"
    instance.start_daemon()
    with Rpc(fine) as rpc:
        rpc.call("rpc.ping")
    instance.kill_daemon(signal.SIGTERM)
    assert not fine.exists() and taken.exists()


def actions(rpc):
    """What it has heard of containers until a daemon's event: {name: actions}."""
    heard = {}
    while (event := rpc.event()[1])["type"] != "daemon":
        if event["type"] == "container":
            heard.setdefault(event["name"], []).append(event["action"])
    return heard


@test
def a_socket_shows_the_containers_that_it_is_for(instance, scratch):
    folder = scratch / "door"
    path = folder / "api.sock"
    section = {"path": str(path), "mode": "0666", "methods": ["container.*", "events.*"],
               "visible": ["till-*", "@self"]}
    configure(instance, scratch, section)
    instance.start_daemon()
    with Rpc(path) as rpc, Rpc(instance.socket) as everything:
        rpc.call("events.subscribe")
        for name in ("till-1", "safe", "till-2"):
            instance.cloche("run", "-d", "--name", name, "-v", f"{folder}:/d:ro", "host", "sleep", "1000")
        assert len(everything.call("container.list")["containers"]) == 3

        def names(**how):
            return [one["names"][0].strip("/") for one in rpc.call("container.list", **how)["containers"]]
        assert sorted(names()) == ["till-1", "till-2"]
        assert names(limit=1) == ["till-2"] and sorted(names(limit=2)) == ["till-1", "till-2"]
        assert names(ids=["till-1"]) == ["till-1"]
        identity = everything.call("container.inspect", container="safe")["id"]
        for hidden in ("safe", identity):
            for method in ("inspect", "stop", "remove", "logs", "wait"):
                error = rpc.fails(f"container.{method}", container=hidden)
                assert error.code == -1 and error.message == f"No such container: {hidden}", error
            assert rpc.fails("container.list", ids=[hidden]).code == -1
        assert rpc.call("container.inspect", container="till-1")["name"].strip("/") == "till-1"
        assert rpc.fails("container.create", image="host", name="shop").code == -4
        assert rpc.fails("container.create", image="host").code == -4
        rpc.call("container.create", image="host", name="till-3", command=["true"])
        # A container sees itself.
        seen = json.loads(instance.cloche("exec", "safe", "/usr/bin/python3", "-c", CALLS, "/d/api.sock",
                                          '["container.list"]').out)[0]["result"]["containers"]
        assert sorted(one["names"][0].strip("/") for one in seen) == ["safe", "till-1", "till-2"], seen
        listed = rpc.call("events.list")["events"]
        assert {one["event"].get("name") for one in listed
                if one["event"]["type"] == "container"} == {"till-1", "till-2", "till-3"}
        assert not any(identity in json.dumps(one) for one in listed), "networks do not tell of it"
        # What is not allowed any more is not heard any more.
        reload(instance)
        heard = actions(rpc)
        assert set(heard) == {"till-1", "till-2", "till-3"} and heard["till-1"][:2] == ["create", "start"], heard
        section["methods"] = ["container.list"]
        configure(instance, scratch, section)
        reload(instance)
        instance.cloche("run", "--rm", "--name", "till-4", "host", "true")
        assert rpc.call("container.list")
        assert not rpc.notices, rpc.notices


@test
def a_socket_may_lie_in_the_run_folder(instance, scratch):
    configure(instance, scratch, {"path": "doors/kiosk.sock", "methods": ["rpc.*"]})
    instance.start_daemon()
    with Rpc(instance.run_folder / "doors/kiosk.sock") as rpc:
        assert rpc.call("rpc.whoami")["socket"] == str(instance.run_folder / "doors/kiosk.sock")


if __name__ == "__main__":
    main()
