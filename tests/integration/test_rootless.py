"""The whole engine as an ordinary user: root of a user namespace of his own."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys

from harness import Outside, main, program, run, test, wait_for
from user_engine import Engine, user_processes, with_engine
from users import User


@with_engine
def containers_of_an_ordinary_user(engine):
    assert engine.cloche("run", "--rm", "small:1", "sh", "-c", "id -u; exit 7", code=7).out == "0\n"
    assert engine.cloche("run", "--rm", "--user", "1234:5", "small:1", "id").out.startswith("uid=1234 gid=5")
    engine.cloche("run", "-d", "--name", "web", "-v", "data:/data", "small:1", "sh", "-c",
                  "echo up; echo kept > /data/x; echo web > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    wait_for(lambda: engine.cloche("logs", "web").out == "up\n", what="its log")
    assert engine.cloche("exec", "web", "cat", "/data/x").out == "kept\n"
    assert engine.cloche("ps", "--format", "{{.Names}} {{.State}}").out == "web running\n"
    # Its processes are the user's, or of his range.
    pid = json.loads(engine.cloche("inspect", "web").out)[0]["State"]["Pid"]
    assert os.stat(f"/proc/{pid}").st_uid == engine.user.uid
    engine.cloche("run", "--name", "made", "small:1", "touch", "/new")
    engine.cloche("commit", "made", "changed")
    assert engine.cloche("run", "--rm", "changed", "ls", "/new").out == "/new\n"
    engine.cloche("rm", "-f", "web", "made")
    assert engine.cloche("run", "--rm", "-v", "data:/data", "small:1", "cat", "/data/x").out == "kept\n"


@contextlib.contextmanager
def tun_for_everybody(scratch):
    """As udev has it; a machine without udev gives it to root alone."""
    os.mknod(scratch / "tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    os.chmod(scratch / "tun", 0o666)
    run("mount", "--bind", scratch / "tun", "/dev/net/tun")
    try:
        yield
    finally:
        run("umount", "/dev/net/tun")


@test
def containers_of_an_ordinary_user_reach_other_machines(images, scratch):
    with Outside() as outside, User(scratch) as user, tun_for_everybody(scratch):
        run("ip", "route", "add", "default", "via", Outside.there)
        engine = Engine(user)
        archive = user.home / "small.tar"
        shutil.copy(images.docker_archive(), archive)
        user.own(archive)
        (scratch / "www").mkdir()
        (scratch / "www/index.html").write_text("outside\n")
        server = subprocess.Popen(["nsenter", "--net", "--target", str(outside.keeper.pid), "busybox", "httpd", "-f", "-p", "8099", "-h", str(scratch / "www")])
        try:
            engine.cloche("load", "-i", archive)
            wait_for(lambda: engine.cloche("run", "--rm", "small:1", "wget", "-q", "-O", "-",
                                           f"http://{Outside.there}:8099/", code=None).out == "outside\n",
                     what="the other machine is reached")
        finally:
            server.kill()
            server.wait()
            engine.cloche("system", "remove", "--force")
        wait_for(lambda: not user_processes(user), what="nothing runs")


@test
def the_way_to_other_machines_comes_back(images, scratch):
    """It is not there at first, pasta ends, and so does who watches it."""
    with Outside() as outside, User(scratch) as user, tun_for_everybody(scratch):
        engine = Engine(user)
        archive = user.home / "small.tar"
        shutil.copy(images.docker_archive(), archive)
        user.own(archive)
        (scratch / "www").mkdir()
        (scratch / "www/index.html").write_text("outside\n")
        server = subprocess.Popen(["nsenter", "--net", "--target", str(outside.keeper.pid), "busybox", "httpd", "-f",
                                   "-p", "8099", "-h", str(scratch / "www")])

        def is_reached():
            return engine.cloche("exec", "one", "wget", "-q", "-O", "-", f"http://{Outside.there}:8099/",
                                 code=None).out == "outside\n"

        def kill(name):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                path = pathlib.Path("/proc", pid)
                try:
                    if path.stat().st_uid == user.uid and (path / "comm").read_text().startswith(name):
                        os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    pass
        try:
            engine.cloche("load", "-i", archive)
            engine.cloche("run", "-d", "--name", "one", "small:1", "sleep", "1000")
            assert not is_reached()
            run("ip", "route", "add", "default", "via", Outside.there)
            wait_for(is_reached, what="a way that came later")
            kill("pas")
            wait_for(is_reached, what="a way again")
            kill("cloche-pasta")
            kill("pas")
            assert not is_reached()
            engine.kill_daemon()
            wait_for(is_reached, what="a way by the next daemon")
        finally:
            server.kill()
            server.wait()
            engine.cloche("system", "remove", "--force")
        wait_for(lambda: not user_processes(user), what="nothing runs")


@with_engine
def a_launcher_that_is_killed_leaves_what_the_next_one_finds(engine):
    programs = engine.user.home / "bin"
    programs.mkdir()
    engine.user.own(programs)
    path = engine.env["PATH"]
    for name in ("newuidmap", "pasta"):
        engine.cloche("system", "remove", "--force")
        wait_for(lambda: not user_processes(engine.user), what="nothing runs")
        (programs / name).write_text(f"#!/bin/sh\n> {programs}/{name}.called\nexec sleep 4\n")
        (programs / name).chmod(0o755)
        engine.env["PATH"] = f"{programs}:{path}"
        started = subprocess.Popen(engine.argv(program("cloched")), stdin=subprocess.DEVNULL)
        wait_for((programs / f"{name}.called").exists, what=f"it waits for {name}")
        started.kill()
        started.wait()
        (programs / name).unlink()
        engine.env["PATH"] = path
        assert engine.cloche("ps", "-q").out == ""


NAME_SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
while True:
    query, client = server.recvfrom(512)
    end = query.index(0, 12) + 5
    address = [127, 0, 0, 1] if b"near" in query else [192, 0, 2, 7]
    record = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, *address]) if query[end - 4:end - 2] == b"\\0\\1" else b""
    server.sendto(query[:2] + bytes([0x81, 0x80, 0, 1, 0, 1 if record else 0, 0, 0, 0, 0]) + query[12:end] + record, client)
"""


@test
def names_of_a_name_server_at_the_loopback_address(images, scratch):
    """As systemd-resolved has it."""
    with Outside() as outside, User(scratch) as user, tun_for_everybody(scratch):
        run("ip", "route", "add", "default", "via", Outside.there)
        (scratch / "resolv.conf").write_text("nameserver 127.0.0.53\noptions timeout:2\n")
        (scratch / "resolv.conf").chmod(0o644)
        run("mount", "--bind", scratch / "resolv.conf", "/etc/resolv.conf")
        engine = Engine(user)
        archive = user.home / "small.tar"
        shutil.copy(images.docker_archive(), archive)
        user.own(archive)
        server = subprocess.Popen([sys.executable, "-c", NAME_SERVER])
        try:
            engine.cloche("load", "-i", archive)
            engine.cloche("network", "create", "shop")
            for network in ("bridge", "shop"):
                wait_for(lambda: "192.0.2.7" in engine.cloche("run", "--rm", "--network", network, "small:1", "nslookup",
                                                              "far.example", code=None).out, what="a name is found")
            # Where nobody listens, which is known at once: an address that is far off would be tried for minutes.
            err = engine.cloche("pull", "near.example/x", code=1).err
            assert "resolve" not in err and "connect to near.example port 443" in err, err
        finally:
            server.kill()
            server.wait()
            engine.cloche("system", "remove", "--force")
            run("umount", "/etc/resolv.conf")
        wait_for(lambda: not user_processes(user), what="nothing runs")


@with_engine
def networks_and_names_of_an_ordinary_user(engine):
    engine.cloche("network", "create", "shop")
    engine.cloche("run", "-d", "--name", "web", "--network", "shop", "small:1", "sh", "-c",
                  "echo web > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    wait_for(lambda: engine.cloche("run", "--rm", "--network", "shop", "small:1", "wget", "-q", "-O", "-",
                                   "http://web/", code=None).out == "web\n", what="it is found by its name")
    assert not any("clo" in name for name in os.listdir("/sys/class/net")), os.listdir("/sys/class/net")


@with_engine
def the_next_daemon_of_an_ordinary_user_goes_on(engine):
    engine.cloche("run", "-d", "--name", "web", "small:1", "sleep", "1000")
    holder, before = engine.holder(), engine.daemon_pid()
    engine.kill_daemon()
    assert engine.cloche("exec", "web", "echo", "still").out == "still\n"
    assert engine.daemon_pid() != before and engine.holder() == holder
    os.kill(engine.daemon_pid(), signal.SIGTERM)
    wait_for(lambda: not (engine.run_folder / "cloched.pid").exists())
    assert engine.cloche("ps", "-q", "--no-trunc").out.strip()


@with_engine
def what_an_ordinary_user_cannot_have_is_told(engine):
    err = engine.cloche("run", "--rm", "--memory", "64m", "small:1", "true", code=125).err
    assert "need cgroups" in err and "--memory" in err, err
    err = engine.cloche("run", "--rm", "-v", "/root:/there", "small:1", "ls", "/there", code=None).err
    assert "denied" in err, err


@test
def what_is_missing_for_an_ordinary_user_is_named(scratch):
    with User(scratch) as user:
        engine = Engine(user)
        pathlib.Path("/etc/subuid").write_text("")
        err = engine.cloche("ps", code=1).err
        assert "/etc/subuid has no range for clochetest" in err, err
        engine.env.pop("XDG_RUNTIME_DIR")
        assert "sudo" in engine.cloche("ps", code=1).err


if __name__ == "__main__":
    main()
