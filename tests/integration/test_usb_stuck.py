"""The process of a stick that does not go on, while containers wait for it: nobody waits for ever."""

import contextlib
import os
import pathlib
import signal
import time

from harness import main, note, only, run, test, wait_for
from sticks import Stick, attach, inspect, start
from test_usb import PATH, appears, configure, need_fuse, processes
from test_usb_untrue import attached


def jailed(pid):
    child, = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def state(process):
    return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]


def reader(instance, name="shop"):
    """The container's cat."""
    main_process = instance.cloche("inspect", "--format", "{{.State.Pid}}", name).out.strip()
    space = os.readlink(f"/proc/{main_process}/ns/pid")
    def find():
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (path / "comm").read_text() == "cat\n" and os.readlink(path / "ns/pid") == space:
                    return int(path.name)
            except OSError:
                continue
        return None
    return wait_for(find, what="a reader")


def cannot_be_killed(process):
    """cloche-usb has read its request: then it waits in the kernel, whatever comes."""
    os.kill(process, signal.SIGKILL)
    time.sleep(0.5)
    return state(process) == "D"


@contextlib.contextmanager
def stick_in(instance, images):
    """A stick in a container, with a file in a folder that nobody has looked into."""
    start(instance, images, "--usb-storage", PATH)
    with Stick() as stick:
        run("mmd", "-i", stick.image.name, "::sub")
        run("mcopy", "-i", stick.image.name, "-", "::sub/file", input="here")
        attach(instance, stick)
        appears(instance)
        try:
            yield stick
        finally:
            stick.process.send_signal(signal.SIGCONT)


def read_in_vain(instance, stick):
    """Reads, of a stick that does not go on, and then its process does not either: the processes of both."""
    stick.process.send_signal(signal.SIGSTOP)
    read = instance.start("exec", "shop", "cat", f"{PATH}/sub/file")
    process = reader(instance)
    time.sleep(1)
    pid, = processes(instance)
    os.kill(jailed(pid), signal.SIGSTOP)
    return read, process, pid


@test
def who_reads_from_a_process_that_stands_still_hears_of_it(instance, images, scratch):
    need_fuse()
    configure(instance, scratch, answerSeconds=4)
    with stick_in(instance, images) as stick:
        read, _, before = read_in_vain(instance, stick)
        assert read.wait(timeout=60) != 0
        stick.process.send_signal(signal.SIGCONT)
        wait_for(lambda: not os.path.exists(f"/proc/{before}"), what="the end of the process")
        assert "does not answer" in (instance.run_folder / "cloched.log").read_text()
        wait_for(lambda: inspect(instance, "remote-1")["state"] == "ready", what="another one")
        appears(instance)
        pid, = processes(instance)
        assert "--locked-in" in pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@test
def a_container_whose_stick_stands_still_is_removed(instance, images, scratch):
    need_fuse()
    configure(instance, scratch, answerSeconds=3600)
    with stick_in(instance, images) as stick:
        read, process, _ = read_in_vain(instance, stick)
        assert cannot_be_killed(process)
        instance.cloche("rm", "-f", "shop")
        read.wait(timeout=20)
        assert not os.path.exists(f"/proc/{process}")


@test
def a_stick_that_stands_still_is_detached(instance, images, scratch):
    need_fuse()
    configure(instance, scratch, answerSeconds=3600)
    with stick_in(instance, images) as stick:
        read, process, pid = read_in_vain(instance, stick)
        assert cannot_be_killed(process)
        assert "did not answer" in instance.cloche("usb", "detach", "remote-1", code=1, timeout=40).err
        read.wait(timeout=20)
        assert not os.path.exists(f"/proc/{process}") and not os.path.exists(f"/proc/{pid}")
        assert not list((instance.run_folder / "usb").glob("remote-1*"))
        assert instance.cloche("exec", "shop", "ls", PATH).out == ""


# It says that it lives, and answers nothing but the first message of FUSE; a demand to unmount it answers late, or never.
DEAF = """
import array, select, struct, threading
SECONDS = None
listener = socket.socket(fileno=3)
listener.setblocking(True)
connection, _ = listener.accept()
def answer(number, result):
    connection.sendall(json.dumps(dict(version=1, id=number, result=result)).encode() + b"\\n")
held = []
def swallow(file):
    try:
        while file in held:
            if select.select([file], [], [], 0.1)[0]:
                os.read(file, 1 << 20)
    except OSError:  # ENODEV: the connection was aborted
        pass
    os.close(file)
while True:
    data, rights, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(16))
    if not data:
        sys.exit(0)
    for _, _, content in rights:
        held.append(struct.unpack("i", content[:4])[0])
    for line in data.splitlines():
        request = json.loads(line)
        if "status" in request:
            answer(request["id"], {"status": STATUS})
        elif "mount" in request:
            hello = os.read(held[-1], 1 << 20)
            unique = struct.unpack_from("Q", hello, 8)[0]
            init = struct.pack("IIIIHHII", 7, 31, 0, 0, 12, 9, 65536, 1) + bytes(32)
            os.write(held[-1], struct.pack("IiQ", 16 + len(init), 0, unique) + init)
            threading.Thread(target=swallow, args=[held[-1]], daemon=True).start()
            answer(request["id"], {"mount": dict(mount=1, volume=1, readOnly=False, kind="fat16", label="SHOP")})
        elif "unmount" in request and SECONDS:
            time.sleep(SECONDS if held else 0)
            held.clear()
            answer(request["id"], {})
        elif "end" in request:
            sys.exit(0)
"""


@test
def a_container_whose_stick_answers_nobody_is_removed(instance, images, scratch):
    need_fuse()
    configure(instance, scratch, answerSeconds=4)
    with attached(instance, scratch, DEAF):
        start(instance, images, "--usb-storage", PATH)
        appears(instance)
        read = instance.start("exec", "shop", "cat", f"{PATH}/x")
        process = reader(instance)
        time.sleep(1)
        assert cannot_be_killed(process)
        pid, = processes(instance)
        instance.cloche("rm", "-f", "shop", timeout=120)
        read.wait(timeout=5)
        assert not os.path.exists(f"/proc/{process}")
        assert os.path.exists(f"/proc/{pid}"), "it has had no time for what it has to write"
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the process")


# It serves a file of which it answers no read, and while one waits it tells the kernel to forget that file: it waits
# for the page that the read has locked. (linux/fuse.h)
LOCKED = """
ATTRIBUTES = struct.pack("<QQQQQQIIIIIIIIII", 2, 4096, 8, 0, 0, 0, 0, 0, 0, 0o100644, 1, 0, 0, 0, 4096, 0)
LOOKUP, GETATTR, OPEN, READ, NOTIFY_INVAL_INODE = 1, 3, 14, 15, 2
FOLDER = struct.pack("<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
def serve(file):
    while True:
        message = os.read(file, 1 << 20)
        operation, unique, node = struct.unpack_from("<IQQ", message, 4)
        error, out = -38, b""
        if operation == LOOKUP:
            error, out = 0, struct.pack("<QQQQII", 2, 0, 60, 60, 0, 0) + ATTRIBUTES
        elif operation == GETATTR:
            error, out = 0, struct.pack("<QII", 60, 0, 0) + (ATTRIBUTES if node == 2 else FOLDER)
        elif operation == OPEN:
            error, out = 0, struct.pack("<QII", 1, 0, 0)
        elif operation == READ:
            os.write(file, struct.pack("<IiQQqq", 40, NOTIFY_INVAL_INODE, 0, 2, 0, 0))
        os.write(file, struct.pack("<IiQ", 16 + len(out), error, unique) + out)
"""


def wait_for_its_own_mount(instance, images, scratch, is_adopted):
    need_fuse()
    configure(instance, scratch, answerSeconds=4)
    with attached(instance, scratch, DEAF.replace("target=swallow", "target=serve").replace("held = []", "held = []" + LOCKED)):
        start(instance, images, "--usb-storage", PATH)
        appears(instance)
        before, = processes(instance)
        read = instance.start("exec", "shop", "cat", f"{PATH}/x")
        process = reader(instance)
        threads = lambda: [path.name for path in pathlib.Path(f"/proc/{before}/task").iterdir() if state(path.name) == "D"]
        wait_for(threads, what="a thread that waits in the kernel")
        assert cannot_be_killed(process)
        if is_adopted:
            instance.kill_daemon()
        os.kill(before, signal.SIGKILL)
        time.sleep(1)
        assert threads(), "the connection ends of itself: this shows nothing"
        if is_adopted:
            instance.start_daemon()
        assert read.wait(timeout=60) != 0
        wait_for(lambda: not os.path.exists(f"/proc/{before}"), what="the end of the process")


@test
def what_waits_in_the_kernel_for_its_own_mount_ends_when_it_is_killed(instance, images, scratch):
    wait_for_its_own_mount(instance, images, scratch, False)


@test
def the_next_daemon_ends_what_waits_in_the_kernel_for_its_own_mount(instance, images, scratch):
    wait_for_its_own_mount(instance, images, scratch, True)


@test
def a_stick_that_is_slow_to_be_unmounted_is_not_given_up(instance, images, scratch):
    need_fuse()
    with attached(instance, scratch, DEAF.replace("SECONDS = None", "SECONDS = 8")):
        start(instance, images, "--usb-storage", PATH)
        appears(instance)
        read = instance.start("exec", "shop", "cat", f"{PATH}/x")
        process = reader(instance)
        time.sleep(1)
        before = processes(instance)
        assert cannot_be_killed(process)
        instance.cloche("rm", "-f", "shop", timeout=120)
        read.wait(timeout=20)
        assert processes(instance) == before and os.path.exists(f"/proc/{before[0]}")
        assert "is killed" not in (instance.run_folder / "cloched.log").read_text()


LATE = 400  # ms, for each command; all are in time


@test
def a_stick_that_is_late_with_each_answer_holds_up_nobody_who_lets_go_of_it(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    with Stick("--late", str(LATE)) as stick:
        run("mcopy", "-i", stick.image.name, "-", "::file", input="here" * 100_000)
        attaches = instance.start("usb", "attach", stick.url)
        time.sleep(1)
        begun = time.monotonic()
        instance.cloche("usb", "detach", "remote-1", code=None)
        assert attaches.wait(timeout=20) != 0
        unattached = time.monotonic() - begun
        attach(instance, stick)
        appears(instance)
        read = instance.start("exec", "shop", "cat", f"{PATH}/file")
        reader(instance)
        begun = time.monotonic()
        instance.cloche("rm", "-f", "shop")
        removed = time.monotonic() - begun
        read.wait(timeout=20)
        begun = time.monotonic()
        instance.cloche("usb", "detach", "remote-2")
        detached = time.monotonic() - begun
        # What is under way ends, then the medium is flushed and let go of.
        note(f"{unattached:.1f} s, {removed:.1f} s, {detached:.1f} s")
        assert max(unattached, removed, detached) < 20 * LATE / 1000, (unattached, removed, detached)


only(who_reads_from_a_process_that_stands_still_hears_of_it, a_container_whose_stick_stands_still_is_removed,
     a_stick_that_stands_still_is_detached, what_waits_in_the_kernel_for_its_own_mount_ends_when_it_is_killed,
     the_next_daemon_ends_what_waits_in_the_kernel_for_its_own_mount,
     a_container_whose_stick_answers_nobody_is_removed, a_stick_that_is_slow_to_be_unmounted_is_not_given_up,
     a_stick_that_is_late_with_each_answer_holds_up_nobody_who_lets_go_of_it)

if __name__ == "__main__":
    main()
