#!/usr/bin/env python3
"""The Docker Engine API beside dockerd's: the same requests to both. Every member of dockerd's documents must be in
ours with the same JSON type, and every wrong request must get the same status."""

import json
import re
import sys
import urllib.parse

from dockers import Docker
from engines import Docker as Dockerd
from harness import main, test

VERSION = "/v1.41"


class Peer(Docker):
    """Requests made by hand to dockerd."""

    def __init__(self, dockerd):
        self.path = dockerd.socket.removeprefix("unix://")
        self.env = {"DOCKER_HOST": dockerd.socket, "DOCKER_CONFIG": "/nonexistent"}


def kind(value):
    return {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object",
            type(None): "null"}[type(value)]


def differences(theirs, ours, path=""):
    if kind(theirs) != kind(ours):
        yield f"{path}: {kind(theirs)} {json.dumps(theirs)[:60]} there, {kind(ours)} {json.dumps(ours)[:60]} here"
    elif isinstance(theirs, dict):
        for key, value in theirs.items():
            if key not in ours:
                yield f"{path}.{key}: {json.dumps(value)[:60]} there, nothing here"
            else:
                yield from differences(value, ours[key], f"{path}.{key}")
    elif isinstance(theirs, list) and theirs and ours:
        yield from differences(theirs[0], ours[0], f"{path}[]")


# Members that dockerd 20.10 has and we have not, or of another type, and why; of names with a star all that begin so.
EXPECTED = [
    # Empty lists and maps, of which dockerd has nil where nobody said anything. Clients take both.
    "*.PortBindings", "*.Dns", "*.DnsOptions", "*.DnsSearch", "*.BlkioWeightDevice", "*.Devices", "*.Ulimits",
    "*.Labels", "*.RepoDigests", "df.BuildCache", "stats.blkio_stats.*", "info.DriverStatus",
    # Gone from the API with 1.42.
    "*.KernelMemory", "*.KernelMemoryTCP", "stats.precpu_stats.cpu_usage.percpu_usage",
    # vfs has no folders to name; false is as good as nothing.
    "*.GraphDriver.Data", "*.HostConfig.Init",
    # Nobody has a place in the network `none`.
    "network.Containers.*",
    # Runtimes are the machine's.
    "info.Runtimes.*",
]


def is_expected(line):
    name = line.partition(": ")[0]
    return any(name.endswith(word[1:]) if word.startswith("*") else
               name.startswith(word[:-1]) if word.endswith("*") else name == word for word in EXPECTED)


FULL = {
    "Image": "small:1", "Cmd": ["sleep", "1000"], "Hostname": "host", "Domainname": "lan", "User": "0:0", "Tty": False,
    "Env": ["A=1"], "Labels": {"a": "1"}, "WorkingDir": "/tmp", "StopSignal": "SIGINT", "StopTimeout": 1,
    "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/vol": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Timeout": 1000000000, "Retries": 2},
    "HostConfig": {
        "NetworkMode": "none", "Binds": ["named:/named"], "Memory": 67108864, "PidsLimit": 50, "CpuShares": 512,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"],
        "Dns": ["1.1.1.1"], "DnsSearch": ["lan"], "DnsOptions": ["ndots:1"], "ExtraHosts": ["a:1.2.3.4"],
        "GroupAdd": ["5"], "OomScoreAdj": 10, "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/t": "size=1m"},
        "Sysctls": {"kernel.shm_rmid_forced": "1"}, "ShmSize": 8388608, "Init": False,
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "rwm"}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "Mounts": [{"Type": "volume", "Source": "other", "Target": "/other"},
                   {"Type": "tmpfs", "Target": "/tm", "TmpfsOptions": {"SizeBytes": 65536}}]}}


def prepare(docker):
    """The same things on both."""
    def must(method, path, body=None):
        status, answer = docker.ask(method, path, body, version=VERSION)
        assert status < 400, (method, path, status, answer)
        return answer
    must("POST", "/containers/create?name=made", {"Image": "small:1", "HostConfig": {"NetworkMode": "none"}})
    must("POST", "/containers/create?name=full", FULL)
    must("POST", "/containers/full/start")
    must("POST", "/containers/create?name=ended",
         {"Image": "small:1", "Cmd": ["sh", "-c", "exit 3"], "HostConfig": {"NetworkMode": "none"}})
    must("POST", "/containers/ended/start")
    must("POST", "/containers/ended/wait")
    return must("POST", "/containers/full/exec", {"Cmd": ["true"], "Env": ["B=2"], "User": "0", "WorkingDir": "/"})["Id"]


def documents(exec_id):
    filters = lambda **words: urllib.parse.quote(json.dumps({key: [value] for key, value in words.items()}))
    return {
        "created": "/containers/made/json", "running": "/containers/full/json?size=1", "ended": "/containers/ended/json",
        "list": f"/containers/json?size=1&filters={filters(name='full')}", "top": "/containers/full/top",
        "stats": "/containers/full/stats?stream=0", "changes": "/containers/full/changes",
        "exec": f"/exec/{exec_id}/json", "image": "/images/small:1/json", "history": "/images/small:1/history",
        "images": f"/images/json?filters={filters(reference='small:1')}", "network": "/networks/none",
        "networks": f"/networks?filters={filters(name='none')}", "volume": "/volumes/named", "volumes": "/volumes",
        "df": "/system/df", "info": "/info", "version": "/version", "plugins": "/plugins"}


@test
def documents_have_what_dockerds_have(instance, images, scratch, unique):
    dockerd = Dockerd(scratch, images, unique)
    try:
        peer, docker = Peer(dockerd), Docker(instance)
        instance.cloche("load", "-i", images.docker_archive("small:1"))
        theirs, ours = documents(prepare(peer)), documents(prepare(docker))
        found = []
        for name, path in theirs.items():
            there, here = peer.ask("GET", path, version=VERSION), docker.ask("GET", ours[name], version=VERSION)
            assert there[0] == here[0] == 200, (name, there, here)
            found += [name + line for line in differences(there[1], here[1])]
        found = [line for line in found if not is_expected(line)]
        assert not found, "\n".join(found)
    finally:
        dockerd.close()
        instance.cloche("rm", "-f", "-v", "made", "full", "ended", code=None)


BAD_JSON = object()

# method, path, body.
REQUESTS = [
    ("GET", "/containers/nobody/json", None), ("POST", "/containers/nobody/start", None),
    ("POST", "/containers/nobody/stop", None), ("POST", "/containers/nobody/restart", None),
    ("POST", "/containers/nobody/kill", None), ("POST", "/containers/nobody/pause", None),
    ("POST", "/containers/nobody/unpause", None), ("POST", "/containers/nobody/wait", None),
    ("POST", "/containers/nobody/rename?name=x", None), ("POST", "/containers/nobody/update", {}),
    ("POST", "/containers/nobody/resize?h=1&w=1", None), ("POST", "/containers/nobody/attach?stream=1&stdout=1", None),
    ("POST", "/containers/nobody/exec", {"Cmd": ["true"]}), ("GET", "/containers/nobody/logs?stdout=1", None),
    ("GET", "/containers/nobody/top", None), ("GET", "/containers/nobody/stats?stream=0", None),
    ("GET", "/containers/nobody/changes", None), ("GET", "/containers/nobody/export", None),
    ("GET", "/containers/nobody/archive?path=/", None), ("PUT", "/containers/nobody/archive?path=/", None),
    ("DELETE", "/containers/nobody", None), ("GET", "/exec/nobody/json", None),
    ("POST", "/exec/nobody/start", {}), ("POST", "/exec/nobody/resize?h=1&w=1", None),
    ("GET", "/images/nothing/json", None), ("GET", "/images/nothing/history", None),
    ("DELETE", "/images/nothing", None), ("POST", "/images/nothing/tag?repo=x", None),
    ("GET", "/networks/nothing", None), ("DELETE", "/networks/nothing", None),
    ("POST", "/networks/nothing/connect", {"Container": "made"}),
    ("POST", "/networks/nothing/disconnect", {"Container": "made"}),
    ("GET", "/volumes/nothing", None), ("DELETE", "/volumes/nothing", None),
    ("POST", "/commit?container=nobody", None),
    ("POST", "/containers/create", {"Image": "nothing"}), ("POST", "/containers/create", {}),
    ("POST", "/containers/create", BAD_JSON), ("POST", "/containers/create?name=made", {"Image": "small:1"}),
    ("POST", "/containers/create?name=!", {"Image": "small:1"}),
    ("POST", "/containers/create", {"Image": "small:1", "Cmd": []}),
    ("POST", "/containers/create", {"Image": "small:1", "WorkingDir": "relative"}),
    ("POST", "/containers/create", {"Image": "small:1", "StopSignal": "SIGNOTHING"}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"Memory": 1}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"Binds": ["a"]}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"Binds": ["/a:b"]}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"RestartPolicy": {
        "Name": "always", "MaximumRetryCount": 1}}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"CapAdd": ["NOTHING"]}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"IpcMode": "strange"}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"PidMode": "strange"}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"PidMode": "container:nobody"}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"IpcMode": "container:nobody"}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"ShmSize": -1}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"OomScoreAdj": 2000}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"Mounts": [{"Type": "strange", "Target": "/x"}]}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"Mounts": [
        {"Type": "bind", "Source": "/nowhere/here", "Target": "/x"}]}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}),
    ("POST", "/containers/create", {"Image": "small:1", "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"VolumesFrom": ["nobody"]}}),
    ("POST", "/containers/create", {"Image": "small:1", "HostConfig": {"NetworkMode": "container:nobody"}}),
    ("POST", "/containers/full/start", None), ("POST", "/containers/made/stop", None),
    ("POST", "/containers/made/kill", None), ("POST", "/containers/full/kill?signal=STRANGE", None),
    ("POST", "/containers/made/pause", None), ("POST", "/containers/full/unpause", None),
    ("POST", "/containers/full/rename?name=made", None), ("POST", "/containers/full/rename", None),
    ("POST", "/containers/full/rename?name=!", None),
    ("POST", "/containers/made/exec", {"Cmd": ["true"]}), ("POST", "/containers/full/exec", {}),
    ("POST", "/containers/full/exec", BAD_JSON), ("POST", "/containers/made/resize?h=1&w=1", None),
    ("POST", "/containers/full/resize?h=x&w=1", None), ("GET", "/containers/made/top", None),
    ("GET", "/containers/full/logs", None), ("GET", "/containers/full/logs?stdout=1&since=x", None),
    ("GET", "/containers/full/archive?path=/not/there", None), ("GET", "/containers/full/archive", None),
    ("PUT", "/containers/full/archive?path=/not/there", None), ("HEAD", "/containers/full/archive?path=/nothing", None),
    ("DELETE", "/containers/full", None),
    ("POST", "/containers/full/update", BAD_JSON),
    ("POST", "/containers/full/update", {"Memory": 1}),
    ("GET", "/containers/json?filters=%7Bx", None), ("GET", "/containers/json?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", None),
    ("GET", "/containers/json?limit=x", None),
    ("GET", "/containers/json?filters=%7B%22status%22%3A%5B%22y%22%5D%7D", None),
    ("GET", "/containers/json?filters=%7B%22health%22%3A%5B%22y%22%5D%7D", None),
    ("GET", "/containers/json?filters=%7B%22before%22%3A%5B%22nobody%22%5D%7D", None),
    ("GET", "/containers/json?filters=%7B%22exited%22%3A%5B%22y%22%5D%7D", None),
    ("GET", "/images/json?filters=%7B%22dangling%22%3A%5B%22y%22%5D%7D", None),
    ("GET", "/images/json?filters=%7B%22before%22%3A%5B%22nothing%22%5D%7D", None),
    ("GET", "/networks?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", None),
    ("GET", "/volumes?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", None),
    ("POST", "/networks/create", {}), ("POST", "/networks/create", BAD_JSON),
    ("POST", "/networks/create", {"Name": "none", "CheckDuplicate": True}),
    ("POST", "/networks/create", {"Name": "x", "Driver": "strange"}),
    ("DELETE", "/networks/none", None), ("DELETE", "/networks/host", None),
    ("POST", "/volumes/create", BAD_JSON), ("POST", "/volumes/create", {"Name": "!"}),
    ("POST", "/volumes/create", {"Name": "xx", "Driver": "strange"}),
    ("DELETE", "/volumes/named", None),
    ("POST", "/images/small:1/tag", None), ("POST", "/images/small:1/tag?repo=UPPER", None),
    ("POST", "/images/create?fromImage=UPPER", None), ("DELETE", "/images/small:1", None),
    ("POST", "/images/UPPER/push", None), ("GET", "/images/get?names=nothing", None),
    ("POST", "/commit", None), ("POST", "/commit?container=made&repo=UPPER", None),
    ("POST", "/build", None), ("POST", "/auth", BAD_JSON), ("GET", "/nothing", None), ("POST", "/containers/json", None),
    ("DELETE", "/version", None), ("GET", "/events?since=x", None), ("GET", "/plugins/x/json", None),
    ("POST", "/containers/prune?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", None),
    ("GET", "/swarm", None), ("GET", "/nodes", None), ("GET", "/services", None), ("GET", "/tasks", None),
    ("GET", "/secrets", None), ("GET", "/configs", None), ("POST", "/swarm/leave", None),
]

# Where we answer otherwise, and why. (What dockerd of that age calls 500 is the client's fault, and 4xx here as in
# later versions of it.)
OTHERWISE = {
    # It only writes down what a container that does not run wants.
    'POST /networks/nothing/connect {"Container": "made"}', 'POST /networks/nothing/disconnect {"Container": "made"}',
    # It finds out at the start.
    'POST /containers/create {"Image": "small:1", "HostConfig": {"IpcMode": "strange"}}',
    'POST /containers/create {"Image": "small:1", "HostConfig": {"PidMode": "strange"}}',
    'POST /networks/create {"Name": "x", "Driver": "strange"}',
    'POST /volumes/create {"Name": "xx", "Driver": "strange"}',  # plug-ins may be had, there
    "POST /images/UPPER/push",  # without X-Registry-Auth: no fault since 1.44
}


def ask(docker, method, path, body):
    text = "{" if body is BAD_JSON else json.dumps(body) if body is not None else ""
    head = (f"{method} {VERSION}{path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
            + ("Content-Type: application/json\r\n" if text else "") + f"Content-Length: {len(text)}\r\n\r\n")
    answer = docker.raw((head + text).encode(), end=False)
    status = int(answer.split()[1]) if answer else 0
    message = re.search(rb'"message":"((?:[^"\\]|\\.)*)"', answer)
    return status, json.loads(b'"' + message[1] + b'"') if message else None


@test
def wrong_requests_are_answered_as_dockerd_does(instance, images, scratch, unique):
    dockerd = Dockerd(scratch, images, unique)
    try:
        peer, docker = Peer(dockerd), Docker(instance)
        instance.cloche("load", "-i", images.docker_archive("small:1"))
        prepare(peer), prepare(docker)
        wrong = []
        for method, path, body in REQUESTS:
            there, here = ask(peer, method, path, body), ask(docker, method, path, body)
            words = "BAD" if body is BAD_JSON else json.dumps(body)[:100] if body else ""
            fits = there[0] == here[0] or (there[0] == 500 and 400 <= here[0] < 500)
            name = f"{method} {path} {words}".strip()
            if not fits and name not in OTHERWISE:
                wrong.append(f"{name}: dockerd {there}, here {here}")
            assert here[0] < 400 or here[1] or method == "HEAD", (name, here)
        assert not wrong, "\n".join(wrong)
    finally:
        dockerd.close()
        instance.cloche("rm", "-f", "-v", "made", "full", "ended", code=None)


if __name__ == "__main__":
    sys.exit(main())
