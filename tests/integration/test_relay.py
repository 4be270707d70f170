"""What cloche-relay does beside rules: UDP at [::1], and sockets that keep published ports."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

from harness import http_get, main, run, test, wait_for

_ECHO = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 53))
while True:
    data, peer = server.recvfrom(65535)
    server.sendto(data + b" %d" % peer[1], peer)
"""


class Echo:
    """Answers datagrams in a container's network, with the sender's port behind the data."""

    def __init__(self, instance, name):
        pid = json.loads(instance.cloche("inspect", name).out)[0]["State"]["Pid"]
        self.process = subprocess.Popen(["nsenter", "--net", "--target", str(pid), sys.executable,
                                         "-c", _ECHO])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Client:
    def __init__(self, port, host="::1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.connect((host, port))
        self.socket.settimeout(1)

    def ask(self, data):
        """What came back, and the port the container saw; None: nothing."""
        try:
            self.socket.send(data)
            answer, _, port = self.socket.recv(65535).rpartition(b" ")
            return answer, int(port)
        except (ConnectionRefusedError, TimeoutError):
            return None

    def wait(self):
        wait_for(lambda: self.ask(b"?"), what="there is an answer")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def relay_of(instance):
    """Its process, or 0."""
    listening = run("ss", "-Hxlp", "src", f"{instance.run_folder}/relay.sock").out
    return int(listening.partition("pid=")[2].partition(",")[0] or 0)


def sleeper(instance, name, *options):
    instance.cloche("run", "-d", "--name", name, *options, "small:1", "sleep", "1000")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@test
def udp_is_reached_at_the_loopback_of_ipv6(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    sleeper(instance, "echo", "-p", "9053:53/udp", "-p", "127.0.0.1:9054:53/udp")
    with Echo(instance, "echo"), Client(9053) as one, Client(9053) as two:
        one.wait()
        large = os.urandom(50_000)
        answer, first = one.ask(large)
        assert answer == large
        second = two.ask(b"")[1]
        assert second != first, "the container tells clients apart"
        assert two.ask(b"b") == (b"b", second) and one.ask(b"a") == (b"a", first)
        with Client(9054) as elsewhere:
            assert elsewhere.ask(b"a") is None, "it is published at another address"
        relay = relay_of(instance)
        instance.kill_daemon()
        assert one.ask(b"a") == (b"a", first), "it goes on while no daemon lives"
        instance.cloche("ps")
        instance.cloche("port", "add", "echo", "9055:53/udp")
        assert one.ask(b"a") == (b"a", first), "and a flow goes on behind the next daemon"
        assert relay_of(instance) == relay
        with Client(9055) as late:
            assert late.ask(b"late")[0] == b"late"
            instance.cloche("port", "rm", "echo", "9055:53/udp")
            wait_for(lambda: late.ask(b"?") is None, what="a port that was taken back is closed")
        instance.cloche("restart", "-t", "0", "echo")
    with Echo(instance, "echo"), Client(9053) as again:
        again.wait()
    with Client(9053) as nobody:
        assert nobody.ask(b"?") is None
    instance.cloche("rm", "-f", "echo")
    wait_for(lambda: not relay_of(instance), what="nobody needs it any more")


@test
def udp_clients_have_a_limit(instance, images):
    """The one that was quiet for longest makes room."""
    instance.cloche("load", "-i", images.docker_archive())
    sleeper(instance, "echo", "-p", "9053:53/udp")
    with Echo(instance, "echo"), Client(9053) as steady:
        steady.wait()
        before = descriptors(relay_of(instance))
        port = steady.ask(b"a")[1]
        for i in range(1200):
            with Client(9053) as one:
                one.wait()
            if i % 100 == 0:
                assert steady.ask(b"a")[1] == port, "one that is in use stays"
        assert descriptors(relay_of(instance)) <= before + 512
        assert steady.ask(b"a")[1] == port


@test
def containers_with_ipv6_are_reached_by_it(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--ipv6", "six")
    sleeper(instance, "web", "--network", "six", "-p", "9000:80", "-p", "9053:53/udp")
    instance.cloche("exec", "-d", "web", "sh", "-c",
                    "echo six > /tmp/index.html; exec httpd -f -p [::]:80 -h /tmp")
    assert sorted(instance.cloche("port", "web").lines) == [
        "53/udp -> 0.0.0.0:9053", "53/udp -> [::]:9053", "80/tcp -> 0.0.0.0:9000",
        "80/tcp -> [::]:9000"]
    with Echo(instance, "web"), Client(9053) as client, Client(9053, "127.0.0.1") as old:
        client.wait()
        old.wait()
        for _ in range(2):
            assert http_get("::1", 9000) == "six\n" and http_get("127.0.0.1", 9000) == "six\n"
            assert client.ask(b"a")[0] == b"a"
            instance.kill_daemon()
            instance.cloche("ps")
        os.kill(relay_of(instance), signal.SIGKILL)
        client.wait()
    for _ in range(3):
        instance.cloche("restart", "-t", "0", "web")
    instance.cloche("exec", "-d", "web", "sh", "-c", "exec httpd -f -p [::]:80 -h /tmp")
    assert http_get("::1", 9000) == "six\n"


def bind(port, host="0.0.0.0", kind=socket.SOCK_STREAM, options=(), listen=True):
    """A socket, or None where the port is somebody's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    result = socket.socket(family, kind)
    try:
        for option in options:
            result.setsockopt(socket.SOL_SOCKET, option, 1)
        result.bind((host, port))
        if listen and kind == socket.SOCK_STREAM:
            result.listen()
    except OSError as error:
        result.close()
        assert error.errno == errno.EADDRINUSE, error
        return None
    return result


_SHARING = ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,),
            (socket.SO_REUSEADDR, socket.SO_REUSEPORT))


def is_held(port, host="0.0.0.0", kind=socket.SOCK_STREAM):
    """Nobody can bind to it, whatever he shares."""
    got = []
    for options in _SHARING:
        each = bind(port, host, kind, options)
        got.append(each is None)
        if each:
            each.close()
    assert len(set(got)) == 1, (port, host, got)
    return got[0]


def is_free(port, host="0.0.0.0", kind=socket.SOCK_STREAM):
    """But for connections that have ended a moment ago."""
    got = bind(port, host, kind, (socket.SO_REUSEADDR,))
    if got:
        got.close()
    return got is not None


def all_are_held(ports):
    return all(is_held(*port) for port in ports)


@test
def no_other_program_binds_to_a_published_port(instance, images):
    udp = socket.SOCK_DGRAM
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("run", "-d", "--name", "web", "-p", "9000:80", "-p", "9053:53/udp", "-p",
                    "127.0.0.1:9001:80", "small:1", "sh", "-c",
                    "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    assert http_get("127.0.0.1", 9000) == "hello\n" and http_get("::1", 9000) == "hello\n"
    held = [(9000,), (9000, "127.0.0.1"), (9000, "::"), (9000, "::1"), (9053, "0.0.0.0", udp),
            (9053, "::", udp), (9001, "127.0.0.1"), (9001,)]
    assert all_are_held(held)
    assert not is_held(9001, "127.0.0.2"), "it is published at another address"
    relay = relay_of(instance)
    instance.kill_daemon()
    assert all_are_held(held), "while no daemon lives"
    instance.cloche("ps")
    os.kill(relay, signal.SIGKILL)
    assert all_are_held(held), "by the next daemon, which has them from the relay"
    wait_for(lambda: relay_of(instance) not in (0, relay), what="it is started again")
    instance.kill_daemon()
    assert all_are_held(held), "by the next relay, which has them from the daemon"
    assert http_get("127.0.0.1", 9000) == "hello\n" and http_get("::1", 9000) == "hello\n"
    for _ in range(3):
        instance.cloche("restart", "-t", "0", "web")
    assert all_are_held(held), "after restarts"
    instance.cloche("port", "rm", "web", "9000:80")
    wait_for(lambda: is_free(9000) and is_free(9000, "::"), what="a port is given back")
    instance.cloche("port", "add", "web", "9000:80")
    assert is_held(9000) and http_get("::1", 9000) == "hello\n"
    instance.kill_daemon()
    instance.cloche("rm", "-f", "web")
    wait_for(lambda: all(is_free(*port) for port in held), what="all are given back")


@test
def a_port_that_a_program_has_is_refused(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--ipv6", "six")
    for kind, suffix in ((socket.SOCK_STREAM, ""), (socket.SOCK_DGRAM, "/udp")):
        for host in ("0.0.0.0", "127.0.0.1", "::", "::1"):
            for options in _SHARING:
                taken = bind(9100, host, kind, options)
                assert taken, (host, options)
                result = instance.cloche("run", "--rm", "--network", "six", "-p", f"9100:80{suffix}",
                                         "small:1", "true", code=None)
                assert "address already in use" in result.err, (host, options, result)
                assert result.code == 125
                taken.close()
    instance.cloche("run", "--rm", "--network", "six", "-p", "9100:80", "small:1", "true")
    sleeper(instance, "web", "-p", "9100:80")
    result = instance.cloche("run", "--rm", "-p", "9100:80", "small:1", "true", code=125)
    assert "port is already allocated" in result.err, result
    taken = bind(9101)
    assert "address already in use" in instance.cloche("port", "add", "web", "9101:80", code=1).err
    taken.close()
    instance.cloche("port", "add", "web", "9101:80")


@test
def a_program_that_was_faster_is_no_obstacle(instance, images):
    """Everything of ours is dead when somebody takes the port: the container has it still."""
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("run", "-d", "--name", "web", "-p", "9000:80", "small:1", "sh", "-c",
                    "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    assert http_get("127.0.0.1", 9000) == "hello\n"
    relay = relay_of(instance)
    instance.kill_daemon()
    os.kill(relay, signal.SIGKILL)
    wait_for(lambda: is_free(9000), what="nobody keeps it")
    with bind(9000):
        instance.cloche("ps")
        assert http_get("127.0.0.1", 9000) == "hello\n"
    instance.kill_daemon()
    instance.cloche("ps")
    assert is_held(9000), "it is ours again"


@test
def who_reads_again_is_told_everything(instance, images):
    """More descriptors than the daemon keeps for a relay that stands still."""
    instance.cloche("load", "-i", images.small("small:1"))
    sleeper(instance, "first", "-p", "18090:80")
    server = relay_of(instance)
    os.kill(server, signal.SIGSTOP)
    try:
        sleeper(instance, "many", "-p", "21000-21799:21000-21799")
        wait_for(lambda: "does not read" in (instance.run_folder / "cloched.log").read_text())
        assert descriptors(instance.daemon_pid()) < 6000
    finally:
        os.kill(server, signal.SIGCONT)
    wait_for(lambda: descriptors(server) > 1600, timeout=150, what="it has the sockets of all ports")
    sleeper(instance, "last", "-p", "18091:80")
    instance.kill_daemon()
    assert all_are_held([(port,) for port in (18090, 18091, 21000, 21400, 21799)])
    instance.cloche("rm", "-f", "first", "many", "last")


# A relay as version 1 was: it listens at [::1], holds what it accepts, and knows two messages of 96
# bytes: 1, no port of a container any more, and 2, one of them with its socket.
_OLD_RELAY = """
import os, select, socket, struct, sys
path, port = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen()
served = socket.socket(socket.AF_INET6)
served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
served.bind(("::1", port))
served.listen()
print("ready", flush=True)
peer, _ = served.accept()
print("connected", flush=True)
control, _ = listener.accept()
while True:
    message, fds, _, _ = socket.recv_fds(control, 4096, 4)
    for fd in fds:
        os.close(fd)
    if not message:
        break
    if len(message) == 96 and struct.unpack_from("=HH", message) == (1, 1) and served.fileno() >= 0:
        served.close()
        print("cleared", message[24:].partition(b"\\0")[0].decode(), flush=True)
control.close()
while data := peer.recv(100):
    peer.send(data.upper())
"""


@test
def a_relay_of_an_engine_before_gives_way(instance, images):
    """Ports are served on, and what is connected through it stays so."""
    instance.cloche("load", "-i", images.small("small:1"))
    instance.cloche("run", "-d", "--name", "web", "-p", "18095:80", "small:1", "sh", "-c",
                    "mkdir /w; echo new > /w/index.html; exec httpd -f -p 80 -h /w")
    web = json.loads(instance.cloche("inspect", "web").out)[0]["Id"]
    instance.kill_daemon()
    os.kill(relay_of(instance), signal.SIGKILL)
    wait_for(lambda: not relay_of(instance))
    path = instance.run_folder / "relay.sock"
    path.unlink()
    old = subprocess.Popen([sys.executable, "-c", _OLD_RELAY, path, "18095"], stdout=subprocess.PIPE, text=True)
    try:
        assert old.stdout.readline() == "ready\n"
        with socket.create_connection(("::1", 18095)) as connection:
            assert old.stdout.readline() == "connected\n"
            instance.start_daemon()
            assert old.stdout.readline() == f"cleared {web}\n"
            assert http_get("::1", 18095) == "new\n"
            connection.send(b"still there")
            assert connection.recv(100) == b"STILL THERE"
        assert old.wait(60) == 0
    finally:
        old.kill()
        old.communicate()
    # One of ours is kept.
    now = relay_of(instance)
    instance.kill_daemon()
    instance.start_daemon()
    assert now and relay_of(instance) == now and http_get("::1", 18095) == "new\n"
    instance.cloche("rm", "-f", "web")


def helpers(instance):
    """The processes of relay and name server; 0: it is not there."""
    found = []
    for name in ("relay", "names"):
        listening = run("ss", "-Hxlp", "src", f"{instance.run_folder}/{name}.sock").out
        found.append(int(listening.partition("pid=")[2].partition(",")[0] or 0))
    return found


@test
def helpers_come_back_as_often_as_they_die(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    instance.cloche("run", "-d", "--name", "web", "--network", "one", "-p", "9000:80", "small:1",
                    "sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    sleeper(instance, "client", "--network", "one")
    fetch = lambda: instance.cloche("exec", "client", "wget", "-q", "-O", "-", "http://web/",
                                    code=None).out
    for _ in range(5):
        before = helpers(instance)
        assert all(before)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: all(helpers(instance)) and not set(helpers(instance)) & set(before),
                 what="both are started again")
        wait_for(lambda: fetch() == "hello\n", what="names are answered")
        assert http_get("::1", 9000) == "hello\n" and is_held(9000)


@test
def a_helper_that_cannot_be_started_is_tried_again(instance, images):
    """Its socket's name is a folder's: neither a connection nor a new program has a place."""
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    sleeper(instance, "client", "--network", "one")
    path = f"{instance.run_folder}/names.sock"
    program = helpers(instance)[1]
    os.unlink(path)
    os.mkdir(path)
    os.kill(program, signal.SIGKILL)
    sleeper(instance, "second", "--network", "one")
    wait_for(lambda: "cloche-names is gone" in (instance.run_folder / "cloched.log").read_text(), what="the daemon has tried")
    os.rmdir(path)
    wait_for(lambda: helpers(instance)[1], what="it is started when it can be")
    wait_for(lambda: instance.cloche("exec", "client", "nslookup", "second", code=None).code == 0,
             what="names are answered")


if __name__ == "__main__":
    sys.exit(main())
