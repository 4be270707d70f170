"""Networks of CNI plug-ins: Debian's real ones, and hostile ones made here."""

import fcntl
import json
import os
import pathlib
import signal
import struct
import subprocess

from harness import http_get, main, run, test, wait_for
from sockets import configure

PLUGINS = "/usr/lib/cni"

# Says what it was told to the file $LOG, then acts by what its configuration says.
_STUB = """#!/usr/bin/python3
import json, os, sys, time
config = json.load(sys.stdin)
told = {name: value for name, value in os.environ.items() if name.startswith("CNI_")}
with open(config["log"], "a") as log:
    log.write(json.dumps({"environment": told, "config": config}) + "\\n")
command = told["CNI_COMMAND"]
if command in config.get("fail", []):
    print(json.dumps({"cniVersion": "1.0.0", "code": 107, "msg": "no room", "details": "rack 3 is full"}))
    sys.exit(1)
if command == "DEL":
    time.sleep(config.get("slow", 0))
if command == "ADD":
    if config.get("hang"):
        if os.fork() == 0:
            os.setsid()
            os.execvp("sleep", ["sleep", "987"])
        time.sleep(600)
    if "say" in config:
        print(config["say"] * config.get("times", 1))
    else:
        result = config.get("prevResult") or {"cniVersion": "1.0.0", "interfaces": [], "ips": []}
        result.update(config.get("result", {}))
        print(json.dumps(result))
"""


class Lists:
    """Configuration lists and plug-ins of our own for one instance."""

    def __init__(self, instance, scratch, limit=30):
        self.folder = scratch / "net.d"
        self.data = scratch / "ipam"
        self.own = scratch / "plugins"
        self.log = scratch / "stub.log"
        for folder in (self.folder, self.own):
            folder.mkdir()
        (self.own / "stub").write_text(_STUB)
        (self.own / "stub").chmod(0o755)
        configure(instance, scratch, cni={"confFolder": str(self.folder),
                                          "pluginFolders": [str(self.own), PLUGINS],
                                          "timeLimitSeconds": limit})

    def write(self, name, *plugins, version="1.0.0", **more):
        path = self.folder / f"50-{name}.conflist"
        path.write_text(json.dumps({"cniVersion": version, "name": name, "plugins": list(plugins),
                                    **more}))
        return path

    def ipam(self, subnet, **more):
        return {"type": "host-local", "dataDir": str(self.data), "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": subnet}]], **more}

    def stub(self, **more):
        return {"type": "stub", "log": str(self.log), **more}

    def calls(self, command=None):
        if not self.log.exists():
            return []
        calls = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [call for call in calls if command in (None, call["environment"]["CNI_COMMAND"])]

    def addresses(self, name):
        """Files of host-local that stand for addresses in use."""
        folder = self.data / name
        return sorted(path.name for path in folder.iterdir()
                      if path.name[0].isdigit()) if folder.exists() else []


def nat_rules():
    """Rules of the plug-ins that are about containers."""
    shown = subprocess.run(["iptables-nft-save", "-t", "nat"], capture_output=True, text=True).stdout
    return [line for line in shown.splitlines() if "--to-destination" in line or "id:" in line]


def remove_rules():
    """Tables and chains that the plug-ins leave by their nature."""
    for family in ("ip", "ip6"):
        for table in ("nat", "filter"):
            subprocess.run(["nft", "delete", "table", family, table], capture_output=True)


def attachments(instance):
    folder = instance.root / "cni"
    return [path.name for path in folder.iterdir() if path.name != "lock" and path.is_file()] \
        if folder.exists() else []


def endpoint(instance, name, network):
    details = json.loads(instance.cloche("rpc", "call", "container.inspect", f"container={name}").out)
    return {place["network"]: place for place in details["network"]["networks"]}[network]


def serve(instance, name, network, *options):
    instance.cloche("run", "-d", "--name", name, "--network", network, *options, "small:1", "sh", "-c",
                    f"echo {name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


def stays_clean(instance, lists, *networks):
    assert attachments(instance) == [], attachments(instance)
    for network in networks:
        assert lists.addresses(network) == [], lists.addresses(network)
    assert not (instance.run_folder / "cni").exists()


@test
def a_container_is_on_a_bridge_of_plugins_with_ports(instance, images, scratch, unique):
    lists = Lists(instance, scratch)
    bridge = "b" + unique
    lists.write("shop", {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True,
                         "ipam": lists.ipam("10.123.4.0/24"),
                         "dns": {"nameservers": ["10.123.4.53"], "search": ["shop.test"],
                                 "options": ["ndots:3"]}},
                {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
                {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}})
    instance.cloche("load", "-i", images.docker_archive())
    made = instance.cloche("network", "create", "--driver", "cni", "shop").out.strip()
    try:
        assert "shop cni\n" in instance.cloche("network", "ls", "--format", "{{.Name}} {{.Driver}}").out
        serve(instance, "web", "shop", "-p", "18080:80", "-p", "80")
        place = endpoint(instance, "web", "shop")
        assert place["networkId"] == made and place["gateway"] == "10.123.4.1", place
        assert place["address"] == lists.addresses("shop")[0] and place["prefixLength"] == 24, place
        assert http_get(place["address"], 80) == "web\n"
        published = instance.cloche("port", "web").out.split()
        assert "0.0.0.0:18080" in published and len(nat_rules()) >= 3, (published, nat_rules())
        assert http_get(place["gateway"], 18080) == "web\n"
        resolv = instance.cloche("exec", "web", "cat", "/etc/resolv.conf").out
        assert "nameserver 10.123.4.53\n" in resolv and "search shop.test\n" in resolv, resolv
        assert "ndots:3" in resolv and resolv.count("nameserver") == 1, resolv
        assert instance.cloche("exec", "web", "cat", "/proc/sys/net/ipv4/conf/eth0/arp_filter").out == "1\n"
        assert f"{place['address']}\t" in instance.cloche("exec", "web", "cat", "/etc/hosts").out
        shown = json.loads(instance.cloche("network", "inspect", "shop").out)[0]
        assert shown["Driver"] == "cni" and list(shown["Containers"].values())[0]["IPv4Address"] == \
            place["address"] + "/24", shown
        # The next daemon knows it, and takes it back.
        before = instance.kill_daemon()
        assert endpoint(instance, "web", "shop") == place and instance.daemon_pid() != before
        assert len(attachments(instance)) == 1
        instance.cloche("stop", "-t", "0", "web")
        stays_clean(instance, lists, "shop")
        assert nat_rules() == [], nat_rules()
        assert "active endpoints" not in instance.cloche("network", "ls").out
        instance.cloche("start", "web")
        assert "already" in instance.cloche("run", "--rm", "--network", "shop", "-p", "18080:80", "small:1",
                                            "true", code=125).err
        instance.cloche("rm", "-f", "web")
        stays_clean(instance, lists, "shop")
        instance.cloche("network", "rm", "shop")
    finally:
        run("ip", "link", "delete", bridge, code=None)
        remove_rules()


@test
def other_plugins_make_their_links(instance, images, scratch, unique):
    lists = Lists(instance, scratch)
    parent = "d" + unique
    run("ip", "link", "add", parent, "type", "veth", "peer", "name", "p" + unique)
    run("ip", "link", "set", parent, "up")
    run("ip", "link", "set", "p" + unique, "up")
    try:
        lists.write("direct", {"type": "ptp", "ipam": lists.ipam("10.124.0.0/24")}, {"type": "loopback"},
                    version="0.4.0")
        lists.write("beside", {"type": "macvlan", "master": parent, "mode": "bridge",
                               "capabilities": {"ips": True, "mac": True},
                               "ipam": lists.ipam("10.125.0.0/24")})
        instance.cloche("load", "-i", images.docker_archive())
        for name in ("direct", "beside"):
            instance.cloche("network", "create", "-d", "cni", name)
        serve(instance, "one", "direct")
        assert http_get(endpoint(instance, "one", "direct")["address"], 80) == "one\n"
        serve(instance, "two", "beside", "--ip", "10.125.0.77", "--mac-address", "02:00:00:00:aa:01")
        place = endpoint(instance, "two", "beside")
        assert (place["address"], place["macAddress"]) == ("10.125.0.77", "02:00:00:00:aa:01"), place
        links = instance.cloche("exec", "two", "ip", "-o", "link").out
        assert "02:00:00:00:aa:01" in links, links
        serve(instance, "three", "beside")
        assert instance.cloche("exec", "three", "wget", "-q", "-O", "-", "http://10.125.0.77/").out == "two\n"
        # The same address again is refused by the plug-in's own words.
        refused = instance.cloche("run", "--network", "beside", "--ip", "10.125.0.77", "small:1", "true",
                                  code=125).err
        assert "network beside" in refused and "macvlan" in refused and "10.125.0.77" in refused, refused
        instance.cloche("rm", "-f", "one", "two", "three")
        stays_clean(instance, lists, "direct", "beside")
    finally:
        run("ip", "link", "delete", parent)
        remove_rules()


@test
def ports_of_plugins_are_nobody_elses(instance, images, scratch):
    """No socket shows that plug-ins have them: the engine knows it, also the next one."""
    lists = Lists(instance, scratch)
    lists.write("shop", lists.stub(capabilities={"portMappings": True}))
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--driver", "cni", "shop")

    def start(name, *options, code=0):
        started = instance.cloche("run", "-d", "--name", name, *options, "small:1", "sleep", "1000", code=code)
        if code:
            assert "port is already allocated" in started.err, started
            return None
        return sorted(line.rpartition(":")[2] for line in set(instance.cloche("port", name).out.split())
                      if line.startswith("0.0.0.0"))
    ephemeral = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
    before = ephemeral.read_text()
    ephemeral.write_text("18100 18105")
    try:
        assert start("web", "--network", "shop", "-p", "18100:80", "-p", "18101:81") == ["18100", "18101"]
        start("taker", "-p", "18100:80", code=125)
        start("second", "-p", "127.0.0.1:18101:80", code=125)
        instance.kill_daemon()
        start("later", "-p", "18100:80", code=125)
        assert start("range", "-p", "18100-18102:80") == ["18102"]
        assert start("any", "-p", "80") == ["18103"]
        assert start("more", "--network", "shop", "-p", "80", "-p", "81") == ["18104", "18105"]
        assert start("udp", "-p", "18100:80/udp") == ["18100"]
        instance.cloche("rm", "-f", "web", "taker", "second", "later")
        assert start("then", "-p", "18100:80") == ["18100"]
        instance.cloche("rm", "-f", "range", "any", "more", "udp", "then")
    finally:
        ephemeral.write_text(before)


@test
def plugins_get_what_the_specification_says(instance, images, scratch):
    lists = Lists(instance, scratch)
    can = {"portMappings": True, "ips": True, "mac": True, "aliases": True, "dns": True}
    lists.write("all", lists.stub(capabilities=can, mark=1, result={
        "ips": [{"address": "10.9.8.7/24", "gateway": "10.9.8.1"}]}), lists.stub(mark=2))
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "-d", "cni", "-o", f"conflist={lists.folder}/50-all.conflist", "mine")
    ident = instance.cloche("run", "-d", "--name", "xx", "--network", "mine", "--ip", "10.9.8.7",
                            "--network-alias", "till", "--dns", "10.1.1.1", "-p", "127.0.0.1:9100:80/udp",
                            "small:1", "sleep", "100").out.strip()
    first, second = lists.calls()
    told = first["environment"]
    assert told["CNI_COMMAND"] == "ADD" and told["CNI_CONTAINERID"] == ident, told
    assert told["CNI_IFNAME"] == "eth0" and told["CNI_PATH"] == f"{lists.own}:{PLUGINS}", told
    assert told["CNI_NETNS"] == str(instance.run_folder / "cni" / ident), told
    config = first["config"]
    assert config["name"] == "all" and config["cniVersion"] == "1.0.0" and config["mark"] == 1, config
    assert "prevResult" not in config and config["runtimeConfig"] == {
        "portMappings": [{"hostPort": 9100, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}],
        "ips": ["10.9.8.7"], "aliases": ["xx", "till", ident[:12]], "dns": {"servers": ["10.1.1.1"]}}, config
    assert second["config"]["prevResult"]["ips"][0]["address"] == "10.9.8.7/24", second
    assert "runtimeConfig" not in second["config"], second
    # An adopted container is checked; its ports keep it there.
    instance.kill_daemon()
    instance.start_daemon()
    wait_for(lambda: len(lists.calls("CHECK")) == 2, what="CHECK of both")
    assert lists.calls("CHECK")[0]["config"]["prevResult"]["ips"][0]["address"] == "10.9.8.7/24"
    assert lists.calls("CHECK")[0]["environment"]["CNI_NETNS"] == told["CNI_NETNS"]
    assert "published by plug-ins" in instance.cloche("network", "disconnect", "mine", "xx", code=1).err
    instance.cloche("kill", "xx")
    removed = lists.calls("DEL")
    assert [call["config"]["mark"] for call in removed] == [2, 1], removed
    assert all(call["environment"]["CNI_NETNS"] == told["CNI_NETNS"] for call in removed), removed
    assert removed[0]["config"]["prevResult"]["ips"][0]["address"] == "10.9.8.7/24", removed
    assert removed[1]["config"]["runtimeConfig"]["portMappings"][0]["hostPort"] == 9100, removed
    # Stopped, it may come to be on another one besides.
    instance.cloche("network", "disconnect", "mine", "xx")
    instance.cloche("network", "connect", "bridge", "xx")
    instance.cloche("network", "connect", "mine", "xx")
    instance.cloche("start", "xx")
    assert endpoint(instance, "xx", "mine")["link"] == "eth1" and endpoint(instance, "xx", "bridge")["address"]
    instance.cloche("rm", "-f", "xx")
    assert len(lists.calls("DEL")) == 4
    stays_clean(instance, lists)


@test
def a_running_container_comes_and_goes(instance, images, scratch, unique):
    lists = Lists(instance, scratch)
    bridges = {name: name + unique for name in ("b", "c")}
    for name, subnet in (("b", "10.123.8.0/24"), ("c", "10.123.9.0/24")):
        lists.write(name, {"type": "bridge", "bridge": bridges[name], "isGateway": True,
                           "capabilities": {"ips": True}, "ipam": lists.ipam(subnet)}, lists.stub(mark=name))
    instance.cloche("load", "-i", images.docker_archive())
    for name in bridges:
        instance.cloche("network", "create", "-d", "cni", name)
    try:
        serve(instance, "one", "bridge")
        instance.cloche("network", "connect", "b", "one")
        instance.cloche("network", "connect", "--ip", "10.123.9.77", "c", "one")
        assert [call["environment"]["CNI_IFNAME"] for call in lists.calls("ADD")] == ["eth1", "eth2"]
        assert len({call["environment"]["CNI_NETNS"] for call in lists.calls("ADD")}) == 1
        place = endpoint(instance, "one", "c")
        assert (place["address"], place["link"]) == ("10.123.9.77", "eth2"), place
        for name in bridges:
            assert http_get(endpoint(instance, "one", name)["address"], 80) == "one\n"
        assert len(attachments(instance)) == 2
        assert "already exists" in instance.cloche("network", "connect", "b", "one", code=1).err
        # Gone while it runs; the other one stays, also under the next daemon.
        instance.cloche("network", "disconnect", "b", "one")
        assert lists.addresses("b") == [] and len(attachments(instance)) == 1
        assert [call["config"]["mark"] for call in lists.calls("DEL")] == ["b"], lists.calls("DEL")
        assert "eth1" not in instance.cloche("exec", "one", "ip", "-o", "link").out
        instance.kill_daemon()
        assert endpoint(instance, "one", "c") == place
        wait_for(lambda: lists.calls("CHECK"), what="CHECK")
        assert len(lists.calls("DEL")) == 1
        instance.cloche("network", "connect", "b", "one")
        assert endpoint(instance, "one", "b")["link"] == "eth1"
        # The only way out is not left to plug-ins that have been called already.
        assert "make routes at the start" in instance.cloche("network", "disconnect", "bridge", "one", code=1).err
        # Its end takes both back, and its next start has both again.
        instance.cloche("stop", "-t", "0", "one")
        stays_clean(instance, lists, "b", "c")
        instance.cloche("start", "one")
        assert len(attachments(instance)) == 2
        instance.cloche("rm", "-f", "one")
        stays_clean(instance, lists, "b", "c")
    finally:
        for bridge in bridges.values():
            run("ip", "link", "delete", bridge, code=None)
        remove_rules()


@test
def containers_find_each_other_by_name(instance, images, scratch, unique):
    lists = Lists(instance, scratch)
    bridges = {name: name[0] + unique for name in ("shop", "else", "dumb")}
    for number, name in enumerate(bridges):
        own = {"dns": {"nameservers": ["10.123.6.53"]}} if name == "dumb" else {}
        lists.write(name, {"type": "bridge", "bridge": bridges[name], "isGateway": True,
                           "ipam": lists.ipam(f"10.123.{number + 4}.0/24"), **own})
    instance.cloche("load", "-i", images.docker_archive())
    for name in bridges:
        instance.cloche("network", "create", "-d", "cni", name)

    def fetch(name, host):
        return instance.cloche("exec", name, "wget", "-q", "-O", "-", f"http://{host}/", code=None).out

    def servers(name):
        resolv = instance.cloche("exec", name, "cat", "/etc/resolv.conf").out
        return [line.split()[1] for line in resolv.splitlines() if line.startswith("nameserver")]
    try:
        serve(instance, "web", "shop", "--network-alias", "till")
        serve(instance, "one", "shop", "--link", "web:counter")
        serve(instance, "far", "else")
        assert servers("one") == ["127.0.0.11"]
        for name in ("web", "till", "counter"):
            wait_for(lambda: fetch("one", name) == "web\n", what=f"{name} is found")
        assert fetch("far", "web") == ""
        # While both run, and under the next daemon.
        serve(instance, "late", "bridge")
        assert servers("late") != ["127.0.0.11"]
        instance.cloche("network", "connect", "--alias", "tail", "shop", "late")
        assert servers("late") == ["127.0.0.11"]
        wait_for(lambda: fetch("late", "till") == "web\n" and fetch("one", "tail") == "late\n", what="both are found")
        instance.kill_daemon()
        wait_for(lambda: fetch("one", "tail") == "late\n", what="names under the next daemon")
        instance.cloche("network", "disconnect", "shop", "late")
        assert fetch("one", "tail") == "" and fetch("late", "web") == ""
        # Where plug-ins name a name server, that one counts.
        serve(instance, "two", "dumb")
        assert servers("two") == ["10.123.6.53"]
        refused = instance.cloche("run", "--network", "dumb", "--link", "two:x", "small:1", "true", code=125).err
        assert "network dumb: its plug-ins name a name server" in refused, refused
        instance.cloche("rm", "-f", "web", "one", "far", "late", "two")
        instance.cloche("container", "prune", "-f")
        stays_clean(instance, lists, *bridges)
    finally:
        for bridge in bridges.values():
            run("ip", "link", "delete", bridge, code=None)
        remove_rules()


@test
def a_running_container_whose_plugins_fail(instance, images, scratch):
    lists = Lists(instance, scratch, limit=5)
    lists.write("full", lists.stub(fail=["ADD"]))
    lists.write("stubborn", lists.stub(fail=["DEL"]))
    lists.write("slow", lists.stub(hang=True))
    lists.write("plain", lists.stub())
    instance.cloche("load", "-q", "-i", images.docker_archive())
    for name in ("full", "stubborn", "slow", "plain"):
        instance.cloche("network", "create", "-d", "cni", name)
    instance.cloche("network", "create", "--internal", "inner")
    ident = instance.cloche("run", "-d", "--name", "one", "small:1", "sleep", "1000").out.strip()

    def networks():
        return sorted(json.loads(instance.cloche("inspect", ident).out)[0]["NetworkSettings"]["Networks"])
    refused = instance.cloche("network", "connect", "full", "one", code=1).err
    assert "no room" in refused and networks() == ["bridge"] and attachments(instance) == [], refused
    # What is not taken back is still there, and known.
    instance.cloche("network", "connect", "stubborn", "one")
    refused = instance.cloche("network", "disconnect", "stubborn", "one", code=1).err
    assert "no room" in refused and networks() == ["bridge", "stubborn"] and len(attachments(instance)) == 1, refused
    (left,) = attachments(instance)
    path = instance.root / "cni" / left
    path.write_text(path.read_text().replace('"fail":["DEL"]', '"fail":[]'))
    instance.cloche("network", "disconnect", "stubborn", "one")
    assert networks() == ["bridge"] and attachments(instance) == []
    # The daemon dies at ADD, and the container does.
    for victim in (lambda: instance.kill_daemon(), lambda: instance.cloche("kill", "one")):
        before = len(lists.calls("ADD"))
        client = instance.start("network", "connect", "slow", "one")
        wait_for(lambda: len(lists.calls("ADD")) > before, what="ADD")
        victim()
        client.communicate()
        wait_for(lambda: instance.cloche("ps").code == 0 and not attachments(instance), what="nothing is left")
        assert networks() == ["bridge"]
    # Ports that would lead there.
    instance.cloche("run", "-d", "--name", "two", "--network", "inner", "-p", "80", "small:1", "sleep", "1000")
    assert "at the start" in instance.cloche("network", "connect", "plain", "two", code=1).err
    instance.cloche("rm", "-f", "one", "two")
    stays_clean(instance, lists)


@test
def what_a_plugin_says_reaches_the_user(instance, images, scratch):
    lists = Lists(instance, scratch)
    good = lists.stub(mark=1, result={"ips": [{"address": "10.9.8.7/24"}]})
    lists.write("full", good, lists.stub(mark=2, fail=["ADD"]), lists.stub(mark=3))
    lists.write("babble", lists.stub(say="x", times=3_000_000))
    lists.write("nonsense", lists.stub(say='{"ips": [{"address": "10.9.8.7"}]}'))
    lists.write("lines", lists.stub(say='{"dns": {"search": ["a\\nnameserver 6.6.6.6"]}}'))
    lists.write("noports", good)
    (lists.folder / "60-broken.conflist").write_text('{"cniVersion": "1.0.0", "name": "broken", "plugins": 7}')
    lists.write("future", good, version="9.0.0")
    lists.write("gone", {"type": "nowhere"})
    lists.write("away", {"type": "../stub"})
    create = ("network", "create", "-d", "cni")

    def refused(*words, code=1):
        return instance.cloche(*words, code=code).err
    assert "no configuration list 'absent'" in refused(*create, "absent")
    assert "plugins: expected an array" in refused(*create, "-o", "conflist=60-broken.conflist", "b")
    assert "'9.0.0' is not supported" in refused(*create, "-o", "conflist=50-future.conflist", "f")
    assert "no plug-in 'nowhere'" in refused(*create, "gone")
    assert "is no name of a plug-in" in refused(*create, "-o", "conflist=50-away.conflist", "a")
    assert "no subnet" in refused(*create, "--subnet", "10.1.0.0/24", "full")
    assert "has only conflist" in refused(*create, "-o", "mtu=1", "full")
    instance.cloche("load", "-i", images.docker_archive())
    for name in ("full", "babble", "nonsense", "lines", "noports"):
        instance.cloche(*create, name)

    def fails(network, *options):
        return refused("run", "--rm", "--network", network, *options, "small:1", "true", code=125)
    said = fails("full")
    assert "network full: plug-in stub: ADD" in said and "no room; rack 3 is full (code 107)" in said, said
    # All of the chain are told, the last one first.
    assert [call["config"]["mark"] for call in lists.calls("DEL")] == [3, 2, 1], lists.calls("DEL")
    assert "says more than" in fails("babble")
    assert "no address with a prefix" in fails("nonsense")
    assert "dns.search[0]" in fails("lines")
    assert "portMappings" in fails("noports", "-p", "80")
    assert "did not give the address 10.9.8.9" in fails("noports", "--ip", "10.9.8.9")
    stays_clean(instance, lists)


@test
def a_plugin_that_hangs_is_killed_with_its_children(instance, images, scratch):
    lists = Lists(instance, scratch, limit=1)
    lists.write("slow", lists.stub(hang=True))
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "-d", "cni", "slow")
    client = instance.start("run", "--rm", "--network", "slow", "small:1", "true")
    instance.cloche("run", "--rm", "small:1", "true")  # others go on meanwhile
    err = client.communicate(timeout=60)[1].decode()
    assert client.returncode == 125 and "did not end within 1 s" in err, err
    assert "slow" in err and "stub" in err, err
    assert not any(b"987" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() for pid in instance.processes())
    stays_clean(instance, lists)


@test
def who_waits_for_an_end_waits_for_its_plugins(instance, images, scratch):
    lists = Lists(instance, scratch)
    lists.write("slow", lists.stub(slow=3))
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "--driver", "cni", "slow")
    instance.cloche("run", "-d", "--name", "one", "--network", "slow", "small:1", "sh", "-c",
                    "sleep 1; exit 3")
    wait_for(lambda: lists.calls("DEL"), what="DEL")
    refused = instance.cloche("kill", "one", code=1).err
    assert "is not running" in refused and "it has ended, and plug-ins take its networks back" in refused, refused
    assert not instance.cloche("ps", "-q").out, "it does not run any more"
    assert instance.cloche("ps", "-a", "--format", "{{.Status}}").out.startswith("Exited (3)")
    state = json.loads(instance.cloche("inspect", "one").out)[0]["State"]
    assert (state["Status"], state["Running"], state["ExitCode"], state["Pid"]) == ("exited", False, 3, 0), state
    assert state["FinishedAt"] > state["StartedAt"], state
    assert attachments(instance), "its addresses are its own until then"
    instance.cloche("wait", "one")
    assert attachments(instance) == [] and not instance.cloche("ps", "-q").out
    instance.cloche("rm", "one")


@test
def nothing_is_left_by_daemons_and_monitors_that_were_killed(instance, images, scratch, unique):
    lists = Lists(instance, scratch)
    bridge = "b" + unique
    lists.write("shop", {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True,
                         "ipam": lists.ipam("10.126.4.0/24")},
                {"type": "portmap", "capabilities": {"portMappings": True}})
    lists.write("stubborn", lists.stub(fail=["DEL"]))
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("network", "create", "-d", "cni", "shop")
    instance.cloche("network", "create", "-d", "cni", "stubborn")

    def monitor(name):
        return json.loads(instance.cloche("inspect", name).out)[0]["State"]["Pid"]
    try:
        # The monitor goes, under a daemon and without one.
        serve(instance, "one", "shop", "-p", "18081:80")
        serve(instance, "two", "shop", "-p", "18082:80")
        pids = {name: int(pathlib.Path(f"/proc/{monitor(name)}/stat").read_text().rpartition(")")[2].split()[1])
                for name in ("one", "two")}
        os.kill(pids["one"], signal.SIGKILL)
        wait_for(lambda: len(attachments(instance)) == 1, what="DEL of the one whose monitor is gone")
        instance.kill_daemon()
        os.kill(pids["two"], signal.SIGKILL)
        instance.start_daemon()
        wait_for(lambda: not attachments(instance), what="DEL of the other one")
        assert nat_rules() == [] and lists.addresses("shop") == [], (nat_rules(), lists.addresses("shop"))
        # It ends while no daemon lives.
        instance.cloche("run", "-d", "--name", "three", "--network", "shop", "-p", "18083:80", "small:1", "sleep",
                        "100")
        pid = monitor("three")
        instance.kill_daemon()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists())
        instance.start_daemon()
        wait_for(lambda: not attachments(instance), what="DEL of what ended alone")
        assert nat_rules() == [] and lists.addresses("shop") == [], (nat_rules(), lists.addresses("shop"))
        # A DEL that fails is tried again: by the next start, and by the next daemon.
        instance.cloche("run", "--name", "four", "--network", "stubborn", "small:1", "true")
        assert len(attachments(instance)) == 1
        instance.cloche("start", "-a", "four")
        assert len(attachments(instance)) == 2 and len(lists.calls("DEL")) == 3, lists.calls("DEL")
        instance.cloche("rm", "four")
        for name in attachments(instance):  # as if its plug-in could do it now
            path = instance.root / "cni" / name
            path.write_text(path.read_text().replace('"fail":["DEL"]', '"fail":[]'))
        instance.kill_daemon()
        instance.start_daemon()
        wait_for(lambda: not attachments(instance), what="the next daemon's DEL")
        stays_clean(instance, lists, "shop")
    finally:
        run("ip", "link", "delete", bridge, code=None)
        remove_rules()


EXT4_SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2


@test
def what_DEL_needs_is_on_the_disk_before_ADD(instance, images, scratch):
    """The power goes while a plug-in is at its ADD: the next boot finds what DEL needs."""
    lists = Lists(instance, scratch, limit=5)
    lists.write("slow", lists.stub(hang=True))
    disk = scratch / "disk"
    disk.touch()
    os.truncate(disk, 256 << 20)
    run("mkfs.ext4", "-q", disk)
    instance.root.mkdir()
    run("mount", "-o", "loop,commit=600", disk, instance.root)
    try:
        instance.cloche("load", "-q", "-i", images.docker_archive())
        instance.cloche("network", "create", "--driver", "cni", "slow")
        client = instance.start("run", "--network", "slow", "small:1", "true")
        wait_for(lambda: lists.calls("ADD"), what="ADD")
        folder = os.open(instance.root, os.O_RDONLY)
        fcntl.ioctl(folder, EXT4_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        os.close(folder)
        client.communicate()
        os.kill(instance.daemon_pid(), signal.SIGKILL)
        wait_for(lambda: run("umount", instance.root, code=None).code == 0, what="nobody has the disk")
        run("mount", "-o", "loop", disk, instance.root)
        left = attachments(instance)
        assert len(left) == 1, left
        assert json.loads((instance.root / "cni" / left[0]).read_text())["network"] == "slow", left
        before = len(lists.calls("DEL"))
        instance.start_daemon()
        wait_for(lambda: not attachments(instance) and len(lists.calls("DEL")) > before, what="DEL")
    finally:
        instance.cloche("system", "remove", "--force", code=None)
        run("umount", "-l", instance.root, code=None)
        if instance.root.exists():
            instance.root.rmdir()


@test
def an_attachment_that_nobody_can_read_is_put_aside(instance, images, scratch):
    lists = Lists(instance, scratch)
    lists.write("stubborn", lists.stub(fail=["DEL"]))
    lists.write("plain", lists.stub())
    instance.cloche("load", "-q", "-i", images.docker_archive())
    for name in ("stubborn", "plain"):
        instance.cloche("network", "create", "--driver", "cni", name)
    instance.cloche("run", "--name", "one", "--network", "stubborn", "small:1", "true")
    (left,) = attachments(instance)
    (instance.root / "cni" / left).write_text("")
    (lists.folder / "50-stubborn.conflist").unlink()
    lists.write("stubborn", lists.stub())
    for _ in range(2):
        instance.cloche("start", "-a", "one")
    assert attachments(instance) == [left + ".broken"]
    log = (instance.run_folder / "cloched.log").read_text()
    assert log.count("is put aside as") == 1, log
    instance.cloche("rm", "one")


if __name__ == "__main__":
    main()
