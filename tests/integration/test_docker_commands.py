#!/usr/bin/env python3
"""What docker's clients do less often, through the Docker Engine API: one after the other in a few daemons."""

import bz2
import hashlib
import io
import json
import lzma
import pathlib
import shutil
import socket
import sys
import tarfile

from dockers import Docker
from harness import Skip, main, run, test, wait_for


def make_tar(files):
    """Content by name; without one it is a folder."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode = 0o755
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return archive.getvalue()


@test
def exec_streams_are_as_their_start_asks(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "one", "small:1", "sleep", "1000")

    def begin(start, **session):
        session = docker.ask("POST", "/containers/one/exec", {"Tty": True, "AttachStdout": True, **session})[1]["Id"]
        body = json.dumps(start)
        return session, (f"POST /v1.41/exec/{session}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
                         f"Content-Length: {len(body)}\r\n\r\n{body}").encode()

    # docker-py: a terminal whose start does not speak of one.
    for start, told in ({"Tty": False}, b"\1\0\0\0\0\0\0\2hi"), ({"Tty": True}, b"hi"):
        answer = docker.raw(begin(start, Cmd=["printf", "hi"])[1], end=False)
        assert answer.endswith(b"\r\n\r\n" + told), answer
    # Of what it says, the stream has what was asked for.
    for attach, told in ((dict(AttachStdout=True, AttachStderr=False), b"\1\0\0\0\0\0\0\2hi"),
                         (dict(AttachStdout=False, AttachStderr=True), b"\2\0\0\0\0\0\0\2no"),
                         (dict(AttachStdout=False, AttachStderr=False), b"")):
        session, request = begin({}, Tty=False, Cmd=["sh", "-c", "printf hi; printf no >&2; exit 3"], **attach)
        assert docker.raw(request, end=False).endswith(b"\r\n\r\n" + told), attach
        assert docker.ask("GET", f"/exec/{session}/json")[1]["ExitCode"] == 3
    # The keys end the stream, although its process goes on.
    session, request = begin({"Tty": True}, Cmd=["cat"], AttachStdin=True, DetachKeys="ctrl-x,q")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(docker.path)
        sock.sendall(request)
        assert b"200 OK" in sock.recv(4096)
        sock.sendall(b"\x18")
        sock.sendall(b"q")
        assert sock.recv(4096) == b""
    assert docker.ask("GET", f"/exec/{session}/json")[1]["Running"] is True
    session, request = begin({"Tty": False}, Cmd=["nosuch"])
    docker.raw(request, end=False)
    assert docker.ask("GET", f"/exec/{session}/json")[1]["ExitCode"] == 126
    docker("exec", "one", "nosuch", code=126)
    docker("rm", "-f", "one")


@test
def what_is_not_here_is_refused_in_dockers_words(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    assert docker.ask("POST", "/swarm/leave?force=1") == (503, {"message": "This node is not part of a swarm"})
    for path in "/swarm", "/services", "/nodes/one", "/configs":
        status, answer = docker.ask("GET", path)
        assert status == 503 and answer["message"].startswith("This node is not a swarm manager"), (path, answer)
    assert docker.ask("GET", "/plugins") == (200, [])
    # dockerd has begun its answer when it finds that an archive is none.
    assert docker.ask("POST", "/images/load", "abc")[0] == 200
    assert "rchive" in docker("load", input="abc" * 1000, code=1).err
    assert docker.ask("POST", "/containers/create?name=one", {"Image": "small:1", "Runtime": "runc"})[0] == 201
    assert docker("inspect", "-f", "{{.HostConfig.Runtime}}", "one").out == "runc\n"
    docker("rm", "one")


@test
def links_lead_to_other_containers(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "db", "-h", "dbhost", "-e", "USER=me", "--expose", "5432", "small:1", "sleep", "1000")
    docker("run", "-d", "--name", "web", "--link", "db:my-data", "--link", "db", "small:1", "sleep", "1000")
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db").out.strip()
    told = docker("run", "--rm", "--name", "look", "--link", "db:my-data", "small:1", "env").out.split("\n")
    for word in ("NAME=/look/my-data", "ENV_USER=me", f"PORT=tcp://{address}:5432", f"PORT_5432_TCP_ADDR={address}"):
        assert f"MY_DATA_{word}" in told, (word, told)
    assert f"{address}\tmy-data dbhost db\n" in docker("exec", "web", "cat", "/etc/hosts").out
    links = json.loads(docker("inspect", "-f", "{{json .HostConfig.Links}}", "web").out)
    assert sorted(links) == ["/db:/web/db", "/db:/web/my-data"], links
    docker("rm", "--link", "web/my-data")
    assert docker("inspect", "-f", "{{.HostConfig.Links}}", "web").out == "[/db:/web/db]\n"
    instance.cloche("rm", "--link", "web/db")
    assert docker.ask("DELETE", "/containers/web/db?link=1")[0] == 404
    docker("stop", "-t", "0", "db")
    assert "Cannot link to a non running container: /db AS /late/db" in docker(
        "run", "--rm", "--name", "late", "--link", "db", "small:1", "true", code=125).err
    assert "could not get container for nobody" in docker("create", "--link", "nobody", "small:1", code=1).err
    docker("rm", "-f", "db", "web")
    docker("network", "create", "my net")
    docker("run", "-d", "--name", "db", "--network", "my net", "small:1", "sleep", "1000")
    docker("create", "--name", "web", "--network", "my net", "small:1", "sleep", "1000")
    docker("network", "disconnect", "my net", "web")
    docker("network", "connect", "--link", "db:store", "--link-local-ip", "169.254.8.8", "my net", "web")
    docker("start", "web")
    place = json.loads(docker("inspect", "web").out)[0]["NetworkSettings"]["Networks"]["my net"]
    assert place["Links"] == ["db:store"] and place["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.8"]}, place
    assert "169.254.8.8/16" in docker("exec", "web", "ip", "-4", "addr").out
    docker("exec", "web", "nslookup", "store")
    docker("rm", "-f", "db", "web")
    docker("network", "rm", "my net")


@test
def link_local_addresses_are_given_when_it_is_made(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    # docker's command line says nothing of them unless there is another address.
    status, answer = docker.ask("POST", "/containers/create?name=web", {
        "Image": "small:1", "Cmd": ["sleep", "1000"], "NetworkingConfig": {"EndpointsConfig": {
            "bridge": {"IPAMConfig": {"LinkLocalIPs": ["169.254.8.8"]}}}}})
    assert status == 201, answer
    docker("start", "web")
    for _ in range(2):
        place = json.loads(docker("inspect", "web").out)[0]["NetworkSettings"]["Networks"]["bridge"]
        assert place["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.8"]}, place
        assert "169.254.8.8/16" in docker("exec", "web", "ip", "-4", "addr").out
        docker("restart", "-t", "0", "web")
    for field, value, message in (("LinkLocalIPs", ["10.0.0.1"], "invalid link-local IP address: 10.0.0.1"),
                                  ("IPv4Address", "10.0.0", "invalid IPv4 address: 10.0.0"),
                                  ("IPv6Address", "10.0.0.1", "invalid IPv6 address: 10.0.0.1")):
        wanted = {"IPAMConfig": {field: value}}
        status, answer = docker.ask("POST", "/containers/create", {
            "Image": "small:1", "NetworkingConfig": {"EndpointsConfig": {"bridge": wanted}}})
        assert status == 400 and message in answer["message"], (status, answer)
    docker("network", "create", "lan")
    status, answer = docker.ask("POST", "/networks/lan/connect", {
        "Container": "web", "EndpointConfig": {"IPAMConfig": {"LinkLocalIPs": ["10.0.0.1"]}}})
    assert status == 400 and "invalid link-local" in answer["message"], (status, answer)
    docker("rm", "-f", "web")
    docker("network", "rm", "lan")


@test
def networks_share_a_name_when_it_is_asked_for(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))

    def create(**more):
        status, answer = docker.ask("POST", "/networks/create", {"Name": "lan", **more})
        return answer["Id"] if status == 201 else status
    first = create(CheckDuplicate=False)
    assert create() == create(CheckDuplicate=None) == create(CheckDuplicate=True) == 409
    docker("run", "-d", "--name", "one", "--network", "lan", "small:1", "sleep", "1000")
    second = create(CheckDuplicate=False)
    instance.kill_daemon()
    instance.start_daemon()
    assert sorted(docker("network", "ls", "-q", "--no-trunc", "-f", "name=lan").lines) == sorted([first, second])
    status, answer = docker.ask("GET", "/networks/lan")
    assert status == 400 and "network lan is ambiguous (2 matches found on name)" in answer["message"], (status, answer)
    assert "is ambiguous" in docker("run", "--rm", "--network", "lan", "small:1", "true", code=125).err
    # Who is on one of them stays there.
    docker("restart", "-t", "0", "one")
    assert list(docker.ask("GET", f"/networks/{first}")[1]["Containers"]) == docker("ps", "-q", "--no-trunc").lines
    assert "on another network with the name lan" in docker("network", "connect", second, "one", code=1).err
    docker("run", "-d", "--name", "two", "--network", second, "small:1", "sleep", "1000")
    assert [one["Name"] for one in docker.ask("GET", f"/networks/{second}")[1]["Containers"].values()] == ["two"]
    docker("rm", "-f", "one", "two")
    docker("network", "rm", first)
    docker("network", "rm", "lan")


@test
def ipc_is_shared_with_who_may(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "donor", "--ipc", "shareable", "small:1", "sleep", "1000")
    docker("run", "-d", "--name", "plain", "small:1", "sleep", "1000")
    docker("run", "--rm", "--ipc", "container:donor", "small:1", "touch", "/dev/shm/mine")
    assert docker("exec", "donor", "ls", "/dev/shm").out == "mine\n"
    assert "non-shareable IPC" in docker("run", "--rm", "--ipc", "container:plain", "small:1", "true", code=125).err
    assert [docker("inspect", "-f", "{{.HostConfig.IpcMode}}", name).out for name in ("donor", "plain")] == [
        "shareable\n", "private\n"]
    docker("rm", "-f", "donor", "plain")


@test
def commands_on_containers_and_their_files(instance, images, scratch):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    number = scratch / "cid"
    docker("run", "-d", "--cidfile", str(number), "--name", "one", "-p", "127.0.0.1:18440:80", "-p", "18441:53/udp",
           "--health-cmd", "test -e /well", "--health-interval", "1s", "--health-retries", "1",
           "small:1", "sh", "-c", "trap 'echo told' USR1; while :; do sleep 0.1; done")
    assert docker("inspect", "-f", "{{.Id}}", "one").out.strip() == number.read_text()
    assert docker("port", "one", "80").out == "127.0.0.1:18440\n"
    assert "53/udp -> 0.0.0.0:18441\n" in docker("port", "one").out
    (scratch / "in").write_text("text\n")
    docker("cp", str(scratch / "in"), "one:/tmp/there")
    docker("cp", "one:/tmp/there", str(scratch / "out"))
    assert (scratch / "out").read_text() == "text\n"
    assert docker("cp", "one:/tmp/there", "-").out.startswith("there\0")
    assert "No such container:path: one:/nosuch" in docker("cp", "one:/nosuch", str(scratch), code=1).err
    assert "A /tmp/there\n" in docker("diff", "one").out
    wait_for(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", "one").out == "unhealthy\n", what="it is ill")
    docker("exec", "one", "touch", "/well")
    wait_for(lambda: "(healthy)" in docker("ps", "--format", "{{.Status}}").out, what="it is well again")
    docker("kill", "-s", "USR1", "one")
    wait_for(lambda: docker("logs", "one").out == "told\n", what="the signal has come")
    titles, first = docker("top", "one", "-o", "pid,comm").out.split("\n")[:2]
    assert titles.split() == ["PID", "COMMAND"] and first.split()[1] == "sh", (titles, first)
    name, processor, memory = docker("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}}",
                                     "one").out.split(" ", 2)
    assert name == "one" and processor.endswith("%") and " / " in memory
    docker("export", "-o", str(scratch / "tar"), "one")
    assert docker("import", "-c", "CMD cat /tmp/there", str(scratch / "tar"), "made:1").out.startswith("sha256:")
    assert docker("history", "--format", "{{.Comment}}", "made:1").out == "Imported from -\n"
    assert docker("run", "--rm", "made:1").out == "text\n"
    docker("commit", "-m", "words", "-c", "ENV A=b", "one", "made:2")
    assert docker("history", "--format", "{{.Comment}}", "made:2").out.startswith("words\n")
    docker("update", "--memory", "64m", "--memory-swap", "64m", "one")
    assert docker("inspect", "-f", "{{.HostConfig.Memory}}", "one").out == f"{64 << 20}\n"
    docker("rm", "-f", "one")


@test
def commands_on_networks_volumes_and_the_rest(instance, images, scratch):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("network", "create", "--subnet", "10.123.45.0/24", "--label", "a=b", "mine")
    docker("volume", "create", "--label", "a=b", "data")
    docker("run", "-d", "--name", "one", "--network", "mine", "--ip", "10.123.45.9", "--network-alias", "first",
           "-v", "data:/data", "small:1", "sh", "-c", "echo kept > /data/file; sleep 1000")
    assert docker("network", "ls", "-q", "--filter", "label=a=b", "--format", "{{.Name}} {{.Driver}}").out == "mine bridge\n"
    network = json.loads(docker("network", "inspect", "mine").out)[0]
    assert [one["IPv4Address"] for one in network["Containers"].values()] == ["10.123.45.9/24"], network
    docker("run", "--rm", "--network", "mine", "small:1", "nslookup", "first")
    assert "has active endpoints" in docker("network", "rm", "mine", code=1).err
    # docker-compose looks for its short ID there, and would connect it anew.
    places = docker.ask("GET", "/containers/one/json")[1]["NetworkSettings"]["Networks"]
    assert places["mine"]["Aliases"] == ["first", docker("ps", "-q").out.strip()], places
    assert docker.ask("GET", "/networks/mine?scope=local")[0] == 200
    assert docker.ask("GET", "/networks/mine?scope=swarm") == (404, {"message": "network mine not found"})
    for kind in ("networks", "volumes", "images/json"):
        assert docker.ask("GET", kind.join(("/", "?filters=%7B%22dangling%22%3A%5B%22x%22%5D%7D"))) == (
            400, {"message": "invalid filter 'dangling=[x]'"}), kind
    docker("network", "connect", "bridge", "one")
    assert docker.ask("GET", "/containers/one/json")[1]["NetworkSettings"]["Networks"]["bridge"]["Aliases"] is None
    docker("network", "disconnect", "mine", "one")
    assert "is not connected to network" in docker("network", "disconnect", "-f", "mine", "one", code=1).err
    assert docker("inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}", "one").out == "bridge\n"
    assert docker("volume", "ls", "-q", "--filter", "label=a=b").out == "data\n"
    assert docker("volume", "inspect", "-f", "{{.Driver}} {{.Labels.a}}", "data").out == "local b\n"
    assert "volume is in use" in docker("volume", "rm", "data", code=1).err
    wait_for(lambda: docker("run", "--rm", "-v", "data:/x:ro", "small:1", "cat", "/x/file", code=None).out == "kept\n",
             what="it is written")
    assert docker("system", "df", "--format", "{{.Type}} {{.Active}}").out.startswith("Images 1\nContainers 1\nLocal Volumes 1\n")
    (scratch / "Dockerfile").write_text("FROM small:1\nCOPY Dockerfile /\nRUN echo made > /file\nCMD cat /file\n")
    assert "Successfully tagged made:1\n" in docker("build", "-t", "made:1", str(scratch)).out
    assert docker("build", "-q", str(scratch)).out.startswith("sha256:")
    # What is refused before it has begun is no build.
    (scratch / "Nothing").write_text("")
    assert "Error response from daemon" in docker("build", "-f", str(scratch / "Nothing"), str(scratch), code=1).err
    again = ["build", "-t", "made:1", str(scratch)]
    assert docker(*again).out.count("Using cache") == 3
    assert docker(*again, "--cache-from", "made:1").out.count("Using cache") == 3
    assert "Using cache" not in docker(*again, "--cache-from", "nosuch:1").out
    assert docker("run", "--rm", "made:1").out == "made\n"
    docker("rm", "-f", "one")
    docker("run", "--name", "two", "small:1", "true")
    removed = docker("system", "prune", "-f", "--volumes").out
    for word in ("Deleted Containers:", "Deleted Networks:\nmine\n", "Deleted Volumes:\ndata\n", "Total reclaimed space: "):
        assert word in removed, removed
    assert docker("ps", "-aq").out == "" and docker("volume", "ls", "-q").out == ""


@test
def images_go_to_and_from_other_tools_by_the_socket(instance, images, scratch):
    """The docker-daemon: transport of skopeo and its like, which speaks version 1.22."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    if not shutil.which("skopeo"):
        raise Skip("skopeo is not installed")
    run("skopeo", "copy", "-q", "--src-daemon-host", docker.env["DOCKER_HOST"], "docker-daemon:small:1",
        f"oci:{scratch}/out:1")
    run("skopeo", "copy", "-q", "--dest-daemon-host", docker.env["DOCKER_HOST"], f"oci:{scratch}/out:1",
        "docker-daemon:copied:1")
    assert docker("run", "--rm", "copied:1", "echo", "works").out == "works\n"


@test
def an_exec_of_an_unknown_user_says_so(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "one", "small:1", "sleep", "1000")
    for user in ("nobody-at-all", ":nobody-at-all"):
        result = docker("exec", "-u", user, "one", "id", code=126)
        assert "unable to find" in result.out + result.err, result
        assert "unable to find" in instance.cloche("exec", "-u", user, "one", "id", code=126).err


@test
def a_dockerfile_on_standard_input_joins_the_context(instance, images, scratch):
    """docker writes no padding behind the last file of such a context."""
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    (scratch / "context").mkdir()
    (scratch / "context/file").write_text("joined\n")
    docker("build", "-t", "built:1", "-f", "-", scratch / "context",
           input="FROM small:1\nCOPY . /here/\nCMD cat /here/file; ls -A /here\n")
    assert docker("run", "--rm", "built:1").out == "joined\nfile\n"


@test
def archives_are_taken_however_they_are_compressed(instance, images, scratch):
    docker = Docker(instance)
    saved = pathlib.Path(images.docker_archive())
    root = scratch / "root.tar"
    root.write_bytes(make_tar({"bin/": None, "etc/name": b"imported\n"}))
    docker("load", "-i", saved)
    docker("create", "--name", "box", "small:1")
    for number, pack in enumerate((bz2.compress, lzma.compress)):
        packed, half = scratch / "packed", scratch / "half"
        docker("rmi", "-f", "small:1")
        packed.write_bytes(pack(saved.read_bytes()))
        assert docker("load", "-i", packed).out == "Loaded image: small:1\n"
        half.write_bytes(packed.read_bytes()[:-1000])
        assert docker("load", "-i", half, code=None).err, "half of an archive is not taken"
        packed.write_bytes(pack(root.read_bytes()))
        docker("import", packed, f"imported:{number}")
        digests = docker("image", "inspect", f"imported:{number}", "--format", "{{json .RootFS.Layers}}").out
        assert hashlib.sha256(root.read_bytes()).hexdigest() in digests, "the layer is the plain one"
        half.write_bytes(packed.read_bytes()[:-20])
        assert docker("import", half, "half:1", code=1).err
        with open(packed, "rb") as source:
            docker("cp", "-", "box:/tmp", stdin=source)
        name = docker("cp", "box:/tmp/etc/name", "-", text=False).out
        assert b"imported\n" in name
    assert "half" not in docker("images").out


if __name__ == "__main__":
    sys.exit(main())
