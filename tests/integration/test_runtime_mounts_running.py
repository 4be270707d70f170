"""cloche-runtime mounts: mounts that come to a container that runs, and go again."""

import json
import subprocess

from bundles import cgroup_file, cgroup_version, world
from harness import main, wait_for

SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def user_namespace(w):
    w.bundle.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        w.bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    subprocess.run(["chown", "-R", "100000:100000", w.bundle.rootfs], check=True)


def running(w, script=SLEEP):
    # tests write into the image, which the configuration has read-only
    w.bundle.config["root"]["readonly"] = False
    return w.runtime.container(w.bundle.script(script), w.name)


def change(w, what, *mounts, code=0, as_object=False):
    mounts = [dict(mount) for mount in mounts]
    return w.runtime("mounts", what, w.name, "-", code=code,
                     input=json.dumps({"ociVersion": "1.0.0", "mounts": mounts} if as_object
                                      else mounts))


def inside(w, script, code=0):
    return w.runtime("exec", w.name, "sh", "-c", script, code=code).out


def source(w):
    folder = w.scratch / "source"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "file").write_text("from the host\n")
    return folder


def bind(destination, path, *options):
    return {"destination": destination, "type": "bind", "source": str(path),
            "options": ["bind", *options]}


TMPFS = {"destination": "/srv/tmp", "type": "tmpfs", "source": "tmpfs",
         "options": ["size=64k", "nosuid", "mode=0700"]}


def tables(w):
    return inside(w, "cat /proc/self/mountinfo")


def come_and_go(w):
    folder = source(w)
    mounts = [bind("/srv/data", folder, "ro"), bind("/srv/data/file", folder / "file"), TMPFS]
    with running(w):
        before = tables(w)
        change(w, "add", *mounts)
        assert inside(w, "cat /srv/data/file") == "from the host\n"
        assert "Read-only" in inside(w, "touch /srv/data/x 2>&1; true")
        assert "64" in inside(w, "df -k /srv/tmp | tail -1").split()
        assert inside(w, "stat -c %a /srv/tmp") == "700\n"
        change(w, "remove", *mounts)
        assert tables(w) == before
        assert inside(w, "ls /srv/data") == "", "the folder stays, and is empty"
    assert (folder / "file").exists()


@world
def mounts_come_and_go(w):
    come_and_go(w)


@world
def mounts_in_a_user_namespace(w):
    user_namespace(w)
    come_and_go(w)


@world
def a_configuration_is_taken_for_its_mounts(w):
    with running(w):
        change(w, "add", TMPFS, as_object=True)
        assert "/srv/tmp tmpfs" in inside(w, "cat /proc/mounts")
        change(w, "remove", {"destination": "/srv/tmp"})
        assert "/srv/tmp" not in inside(w, "cat /proc/mounts")


@world
def new_file_systems_are_the_containers(w):
    with running(w):
        change(w, "add", {"destination": "/srv/proc", "type": "proc", "source": "proc"},
               {"destination": "/srv/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]})
        wait_for(lambda: inside(w, "cat /srv/proc/1/cmdline").startswith("/bin/sh"))
        assert inside(w, "ls /srv/sys/class/net").split() == ["lo"]


@world
def mapped_for_the_container(w):
    user_namespace(w)
    folder = source(w)
    with running(w):
        change(w, "add", bind("/srv/plain", folder), bind("/srv/mapped", folder, "idmap"))
        assert inside(w, "stat -c %u /srv/plain/file /srv/mapped/file").split() == ["65534", "0"]


@world
def what_fails_leaves_nothing(w):
    folder = source(w)
    with running(w):
        before = tables(w)
        result = change(w, "add", bind("/srv/one", folder), TMPFS,
                        {"destination": "/srv/two", "type": "tmpfs", "source": "tmpfs",
                         "options": ["no-such-option"]}, code=1)
        assert "no-such-option" in result.err and "mounts[2] (/srv/two)" in result.err, result.err
        assert tables(w) == before
        assert "No such file" in change(w, "add", bind("/srv/one", "/no/such"), code=1).err
        assert "nothing is mounted there" in change(w, "remove", TMPFS | {"destination": "/srv"},
                                                    code=1).err
        assert "the root stays" in change(w, "remove", {"destination": "/"}, code=1).err
        assert "mounts" in w.runtime("mounts", "add", w.name, "-", input="{}", code=1).err
        for text in ("[", "[1]", "[{}]", '[{"destination": "/x"}]', ""):
            w.runtime("mounts", "add", w.name, "-", input=text, code=1)
        w.runtime("mounts", "move", w.name, "-", input="[]", code=1)
        assert tables(w) == before
    assert "does not exist" in change(w, "add", TMPFS, code=1).err


@world
def nothing_is_mounted_inside_of_proc(w):
    with running(w):
        result = change(w, "add", bind("/proc/sys", source(w)), code=1)
        assert "inside /proc" in result.err, result.err
        inside(w, "mkdir -p /srv; ln -s /proc/sys /srv/link")
        assert "inside /proc" in change(w, "add", bind("/srv/link", w.scratch / "source"), code=1).err


@world
def links_of_the_container_lead_nowhere_else(w):
    """The container puts a link where it is known that something will be mounted or unmounted."""
    outside = w.scratch / "outside"
    outside.mkdir()
    folder = source(w)
    with running(w):
        inside(w, f"mkdir -p /a/data; ln -s {outside} /b; ln -s ../../../../..{outside} /c")
        change(w, "add", bind("/a/data", folder), bind("/b/made", folder), bind("/c/made", folder))
        assert not list(outside.iterdir()), "made in the host's folder"
        assert inside(w, f"cat {outside}/made/file") == "from the host\n"
        # A mask of /proc in place of what was to be unmounted.
        masked = inside(w, "wc -c </proc/keys")
        inside(w, "mv /a /a-before; mkdir /a; ln -s /proc/keys /a/data")
        result = change(w, "remove", {"destination": "/a/data"}, code=1)
        assert "symbolic link" in result.err, result.err
        assert inside(w, "wc -c </proc/keys") == masked == "0\n"


@world
def sources_are_not_looked_up_inside(w):
    """The kernel would look for a file system's device or folders through the container's links."""
    with running(w):
        inside(w, "mkdir /layer /a")
        for kind, options in (("ext4", []), ("overlay", ["lowerdir=/layer:/a"])):
            result = change(w, "add", {"destination": "/mnt", "type": kind, "source": "/dev/stick",
                                       "options": options}, code=1)
            assert f"no file system of type {kind}" in result.err, result.err
            assert "on the host" in result.err, result.err


@world
def a_remount_follows_no_links(w):
    """A read-only path of /proc in place of what was to become writable."""
    with running(w):
        inside(w, "mkdir -p /a/data; mv /a /b; mkdir /a; ln -s /proc/sys /a/data")
        result = change(w, "add", {"destination": "/a/data", "type": "none", "source": "none",
                                   "options": ["bind", "remount", "rw"]}, code=1)
        assert "destination" in result.err, result.err
        assert "proc/sys proc ro," in inside(w, "grep ' /proc/sys ' /proc/mounts"), "writable"


@world
def the_container_does_not_see_who_mounts(w):
    """It could kill, stop or trace it. Each process of its pid namespace takes a number there."""
    def number():
        return int(inside(w, "echo $$"))

    with running(w, "exec sleep 1000"):
        step = -number() + number()
        before = number()
        change(w, "add", TMPFS, bind("/srv/data", source(w)))
        change(w, "remove", TMPFS)
        assert number() == before + step
        change(w, "add", {"destination": "/srv/proc", "type": "proc", "source": "proc"})
        assert number() > before + 2 * step, "a procfs is of the namespace that it is made in"


@world
def what_went_through_a_link_is_taken_back(w):
    """In many images /var/run leads to /run."""
    with running(w):
        inside(w, "mkdir -p /real; ln -s /real /link")
        before = tables(w)
        bad = {"destination": "/srv/two", "type": "tmpfs", "source": "tmpfs",
               "options": ["size=many"]}
        result = change(w, "add", bind("/link/one", source(w)),
                        TMPFS | {"destination": "/link/tmp"}, bad, code=1)
        assert "mounts[2] (/srv/two)" in result.err, result.err
        assert tables(w) == before


@world
def what_is_copied_up_is_the_containers_memory(w):
    size = 8 << 20
    file = "memory.current" if cgroup_version() == 2 else "memory.usage_in_bytes"
    mount = {"destination": "/srv/copied", "type": "tmpfs", "source": "tmpfs",
             "options": ["tmpcopyup", "size=32m"]}
    with running(w):
        inside(w, "mkdir -p /srv/copied")
        with open(w.bundle.rootfs / "srv/copied/large", "wb") as large:
            large.truncate(size)
        before = int(cgroup_file(w.name, "memory", file))
        change(w, "add", mount)
        assert int(inside(w, "stat -c %s /srv/copied/large")) == size
        assert int(cgroup_file(w.name, "memory", file)) >= before + size * 3 // 4
        change(w, "remove", mount)
        w.runtime("pause", w.name)
        assert "paused" in change(w, "add", mount, code=1).err
        w.runtime("resume", w.name)


@world
def the_hosts_sysfs_does_not_stand_in(w):
    """At creation it does for a container without a network of its own; here /sys is whatever the
    container has put there."""
    user_namespace(w)
    w.bundle.namespace("network", remove=True)
    with running(w):
        inside(w, "umount -l /sys; rm -rf /sys 2>/dev/null; true")
        change(w, "add", {"destination": "/srv/sys", "type": "sysfs", "source": "sysfs"}, code=1)


@world
def the_helper_is_out_of_reach(w):
    """Nothing of the process that mounts can be opened from inside, whatever is tried meanwhile."""
    script = """
        trap 'exit 0' TERM
        while :; do
            for p in /proc/[0-9]*; do
                case $(readlink $p/exe 2>/dev/null) in
                *cloche*) echo reached >/found;;
                esac
            done
        done"""
    w.bundle.process["capabilities"]["bounding"].append("CAP_DAC_READ_SEARCH")
    with running(w, script):
        for _ in range(10):
            change(w, "add", TMPFS)
            change(w, "remove", TMPFS)
        assert not (w.bundle.rootfs / "found").exists()


if __name__ == "__main__":
    main()
