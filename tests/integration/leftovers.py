"""What a test may not leave on the machine: snapshots and their comparison.

The mount, network and PID namespaces are the test's own (harness.py), so for those everything new
counts. cgroups and folders are shared with the machine: there, what carries one of the test's words
(instance names, names from the fixture `unique`) counts.
"""

import os
import pathlib
import socket
import struct
import subprocess
import time

# linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h
_NETLINK_NETFILTER = 12
_NLM_REQUEST, _NLM_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NFT_GET_TABLE = 10 << 8 | 1
_NFTA_TABLE_NAME = 1
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

SETTLE = 30.0  # seconds that the kernel and dying processes get to finish
# A network namespace, and so its link, lives on while a connection in it has not ended: the kernel says FIN nine
# times, for 102 s (tcp_orphan_retries), to who does not answer any more.
SETTLE_LINKS = 130.0


class Machine:
    """A snapshot."""

    def __init__(self):
        self.mounts = _mounts()
        self.links = _links()
        self.tables = _tables()
        self.processes = _processes()
        self.namespaces = _network_namespaces()
        self.files = _files()

    snapshot = classmethod(lambda cls: cls())

    def leftovers(self, words):
        """What is there now that was not there at the time of the snapshot, as lines of text; it is
        cleaned away, so that the next test starts clean."""
        begun = time.monotonic()
        while True:
            found = self._compare(words)
            links_only = all(line.startswith("link: ") for line in found)
            if not found or time.monotonic() - begun > (SETTLE_LINKS if links_only else SETTLE):
                break
            time.sleep(0.05)
        if found:
            self._clean(words)
        return found

    def _compare(self, words):
        found = [f"mount: {mount}" for mount in _mounts() - self.mounts]
        found += [f"link: {link}" for link in _links() - self.links]
        found += [f"nftables table: {table}" for table in _tables() - self.tables]
        found += [f"process: {pid} {name}"
                  for pid, name in _processes().items() if pid not in self.processes]
        found += [f"network namespace: {ns}" for ns in _network_namespaces() - self.namespaces]
        found += [f"file: {path}" for path in sorted(_files() - self.files)
                  if _is_ours(path, words)]
        found += [f"cgroup: {path}" for path in _cgroups(words)]
        return found

    def _clean(self, words):
        import shutil
        import signal
        for pid in _processes():
            if pid not in self.processes:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for mount in _mounts() - self.mounts:
            subprocess.run(["umount", "-l", mount.split()[0]], check=False, capture_output=True)
        for link in _links() - self.links:
            subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        for table in _tables() - self.tables:
            subprocess.run(["nft", "delete", "table", *table.split()], check=False)
        time.sleep(0.1)
        for path in sorted(_cgroups(words), reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                pass
        for path in _files() - self.files:
            if _is_ours(path, words):
                shutil.rmtree(path, ignore_errors=True)


def _mounts():
    return {f"{fields[4]} ({line.split(' - ')[1].split()[0]})"
            for line in open("/proc/self/mountinfo") for fields in [line.split()]}


def _links():
    return {name for _, name in socket.if_nameindex()}


def _attributes(data):
    """Of a netlink message: type -> bytes."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3:]
    return found


def _tables():
    """What `nft list tables` says, without a program: it is asked for twice a test."""
    found = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(struct.pack("=IHHIIBBH", 20, _NFT_GET_TABLE, _NLM_REQUEST | _NLM_DUMP, 1, 0,
                                 socket.AF_UNSPEC, 0, 0))
        while True:
            answer = netlink.recv(1 << 16)
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, 16)[0], "list nftables' tables")
                name = _attributes(answer[20:length])[_NFTA_TABLE_NAME]
                family = _FAMILIES.get(answer[16], answer[16])
                found.add(f"{family} {name.rstrip(bytes(1)).decode()}")
                answer = answer[(length + 3) & ~3:]


def _processes():
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = pathlib.Path(f"/proc/{name}/stat").read_text(errors="replace")
            line = pathlib.Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        kernel_thread = int(stat.rpartition(")")[2].split()[6]) & 0x00200000
        if not kernel_thread:
            found[int(name)] = line.decode(errors="replace").strip() or stat.split()[1]
    return found


def _network_namespaces():
    """Those that a process is in or holds open, or that a mount holds."""
    found = set()
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        links = [f"/proc/{pid}/ns/net"]
        try:
            links += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            pass
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("net:"):
                found.add(target)
    for line in open("/proc/self/mountinfo"):
        if line.split()[3].startswith("net:"):
            found.add(line.split()[3])
    return found


def _files():
    found = set()
    for folder in ("/run", "/var/lib", "/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/run"):
        try:
            found.update(os.path.join(folder, name) for name in os.listdir(folder))
        except OSError:
            pass
    return found


def _is_ours(path, words):
    return any(word in path for word in words)


def _cgroups(words):
    found = []
    for line in open("/proc/self/mountinfo"):
        left, right = line.split(" - ")
        if right.split()[0] not in ("cgroup", "cgroup2"):
            continue
        for folder, names, _ in os.walk(left.split()[4]):
            found += [os.path.join(folder, name) for name in names if _is_ours(name, words)]
    return found
