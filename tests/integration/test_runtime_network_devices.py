"""linux.netDevices through cloche-runtime: devices of the host that become the container's.

The kernel of the machine has no dummy links: one end of a veth pair is moved, the other one shows
when it is gone.
"""

import json
import os
import subprocess

from bundles import world
from harness import main, run, wait_for


class Pair:
    """A veth pair of the test's own: `device` is to be moved, `peer` stays."""

    def __init__(self, unique):
        self.device, self.peer = unique[:10] + "d", unique[:10] + "p"
        run("ip", "link", "add", self.device, "type", "veth", "peer", "name", self.peer)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        for name in (self.device, self.peer):
            if self.host(name):
                run("ip", "link", "delete", name, code=None)  # it may just be going

    @staticmethod
    def host(name):
        return any(link["ifname"] == name
                   for link in json.loads(run("ip", "-j", "link", "show").out))


class Namespace:
    """A network namespace that a process of ours keeps."""

    def __init__(self):
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        self.path = f"/proc/{self.process.pid}/ns/net"
        wait_for(lambda: os.stat(self.path).st_ino != os.stat("/proc/self/ns/net").st_ino)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.process.kill()
        self.process.wait()

    def ip(self, *args):
        return run("nsenter", f"--net={self.path}", "ip", *args).out

    def show(self, device):
        return json.loads(self.ip("-j", "address", "show", "dev", device))[0]


def addresses(link):
    return {(address["local"], address["prefixlen"]) for address in link["addr_info"]
            if address["scope"] == "global"}


@world
def a_device_is_moved_and_up(w):
    with Pair(w.name) as pair:
        w.bundle.linux["netDevices"] = {pair.device: {}}
        out = w.run(f"ip link show {pair.device}").out
        assert ",UP" in out, out
        # It goes with the namespace, which the kernel clears up later, and its peer with it.
        wait_for(lambda: not pair.host(pair.device) and not pair.host(pair.peer))


@world
def it_keeps_what_is_its_own(w):
    """Hardware address, MTU, global addresses; not those of a link or a host."""
    with Pair(w.name) as pair, Namespace() as space:
        w.bundle.namespace("network", space.path)
        w.bundle.linux["netDevices"] = {pair.device: {"name": "inside0"}}
        for command in (f"link set {pair.device} mtu 1400 address 02:11:22:33:44:55 up",
                        f"address add 198.51.100.7/25 broadcast 198.51.100.127 dev {pair.device}",
                        f"address add 203.0.113.1 peer 203.0.113.2/32 dev {pair.device}",
                        f"address add 2001:db8::7/64 nodad dev {pair.device}",
                        f"address add 192.0.2.33/32 scope host dev {pair.device}",
                        f"address add 192.0.2.34/32 scope link dev {pair.device}"):
            run("ip", *command.split())
        out = w.run("ip address show inside0; cat /sys/class/net/inside0/mtu").out
        assert ",UP" in out and "198.51.100.7/25 brd 198.51.100.127" in out, out
        assert "2001:db8::7/64" in out and "192.0.2.3" not in out, out
        # The namespace is its owner's: the device stays there.
        link = space.show("inside0")
        assert (link["mtu"], link["address"]) == (1400, "02:11:22:33:44:55"), link
        assert "UP" in link["flags"]
        assert addresses(link) == {("198.51.100.7", 25), ("203.0.113.1", 32), ("2001:db8::7", 64)}
        assert not pair.host(pair.device) and pair.host(pair.peer)
        space.ip("link", "set", "inside0", "name", pair.device, "netns", str(os.getpid()))


@world
def it_is_there_for_hooks_and_parameters(w):
    with Pair(w.name) as pair:
        w.bundle.linux["netDevices"] = {pair.device: {"name": "eth0"}}
        w.bundle.linux["sysctl"] = {"net.ipv4.conf.eth0.rp_filter": "2"}
        log = w.scratch / "log"
        w.bundle.config["hooks"] = {"createContainer": [{
            "path": "/bin/sh", "args": ["sh", "-c", f"ip link show eth0 >{log}"]}]}
        assert w.run("cat /proc/sys/net/ipv4/conf/eth0/rp_filter").out == "2\n"
        assert ",UP" in log.read_text()


@world
def a_device_in_a_user_namespace(w):
    with Pair(w.name) as pair:
        w.bundle.namespace("user")
        for kind in ("uidMappings", "gidMappings"):
            w.bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        run("chown", "-R", "100000:100000", w.bundle.rootfs)
        for folder in (w.scratch, w.bundle.path):
            folder.chmod(0o755)
        run("ip", "address", "add", "198.51.100.7/25", "dev", pair.device)
        w.bundle.linux["netDevices"] = {pair.device: {"name": "eth0"}}
        out = w.run("ip address show eth0").out
        assert ",UP" in out and "198.51.100.7/25" in out, out


@world
def what_cannot_be_moved_is_named(w):
    with Pair(w.name) as pair:
        def refused(devices, *words):
            w.bundle.linux["netDevices"] = devices
            w.fails(*words, script="true")
            assert pair.host(pair.device) and pair.host(pair.peer)
        refused({"not-there": {}}, "linux.netDevices.not-there: find it on the host")
        # The first one is not touched when there is no second.
        refused({pair.device: {}, "not-there": {}}, "linux.netDevices.not-there")
        refused({pair.device: {"name": "lo"}},
                f"linux.netDevices.{pair.device}: the container's network namespace has a 'lo'")
        refused({pair.device: {"name": "x"}, pair.peer: {"name": "x"}},
                "another device is to be 'x' too")
        for name in ("", "a/b", "..", "a b", "a:b", "sixteen-letters-"):
            refused({name: {}}, f"invalid network device name '{name}'")
        refused({pair.device: {"name": "a/b"}},
                f"linux.netDevices.{pair.device}.name: invalid network device name 'a/b'")
        refused({"lo": {"name": "other"}}, "linux.netDevices.lo: move it")
        w.bundle.namespace("network", remove=True)
        w.bundle.linux.pop("sysctl", None)
        refused({pair.device: {}}, "unable to move network devices without a NET namespace")
        w.bundle.namespace("network", "/proc/self/ns/net")
        refused({pair.device: {}}, "linux.netDevices: the container's network namespace is the "
                                   "host's")
        w.bundle.linux["netDevices"] = {}
        assert w.run("echo fine").out == "fine\n"


if __name__ == "__main__":
    main()
