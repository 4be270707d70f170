"""User namespaces of containers: `--userns=auto`, `remap`, and the daemon's `userNamespaces`.

The tests bring their own /etc/subuid and /etc/subgid, in their mount namespace.
"""

import contextlib
import json
import os
import pathlib
import signal

from dockers import Docker
from harness import main, run, test, wait_for

FIRST, SIZE = 2000000, 65536
REMAP = 5000000


@contextlib.contextmanager
def subordinate(scratch, count=4 * SIZE, more=""):
    """IDs for the pool and for the user that the daemon remaps to."""
    made = []
    try:
        for name in ("subuid", "subgid"):
            text = f"containers:{FIRST}:{count}\ndockremap:{REMAP}:{SIZE}\n{more}"
            (scratch / name).write_text(text)
            place = pathlib.Path("/etc", name)
            if not place.exists():
                place.touch()
            run("mount", "--bind", scratch / name, place)
            made.append(place)
        yield
    finally:
        for place in made:
            run("umount", place)


def configure(instance, scratch, **settings):
    """The daemon that is started next has these settings."""
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"userNamespaces": settings}))
    instance.env["CLOCHE_CONFIG"] = str(path)


def details(instance, name):
    return json.loads(instance.cloche("rpc", "call", "container.inspect", f"container={name}").out)


def mapped_to(instance, name):
    return details(instance, name)["userNamespace"]["uids"][0]["hostId"]


def sleeper(instance, name, *options):
    instance.cloche("run", "-d", "--name", name, *options, "small:1", "sleep", "1000")


def upper(instance, name):
    return pathlib.Path(details(instance, name)["upperDir"])


def owner(path):
    status = os.lstat(path)
    return status.st_uid, status.st_gid


@test
def a_container_has_users_of_its_own(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        sleeper(instance, "one", "--userns=auto", "--tmpfs", "/temporary", "--init")
        inside = lambda script: instance.cloche("exec", "one", "sh", "-c", script).lines
        assert inside("id -u; cat /proc/self/uid_map | tr -s ' '") == ["0", f" 0 {FIRST} {SIZE}"]
        for path in ("/", "/etc", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev/shm", "/dev/mqueue",
                     "/temporary", "/bin/sh"):
            assert inside(f"stat -c %u:%g {path}") == ["0:0"], path
        assert inside("stat -c '%a %u %g' /.dockerenv; readlink /etc/mtab") == ["755 0 0", "/proc/mounts"]
        assert inside("touch /made && chown 7:8 /made && stat -c %u:%g /made; echo more >>/etc/hosts") == ["7:8"]
        assert owner(upper(instance, "one") / "made") == (7, 8)
        pid = details(instance, "one")["state"]["pid"]
        assert os.stat(f"/proc/{pid}").st_uid == FIRST
        assert mapped_to(instance, "one") == FIRST
        # A second life, by the monitor and by hand, and the files of the first.
        instance.cloche("restart", "-t", "0", "one")
        assert inside("stat -c %u:%g /made; tail -n 1 /etc/passwd >>/made") == ["7:8"]


@test
def ranges_do_not_overlap_and_are_free_again(instance, images, scratch):
    with subordinate(scratch, 2 * SIZE):
        instance.cloche("load", "-i", images.small())
        sleeper(instance, "one", "--userns=auto")
        instance.cloche("create", "--name", "two", "--userns=auto:size=1000", "small:1", "id")
        assert mapped_to(instance, "two") == FIRST + SIZE
        instance.kill_daemon()
        full = instance.cloche("create", "--userns=auto", "small:1", code=125)
        assert "used up" in full.err and "/etc/subuid" in full.err, full
        assert instance.cloche("exec", "one", "id", "-u").out == "0\n"
        instance.cloche("rm", "-f", "one")
        sleeper(instance, "three", "--userns=auto")
        assert mapped_to(instance, "three") == FIRST
        for mode in ("auto:size=0", "auto:size=x", "auto:uid=3", "keep-id", "container:three"):
            assert "invalid USER mode" in instance.cloche("create", f"--userns={mode}", "small:1", code=125).err, mode
    (scratch / "subuid").write_text("containers:0:4294967294\n")
    with contextlib.ExitStack() as stack:
        stack.callback(run, "umount", "/etc/subuid")
        run("mount", "--bind", scratch / "subuid", "/etc/subuid")
        assert "machine's root" in instance.cloche("create", "--userns=auto", "small:1", code=125).err


@test
def images_and_copies_have_the_containers_ids(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        sleeper(instance, "box", "--userns=auto")
        instance.cloche("exec", "box", "sh", "-c", "mkdir /d; echo mine >/d/f; chown 5:6 /d/f; echo r >/d/root")
        (scratch / "given").write_text("x")
        os.chown(scratch / "given", 3, 4)

        def check():
            assert "A /d/f" in instance.cloche("diff", "box").out
            names = run("tar", "--numeric-owner", "-tv", input=instance.cloche("cp", "box:/d", "-", text=False).out,
                        ).out
            assert "5/6" in names and "0/0" in names and str(FIRST) not in names, names
            whole = run("tar", "--numeric-owner", "-tv", input=instance.cloche("export", "box", text=False).out).out
            assert "5/6" in whole and str(FIRST) not in whole, whole
            instance.cloche("commit", "box", "kept:1")
            assert instance.cloche("run", "--rm", "kept:1", "stat", "-c", "%u:%g", "/d/f", "/d/root").lines == \
                ["5:6", "0:0"]
            instance.cloche("cp", "-a", scratch / "given", "box:/d/given")
            assert owner(upper(instance, "box") / "d" / "given") == (3, 4)
            instance.cloche("cp", scratch / "given", "box:/d/plain")
            assert owner(upper(instance, "box") / "d" / "plain") == (0, 0)

        check()
        assert instance.cloche("exec", "box", "stat", "-c", "%u:%g", "/d/given").out == "3:4\n"
        instance.cloche("stop", "-t", "0", "box")
        check()


@test
def copies_have_no_other_rights_than_the_containers_root(instance, images, scratch):
    """It leads them to files of the machine that it may not touch itself, running or not."""
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        folder = scratch / "folder"
        folder.mkdir()
        os.chmod(scratch, 0o755)
        (folder / "secret").write_text("host\n")
        os.chmod(folder / "secret", 0o600)
        (scratch / "given").write_text("given\n")
        sleeper(instance, "box", "--userns=auto", "-v", f"{folder}:/f", "-v", "data:/data")
        instance.cloche("exec", "box", "sh", "-c", "ln -s /f /link; echo v >/data/v; chown 3:4 /data/v")

        def check():
            assert "denied" in instance.cloche("cp", "box:/link/secret", "-", code=1).err
            for target in ("box:/link/", "box:/link/secret", "box:/f/new"):
                instance.cloche("cp", scratch / "given", target, code=1)
            listed = run("tar", "--numeric-owner", "-tv",
                         input=instance.cloche("cp", "box:/data", "-", text=False).out).out
            assert "3/4" in listed and "0/0" in listed, listed
            instance.cloche("cp", scratch / "given", "box:/data/given")
            assert owner(instance.root / "volumes" / "data" / "_data" / "given") == (0, 0)
            assert (folder / "secret").read_text() == "host\n" and len(list(folder.iterdir())) == 1

        check()
        instance.cloche("stop", "-t", "0", "box")
        check()


@test
def places_of_mounts_are_made_by_the_containers_root(instance, images, scratch):
    """For a copy into a container that never ran, as a start makes them."""
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        os.chmod(scratch, 0o755)
        (scratch / "folder").mkdir()
        (scratch / "given").write_text("given\n")
        (scratch / "bound").write_text("given\n")
        instance.cloche("run", "--name", "maker", "small:1", "sh", "-c", "mkdir -m 700 /home/own; chown 5:6 /home/own")
        instance.cloche("commit", "maker", "homes:1")
        instance.cloche("create", "--userns=auto", "--name", "box", "-v", "data:/new/deep", "-v", "mine:/home/own/data",
                        "-v", f"{scratch}/bound:/files/bound", "homes:1", "sh", "-c",
                        "cat /new/deep/given /home/own/data/given /files/bound; stat -c %u:%g /new /home/own/data")
        for target in ("/new/deep/given", "/home/own/data/given"):
            instance.cloche("cp", scratch / "given", f"box:{target}")
        for name in ("new", "home/own/data", "files"):
            assert owner(upper(instance, "box") / name) == (0, 0), name
        assert instance.cloche("start", "-a", "box").lines == ["given"] * 3 + ["0:0"] * 2
        # No folder of the machine that its root may not make there.
        instance.cloche("create", "--userns=auto", "--name", "other", "-v", f"{scratch}/folder:/f", "-v", "data:/f/new",
                        "small:1")
        assert "denied" in instance.cloche("cp", scratch / "given", "other:/f/new/", code=1).err
        assert not list((scratch / "folder").iterdir())


@test
def volumes_are_shared_and_binds_are_the_machines(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        secret, shared = scratch / "secret", scratch / "shared"
        shared.mkdir()
        os.chmod(scratch, 0o755)
        secret.write_text("host\n")
        os.chmod(secret, 0o600)
        sleeper(instance, "one", "--userns=auto", "-v", "data:/data", "-v", f"{secret}:/secret",
                "-v", f"{shared}:/shared")
        inside = lambda name, script, code=0: instance.cloche("exec", name, "sh", "-c", script, code=code)
        inside("one", "echo text >/data/f; chown 9:9 /data/f; chmod 600 /data/f; touch /data/mine")
        sleeper(instance, "two", "--userns=auto", "--volumes-from", "one")
        assert mapped_to(instance, "two") != mapped_to(instance, "one")
        for name in ("one", "two"):
            assert inside(name, "stat -c %u:%g /data /data/f /data/mine; cat /data/f").lines == \
                ["0:0", "9:9", "0:0", "text"]
            # The machine's root is nobody there, and its files are not for the container's.
            assert inside(name, "stat -c %u:%g /secret").out == "65534:65534\n"
            for script in ("cat /secret", "echo x >/secret", "chown 0:0 /secret", "chmod 777 /secret",
                           "touch /shared/x"):
                inside(name, script, code=1)
        assert instance.cloche("run", "--rm", "-v", "data:/data", "small:1", "stat", "-c", "%u", "/data/f").out == "9\n"
        assert secret.read_text() == "host\n" and secret.stat().st_mode & 0o777 == 0o600
        assert not list(shared.iterdir())
        # What the container makes where it may, is on disk as the user it really is.
        os.chmod(shared, 0o777)
        inside("one", "touch /shared/x")
        assert owner(shared / "x") == (FIRST, FIRST)
        assert owner(instance.root / "volumes" / "data" / "_data" / "f") == (9, 9)


@test
def a_bind_may_be_mapped(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        folder = scratch / "folder"
        folder.mkdir()
        (folder / "own").write_text("text\n")
        os.chmod(folder / "own", 0o600)
        for options in (("-v", f"{folder}:/f:idmap"), ("--mount", f"type=bind,source={folder},target=/f,idmap")):
            result = instance.cloche("run", "--rm", "--userns=auto", *options, "small:1", "sh", "-c",
                                     "cat /f/own; stat -c %u:%g /f /f/own; echo x >/f/new")
            assert result.lines == ["text", "0:0", "0:0"], result
            assert owner(folder / "new") == (0, 0)
            (folder / "new").unlink()
        # Without a user namespace there is nothing to map.
        assert instance.cloche("run", "--rm", "-v", f"{folder}:/f:idmap", "small:1", "cat", "/f/own").out == "text\n"


@test
def what_options_of_a_volume_mount_is_the_machines(instance, images, scratch):
    """A bind in the clothes of a volume gives no more than a bind does; parts of it neither."""
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        create = lambda name, *options: instance.cloche(
            "volume", "create", *(word for option in options for word in ("-o", option)), name)
        folder = scratch / "folder"
        (folder / "part").mkdir(parents=True)
        os.chmod(scratch, 0o755)
        (folder / "part" / "secret").write_text("host\n")
        os.chmod(folder / "part" / "secret", 0o600)
        (scratch / "given").write_text("given\n")
        create("bound", "type=none", f"device={folder}", "o=bind")
        whole, part = "type=volume,src=bound,dst=/v", "type=volume,src=bound,dst=/v,volume-subpath=part"
        for mount, secret in ((whole, "/v/part/secret"), (part, "/v/secret")):
            sleeper(instance, "box", "--userns=auto", "--mount", mount)
            inside = lambda script, code=0: instance.cloche("exec", "box", "sh", "-c", script, code=code)
            assert inside(f"stat -c %u:%g /v {secret}").lines == ["65534:65534"] * 2
            for script in (f"cat {secret}", "echo x >/v/f", f"chmod 4755 {secret}", f"chown 0:0 {secret}"):
                inside(script, code=1)
            for _ in range(2):  # while it runs, and when it does not
                assert "denied" in instance.cloche("cp", f"box:{secret}", "-", code=1).err
                instance.cloche("cp", scratch / "given", "box:/v/", code=1)
                instance.cloche("stop", "-t", "0", "box")
            instance.cloche("rm", "box")
        assert [path.name for path in folder.rglob("*")] == ["part", "secret"]
        assert (folder / "part" / "secret").stat().st_mode & 0o7777 == 0o600
        # Where it is mounted by the machine's root any file system will do.
        (scratch / "lower").mkdir()
        (scratch / "lower" / "f").write_text("lower\n")
        create("stacked", "type=overlay", "device=overlay", f"o=lowerdir={scratch}/lower:{folder}")
        look = ("run", "--rm", "--userns=auto", "-v", "stacked:/v", "small:1", "sh", "-c")
        assert instance.cloche(*look, "cat /v/f; stat -c %u /v/f").lines == ["lower", "65534"]
        create("disk", "type=ext4", "device=/dev/none")
        refused = instance.cloche("run", "--userns=auto", "-v", "disk:/v", "small:1", "true", code=125)
        assert "failed to mount local volume: mount /dev/none:" in refused.err, refused


@test
def streams_devices_and_namespaces_are_the_containers(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        go = lambda script, *options, **more: instance.cloche("run", "--rm", "--userns=auto", *options, "small:1",
                                                              "sh", "-c", script, **more)
        for user in ("0", "1000:1000"):
            result = go("cat </dev/stdin >/dev/stdout; echo wrong >/dev/stderr", "-i", "--user", user, input="text")
            assert (result.out, result.err) == ("text", "wrong\n"), result
        assert go("echo x >/dev/other && stat -c %t:%T /dev/other; echo x >/dev/null",
                  "--device", "/dev/null:/dev/other").lines == ["1:3"]
        go("mknod /sda b 8 0", code=1)
        assert go("ping -c 1 127.0.0.1 >/dev/null; cat /proc/sys/net/ipv4/ip_forward",
                  "--sysctl", "net.ipv4.ip_forward=1").out == "1\n"
        go("ip link set lo down", "--cap-add", "NET_ADMIN")
        go("ip link set lo down", code=2)
        assert go("stat -c %u /dev/shm; hostname", "--ipc=host", "--uts=host").lines == ["65534", os.uname().nodename]
        assert go("touch /x; chown 9:9 /x; stat -c %u /x", "--storage-opt", "size=16m").out == "9\n"
        refused = go("id", "--userns=auto:size=1000", "--user", "1000", code=125)
        assert "user 1000 is not in the container's user namespace" in refused.err, refused


@test
def nothing_of_the_machine_can_be_changed(instance, images, scratch):
    """By a root with all capabilities and no filter of system calls."""
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        files = lambda: run("find", instance.root / "layers", "-printf", "%p %U:%G %m %T@ %s\\n").out
        before = files()
        script = """
            umount /proc/sys; mount -o remount,bind,rw /proc/sys
            for name in kernel/core_pattern kernel/modprobe kernel/sysrq vm/drop_caches; do
                echo 1 >/proc/sys/$name && echo "wrote $name"
            done
            echo c >/proc/sysrq-trigger && echo wrote sysrq
            mkdir -p /m; mount -t tmpfs t /m
            mknod /m/disk b 254 0 && echo made a device
            mount -t cgroup -o rw,devices c /m && echo mounted cgroups; mount -t devtmpfs d /m && echo mounted devices
            mount -o remount,rw /sys && echo remounted /sys
            chown -R 5:5 /bin /etc; chmod -R u+s /bin; rm -rf /etc/*
            nsenter -t 1 -m true; dmesg >/dev/null 2>&1 && echo read the log
            kill -9 -1
        """
        result = instance.cloche("run", "--rm", "--userns=auto", "--cap-add=ALL", "--security-opt",
                                 "seccomp=unconfined", "small:1", "sh", "-c", script, code=None)
        assert result.out == "", result
        assert files() == before


@test
def ranges_survive_the_daemon_and_the_machine(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        instance.cloche("run", "-d", "--name", "box", "--userns=auto", "--restart=always", "--health-cmd",
                        "test $(id -u) = 0 && test -O /etc/hosts", "--health-interval", "0.2s", "small:1", "sh", "-c",
                        "exec sleep 54321")
        before = details(instance, "box")["userNamespace"]
        healthy = lambda: details(instance, "box")["state"].get("health", {}).get("status") == "healthy"
        wait_for(healthy)
        instance.kill_daemon()
        pid = int(run("pgrep", "-x", "-f", "sleep 54321").lines[0])
        os.kill(pid, signal.SIGKILL)  # restarted by its monitor alone
        wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists())
        wait_for(lambda: details(instance, "box")["restartCount"] == 1)
        wait_for(healthy)
        assert details(instance, "box")["userNamespace"] == before
        instance.cloche("stop", "-t", "0", "box")
        instance.kill_daemon()
        instance.forget_run()
        instance.cloche("start", "box")
        wait_for(healthy)
        assert details(instance, "box")["userNamespace"] == before
        instance.cloche("create", "--name", "other", "--userns=auto", "small:1")
        assert mapped_to(instance, "other") == FIRST + SIZE


@test
def the_default_of_the_daemon(instance, images, scratch):
    with subordinate(scratch):
        configure(instance, scratch, mode="remap", remap="default")
        instance.cloche("load", "-i", images.small())
        map_of = lambda *options: instance.cloche("run", "--rm", *options, "small:1", "cat",
                                                  "/proc/self/uid_map").out.split()[1]
        assert map_of() == str(REMAP) and map_of("--userns=host") == "0"
        assert map_of("--userns=auto") == str(FIRST)
        for option, words in (("--privileged", "privileged mode is incompatible with user namespaces"),
                              ("--network=host", "cannot share the host's network namespace"),
                              ("--pid=host", "cannot share the host PID namespace")):
            assert words in instance.cloche("run", option, "small:1", "id", code=125).err
            assert map_of("--userns=host", option) == "0"
        assert '"userns"' in instance.cloche("info", "--format", "{{json .}}").out
        (scratch / "Dockerfile").write_text("FROM small:1\nRUN id -u >/who; cut -c 11-22 /proc/self/uid_map >/map\n"
                                            "COPY --chown=4:5 given /given\nRUN stat -c %u:%g /given >/owner\n")
        (scratch / "given").write_text("")
        instance.cloche("build", "-t", "built:1", scratch)
        assert instance.cloche("run", "--rm", "--userns=host", "built:1", "sh", "-c",
                               "cat /who /map /owner; stat -c %u /who").out.split() == ["0", str(REMAP), "4:5", "0"]


@test
def docker_s_clients_know_it(instance, images, scratch):
    with subordinate(scratch):
        configure(instance, scratch, mode="remap")
        docker = Docker(instance)
        docker("load", "-i", images.small("small:1"))
        assert '"name=userns"' in docker("info", "--format", "{{json .SecurityOptions}}").out
        docker("run", "-d", "--name", "own", "small:1", "sleep", "1000")
        docker("run", "-d", "--name", "host", "--userns=host", "--privileged", "small:1", "sleep", "1000")
        modes = docker("inspect", "--format", "{{.HostConfig.UsernsMode}}.", "own", "host").lines
        assert modes == [".", "host."], modes
        maps = [docker("exec", name, "cat", "/proc/self/uid_map").out.split()[1] for name in ("own", "host")]
        assert maps == [str(REMAP), "0"], maps
        refused = docker("run", "--privileged", "small:1", "true", code=125)
        assert "You must run the container in the host namespace when running privileged mode" in refused.err, refused


@test
def the_kiosk_profile_is_the_strict_one(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        state = "grep -E 'NoNewPrivs|CapBnd|CapEff' /proc/self/status; cat /proc/self/uid_map; touch /x 2>&1"
        for options, caps in (((), "0000000000000000"), (("--cap-add=CHOWN",), "0000000000000001")):
            result = instance.cloche("run", "--rm", "--profile=kiosk", *options, "small:1", "sh", "-c", state, code=1)
            words = result.out.split()
            assert words[:6] == ["CapEff:", caps, "CapBnd:", caps, "NoNewPrivs:", "1"], result
            assert words[7] == str(FIRST) and "Read-only file system" in result.out, result
        assert instance.cloche("run", "--rm", "--profile=docker", "small:1", "sh", "-c", state).out.split()[5] == "0"
        assert "excludes" in instance.cloche("run", "--profile=kiosk", "--privileged", "small:1", code=125).err
        assert "must be one of" in instance.cloche("run", "--profile=x", "small:1", code=125).err


@test
def namespaces_are_shared_within_one_user_namespace(instance, images, scratch):
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        sleeper(instance, "one", "--userns=auto")
        sleeper(instance, "two", "--network=container:one", "--pid=container:one")
        assert mapped_to(instance, "two") == mapped_to(instance, "one")
        assert instance.cloche("exec", "two", "ps").out.count("sleep 1000") == 2
        assert "another one" in instance.cloche("create", "--userns=auto", "--network=container:one", "small:1",
                                                code=125).err
        assert "another one" in instance.cloche("create", "--userns=host", "--network=container:one", "small:1",
                                                code=125).err
        instance.cloche("exec", "one", "ip", "link", "set", "lo", "down", code=None)
        assert instance.cloche("exec", "one", "sh", "-c", "echo listening | nc -l -p 80 & sleep 0.2; nc 127.0.0.1 80").out \
            == "listening\n"


@test
def who_shares_a_user_namespace_that_is_gone_is_told(instance, images, scratch):
    """A network of its own belongs to the user namespace it was made in; started anew, it has another one."""
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        state = lambda name: details(instance, name)["state"]
        sleeper(instance, "one", "--userns=auto")
        sleeper(instance, "two", "--pid=container:one", "--restart=always")
        assert instance.cloche("exec", "two", "ls", "/sys/class/net").out.split() == ["eth0", "lo"]
        instance.cloche("restart", "-t", "0", "one")
        wait_for(lambda: "with another user namespace" in state("two").get("error", ""))
        assert state("two")["status"] == "restarting"
        instance.cloche("restart", "-t", "0", "two")
        assert not state("two").get("error")
        owner = lambda name: os.readlink(f"/proc/{state(name)['pid']}/ns/user")
        assert owner("two") == owner("one")
        instance.cloche("rm", "-f", "two", "one")


@test
def who_shares_namespaces_follows_the_other_one(instance, images, scratch):
    """Into the user namespace of its next life, and never into one that its process has made itself."""
    with subordinate(scratch):
        instance.cloche("load", "-i", images.small())
        sleeper(instance, "one", "--userns=auto")
        sleeper(instance, "two", "--network=container:one", "--pid=container:one", "--restart=always")
        sleeper(instance, "three", "--network=container:two", "--restart=always")
        ours = lambda name: instance.cloche("exec", name, "sh", "-c", "id -u; readlink /proc/self/ns/user; "
                                            "readlink /proc/self/ns/net").lines
        state = lambda name: details(instance, name)["state"]

        def again(name):
            before = details(instance, name)["restartCount"]
            os.kill(state(name)["pid"], signal.SIGKILL)
            wait_for(lambda: details(instance, name)["restartCount"] > before and state(name)["status"] == "running")

        first = ours("one")
        assert first[0] == "0" and ours("two") == ours("three") == first
        instance.cloche("restart", "-t", "0", "one")
        wait_for(lambda: state("two")["status"] == "running")  # it had the processes of the first life
        again("three")
        second = ours("one")
        assert second != first and ours("two") == ours("three") == second
        # A process whose current user namespace is another one than the container's.
        instance.cloche("run", "-d", "--name", "deep", "--userns=auto", "--security-opt", "seccomp=unconfined",
                        "small:1", "unshare", "-U", "sleep", "1000")
        wait_for(lambda: "sleep" in instance.cloche("top", "deep").out)
        joined = instance.cloche("run", "--rm", "--network=container:deep", "small:1", "id", "-u")
        assert joined.out == "0\n", joined


if __name__ == "__main__":
    main()
