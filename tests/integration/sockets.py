"""Further sockets of a daemon: their configuration, and who calls there."""

import json
import os
import signal
import sys
import textwrap

from harness import run
from raw_rpc import Rpc


def configure(instance, scratch, *sections, **more):
    """The instance's daemons read this from now on."""
    os.chmod(scratch, 0o755)
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"listen": list(sections), **more}, indent=2) + "\n")
    os.chmod(path, 0o644)
    instance.env["CLOCHE_CONFIG"] = str(path)
    return path


def reload(instance):
    """Returns when the daemon has read its configuration again."""
    with Rpc(instance.socket) as rpc:
        rpc.call("events.subscribe", filters={"type": ["daemon"], "action": ["reload"]})
        os.kill(instance.daemon_pid(), signal.SIGHUP)
        rpc.event()


def as_user(uid, gid, groups, path, *calls):
    """What a process of this user is answered: a list of results and errors."""
    return json.loads(run("setpriv", "--reuid", uid, "--regid", gid,
                          *(["--groups", groups] if groups else ["--clear-groups"]),
                          sys.executable, "-c", CALLS, path, json.dumps(calls)).out)


# Speaks by itself: it runs in containers, too.
CALLS = textwrap.dedent("""
    import json, socket, sys
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(sys.argv[1])
    except OSError as error:
        print(json.dumps([{"errno": error.errno}]))
        sys.exit()
    f = s.makefile("rw")
    answers = []
    for method in json.loads(sys.argv[2]):
        f.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}) + "\\n")
        f.flush()
        answers.append(json.loads(f.readline() or "null"))
    print(json.dumps(answers))
    """)


def in_container(instance, name, folder, *calls, image="host"):
    """The same from a container that has the folder at /d."""
    return json.loads(instance.cloche("run", "--rm", "--name", name, "-v", f"{folder}:/d:ro", image,
                                      "/usr/bin/python3", "-c", CALLS, "/d/api.sock", json.dumps(calls)).out)
