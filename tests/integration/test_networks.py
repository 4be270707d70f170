"""Networks through the command line: isolation, names, connect and disconnect, ports at run time."""

import json
import os
import signal
import socket
import subprocess
import sys

from harness import Outside, http_get, main, run, test, wait_for

# A resolver at 127.0.0.1 that knows one long answer: cut over UDP, whole over TCP, except for names
# that begin with "u", for which it does not speak TCP, and with "b", for which it is silent.
_RESOLVER = """
import socket, struct, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 53))
tcp = socket.create_server(("127.0.0.1", 53))
def answer(query, flags, records):
    text = bytes([200]) + b"x" * 200
    record = b"\\xc0\\x0c" + struct.pack(">HHIH", 16, 1, 60, len(text)) + text
    return query[:2] + struct.pack(">HHHHH", flags, 1, records, 0, 0) + query[12:] + record * records
def serve():
    while True:
        query, peer = udp.recvfrom(4096)
        if query[13:14] != b"b":
            udp.sendto(answer(query, 0x8380, 0), peer)
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
while True:
    connection = tcp.accept()[0]
    query = connection.recv(4096)[2:]
    if query[13:14] != b"u":
        reply = answer(query, 0x8180, 300)
        connection.sendall(struct.pack(">H", len(reply)) + reply)
    connection.close()
"""

# Prints length, flags and number of records of the answer over UDP or TCP.
_ASK = """
import socket, struct, sys
name = b"".join(bytes([len(word)]) + word for word in sys.argv[2].encode().split(b".")) + b"\\0"
query = struct.pack(">HHHHHH", 77, 0x100, 1, 0, 0, 0) + name + struct.pack(">HH", 16, 1)
if sys.argv[1] == "tcp":
    peer = socket.create_connection(("127.0.0.11", 53), 10)
    peer.sendall(struct.pack(">H", len(query)) + query)
    data = b""
    while len(data) < 2 or len(data) < 2 + struct.unpack_from(">H", data)[0]:
        part = peer.recv(65536)
        assert part, len(data)
        data += part
    data = data[2:]
else:
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.settimeout(10)
    peer.sendto(query, ("127.0.0.11", 53))
    data = peer.recv(4096)
if sys.argv[1] == "udp" and sys.argv[3:]:
    for number in range(int(sys.argv[3])):
        peer.sendto(struct.pack(">H", number) + query[2:], ("127.0.0.11", 53))
number, flags, _, records = struct.unpack_from(">HHHH", data)
assert number == 77
print(len(data), hex(flags), records)
"""


def serve(instance, name, network, *options):
    instance.cloche("run", "-d", "--name", name, "--network", network, *options, "small:1", "sh",
                    "-c", f"echo {name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


def fetch(instance, name, host, port=80):
    return instance.cloche("exec", name, "timeout", "2", "wget", "-q", "-O", "-", f"http://{host}:{port}/",
                           code=None).out


def inspect(instance, name):
    return json.loads(instance.cloche("inspect", name).out)[0]


def networks(instance, name):
    return json.loads(instance.cloche("rpc", "call", "container.inspect",
                                      f"container={name}").out)["network"]["networks"]


def address(instance, name, network):
    return {place["network"]: place for place in networks(instance, name)}[network]["address"]


@test
def networks_are_made_listed_and_removed(instance, images):
    made = instance.cloche("network", "create", "--label", "a=b", "--subnet", "10.99.0.0/24",
                           "--ip-range", "10.99.0.128/25", "front").out.strip()
    names = instance.cloche("network", "ls", "--format", "{{.Name}} {{.Driver}}").out
    assert names == "bridge bridge\nfront bridge\nhost host\nnone null\n", names
    assert instance.cloche("network", "ls", "-q", "--no-trunc", "-f", "label=a=b").out.strip() == made
    shown = json.loads(instance.cloche("network", "inspect", "front").out)[0]
    assert shown["Id"] == made and shown["Labels"] == {"a": "b"}
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.99.0.0/24", "IPRange": "10.99.0.128/25",
                                        "Gateway": "10.99.0.1"}], shown
    assert "already exists" in instance.cloche("network", "create", "front", code=1).err
    assert "overlaps" in instance.cloche("network", "create", "--subnet", "10.99.0.0/16", "b",
                                         code=1).err
    for subnet in ("127.1.0.0/16", "224.1.0.0/16", "0.0.0.0/8", "::/64", "ff05::/64"):
        assert "no network's" in instance.cloche("network", "create", "--subnet", subnet, "b",
                                                 code=1).err
    assert "cannot be a bridge's name" in instance.cloche(
        "network", "create", "-o", "com.docker.network.bridge.name=x%d", "b", code=1).err
    assert "pre-defined" in instance.cloche("network", "rm", "bridge", code=1).err
    assert instance.cloche("network", "rm", "front").out == "front\n"
    assert "not found" in instance.cloche("network", "rm", "front", code=1).err
    instance.cloche("network", "rm", "-f", "front")


@test
def networks_are_isolated(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    for network in ("one", "two"):
        instance.cloche("network", "create", network)
        serve(instance, "in-" + network, network)
    serve(instance, "mate", "one")
    assert fetch(instance, "mate", address(instance, "in-one", "one")) == "in-one\n"
    assert fetch(instance, "mate", address(instance, "in-two", "two")) == ""
    assert "active endpoints" in instance.cloche("network", "rm", "one", code=1).err
    assert instance.cloche("network", "prune", "-f").out == ""
    instance.cloche("rm", "-f", "mate", "in-one", "in-two")
    assert instance.cloche("network", "prune", "-f").out == "Deleted Networks:\none\ntwo\n\n"


@test
def containers_are_connected_and_disconnected_while_they_run(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    instance.cloche("network", "create", "--subnet", "10.98.0.0/24", "two")
    serve(instance, "web", "one")
    serve(instance, "client", "two")
    instance.cloche("network", "connect", "--ip", "10.98.0.77", "two", "web")
    assert fetch(instance, "client", "10.98.0.77") == "web\n"
    assert "already exists" in instance.cloche("network", "connect", "two", "web", code=1).err
    instance.kill_daemon()
    assert fetch(instance, "client", "10.98.0.77") == "web\n"
    instance.cloche("network", "disconnect", "two", "web")
    assert fetch(instance, "client", "10.98.0.77") == ""
    assert "eth1" not in instance.cloche("exec", "web", "ip", "link").out
    instance.cloche("network", "connect", "--ip", "10.98.0.78", "two", "web")
    instance.cloche("stop", "-t", "0", "web")
    instance.cloche("start", "web")
    wait_for(lambda: fetch(instance, "client", "10.98.0.78") == "web\n", what="it serves again")
    assert "not connected" in instance.cloche("network", "disconnect", "bridge", "web", code=1).err


@test
def ports_are_published_and_taken_back_at_run_time(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    serve(instance, "web", "one")
    with Outside() as outside:
        instance.cloche("port", "add", "web", "9000:80")
        assert outside.http_get(9000) == "web\n"
        assert instance.cloche("port", "web").out == "80/tcp -> 0.0.0.0:9000\n"
        assert instance.cloche("port", "web", "80").out == "0.0.0.0:9000\n"
        instance.cloche("restart", "-t", "0", "web")
        assert outside.http_get(9000) == "web\n"
        with socket.create_connection(("127.0.0.1", 9000)) as under_way:
            instance.cloche("port", "rm", "web", "9000:80")
            try:
                under_way.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert under_way.recv(100) == b"reset"
            except ConnectionResetError:
                pass
        assert instance.cloche("port", "web").out == ""
        assert outside.run("sh", "-c", f"echo > /dev/tcp/{outside.here}/9000", code=None).code != 0
        assert "No public port" in instance.cloche("port", "rm", "web", "9000:80", code=1).err


@test
def connections_that_do_not_end_keep_no_address(instance, images):
    """A killed container's kernel says FIN for two minutes to who does not answer; its address is
    another's at once, and its link goes."""
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--subnet", "10.97.0.0/24", "one")
    links = lambda: dict(socket.if_nameindex())
    fixed = ["--ip", "10.97.0.77", "--mac-address", "02:00:00:00:00:77"]
    serve(instance, "client", "one")
    with Outside() as outside:
        listener = subprocess.Popen(
            ["nsenter", "--net", "--target", str(outside.keeper.pid), sys.executable, "-c",
             "import socket, time; s = socket.create_server(('0.0.0.0', 80)); print(flush=True); "
             "kept = [(s.accept(), print(flush=True)) for _ in 'ab']; time.sleep(1000)"],
            stdout=subprocess.PIPE)
        try:
            listener.stdout.readline()
            before = links()
            serve(instance, "old", "one", *fixed)
            (old,) = links().keys() - before.keys()
            serve(instance, "other", "one")
            (other,) = links().keys() - before.keys() - {old}
            for name in ("old", "other"):
                instance.cloche("exec", "-d", name, "sh", "-c", f"sleep 1000 | nc {outside.there} 80")
                listener.stdout.readline()
            outside.run("nft", "add table inet deaf; add chain inet deaf entry "
                        "{ type filter hook input priority 0; policy drop; }")
            for name, link in (("other", other), ("old", old)):
                instance.cloche("rm", "-f", name)
                assert link in links(), "the connection has not ended: this can fail"
            serve(instance, "new", "one", *fixed)
            assert old not in links()
            for _ in range(5):
                assert fetch(instance, "client", "10.97.0.77") == "new\n"
            wait_for(lambda: other not in links(), timeout=20, what="the other link is deleted")
        finally:
            listener.kill()
            listener.communicate()


@test
def containers_share_a_network(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "bridge")
    instance.cloche("run", "-d", "--name", "guest", "--network", "container:web", "small:1", "sleep",
                    "1000")
    assert fetch(instance, "guest", "127.0.0.1") == "web\n"
    assert inspect(instance, "guest")["HostConfig"]["NetworkMode"] == "container:web"
    instance.cloche("stop", "-t", "0", "web")
    assert "non running" in instance.cloche("run", "--rm", "--network", "container:web", "small:1",
                                            "true", code=125).err


@test
def containers_that_share_a_network_share_its_files(instance, images, scratch):
    instance.cloche("load", "-i", images.docker_archive())
    bound = scratch / "hosts"
    bound.write_text("192.0.2.7 seven\n")
    show = ["cat", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
    instance.cloche("run", "-d", "--name", "web", "--hostname", "shop", "--add-host", "nine:192.0.2.9",
                    "--dns", "192.0.2.53", "small:1", "sleep", "1000")
    for name, of in (("guest", "web"), ("guests-guest", "guest")):
        instance.cloche("run", "-d", "--name", name, "--network", "container:" + of, "small:1",
                        "sleep", "1000")
        assert instance.cloche("exec", name, *show).out == instance.cloche("exec", "web", *show).out
        assert instance.cloche("exec", name, "hostname").out == "shop\n"
        assert inspect(instance, name)["Config"]["Hostname"] == "shop"
    instance.cloche("exec", "web", "sh", "-c", "echo 192.0.2.10 ten >> /etc/hosts")
    assert "192.0.2.10 ten" in instance.cloche("exec", "guest", "cat", "/etc/hosts").out
    instance.cloche("run", "-d", "--name", "other", "-v", f"{bound}:/etc/hosts", "small:1", "sleep",
                    "1000")
    assert instance.cloche("run", "--rm", "--network", "container:other", "small:1", "cat",
                           "/etc/hosts").out == bound.read_text()
    for option in (["--hostname", "x"], ["--dns", "192.0.2.1"], ["--add-host", "a:192.0.2.1"],
                   ["-p", "80"], ["--expose", "80"]):
        assert "conflicting options" in instance.cloche("run", "--rm", "--network", "container:web",
                                                        *option, "small:1", "true", code=125).err


@test
def containers_find_each_other_by_name(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    instance.cloche("network", "create", "two")
    serve(instance, "web", "one", "--network-alias", "shop")
    serve(instance, "client", "one")
    serve(instance, "far", "two")
    assert "nameserver 127.0.0.11" in instance.cloche("exec", "client", "cat",
                                                      "/etc/resolv.conf").out
    assert fetch(instance, "client", "web") == "web\n"
    assert fetch(instance, "client", "shop") == "web\n"
    assert fetch(instance, "client", "web.one") == "web\n"
    assert fetch(instance, "far", "web") == "", "names of other networks are none of its business"
    instance.cloche("network", "connect", "--alias", "depot", "two", "web")
    assert fetch(instance, "far", "depot") == "web\n"
    instance.cloche("network", "disconnect", "two", "web")
    assert fetch(instance, "far", "depot") == ""
    instance.cloche("stop", "-t", "0", "web")
    assert fetch(instance, "client", "web") == ""


def resolv_conf(instance, name):
    return instance.cloche("exec", name, "cat", "/etc/resolv.conf").out


@test
def a_network_that_comes_later_brings_its_names(instance, images, scratch):
    instance.cloche("load", "-i", images.docker_archive())
    bound = scratch / "resolv.conf"
    bound.write_text("nameserver 192.0.2.1\n")
    instance.cloche("network", "create", "one")
    serve(instance, "web", "one")
    serve(instance, "client", "bridge")
    serve(instance, "bound", "bridge", "-v", f"{bound}:/etc/resolv.conf")
    serve(instance, "changed", "bridge")
    instance.cloche("exec", "changed", "sh", "-c", "echo nameserver 192.0.2.2 > /etc/resolv.conf")
    assert "127.0.0.11" not in resolv_conf(instance, "client")
    for name in ("client", "bound", "changed"):
        instance.cloche("network", "connect", "one", name)
    assert "nameserver 127.0.0.11\n" in resolv_conf(instance, "client")
    assert fetch(instance, "client", "web") == "web\n"
    assert bound.read_text() == resolv_conf(instance, "bound") == "nameserver 192.0.2.1\n"
    assert resolv_conf(instance, "changed") == "nameserver 192.0.2.2\n"


@test
def what_cannot_be_done_whole_is_not_done(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--ipv6", "six")
    instance.cloche("network", "create", "four")
    serve(instance, "web", "six", "-p", "[::]:9000:80", "-p", "9001:80")
    instance.cloche("network", "connect", "four", "web")
    ports = instance.cloche("port", "web").out

    def check():
        assert instance.cloche("port", "web").out == ports
        assert [place["network"] for place in networks(instance, "web")] == ["six", "four"]
        assert http_get("127.0.0.1", 9001) == "web\n"
        assert "default via" in instance.cloche("exec", "web", "ip", "-6", "route").out

    assert "9000" in ports and "9001" in ports, ports
    assert "no IPv6" in instance.cloche("network", "disconnect", "six", "web", code=1).err
    assert "No public port" in instance.cloche("port", "rm", "web", "9001:80", "9002:80", code=1).err
    check()
    instance.kill_daemon()
    check()
    instance.cloche("port", "rm", "web", "[::]:9000:80")
    instance.cloche("network", "disconnect", "six", "web")
    assert http_get("127.0.0.1", 9001) == "web\n"


@test
def networks_come_back_after_a_firewalls_reload(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    for network in ("one", "two"):
        instance.cloche("network", "create", network)
        serve(instance, "in-" + network, network)
    serve(instance, "mate", "one", "-p", "9000:80")
    rules = lambda: run("nft", "-s", "list", "table", "inet", instance.nft_table, code=None).out
    before = sorted(rules().splitlines())
    run("nft", "flush", "ruleset")
    wait_for(lambda: sorted(rules().splitlines()) == before, what="the rules are back")
    with Outside() as outside:
        assert outside.http_get(9000) == "mate\n"
    assert fetch(instance, "mate", "in-one") == "in-one\n"
    assert fetch(instance, "mate", address(instance, "in-two", "two")) == ""


@test
def long_answers_of_resolvers_come_whole(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    serve(instance, "client", "one", "--dns", "127.0.0.1")
    pid = inspect(instance, "client")["State"]["Pid"]
    ask = lambda *how: run("nsenter", "--net", "--target", pid, sys.executable, "-c", _ASK,
                           *how).out.split()
    with subprocess.Popen([sys.executable, "-c", _RESOLVER], stdout=subprocess.PIPE) as resolver:
        try:
            assert resolver.stdout.readline() == b"ready\n"
            assert ask("udp", "long.example") == ["30", "0x8380", "0"]
            assert ask("tcp", "long.example") == [str(30 + 300 * 213), "0x8180", "300"]
            assert ask("tcp", "udp.example")[1] == "0x8182", "there is no other resolver"
        finally:
            resolver.kill()


@test
def who_may_ask_the_outside_follows_the_networks(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--internal", "in")
    instance.cloche("network", "create", "out")
    for name, network in (("leaver", "out"), ("comer", "in")):
        serve(instance, name, network, "--dns", "127.0.0.1")
    instance.cloche("network", "connect", "in", "leaver")
    pids = {name: inspect(instance, name)["State"]["Pid"] for name in ("leaver", "comer")}
    ask = lambda name, *how: run("nsenter", "--net", "--target", pids[name], sys.executable, "-c",
                                 _ASK, *how).out.split()[1]
    with subprocess.Popen([sys.executable, "-c", _RESOLVER], stdout=subprocess.PIPE) as resolver:
        try:
            assert resolver.stdout.readline() == b"ready\n"
            assert (ask("leaver", "udp", "a.example"), ask("comer", "udp", "a.example")) == (
                "0x8380", "0x8183")
            instance.cloche("network", "disconnect", "out", "leaver")
            instance.cloche("network", "connect", "out", "comer")
            assert (ask("leaver", "udp", "a.example"), ask("comer", "udp", "a.example")) == (
                "0x8183", "0x8380")
            # One that asks a thousand times what nobody answers does not keep others from asking.
            instance.cloche("network", "connect", "out", "leaver")
            assert ask("comer", "udp", "black.example", "1000") == "0x8182"
            assert ask("leaver", "udp", "a.example") == "0x8380"
        finally:
            resolver.kill()


@test
def links_on_the_default_bridge(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "db", "bridge", "-p", "9000:5432", "--expose", "80", "-e", "WORD=two words",
          "--hostname", "store")
    instance.cloche("run", "-d", "--name", "web", "--link", "db:data-base", "small:1", "sleep", "1000")
    inside = lambda *words: instance.cloche("exec", "web", *words).lines
    at = lambda: address(instance, "db", "bridge")
    assert f"{at()}\tdata-base store db" in inside("cat", "/etc/hosts")
    assert {line for line in inside("env") if line.startswith("DATA_BASE")} == {
        f"DATA_BASE_PORT=tcp://{at()}:80", f"DATA_BASE_PORT_80_TCP=tcp://{at()}:80",
        f"DATA_BASE_PORT_80_TCP_ADDR={at()}", "DATA_BASE_PORT_80_TCP_PORT=80",
        "DATA_BASE_PORT_80_TCP_PROTO=tcp", f"DATA_BASE_PORT_5432_TCP=tcp://{at()}:5432",
        f"DATA_BASE_PORT_5432_TCP_ADDR={at()}", "DATA_BASE_PORT_5432_TCP_PORT=5432",
        "DATA_BASE_PORT_5432_TCP_PROTO=tcp", "DATA_BASE_NAME=/web/data-base",
        "DATA_BASE_ENV_WORD=two words"}
    assert "DATA_BASE_NAME=/web/data-base" in inside("cat", "/proc/1/environ")[0].split("\0")
    assert fetch(instance, "web", "data-base") == "db\n"
    assert inspect(instance, "web")["HostConfig"]["Links"] == ["/db:/web/data-base"]
    # It may come back with another address and another name.
    instance.cloche("stop", "-t", "0", "db")
    assert "Cannot link to a non running container: /db AS /late/x" in instance.cloche(
        "run", "--name", "late", "--link", "db:x", "small:1", "true", code=125).err
    instance.cloche("run", "-d", "--name", "takes-the-address", "small:1", "sleep", "1000")
    instance.cloche("start", "db")
    wait_for(lambda: fetch(instance, "web", "data-base") == "db\n", what="the new address is known")
    instance.cloche("rename", "db", "other")
    assert inspect(instance, "web")["HostConfig"]["Links"] == ["/other:/web/data-base"]
    instance.cloche("restart", "-t", "0", "web")
    assert fetch(instance, "web", "other") == "db\n"
    for wrong in ("nobody:x", "nobody"):
        assert "could not get container for nobody: No such container: nobody" in instance.cloche(
            "create", "--link", wrong, "small:1", "true", code=125).err
    assert "bad format for links" in instance.cloche("create", "--link", ":x", "small:1", "true",
                                                     code=125).err
    assert "can't be used with links" in instance.cloche(
        "create", "--network", "host", "--link", "other", "small:1", "true", code=125).err
    instance.cloche("rm", "-f", "other")
    instance.cloche("restart", "-t", "0", "web")
    assert inspect(instance, "web")["HostConfig"]["Links"] is None


@test
def links_on_networks_that_were_made(instance, images):
    """Names for one container alone, also for containers that come later."""
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    instance.cloche("network", "create", "two")
    serve(instance, "web", "one", "--link", "db:store")
    assert fetch(instance, "web", "store") == ""
    serve(instance, "db", "one")
    serve(instance, "store", "one")
    serve(instance, "far", "two", "--network-alias", "depot")
    assert fetch(instance, "web", "store") == "db\n"
    assert fetch(instance, "web", "STORE.one") == "db\n"
    assert fetch(instance, "store", "store") == "store\n"
    shown = inspect(instance, "web")
    assert shown["NetworkSettings"]["Networks"]["one"]["Links"] == ["db:store"]
    instance.cloche("network", "connect", "--link", "depot:attic", "two", "web")
    assert fetch(instance, "web", "attic") == "far\n"
    assert fetch(instance, "web", "store") == "db\n"
    assert "bad format" in instance.cloche("network", "connect", "--link", "a b", "two", "db",
                                           code=1).err


def name_server(instance):
    """Who listens at the instance's names.sock."""
    listening = run("ss", "-Hxlp", "src", f"{instance.run_folder}/names.sock").out
    return int(listening.partition("pid=")[2].partition(",")[0])


@test
def the_name_server_comes_back(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    serve(instance, "web", "one")
    serve(instance, "client", "one")
    assert fetch(instance, "client", "web") == "web\n"
    for daemon_dies in (False, True):
        if daemon_dies:
            instance.kill_daemon()
        os.kill(name_server(instance), signal.SIGKILL)
        wait_for(lambda: fetch(instance, "client", "web") == "web\n", what="names are found again")


@test
def names_are_answered_while_no_daemon_lives_and_after(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "one")
    serve(instance, "web", "one")
    instance.cloche("run", "-d", "--name", "client", "--network", "one", "small:1", "sh", "-c",
                    "while :; do wget -q -O /tmp/new http://web/ && date +%s > /tmp/seen; sleep 0.1; "
                    "done")
    wait_for(lambda: instance.cloche("exec", "client", "cat", "/tmp/seen", code=None).out,
             what="the name is found")
    instance.kill_daemon()
    instance.cloche("exec", "client", "rm", "/tmp/seen")
    wait_for(lambda: instance.cloche("exec", "client", "cat", "/tmp/seen", code=None).out,
             what="the name is found by the next daemon's, too")
    serve(instance, "late", "one")
    assert fetch(instance, "client", "late") == "late\n"


@test
def the_first_question_of_a_container_is_answered(instance, images):
    """A program that asks as soon as it runs, again and again: the name server may not be told too late."""
    instance.cloche("load", "-i", images.small())
    instance.cloche("network", "create", "back")
    instance.cloche("run", "-d", "--name", "db", "--network", "back", "small:1", "sleep", "1000")
    for _ in range(30):
        instance.cloche("run", "--rm", "--network", "back", "small:1", "ping", "-c", "1", "db")


if __name__ == "__main__":
    main()
