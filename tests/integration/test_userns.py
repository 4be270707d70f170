"""User namespaces of containers: `--userns=auto`, `remap`, and the daemon's `userNamespaces`.

The tests bring their own /etc/subuid and /etc/subgid, in their mount namespace.
"""

import contextlib
import json
import os
import pathlib

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
        assert "name=userns" in instance.cloche("info", "--format", "{{json .}}").out
        (scratch / "Dockerfile").write_text("FROM small:1\nRUN id -u >/who; cut -c 11-22 /proc/self/uid_map >/map\n"
                                            "COPY --chown=4:5 given /given\nRUN stat -c %u:%g /given >/owner\n")
        (scratch / "given").write_text("")
        instance.cloche("build", "-t", "built:1", scratch)
        assert instance.cloche("run", "--rm", "--userns=host", "built:1", "sh", "-c",
                               "cat /who /map /owner; stat -c %u /who").out.split() == ["0", str(REMAP), "4:5", "0"]


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


if __name__ == "__main__":
    main()
