#!/usr/bin/env python3
"""SIGKILL of the daemon at random moments of everything that changes something: containers run on,
and the next daemon knows what is true. (test_adoption.py has the chosen moments.)"""

import json
import os
import random
import signal
import threading
import time

from harness import http_get, main, note, run, test, wait_for

IMAGE = "small:1"
STATES = {"created", "running", "exited"}


def load(instance, images):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))


def kill_daemon_quietly(instance):
    """SIGKILL, whether or not there is a daemon just now; waits until its socket is nobody's."""
    pid = instance.daemon_pid()
    if pid:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: instance.daemon_pid() != pid)


def inspect(instance, *names):
    return json.loads(instance.cloche("inspect", *names).out)


def containers(instance):
    identifiers = instance.cloche("ps", "-aq", "--no-trunc").lines
    return inspect(instance, *identifiers) if identifiers else []


def check_state(container):
    """What inspect says must agree with itself and with the kernel."""
    state = container["State"]
    assert state["Status"] in STATES, state
    alive = state["Pid"] > 0 and os.path.exists(f"/proc/{state['Pid']}/ns/pid")
    assert state["Running"] == (state["Status"] == "running") == alive, state


def at_random_moments(instance, longest, rounds, action):
    """rounds times: starts action(number) in a thread and kills the daemon up to `longest` seconds
    later."""
    seed = random.randrange(1 << 32)
    note(f"seed {seed}")
    dice = random.Random(seed)
    for number in range(rounds):
        thread = threading.Thread(target=action, args=(number,))
        instance.start_daemon()
        thread.start()
        time.sleep(dice.uniform(0, longest))
        kill_daemon_quietly(instance)
        thread.join(240)
        assert not thread.is_alive(), f"round {number} (seed {seed}) does not end"


@test
def killed_while_containers_start(instance, images):
    load(instance, images)
    results = {}

    def run(number):
        results[number] = instance.cloche("run", "-d", "--name", f"c{number}", IMAGE, "sleep", "3000",
                                          code=None)

    at_random_moments(instance, 0.15, 12, run)
    found = {one["Name"].lstrip("/"): one for one in containers(instance)}
    for one in found.values():
        check_state(one)
    started = [number for number, result in results.items() if result.code == 0]
    note(f"{len(started)} of {len(results)} had their answer, {len(found)} containers exist")
    for number in started:
        assert found[f"c{number}"]["State"]["Status"] == "running", found[f"c{number}"]["State"]
    for name, one in found.items():
        if one["State"]["Status"] != "running":
            instance.cloche("start", name)
        assert instance.cloche("exec", name, "echo", "alive").out == "alive\n"
    if found:
        instance.cloche("rm", "-f", *found)
    assert containers(instance) == []


@test
def killed_while_containers_end(instance, images):
    load(instance, images)
    script = "echo begin; sleep 0.$0; echo end; exit $1"

    def run(number):
        instance.cloche("run", "-d", "--name", f"c{number}", IMAGE, "sh", "-c", script,
                        str(number % 4), str(100 + number), code=None)

    at_random_moments(instance, 0.6, 10, run)
    for number in range(10):
        found = [one for one in containers(instance) if one["Name"].lstrip("/") == f"c{number}"]
        if not found or found[0]["State"]["Status"] == "created":
            continue  # its daemon was killed before it could start
        state = found[0]["State"]
        if state["ExitCode"] == 255 and "monitor" in state.get("Error", ""):
            # The daemon died when the monitor was there and had not been told to start.
            assert instance.cloche("logs", f"c{number}").out == "", state
            continue
        assert instance.cloche("wait", f"c{number}").out == f"{100 + number}\n", state
        assert instance.cloche("logs", f"c{number}").out == "begin\nend\n"
    instance.cloche("rm", "-f", *instance.cloche("ps", "-aq").lines)


@test
def killed_while_containers_stop(instance, images):
    load(instance, images)
    for number in range(6):
        instance.cloche("run", "-d", "--name", f"c{number}", IMAGE, "sh", "-c",
                        "trap 'exit 9' TERM; while true; do sleep 0.05; done")
    at_random_moments(instance, 0.3, 6, lambda number: instance.cloche(
        "stop", "-t", "60", f"c{number}", code=None))
    for number in range(6):
        name = f"c{number}"
        check_state(inspect(instance, name)[0])
        instance.cloche("stop", "-t", "60", name)
        assert instance.cloche("wait", name).out == "9\n"
    instance.cloche("rm", *(f"c{number}" for number in range(6)))


@test
def killed_while_containers_are_removed(instance, images):
    load(instance, images)
    for number in range(8):
        instance.cloche("run", "-d", "--name", f"c{number}", IMAGE, "sleep", "3000")
    at_random_moments(instance, 0.2, 8, lambda number: instance.cloche(
        "rm", "-f", f"c{number}", code=None))
    for one in containers(instance):
        check_state(one)
        instance.cloche("rm", "-f", one["Id"])
    assert containers(instance) == []


@test
def killed_while_images_are_committed(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "base", IMAGE, "sh", "-c",
                    "head -c 5000000 /dev/urandom > /data; sleep 3000")
    wait_for(lambda: instance.cloche("exec", "base", "wc", "-c", "/data", code=None).out.startswith("5000000"))
    done = []

    def commit(number):
        if instance.cloche("commit", "base", f"copy:{number}", code=None).code == 0:
            done.append(f"copy:{number}")

    at_random_moments(instance, 0.8, 6, commit)
    # Not left frozen by a commit that was cut off, and every image that is there is whole.
    assert instance.cloche("exec", "base", "echo", "alive").out == "alive\n"
    there = [name for name in instance.cloche("images", "--format",
                                              "{{.Repository}}:{{.Tag}}").lines if "copy" in name]
    assert set(done) <= set(there), (done, there)
    for name in there:
        assert instance.cloche("run", "--rm", name, "wc", "-c", "/data").out == "5000000 /data\n"
    instance.cloche("rm", "-f", "base")


def bridges():
    return {link["ifname"] for link in json.loads(run("ip", "-j", "link", "show", "type", "bridge").out or "[]")}


@test
def killed_while_networks_come_and_go(instance):
    """Each bridge has its record, before and after the next daemon has come."""
    instance.start_daemon()
    before = bridges()

    def change(number):
        if number % 2:
            instance.cloche("network", "rm", f"n{number - 1}", code=None)
        else:
            instance.cloche("network", "create", f"n{number}", code=None)
    at_random_moments(instance, 0.05, 30, change)
    instance.start_daemon()
    rows = instance.cloche("network", "ls", "--no-trunc", "--filter", "type=custom", "--format", "{{.ID}}").lines
    assert bridges() - before == {"clo" + row[:12] for row in rows}, (bridges() - before, rows)
    if rows:
        instance.cloche("network", "rm", *rows)
    assert bridges() == before and os.listdir(instance.run_folder / "bridges") == []


@test
def logs_are_followed_across_daemons(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "shop", IMAGE, "sh", "-c",
                    "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done")
    follower = instance.start("logs", "-f", "shop")
    for _ in range(3):
        time.sleep(0.3)
        kill_daemon_quietly(instance)
        instance.start_daemon()
    out, err = follower.communicate(timeout=60)
    assert out.decode().splitlines() == [f"line {i}" for i in range(40)], (out, err)
    assert instance.cloche("logs", "shop").lines == [f"line {i}" for i in range(40)]
    assert instance.cloche("wait", "shop").out == "0\n"
    instance.cloche("rm", "shop")


@test
def an_exec_session_survives_the_daemon(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "shop", IMAGE, "sleep", "3000")
    process = instance.start("exec", "-i", "shop", "sh", "-c", "echo ready; read x; echo $x; exit 12")
    assert process.stdout.readline() == b"ready\n"
    kill_daemon_quietly(instance)
    instance.start_daemon()
    out, err = process.communicate(b"word\n", timeout=60)
    assert (out, process.returncode) == (b"word\n", 12), (out, err, process.returncode)
    instance.cloche("rm", "-f", "shop")


@test
def published_ports_answer_while_no_daemon_lives(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "shop", "-p", "18431:80", IMAGE, "sh", "-c",
                    "mkdir /www; echo page > /www/index.html; httpd -f -p 80 -h /www")
    assert http_get("127.0.0.1", 18431) == "page\n"
    instance.kill_daemon()
    assert http_get("127.0.0.1", 18431) == "page\n"
    instance.start_daemon()
    assert http_get("127.0.0.1", 18431) == "page\n"
    instance.cloche("rm", "-f", "shop")


if __name__ == "__main__":
    main()
