#!/usr/bin/env python3
"""The Docker Engine API with docker's own clients, and with clients that nobody wants."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import urllib.parse

from dockers import DEBIAN_PYTHON, Docker
from harness import Skip, main, run, test, wait_for

@test
def the_docker_cli_runs_containers(instance, images):
    docker = Docker(instance)
    assert "Loaded image: small:1" in docker("load", "-i", images.small()).out
    assert docker("run", "--rm", "small:1", "echo", "hello").out == "hello\n"
    docker("run", "--rm", "small:1", "sh", "-c", "exit 7", code=7)
    assert docker("run", "--rm", "-i", "small:1", "cat", input="through\n").out == "through\n"
    assert "executable file not found" in docker("run", "--rm", "small:1", "nosuch", code=127).err
    docker("run", "-d", "--name", "one", "small:1", "sh", "-c", "echo out; echo err >&2; sleep 1000")
    wait_for(lambda: docker("logs", "one").err == "err\n", what="both streams are logged")
    assert docker("logs", "one").out == "out\n"
    assert docker("ps", "--format", "{{.Names}} {{.Image}}").out == "one small:1\n"
    assert docker("ps", "-q", "--filter", "name=nobody").out == ""
    assert docker("inspect", "-f", "{{.State.Status}} {{.Config.Cmd}}", "one").out.startswith("running [sh -c")
    docker("stop", "-t", "1", "one")
    assert docker("wait", "one").out == "137\n"
    docker("restart", "-t", "1", "one")
    docker("rename", "one", "two")
    docker("rm", "-f", "two")
    assert docker("ps", "-aq").out == ""


@test
def the_docker_cli_enters_containers(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small())
    docker("run", "-d", "--name", "one", "small:1", "sleep", "1000")
    assert docker("exec", "one", "echo", "inside").out == "inside\n"
    assert docker("exec", "-i", "one", "cat", input="through\n").out == "through\n"
    docker("exec", "one", "sh", "-c", "exit 3", code=3)
    assert docker("exec", "-d", "one", "sh", "-c", "echo x > /there").out == ""
    wait_for(lambda: docker("exec", "one", "cat", "/there", code=None).out == "x\n", what="it has run")
    assert "sleep 1000" in docker("top", "one").out
    docker("rm", "-f", "one")


@test
def standard_input_arrives_to_its_last_byte(instance, images):
    """The client has said its last before the container reads anything: the end waits in the socket."""
    docker = Docker(instance)
    instance.cloche("load", "-i", images.small())
    for size in (100_000, 450_000, 600_000, 3_000_000):
        result = docker("run", "-i", "--rm", "small:1", "sh", "-c", "sleep 1; wc -c", input=bytes(size), text=False)
        assert result.out.split() == [str(size).encode()], (size, result.out)


@test
def a_filter_without_values_asks_for_nothing(instance, images):
    docker = Docker(instance)
    instance.cloche("load", "-i", images.small())
    for path in ("/images/json", "/containers/json"):
        for filters in ('{"until":[]}', '{"dangling":[]}', '{"label":{}}'):
            status, _ = docker.ask("GET", f"{path}?all=1&filters={urllib.parse.quote(filters)}")[:2]
            assert status == 200, (path, filters, status)
    assert docker("images", "-q").out


@test
def the_docker_cli_attaches(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small())
    docker("create", "--name", "one", "small:1", "sh", "-c", "echo there; sleep 1000")
    client = docker.start("start", "-a", "one")
    assert client.stdout.readline() == b"there\n"
    docker("kill", "one")
    client.communicate(timeout=60)
    assert client.returncode == 137


@test
def detach_keys_are_looked_for_here(instance, images):
    docker = Docker(instance)
    instance.cloche("load", "-q", "-i", images.small("small:1"))
    for query, keys in ("", b"\x10\x11"), ("&detachKeys=ctrl-x,y", b"\x18y"):
        name = instance.cloche("run", "-dit", "small:1", "cat").out.strip()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(docker.path)
            sock.sendall(f"POST /v1.44/containers/{name}/attach?stream=1&stdin=1&stdout=1{query} HTTP/1.1\r\n"
                         "Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(1)
            assert b"101" in data.splitlines()[0], data
            sock.sendall(b"hello\n")
            while b"hello" not in data:
                data += sock.recv(4096)
            sock.sendall(keys)
            while sock.recv(4096):
                pass
        assert instance.cloche("inspect", "-f", "{{.State.Status}}", name).out == "running\n"
    name = instance.cloche("run", "-di", "small:1", "cat").out.strip()  # no terminal, where nobody looks for them
    assert docker.ask("POST", f"/containers/{name}/attach?stream=1&stdout=1&detachKeys=zz")[0] == 400
    assert docker.ask("POST", f"/containers/{name}/exec", {"Cmd": ["true"], "DetachKeys": "ctrl-"})[0] == 400


@test
def the_docker_cli_handles_images(instance, images, scratch):
    docker = Docker(instance)
    docker("load", "-i", images.small())
    docker("run", "--name", "one", "small:1", "sh", "-c", "echo new > /new")
    docker("commit", "-m", "words", "-c", "CMD cat /new", "one", "made:1")
    assert docker("run", "--rm", "made:1").out == "new\n"
    assert "words" in docker("history", "made:1").out
    docker("build", "-t", "made:2", "-", input="FROM made:1\nLABEL one=1\nRUN true\n")
    chain = [json.loads(docker("inspect", "made:2").out)[0]]
    while chain[-1]["Parent"]:
        chain += json.loads(docker("inspect", chain[-1]["Parent"]).out)
    told = docker("history", "-q", "--no-trunc", "made:2").lines
    assert len(chain) == 4 and told[:4] == [image["Id"] for image in chain], (told, chain)
    assert set(told[4:]) <= {"<missing>"} and instance.cloche("history", "-q", "--no-trunc", "made:2").lines == told, told
    assert docker.ask("GET", "/images/made:2/history")[1][2]["Tags"] == ["made:1"]
    docker("rmi", "made:2")
    docker("save", "-o", str(scratch / "made.tar"), "made:1")
    docker("rm", "one")
    assert "Untagged: made:1" in docker("rmi", "made:1").out
    docker("load", "-i", str(scratch / "made.tar"))
    docker("tag", "made:1", "other/name:2")
    assert "other/name" in docker("images", "--filter", "reference=other/*").out
    assert "No such image" in docker("rmi", "nothing:1", code=1).err


@test
def events_come_with_their_filters(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small())
    docker("run", "--rm", "--name", "one", "small:1", "true")
    out = docker("events", "--since", "1h", "--until", "-1s", "--filter", "container=one", "--format",
                 "{{.Action}}").out.split()
    assert [word for word in out if word in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy"], out
    docker("run", "-d", "--name", "two", "small:1", "sleep", "1000")
    docker("exec", "two", "echo", "a b")
    happened = [json.loads(line) for line in docker("events", "--since", "1h", "--until", "-1s", "--filter",
                                                    "container=two", "--filter", "event=exec_create",
                                                    "--format", "{{json .}}").lines]
    assert [(event["Action"], event["status"]) for event in happened] == [("exec_create: echo a b",) * 2], happened
    assert "command" not in happened[0]["Actor"]["Attributes"], happened


PYTHON = textwrap.dedent("""
    import docker
    client = docker.from_env(version="auto", timeout=60)
    assert client.ping()
    assert client.containers.run("small:1", "echo hi", remove=True) == b"hi\\n"
    one = client.containers.run("small:1", ["sh", "-c", "echo a; echo b >&2; sleep 1000"], detach=True)
    assert one.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True) == (4, (b"o\\n", b"e\\n"))
    assert client.containers.list(filters={"status": "running"}) == [one]
    assert client.containers.list(filters={"label": ["no=such"]}) == []
    assert one.logs(stderr=False) == b"a\\n"
    one.kill()
    assert one.wait()["StatusCode"] == 137
    one.remove()
    for call in (lambda: client.containers.get("nope"), lambda: client.images.get("nope")):
        try:
            call()
        except docker.errors.NotFound as error:
            assert "nope" in str(error)
        else:
            raise AssertionError("there is none")
    assert client.images.list(name="small")[0].tags == ["small:1"]
    """)


@test
def docker_py_works(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small())
    if run(DEBIAN_PYTHON, "-c", "import docker", code=None).code:
        raise Skip("python3-docker is not installed")
    run(DEBIAN_PYTHON, "-c", PYTHON, env=docker.env)


@test
def versions_are_negotiated(instance):
    docker = Docker(instance)
    assert docker.ask("GET", "/version", version="")[1]["ApiVersion"] == "1.44"
    assert docker.ask("GET", "/version", version="/v1.24")[0] == 200
    status, answer = docker.ask("GET", "/version", version="/v1.99")
    assert status == 400 and answer["message"].startswith("client version 1.99 is too new")
    status, answer = docker.ask("GET", "/version", version="/v1.12")
    assert status == 400 and answer["message"].startswith("client version 1.12 is too old")
    assert docker.ask("GET", "/nothing/here") == (404, {"message": "page not found"})
    status, answer = docker.ask("GET", "/containers/nope/json")
    assert status == 404 and answer["message"] == "No such container: nope"
    assert docker.ask("POST", "/containers/create", {"Image": 5})[0] == 400
    assert docker.ask("GET", '/containers/json?filters={"nonsense":["1"]}')[0] == 400


@test
def hostile_requests_are_refused(instance):
    docker = Docker(instance)
    host = b"Host: d\r\n"
    for request, status in (
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n" + host + b"\r\n", 505),
            (b"GET  / HTTP/1.1\r\n" + host + b"\r\n", 400),
            (b"GET http://d/ HTTP/1.1\r\n" + host + b"\r\n", 400),
            (b"GET /_ping HTTP/1.1\r\nHost : d\r\n\r\n", 400),
            (b"GET /_ping HTTP/1.1\r\n" + host + b"A: b\r\n c\r\n\r\n", 400),
            (b"GET /_ping HTTP/1.1\r\n" + host + host + b"\r\n", 400),
            (b"GET /_ping%00 HTTP/1.1\r\n" + host + b"\r\n", 400),
            (b"GET /_ping%zz HTTP/1.1\r\n" + host + b"\r\n", 400),
            (b"POST /auth HTTP/1.1\r\n" + host + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
            (b"POST /commit HTTP/1.1\r\n" + host + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
             b"0\r\n\r\nGET /_ping HTTP/1.1\r\n" + host + b"\r\n", 400),
            (b"POST /auth HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n", 400),
            (b"POST /auth HTTP/1.1\r\n" + host + b"Transfer-Encoding: gzip\r\n\r\n", 501),
            (b"POST /commit HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            (b"GET /_ping HTTP/1.1\r\n" + host + b"A: b\r\n" * 101 + b"\r\n", 431),
            (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n" + host + b"\r\n", 404),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400)):
        answer = docker.raw(request)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (request[:60], answer[:100])
        assert answer.count(b"Api-Version") == 1, answer
    assert docker.raw(b"GET /_ping HTTP/1.1\r\n" + host) == b""
    # Several requests at once are answered in order.
    twice = docker.raw(b"GET /_ping HTTP/1.1\r\n" + host + b"\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n" +
                       host + b"\r\n", end=False)
    assert twice.index(b"200 OK") < twice.index(b"404 Not Found")
    assert docker.ask("GET", "/version")[0] == 200


@test
def a_client_that_leaves_takes_its_calls_along(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small())
    docker("run", "-d", "--name", "one", "small:1", "sleep", "1000")

    def descriptors():
        return len(os.listdir(f"/proc/{instance.daemon_pid()}/fd"))
    before = descriptors()
    for path in ("/containers/one/wait", "/containers/one/attach?stream=1&stdout=1"):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(docker.path)
                sock.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
                assert sock.recv(16)
    wait_for(lambda: descriptors() <= before + 2, what="the daemon has let go of them")
    docker("rm", "-f", "one")


@test
def limits_and_policies_are_changed(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "box", "-m", "64m", "small:1", "sleep", "1000")
    docker("update", "-m", "128m", "--memory-swap", "256m", "--restart", "on-failure:4", "box")
    config = json.loads(docker("inspect", "box").out)[0]["HostConfig"]
    assert (config["Memory"], config["MemorySwap"]) == (128 << 20, 256 << 20), config
    assert config["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 4}, config
    result = docker("update", "-m", "512m", "box", code=1)
    assert "update the memoryswap at the same time" in result.err, result.err
    docker("rm", "-f", "box")


@test
def images_tell_where_they_come_from(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("create", "--name", "one", "--hostname", "named", "small:1", "sleep", "1000")
    container = docker("inspect", "-f", "{{.Id}}", "one").out.strip()
    docker("commit", "-c", "CMD other", "one", "made:1")
    base, made = json.loads(docker("inspect", "small:1", "made:1").out)
    assert (base["Parent"], base["Container"], base["ContainerConfig"]["Image"]) == ("", "", ""), base
    assert base["DockerVersion"] == "" and base["VirtualSize"] == base["Size"] > 0, base
    assert base["GraphDriver"]["Name"] == "overlay2", base
    assert base["Metadata"] == {"LastTagTime": "0001-01-01T00:00:00Z"}, base
    assert base["Config"]["AttachStdin"] is False and base["Config"]["Image"] == "", base
    assert made["Parent"] == base["Id"] and made["Container"] == container, made
    origin = made["ContainerConfig"]
    assert (origin["Image"], origin["Hostname"], origin["Cmd"]) == ("small:1", "named", ["sleep", "1000"]), origin
    assert made["Config"]["Cmd"] == ["/bin/sh", "-c", "other"] and made["Config"]["Hostname"] == "", made
    # Who is not here any more is nobody's parent, and an image's origin is not its children's.
    docker("run", "--name", "two", "made:1", "true")
    docker("commit", "two", "made:2")
    docker("rm", "one", "two")
    child = json.loads(docker("inspect", "made:2").out)[0]
    assert child["Parent"] == made["Id"] and child["Container"] != container, child
    docker("rmi", "made:1")
    assert json.loads(docker("inspect", "made:2").out)[0]["Parent"] == ""
    docker("build", "-t", "made:3", "-",
           input='FROM small:1\nHEALTHCHECK --retries=2 CMD true\nSHELL ["/bin/ash", "-c"]\nONBUILD RUN true\n')
    built = json.loads(docker("inspect", "made:3").out)[0]
    config = built["Config"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Retries": 2}, config
    assert config["Shell"] == ["/bin/ash", "-c"] and config["OnBuild"] == ["RUN true"], config
    assert built["Parent"].startswith("sha256:") and built["Container"] == "", built


@test
def what_runs_is_not_removed(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))

    def refusal(name, state, what):
        container = docker("inspect", "-f", "{{.Id}}", name).out.strip()
        status, answer = docker.ask("DELETE", f"/containers/{name}")
        assert status == 409 and answer["message"] == (
            f"You cannot remove a {state} container {container}. {what} the container before attempting "
            "removal or force remove"), answer
    docker("run", "-d", "--name", "one", "small:1", "sleep", "1000")
    refusal("one", "running", "Stop")
    docker("pause", "one")
    refusal("one", "paused", "Unpause and then stop")
    docker("rm", "-f", "one")
    docker("run", "-d", "--name", "two", "--restart", "always", "small:1", "false")
    # Each pause between attempts is twice the last.
    wait_for(lambda: json.loads(docker("inspect", "two").out)[0]["RestartCount"] >= 5,
             what="the pauses have become long")
    wait_for(lambda: docker("inspect", "-f", "{{.State.Status}}", "two").out == "restarting\n",
             what="it waits for its next attempt")
    refusal("two", "restarting", "Stop")
    docker("rm", "-f", "two")


@test
def sizes_of_what_has_no_terminal_are_nothing(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    docker("run", "-d", "--name", "one", "small:1", "sleep", "1000")
    assert docker.ask("POST", "/containers/one/resize?h=40&w=120") == (200, None)
    session = docker.ask("POST", "/containers/one/exec", {"Cmd": ["sleep", "1000"]})[1]["Id"]
    assert docker.ask("POST", f"/exec/{session}/start", {"Detach": True})[0] == 200
    assert docker.ask("POST", f"/exec/{session}/resize?h=40&w=120") == (200, None)
    assert docker.ask("POST", "/containers/one/resize?h=40&w=-1")[0] == 400
    docker("kill", "one")
    assert docker.ask("POST", "/containers/one/resize?h=40&w=120")[0] == 409
    docker("rm", "one")


@test
def ranges_of_ports_are_taken_from(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    for name, port in ("one", "18420"), ("two", "18421"):
        docker("run", "-d", "--name", name, "-p", "18420-18430:80", "small:1", "sleep", "1000")
        container = json.loads(docker("inspect", name).out)[0]
        assert container["HostConfig"]["PortBindings"]["80/tcp"] == [
            {"HostIp": "", "HostPort": "18420-18430"}], container["HostConfig"]
        assert port in [place["HostPort"] for place in container["NetworkSettings"]["Ports"]["80/tcp"]]
    for text in "18430-18420", "1-70000", "0-5", "1-", "-1", "1-2-3":
        status, answer = docker.ask("POST", "/containers/create", {
            "Image": "small:1", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": text}]}}})
        assert status == 400 and answer["message"] == f'invalid port specification: "{text}"', answer
    docker("rm", "-f", "one", "two")


@test
def isolation_is_a_word_that_is_kept(instance, images):
    docker = Docker(instance)
    docker("load", "-i", images.small("small:1"))
    for word in "", "default":
        name = docker("create", "--isolation", word, "small:1").out.strip()
        assert docker("inspect", "-f", "{{.HostConfig.Isolation}}", name).out == word + "\n"
    assert "invalid isolation 'hyperv' on linux" in docker("create", "--isolation", "hyperv", "small:1", code=1).err


if __name__ == "__main__":
    sys.exit(main())
