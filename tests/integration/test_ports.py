"""Published ports and the network of containers, through the command line."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys

from harness import Outside, http_get, main, run, test, wait_for


def serve(instance, name, port, text, *options):
    instance.cloche("run", "-d", "--name", name, "-p", port, *options, "small:1", "sh", "-c",
                    f"echo {text} > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


def address(instance, name):
    return json.loads(instance.cloche("inspect", name).out)[0]["NetworkSettings"]["IPAddress"]


def fetch_inside(instance, name, url):
    return instance.cloche("exec", name, "wget", "-q", "-O", "-", url, code=None)


@test
def a_published_port_is_reached_from_everywhere(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    with Outside() as outside:
        serve(instance, "web", "9000:80", "hello")
        serve(instance, "client", "9001:80", "client")
        assert http_get("127.0.0.1", 9000) == "hello\n"
        assert outside.http_get(9000) == "hello\n"
        assert fetch_inside(instance, "client", f"http://{outside.here}:9000/").out == "hello\n"
        assert fetch_inside(instance, "client", f"http://{address(instance, 'web')}/").out \
            == "hello\n"
        assert fetch_inside(instance, "web", f"http://{outside.here}:9000/").out == "hello\n"
        instance.cloche("stop", "-t", "0", "web")
        assert outside.run("sh", "-c", f"echo > /dev/tcp/{outside.here}/9000", code=None).code != 0
        instance.cloche("start", "web")
        assert outside.http_get(9000) == "hello\n"


def relay_of(instance):
    """Its process, or 0."""
    listening = run("ss", "-Hxlp", "src", f"{instance.run_folder}/relay.sock").out
    return int(listening.partition("pid=")[2].partition(",")[0] or 0)


def refused(port):
    try:
        socket.create_connection(("::1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


@test
def a_published_port_is_reached_at_the_loopback_of_ipv6(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "9000:80", "hello", "-p", "127.0.0.1:9001:80", "-p", "9002:81")
    assert http_get("::1", 9000) == "hello\n"
    assert refused(9001), "it is published at another address"
    relay = relay_of(instance)
    assert relay
    instance.cloche("exec", "-d", "web", "sh", "-c", "while :; do nc -l -p 81 -e sha256sum; done")
    data = os.urandom(5_000_000)

    def digest():
        """Both directions, the end of one before the other's."""
        with socket.create_connection(("::1", 9002), timeout=60) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile().read().split()[:1] == [hashlib.sha256(data).hexdigest()]

    wait_for(lambda: _quietly(digest), what="the other server listens")
    with socket.create_connection(("::1", 9000)) as slow:
        instance.kill_daemon()
        assert http_get("::1", 9000) == "hello\n"
        serve(instance, "second", "9003:80", "second")  # the next daemon finds it
        assert http_get("::1", 9003) == "second\n" and relay_of(instance) == relay
        instance.cloche("port", "rm", "second", "9003:80")
        wait_for(lambda: refused(9003), what="a port that was taken back is closed")
        instance.cloche("port", "add", "second", "9004:80")
        assert http_get("::1", 9004) == "second\n"
        slow.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert slow.makefile().read().endswith("hello\n"), "a connection outlives the daemon"
    os.kill(relay, signal.SIGKILL)
    wait_for(lambda: relay_of(instance) not in (0, relay), what="it is started again")
    assert http_get("::1", 9000) == "hello\n"
    with socket.create_server(("::1", 9005), family=socket.AF_INET6) as others:
        serve(instance, "third", "9005:80", "third")
        assert http_get("127.0.0.1", 9005) == "third\n"
        with socket.create_connection(("::1", 9005)):
            others.settimeout(60)
            others.accept()[0].close()
    instance.kill_daemon()
    pid = json.loads(instance.cloche("inspect", "web").out)[0]["State"]["Pid"]
    instance.kill_daemon()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: refused(9000), what="the port of a container that has ended is closed")
    instance.cloche("rm", "-f", "web", "second", "third")
    wait_for(lambda: not relay_of(instance), what="nobody needs it any more")
    run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
    try:
        serve(instance, "fourth", "9006:80", "fourth")
        assert http_get("127.0.0.1", 9006) == "fourth\n"
    finally:
        run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
    instance.cloche("rm", "-f", "fourth")
    wait_for(lambda: relay_of(instance) == 0, what="it ends when nobody needs it")


def _quietly(function):
    try:
        return function()
    except OSError:
        return False


@test
def ports_that_are_taken_are_refused(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "9000:80", "hello")
    result = instance.cloche("run", "-d", "--name", "second", "-p", "9000:80", "small:1", "true",
                             code=125)
    assert "9000" in result.err, result
    assert http_get("127.0.0.1", 9000) == "hello\n"
    instance.cloche("rm", "-f", "second", code=None)


@test
def a_port_is_chosen_and_shown(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "80", "chosen")
    ports = json.loads(instance.cloche("inspect", "web").out)[0]["NetworkSettings"]["Ports"]
    chosen = int(ports["80/tcp"][0]["HostPort"])
    assert http_get("127.0.0.1", chosen) == "chosen\n"
    assert f"{chosen}->80/tcp" in instance.cloche("ps").out


@test
def exposed_ports_are_published_at_free_ones(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("run", "-d", "--name", "web", "-P", "--expose", "80", "--expose", "82-83/udp",
                    "-p", "9000:90", "small:1", "sh", "-c",
                    "echo exposed > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    ports = json.loads(instance.cloche("inspect", "web").out)[0]["NetworkSettings"]["Ports"]
    assert set(ports) == {"80/tcp", "82/udp", "83/udp", "90/tcp"}, ports
    assert [each["HostPort"] for each in ports["90/tcp"]] == ["9000"], ports
    assert http_get("127.0.0.1", int(ports["80/tcp"][0]["HostPort"])) == "exposed\n"
    instance.cloche("run", "-d", "--name", "silent", "--expose", "80", "small:1", "sleep", "1000")
    assert instance.cloche("port", "silent").out == ""


@test
def ranges_of_ports(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    for number, name in ((8000, "first"), (8001, "second")):
        serve(instance, name, "8000-8001:80", name)
        assert instance.cloche("port", name).out == f"80/tcp -> 0.0.0.0:{number}\n"
        assert http_get("127.0.0.1", number) == name + "\n"
    assert "8000 to 8001" in instance.cloche("run", "--rm", "-p", "8000-8001:80", "small:1", "true",
                                             code=125).err
    serve(instance, "each", "8010-8012:79-81", "each")
    assert http_get("127.0.0.1", 8011) == "each\n"
    assert instance.cloche("port", "each").lines == [f"{port}/tcp -> 0.0.0.0:{port + 7931}"
                                                     for port in (79, 80, 81)]
    assert "ranges" in instance.cloche("run", "--rm", "-p", "8020-8022:80-81", "small:1", "true",
                                       code=125).err.lower()


_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    data, peer = server.recvfrom(100)
    server.sendto(data, peer)
"""


@test
def other_protocols_are_published(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("run", "-d", "--name", "echo", "-p", "9053:53/udp", "-p", "9132:132/sctp",
                    "small:1", "sleep", "1000")
    assert sorted(instance.cloche("port", "echo").lines) == ["132/sctp -> 0.0.0.0:9132",
                                                             "53/udp -> 0.0.0.0:9053"]
    pid = json.loads(instance.cloche("inspect", "echo").out)[0]["State"]["Pid"]
    echo = subprocess.Popen(["nsenter", "--net", "--target", str(pid), sys.executable, "-c", _ECHO])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)

            def heard():
                client.sendto(b"word", ("127.0.0.1", 9053))
                return client.recv(100) == b"word"

            wait_for(lambda: _quietly(heard), what="the echo")
    finally:
        echo.kill()
        echo.wait()
    assert "already" in instance.cloche("run", "--rm", "-p", "9053:53/udp", "small:1", "true",
                                        code=125).err


@test
def a_firewall_of_the_machine_wins(instance, images):
    """A drop where packets are forwarded, and the rule that lets published ports through."""
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "9000:80", "hello")
    with Outside() as outside:
        reached = lambda: outside.run("timeout", "1", "bash", "-c",
                                      f"echo > /dev/tcp/{outside.here}/9000", code=None).code == 0
        assert outside.http_get(9000) == "hello\n"
        run("nft", "add", "table", "inet", "firewall")
        try:
            run("nft", "add chain inet firewall forward "
                       "{ type filter hook forward priority 10; policy drop; }")
            assert not reached()
            assert http_get("127.0.0.1", 9000) == "hello\n"
            run("nft", "add rule inet firewall forward ct state established,related accept")
            run("nft", "add rule inet firewall forward ct status dnat accept")
            assert outside.http_get(9000) == "hello\n"
        finally:
            run("nft", "delete", "table", "inet", "firewall")


@test
def a_firewall_of_the_machine_wins_over_every_family_and_protocol(instance, images):
    """A drop policy of input is not asked, one of forward is, until it lets published ports through."""
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--ipv6", "six")
    serve(instance, "web", "9000:80", "hello", "--network", "six", "-p", "9053:53/udp")
    pid = json.loads(instance.cloche("inspect", "web").out)[0]["State"]["Pid"]
    echo = subprocess.Popen(["nsenter", "--net", "--target", str(pid), sys.executable, "-c", _ECHO])
    try:
        with Outside() as outside:
            run("ip", "addr", "add", "2001:db8:1::1/64", "dev", "outside0", "nodad")
            outside.run("ip", "addr", "add", "2001:db8:1::2/64", "dev", "eth0", "nodad")
            reached = lambda: outside.run(sys.executable, "-c", _REACHES, outside.here,
                                          "2001:db8:1::1").out.split()
            wait_for(lambda: reached() == ["tcp4", "tcp6", "udp4"], what="all are reached")
            run("nft", "add", "table", "inet", "firewall")
            try:
                run("nft", "add chain inet firewall input "
                           "{ type filter hook input priority 0; policy drop; }")
                run("nft", "add rule inet firewall input icmpv6 type nd-neighbor-solicit accept")
                run("nft", "add rule inet firewall input icmpv6 type nd-neighbor-advert accept")
                assert reached() == ["tcp4", "tcp6", "udp4"], "input sees none of it"
                run("nft", "add chain inet firewall forward "
                           "{ type filter hook forward priority -10; policy drop; }")
                assert not reached()
                run("nft", "add rule inet firewall forward ct state established,related accept")
                run("nft", "add rule inet firewall forward ct status dnat accept")
                assert reached() == ["tcp4", "tcp6", "udp4"]
            finally:
                run("nft", "delete", "table", "inet", "firewall")
    finally:
        echo.kill()
        echo.wait()


_REACHES = """
import socket, sys
for name, family, host in (("tcp4", socket.AF_INET, sys.argv[1]), ("tcp6", socket.AF_INET6, sys.argv[2])):
    try:
        socket.create_connection((host, 9000), timeout=1).close()
        print(name)
    except OSError:
        pass
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(1)
try:
    client.sendto(b"?", (sys.argv[1], 9053))
    client.recv(100)
    print("udp4")
except OSError:
    pass
"""


@test
def rules_that_were_flushed_come_back_under_running_connections(instance, images):
    """At once while a daemon lives; when none does the next one puts them back."""
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "9000:80", "hello")
    has_rules = lambda: run("nft", "list", "table", "inet", instance.nft_table, code=None).code == 0
    with Outside() as outside:
        for daemon_lives in (True, False):
            client = subprocess.Popen(["nsenter", "--net", "--target", str(outside.keeper.pid), sys.executable,
                                       "-c", _SLOW, outside.here],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert client.stdout.readline() == "connected\n"
            if not daemon_lives:
                instance.kill_daemon()
            run("nft", "flush", "ruleset")
            if not daemon_lives:
                assert not has_rules()
                instance.cloche("ps")
            wait_for(has_rules, timeout=5, what="the rules are back")
            out = client.communicate("go\n")[0]
            assert "200 OK" in out and "hello" in out, out
            assert outside.http_get(9000) == "hello\n"


_SLOW = """
import socket, sys
with socket.create_connection((sys.argv[1], 9000), timeout=30) as connection:
    print("connected", flush=True)
    sys.stdin.readline()
    connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(connection.makefile().read())
"""


@test
def ports_of_every_kind_come_and_go_at_run_time(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--ipv6", "six")
    serve(instance, "web", "9000:80", "hello", "--network", "six")
    ports = lambda: sorted(instance.cloche("port", "web").lines)
    first = ports()
    assert first == ["80/tcp -> 0.0.0.0:9000", "80/tcp -> [::]:9000"]
    for wanted, shown in (
            ("9053:53/udp", ["53/udp -> 0.0.0.0:9053", "53/udp -> [::]:9053"]),
            ("127.0.0.1:9001:80", ["80/tcp -> 127.0.0.1:9001"]),
            ("[::]:9002:80", ["80/tcp -> [::]:9002"]),
            ("9010-9012:79-81", [f"{port}/tcp -> {host}:{port + 8931}"
                                 for port in (79, 80, 81) for host in ("0.0.0.0", "[::]")]),
            ("9020-9021:20-21/udp", [f"{port}/udp -> {host}:{port + 9000}"
                                     for port in (20, 21) for host in ("0.0.0.0", "[::]")]),
            ("9132:132/sctp", ["132/sctp -> 0.0.0.0:9132", "132/sctp -> [::]:9132"])):
        instance.cloche("port", "add", "web", wanted)
        assert ports() == sorted(first + shown), wanted
        instance.kill_daemon()
        assert ports() == sorted(first + shown), wanted
        instance.cloche("restart", "-t", "0", "web")
        assert ports() == sorted(first + shown), wanted
        assert "already" in instance.cloche("port", "add", "web", wanted, code=1).err
        assert ports() == sorted(first + shown), "nothing is half done"
        instance.cloche("port", "rm", "web", wanted)
        assert ports() == first, wanted
    instance.cloche("port", "add", "web", "9010-9012:79-81")
    assert http_get("127.0.0.1", 9011) == "hello\n" and http_get("::1", 9011) == "hello\n"
    taken = socket.create_server(("127.0.0.1", 9031))
    assert "in use" in instance.cloche("port", "add", "web", "9030-9032:79-81", code=1).err
    taken.close()
    instance.cloche("port", "add", "web", "9030-9032:79-81")
    assert http_get("::1", 9031) == "hello\n", "what was taken back is free"


@test
def a_port_at_the_loopback_of_ipv6_alone(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--ipv6", "six")
    for network in ("bridge", "six"):
        serve(instance, "web", "[::1]:9000:80", network, "--network", network)
        assert instance.cloche("port", "web").out == "80/tcp -> [::1]:9000\n"
        for _ in range(2):
            assert http_get("::1", 9000) == network + "\n"
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", 9000)) != 0
            assert "already" in instance.cloche("run", "--rm", "-p", "[::1]:9000:80", "small:1",
                                                "true", code=125).err
            instance.kill_daemon()
        instance.cloche("restart", "-t", "0", "web")
        assert http_get("::1", 9000) == network + "\n"
        instance.cloche("port", "rm", "web", "[::1]:9000:80")
        wait_for(lambda: refused(9000), what="it is taken back")
        instance.cloche("port", "add", "web", "[::1]:9000:80")
        assert http_get("::1", 9000) == network + "\n"
        instance.cloche("rm", "-f", "web")
    assert "SCTP" in instance.cloche("run", "--rm", "-p", "[::1]:9000:80/sctp", "small:1", "true",
                                     code=125).err
    with socket.create_server(("::1", 9000), family=socket.AF_INET6):
        assert "in use" in instance.cloche("run", "--rm", "-p", "[::1]:9000:80", "small:1", "true",
                                           code=125).err


@test
def two_instances_live_side_by_side(instance, other, images):
    for each, port in ((instance, "9000:80"), (other, "9001:80")):
        each.cloche("load", "-i", images.docker_archive())
        serve(each, "web", port, each.name)
    assert http_get("127.0.0.1", 9000) == instance.name + "\n"
    assert http_get("127.0.0.1", 9001) == other.name + "\n"
    assert len(instance.cloche("ps", "-q").lines) == 1
    instance.cloche("system", "remove", "--force")
    assert http_get("127.0.0.1", 9001) == other.name + "\n"
    result = other.cloche("run", "--rm", "small:1", "ip", "route")
    assert "default via" in result.out, result


@test
def containers_find_names_and_the_outside(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    with Outside() as outside:
        server = outside_server(outside)
        try:
            out = containers_view(instance, outside)
        finally:
            server.kill()
            server.wait()
    assert out.startswith("box\n1\n"), out
    with open("/etc/hostname", encoding="utf-8") as file:
        assert out.endswith(file.read()), out


def containers_view(instance, outside):
    script = f"hostname; grep -c box /etc/hosts; wget -q -O - http://{outside.there}:8000/hostname"
    return instance.cloche("run", "--rm", "--hostname", "box", "small:1", "sh", "-c", script).out


def outside_server(outside):
    server = subprocess.Popen(["nsenter", "--net", "--target", str(outside.keeper.pid), "busybox",
                               "httpd", "-f", "-p", "8000", "-h", "/etc"])
    wait_for(lambda: outside.run("busybox", "wget", "-q", "-O", "-",
                                 "http://127.0.0.1:8000/hostname", code=None).code == 0)
    return server


if __name__ == "__main__":
    main()
