"""User namespaces that root makes or joins. Those of an ordinary user: test_runtime_rootless.py."""

import contextlib
import os
import pathlib
import stat
import subprocess

from bundles import Bundle, world
from harness import main, run, wait_for

BASE = 100000


def map_users(bundle, inside=0, size=65536):
    bundle.linux["uidMappings"] = [{"containerID": inside, "hostID": BASE, "size": size}]
    bundle.linux["gidMappings"] = [{"containerID": inside, "hostID": BASE + 100000, "size": size}]
    give(bundle)
    return bundle.namespace("user")


def give(bundle):
    for path in [bundle.rootfs, *bundle.rootfs.rglob("*")]:
        os.lchown(path, BASE, BASE + 100000)


@contextlib.contextmanager
def pinned(w, name, *unshare):
    """A namespace that lives without a process."""
    target = w.scratch / name
    target.touch()
    run("unshare", *[word.format(target) for word in unshare], "true")
    try:
        yield target
    finally:
        run("umount", target)


@world
def nobody_is_root(w):
    map_users(w.bundle, inside=1000, size=1)
    w.bundle.process["user"] = {"uid": 1000, "gid": 1000}
    for mount in w.bundle.config["mounts"]:
        mount["options"] = [word for word in mount.get("options", []) if word != "gid=5"]
    w.bundle.process["capabilities"] = {}
    assert w.run("id -u; id -g; grep CapEff /proc/self/status").out.split() == \
        ["1000", "1000", "CapEff:", "0" * 16]
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        assert w.runtime("exec", w.name, "id", "-u").out == "1000\n"
    w.bundle.process["user"] = {"uid": 7, "gid": 1000}
    w.fails("process.user")


@world
def its_mounts_do_not_reach_the_host(w):
    """The root on a shared mount, as each is under systemd: neither those of the start nor those
    that the container makes later."""
    map_users(w.bundle).all_capabilities("CAP_SYS_ADMIN")
    (w.bundle.rootfs / "mnt").mkdir(exist_ok=True)
    w.bundle.script("mount -t tmpfs inner /mnt && sleep 100")
    run("mount", "--bind", w.bundle.rootfs, w.bundle.rootfs)
    try:
        run("mount", "--make-shared", w.bundle.rootfs)
        for word in ("", "rslave", "rshared"):
            w.bundle.linux["rootfsPropagation"] = word
            with w.runtime.container(w.bundle.write(), w.name):
                wait_for(lambda: "inner /mnt " in
                         w.runtime("exec", w.name, "cat", "/proc/mounts").out)
                places = [line.split()[4] for line in open("/proc/self/mountinfo")]
                assert not [p for p in places if p.startswith(f"{w.bundle.rootfs}/")], (word, places)
    finally:
        run("umount", "-R", w.bundle.rootfs)


@world
def mappings_beside_a_joined_one_must_be_its_own(w):
    map_users(w.bundle).script("sleep 100")
    other = Bundle(w.scratch / "other", w.images, w.name + "b")
    map_users(other).script("cat /proc/self/uid_map")
    with w.runtime.container(w.bundle, w.name):
        pid = w.runtime.state(w.name)["pid"]
        other.namespace("user", f"/proc/{pid}/ns/user")
        other.namespace("network", f"/proc/{pid}/ns/net")
        assert w.runtime("run", "-b", other.path, w.name + "b").out.split()[1] == str(BASE)
        other.linux["gidMappings"][0]["size"] = 5
        result = w.runtime("run", "-b", other.write().path, w.name + "b", code=1)
        assert "linux.gidMappings" in result.err and "non-matching mapping" in result.err, result
        other.linux["gidMappings"] = []
        other.linux["uidMappings"].append({"containerID": 70000, "hostID": 1, "size": 1})
        result = w.runtime("run", "-b", other.write().path, w.name + "b", code=1)
        assert "linux.uidMappings" in result.err, result


@world
def a_joined_one_that_does_not_own_the_joined_network(w):
    map_users(w.bundle).script("sleep 100")
    with pinned(w, "net", "--net={}") as network:
        with w.runtime.container(w.bundle, w.name):
            users = w.scratch / "users"
            users.touch()
            run("mount", "--bind", f"/proc/{w.runtime.state(w.name)['pid']}/ns/user", users)
        try:
            w.bundle.namespace("user", users).namespace("network", network)
            w.bundle.config["mounts"] = [mount for mount in w.bundle.config["mounts"]
                                         if not mount["destination"].startswith("/sys")]
            del w.bundle.linux["uidMappings"], w.bundle.linux["gidMappings"]
            with w.runtime.container(w.bundle.script("sleep 100"), w.name):
                out = w.runtime("exec", w.name, "stat", "-Lc", "%i", "/proc/self/ns/user",
                                "/proc/self/ns/net").out
                assert [int(number) for number in out.split()] == \
                    [os.stat(users).st_ino, os.stat(network).st_ino], out
        finally:
            run("umount", users)


@world
def a_time_namespace_belongs_to_it(w):
    map_users(w.bundle).namespace("time")
    w.bundle.linux["timeOffsets"] = {"monotonic": {"secs": 7881, "nanosecs": 2718281}}
    w.bundle.script("cat /proc/self/timens_offsets; sleep 100")
    with w.runtime.container(w.bundle, w.name):
        lines = w.runtime("exec", w.name, "cat", "/proc/self/timens_offsets").lines
        assert lines[0].split() == ["monotonic", "7881", "2718281"], lines


@world
def what_belongs_to_the_namespace_can_be_set(w):
    map_users(w.bundle)
    w.bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345"}
    w.bundle.config["hostname"] = "mapped"
    w.bundle.process["oomScoreAdj"] = 100
    out = w.run("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; hostname; "
                "cat /proc/self/oom_score_adj; stat -c %g /dev/pts/ptmx; ls -ld /dev/null").lines
    assert out[:4] == ["1", "12345", "mapped", "100"], out


@world
def devices_are_those_asked_for(w):
    map_users(w.bundle)
    w.bundle.linux["devices"] = [{"path": "/dev/deep/down/zero", "type": "c", "major": 1,
                                  "minor": 5}]
    assert w.run("stat -c %t:%T /dev/deep/down/zero").out == "1:5\n"
    w.bundle.linux["devices"] = [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 3}]
    assert w.run("stat -c %t:%T /dev/zero; wc -c </dev/zero").out == "1:3\n0\n"
    w.bundle.linux["devices"] = [{"path": "/dev/fifo", "type": "p"}]
    w.run("test -p /dev/fifo && test -c /dev/null && echo >/dev/null && head -c1 /dev/zero")


@world
def nodes_copied_from_the_host_are_the_hosts(w):
    """As engines list them for --privileged: nobody in the container may have more of the host's
    disks than the host's node says. Seen red with a node made in its place, of the container's root."""
    map_users(w.bundle)
    host = os.stat("/dev/null")
    node = w.scratch / "disk"
    w.scratch.chmod(0o711)
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    w.bundle.linux["devices"] = [
        {"path": str(node), "type": "b", "major": 7, "minor": 0, "fileMode": 0o600, "uid": 0,
         "gid": 0},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": host.st_mode,
         "uid": host.st_uid, "gid": host.st_gid},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 0o666, "uid": 0,
         "gid": 0}]
    w.bundle.resources["devices"] = [{"allow": True, "access": "rwm"}]
    out = w.run(f"exec 2>&1; stat -c '%a %u:%g' {node}; head -c1 <{node}; readlink /dev/ptmx", code=0).lines
    assert out[0] == "600 65534:65534" and "ermission denied" in out[1], out
    assert out[2] == "pts/ptmx", out


@world
def mappings_without_a_namespace(w):
    """Everything as it is says nothing; anything else cannot be done."""
    everybody = [{"containerID": 0, "hostID": 0, "size": 4294967295}]
    w.bundle.linux["uidMappings"] = w.bundle.linux["gidMappings"] = everybody
    assert w.run("cat /proc/self/uid_map").out.split() == ["0", "0", "4294967295"]
    w.bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 1, "size": 4294967294}]
    w.fails("linux.uidMappings", "no user namespace")


@world
def without_mappings_the_caller_is_its_root(w):
    w.bundle.namespace("user")
    for mount in w.bundle.config["mounts"]:
        mount["options"] = [word for word in mount.get("options", []) if word != "gid=5"]
    for mappings in ({}, {"uidMappings": [], "gidMappings": []}):
        w.bundle.linux.update(mappings)
        text = "cd /proc/self; cat uid_map gid_map; readlink ns/user"
        *maps, own = w.run(text).out.splitlines()
        assert [line.split() for line in maps] == [["0", "0", "1"]] * 2
        assert own != os.readlink("/proc/self/ns/user")
    with w.runtime.container(w.bundle.script("sleep 100"), w.name):
        assert w.runtime("exec", w.name, "cat", "/proc/self/uid_map").out.split() == ["0", "0", "1"]
    w.bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
    w.fails("linux.gidMappings: a new user namespace needs mappings")


@world
def groups_of_the_caller_are_kept_when_asked_for(w):
    groups = "grep ^Groups: /proc/self/status"

    def as_member(*args):
        return run("setpriv", "--groups", "41,42", w.runtime.path, "--root", w.runtime.root,
                   *args).out.split()
    w.bundle.process["user"]["additionalGids"] = [7]
    for value, expected in ((None, ["7"]), ("1", ["41", "42"])):
        w.bundle.config["annotations"] = {"run.oci.keep_original_groups": value} if value else {}
        w.bundle.script(groups)
        assert as_member("run", "-b", w.bundle.path, w.name) == ["Groups:", *expected]
        with w.runtime.container(w.bundle.script("sleep 100"), w.name):
            assert as_member("exec", w.name, "sh", "-c", groups) == ["Groups:", *expected]
    map_users(w.bundle).script(groups)
    overflow = pathlib.Path("/proc/sys/kernel/overflowgid").read_text().strip()
    assert as_member("run", "-b", w.bundle.path, w.name) == ["Groups:", overflow, overflow]


@world
def supplementary_groups_do_not_leak(w):
    map_users(w.bundle)
    w.bundle.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [9]}
    w.bundle.script("id -G; sleep 100").write()
    argv = ["setpriv", "--groups", "4,20", w.runtime.path, "--root", w.runtime.root]
    out = w.scratch / "out"
    with open(out, "wb") as file:
        process = subprocess.Popen([*map(str, argv), "run", "-b", str(w.bundle.path), w.name],
                                   stdout=file, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: out.read_text() == "0 9\n")
        assert run(*argv, "exec", w.name, "id", "-G").out == "0 9\n"
    finally:
        w.runtime("delete", "--force", w.name)
        process.wait()


if __name__ == "__main__":
    main()
