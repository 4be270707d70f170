"""The mounts of a container through cloche-runtime: options, idmapped mounts, propagation, mount
namespaces of all kinds, and the ways into the root.

CLOCHE_RUNTIME chooses another runtime, to see what it does.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import stat

from bundles import cgroup_version, world
from harness import main, run, wait_for

MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]
OVERFLOW = int(pathlib.Path("/proc/sys/kernel/overflowuid").read_text())


def user_namespace(w, remap=True):
    """A container whose root is 100000 outside, and its root folder belongs to that user."""
    w.bundle.namespace("user")
    w.bundle.linux["uidMappings"] = w.bundle.linux["gidMappings"] = MAPPING
    if remap:
        for folder, folders, files in os.walk(w.bundle.rootfs):
            for name in [".", *files]:
                os.chown(pathlib.Path(folder) / name, 100000, 100000, follow_symlinks=False)


def options_of(w, place, script="cat /proc/self/mountinfo"):
    """The mount's and the file system's options, as the container sees them."""
    lines = [line.split() for line in w.run(script).lines]
    found = [line for line in lines if line[4] == place]
    assert found, (place, lines)
    return found[-1][5].split(","), found[-1][-1].split(",")


@contextlib.contextmanager
def mounted(place, *options, kind="tmpfs", source="tmpfs"):
    place.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", kind, *options, source, place)
    try:
        yield place
    finally:
        run("umount", "-R", place)



# ---------------------------------------------------------------- options

@world
def flags_of_a_new_file_system(w):
    for option, mount, filesystem in (
            ("ro", "ro", None), ("rw", "rw", None), ("nosuid", "nosuid", None),
            ("nodev", "nodev", None), ("noexec", "noexec", None), ("noatime", "noatime", None),
            ("nodiratime", "nodiratime", None), ("relatime", "relatime", None),
            ("nosymfollow", "nosymfollow", None), ("sync", None, "sync"),
            ("dirsync", None, "dirsync"), ("rro", "ro", None), ("rnosuid", "nosuid", None)):
        w.bundle.config["mounts"] = [entry for entry in w.bundle.config["mounts"]
                                     if entry["destination"] != "/mnt"]
        w.bundle.mount("/mnt", "tmpfs", "tmpfs", [option])
        have_mount, have_filesystem = options_of(w, "/mnt")
        assert not mount or mount in have_mount, (option, have_mount)
        assert not filesystem or filesystem in have_filesystem, (option, have_filesystem)


@world
def the_last_word_on_a_flag_wins(w):
    w.bundle.mount("/a", "tmpfs", "tmpfs", ["ro", "noexec", "nosuid", "sync", "noatime",
                                            "rw", "exec", "suid", "async", "atime"])
    w.bundle.mount("/b", "tmpfs", "tmpfs", ["rw", "strictatime", "noatime", "ro", "defaults", ""])
    mount, filesystem = options_of(w, "/a")
    assert mount == ["rw", "relatime"] and "sync" not in filesystem, (mount, filesystem)
    assert options_of(w, "/b")[0] == ["ro"]  # mount(2): strictatime is stronger than noatime


@world
def a_bind_mount_keeps_or_takes_flags(w):
    """As mount --bind does it: without options those of the source stay, with any only those are
    there. In a user namespace those that the kernel locks stay as well."""
    source = w.scratch / "source"
    reset = "remount,rw,suid,dev,exec,symfollow,diratime,strictatime"
    with mounted(source):
        def have(outside, *options):
            run("mount", "--bind", "-o", reset, source)
            run("mount", "--bind", "-o", f"remount,{outside}", source)
            w.bundle.config["mounts"] = [entry for entry in w.bundle.config["mounts"]
                                         if entry["destination"] != "/mnt"]
            w.bundle.mount("/mnt", source, options=["bind", *options])
            return set(options_of(w, "/mnt")[0])

        def refused(outside, *options):
            run("mount", "--bind", "-o", reset, source)
            run("mount", "--bind", "-o", f"remount,{outside}", source)
            w.bundle.config["mounts"][-1]["options"] = ["bind", *options]
            result = w.run("true", code=1)
            assert "error mounting" in result.err and "operation not permitted" in result.err

        (w.bundle.rootfs / "mnt").mkdir(exist_ok=True)
        cases = [
            # outside, options, without a user namespace, with one
            ("ro,noexec,nodiratime", [], "ro noexec nodiratime relatime",
             "ro noexec nodiratime relatime"),
            ("ro,noexec,nosymfollow,nodiratime", ["dev"], "rw nodiratime relatime",
             "ro noexec nodiratime relatime"),
            ("ro", ["nosuid", "nodev"], "rw nosuid nodev", "ro nosuid nodev"),
            ("ro", ["rw", "nosuid"], "rw nosuid", None),
            ("nosuid,nodev,noexec,noatime", ["dev", "suid", "exec", "atime"], "rw noatime", None),
            ("nodev,nosuid,noexec,noatime", ["ro"], "ro noatime",
             "ro nosuid nodev noexec noatime"),
            ("nodev,nosymfollow", ["ro", "symfollow"], "ro", "ro nodev"),
            ("nodev,nosymfollow", ["rw"], "rw", "rw nodev"),
            ("noatime", ["norelatime"], "rw noatime", "rw noatime"),
            ("noatime", ["relatime"], "rw relatime", None),
            ("noatime", ["nodiratime"], "rw nodiratime relatime", None),
            ("nodiratime", ["strictatime"], "rw", None),
            ("noatime", ["nodiratime", "strictatime"], "rw nodiratime", None),
            ("noatime", ["nodiratime", "norelatime"], "rw nodiratime relatime", None),
            ("strictatime", ["nostrictatime"], "rw", "rw"),
            ("strictatime", ["relatime"], "rw relatime", None),
            ("nodiratime", ["diratime"], "rw nodiratime relatime", "rw nodiratime relatime"),
        ]
        def check(outside, options, expected):
            flags = have(outside, *options)
            assert flags == set(expected.split()), (outside, options, flags)

        for outside, options, plain, _ in cases:
            check(outside, options, plain)
        user_namespace(w)
        for outside, options, _, inside in cases:
            if inside is None:
                refused(outside, *options)
            else:
                check(outside, options, inside)


@world
def a_source_that_only_the_host_can_reach_keeps_its_flags(w):
    """The container's user cannot walk to the source: the copy is the caller's."""
    parent = w.scratch / "closed"
    with mounted(parent / "source", "-o", "nosuid,noatime"):
        parent.chmod(0o700)
        (parent / "source/file").write_text("there")
        user_namespace(w)
        w.bundle.mount("/mnt", parent / "source", options=["bind", "ro"])
        assert set(options_of(w, "/mnt")[0]) == {"ro", "nosuid", "noatime"}
        w.bundle.config["mounts"][-1]["options"] = ["bind", "suid"]
        assert "operation not permitted" in w.run("true", code=1).err


@world
def options_of_the_whole_tree(w):
    source = w.scratch / "source"
    with mounted(source), mounted(source / "below", "-o", "noexec"):
        w.bundle.mount("/mnt", source, options=["rbind", "rro", "rnosuid", "rexec", "rnoatime"])
        for place in ("/mnt", "/mnt/below"):
            assert set(options_of(w, place)[0]) == {"ro", "nosuid", "noatime"}, place
        for option, access in (("ratime", {"relatime"}), ("rrelatime", {"relatime"}),
                               ("rnorelatime", {"relatime"}), ("rstrictatime", set()),
                               ("rnostrictatime", {"relatime"}), ("rnoatime", {"noatime"})):
            w.bundle.config["mounts"][-1]["options"] = ["rbind", option]
            for place, more in (("/mnt", set()), ("/mnt/below", {"noexec"})):
                assert set(options_of(w, place)[0]) == {"rw"} | access | more, (option, place)
        w.bundle.config["mounts"][-1]["options"] = ["rbind", "ro"]
        assert "ro" in options_of(w, "/mnt")[0] and "rw" in options_of(w, "/mnt/below")[0]


@world
def bind_mounts_take_no_data(w):
    w.bundle.mount("/mnt", w.scratch, options=["bind", "size=1m"])
    w.fails("invalid mount", "mounts[", "'size=1m'", "filesystem-specific options")


@world
def a_remount_changes_what_is_there(w):
    w.bundle.mount("/mnt", "tmpfs", "tmpfs", ["size=64k"])
    w.bundle.mount("/mnt", "none", "none", ["remount", "size=128k"])
    w.bundle.mount("/other", w.scratch, options=["bind"])
    w.bundle.mount("/other", "none", "none", ["bind", "remount", "ro", "noexec"])
    assert "size=128k" in options_of(w, "/mnt")[1]
    assert {"ro", "noexec"} <= set(options_of(w, "/other")[0])


@world
def the_kind_of_a_bind_mount_does_not_matter(w):
    (w.scratch / "source").mkdir()
    (w.scratch / "source/file").write_text("seen\n")
    for kind in ("bind", "none", "", "tmpfs", None):
        w.bundle.mount("/mnt", w.scratch / "source", kind, ["bind"])
        if kind is None:
            del w.bundle.config["mounts"][-1]["type"]
        assert w.run("cat /mnt/file").out == "seen\n", kind


@world
def mount_options_of_overlay(w):
    """Longer than fsconfig takes, several in one string, read-only."""
    layers = [w.scratch / ("layer" + "x" * 90 + str(i)) for i in range(4)]
    for i, layer in enumerate(layers):
        layer.mkdir()
        (layer / f"file{i}").write_text(str(i))
    lower = "lowerdir=" + ":".join(map(str, layers))
    (w.scratch / "upper").mkdir()
    (w.scratch / "work").mkdir()
    w.bundle.mount("/long", "overlay", "overlay", [lower, "ro"])
    w.bundle.mount("/joined", "overlay", "overlay",
                   [f"{lower},upperdir={w.scratch}/upper,workdir={w.scratch}/work", "nosuid"])
    w.bundle.mount("/short", "overlay", "overlay", [f"lowerdir={layers[0]}:{layers[1]}", "ro"])
    out = w.run("cat /long/file* /joined/file* /short/file*; echo new >/joined/new; "
                "touch /long/x 2>&1; cat /proc/self/mountinfo").lines
    assert out[0].startswith("01230123" + "01") and "Read-only" in out[0], out[0]
    assert (w.scratch / "upper/new").read_text() == "new\n"


# ---------------------------------------------------------------- places and sources

@world
def files_sockets_and_pipes_are_mounted(w):
    pipe, path = w.scratch / "pipe", w.scratch / "socket"
    os.mkfifo(pipe)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    for options in (["bind"], ["bind", "ro"], ["rbind", "rro"]):
        w.bundle.mount("/pipe", pipe, options=options).mount("/socket", path, options=options)
        assert w.run("test -p /pipe && test -S /socket && echo both").out == "both\n"
    server.close()


@world
def links_to_nothing_are_followed_when_a_place_is_made(w):
    root = w.bundle.rootfs
    (w.scratch / "file").write_text("content\n")
    os.symlink("/tmp/foo/bar", root / "jump")
    os.symlink("/jump/baz/hosts", root / "etc/hosts")
    os.symlink("../var/made", root / "etc/relative")
    os.symlink("loop", root / "loop")
    w.bundle.mount("/etc/hosts", w.scratch / "file")
    w.bundle.mount("/etc/relative", w.scratch / "file")
    out = w.run("cat /tmp/foo/bar/baz/hosts /var/made; grep -c made /proc/self/mountinfo").out
    assert out == "content\ncontent\n1\n", out
    for kind in ("bind", "tmpfs"):
        os.symlink(f"/tmp/{kind}", root / f"etc/{kind}")
        os.symlink(f"etc/{kind}/deep", root / f"{kind}-link")
        (w.scratch / "folder").mkdir(exist_ok=True)
        w.bundle.mount(f"/{kind}-link/er", w.scratch / "folder", kind, ["bind"] * (kind == "bind"))
    assert w.run("grep -c -E ' /tmp/(bind|tmpfs)/deep/er ' /proc/mounts").out == "2\n"
    w.bundle.mount("/loop", w.scratch / "file")
    w.fails("/loop", "symbolic links")


@world
def links_are_mounted_or_copied_themselves(w):
    (w.scratch / "file").write_text("inside")
    os.symlink(w.scratch / "file", w.scratch / "link")
    os.symlink("nowhere", w.bundle.rootfs / "target")

    def out(script, *options):
        w.bundle.mount("/target", w.scratch / "link", options=["bind", *options])
        result = w.run(script)
        w.bundle.config["mounts"].pop()
        return result.out.strip()
    for users in (False, True):
        if users:
            user_namespace(w)
        assert out("readlink /target", "dest-nofollow", "src-nofollow") == str(w.scratch / "file")
        assert out("cat /target", "dest-nofollow") == "inside"
    w.bundle.mount("/a/copy", w.scratch / "link", options=["bind", "copy-symlink"])
    for _ in range(2):  # it is there the second time
        assert w.run("readlink /a/copy; grep -c /a/copy /proc/mounts; true").lines == \
            [str(w.scratch / "file"), "0"]
    (w.bundle.rootfs / "a/copy").unlink()
    (w.bundle.rootfs / "a/copy").write_text("in the way")
    w.fails("is no link to")
    w.bundle.config["mounts"][-1]["options"] = ["bind", "copy-symlink", "src-nofollow"]
    w.fails("mounts[", "copy-symlink")


@world
def sources_in_the_root_show_what_was_mounted_before(w):
    for users in (False, True):
        for idmap in (False, True):
            root = w.bundle.rootfs
            base = w.scratch / f"base{users}{idmap}"
            for path in ("a/x", "b/y", "c/z"):
                (base / path).mkdir(parents=True)
                (base / path / "file").write_text(path)
                os.symlink(path[0], base / f"sym-{path[0]}")
            base.chmod(0o770)
            w.bundle.config["mounts"] = [entry for entry in w.bundle.config["mounts"]
                                         if not entry["destination"].endswith(("/mnt", "/final"))
                                         and "/mnt/" not in entry["destination"]]
            mount = lambda place, source: w.bundle.mount(place, source,
                                                         options=["rbind", "rprivate"])
            mount("/mnt", base / "a")
            mount("/mnt/x", base / "sym-b")
            mount("/mnt/x/y", base / "c")
            mount("/mnt/x/y/z", base / "sym-a")
            for place, source in (("mnt/x/y/z/x", "mnt/x"), ("mnt/x/y/z", "mnt/x/y"),
                                  ("final", "mnt")):
                mount(str(root / place), root / source)
                if idmap:
                    w.bundle.config["mounts"][-1]["uidMappings"] = MAPPING
                    w.bundle.config["mounts"][-1]["gidMappings"] = MAPPING
            if users:
                user_namespace(w)
            assert w.run("cat /final/x/y/z/z/x/y/z/x/file").out == "a/x", (users, idmap)


@world
def a_destination_may_be_relative_with_a_warning(w):
    w.bundle.mount("mnt/place", w.scratch)
    w.run("grep -q ' /mnt/place ' /proc/mounts")
    assert "mnt/place is not absolute" in w.runtime.log.read_text()


@world
def mounts_over_the_root(w):
    other = w.scratch / "other"
    shutil.copytree(w.bundle.rootfs, other, symlinks=True)
    (other / "mark").write_text("other root\n")
    base = w.bundle.config["mounts"]
    w.bundle.config["mounts"] = [{"destination": "/", "type": "bind", "source": str(other),
                                  "options": ["bind"]}, *base]
    assert w.run("cat /mark; grep -c ' / / ' /proc/self/mountinfo; true").lines[0] == "other root"
    assert not (w.bundle.rootfs / "mark").exists()
    w.bundle.config["mounts"] = [{"destination": "/", "type": "tmpfs", "source": "tmpfs",
                                  "options": ["tmpcopyup"]}, *base]
    w.bundle.config["root"]["readonly"] = False
    w.run("touch /made && ls /made && grep -q '^tmpfs / ' /proc/mounts")
    assert not (w.bundle.rootfs / "made").exists()


@world
def missing_places_are_made_with_the_groups_bit(w):
    (w.bundle.rootfs / "setgid").mkdir()
    (w.bundle.rootfs / "setgid").chmod(0o7755)
    w.bundle.mount("/setgid/a/b", "tmpfs", "tmpfs", ["ro"])
    w.run("true")
    for path in ("setgid/a", "setgid/a/b"):
        assert stat.S_IMODE((w.bundle.rootfs / path).stat().st_mode) == 0o2755, path


# ---------------------------------------------------------------- tmpfs

@world
def the_mode_of_a_tmpfs(w):
    (w.bundle.rootfs / "kept").mkdir()
    (w.bundle.rootfs / "kept").chmod(0o710)
    w.bundle.mount("/kept", "tmpfs", "tmpfs", ["ro"])
    w.bundle.mount("/made/new", "tmpfs", "tmpfs", ["nosuid"])
    w.bundle.mount("/named", "tmpfs", "tmpfs", ["mode=1500", "uid=7", "gid=8", "nr_inodes=50"])
    out = w.run("stat -c '%a %u %g' /kept /made/new /named; grep -E ' /(kept|made/new) ' "
                "/proc/mounts").lines
    assert out[:3] == ["710 0 0", "1777 0 0", "1500 7 8"], out
    assert "mode=710" in out[3] and "mode=" not in out[4], out
    assert stat.S_IMODE((w.bundle.rootfs / "made/new").stat().st_mode) == 0o755


@world
def read_only_comes_when_everything_is_there(w):
    """/dev gets its devices, and a read-only tmpfs the places of later mounts."""
    for entry in w.bundle.config["mounts"]:
        if entry["destination"] == "/dev":
            entry["options"].append("ro")
    w.bundle.mount("/holder", "tmpfs", "tmpfs", ["ro"])
    w.bundle.mount("/holder/place", w.scratch)
    out = w.run("echo x >/dev/null && ls -d /holder/place; touch /dev/x /holder/x 2>&1; true").out
    assert out.startswith("/holder/place\n") and out.count("Read-only") == 2, out


@world
def tmpcopyup_copies_everything_as_it_is(w):
    data = w.bundle.rootfs / "data"
    (data / "deep/er").mkdir(parents=True)
    (data / "deep/file").write_text("kept\n")
    (data / "sparse").write_bytes(b"x" * 100000)
    os.symlink("deep/file", data / "link")
    os.link(data / "deep/file", data / "hard")
    os.mkfifo(data / "pipe", 0o604)
    os.chown(data / "deep", 12, 13)
    os.chown(data / "deep/file", 5, 6)
    os.chown(data / "link", 3, 4, follow_symlinks=False)
    (data / "deep").chmod(0o2711)
    (data / "deep/file").chmod(0o4751)
    os.setxattr(data / "deep/file", "trusted.mark", b"value")
    os.utime(data / "deep/file", (1000, 2000))
    w.bundle.mount("/data", "tmpfs", "tmpfs", ["tmpcopyup", "rw", "nosuid"])
    w.bundle.config["root"]["readonly"] = False
    w.bundle.all_capabilities("CAP_DAC_OVERRIDE")
    out = w.run("cd /data; stat -c '%n %f %u %g' deep deep/er deep/file link pipe; cat link hard; "
                "wc -c <sparse; stat -c %Y deep/file; echo changed >deep/file").lines
    assert out == ["deep 45c9 12 13", "deep/er 41ed 0 0", "deep/file 89e9 5 6", "link a1ff 3 4",
                   "pipe 1184 0 0", "kept", "kept", "100000", "2000"], out
    assert (data / "deep/file").read_text() == "kept\n"
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        inside = f"/proc/{w.runtime.state(w.name)['pid']}/root/data/deep/file"
        assert os.getxattr(inside, "trusted.mark") == b"value"


@world
def tmpcopyup_has_the_limits_of_the_tmpfs(w):
    (w.bundle.rootfs / "data").mkdir()
    (w.bundle.rootfs / "data/big").write_bytes(b"x" * 300000)
    w.bundle.mount("/data", "tmpfs", "tmpfs", ["tmpcopyup", "size=64k"])
    w.fails("copy up big", "No space left")


# ---------------------------------------------------------------- idmapped mounts

def mapped(w, place, source, uids, gids=None, options=("bind",)):
    w.bundle.mount(place, source, options=options)
    for field, ranges in (("uidMappings", uids), ("gidMappings", gids or uids)):
        w.bundle.config["mounts"][-1][field] = [
            {"containerID": first, "hostID": host, "size": size} for first, host, size in ranges]


def owned_tree(w):
    """A folder with a mount below it, with files of several owners."""
    for number, (uid, gid) in enumerate(((100, 211), (101, 222), (102, 233))):
        for folder in ("tree", "tree/below"):
            (w.scratch / folder).mkdir(exist_ok=True)
            file = w.scratch / folder / str(number)
            file.write_text("")
            os.chown(file, uid, gid)
    return w.scratch / "tree"


def owners(w, *folders):
    paths = [f"{folder}/{number}" for folder in folders for number in range(3)]
    return [tuple(map(int, line.split()))
            for line in w.run("stat -c '%u %g' " + " ".join(paths)).lines]


@world
def owners_are_mapped_without_a_user_namespace(w):
    tree = owned_tree(w)
    mapped(w, "/a", tree, [(100, 100000, 100)], [(200, 100000, 100)])
    mapped(w, "/b", tree, [(100, 1000, 1), (101, 2000, 1), (102, 3000, 1)],
           [(210, 1100, 10), (220, 2200, 10), (230, 3300, 10)])
    w.bundle.mount("/plain", tree)
    assert owners(w, "/a", "/b", "/plain") == [
        (100000, 100011), (100001, 100022), (100002, 100033),
        (1000, 1101), (2000, 2202), (3000, 3303), (100, 211), (101, 222), (102, 233)]
    # Who is not mapped cannot make a file.
    assert "too large" in w.run("touch /a/new 2>&1; true").out


@world
def owners_are_mapped_into_a_user_namespace(w):
    tree = owned_tree(w)
    user_namespace(w)
    mapped(w, "/a", tree, [(100, 101000, 3)], [(200, 102000, 100)])
    mapped(w, "/same", tree, [(0, 100000, 65536)])
    w.bundle.mount("/implied", tree, options=["bind", "idmap"])
    w.bundle.mount("/plain", tree)
    assert owners(w, "/a", "/same", "/implied", "/plain") == [
        (1000, 2011), (1001, 2022), (1002, 2033), *[(100, 211), (101, 222), (102, 233)] * 2,
        *[(OVERFLOW, OVERFLOW)] * 3]
    w.run("touch /same/new && stat -c '%u %g' /same/new | grep -qx '0 0'")
    assert (tree / "new").stat().st_uid == 0


@world
def a_mapping_is_for_one_mount_or_the_tree(w):
    tree = owned_tree(w)
    run("mount", "--bind", tree / "below", tree / "below")
    try:
        for users in (False, True):
            if users:
                user_namespace(w)
            shift = 0 if users else 100000
            for options, below in ((["rbind"], None), (["rbind", "idmap"], None),
                                   (["rbind", "ridmap"], shift)):
                mapped(w, "/mnt", tree, [(0, 100000, 65536)], options=options)
                top = [(shift + 100, shift + 211), (shift + 101, shift + 222),
                       (shift + 102, shift + 233)]
                plain = [(OVERFLOW, OVERFLOW)] * 3 if users else [(100, 211), (101, 222), (102, 233)]
                expected = top + (plain if below is None else top)
                assert owners(w, "/mnt", "/mnt/below") == expected, (users, options)
                w.bundle.config["mounts"].pop()
    finally:
        run("umount", tree / "below")


@world
def mappings_in_the_option(w):
    tree = owned_tree(w)
    w.bundle.mount("/a", tree, options=["bind", "idmap=uids=100-5-1#101-50-2;gids=200-7-100"])
    assert owners(w, "/a") == [(5, 18), (50, 29), (51, 40)]
    user_namespace(w)
    w.bundle.config["mounts"][-1]["options"] = ["bind", "idmap=uids=@100-5-3;gids=@200-7-100"]
    assert owners(w, "/a") == [(5, 18), (6, 29), (7, 40)]
    w.bundle.config["mounts"][-1]["options"] = ["bind", "idmap=uids=@100-70000-3"]
    w.fails("mounts[", "the container has no users for '@100-70000-3'")
    for text in ("uids=1-2", "uids=a-b-c", "uids=1-2-0", "uids=1-2-3-4", "uids=4294967295-0-2"):
        w.bundle.config["mounts"][-1]["options"] = ["bind", f"idmap={text}"]
        w.fails("mounts[", "is not a range")


@world
def a_mapping_from_a_joined_user_namespace(w):
    tree = owned_tree(w)
    plain = json.loads(json.dumps(w.bundle.config))
    user_namespace(w)
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        pid = w.runtime.state(w.name)["pid"]
        w.bundle.config, first = plain, w.name
        w.bundle.linux["cgroupsPath"] += "-b"
        w.bundle.namespace("user", f"/proc/{pid}/ns/user")
        w.bundle.mount("/a", tree, options=["bind", "idmap"])
        w.name += "b"
        assert owners(w, "/a") == [(100, 211), (101, 222), (102, 233)]
        w.name = first


@world
def mappings_that_cannot_be_are_refused(w):
    tree = owned_tree(w)
    w.bundle.mount("/a", tree, options=["bind", "idmap"])
    w.fails("invalid mount", "mounts[", "uid and gid mappings")
    w.bundle.config["mounts"][-1]["uidMappings"] = MAPPING
    w.fails("invalid mount", "gidMappings", "uid and gid mappings")
    w.bundle.config["mounts"][-1].update(type="tmpfs", options=[], gidMappings=MAPPING)
    w.fails("invalid mount", "only supported for bind-mounts")
    w.bundle.config["mounts"][-1].update(type="bind", source="/proc/sys", options=["bind"])
    w.fails("mounts[", "/proc/sys cannot be id-mapped")


# ---------------------------------------------------------------- special file systems

@world
def message_queues_belong_to_the_containers_root(w):
    user_namespace(w)
    assert w.run("stat -c '%u %g' /dev/mqueue").out == "0 0\n"


@world
def sysfs_in_a_user_namespace_without_a_network(w):
    user_namespace(w)
    w.bundle.namespace("network", remove=True)
    options, _ = options_of(w, "/sys")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options), options
    assert "kernel" in w.run("ls /sys").out
    # What the host has mounted below it comes along, and is read-only as well: with the cgroups of an
    # ordinary user the container could leave its limits otherwise (as CVE-2023-25809 did).
    without = [entry for entry in w.bundle.config["mounts"]
               if entry["destination"] != "/sys/fs/cgroup"]
    w.bundle.config["mounts"] = without
    lines = [line.split() for line in w.run("cat /proc/self/mountinfo").lines]
    below = [(line[4], line[5]) for line in lines if line[4].startswith("/sys/")]
    assert any(place.startswith("/sys/fs/cgroup") for place, _ in below), below
    assert all("ro" in flags.split(",") for place, flags in below), below


@world
def a_bound_dev_is_left_alone(w):
    w.bundle.config["mounts"] = [entry for entry in w.bundle.config["mounts"]
                                 if not entry["destination"].startswith("/dev")]
    (w.scratch / "dev").mkdir()
    w.bundle.mount("/dev", w.scratch / "dev", options=["bind"])
    w.run("true")
    assert list((w.scratch / "dev").iterdir()) == []


@world
def cgroup_mounts_are_read_only_or_not(w):
    for own in (True, False):
        w.bundle.namespace("cgroup", remove=not own)
        for readonly in (True, False):
            for entry in w.bundle.config["mounts"]:
                if entry["destination"] == "/sys/fs/cgroup":
                    entry["options"] = ["nosuid", "noexec", "nodev", "relatime",
                                        *["ro"] * readonly]
            lines = [line.split() for line in w.run("cat /proc/self/mountinfo").lines]
            found = [line for line in lines if line[4].startswith("/sys/fs/cgroup")]
            assert found and all(readonly == ("ro" in line[5].split(",")) for line in found), found
            if cgroup_version() == 2:
                inside = w.run("cat /proc/self/cgroup; cat /sys/fs/cgroup$(sed 's/^0:://' "
                               "/proc/self/cgroup)/cgroup.procs").lines
                assert len(inside) >= 2, inside


# ---------------------------------------------------------------- propagation and namespaces

def root_propagation(w):
    line = next(line for line in w.run("cat /proc/self/mountinfo").lines if line.split()[4] == "/")
    return [field.split(":")[0] for field in line.split(" - ")[0].split()[6:]]


@world
def propagation_of_the_root(w):
    for word, expected in (("shared", ["shared"]), ("rshared", ["shared"]), ("private", []),
                           ("rprivate", []), ("unbindable", ["unbindable"]),
                           ("runbindable", ["unbindable"]), ("", [])):
        w.bundle.linux["rootfsPropagation"] = word
        assert root_propagation(w) == expected, word
    run("mount", "--bind", w.bundle.rootfs, w.bundle.rootfs)
    run("mount", "--make-shared", w.bundle.rootfs)
    try:
        for word in ("slave", "rslave"):
            w.bundle.linux["rootfsPropagation"] = word
            assert root_propagation(w) == ["master"], word
    finally:
        run("umount", w.bundle.rootfs)
    w.bundle.linux["rootfsPropagation"] = "sideways"
    w.fails("linux.rootfsPropagation", "rootfsPropagation=sideways is not supported")


@world
def a_shared_root_is_the_containers_own(w):
    """The root on a shared mount: what is mounted on it does not reach the host, whatever its own
    propagation; what the host has mounted below shares with it, when that is asked for."""
    (w.bundle.rootfs / "below").mkdir()
    w.bundle.all_capabilities("CAP_SYS_ADMIN")
    w.bundle.script("mount -t tmpfs inner /below/mnt && sleep 100")
    run("mount", "--bind", w.bundle.rootfs, w.bundle.rootfs)
    try:
        run("mount", "--make-shared", w.bundle.rootfs)
        with mounted(w.bundle.rootfs / "below"):
            run("mount", "--make-shared", w.bundle.rootfs / "below")
            (w.bundle.rootfs / "below/mnt").mkdir()
            for word in ("", "slave", "rslave", "private", "rprivate", "shared", "rshared"):
                w.bundle.linux["rootfsPropagation"] = word
                with w.runtime.container(w.bundle.write(), w.name):
                    wait_for(lambda: "inner /below/mnt " in
                             w.runtime("exec", w.name, "cat", "/proc/mounts").out)
                    places = [line.split()[4] for line in open("/proc/self/mountinfo")]
                found = [p for p in places if p.startswith(f"{w.bundle.rootfs}/")]
                expected = [str(w.bundle.rootfs / "below")]
                if "shared" in word:
                    expected.append(str(w.bundle.rootfs / "below/mnt"))
                    run("umount", expected[1])
                assert found == expected, (word, found)
    finally:
        run("umount", "-R", w.bundle.rootfs)


@world
def mounts_of_the_container_reach_the_host_when_shared(w):
    source = w.scratch / "source"
    with mounted(source):
        run("mount", "--make-shared", source)
        (source / "place").mkdir()
        w.bundle.all_capabilities("CAP_SYS_ADMIN")
        for words, reaches in ((["rshared"], True), (["rslave"], False), (["rprivate"], False)):
            w.bundle.linux["rootfsPropagation"] = "rshared" if reaches else "rslave"
            w.bundle.mount("/mnt", source, options=["rbind", *words])
            w.bundle.script("mount -t tmpfs inner /mnt/place; sleep 100")
            with w.runtime.container(w.bundle, w.name):
                wait_for(lambda: " /mnt/place " in
                         w.runtime("exec", w.name, "cat", "/proc/mounts").out)
                assert (f" {source}/place " in pathlib.Path("/proc/mounts").read_text()) == reaches
            if reaches:
                run("umount", source / "place")
            w.bundle.config["mounts"].pop()


@world
def no_pivot_changes_the_root_by_chroot(w):
    out = w.run("ls / | tr '\\n' ' '; pwd; cat /proc/self/mountinfo", options=["--no-pivot"]).lines
    assert "bin" in out[0] and not (w.bundle.rootfs / "work").exists()
    assert [line.split()[4] for line in out[1:]].count("/proc") == 1
    w.bundle.linux["rootfsPropagation"] = "rprivate"
    result = w.run("true", code=1, options=["--no-pivot"])
    assert "rootfsPropagation of [r]private is not safe without pivot_root" in result.err


@world
def no_pivot_does_not_give_a_whole_proc(w):
    """A user namespace in the container may not mount a procfs without the masks."""
    w.bundle.all_capabilities("CAP_SETFCAP", "CAP_SYS_ADMIN")
    for entry in w.bundle.config["mounts"]:
        assert entry["destination"] != "/mnt"
    (w.bundle.rootfs / "mnt").mkdir(exist_ok=True)
    script = "unshare -Urmpf sh -c 'mount -t proc none /mnt && echo unmasked' 2>&1; true"
    for options in ([], ["--no-pivot"]):
        out = w.run(script, options=options).out
        assert "unmasked" not in out and "ermission" in out, (options, out)


@world
def no_pivot_leaves_nothing_on_the_host(w):
    w.bundle.linux["rootfsPropagation"] = "rshared"
    run("mount", "--bind", w.bundle.rootfs, w.bundle.rootfs)
    try:
        before = pathlib.Path("/proc/self/mountinfo").read_text()
        w.run("true", options=["--no-pivot"])
        assert pathlib.Path("/proc/self/mountinfo").read_text() == before
    finally:
        run("umount", w.bundle.rootfs)


def host_mounts():
    return pathlib.Path("/proc/self/mountinfo").read_text()


@world
def without_a_mount_namespace(w):
    """The mounts are the host's until the container is deleted; nothing else of it changes."""
    w.bundle.namespace("mount", remove=True)
    w.bundle.linux["maskedPaths"] = ["/proc/kcore"]
    w.fails("linux.maskedPaths", "without a private MNT namespace")
    w.bundle.linux.update(maskedPaths=[], readonlyPaths=[])
    w.bundle.config["root"]["readonly"] = False
    before = host_mounts()
    out = w.run("ls -d /bin; readlink /proc/1/ns/mnt; cat /proc/mounts").lines
    assert out[:2] == ["/bin", os.readlink("/proc/self/ns/mnt")], out
    assert host_mounts() == before
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        new = host_mounts().removeprefix(before).splitlines()
        assert host_mounts().startswith(before)
        assert len(new) > 3 and all(str(w.bundle.rootfs) in line for line in new), new
    assert host_mounts() == before


@world
def what_is_mounted_over_the_root_is_not_taken_for_the_containers(w):
    """Without a mount namespace: mounts of the user stay, below the container's and above."""
    w.bundle.namespace("mount", remove=True)
    w.bundle.linux.update(maskedPaths=[], readonlyPaths=[])
    w.bundle.config["root"]["readonly"] = False
    w.bundle.script("sleep 100")
    rootfs = w.bundle.rootfs
    try:
        run("mount", "--bind", rootfs, rootfs)
        before = host_mounts()
        with w.runtime.container(w.bundle, w.name):
            assert os.path.ismount(rootfs / "proc")
        assert host_mounts() == before
        w.bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
        w.fails("createRuntime")
        assert host_mounts() == before
        del w.bundle.config["hooks"]
        w.bundle.write()
        with w.runtime.container(w.bundle, w.name):
            run("mount", "-t", "tmpfs", "mine", rootfs)
            (rootfs / "kept").write_text("")
        assert (rootfs / "kept").exists()
    finally:
        run("umount", "-R", "--lazy", rootfs)
        while str(rootfs) in host_mounts():
            run("umount", "-R", "--lazy", rootfs)


@world
def a_mount_namespace_is_joined_with_mounts(w):
    """What is mounted is in that namespace and not on the host."""
    holder = run("sh", "-c", "unshare -m --propagation private sh -c 'sleep 100 >/dev/null 2>&1 & "
                             "echo $!'").out.strip()
    try:
        wait_for(lambda: os.readlink(f"/proc/{holder}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
        before = pathlib.Path("/proc/self/mountinfo").read_text()
        w.bundle.namespace("mount", f"/proc/{holder}/ns/mnt")
        (w.scratch / "file").write_text("bound\n")
        w.bundle.mount("/etc/file", w.scratch / "file")
        out = w.run("readlink /proc/1/ns/mnt; cat /etc/file; ls /dev/null; touch /x 2>&1; true").lines
        assert out[0] == os.readlink(f"/proc/{holder}/ns/mnt"), out
        assert out[1:3] == ["bound", "/dev/null"] and "Read-only" in out[3], out
        assert pathlib.Path("/proc/self/mountinfo").read_text() == before
    finally:
        run("kill", holder)


@world
def the_hosts_mount_namespace_given_by_its_path(w):
    """Is the host's: its root is not pivoted."""
    w.bundle.namespace("mount", "/proc/self/ns/mnt")
    w.bundle.linux.update(maskedPaths=[], readonlyPaths=[])
    w.bundle.config["root"]["readonly"] = False
    try:
        assert w.run("ls -d /bin").out == "/bin\n"
        assert pathlib.Path("/proc/1").exists() and w.scratch.exists()
    finally:
        run("umount", "-R", "--lazy", w.bundle.rootfs)


@world
def exec_finds_the_root_however_it_was_changed(w):
    (w.bundle.rootfs / "mark").write_text("inside\n")
    hooks = {"createRuntime": [{"path": "/bin/true"}]}
    for options, place, with_hooks in ((["--no-pivot"], None, False), (["--no-pivot"], None, True),
                                       ([], None, True), ([], "host", False)):
        w.bundle.config.pop("hooks", None)
        if with_hooks:
            w.bundle.config["hooks"] = hooks
        if place:
            w.bundle.namespace("mount", remove=True)
            w.bundle.linux.update(maskedPaths=[], readonlyPaths=[])
            w.bundle.config["root"]["readonly"] = False
        w.bundle.script("sleep 100")
        try:
            w.runtime("create", *options, "-b", w.bundle.path, w.name)
            w.runtime("start", w.name)
            out = w.runtime("exec", w.name, "sh", "-c", "cat /mark; ls -d /work /../work 2>&1; pwd")
            assert out.lines[0] == "inside" and out.out.count("No such file") == 2, out
        finally:
            w.runtime("delete", "--force", w.name)


# ---------------------------------------------------------------- masks

@world
def masks_given_twice_are_there_once(w):
    (w.bundle.rootfs / "folder").mkdir()
    (w.bundle.rootfs / "second").mkdir()
    (w.bundle.rootfs / "file").write_text("secret")
    os.symlink("folder", w.bundle.rootfs / "link")
    w.bundle.linux["maskedPaths"] += ["/folder", "/file", "/second", "/folder", "/file", "/link"]
    out = w.run("grep -c ' /folder ' /proc/mounts; grep -c ' /file ' /proc/mounts; "
                "stat -c %d /folder /second | uniq | wc -l; cat /file; touch /second/x 2>&1; true")
    assert out.lines[:3] == ["1", "1", "1"] and "Read-only" in out.lines[3], out.lines


@world
def read_only_paths_keep_the_other_flags(w):
    w.bundle.mount("/test", w.scratch, options=["rbind", "nosuid", "noexec", "nodev"])
    for entry in w.bundle.config["mounts"]:
        if entry["destination"] == "/proc":
            entry["options"] = ["nosuid", "noexec", "nodev"]
    w.bundle.linux["readonlyPaths"] = ["/test", "/proc/bus", "/proc/bus"]
    for place in ("/test", "/proc/bus"):
        assert set(options_of(w, place)[0]) == {"ro", "nosuid", "nodev", "noexec", "relatime"}


# ---------------------------------------------------------------- the working directory

@world
def the_working_directory_is_the_callers_or_the_users(w):
    """Root may enter what the user may not, and the other way round where root is not allowed."""
    (w.bundle.rootfs / "closed").mkdir(mode=0o700)
    w.bundle.process["cwd"] = "/closed"
    w.bundle.process["user"] = {"uid": 42, "gid": 42}
    assert w.run("pwd").out == "/closed\n"
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        w.runtime("exec", w.name, "true")
        w.runtime("exec", "--user", "0", w.name, "true")


@world
def access_times_of_cgroup_mounts(w):
    """The kinds are values of one field of mount_setattr(2): what is there goes first."""
    for option in ("noatime", "strictatime"):
        w.bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", "nosuid", option])
        table = w.run("cat /proc/self/mountinfo").lines
        last = [line.split() for line in table if line.split()[4] == "/sys/fs/cgroup"][-1]
        options = last[5].split(",")
        assert ("noatime" in options) == (option == "noatime") and "relatime" not in options, options
        w.bundle.config["mounts"].pop()


if __name__ == "__main__":
    main()
