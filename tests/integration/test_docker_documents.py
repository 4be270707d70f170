#!/usr/bin/env python3
"""What the Docker Engine API answers, where clients look at more than whether it works."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.parse

from dockers import Docker
from harness import main, test, wait_for
from raw_rpc import Rpc


def filters(**wanted):
    return "filters=" + urllib.parse.quote(json.dumps({key: [value] for key, value in wanted.items()}))


@test
def a_list_of_containers_tells_networks_mounts_and_exposed_ports(instance, images, scratch):
    """docker compose takes them from the list, traefik the ports that nobody published."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("build", "-t", "exposing:1", "-", input="FROM small:1\nEXPOSE 80 53/udp\n")
    docker("network", "create", "near")
    docker("run", "-d", "--name", "one", "--network", "near", "--expose", "90", "-p", "127.0.0.1:18433:80",
           "-v", "data:/data", "-v", f"{scratch}:/host:ro", "--tmpfs", "/t", "exposing:1", "sleep", "1000")
    listed = docker.ask("GET", "/containers/json")[1][0]
    inspected = docker.ask("GET", "/containers/one/json")[1]
    assert listed["HostConfig"] == {"NetworkMode": "near"}, listed
    place = inspected["NetworkSettings"]["Networks"]["near"]
    assert place.pop("Aliases") == [inspected["Id"][:12]], inspected
    assert listed["NetworkSettings"]["Networks"] == {"near": {**place, "Aliases": None}}, listed
    assert listed["NetworkSettings"]["Networks"]["near"]["IPAddress"], listed
    assert listed["Mounts"] == inspected["Mounts"] and len(listed["Mounts"]) == 2, listed
    ports = sorted((port["PrivatePort"], port["Type"], port.get("PublicPort")) for port in listed["Ports"])
    assert ports == [(53, "udp", None), (80, "tcp", 18433), (90, "tcp", None)], ports
    assert inspected["Config"]["ExposedPorts"] == {"80/tcp": {}, "90/tcp": {}, "53/udp": {}}, inspected["Config"]
    assert inspected["NetworkSettings"]["Ports"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18433"}], "90/tcp": None, "53/udp": None}, inspected
    assert docker("ps", "--format", "{{.Networks}} {{.LocalVolumes}}").out == "near 1\n"
    docker("kill", "one")
    assert docker.ask("GET", "/containers/json?all=1")[1][0]["Ports"] == []
    docker("rm", "-v", "one")
    docker("network", "rm", "near")
    docker("volume", "rm", "data")


@test
def a_list_of_containers_follows_each_change_of_them(instance, images):
    """The door keeps what it has translated: nothing of it may be shown when it is not so any more."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("network", "create", "near")
    for name in ("one", "two", "three"):
        docker("run", "-d", "--name", name, "small:1", "sleep", "1000")

    def listed():
        """By name; twice, of which the second comes from what is kept. Each from a connection of its own."""
        lists = [docker.ask("GET", "/containers/json?all=1")[1] for _ in range(2)]
        for one in lists[0] + lists[1]:
            del one["Status"]
        assert lists[0] == lists[1], lists
        return {one["Names"][0]: one for one in lists[0]}

    def changed(before):
        """Names of those that are not as they were."""
        after = listed()
        return sorted(name for name in {*before, *after} if before.get(name) != after.get(name)), after

    state = listed()
    assert list(state) == ["/three", "/two", "/one"], list(state)
    for words, expected in (
            (("rename", "one", "uno"), ["/one", "/uno"]), (("pause", "two"), ["/two"]), (("unpause", "two"), ["/two"]),
            (("network", "connect", "--alias", "friend", "near", "uno"), ["/uno"]),
            (("network", "disconnect", "bridge", "uno"), ["/uno"]), (("kill", "two"), ["/two"]),
            (("start", "two"), ["/two"]), (("rm", "-f", "two"), ["/two"]),
            (("run", "-d", "--name", "four", "-l", "a=b", "-p", "18434:80", "small:1", "sleep", "1000"), ["/four"]),
            (("tag", "small:1", "other:1"), [])):
        docker(*words)
        names, state = changed(state)
        assert names == expected, (words, names)
    assert list(state["/uno"]["NetworkSettings"]["Networks"]) == ["near"], state["/uno"]
    assert state["/four"]["Ports"][0]["PublicPort"] == 18434 and state["/four"]["Labels"] == {"a": "b"}, state
    # What was asked for before is not what is asked for now.
    assert "SizeRw" not in state["/four"]
    sized = docker.ask("GET", "/containers/json?size=1")[1]
    assert all("SizeRw" in one for one in sized), sized
    assert "SizeRw" not in listed()["/four"]
    assert [one["Names"] for one in docker.ask("GET", "/containers/json?limit=1")[1]] == [["/four"]]
    assert docker.ask("GET", "/containers/json?filters=" + urllib.parse.quote('{"is-task":["true"]}'))[1] == []
    docker("rm", "-f", "uno", "three", "four")
    docker("network", "rm", "near")


@test
def a_list_has_an_edition_which_nothing_but_the_same_list_has(instance, images):
    """Who knows it is told that it is still so. Two who ask for different lists in turn get each their own."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "one", "small:1", "sleep", "1000")
    two = docker("create", "--name", "two", "small:1", "true").out.strip()
    with Rpc(instance.socket) as rpc:
        assert set(rpc.call("container.list", all=True)) == {"containers"}

        def ask(known, **more):
            """Of one that does not run: "Up 3 seconds" changes by itself."""
            one = rpc.call("container.list", known=known, all=True, ids=[two], **more)
            assert one.get("unchanged", False) == (not one["containers"]) == (one["edition"] == known), one
            return one

        first = ask("")
        assert [one["names"] for one in first["containers"]] == [["two"]], first
        assert ask(first["edition"]).get("unchanged"), "the same list"
        assert ask(first["edition"], details=True)["containers"][0]["details"], "another question"
        second = ask(first["edition"])
        assert second["containers"] == first["containers"], "the same again, which nobody has kept"
        docker("rename", "two", "zwei")
        assert ask(second["edition"])["containers"][0]["names"] == ["zwei"]
        assert "edition" not in rpc.call("container.list", known="", size=True), "with sizes"
        assert rpc.call("container.list", known="nonsense")["containers"]
    # Each at a time of its own, and the status, which time alone changes.
    seen = set()
    for _ in range(3):
        assert {one["Names"][0] for one in docker.ask("GET", "/containers/json?all=1")[1]} == {"/one", "/zwei"}
        [running] = docker.ask("GET", "/containers/json")[1]
        assert running["Names"] == ["/one"]
        seen.add(running["Status"])
        time.sleep(1.1)
    assert len(seen) == 3, seen
    docker("rm", "-f", "one", "zwei")


@test
def events_end_with_their_time_and_are_those_asked_for(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("network", "create", "near")
    docker("volume", "create", "data")
    docker("run", "--rm", "--network", "near", "-v", "data:/d", "small:1", "true")
    for _ in range(60):
        docker.ask("POST", "/volumes/create", {"Name": "many"})
        docker.ask("DELETE", "/volumes/many")

    def events(more, since="since=1&"):
        path = f"/v1.41/events?{since}until={time.time():.6f}&{more}"
        answer = docker.raw(f"GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode(), end=False)
        return [json.loads(line) for line in answer.decode().splitlines() if line.startswith("{")]
    whole = events("")
    assert len([event for event in whole if event["Actor"]["ID"] == "many"]) >= 120, len(whole)
    assert len(events("", since="since=0&")) >= len(whole) and len(events("", since="")) >= len(whole)
    assert {event["Type"] for event in events(filters(network="near"))} == {"network"}
    assert {event["Actor"]["ID"] for event in events(filters(volume="data"))} == {"data"}
    # On a connection that goes on nothing is told twice.
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(docker.path)
        sock.settimeout(60)
        counts = []
        for until in (time.time(), time.time() + 0.5):
            sock.sendall(f"GET /v1.41/events?since=1&until={until:.6f}&{filters(network='near')} HTTP/1.1\r\n"
                         "Host: d\r\n\r\n".encode())
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                part = sock.recv(65536)
                assert part, data
                data += part
            counts.append(data.count(b'"Type":"network"'))
        assert counts[0] == counts[1] > 0, counts
    docker("network", "rm", "near")
    docker("volume", "rm", "data")


@test
def a_followed_log_ends_at_its_time(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "one", "small:1", "sh", "-c", "echo first; sleep 1000")
    docker("run", "-d", "--name", "two", "small:1", "sh", "-c", "while :; do echo word; sleep 0.1; done")
    for name in ("one", "two"):
        wait_for(lambda: docker("logs", name).out, what="something is said")
        until = time.time() + 1
        out = docker("logs", "-f", "--until", f"{until:.6f}", "-t", name, timeout=60).out.splitlines()
        assert out and time.time() >= until, (name, out)
    assert docker("logs", "--until", "2001-01-01T00:00:00", "two").out == ""
    # Details stand before the line, also where there are none.
    for client in docker, instance.cloche:
        assert client("logs", "--details", "one").out == " first\n"
        assert client("logs", "--details", "-t", "one").out.endswith("Z  first\n")
    docker("rm", "-f", "one", "two")


@test
def details_of_a_log_are_what_its_options_name(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    for name, options, expected in (
            ("both", ["labels=com.a,com.a-b,none", "env=V,W,X"], "V=1%2C2,W=,com.a=a+b%C3%A9,com.a-b=~x"),
            ("env", ["env=V"], "V=1%2C2"), ("one", ["env=com.a", "labels=com.a"], "com.a=a+b%C3%A9"), ("none", [], "")):
        words = [word for option in options for word in ("--log-opt", option)]
        made = docker("run", "--name", name, "-l", "com.a=a b\u00e9", "-l", "com.a-b=~x", "-e", "V=1,2", "-e", "W=",
                      *words, "small:1", "sh", "-c", "printf part; sleep 0.1; echo s; echo second")
        assert not made.err, made
        for client in docker, instance.cloche:
            lines = client("logs", "--details", name).out.splitlines()
            assert lines == [f"{expected} parts", f"{expected} second"], (client, lines)
            line = client("logs", "--details", "-t", name).out.splitlines()[0]
            assert line.split("Z ", 1)[1] == f"{expected} parts", line
            assert client("logs", name).out == "parts\nsecond\n"
    docker("rm", "both", "env", "one", "none")


@test
def what_changes_the_meaning_is_not_left_out_in_silence(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    dockerfile = "FROM small:1\nRUN echo 1 > /one\nRUN echo 2 > /two\n"
    docker("build", "-t", "made:1", "-", input=dockerfile)

    def pruned(wanted):
        status, answer = docker.ask("POST", f"/build/prune?all=1&{wanted}")
        return status, answer.get("CachesDeleted")
    assert pruned(filters(until="24h")) == (200, None)
    assert pruned(filters(label="x")) == (200, None)
    assert pruned(filters(type="exec.cachemount"))[0] == 400
    out = docker("build", "-t", "made:1", "-", input=dockerfile).out
    assert out.count("Using cache") == 2, out
    for method, path, body, status in (
            ("POST", "/networks/create", {"Name": "net", "ConfigOnly": True}, 501),
            ("POST", "/networks/create", {"Name": "net", "ConfigFrom": {"Network": "other"}}, 501),
            ("POST", "/networks/create", {"Name": "netx", "ConfigFrom": {"Network": ""}}, 201),
            ("POST", '/build?outputs=[{"Type":"local"}]', None, 501),
            ("GET", "/images/search?term=x&limit=101", None, 400),
            ("GET", "/images/search?term=x&" + filters(stars="many"), None, 400),
            ("GET", "/containers/json?all=1&" + filters(**{"is-task": "true"}), None, 200),
            ("POST", "/containers/nobody/start?checkpoint=x", None, 400),
            ("GET", "/plugins", None, 200),
            ("GET", "/swarm", None, 503),
            ("GET", "/services", None, 503)):
        assert docker.ask(method, path.replace('"', "%22"), body)[0] == status, (method, path)
    assert docker.ask("GET", "/nodes")[1]["message"].startswith("This node is not a swarm manager. Use")
    docker("network", "rm", "netx")


@test
def the_machine_is_told_in_dockers_words(instance, images, scratch):
    (scratch / "cloched.conf").write_text(json.dumps({"registries": {"proxy": "http://u:secret@proxy.lan:1", "hosts": {
        "docker.io": {"mirrors": ["https://mirror.lan"]}, "shop.lan:5000": {"plainHttp": True}}}}))
    instance.env["CLOCHE_CONFIG"] = str(scratch / "cloched.conf")
    docker = Docker(instance)
    info = docker.ask("GET", "/info")[1]
    registries = info["RegistryConfig"]
    assert registries["Mirrors"] == ["https://mirror.lan"], registries
    assert registries["IndexConfigs"] == {
        "docker.io": {"Name": "docker.io", "Mirrors": ["https://mirror.lan"], "Secure": True, "Official": True},
        "shop.lan:5000": {"Name": "shop.lan:5000", "Mirrors": [], "Secure": False, "Official": False}}, registries
    assert info["HttpProxy"] == info["HttpsProxy"] == "http://proxy.lan:1", info
    assert "name=seccomp,profile=default" in info["SecurityOptions"], info
    out = docker("info").out
    assert "Registry Mirrors:" in out and "https://mirror.lan" in out and "Profile: default" in out, out
    assert "shop.lan:5000" in out, out


@test
def an_inspected_container_has_its_sizes_volumes_and_namespace(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "one", "-v", "/vol", "small:1", "sh", "-c", "head -c 100000 /dev/zero > /made; sleep 1000")
    found = docker.ask("GET", "/containers/one/json")[1]
    assert "SizeRw" not in found and found["Config"]["Volumes"] == {"/vol": {}}, found
    settings = found["NetworkSettings"]
    assert settings["SandboxKey"] == f"/proc/{found['State']['Pid']}/ns/net", settings
    assert settings["EndpointID"] == settings["Networks"]["bridge"]["EndpointID"], settings
    wait_for(lambda: docker.ask("GET", "/containers/one/json?size=1")[1]["SizeRw"] >= 100000, what="it is written")
    assert docker.ask("GET", "/containers/one/json?size=true")[1]["SizeRootFs"] > 100000
    docker("rm", "-f", "-v", "one")


@test
def only_what_was_asked_for_of_the_usage_is_counted(instance, images):
    docker = Docker(instance)
    for query, wanted in (("", {"Images", "Containers", "Volumes", "BuildCache", "LayersSize"}),
                          ("?type=image", {"Images", "LayersSize"}), ("?type=volume&type=container", {"Volumes", "Containers"})):
        found = set(docker.ask("GET", "/system/df" + query)[1]) - {"BuilderSize"}
        assert found == wanted, (query, found)
    assert docker.ask("GET", "/system/df?type=else")[0] == 400
    docker("load", "-i", images.small("small:1"))
    docker("tag", "small:1", "again:1")
    docker("create", "--name", "counted", "-l", "a=b", "-v", "data:/data", "small:1")
    usage = docker.ask("GET", "/system/df")[1]
    listed = docker.ask("GET", "/containers/json?all=1&size=1")[1]
    assert usage["Containers"] == listed and listed[0]["Mounts"][0]["Name"] == "data", (usage, listed)
    image = [image for image in usage["Images"] if "small:1" in image["RepoTags"]]
    assert len(image) == 1 and image[0]["Containers"] == 1 and image[0]["Labels"] is None, usage["Images"]
    docker("rm", "-v", "counted")
    docker("volume", "rm", "data")
    docker("rmi", "again:1")
    docker("build", "-t", "child:1", "-", input="FROM small:1\nRUN touch /a\nLABEL a=b\n")
    shared = docker.ask("GET", "/images/json?shared-size=1")[1]
    sizes = {image["RepoTags"][0]: (image["SharedSize"], image["Labels"]) for image in shared if image["RepoTags"]}
    assert sizes["child:1"][0] == sizes["small:1"][0] > 0 and sizes["child:1"][1] == {"a": "b"}, shared
    assert all(image["SharedSize"] == -1 for image in docker.ask("GET", "/images/json")[1])
    old = docker.ask("GET", "/images/json?shared-size=1", version="/v1.41")[1]
    assert all(image["SharedSize"] == -1 for image in old), old


@test
def what_cannot_start_is_gone_when_its_failure_is_told(instance, images):
    """The command line lets go of its wait for the end with the failure, and complains when it had no answer."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    for words, code in ((["/not/there"], 127), (["/etc"], 126)):
        result = docker("run", "--rm", "--name", "gone", "small:1", *words, code=code)
        assert "error waiting" not in result.err, result
    made = docker.ask("POST", "/containers/create?name=gone", {
        "Image": "small:1", "Cmd": ["/not/there"], "HostConfig": {"AutoRemove": True}})[1]["Id"]
    status, failure = docker.ask("POST", "/containers/gone/start")
    assert status == 400 and "/not/there" in failure["message"], (status, failure)
    assert docker.ask("GET", f"/containers/{made}/json")[0] == 404
    # One that stays tells its code.
    assert docker("run", "--name", "stays", "small:1", "/not/there", code=127).code == 127
    assert docker.ask("GET", "/containers/stays/json")[1]["State"]["ExitCode"] == 127
    docker("rm", "stays")


@test
def a_list_shows_commands_as_one_would_type_them(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("create", "--name", "one", "small:1", "sh", "-c", "echo a; sleep 1", "x")
    docker("create", "--name", "two", "small:1", "a program", "b")
    commands = [one["Command"] for one in docker.ask("GET", "/containers/json?all=1")[1]]
    assert commands == ["a program b", "sh -c 'echo a; sleep 1' x"], commands
    docker("rm", "one", "two")


@test
def inspect_shows_what_applies_where_nothing_was_said(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "plain", "small:1", "sleep", "1000")
    docker("create", "--name", "open", "--privileged", "small:1")
    docker("create", "--name", "bare", "--security-opt", "systempaths=unconfined", "small:1")
    config = docker.ask("GET", "/containers/plain/json")[1]["HostConfig"]
    assert "/proc/kcore" in config["MaskedPaths"] and "/proc/sys" in config["ReadonlyPaths"], config
    # And that is what it has.
    assert docker("exec", "plain", "ls", "/sys/firmware").out == ""
    config = docker.ask("GET", "/containers/open/json")[1]["HostConfig"]
    assert config["MaskedPaths"] is None and config["ReadonlyPaths"] is None, config
    config = docker.ask("GET", "/containers/bare/json")[1]["HostConfig"]
    assert not config["MaskedPaths"] and not config["ReadonlyPaths"], config
    # Of an exec that is not started yet the list tells, too, and of one that has ended no more.
    session = docker.ask("POST", "/containers/plain/exec", {"Cmd": ["true"]})[1]["Id"]
    assert docker.ask("GET", "/containers/plain/json")[1]["ExecIDs"] == [session]
    docker.ask("POST", f"/exec/{session}/start", {"Detach": True})
    wait_for(lambda: docker.ask("GET", "/containers/plain/json")[1]["ExecIDs"] is None, what="the exec ends")
    session = docker.ask("POST", "/containers/plain/exec", {"Cmd": ["/not/there"]})[1]["Id"]
    docker.ask("POST", f"/exec/{session}/start", {"Detach": True})
    wait_for(lambda: docker.ask("GET", "/containers/plain/json")[1]["ExecIDs"] is None, what="the exec fails")
    docker("rm", "-f", "plain", "open", "bare")
    assert "Images" in docker.ask("GET", "/system/df?type=volume", version="/v1.41")[1]


@test
def only_a_missing_image_is_not_found_when_a_container_is_made(instance, images):
    """The command line pulls the image whatever else was not found."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    create = lambda **host: docker.ask("POST", "/containers/create", {"Image": "small:1", "HostConfig": host})
    assert docker.ask("POST", "/containers/create", {"Image": "nothing"})[0] == 404
    assert docker.ask("POST", "/containers/create", {"Cmd": ["true"]})[0] == 400
    for host in ({"VolumesFrom": ["nobody"]}, {"PidMode": "container:nobody"}, {"IpcMode": "container:nobody"}):
        assert create(**host) == (400, {"message": "No such container: nobody"}), host
    result = docker("run", "--rm", "--volumes-from", "nobody", "small:1", "true", code=125)
    assert "Unable to find image" not in result.err, result


@test
def a_commit_takes_the_configuration_that_comes_along(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("create", "--name", "one", "-e", "KEPT=1", "small:1", "true")
    wanted = {"Cmd": ["echo", "a b"], "Env": ["A=x y", 'B="$HOME"\\'], "Labels": {"la bel": "it's"}, "User": "7",
              "WorkingDir": "/tmp", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/a b": {}}}
    status, answer = docker.ask("POST", "/commit?container=one&repo=made&changes=USER%209", wanted)
    assert status == 201, answer
    config = docker.ask("GET", f"/images/{answer['Id']}/json")[1]["Config"]
    for key in ("Cmd", "WorkingDir", "ExposedPorts", "Volumes", "Labels"):
        assert config[key] == wanted[key], (key, config)
    assert config["User"] == "9" and set(wanted["Env"]) | {"KEPT=1"} <= set(config["Env"]), config
    docker("rm", "one")
    docker("rmi", "made")


@test
def who_attaches_and_leaves_takes_no_place(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("create", "--name", "one", "small:1", "sh", "-c", "echo hello; sleep 1000")
    attach = b"POST /containers/one/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    for _ in range(80):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(docker.path)
            sock.sendall(attach)
            assert b"101" in sock.recv(4096)
    docker("start", "one")
    docker("pause", "one")
    status, answer = docker.ask("POST", "/containers/one/attach?stream=1&stdout=1")
    assert status == 409 and "is paused, unpause the container before attach" in answer["message"], answer
    docker("rm", "-f", "one")


@test
def a_build_whose_daemon_dies_has_failed(instance, images, scratch):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    (scratch / "Dockerfile").write_text("FROM small:1\nRUN echo begun; sleep 1000\n")
    client = docker.start("build", "-t", "half:1", str(scratch))
    wait_for(lambda: b"begun" in client.stdout.readline(), what="the build is under way")
    os.kill(instance.daemon_pid(), signal.SIGKILL)
    try:
        client.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        client.kill()
        raise
    assert client.returncode != 0
    # What it ran in goes with it, also where it had not begun; what a build left on purpose stays.
    wait_for(lambda: not instance.cloche("ps", "-aq").out, what="the next daemon removes the step's container")
    docker("build", "--rm=false", "-t", "kept:1", "-", input="FROM small:1\nRUN true\n")
    kept = instance.cloche("ps", "-aq", "--no-trunc").out.strip()
    created = instance.cloche("create", "small:1", "true").out.strip()
    instance.kill_daemon()
    with contextlib.closing(sqlite3.connect(instance.root / "state.db", timeout=60)) as database:
        marked = database.execute("UPDATE engine_containers SET record = json_set(record, '$.buildStep', json('true')) "
                                  "WHERE id = ?", (created,)).rowcount
        database.commit()
    assert marked == 1
    wait_for(lambda: instance.cloche("ps", "-aq", "--no-trunc").out.split() == [kept], what="only what was kept is left")
    instance.cloche("rm", kept)


if __name__ == "__main__":
    sys.exit(main())
