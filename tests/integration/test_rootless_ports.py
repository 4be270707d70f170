"""Published ports of an ordinary user's engine: the machine is outside of its namespaces."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

from harness import Outside, http_get, main, run, wait_for
from user_engine import alive, user_processes, with_engine

ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    data, peer = server.recvfrom(100)
    server.sendto(peer[0].encode(), peer)
"""


def serve(engine, name, *options, text=None):
    engine.cloche("run", "-d", "--name", name, *options, "small:1", "sh", "-c",
                  f"echo {text or name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


def refused(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), timeout=5).close()
        return False
    except ConnectionRefusedError:
        return True


@with_engine
def a_port_of_an_ordinary_user_is_reached_from_everywhere(engine):
    serve(engine, "web", "-p", "9000:80", "-p", "127.0.0.1:9001:80", "-p", "[::1]:9002:80")
    with Outside() as outside:
        assert http_get("127.0.0.1", 9000) == http_get("::1", 9000) == "web\n"
        assert outside.http_get(9000) == "web\n"
        assert http_get("127.0.0.1", 9001) == "web\n" and refused(9001, outside.here)
        assert http_get("::1", 9002) == "web\n" and refused(9002)
    assert engine.cloche("port", "web").lines == [
        "80/tcp -> 0.0.0.0:9000", "80/tcp -> 127.0.0.1:9001", "80/tcp -> [::1]:9002"]
    # From another container, by the gateway's address, as at an engine of root.
    gateway = engine.inspect("web")["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    assert engine.cloche("run", "--rm", "small:1", "wget", "-q", "-O", "-",
                         f"http://{gateway}:9000/").out == "web\n"
    engine.cloche("rm", "-f", "web")
    assert all(refused(port) for port in (9000, 9001)) and refused(9002, "::1")


@with_engine
def ports_of_an_ordinary_user_outlive_the_daemon(engine):
    serve(engine, "web", "-p", "9000:80")
    engine.kill_daemon()
    assert http_get("127.0.0.1", 9000) == "web\n", "while no daemon lives"
    assert engine.cloche("port", "web").out == "80/tcp -> 0.0.0.0:9000\n"
    assert http_get("::1", 9000) == "web\n"
    engine.cloche("restart", "-t", "0", "web")
    assert http_get("127.0.0.1", 9000) == "web\n"
    # Neither does what leads there have to live for ever.
    relays = [pid for pid in os.listdir("/proc") if pid.isdigit() and name_of(pid) == "cloche-relay"]
    assert len(relays) == 1, relays
    os.kill(int(relays[0]), signal.SIGKILL)
    wait_for(lambda: not alive(relays[0]))
    assert http_get("127.0.0.1", 9000) == "web\n"
    engine.cloche("port", "rm", "web", "9000:80")
    assert refused(9000)


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


@with_engine
def ports_of_an_ordinary_user_come_and_go(engine):
    engine.cloche("network", "create", "--ipv6", "six")
    serve(engine, "web", "--network", "six", "-p", "9000:80")
    ports = lambda: sorted(engine.cloche("port", "web").lines)
    first = ports()
    assert first == ["80/tcp -> 0.0.0.0:9000", "80/tcp -> [::]:9000"]
    for wanted, shown in (
            ("9053:53/udp", ["53/udp -> 0.0.0.0:9053", "53/udp -> [::]:9053"]),
            ("127.0.0.1:9001:80", ["80/tcp -> 127.0.0.1:9001"]),
            ("9010-9012:79-81", [f"{port}/tcp -> {host}:{port + 8931}"
                                 for port in (79, 80, 81) for host in ("0.0.0.0", "[::]")])):
        engine.cloche("port", "add", "web", wanted)
        assert ports() == sorted(first + shown), wanted
        assert "already" in engine.cloche("port", "add", "web", wanted, code=1).err
        engine.kill_daemon()
        assert ports() == sorted(first + shown), wanted
        engine.cloche("restart", "-t", "0", "web")
        assert ports() == sorted(first + shown), wanted
        engine.cloche("port", "rm", "web", wanted)
        assert ports() == first, wanted
    engine.cloche("port", "add", "web", "9010-9012:79-81")
    assert http_get("127.0.0.1", 9011) == http_get("::1", 9011) == "web\n"


@with_engine
def datagrams_reach_containers_of_an_ordinary_user(engine):
    engine.cloche("run", "-d", "--name", "echo", "-p", "9053:53/udp", "small:1", "sleep", "1000")
    settings = engine.inspect("echo")
    echo = subprocess.Popen(["nsenter", "--net", "--target", str(settings["State"]["Pid"]), sys.executable, "-c", ECHO])
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.9"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.settimeout(1)
                wait_for(lambda: heard(client, host), what="the echo")
                # Who comes is seen to come from the gateway.
                gateway = settings["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
                assert heard(client, host) == gateway.encode()
    finally:
        echo.kill()
        echo.wait()


def heard(client, host):
    try:
        client.sendto(b"word", (host, 9053))
        answer, peer = client.recvfrom(100)
        return answer if peer[0] == host else None
    except OSError:
        return None


@with_engine
def ports_that_an_ordinary_user_cannot_have_are_told(engine):
    taken = socket.create_server(("0.0.0.0", 9000))
    err = engine.cloche("run", "--rm", "-p", "9000:80", "small:1", "true", code=125).err
    assert "publish 0.0.0.0:9000/tcp: address already in use" in err, err
    taken.close()
    serve(engine, "web", "-p", "9000:80")
    err = engine.cloche("run", "--rm", "-p", "9000:80", "small:1", "true", code=125).err
    assert "port is already allocated" in err, err
    try:
        socket.create_server(("127.0.0.1", 9000))
        raise AssertionError("a program got a published port")
    except OSError as error:
        assert "in use" in str(error)
    err = engine.cloche("run", "--rm", "-p", "80:80", "small:1", "true", code=125).err
    assert "Permission denied" in err and "net.ipv4.ip_unprivileged_port_start=80" in err, err
    run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=80")
    serve(engine, "low", "-p", "80:80")
    assert http_get("127.0.0.1", 80) == "low\n"
    err = engine.cloche("run", "--rm", "-p", "9132:132/sctp", "small:1", "true", code=125).err
    assert "serves no SCTP" in err, err
    err = engine.cloche("run", "--rm", "-p", "192.0.2.77:9003:80", "small:1", "true", code=125).err
    assert "192.0.2.77:9003" in err, err


@with_engine
def ports_of_an_ordinary_user_are_chosen(engine):
    for number, name in ((8000, "first"), (8001, "second")):
        serve(engine, name, "-p", "8000-8001:80")
        assert http_get("127.0.0.1", number) == name + "\n"
    assert "8000 to 8001" in engine.cloche("run", "--rm", "-p", "8000-8001:80", "small:1", "true", code=125).err
    serve(engine, "any", "-P", "--expose", "80")
    chosen = int(engine.inspect("any")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
    assert http_get("127.0.0.1", chosen) == "any\n"


@with_engine
def what_opens_ports_for_an_ordinary_user_is_started_again(engine):
    outside = [pid for pid in os.listdir("/proc") if pid.isdigit() and name_of(pid) == "cloche-outside"]
    assert len(outside) == 1, user_processes(engine.user)
    os.kill(int(outside[0]), signal.SIGKILL)
    wait_for(lambda: not alive(outside[0]))
    err = engine.cloche("run", "--rm", "-p", "9000:80", "small:1", "true", code=125).err
    assert "the process that opens ports has ended" in err, err
    os.kill(engine.daemon_pid(), signal.SIGTERM)
    wait_for(lambda: not (engine.run_folder / "cloched.pid").exists())
    serve(engine, "web", "-p", "9000:80")
    assert http_get("127.0.0.1", 9000) == "web\n"


if __name__ == "__main__":
    main()
