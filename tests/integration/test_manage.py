#!/usr/bin/env python3
"""What is done with containers and images that are there: methods of operations.json."""

import json
import time

from harness import main, test, wait_for
from raw_rpc import Rpc, RpcError

IMAGE = "small:1"
NOT_FOUND, CONFLICT, INVALID = -1, -2, -3


def load(instance, images, **options):
    instance.cloche("load", "-q", "-i", images.small(IMAGE, **options))


def sleeper(instance, name, *options, image="host"):
    """A container that counts for ever."""
    return instance.cloche("run", "-d", "--name", name, *options, image, "sh", "-c",
                           "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done").out.strip()


def refused(rpc, code, method, **params):
    """The error that comes instead of an answer."""
    try:
        answer = rpc.call(method, **params)
    except RpcError as error:
        assert error.code == code, (method, params, str(error))
        return error
    raise AssertionError(f"{method} {params} answered {answer}")


def state(rpc, name):
    return rpc.call("container.inspect", container=name)["state"]["status"]


def names(rpc, **which):
    return [one["names"][0] for one in rpc.call("container.list", **which)["containers"]]


@test
def a_container_gets_another_name_and_keeps_it(instance):
    first = sleeper(instance, "till")
    instance.cloche("create", "--name", "other", "host", "true")
    with Rpc(instance.socket) as rpc:
        rpc.call("container.rename", container="till", name="/desk")
        assert rpc.call("container.inspect", container="desk")["id"] == first
        for method, further in ("inspect", {}), ("rename", {"name": "x" * 200}), ("pause", {}), ("unpause", {}), \
                ("restart", {}), ("top", {}), ("size", {}), ("execCreate", {"command": ["true"]}):
            refused(rpc, NOT_FOUND, f"container.{method}", container="till", **further)
        error = refused(rpc, CONFLICT, "container.rename", container="other", name="desk")
        assert first in error.message, error.message
        refused(rpc, INVALID, "container.rename", container="other", name="-no")
        refused(rpc, INVALID, "container.rename", container="other", name="other")
        rpc.call("container.rename", container="other", name="till")  # the old name is free
    instance.kill_daemon()
    with instance.cloche("ps", "-a", "--format", "{{.Names}}") and Rpc(instance.socket) as rpc:
        assert sorted(names(rpc, all=True)) == ["desk", "till"]
        assert rpc.call("container.inspect", container="desk")["state"]["running"]
    said = instance.cloche("events", "--since", "1h", "--until", "0s", "--format", "json")
    assert not said.err


@test
def paused_processes_stand_still_until_they_are_let_go(instance):
    sleeper(instance, "till")
    with Rpc(instance.socket) as rpc:
        wait_for(lambda: instance.cloche("logs", "till").out, what="the container writes")
        rpc.call("container.pause", container="till")
        assert state(rpc, "till") == "paused"
        written = instance.cloche("logs", "till").out
        time.sleep(0.3)
        assert instance.cloche("logs", "till").out == written
        assert "(Paused)" in instance.cloche("ps").out
        refused(rpc, CONFLICT, "container.pause", container="till")
        refused(rpc, CONFLICT, "container.start", container="till")
        refused(rpc, CONFLICT, "container.exec", container="till", command=["true"])
        assert rpc.call("system.info")["containersPaused"] == 1
    # The next daemon leaves it as it is.
    instance.kill_daemon()
    instance.cloche("ps")
    with Rpc(instance.socket) as rpc:
        assert state(rpc, "till") == "paused"
        written = instance.cloche("logs", "till").out
        rpc.call("container.unpause", container="till")
        assert state(rpc, "till") == "running"
        wait_for(lambda: instance.cloche("logs", "till").out != written, what="it goes on")
        refused(rpc, CONFLICT, "container.unpause", container="till")
        instance.cloche("stop", "till")
        refused(rpc, CONFLICT, "container.pause", container="till")


@test
def what_stands_still_can_be_ended(instance):
    for name in "stopped", "killed", "removed":
        sleeper(instance, name)
    with Rpc(instance.socket) as rpc:
        for name in "stopped", "killed", "removed":
            rpc.call("container.pause", container=name)
        rpc.call("container.stop", container="stopped", timeout=60)
        # It heard the signal, and was not killed.
        assert rpc.call("container.inspect", container="stopped")["state"]["exitCode"] == 0
        rpc.call("container.kill", container="killed")
        assert rpc.call("container.inspect", container="killed")["state"]["exitCode"] == 137
        rpc.call("container.remove", container="removed", force=True)
        refused(rpc, NOT_FOUND, "container.inspect", container="removed")


@test
def a_restart_ends_and_starts_the_same_container(instance):
    sleeper(instance, "till", "--rm")
    with Rpc(instance.socket) as rpc:
        before = rpc.call("container.inspect", container="till")
        rpc.call("container.restart", container="till", timeout=60)
        after = rpc.call("container.inspect", container="till")
        assert after["id"] == before["id"] and after["state"]["running"], after
        assert after["state"]["pid"] != before["state"]["pid"]
        assert after["state"]["startedAt"] > before["state"]["startedAt"]
        told = [one["event"]["action"] for one in rpc.call("events.list", filters={"container": ["till"]})["events"]]
        assert told[-5:] == ["kill", "die", "stop", "start", "restart"], told
        rpc.call("container.stop", container="till")
        wait_for(lambda: names(rpc, all=True) == [], what="--rm removes it when it has ended for good")
        # One that never ran is started.
        instance.cloche("create", "--name", "new", "host", "sleep", "1000")
        rpc.call("container.restart", container="new")
        assert state(rpc, "new") == "running"
        refused(rpc, INVALID, "container.restart", container="new", signal="NOSUCH")


@test
def top_shows_the_processes_of_the_container_only(instance):
    instance.cloche("run", "-d", "--name", "till", "host", "sh", "-c", "sleep 4711 & sleep 4712 & wait")
    sleeper(instance, "other")
    with Rpc(instance.socket) as rpc:
        wait_for(lambda: len(rpc.call("container.top", container="till")["processes"]) == 3, what="three processes run")
        table = rpc.call("container.top", container="till")
        assert table["titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], table
        rows = [dict(zip(table["titles"], row)) for row in table["processes"]]
        assert sorted(row["CMD"] for row in rows)[-2:] == ["sleep 4711", "sleep 4712"], rows
        shell = next(row for row in rows if row["CMD"].startswith("sh -c"))
        assert {row["PPID"] for row in rows if row["CMD"].startswith("sleep")} == {shell["PID"]}
        assert {row["UID"] for row in rows} == {"root"}
        by_ps = rpc.call("container.top", container="till", arguments=["-o", "pid,args"])
        assert by_ps["titles"] == ["PID", "COMMAND"], by_ps
        assert sorted(row[0] for row in by_ps["processes"]) == sorted(row["PID"] for row in rows)
        refused(rpc, INVALID, "container.top", container="till", arguments=["-o", "args"])
        refused(rpc, INVALID, "container.top", container="till", arguments=["--no-such-option"])
        instance.cloche("rm", "-f", "till")
        instance.cloche("create", "--name", "till", "host", "true")
        refused(rpc, CONFLICT, "container.top", container="till")


@test
def statistics_count_what_a_container_uses(instance):
    instance.cloche("run", "-d", "--name", "busy", "-m", "64m", "host", "sh", "-c", "while :; do :; done")
    instance.cloche("create", "--name", "idle", "host", "true")
    with Rpc(instance.socket) as rpc:
        def read():
            return rpc.call("container.stats", containers=["busy"])
        first = read()
        wait_for(lambda: read()["containers"][0]["cpu"]["totalUsage"] > first["containers"][0]["cpu"]["totalUsage"],
                 what="it uses the CPU")
        both = read()
        busy = both["containers"][0]
        assert both["time"] > first["time"] and both["systemUsage"] >= first["systemUsage"]
        assert both["onlineCpus"] >= 1 and abs(both["time"] / 1e9 - time.time()) < 600
        assert busy["memory"]["limit"] == 64 << 20 and 0 < busy["memory"]["usage"] <= 64 << 20, busy["memory"]
        assert busy["pids"]["current"] == 1, busy["pids"]
        assert [one["name"] for one in busy["networks"]] == ["eth0"], busy["networks"]
        assert {one["name"] for one in busy["memory"]["stats"]} > {"pgfault"}
        assert [one["name"] for one in rpc.call("container.stats")["containers"]] == ["busy"]
        everything = rpc.call("container.stats", all=True)["containers"]
        assert [one["name"] for one in everything] == ["idle", "busy"]
        assert "cpu" not in everything[0]
        refused(rpc, NOT_FOUND, "container.stats", containers=["nobody"])


@test
def lists_are_filtered(instance, images):
    load(instance, images)
    instance.cloche("create", "--name", "one", "--label", "role=till", "--label", "floor=1", "-p", "4711:80", IMAGE)
    instance.cloche("run", "--name", "two", "--label", "role=till", IMAGE, "sh", "-c", "exit 3", code=3)
    third = sleeper(instance, "three", "-v", "/srv:/data")
    with Rpc(instance.socket) as rpc:
        def listed(**filters):
            return names(rpc, all=True, filters=filters)
        assert listed() == ["three", "two", "one"]
        assert listed(name=["^t"]) == ["three", "two"] and listed(name=["^/one$"]) == ["one"]
        assert listed(id=["^" + third[:12]]) == ["three"]
        assert listed(label=["role"]) == ["two", "one"] and listed(label=["role=till", "floor=1"]) == ["one"]
        assert listed(label=["role=desk"]) == []
        assert listed(status=["exited", "running"]) == ["three", "two"]
        assert names(rpc, filters={"status": ["exited"]}) == ["two"]  # also without `all`
        assert listed(exited=[3]) == ["two"] and listed(exited=[4]) == []
        assert listed(ancestor=[IMAGE]) == ["two", "one"] and listed(ancestor=["host"]) == ["three"]
        assert listed(ancestor=["nothing"]) == []
        assert listed(before=["two"]) == ["one"] and listed(since=["one"]) == ["three", "two"]
        assert listed(publish=["4711"]) == ["one"] and listed(publish=["4000-4800/tcp"]) == ["one"]
        assert listed(publish=["4711/udp"]) == [] and listed(expose=["80"]) == ["one"]
        assert listed(volume=["/data"]) == ["three"] and listed(network=["bridge"]) == ["three", "two", "one"]
        assert listed(health=["none"], name=["one"]) == ["one"] and listed(health=["healthy"]) == []
        for filters in ({"status": ["upset"]}, {"name": ["a{1,9999}"]}, {"name": ["(a)\\1"]}, {"name": ["("]},
                        {"publish": ["x"]}, {"publish": ["90-80"]}, {"health": ["ill"]}):
            refused(rpc, INVALID, "container.list", filters=filters)
        refused(rpc, NOT_FOUND, "container.list", filters={"before": ["nobody"]})
        instance.cloche("exec", "three", "sh", "-c", "head -c 100000 /dev/zero > /root/file || head -c 100000 /dev/zero > /file")
        sized = rpc.call("container.list", ids=["three"], size=True)["containers"][0]
        assert 100000 <= sized["sizeRw"] < 200000 and sized["sizeRootFs"] >= sized["sizeRw"], sized
        assert rpc.call("container.size", container="three")["sizeRw"] == sized["sizeRw"]


@test
def exec_begins_in_two_steps(instance):
    sleeper(instance, "till")
    with Rpc(instance.socket) as rpc:
        prepared = rpc.call("container.execCreate", container="till", command=["sh", "-c", "exit 5"],
                            workingDir="/tmp", detachKeys="ctrl-x")["execId"]
        details = rpc.call("container.execInspect", execId=prepared)
        assert not details["started"] and "exitCode" not in details and details["detachKeys"] == "ctrl-x", details
        rpc.call("container.execStart", execId=prepared, detach=True)
        assert rpc.call("container.execWait", execId=prepared)["exitCode"] == 5
        details = rpc.call("container.execInspect", execId=prepared)
        assert details["exitCode"] == 5 and not details["running"] and details["workingDir"] == "/tmp", details
        refused(rpc, CONFLICT, "container.execStart", execId=prepared, detach=True)
        refused(rpc, NOT_FOUND, "container.execStart", execId="0" * 64)
        refused(rpc, NOT_FOUND, "container.execInspect", execId="0" * 64)
        missing = rpc.call("container.execCreate", container="till", command=["/no/such/program"])["execId"]
        refused(rpc, -6, "container.execStart", execId=missing, detach=True)
        assert rpc.call("container.execInspect", execId=missing)["exitCode"] == 127
        running = rpc.call("container.execCreate", container="till", command=["sleep", "1000"])["execId"]
        rpc.call("container.execStart", execId=running, detach=True)
        assert rpc.call("container.inspect", container="till")["execIds"] == [running]
        told = [one["event"]["action"] for one in rpc.call("events.list", filters={"container": ["till"]})["events"]]
        assert told[-6:] == ["exec_create", "exec_start", "exec_die", "exec_create", "exec_create", "exec_start"], told


@test
def prune_removes_what_nobody_uses(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "spare", IMAGE, "sh", "-c", "head -c 5000 /dev/zero > /spare")
    instance.cloche("commit", "spare", "spare:1")
    instance.cloche("rm", "spare")
    sleeper(instance, "runs")
    instance.cloche("run", "--name", "ended", "--label", "keep", IMAGE, "sh", "-c", "head -c 5000 /dev/zero > /file")
    instance.cloche("create", "--name", "new", IMAGE)
    with Rpc(instance.socket) as rpc:
        created = rpc.call("container.inspect", container="new")["id"]
        ended = rpc.call("container.inspect", container="ended")["id"]
        assert rpc.call("container.prune", filters={"until": 1}) == {"deleted": [], "spaceReclaimed": 0}
        assert rpc.call("container.prune", filters={"labelNot": ["keep"]})["deleted"] == [created]
        assert rpc.call("image.prune") == {"untagged": [], "deleted": [], "spaceReclaimed": 0}
        pruned = rpc.call("image.prune", all=True)
        assert pruned["untagged"] == ["spare:1"] and pruned["deleted"], pruned
        assert pruned["spaceReclaimed"] >= 5000, pruned
        pruned = rpc.call("container.prune", filters={"label": ["keep"]})
        assert pruned["deleted"] == [ended] and pruned["spaceReclaimed"] >= 5000, pruned
        assert names(rpc, all=True) == ["runs"]
        instance.cloche("commit", "runs", "twice:1")
        instance.cloche("commit", "runs", "twice:1")  # takes the name of the first one away
        assert len(rpc.call("image.list", filters={"dangling": True})["images"]) == 1
        assert len(rpc.call("image.prune")["deleted"]) > 0
        assert rpc.call("image.list", filters={"dangling": True})["images"] == []


@test
def images_are_listed_with_filters_and_tell_their_history(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "till", IMAGE, "sh", "-c", "head -c 5000 /dev/zero > /file")
    instance.cloche("commit", "-m", "a till", "--change", "LABEL role=till", "till", "shop:2")
    with Rpc(instance.socket) as rpc:
        def listed(**filters):
            return [name for one in rpc.call("image.list", filters=filters)["images"] for name in one["names"]]
        assert "shop:2" in listed(label=["role"]) and IMAGE not in listed(label=["role"])
        assert listed(reference=["sh*"]) == ["shop:2"] and listed(dangling=True) == []
        assert "shop:2" in listed(since=[IMAGE]) and IMAGE not in listed(since=[IMAGE])
        assert IMAGE in listed(before=["shop:2"]) and "shop:2" not in listed(before=["shop:2"])
        assert listed(until=1) == []
        refused(rpc, -8, "image.list", filters={"before": ["nothing"]})
        steps = rpc.call("image.history", image="shop:2")["steps"]
        assert steps[0]["comment"] == "a till" and steps[0]["size"] >= 5000, steps
        assert steps[0]["names"] == ["shop:2"] and steps[0]["id"].startswith("sha256:")
        assert len(steps) == len(rpc.call("image.history", image=IMAGE)["steps"]) + 1
        refused(rpc, -8, "image.history", image="nothing")


@test
def the_command_line_has_dockers_words_for_it(instance, images):
    load(instance, images)
    sleeper(instance, "till")
    assert instance.cloche("rename", "till", "desk").out == ""
    assert instance.cloche("pause", "desk").out == "desk\n"
    assert "paused" in instance.cloche("pause", "desk", code=1).err
    assert instance.cloche("unpause", "desk").out == "desk\n"
    assert instance.cloche("restart", "-t", "60", "desk").out == "desk\n"
    table = instance.cloche("top", "desk").lines
    assert table[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"] and "trap" in table[1], table
    assert instance.cloche("top", "desk", "-o", "pid").lines[0].strip() == "PID"
    lines = instance.cloche("stats", "--no-stream").lines
    assert lines[0].split("  ")[0] == "CONTAINER ID" and "desk" in lines[1] and " / " in lines[1], lines
    assert instance.cloche("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "desk").out.startswith("desk ")
    assert "desk" in instance.cloche("top").out and "RESTARTS" in instance.cloche("top").out
    instance.cloche("create", "--name", "two", "--label", "role=till", IMAGE)
    assert instance.cloche("ps", "-aq", "-f", "label=role=till", "-f", "status=created").out.strip() in \
        instance.cloche("ps", "-a", "--no-trunc", "-f", "name=two").out
    assert "invalid filter 'color'" in instance.cloche("ps", "-f", "color=red", code=1).err
    assert "virtual" in instance.cloche("ps", "-as", "-f", "name=two").out
    assert "SizeRw" in instance.cloche("inspect", "-s", "two").out and "SizeRw" not in instance.cloche("inspect", "two").out
    assert json.loads(instance.cloche("inspect", "-s", "two").out)[0]["SizeRootFs"] > 0
    assert IMAGE.split(":")[0] in instance.cloche("images", "-f", "reference=small*").out
    assert len(instance.cloche("images", "-f", "dangling=true").lines) == 1
    assert instance.cloche("history", IMAGE).lines[0].split()[:2] == ["IMAGE", "CREATED"]
    assert instance.cloche("history", "-q", IMAGE).lines[0] == instance.cloche("images", "-q", IMAGE).out.strip()
    answer = instance.cloche("container", "prune", input="n\n")
    assert "WARNING! This will remove all stopped containers." in answer.out and "Deleted" not in answer.out
    answer = instance.cloche("container", "prune", "--filter", "label!=role", "-f").out
    assert answer == "Total reclaimed space: 0B\n", answer
    answer = instance.cloche("container", "prune", input="y\n").out
    assert "Deleted Containers:" in answer and "Total reclaimed space: " in answer, answer
    answer = instance.cloche("system", "prune", "-af").out
    assert f"untagged: {IMAGE}" in answer and "Total reclaimed space: " in answer, answer
    assert [line.split("\t")[0] for line in instance.cloche("__complete", "ps", "--filter", "status=r").lines] == \
        ["status=removing", "status=restarting", "status=running"]
    assert instance.cloche("run", "-d", "--name", "bound", "-v", "/srv:/data", "--rm", "host", "sleep", "1000")
    assert instance.cloche("ps", "-f", "name=bound", "--format", "{{.Mounts}} {{.Networks}} {{.LocalVolumes}}").out == \
        "/srv bridge 0\n"
    for words, why in (["rm", "-l", "desk"], "the default name of the container"), (["start", "--checkpoint", "x", "desk"], "checkpoints"):
        assert why in instance.cloche(*words, code=1).err


@test
def the_live_view_draws_what_runs_and_listens_to_keys(instance):
    sleeper(instance, "till")
    instance.cloche("create", "--name", "resting", "host", "true")
    with instance.terminal("top", "--interval", "1") as terminal:
        terminal.expect(r"\x1b\[\?1049h")
        terminal.expect(r"1 running")
        terminal.expect(r"till ")
        terminal.send("s")
        terminal.expect(r"resting ")
        terminal.resize(10, 30)
        terminal.expect(r"cloche top - ")
        terminal.send("x")  # no key of ours
        terminal.send("q")
        terminal.expect(r"\x1b\[\?1049l")
        assert terminal.wait() == 0


if __name__ == "__main__":
    main()
