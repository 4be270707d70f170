"""cloche-runtime checkpoint and restore, with criu.

criu does not work on every kernel; where it does not (the machine), only the refusals are looked
at. In the guest it has to work (CLOCHE_GUEST).
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from bundles import Bundle, ConsoleSocket, Runtime
from harness import main, test, wait_for

WORKS = bool(os.environ.get("CLOCHE_GUEST"))
# Counts, and answers each line with the next number.
COUNTER = "n=0; while read -r word; do n=$((n + 1)); echo $word $n; done"


class World:
    def __init__(self, scratch, images, unique):
        self.runtime, self.name, self.scratch = Runtime(scratch), unique, scratch
        self.bundle = Bundle(scratch / "bundle", images, unique, script=COUNTER)
        self.images, self.work = scratch / "images", scratch / "work"
        self.paths = ["--image-path", self.images, "--work-path", self.work]
        self.pipes = []

    def connect(self):
        """Standard input and output of the next command: pipes whose ends are kept here."""
        self.close()
        in_read, self.input = os.pipe()
        self.output, out_write = os.pipe()
        self.pipes = [in_read, out_write, self.input, self.output]
        return {"stdin": in_read, "stdout": out_write}

    def close(self):
        for fd in self.pipes:
            os.close(fd)
        self.pipes = []

    def start(self, *args):
        """A command with our pipes as its input and output, to its end."""
        code = self.runtime.start("--log", self.runtime.log, *args, stdin=self.pipes[0],
                                  stdout=self.pipes[1], stderr=self.pipes[1]).wait(timeout=400)
        assert code == 0, (code, self.runtime.log.read_text(), self.logs())

    def logs(self):
        return "".join(path.read_text(errors="replace")[-3000:]
                       for path in self.work.glob("*.log")) if self.work.exists() else ""

    def run(self):
        self.connect()
        self.bundle.write()
        self.start("run", "-d", "-b", self.bundle.path, self.name)

    def say(self, word):
        os.write(self.input, word.encode() + b"\n")
        return os.read(self.output, 100).decode().strip()

    def checkpoint(self, *args, code=0):
        result = self.runtime("checkpoint", *self.paths, *args, self.name, code=None, timeout=400)
        assert result.code == code, (result, self.logs())
        return result

    def restore(self, *args):
        self.start("restore", "-d", "-b", self.bundle.path, *self.paths, *args, self.name)

    def state(self):
        return self.runtime.state(self.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runtime("delete", "--force", self.name)
        self.close()


def world(function):
    def call(scratch, images, unique):
        with World(scratch, images, unique) as w:
            function(w)
    call.__name__ = function.__name__
    return test(call)


def guest_world(function):
    return world(function) if WORKS else function


@guest_world
def processes_go_on_where_they_were(w):
    w.run()
    assert w.say("a") == "a 1" and w.say("b") == "b 2"
    for number in (3, 4):
        before = w.state()["pid"]
        w.checkpoint()
        assert w.name not in w.runtime.names()
        assert (w.images / "inventory.img").exists() and (w.work / "dump.log").exists()
        w.restore("--pid-file", w.scratch / "pid")
        state = w.state()
        assert state["status"] == "running" and state["pid"] != before
        assert (w.scratch / "pid").read_text() == str(state["pid"])
        assert w.say("c") == f"c {number}"
    assert w.runtime("exec", w.name, "cat", "/proc/1/comm").out == "sh\n"
    w.runtime("pause", w.name)
    assert w.runtime.status(w.name) == "paused"
    w.runtime("resume", w.name)
    assert "container with id exists" in w.runtime("restore", "-d", "-b", w.bundle.path, *w.paths,
                                                   w.name, code=1).err
    assert w.say("d") == "d 5"


@guest_world
def limits_and_mounts_come_back(w):
    shared = w.scratch / "shared"
    shared.mkdir()
    (shared / "file").write_text("from the host")
    w.bundle.mount("/mnt/shared", shared)
    w.bundle.mount("/etc/one", shared / "file")
    w.bundle.mount("/scratch", "tmpfs", kind="tmpfs", options=())
    w.bundle.resources["pids"] = {"limit": 77}
    w.bundle.script("echo kept >/scratch/kept; " + COUNTER)
    w.run()
    assert w.say("a") == "a 1"
    w.checkpoint()
    w.restore()
    assert w.say("b") == "b 2"
    look = w.runtime("exec", w.name, "sh", "-c", "cat /mnt/shared/file /etc/one /scratch/kept;"
                     " cat /sys/fs/cgroup/pids.max; cat /proc/kcore 2>&1; ls /proc/acpi 2>&1").out
    assert look.startswith("from the hostfrom the hostkept\n77\n"), look
    error = w.runtime("exec", w.name, "sh", "-c", "echo x >/proc/sys/kernel/panic", code=None)
    assert error.code != 0 and "ead-only" in error.err, error
    # Nothing of the restore is left in sight of the host.
    assert "criu-root" not in pathlib.Path("/proc/self/mounts").read_text()
    assert not (w.runtime.root / w.name / "criu-root").exists()


@guest_world
def mount_points_are_made_again(w):
    """Those on a bind mount, too, whose folder was emptied meanwhile; criu takes neither links nor
    dots in the paths."""
    outer, inner = w.scratch / "outer", w.scratch / "inner"
    outer.mkdir()
    inner.mkdir()
    (inner / "file").write_text("within")
    (w.bundle.rootfs / "real").mkdir()
    (w.bundle.rootfs / "link").symlink_to("/real")
    w.bundle.mount("/outer", outer)
    w.bundle.mount("/outer/on/it", inner)
    w.bundle.mount("/link", ".")
    w.run()
    assert w.say("a") == "a 1"
    w.checkpoint()
    shutil.rmtree(outer / "on")
    w.restore()
    assert w.say("b") == "b 2"
    look = w.runtime("exec", w.name, "sh", "-c", "cat /outer/on/it/file; ls /real/config.json").out
    assert look == "within/real/config.json\n", look


@guest_world
def a_terminal_comes_back(w):
    w.bundle.process["terminal"] = True
    w.bundle.script("n=0; while read -r word; do n=$((n + 1)); echo $n; done").write()
    console = ConsoleSocket(w.scratch)
    w.runtime("run", "-d", "-b", w.bundle.path, "--console-socket", console.path, w.name)
    master = console.take()
    w.checkpoint()
    os.close(master)
    (w.scratch / "console.sock").unlink()
    console = ConsoleSocket(w.scratch)
    w.runtime("restore", "-d", "-b", w.bundle.path, *w.paths, "--console-socket", console.path,
              w.name, timeout=400)
    master = console.take()
    os.write(master, b"word\n")
    seen = b""

    def answered():
        nonlocal seen
        seen += os.read(master, 100)
        return b"1\r\n" in seen
    wait_for(answered)
    os.close(master)


@guest_world
def a_container_goes_on_after_it_was_saved(w):
    w.run()
    w.say("a")
    pid = w.state()["pid"]
    w.checkpoint("--pre-dump")
    assert w.state()["pid"] == pid and w.say("b") == "b 2"
    (w.scratch / "later").mkdir()
    w.paths[1] = w.scratch / "later"
    w.checkpoint("--parent-path", "../images", "--leave-running")
    assert w.state()["pid"] == pid and w.state()["status"] == "running" and w.say("c") == "c 3"
    assert "must be relative" in w.checkpoint("--parent-path", w.images, code=1).err
    assert "invalid --parent-path" in w.checkpoint("--parent-path", "../none", code=1).err


@guest_world
def a_foreign_network_is_found_again(w):
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as owner:
        path = pathlib.Path(f"/proc/{owner.pid}/ns/net")
        wait_for(lambda: path.stat().st_ino != os.stat("/proc/self/ns/net").st_ino)
        w.bundle.namespace("network", path)
        w.run()
        w.say("a")
        w.checkpoint()
        w.restore()
        inside = os.stat(f"/proc/{w.state()['pid']}/ns/net").st_ino
        assert inside == path.stat().st_ino and w.say("b") == "b 2"
        owner.kill()


@guest_world
def the_foreground_and_hooks(w):
    w.run()
    w.say("a")
    w.checkpoint()
    w.bundle.config["hooks"] = {"createRuntime": [
        {"path": "/bin/sh", "args": ["sh", "-c", f"cat >{w.scratch}/hook"]}]}
    w.bundle.write()
    process = w.runtime.start("restore", "-b", w.bundle.path, *w.paths, w.name,
                              stdin=w.pipes[0], stdout=w.pipes[1], stderr=w.pipes[1])
    assert w.say("b") == "b 2"
    state = json.loads((w.scratch / "hook").read_text())
    assert state["id"] == w.name, state
    wait_for(lambda: w.state()["pid"] == state["pid"])  # it answers before criu has ended
    w.runtime("kill", w.name, "KILL")
    assert process.wait(timeout=60) == 137
    assert w.name not in w.runtime.names()


@guest_world
def a_configuration_file_of_criu(w):
    file = w.scratch / "criu.conf"
    file.write_text("log-file=other.log\n")
    w.bundle.config["annotations"] = {"org.criu.config": str(file)}
    w.run()
    w.checkpoint()
    assert (w.work / "other.log").exists() and not (w.work / "dump.log").exists()
    w.restore()
    assert w.say("a") == "a 1"


@guest_world
def settings_for_other_runtimes_hold(w):
    """Those for crun before those for runc."""
    folder = pathlib.Path("/etc/criu")
    folder.mkdir(exist_ok=True)
    files = [folder / f"{name}.conf" for name in ("runc", "crun")]
    try:
        for file in files:
            file.write_text(f"log-file={file.stem}.log\n")
            w.run()
            w.checkpoint("--leave-running")
            assert (w.work / f"{file.stem}.log").exists(), os.listdir(w.work)
            w.runtime("delete", "--force", w.name)
            shutil.rmtree(w.work)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


@guest_world
def what_criu_cannot_do_is_quoted_from_its_log(w):
    w.run()
    w.checkpoint("--leave-running")
    for name in w.images.glob("pages-*.img"):
        name.unlink()
    pid = w.state()["pid"]
    w.runtime("kill", w.name, "KILL")
    w.runtime("delete", "--force", w.name)
    result = w.runtime("restore", "-d", "-b", w.bundle.path, *w.paths, w.name, code=1, log=False)
    assert "criu failed: type RESTORE" in result.err and "Error" in result.err, result
    assert str(w.work / "restore.log") in result.err, result
    assert w.runtime.names() == [] and not pathlib.Path(f"/proc/{pid}").exists()


@world
def refusals(w):
    w.runtime("create", "-b", w.bundle.script("sleep 1000").path, w.name)
    error = w.checkpoint("--leave-running", code=1).err
    assert "cannot be checkpointed in created state" in error, error
    w.runtime("start", w.name)
    result = w.runtime("--criu", "/no/such/criu", "checkpoint", *w.paths, w.name, code=1)
    assert "criu (/no/such/criu) not found" in result.err and "install" in result.err, result
    assert w.runtime.status(w.name) == "running"
    for args, word in ((["--manage-cgroups-mode", "odd"], "Invalid manage-cgroups-mode"),
                       (["--page-server", "here"], "--page-server ADDRESS:PORT"),
                       (["--empty-ns", "pid"], "not supported"),
                       (["--status-fd", "77"], "invalid --status-fd"),
                       (["--nonsense"], "nonsense")):
        assert word in w.checkpoint(*args, code=1).err, args
    w.runtime("delete", "--force", w.name)
    shutil.rmtree(w.images)
    result = w.runtime("restore", "-d", "-b", w.bundle.path, *w.paths, w.name, code=1)
    assert "descriptors.json" in result.err and w.runtime.names() == [], result
    assert "container does not exist" in w.checkpoint(code=1).err


@test
def criu_that_does_not_answer_is_no_success(scratch, images, unique):
    with World(scratch, images, unique) as w:
        fake = scratch / "criu"
        for script, word in (("exit 0", "without an answer"),
                             ("printf '\\010\\001' >&3; exec sleep 100", "DUMP"),
                             ("printf 'nonsense' >&3; exec sleep 100", "no message"),
                             ("head -c 1 <&3 >/dev/null; printf '\\010\\001\\020\\001' >&3; exit 0",
                              None)):
            fake.write_text(f"#!/bin/sh\n{script}\n")
            fake.chmod(0o755)
            w.run()
            result = w.runtime("--criu", fake, "checkpoint", "--leave-running", *w.paths, w.name,
                               code=0 if word is None else 1)
            assert word is None or word in result.err, (script, result)
            assert w.runtime.status(w.name) == "running"
            w.runtime("delete", "--force", w.name)


RECORDER = """#!{python}
import json, socket, sys


def fields(data):
    found, at = {{}}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            length = number()
            value = data[at:at + length]
            at += length
        found.setdefault(key >> 3, []).append(value)
    return found


connection = socket.socket(fileno=3)
request = fields(connection.recv(1 << 16))
options = {{}}
for key, values in fields(request[2][0]).items():
    options[key] = [value if isinstance(value, int) else
                    {{k: v[0] if isinstance(v[0], int) else v[0].decode()
                      for k, v in fields(value).items()}} if key in (11, 23, 25, 27, 39) else
                    value.decode() for value in values]
json.dump([request[1][0], options], open({out!r}, "w"))
connection.send(bytes([8, request[1][0], 16, {success}]))
connection.recv(1 << 16)
"""


@test
def options_reach_criu(scratch, images, unique):
    """Each as the field that rpc.proto of criu has for it, and none that was not asked for."""
    with World(scratch, images, unique) as w:
        record, fake = scratch / "record.json", scratch / "criu"

        def call(*words, success=1, code=0):
            fake.write_text(RECORDER.format(python=sys.executable, out=str(record),
                                            success=success))
            fake.chmod(0o755)
            record.unlink(missing_ok=True)
            w.runtime("--criu", fake, *words, code=code)
            kind, options = json.loads(record.read_text())
            return kind, {int(key): values for key, values in options.items()}

        w.run()
        pid = w.runtime.state(w.name)["pid"]
        plain = ["checkpoint", "--leave-running", "--image-path", w.images, w.name]
        kind, options = call(*plain)
        assert kind == 1 and options[2] == [pid] and options[3] == [1], options
        flags = {4: "--ext-unix-sk", 5: "--tcp-established", 7: "--shell-job", 8: "--file-locks",
                 16: "--auto-dedup", 18: "--link-remap", 46: "--tcp-skip-in-flight",
                 48: "--lazy-pages"}
        assert not any(options.get(field, [0])[0] for field in flags), options
        assert 11 not in options and 14 not in options and 17 not in options, options
        for field, flag in flags.items():
            options = call(*plain[:-1], flag, w.name)[1]
            assert options[field] == [1], (flag, options)
            others = [number for number in flags if number != field]
            assert not any(options.get(number, [0])[0] for number in others), (flag, options)
        for mode, value in (("ignore", 0), ("soft", 3), ("full", 4), ("strict", 5)):
            options = call(*plain[:-1], "--manage-cgroups-mode", mode, w.name)[1]
            assert options[34] == [value] and options[24] == [1], (mode, options)
        (w.images / "before").mkdir()
        options = call(*plain[:-1], "--parent-path", "before", "--page-server", "[::1]:27",
                       "--work-path", scratch / "work", "--empty-ns", "network", w.name)[1]
        assert options[14] == ["before"] and options[15] == [1], options
        assert options[11] == [{"1": "::1", "2": 27}] and 17 in options, options
        assert options[38] == [1 << 30], options
        kind, options = call("checkpoint", "--pre-dump", "--image-path", w.images, w.name)
        assert kind == 4 and w.runtime.status(w.name) == "running", (kind, options)
        # It is not restored here: the answer is that it could not be.
        w.runtime("delete", "--force", w.name)
        kind, options = call("restore", "-d", "-b", w.bundle.path, "--image-path", w.images,
                             "--tcp-established", "--file-locks", "--lazy-pages", "--auto-dedup",
                             "--shell-job", "--ext-unix-sk", "--lsm-profile", "apparmor:other",
                             "--lsm-mount-context", "a:b", "--manage-cgroups-mode", "full", w.name,
                             success=0, code=1)
        assert kind == 2 and w.runtime.names() == [], options
        assert [options[field] for field in (4, 5, 7, 8, 16, 48)] == [[1]] * 6, options
        assert options[34] == [4] and options[53] == ["apparmor:other"], options
        assert options[63] == ["a:b"], options


if __name__ == "__main__":
    main()
