"""Volumes: named and anonymous ones, what fills them, who has them, what they take; and that nothing
of theirs is lost with a daemon."""

import contextlib
import json
import os
import pathlib
import re
import socket
import sqlite3
import time

from harness import main, note, run, test, wait_for


def load(instance, images):
    instance.cloche("load", "-q", "-i", images.small())


def image_with_volume(instance, images, name="data:1"):
    """An image with files in /data, which is a VOLUME of it."""
    load(instance, images)
    script = ("mkdir -p /data/sub; echo one > /data/one; echo two > /data/sub/two; ln -s one /data/link;"
              "ln /data/one /data/hard; chown 12:34 /data/one; chmod 2750 /data/sub; chmod 700 /data;"
              "mkfifo /data/pipe; touch -d @1000000000 /data/sub/two")
    instance.cloche("run", "--name", "maker", "small:1", "sh", "-c", script)
    instance.cloche("commit", "-c", "VOLUME /data", "maker", name)
    instance.cloche("rm", "maker")
    return name


def volumes(instance, *options):
    return instance.cloche("volume", "ls", "-q", *options).lines


def inspect(instance, name):
    return json.loads(instance.cloche("volume", "inspect", name).out)[0]


@test
def volumes_are_made_listed_and_removed(instance):
    assert volumes(instance) == []
    assert instance.cloche("volume", "create", "--label", "a=b", "--label", "c", "first").out == "first\n"
    assert instance.cloche("volume", "create", "first").out == "first\n"
    second = instance.cloche("volume", "create").out.strip()
    assert len(second) == 64 and sorted(volumes(instance)) == sorted(["first", second])
    shown = inspect(instance, "first")
    assert shown["Driver"] == "local" and shown["Scope"] == "local" and \
        shown["Labels"] == {"a": "b", "c": ""}, shown
    assert os.path.isdir(shown["Mountpoint"])
    assert volumes(instance, "-f", "label=a=b") == ["first"]
    assert volumes(instance, "-f", "label=a=x") == []
    assert volumes(instance, "-f", "name=irs") == ["first"]
    assert len(volumes(instance, "-f", "dangling=true")) == 2
    assert instance.cloche("volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Labels}}", "-f",
                           "name=first").out == "local first a=b,c=\n"
    assert "invalid characters" in instance.cloche("volume", "create", "../x", code=1).err
    assert "too short" in instance.cloche("volume", "create", "x", code=1).err
    assert "plugin" in instance.cloche("volume", "create", "-d", "nfs", "other", code=1).err
    assert "invalid option" in instance.cloche("volume", "create", "-o", "x=y", "other", code=1).err
    assert instance.cloche("volume", "rm", "first", second).lines == ["first", second]
    assert "no such volume" in instance.cloche("volume", "rm", "first", code=1).err
    instance.cloche("volume", "rm", "-f", "first")
    assert not os.path.exists(shown["Mountpoint"])
    assert "no such volume" in instance.cloche("volume", "inspect", "first", code=1).err


@test
def a_volume_outlives_its_containers(instance, images):
    load(instance, images)
    for n in range(3):
        instance.cloche("run", "--rm", "-v", "kept:/kept", "small:1", "sh", "-c", f"echo {n} >> /kept/log")
    assert instance.cloche("run", "--rm", "-v", "kept:/else:ro", "small:1", "cat", "/else/log").lines == \
        ["0", "1", "2"]
    assert "Read-only" in instance.cloche("run", "--rm", "-v", "kept:/kept:ro", "small:1", "touch", "/kept/x",
                                          code=1).err
    container = instance.cloche("create", "-v", "kept:/kept", "small:1").out.strip()
    assert "in use - [" + container in instance.cloche("volume", "rm", "kept", code=1).err
    mounts = json.loads(instance.cloche("inspect", container).out)[0]["Mounts"]
    assert [(m["Type"], m["Name"], m["Destination"], m["RW"]) for m in mounts] == \
        [("volume", "kept", "/kept", True)]
    assert mounts[0]["Source"] == inspect(instance, "kept")["Mountpoint"]
    instance.cloche("rm", "-v", container)
    assert volumes(instance) == ["kept"]


@test
def a_new_volume_gets_what_the_image_has_there(instance, images):
    image = image_with_volume(instance, images)
    look = "cd /data; cat one sub/two link; stat -c '%a %u:%g %h %n' . one sub pipe; stat -c %Y sub/two"
    expected = instance.cloche("run", "--rm", "--entrypoint", "sh", image, "-c", look).lines
    assert expected[:3] == ["one", "two", "one"] and "750" in expected[5] and "12:34 2" in expected[4] and \
        expected[3].startswith("700 ") and expected[-1] == "1000000000", expected
    # Named, anonymous by -v, of the image: the same each time; not with nocopy, nor into one that has something.
    for options in (("-v", "named:/data"), ("-v", "/data"), ()):
        assert instance.cloche("run", "--rm", *options, image, "sh", "-c", look).lines == expected, options
    assert instance.cloche("run", "--rm", "-v", "bare:/data:nocopy", image, "ls", "/data").out == ""
    instance.cloche("run", "--rm", "-v", "full:/x", image, "touch", "/x/mine")
    assert instance.cloche("run", "--rm", "-v", "full:/data", image, "ls", "/data").out == "mine\n"
    # It is there from `create` on.
    instance.cloche("create", "-v", "early:/data", image)
    assert (pathlib.Path(inspect(instance, "early")["Mountpoint"]) / "sub/two").read_text() == "two\n"
    # A way through a link of the image stays in the image.
    instance.cloche("run", "--name", "linker", image, "ln", "-s", "/etc", "/away")
    instance.cloche("commit", "linker", "linked:1")
    instance.cloche("run", "--rm", "-v", "through:/away", "linked:1", "true")
    there = os.listdir(inspect(instance, "through")["Mountpoint"])
    assert "passwd" in there and "shadow-" not in there


@test
def anonymous_volumes_go_with_their_container(instance, images):
    image = image_with_volume(instance, images)
    instance.cloche("run", "--rm", "-v", "/more", image, "true")
    wait_for(lambda: volumes(instance) == [])
    container = instance.cloche("create", "-v", "/more", "-v", "named:/named", image).out.strip()
    assert len(volumes(instance)) == 3
    instance.cloche("rm", container)
    assert len(volumes(instance)) == 3  # without -v they stay
    container = instance.cloche("create", image).out.strip()
    other = instance.cloche("create", "--volumes-from", container, image).out.strip()
    instance.cloche("rm", "-v", container)
    assert len(volumes(instance)) == 4  # another container has it
    instance.cloche("rm", "-v", other)
    wait_for(lambda: len(volumes(instance)) == 3)
    out = instance.cloche("volume", "prune", "-f").out
    assert "Deleted Volumes:" in out and "Total reclaimed space:" in out
    assert volumes(instance) == ["named"]
    out = instance.cloche("volume", "prune", "-af").out
    assert "named" in out and volumes(instance) == []
    # A container that could not be made leaves none.
    instance.cloche("create", "-v", "/a", "--volumes-from", "nobody", image, code=None)
    assert volumes(instance) == []


@test
def volumes_from_gives_what_another_container_has(instance, images, scratch):
    load(instance, images)
    (scratch / "bound").mkdir()
    instance.cloche("run", "--name", "one", "-v", "vol:/vol", "-v", f"{scratch}/bound:/bound", "-v", "/anon",
                    "small:1", "sh", "-c", "echo v > /vol/f; echo b > /bound/f; echo a > /anon/f")
    assert instance.cloche("run", "--rm", "--volumes-from", "one", "small:1", "cat", "/vol/f", "/bound/f",
                           "/anon/f").lines == ["v", "b", "a"]
    for path in ("/vol", "/bound", "/anon"):
        assert "Read-only" in instance.cloche("run", "--rm", "--volumes-from", "one:ro", "small:1", "touch",
                                              f"{path}/x", code=1).err
    assert instance.cloche("run", "--rm", "--volumes-from", "one", "-v", "other:/vol", "small:1", "ls",
                           "/vol").out == ""
    assert len(volumes(instance)) == 3


@test
def volumes_with_options_are_mounted(instance, images, scratch):
    load(instance, images)
    (scratch / "shared").mkdir()
    (scratch / "shared/file").write_text("there\n")
    instance.cloche("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={scratch}/shared",
                    "bound")
    assert inspect(instance, "bound")["Options"] == {"type": "none", "o": "bind", "device": f"{scratch}/shared"}
    assert instance.cloche("run", "--rm", "-v", "bound:/v", "small:1", "sh", "-c",
                           "cat /v/file; echo new > /v/new").out == "there\n"
    assert (scratch / "shared/new").read_text() == "new\n"
    assert "Read-only" in instance.cloche("run", "--rm", "-v", "bound:/v:ro", "small:1", "touch", "/v/x",
                                          code=1).err
    container = instance.cloche("create", "-v", "bound:/v", "small:1").out.strip()
    instance.cloche("cp", f"{container}:/v/new", scratch / "copied")
    assert (scratch / "copied").read_text() == "new\n"
    instance.cloche("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000",
                    "memory")
    assert "tmpfs /v tmpfs rw,relatime,size=1024k,uid=1000" in instance.cloche(
        "run", "--rm", "-v", "memory:/v", "small:1", "grep", " /v ", "/proc/mounts").out
    assert [line.split() for line in instance.cloche("system", "df", "-v").lines
            if line.startswith("memory")] == [["memory", "0", "N/A"]]
    instance.cloche("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/nowhere/at/all", "lost")
    instance.cloche("run", "--rm", "-v", "lost:/v", "small:1", "true", code=None)
    instance.cloche("rm", container)
    instance.cloche("volume", "rm", "bound", "memory", "lost")
    assert (scratch / "shared/file").exists()


def mounts_of(instance):
    return [line.split()[4] for line in open("/proc/self/mountinfo") if str(instance.root / "volumes") in line.split()[4]]


@test
def binds_of_volumes_have_their_flags(instance, images, scratch):
    load(instance, images)
    (scratch / "source/below").mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "nosuid", "outer", scratch / "source")
    (scratch / "source/below").mkdir()
    run("mount", "-t", "tmpfs", "inner", scratch / "source/below")
    try:
        for options, flags, count in (("bind", "rw,nosuid,relatime", 1), ("rbind", "rw,nosuid,relatime", 2),
                                      ("rbind,ro,nodev,noexec", "ro,nosuid,nodev,noexec,relatime", 2),
                                      ("bind,noatime,nodiratime", "rw,nosuid,noatime,nodiratime", 1),
                                      ("bind,ro,rw,nosuid,suid", "rw,nosuid,relatime", 1)):
            instance.cloche("volume", "create", "-o", "type=none", "-o", f"o={options}", "-o",
                            f"device={scratch}/source", "bound")
            instance.cloche("run", "-d", "--name", "box", "-v", "bound:/v", "small:1", "sleep", "1000")
            lines = [line.split() for line in open("/proc/self/mountinfo") if str(instance.root / "volumes") in line]
            assert len(lines) == count and lines[0][5] == flags, (options, lines)
            assert count == 1 or lines[1][5] == "rw,relatime", lines
            instance.cloche("rm", "-f", "box")
            wait_for(lambda: mounts_of(instance) == [])
            instance.cloche("volume", "rm", "bound")
    finally:
        run("umount", "-R", scratch / "source")


@test
def volumes_with_options_are_mounted_once(instance, images, scratch):
    """However many containers have them, over the ends of daemons, until the last has ended."""
    load(instance, images)
    instance.cloche("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000", "memory")
    assert mounts_of(instance) == []
    place = inspect(instance, "memory")["Mountpoint"]
    for name in ("one", "two"):
        instance.cloche("run", "-d", "--name", name, "-v", "memory:/v", "small:1", "sleep", "1000")
    assert mounts_of(instance) == [place]
    instance.cloche("exec", "one", "sh", "-c", "echo shared > /v/file")
    assert instance.cloche("exec", "two", "cat", "/v/file").out == "shared\n"
    instance.cloche("rm", "-f", "one")
    instance.kill_daemon()
    assert instance.cloche("exec", "two", "cat", "/v/file").out == "shared\n"
    assert instance.cloche("run", "--rm", "-v", "memory:/v", "small:1", "cat", "/v/file").out == "shared\n"
    assert mounts_of(instance) == [place]
    # Its end while no daemon lives is seen by the next.
    pid = json.loads(instance.cloche("inspect", "two").out)[0]["State"]["Pid"]
    instance.kill_daemon()
    os.kill(pid, 9)
    instance.cloche("ps")
    wait_for(lambda: mounts_of(instance) == [])
    assert instance.cloche("run", "--rm", "-v", "memory:/v", "small:1", "ls", "/v").out == ""
    wait_for(lambda: mounts_of(instance) == [])
    # One after the other, and at the same time.
    for number in range(5):
        instance.cloche("run", "--rm", "-v", "memory:/v", "small:1", "sh", "-c", "grep -q ' /v tmpfs' /proc/mounts")
    (scratch / "source").mkdir()
    instance.cloche("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", f"device={scratch}/source", "bound")
    assert "Read-only" in instance.cloche("run", "--rm", "-v", "bound:/v", "small:1", "touch", "/v/x", code=1).err
    instance.cloche("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such", "lost")
    result = instance.cloche("run", "--rm", "-v", "lost:/v", "small:1", "true", code=125)
    assert "failed to mount local volume: mount /no/such:" in result.err, result.err
    instance.cloche("rm", "-f", "two")
    instance.cloche("volume", "rm", "memory", "bound", "lost")
    assert mounts_of(instance) == []


def slow_resolver(scratch, stack):
    """Names are asked for at somebody who does not answer, for 13 s."""
    nobody = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    nobody.bind(("127.0.0.77", 53))
    (scratch / "resolv.conf").write_text("nameserver 127.0.0.77\noptions timeout:13 attempts:1\n")
    run("mount", "--bind", scratch / "resolv.conf", "/etc/resolv.conf")
    stack.callback(run, "umount", "/etc/resolv.conf")


@test
def passwords_of_volumes_are_not_shown(instance, images, scratch):
    """Neither among the arguments of processes nor in errors; and a slow server is waited for."""
    load(instance, images)

    def create(name, o):
        instance.cloche("volume", "create", "-o", "type=cifs", "-o", "device=//server/share", "-o", f"o={o}", name)
    create("refused", "addr=127.0.0.1,username=me,password=hidden-0,pass=hidden-1,secret=hidden-2,vers=3.0")
    result = instance.cloche("run", "--name", "box", "-v", "refused:/v", "small:1", "true", code=125)
    assert "data: addr=127.0.0.1,username=me,password=********,pass=********,secret=********,vers=3.0" in result.err
    shown = instance.cloche("inspect", "-f", "{{.State.Error}}", "box").out
    assert "********" in shown and "hidden" not in result.err + shown

    create("slow", "addr=server.example,password=hidden-3")
    with contextlib.ExitStack() as stack:
        slow_resolver(scratch, stack)
        process = instance.start("run", "--rm", "-v", "slow:/v", "small:1", "true")
        wait_for(lambda: "--look" in run("ps", "-ww", "-eo", "args").out)
        assert "hidden" not in run("ps", "-ww", "-eo", "args").out
        out, err = process.communicate()
    assert process.returncode == 125 and "error resolving passed in network volume address: server.example" in err.decode(), err


@test
def parts_of_volumes_are_mounted(instance, images):
    load(instance, images)
    fill = "mkdir -p /v/a/b; echo deep > /v/a/b/file; echo one > /v/single; ln -s /etc /v/out; ln -s ../../.. /v/up; ln -s a/b /v/in"
    instance.cloche("run", "--rm", "-v", "data:/v", "small:1", "sh", "-c", fill)

    def part(subpath, *command, code=0):
        return instance.cloche("run", "--rm", "--mount", f"type=volume,src=data,dst=/p,volume-subpath={subpath}",
                               "small:1", *command, code=code)
    assert part("a/b", "cat", "/p/file").out == "deep\n" and part("in", "cat", "/p/file").out == "deep\n"
    assert part("single", "cat", "/p").out == "one\n"
    # Links are followed inside of the volume only: there is no /etc in it, and above it is nothing.
    assert "out" in part("out", "ls", "/p", code=125).err
    assert sorted(part("up", "ls", "/p").out.split()) == ["a", "in", "out", "single", "up"]
    assert "relative path within the volume" in part("../x", "true", code=125).err
    assert "relative path within the volume" in part("/x", "true", code=125).err
    assert "open subpath none of the volume" in part("none", "true", code=125).err
    part("a", "sh", "-c", "echo new > /p/new")
    assert instance.cloche("run", "--rm", "-v", "data:/v", "small:1", "cat", "/v/a/new").out == "new\n"
    result = instance.cloche("run", "--rm", "--mount", "type=volume,src=x1,dst=/p,volume-driver=other", "small:1", "true", code=125)
    assert 'plugin "other" not found' in result.err, result.err
    instance.cloche("run", "--rm", "--mount", "type=volume,src=tagged,dst=/etc,volume-label=a=b,volume-nocopy", "small:1",
                    "/bin/busybox", "true")
    assert inspect(instance, "tagged")["Labels"] == {"a": "b"}
    instance.cloche("volume", "rm", "data", "tagged")


@test
def copies_reach_volumes(instance, images, scratch):
    load(instance, images)
    (scratch / "file").write_text("copied\n")
    container = instance.cloche("create", "-v", "vol:/vol", "small:1", "cat", "/vol/file").out.strip()
    instance.cloche("cp", scratch / "file", f"{container}:/vol/")
    mountpoint = pathlib.Path(inspect(instance, "vol")["Mountpoint"])
    assert (mountpoint / "file").read_text() == "copied\n"
    assert instance.cloche("start", "-a", container).out == "copied\n"


@test
def what_is_on_the_disk_is_told(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "big", "-v", "vol:/vol", "small:1", "sh", "-c",
                    "dd if=/dev/zero of=/vol/x bs=1000 count=3000 2>/dev/null; ln /vol/x /vol/y;"
                    "dd if=/dev/zero of=/z bs=1000 count=2000 2>/dev/null")
    instance.cloche("tag", "small:1", "small:2")
    lines = instance.cloche("system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|"
                            "{{.Reclaimable}}").lines
    assert lines[1] == "Containers|1|0|2MB|2MB (100%)" and lines[2] == "Local Volumes|1|1|3MB|0B (0%)", lines
    assert lines[0].startswith("Images|1|1|")
    out = instance.cloche("system", "df", "-v").out
    assert "Local Volumes space usage:" in out and "big" in out
    assert [line.split() for line in out.splitlines() if line.startswith("vol ")] == [["vol", "1", "3MB"]]
    instance.cloche("rm", "big")
    out = instance.cloche("system", "prune", "-f", "--volumes").out
    assert volumes(instance) == ["vol"]
    assert "Total reclaimed space: 3MB" in instance.cloche("volume", "prune", "-a", "-f").out


@test
def volumes_survive_the_daemon_and_the_loss_of_their_record(instance, images):
    load(instance, images)
    instance.cloche("volume", "create", "--label", "a=b", "kept")
    anonymous = instance.cloche("volume", "create").out.strip()
    instance.cloche("run", "-v", "kept:/v", "small:1", "sh", "-c", "echo x > /v/x")
    instance.kill_daemon()
    assert sorted(volumes(instance)) == sorted([anonymous, "kept"])
    assert inspect(instance, "kept")["Labels"] == {"a": "b"}
    folder = pathlib.Path(inspect(instance, "kept")["Mountpoint"]).parent.parent
    instance.kill_daemon()
    # As after a power cut between the folder and its record, and in the middle of a removal.
    (folder / "strange/_data").mkdir(parents=True)
    (folder / "strange/_data/file").write_text("mine\n")
    (folder / ".gone-0123456789abcdef/_data").mkdir(parents=True)
    assert "strange" in volumes(instance)
    assert instance.cloche("run", "--rm", "-v", "strange:/v", "small:1", "cat", "/v/file").out == "mine\n"
    assert not (folder / ".gone-0123456789abcdef").exists()


def change_record(instance, statement):
    """While no daemon lives."""
    database = sqlite3.connect(instance.root / "state.db")
    with database:
        database.execute(statement)
    database.close()


@test
def nothing_of_a_volume_is_half_done_when_the_daemon_dies(instance, images):
    image = image_with_volume(instance, images)
    # Killed in the middle of filling one: the next container gets all of it, or another one.
    instance.cloche("run", "--name", "many", image, "sh", "-c",
                    "mkdir /many; cd /many; for i in $(seq 4000); do echo $i > f$i; done; chown 5:6 .")
    instance.cloche("commit", "many", "many:1")
    instance.cloche("rm", "-v", "many")
    folder = instance.root / "volumes"
    maker = instance.start("create", "--name", "half", "-v", "big:/many", "many:1")
    wait_for(lambda: any(any(path.iterdir()) for path in folder.glob("big/_*")), interval=0)
    instance.kill_daemon()
    maker.communicate()
    instance.start_daemon()
    assert not list(folder.glob("big/_new-*")) and "half" not in instance.cloche("ps", "-a").out
    assert instance.cloche("run", "--rm", "-v", "big:/many", "many:1", "sh", "-c",
                           "ls | wc -l; ls /many | wc -l; stat -c %u:%g /many").lines[1:] == ["4000", "5:6"]
    # When all of it was copied and half of it is in its place.
    for name in ("removed", "emptied", "unreadable"):
        instance.cloche("volume", "create", name)
    instance.kill_daemon()
    (folder / "big/_ready").mkdir()
    for number in range(2000):
        (folder / f"big/_data/f{number + 1}").rename(folder / f"big/_ready/f{number + 1}")
    (folder / "big/_new-0123456789abcdef").mkdir()
    # A removal that had got as far as the folder; a record whose folder is lost; one nobody can read.
    (folder / "removed").rename(folder / ".gone-0123456789abcdef-removed")
    run("rm", "-r", folder / "emptied")
    (folder / "unreadable/_data/file").write_text("mine\n")
    change_record(instance, "UPDATE engine_volumes SET record = '{' WHERE name = 'unreadable'")
    named = lambda: sorted(name for name in volumes(instance) if len(name) < 64)
    assert named() == ["big", "emptied", "unreadable"]
    assert len(list((folder / "big/_data").iterdir())) == 4000
    assert [path.name for path in (folder / "big").iterdir()] == ["_data"]
    assert instance.cloche("run", "--rm", "-v", "emptied:/v", "-v", "unreadable:/w", image, "cat",
                           "/w/file").out == "mine\n"
    # What chattr holds fast goes, too.
    run("chattr", "+i", folder / "unreadable/_data/file")
    instance.cloche("volume", "rm", "unreadable", "emptied")
    assert not list(folder.glob(".gone*")) and named() == ["big"]


@test
def places_of_volumes_are_the_same_however_they_are_written(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "maker", "small:1", "sh", "-c", "mkdir /data; echo x > /data/x")
    instance.cloche("commit", "-c", "VOLUME /data/", "maker", "slash:1")
    assert instance.cloche("run", "--name", "one", "-v", "vol:/data", "slash:1", "cat", "/data/x").out == "x\n"
    assert instance.cloche("run", "--rm", "--volumes-from", "one", "slash:1", "cat", "/data/x").out == "x\n"
    assert volumes(instance) == ["vol"]


def silent_name_server():
    """At port 53 of the loopback address, which resolv.conf names."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    return server


@test
def a_server_that_is_not_there_is_no_trouble_for_others(instance, images, scratch):
    """There is no NFS server here, nor has the kernel to know it: what is asked for shows in the error."""
    image = "small:1"
    instance.cloche("load", "-q", "-i", images.small(image))

    def remote(name, how):
        instance.cloche("volume", "create", "-o", "type=nfs", "-o", f"o={how}", "-o", "device=:/exported", name)
        return instance.start("run", "--rm", "-v", f"{name}:/v", image, "true")

    def failure(process):
        err = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 125, err
        return err
    run("ip", "link", "set", "lo", "up")
    # The address is looked up for the kernel; it was not reached, or the kernel has no such file system.
    err = failure(remote("known", "addr=localhost,nfsvers=4,soft,timeo=5,retrans=1,ro"))
    assert re.search(r"mount :/exported:\S+, data: addr=(127.0.0.1|::1),nfsvers=4,soft,timeo=5,retrans=1: ", err), err
    (scratch / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")
    run("mount", "--bind", scratch / "resolv.conf", "/etc/resolv.conf")
    try:
        with silent_name_server() as server:
            waiting = remote("silent", "addr=server.example,nfsvers=4")
            assert server.recv(512)
            started = time.monotonic()
            assert instance.cloche("run", "--rm", image, "echo", "others").out == "others\n"
            assert waiting.poll() is None or time.monotonic() - started > 4
            err = failure(waiting)
            assert "error resolving passed in network volume address: server.example" in err, err
    finally:
        run("umount", "/etc/resolv.conf")
    instance.cloche("volume", "rm", "known", "silent")


if __name__ == "__main__":
    main()
