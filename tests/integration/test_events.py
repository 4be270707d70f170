#!/usr/bin/env python3
"""What the engine tells of what happens: its names and attributes are docker's."""

import json
import re
import signal
import subprocess
import time

from harness import main, test, wait_for
from raw_rpc import Rpc

IMAGE = "small:1"


def load(instance, images, **options):
    instance.cloche("load", "-q", "-i", images.small(IMAGE, **options))


def events(instance, *options, code=0):
    """What has happened so far, as JSON."""
    result = instance.cloche("events", "--since", "1h", "--until", "0s", "--format", "json", *options,
                             code=code)
    return [json.loads(line) for line in result.lines]


def subscriptions(instance):
    """How many calls of events.subscribe the daemon has answered."""
    with Rpc(instance.socket) as rpc:
        methods = rpc.call("rpc.stats")["methods"]
    return sum(method["calls"] - method["inFlight"] for method in methods if method["method"] == "events.subscribe")


def told(instance, *options):
    return [f"{event['Type']} {event['Action']}" for event in events(instance, *options)]


@test
def the_life_of_a_container_is_told_in_its_order(instance, images):
    load(instance, images)
    instance.cloche("run", "--rm", "--name", "till", "--label", "shop=7", IMAGE, "sh", "-c", "exit 3",
                    code=3)
    happened = events(instance, "--filter", "type=container", "--filter", "type=network")
    actions = [f"{event['Type']} {event['Action']}" for event in happened]
    life = ["container create", "container attach", "network connect", "container start",
            "container die", "network disconnect", "container destroy"]
    assert actions[-7:] == life, actions
    die = next(event for event in happened if event["Action"] == "die")
    assert die["Actor"]["Attributes"] == {"name": "till", "image": IMAGE, "shop": "7", "exitCode": "3",
                                          "execDuration": die["Actor"]["Attributes"]["execDuration"]}, die
    assert die["Actor"]["Attributes"]["execDuration"].isdigit()
    assert die["status"] == "die" and die["from"] == IMAGE and die["scope"] == "local"
    assert die["id"] == die["Actor"]["ID"] and len(die["id"]) == 64
    times = [event["timeNano"] for event in happened]
    assert times == sorted(times) and abs(times[-1] / 1e9 - time.time()) < 600
    connect = happened[actions.index("network connect")]
    assert connect["Actor"]["Attributes"] == {"container": die["id"], "name": "bridge", "type": "bridge"}


@test
def volumes_are_told_of_when_they_are_mounted(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "box", "-v", "kept:/kept", "-v", "read:/read:ro", "-v", "/tmp:/tmp", IMAGE,
                    "sleep", "1000")
    instance.cloche("rm", "-f", "box")
    happened = [event for event in events(instance) if event["Type"] in ("container", "volume", "network")]
    actions = [f"{event['Type']} {event['Action']}" for event in happened]
    start = actions.index("container start")
    assert actions[start - 3:start] == ["volume mount", "volume mount", "network connect"], actions
    end = actions.index("network disconnect")
    assert actions[end + 1:end + 3] == ["volume unmount"] * 2, actions
    box = happened[start]["Actor"]["ID"]
    told_of = {(event["Action"], event["Actor"]["ID"]): event["Actor"]["Attributes"] for event in happened}
    for name, writable in ("kept", "true"), ("read", "false"):
        assert told_of["create", name] == {"driver": "local"}, told_of
        assert told_of["mount", name] == {"driver": "local", "container": box, "destination": f"/{name}",
                                          "propagation": "", "read/write": writable}, told_of
        assert told_of["unmount", name] == {"driver": "local", "container": box}, told_of
    assert told(instance, "--filter", "volume=kept") == ["volume create", "volume mount", "volume unmount"]
    line = instance.cloche("events", "--since", "1h", "--until", "0s", "--filter", "event=mount",
                           "--filter", "volume=read").out
    assert line.endswith(f" volume mount read (container={box}, destination=/read, driver=local, propagation=, "
                         "read/write=false)\n"), line


@test
def what_is_done_to_a_container_is_told(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    instance.cloche("exec", "box", "sh", "-c", "exit 5", code=5)
    instance.cloche("kill", "-s", "USR1", "box")
    instance.cloche("commit", "-m", "as it is", "box", "small:2")
    instance.cloche("restart", "-t", "0", "box")
    instance.cloche("rm", "-f", "box")
    happened = events(instance, "--filter", "container=box")
    actions = [event["Action"].split(":")[0] for event in happened]
    for expected in ("create", "start", "exec_create", "exec_start", "exec_die", "kill", "pause", "unpause",
                     "commit", "stop", "die", "destroy"):
        assert expected in actions, (expected, actions)
    assert actions[-1] == "destroy" and actions[-2] == "die", actions

    def attributes(action, number=0):
        return [event for event in happened if event["Action"].startswith(action)][number]["Actor"]["Attributes"]
    assert attributes("exec_die")["exitCode"] == "5"
    assert attributes("exec_die")["execID"] == attributes("exec_start")["execID"]
    assert [event["Action"] for event in happened if event["Action"].startswith("exec_create")] == \
        ["exec_create: sh -c exit 5"]
    assert attributes("kill")["signal"] == "10" and attributes("kill", -1)["signal"] == "9"
    assert attributes("commit")["imageRef"] == "small:2" and attributes("commit")["comment"] == "as it is"


@test
def looks_and_copies_are_told(instance, images, scratch):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "box", "--label", "shop=7", IMAGE, "sleep", "1000")
    instance.cloche("top", "box")
    instance.cloche("cp", "box:/etc/passwd", scratch / "passwd")
    instance.cloche("cp", scratch / "passwd", "box:/copy")
    instance.cloche("export", "-o", scratch / "out.tar", "box")
    instance.cloche("cp", "box:/no/such", scratch / "x", code=1)
    happened = [event for event in events(instance, "--filter", "container=box")
                if event["Action"] in ("top", "archive-path", "extract-to-dir", "export")]
    assert [event["Action"] for event in happened] == ["top", "archive-path", "extract-to-dir", "export"], happened
    assert all(event["Actor"]["Attributes"] == {"image": IMAGE, "name": "box", "shop": "7"} for event in happened)
    instance.cloche("rm", "-f", "box")


@test
def parting_by_keys_is_told(instance, images):
    load(instance, images)
    with instance.terminal("run", "-it", "--name", "box", IMAGE, "sh") as terminal:
        terminal.send("echo be''gun\n")
        terminal.expect("begun")
        terminal.send("\x10\x11")
        terminal.wait()
    with instance.terminal("exec", "-it", "box", "sh") as terminal:
        terminal.send("echo be''gun\n")
        terminal.expect("begun")
        terminal.send("\x10\x11")
        terminal.wait()
    wait_for(lambda: "container exec_detach" in told(instance))
    happened = events(instance, "--filter", "container=box", "--filter", "event=detach", "--filter",
                      "event=exec_detach", "--filter", "event=exec_create")
    assert [event["Action"].split(":")[0] for event in happened] == ["detach", "exec_create", "exec_detach"], happened
    assert happened[2]["Actor"]["Attributes"]["execID"] == happened[1]["Actor"]["Attributes"]["execID"]
    instance.cloche("rm", "-f", "box")


@test
def what_nobody_uses_is_told_when_it_goes(instance, images):
    load(instance, images)
    instance.cloche("create", "--name", "old", IMAGE, "true")
    instance.cloche("volume", "create", "spare")
    instance.cloche("network", "create", "spare")
    instance.cloche("container", "prune", "-f")
    instance.cloche("volume", "prune", "-af")
    instance.cloche("network", "prune", "-f")
    instance.cloche("image", "prune", "-af")
    instance.cloche("builder", "prune", "-f")
    happened = events(instance, "--filter", "event=prune")
    assert [event["Type"] for event in happened] == ["container", "volume", "network", "image", "builder"], happened
    assert all(list(event["Actor"]["Attributes"]) == ["reclaimed"] and event["Actor"]["ID"] == "" for event in happened)
    assert int(happened[3]["Actor"]["Attributes"]["reclaimed"]) > 100000 and \
        happened[2]["Actor"]["Attributes"]["reclaimed"] == "0", happened
    lines = instance.cloche("events", "--since", "1h", "--until", "0s", "--filter", "event=prune").lines
    assert lines[2].endswith(" network prune  (reclaimed=0)"), lines


@test
def ends_that_nobody_asked_for_are_told(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "eater", "-m", "16m", IMAGE, "sh", "-c", "x=a; while :; do x=$x$x; done",
                    code=137)
    assert told(instance, "--filter", "container=eater", "--filter", "event=oom", "--filter", "event=die") == \
        ["container oom", "container die"]
    instance.cloche("run", "--name", "lost", IMAGE, "/no/such/program", code=127)
    assert events(instance, "--filter", "container=lost")[-1]["Actor"]["Attributes"]["exitCode"] == "127"
    assert "container start" not in told(instance, "--filter", "container=lost")


@test
def images_are_told(instance, images, scratch):
    load(instance, images)
    instance.cloche("tag", IMAGE, "other:7")
    instance.cloche("save", "-o", scratch / "out.tar", "other:7")
    instance.cloche("rmi", "other:7")
    instance.cloche("rmi", IMAGE)
    happened = [(event["Action"], event["Actor"]["Attributes"]["name"])
                for event in events(instance, "--filter", "type=image")]
    ids = {event["Actor"]["ID"] for event in events(instance, "--filter", "type=image")}
    assert len(ids) == 1 and ids.pop().startswith("sha256:"), ids
    assert [name for name in happened[:-1]] == [("load", IMAGE), ("tag", "other:7"), ("save", "other:7"),
                                                ("untag", "other:7"), ("untag", IMAGE)], happened
    assert happened[-1][0] == "delete", happened
    instance.cloche("rmi", "none:1", code=1)
    assert len(events(instance, "--filter", "type=image")) == 6, "a failure is no event"


@test
def filters_are_docker_s(instance, images):
    load(instance, images)
    for name, label in (("one", "a=1"), ("two", "a=2")):
        instance.cloche("run", "--rm", "--name", name, "--label", label, "--label", "b", IMAGE, "true")
    start = ("--filter", "event=start")

    def names(*filters):
        return [event["Actor"]["Attributes"]["name"] for event in events(instance, *start, *filters)]
    assert names() == ["cloched", "one", "two"]
    assert names("--filter", "type=container") == ["one", "two"]
    assert names("--filter", "container=one") == ["one"]
    assert names("--filter", "container=one", "--filter", "container=two") == ["one", "two"]
    assert names("--filter", "label=a=2") == ["two"]
    assert names("--filter", "label=b", "--filter", "label=a=1") == ["one"]
    assert names("--filter", "label=a=1", "--filter", "label=a=2") == [], "labels all count"
    assert names("--filter", "image=small") == names("--filter", f"image={IMAGE}") == ["one", "two"]
    assert names("--filter", "image=smal") == []
    identifier = events(instance, *start, "--filter", "container=two")[0]["Actor"]["ID"]
    assert names("--filter", f"container={identifier[:12]}") == ["two"]
    assert told(instance, "--filter", "network=bridge", "--filter", "event=connect") == ["network connect"] * 2
    assert told(instance, "--filter", "network=other") == [] == told(instance, "--filter", "volume=any")
    assert told(instance, "--filter", "daemon=cloched", "--filter", "scope=local") == ["daemon start"]
    assert "invalid filter 'colour'" in instance.cloche("events", "--filter", "colour=red", code=1).err
    assert "name=value" in instance.cloche("events", "--filter", "type", code=1).err


@test
def lines_and_templates(instance, images):
    load(instance, images)
    instance.cloche("run", "--rm", "--name", "till", "--label", "a=1", IMAGE, "true")
    past = ("events", "--since", "1h", "--until", "0s", "--filter", "event=die")
    line = instance.cloche(*past, env={"TZ": "UTC"}).out
    words = line.split(" ", 4)
    assert words[0].endswith("Z") and len(words[0]) == len("2026-11-20T10:00:00.123456789Z"), line
    assert words[1:3] == ["container", "die"] and len(words[3]) == 64, line
    assert re.fullmatch(rf"\(a=1, execDuration=\d+, exitCode=0, image={IMAGE}, name=till\)\n", words[4]), line
    assert "+05:30 container die" in instance.cloche(*past, env={"TZ": "IST-5:30"}).out
    template = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.From}} {{.Scope}}"
    assert instance.cloche(*past, "--format", template).out == f"container die till {IMAGE} local\n"
    assert "no entry" in instance.cloche("events", "--format", "{{.Nonsense}}", code=1).err
    assert "neither a time" in instance.cloche("events", "--since", "yesterday", code=1).err


@test
def what_comes_is_shown_as_it_comes_until_the_end(instance, images):
    load(instance, images)
    before = subscriptions(instance)
    with instance.start("events", "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}") as live:
        wait_for(lambda: subscriptions(instance) == before + 1, what="it has subscribed")
        instance.cloche("run", "--rm", "--name", "first", IMAGE, "true")
        assert live.stdout.readline() == b"first\n", "live, not at the end of a buffer"
        live.kill()
    # Time for a container on this machine as it is.
    began = time.monotonic()
    instance.cloche("run", "--rm", "--name", "measured", IMAGE, "true")
    until = time.time() + 2 + 8 * (time.monotonic() - began)
    with instance.start("events", "--since", "1h", "--until", f"{until:.3f}", "--filter", "type=container",
                        "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}") as live:
        instance.cloche("run", "--rm", "--name", "second", IMAGE, "true")
        assert live.communicate(timeout=60)[0] == b"first\nmeasured\nsecond\n"
        assert live.returncode == 0 and time.time() >= until
    before = subscriptions(instance)
    with instance.start("events") as live:
        wait_for(lambda: subscriptions(instance) > before, what="it has subscribed")
        instance.kill_daemon()
        instance.cloche("run", "--rm", "--name", "third", IMAGE, "true")
        line = live.stdout.readline()
        while b"third" not in line:
            assert line, live.stderr.read()
            line = live.stdout.readline()
        live.kill()
        told = live.communicate(timeout=60)[1]
        assert b"waited for" in told and b"started again" in told, told


@test
def subscribers_go_on_where_they_were(instance, images):
    load(instance, images)
    instance.start_daemon()
    with Rpc(instance.socket) as rpc:
        subscribed = rpc.call("events.subscribe", filters={"type": ["container"]})
        instance.cloche("run", "--rm", "--name", "one", IMAGE, "true")
        rpc.events_until("destroy")
    instance.cloche("run", "--rm", "--name", "two", IMAGE, "true")
    with Rpc(instance.socket) as rpc:
        again = rpc.call("events.subscribe", filters={"type": ["container"]}, since=subscribed["next"],
                         boot=subscribed["boot"])
        numbers, names = [], set()
        while names != {"one", "two"} or event["action"] != "destroy":
            number, event = rpc.event()
            numbers.append(number)
            names.add(event["name"])
        assert numbers == sorted(set(numbers)) and numbers[0] >= subscribed["next"], numbers
        assert again["next"] == numbers[-1] + 1
        done = rpc.call("events.unsubscribe", subscription=again["subscription"])
        assert done["next"] == numbers[-1] + 1
        assert rpc.fails("events.unsubscribe", subscription=again["subscription"]).code == -1


@test
def a_new_daemon_tells_that_it_is_one_and_what_it_found(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    with Rpc(instance.socket) as rpc:
        old = rpc.call("events.subscribe")
    pid = json.loads(instance.cloche("inspect", "box").out)[0]["State"]["Pid"]
    instance.kill_daemon()
    subprocess.run(["kill", "-TERM", str(pid)], check=True)
    subprocess.run(["kill", "-KILL", str(pid)], check=False)
    instance.start_daemon()
    with Rpc(instance.socket) as rpc:
        new = rpc.call("events.subscribe", since=old["next"], boot=old["boot"])
        assert new["boot"] != old["boot"]
        lost = rpc.notice()
        assert lost["method"] == "events.lost" and lost["params"]["reason"] == "restarted", lost
        number, event = rpc.event()
        assert (number, event["type"], event["action"]) == (1, "daemon", "start"), event
        assert event["id"] == new["boot"]
        died = rpc.events_until("die")[-1]
        assert died["name"] == "box" and died["attributes"]["exitCode"] == "137", died


@test
def the_past_comes_in_pages(instance, images):
    load(instance, images)
    instance.cloche("run", "--rm", IMAGE, "true")
    instance.cloche("run", "--rm", IMAGE, "true")
    with Rpc(instance.socket) as rpc:
        whole = rpc.call("events.list")
        assert whole["more"] is False and whole["oldest"] == 1
        numbers = [event["sequence"] for event in whole["events"]]
        assert numbers == list(range(1, whole["next"])), numbers
        pages, since = [], 0
        while True:
            page = rpc.call("events.list", since=since, limit=3)
            assert len(page["events"]) <= 3
            pages += page["events"]
            since = page["next"]
            if not page["more"]:
                break
        assert pages == whole["events"]
        assert rpc.fails("events.list", limit=0).code == -32602
        middle = whole["events"][4]["event"]["time"]
        before = rpc.call("events.list", untilTime=middle)["events"]
        after = rpc.call("events.list", sinceTime=middle)["events"]
        assert before + after == whole["events"] and len(before) == 4


if __name__ == "__main__":
    main()
