"""cp in both directions, diff, export, import: docker's rules, owners, links, and containers that lie
about their paths."""

import json
import os
import pathlib
import stat
import subprocess
import tarfile
import time

from harness import main, note, program, run, test, wait_for


def running(instance, images, *options, command="sleep 1000"):
    instance.cloche("load", "-q", "-i", images.small())
    return instance.cloche("run", "-d", *options, "small:1", "sh", "-c", command).out.strip()


def stopped(instance, images, *options):
    instance.cloche("load", "-q", "-i", images.small())
    return instance.cloche("create", *options, "small:1", "sleep", "1000").out.strip()


def shell(instance, container, script):
    return instance.cloche("exec", container, "sh", "-c", script).out


def both(instance, images):
    """A container that runs and one that does not."""
    return [running(instance, images), stopped(instance, images)]


def content(instance, container, path):
    """Of a file of a container, whether it runs or not, by a tar on standard output."""
    result = instance.cloche("cp", f"{container}:{path}", "-", text=False)
    import io
    with tarfile.open(fileobj=io.BytesIO(result.out)) as tar:
        member = tar.next()
        return tar.extractfile(member).read().decode() if member.isfile() else member


def stalled_copy(instance, container, *words):
    """A copy whose reader takes nothing of what is more than any pipe holds."""
    copy = subprocess.Popen([program("cloche"), "cp", *words, f"{container}:/big", "-"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, **instance.env})
    assert copy.stdout.read(512), "it has begun"
    return copy


@test
def a_copy_that_nobody_goes_on_with_gives_way_to_a_start(instance, images, scratch):
    """One that goes on, however slowly, is waited for."""
    (scratch / "big").write_bytes(os.urandom(8 << 20))
    containers = {name: stopped(instance, images) for name in ("stalled", "slow")}
    copies, starts = {}, {}
    for name, container in containers.items():
        instance.cloche("cp", scratch / "big", f"{container}:/big")
        copies[name] = stalled_copy(instance, container)
        starts[name] = subprocess.Popen([program("cloche"), "start", container], stdout=subprocess.DEVNULL,
                                        env={**os.environ, **instance.env})
    for _ in range(14):  # seconds, more than one that does not go on has
        time.sleep(1)
        copies["slow"].stdout.read(200_000)
    assert starts["slow"].poll() is None, "it waits for the copy"
    assert starts["stalled"].wait() == 0
    copies["stalled"].stdout.read()
    assert copies["stalled"].wait() == 1
    assert "nothing of the copy was read or written" in copies["stalled"].stderr.read().decode()
    rest = copies["slow"].stdout.read()
    assert copies["slow"].wait() == 0 and len(rest) > 4 << 20 and starts["slow"].wait() == 0
    instance.cloche("rm", "-f", *containers.values())


@test
def the_instance_is_removed_though_copies_have_stalled(instance, images, scratch):
    container, other = stopped(instance, images), running(instance, images)
    (scratch / "big").write_bytes(os.urandom(4 << 20))
    copies = []
    for one in (container, other):
        instance.cloche("cp", scratch / "big", f"{one}:/big")
        copies.append(stalled_copy(instance, one))
    copies.append(subprocess.Popen([program("cloche"), "cp", f"{container}:/big", "-"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env={**os.environ, **instance.env}))
    instance.cloche("system", "remove", "--force", timeout=8)
    for copy in copies:
        assert copy.wait(8) == 1, copy.args


@test
def files_and_folders_follow_the_rules_of_cp(instance, images, scratch):
    (scratch / "in/deep").mkdir(parents=True)
    (scratch / "in/a").write_text("a\n")
    (scratch / "in/deep/b").write_text("b\n")
    for container in both(instance, images):
        def into(*words, code=0):
            return instance.cloche("cp", *words, code=code)
        into(scratch / "in/a", f"{container}:/tmp")                 # into a folder
        into(scratch / "in/a", f"{container}:/tmp/renamed")         # as something new
        into(scratch / "in", f"{container}:/tmp/new")               # a folder as something new
        into(scratch / "in", f"{container}:/tmp/new")               # into the folder that is there
        into(f"{scratch}/in/.", f"{container}:/tmp/contents")       # what is in it
        into(f"{scratch}/in/.", f"{container}:/tmp/contents/")
        into(scratch / "in/a", f"{container}:/tmp/contents/deep/b")  # over a file
        for path, text in (("/tmp/a", "a\n"), ("/tmp/renamed", "a\n"), ("/tmp/new/deep/b", "b\n"),
                           ("/tmp/new/in/a", "a\n"), ("/tmp/contents/a", "a\n"),
                           ("/tmp/contents/deep/b", "a\n")):
            assert content(instance, container, path) == text, (container, path)
        assert "no such directory" in into(scratch / "in/a", f"{container}:/tmp/none/", code=1).err
        assert "Could not find the file" in into(scratch / "in/a", f"{container}:/none/x", code=1).err
        assert "cannot copy a folder over" in into(scratch / "in", f"{container}:/tmp/a", code=1).err
        (scratch / "clash").mkdir(exist_ok=True)
        (scratch / "clash/deep").write_text("a file where a folder is\n")
        assert "cannot overwrite" in into(f"{scratch}/clash/.", f"{container}:/tmp/contents", code=1).err

        out = scratch / f"out-{container[:4]}"
        out.mkdir()
        into(f"{container}:/tmp/new", out)
        into(f"{container}:/tmp/new", out / "other")
        into(f"{container}:/tmp/new/.", out / "inside")
        into(f"{container}:/tmp/new/a", out / "file")
        into(f"{container}:/tmp/new/a", out / "other")
        for path in ("new/deep/b", "other/deep/b", "inside/deep/b", "inside/in/a", "file", "other/a"):
            assert (out / path).read_text() in ("a\n", "b\n"), path
        assert "Could not find the file" in into(f"{container}:/none", out, code=1).err
        assert "cannot copy a folder" in into(f"{container}:/tmp/new", out / "file", code=1).err
        assert "no such directory" in into(f"{container}:/tmp/a", f"{out}/none/", code=1).err
    assert "not supported" in instance.cloche("cp", "a:/x", "b:/y", code=1).err


@test
def links_owners_and_modes_are_kept(instance, images, scratch):
    (scratch / "tree").mkdir()
    (scratch / "tree/program").write_text("x")
    os.chmod(scratch / "tree/program", 0o4751)
    os.chown(scratch / "tree/program", 1234, 2345)
    os.chmod(scratch / "tree/program", 0o4751)
    os.link(scratch / "tree/program", scratch / "tree/hard")
    os.symlink("program", scratch / "tree/soft")
    os.symlink("/nowhere", scratch / "tree/broken")
    os.mkfifo(scratch / "tree/pipe")
    os.utime(scratch / "tree/program", (1000000000, 1000000000))
    container = running(instance, images)
    instance.cloche("cp", scratch / "tree", f"{container}:/tmp/roots")
    instance.cloche("cp", "-a", scratch / "tree", f"{container}:/tmp/kept")
    look = "cd /tmp/%s && stat -c '%%a %%u:%%g %%h %%Y' program && readlink soft && readlink broken && stat -c %%F pipe"
    assert shell(instance, container, look % "roots").splitlines() == \
        ["4751 0:0 2 1000000000", "program", "/nowhere", "fifo"]
    assert shell(instance, container, look % "kept").splitlines()[0] == "4751 1234:2345 2 1000000000"

    instance.cloche("cp", f"{container}:/tmp/kept", scratch / "back")
    instance.cloche("cp", "-a", f"{container}:/tmp/kept", scratch / "archive")
    for folder, owner in (("back", (os.getuid(), os.getgid())), ("archive", (1234, 2345))):
        status = os.stat(scratch / folder / "program")
        assert (status.st_uid, status.st_gid) == owner, folder
        assert stat.S_IMODE(status.st_mode) == 0o4751 and status.st_nlink == 2
        assert os.readlink(scratch / folder / "broken") == "/nowhere"

    # A link is copied as one, with -L and with a slash what it leads to.
    shell(instance, container, "ln -s /tmp/kept /tmp/link; ln -s /tmp/kept/program /tmp/filelink")
    instance.cloche("cp", f"{container}:/tmp/link", scratch / "l1")
    assert os.readlink(scratch / "l1") == "/tmp/kept"
    instance.cloche("cp", "-L", f"{container}:/tmp/link", scratch / "l2")
    assert (scratch / "l2/program").exists()
    (scratch / "folder").mkdir()
    instance.cloche("cp", "-L", f"{container}:/tmp/filelink", scratch / "folder")
    assert (scratch / "folder/filelink").read_text() == "x"
    os.symlink(scratch / "tree", scratch / "hostlink")
    instance.cloche("cp", "-L", scratch / "hostlink", f"{container}:/tmp/")
    instance.cloche("cp", f"{scratch}/hostlink/", f"{container}:/tmp/slash")
    assert shell(instance, container, "cat /tmp/hostlink/program /tmp/slash/program") == "xx"
    # Into a folder by a link of the container, which is one inside of it.
    shell(instance, container, "mkdir /tmp/target; ln -s /tmp/target /tmp/way")
    instance.cloche("cp", scratch / "tree/program", f"{container}:/tmp/way")
    assert shell(instance, container, "ls /tmp/target") == "program\n"


@test
def archives_go_through_standard_input_and_output(instance, images, scratch):
    for container in both(instance, images):
        data = subprocess.run(["tar", "-cf", "-", "-C", "/usr/share", "base-files"], check=True,
                              stdout=subprocess.PIPE).stdout
        instance.cloche("cp", "-", f"{container}:/tmp", input=data, text=False)
        import gzip
        instance.cloche("cp", "-", f"{container}:/home", input=gzip.compress(data), text=False)
        out = instance.cloche("cp", f"{container}:/tmp/base-files", "-", text=False).out
        (scratch / "out.tar").write_bytes(out)
        names = run("tar", "-tf", scratch / "out.tar").lines
        assert names[0] == "base-files/" and len(names) == len(os.listdir("/usr/share/base-files")) + 1
        assert content(instance, container, "/home/base-files/motd") == \
            pathlib.Path("/usr/share/base-files/motd").read_text()
        # One that is cut is a failure, not half of the files.
        assert instance.cloche("cp", "-", f"{container}:/tmp", input=data[:len(data) // 1024 * 512 // 2],
                               text=False, code=1).err
        assert instance.cloche("cp", "-", f"{container}:/tmp", input=b"no tar at all " * 100, text=False,
                               code=1).err


@test
def links_of_a_container_never_lead_out_of_it(instance, images, scratch):
    """CVE-2018-15664, CVE-2019-14271: paths are resolved where there is nothing but the container."""
    secret = scratch / "secret"
    secret.mkdir()
    (secret / "key").write_text("of the machine\n")
    (scratch / "file").write_text("new\n")
    script = (f"mkdir -p /data; ln -s {scratch}/secret /data/out; ln -s ../../../../../../{scratch}/secret"
              f" /data/up; ln -s /proc/1/root{scratch}/secret /data/magic; sleep 1000")
    container = running(instance, images, command=script)
    wait_for(lambda: "magic" in shell(instance, container, "ls /data 2>/dev/null || true"))
    for state in ("running", "stopped"):
        for link in ("out", "up", "magic"):
            result = instance.cloche("cp", f"{container}:/data/{link}/key", "-", code=1)
            assert "Could not find" in result.err, (state, link, result)
            instance.cloche("cp", scratch / "file", f"{container}:/data/{link}/", code=1)
            instance.cloche("cp", "-L", f"{container}:/data/{link}", scratch / "taken", code=1)
        assert os.listdir(secret) == ["key"] and not (scratch / "taken").exists()
        # A tar with paths that lead up, or through a link that it brings.
        evil = scratch / "evil.tar"
        with tarfile.open(evil, "w") as tar:
            info = tarfile.TarInfo("through")
            info.type, info.linkname = tarfile.SYMTYPE, str(secret)
            tar.addfile(info)
            info = tarfile.TarInfo("through/planted")
            tar.addfile(info)
        instance.cloche("cp", "-", f"{container}:/tmp", input=evil.read_bytes(), text=False, code=None)
        with tarfile.open(evil, "w") as tar:
            tar.addfile(tarfile.TarInfo("../../planted"))
        instance.cloche("cp", "-", f"{container}:/tmp", input=evil.read_bytes(), text=False, code=1)
        assert os.listdir(secret) == ["key"]
        instance.cloche("stop", "-t", "0", container)
    # What a container sends is unpacked in the folder that was named, not where its links lead.
    (scratch / "into").mkdir()
    os.symlink(secret, scratch / "into/data")
    instance.cloche("cp", f"{container}:/data", scratch / "into", code=1)
    assert os.listdir(secret) == ["key"]


@test
def a_race_of_links_wins_nothing(instance, images, scratch):
    """A container that swaps a folder and a link to the machine's while it is copied from and into."""
    (scratch / "secret").mkdir()
    (scratch / "secret/key").write_text("of the machine\n")
    (scratch / "file").write_text("new\n")
    script = (f"mkdir -p /a/dir; echo mine > /a/dir/key; ln -s {scratch}/secret /a/link; cd /a;"
              "while :; do mv dir x; mv link dir; mv dir link; mv x dir; done")
    container = running(instance, images, command=script)
    seen = set()
    for n in range(40):
        result = instance.cloche("cp", f"{container}:/a/dir/key", "-", code=None)
        assert "of the machine" not in result.out
        seen.add(result.code)
        instance.cloche("cp", scratch / "file", f"{container}:/a/dir/planted", code=None)
    assert os.listdir(scratch / "secret") == ["key"]
    note(f"exit codes: {seen}")


@test
def what_is_mounted_in_a_container_is_part_of_it(instance, images, scratch):
    (scratch / "bound").mkdir()
    (scratch / "fixed").mkdir()
    (scratch / "bound/here").write_text("bound\n")
    (scratch / "new").write_text("new\n")
    options = ("-v", f"{scratch}/bound:/bound", "-v", f"{scratch}/fixed:/fixed:ro")
    for make in (running, stopped):
        container = make(instance, images, *options)
        assert content(instance, container, "/bound/here") == "bound\n"
        instance.cloche("cp", scratch / "new", f"{container}:/bound/{make.__name__}")
        assert (scratch / "bound" / make.__name__).read_text() == "new\n"
        assert "read-only" in instance.cloche("cp", scratch / "new", f"{container}:/fixed/", code=1).err
        # Files of the kernel are none of the container's.
        instance.cloche("cp", scratch / "new", f"{container}:/proc/sys/kernel/hostname", code=1)
        out = instance.cloche("export", container, text=False).out
        assert b"bound\n" not in out and b"bound/" in out
    container = running(instance, images, "--read-only")
    assert "rootfs is marked read-only" in instance.cloche("cp", scratch / "new", f"{container}:/tmp/",
                                                           code=1).err


def volumes_mounted(instance):
    return [line for line in open("/proc/self/mountinfo") if str(instance.root / "volumes") in line.split()[4]]


@test
def volumes_are_as_the_container_would_have_them(instance, images, scratch):
    """Those with options are mounted, parts are parts; while it does not run, too."""
    instance.cloche("load", "-q", "-i", images.small())
    (scratch / "fixed").mkdir()
    (scratch / "new").write_text("new\n")
    make = lambda name, *options: instance.cloche(
        "volume", "create", *(word for option in options for word in ("-o", option)), name)
    make("fixed", "type=none", f"device={scratch}/fixed", "o=bind,ro")
    make("memory", "type=tmpfs", "device=tmpfs", "o=size=1m")
    make("lost", "type=none", "device=/no/such", "o=bind")
    layer = lambda name: pathlib.Path(json.loads(instance.cloche(
        "rpc", "call", "container.inspect", f"container={name}").out)["upperDir"])
    put = lambda target, code=0: instance.cloche("cp", scratch / "new", target, code=code)

    instance.cloche("create", "--name", "fixed", "-v", "fixed:/v", "small:1")
    assert "read-only" in put("fixed:/v/new", 1).err
    assert os.listdir(scratch / "fixed") == []

    # Shared with one that runs, and with nobody: never in the container's own layer.
    instance.cloche("run", "-d", "--name", "other", "-v", "memory:/v", "small:1", "sleep", "1000")
    instance.cloche("create", "--name", "memory", "-v", "memory:/v", "small:1", "ls", "/v")
    put("memory:/v/new")
    assert instance.cloche("exec", "other", "cat", "/v/new").out == content(instance, "memory", "/v/new") == "new\n"
    instance.cloche("rm", "-f", "other")
    wait_for(lambda: not volumes_mounted(instance))
    put("memory:/v/again")
    wait_for(lambda: not volumes_mounted(instance))
    assert instance.cloche("start", "-a", "memory").out == ""

    # A part, and links in the volume that lead nowhere else; one that is not there.
    instance.cloche("run", "--rm", "-v", "data:/v", "small:1", "sh", "-c", "mkdir -p /v/part; ln -s /etc /v/out")
    for part in ("part", "out"):
        instance.cloche("create", "--name", part, "--mount", f"type=volume,src=data,dst=/v,volume-subpath={part}",
                        "small:1", "cat", "/v/new")
    put("part:/v/new")
    assert content(instance, "part", "/v/new") == "new\n"
    assert "open subpath out of the volume" in put("out:/v/new", 1).err
    assert instance.cloche("start", "-a", "part").out == "new\n"

    instance.cloche("create", "--name", "lost", "-v", "lost:/v", "small:1")
    assert "failed to mount local volume: mount /no/such:" in put("lost:/v/new", 1).err
    for name in ("fixed", "memory", "part", "out", "lost"):
        assert not (layer(name) / "v/new").exists() and not (layer(name) / "v/again").exists(), name
    wait_for(lambda: not volumes_mounted(instance))


@test
def a_copy_holds_nobody_up_and_ends_with_its_client(instance, images, scratch):
    container = running(instance, images)
    shell(instance, container, "dd if=/dev/zero of=/tmp/large bs=1M count=8 2>/dev/null")
    copies = [subprocess.Popen([program("cloche"), "--instance", instance.name, "cp",
                                f"{container}:/tmp/large", "-"], stdout=subprocess.PIPE)
              for _ in range(8)]  # nobody reads: they hang
    workers = lambda: [pid for pid in pathlib.Path("/proc").glob("[0-9]*")
                       if _command(pid) == "cloche-image"]
    for copy in copies:
        assert len(copy.stdout.read(512)) == 512  # it has begun, in the container that runs
    assert instance.cloche("images", "-q").out and shell(instance, container, "echo on") == "on\n"
    instance.cloche("stop", "-t", "0", container)
    instance.cloche("start", container)
    for copy in copies:
        copy.kill()
        copy.wait()
    wait_for(lambda: not workers())


def _command(folder):
    try:
        return (folder / "comm").read_text().strip()
    except OSError:
        return ""


@test
def diff_tells_what_was_added_changed_and_deleted(instance, images):
    container = running(instance, images)
    assert instance.cloche("diff", container).lines == []
    shell(instance, container, "echo x > /etc/new; echo y >> /etc/passwd; rm /etc/group; mkdir /opt;"
                               "echo z > /opt/z")
    lines = ["C /etc", "D /etc/group", "A /etc/new", "C /etc/passwd", "A /opt", "A /opt/z"]
    assert instance.cloche("diff", container).lines == lines
    instance.cloche("stop", "-t", "0", container)
    assert instance.cloche("container", "diff", container).lines == lines


@test
def an_exported_root_is_imported_as_an_image(instance, images, scratch):
    container = running(instance, images)
    shell(instance, container, "echo changed > /etc/motd; chown 7:8 /etc/motd")
    instance.cloche("export", "-o", scratch / "root.tar", container)
    with tarfile.open(scratch / "root.tar") as tar:
        names = tar.getnames()
        assert "etc/motd" in names and tar.getmember("etc/motd").uid == 7
        assert not [name for name in names if name.startswith(("proc/", "sys/", "/"))]
    run("gzip", "-k", scratch / "root.tar")
    for archive in ("root.tar", "root.tar.gz"):
        image = instance.cloche("import", "-c", "CMD [\"cat\", \"/etc/motd\"]", "-c", "ENV A=b", "-m",
                                "from a test", scratch / archive, "again:1").out.strip()
        assert image.startswith("sha256:")
        assert instance.cloche("run", "--rm", "again:1").out == "changed\n"
        assert instance.cloche("run", "--rm", "again:1", "sh", "-c", "echo $A; stat -c %u:%g /etc/motd"
                               ).lines == ["b", "7:8"]
        instance.cloche("rmi", "again:1")
    image = instance.cloche("import", "-", input=(scratch / "root.tar").read_bytes()[:-3000], text=False,
                            code=None)
    assert "neither" not in image.err.decode()
    # What was imported is saved, and loaded again.
    instance.cloche("import", scratch / "root.tar", "again:2")
    instance.cloche("save", "-o", scratch / "saved.tar", "again:2")
    instance.cloche("rmi", "again:2")
    instance.cloche("load", "-q", "-i", scratch / "saved.tar")
    assert instance.cloche("run", "--rm", "again:2", "cat", "/etc/motd").out == "changed\n"


@test
def one_root_is_mounted_once(instance, images, scratch):
    """A copy between two runs, and one that a client does not finish."""
    instance.cloche("load", "-q", "-i", images.small())
    (scratch / "new").write_text("copied\n")
    instance.cloche("run", "-d", "--name", "again", "--restart", "always", "small:1", "sh", "-c",
                    "cat /new; false")
    look = lambda: instance.cloche("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again").out.split()
    wait_for(lambda: look()[0] == "restarting" and int(look()[1]) >= 5)
    instance.cloche("cp", scratch / "new", "again:/new")
    wait_for(lambda: "copied" in instance.cloche("logs", "again").out)
    instance.cloche("rm", "-f", "again")
    instance.cloche("run", "-d", "--name", "box", "small:1", "sleep", "1000")
    half = instance.start("cp", "-", "box:/tmp")
    half.stdin.write(b"\0" * 100)
    half.stdin.flush()
    mounted = lambda: run("pidof", "cloche-image", code=None).out
    wait_for(mounted)
    instance.cloche("restart", "-t", "0", "box")
    assert half.wait(60) != 0 and not mounted()
    instance.cloche("rm", "-f", "box")


if __name__ == "__main__":
    main()
