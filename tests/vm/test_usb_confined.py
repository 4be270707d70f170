"""What the jailed process of a stick in a port of the machine can have the kernel do with it, when
somebody else speaks through it: calls are made in its name, with its system call filter and without."""

import contextlib
import ctypes
import errno
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import time

from guest_sticks import modules
from harness import BUILD, main, note, only, test, wait_for
from test_usb_engine import PATH, Gadget, blocks, configure, devices, inputs, is_there, make_image, sh, start

INJECT = f"{os.environ.get('BUILD', BUILD)}/tests/integration/usb_inject"  # the guest has a copy of the programs only
DEVICE = 4
PIDFD_GETFD = 438
# linux/usbdevice_fs.h, 64 bits.
CLAIM, RELEASE, SETCONFIGURATION, RESET = 0x8004550f, 0x80045510, 0x80045505, 0x5514
IOCTL, DISCONNECT_CLAIM = 0xc0105512, 0x8108551b
CONNECT, DISCONNECT = 0x5517, 0x5516
STORAGE, KEYBOARD = 0, 1


def word(number):
    return number.to_bytes(4, "little").hex()


def ioctl(request, argument=""):
    return f"ioctl n:{DEVICE} n:{request:#x}" + (f" h:{argument}" if argument else " n:0")


def driver(interface, code):
    return ioctl(IOCTL, word(interface) + word(code) + "00" * 8)


CALLS = {
    "let go of the interface": ioctl(RELEASE, word(STORAGE)),
    "attach the kernel's driver": driver(STORAGE, CONNECT),
    "attach the keyboard's": driver(KEYBOARD, CONNECT),
    "detach the keyboard's": driver(KEYBOARD, DISCONNECT),
    "claim the keyboard": ioctl(CLAIM, word(KEYBOARD)),
    "take the keyboard": ioctl(DISCONNECT_CLAIM, word(KEYBOARD) + "00" * 260),
    "claim its own again": ioctl(CLAIM, word(STORAGE)),
}
FILTERED = ("attach the kernel's driver", "attach the keyboard's", "detach the keyboard's", "take the keyboard")


def jailed(instance):
    place = devices(instance)["GADGET"]["ID"]
    records = [json.loads(path.read_text()) for path in instance.run_folder.glob("usb/[0-9]*.json")]
    outer, = [record["pid"] for record in records if record["id"] == place]
    return int(pathlib.Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])


def inject(instance, mode, calls):
    done = subprocess.run([INJECT, str(jailed(instance)), mode], input="".join(call + "\n" for call in calls),
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


@contextlib.contextmanager
def served(instance, images, scratch):
    """With a keyboard, which a rule does not mind."""
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch, exclusive=True, rules=[{"action": "allow", "serial": "GADGET"}])
    start(instance, images, "--usb-storage", PATH)
    with Gadget(make_image(scratch), keyboard=True) as gadget:
        wait_for(lambda: is_there(instance), timeout=60, what="the stick in the container")
        yield gadget


@test
def the_kernel_is_not_made_to_read_the_stick(instance, images, scratch):
    before = inputs()
    with served(instance, images, scratch):
        for mode in "keep", "off":
            results = dict(zip(CALLS, inject(instance, mode, CALLS.values())))
            note(f"{mode}: {results}")
            time.sleep(2)  # what was attached is looked at by now
            assert blocks() == [], f"{mode}: the kernel has it"
            assert inputs() == before, f"{mode}: the keyboard is there"
            assert results["let go of the interface"] == 0 and results["claim its own again"] == 0, results
            refused = -errno.EPERM if mode == "keep" else -errno.EACCES
            assert {results[what] for what in FILTERED} == {refused}, results
            assert results["claim the keyboard"] == -errno.EACCES, results
        kept = inject(instance, "keep", [ioctl(SETCONFIGURATION, word(1)), ioctl(RESET)])
        assert kept == [-errno.EPERM] * 2, kept
        # Where it waits for transfers is its own choice, for nobody else.
        places = inject(instance, "keep", [f"sched_setaffinity n:{thread} n:8 h:{'ff' * 8}" for thread in (0, 1)])
        assert places == [0, -errno.EPERM], places
        assert blocks() == []
        # Its own work goes on.
        sh(instance, f"echo more > {PATH}/more && cat {PATH}/more {PATH}/hello.txt")
        assert devices(instance)["GADGET"]["State"] == "ready"


def helper(pid):
    """Its end of the socket to the process that waits for it."""
    rows = [row.split() for row in pathlib.Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    inodes = {row[6] for row in rows if int(row[4]) == socket.SOCK_SEQPACKET}
    folder = pathlib.Path(f"/proc/{pid}/fd")
    number, = [int(fd.name) for fd in folder.iterdir() if os.readlink(fd).removeprefix("socket:[")[:-1] in inodes]
    pidfd = os.pidfd_open(pid)
    fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, number, 0)
    os.close(pidfd)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return socket.socket(fileno=fd)


def resets():
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return len(re.findall(r"reset (?:high|super|full)-speed USB device", log))


@test
def a_reset_is_done_outside_and_the_stick_stays(instance, images, scratch):
    modules("fuse", "usb-storage", "sd_mod", "dummy_hcd")
    configure(instance, scratch, exclusive=True)
    start(instance, images, "--usb-storage", PATH)
    with Gadget(make_image(scratch)):
        wait_for(lambda: is_there(instance), timeout=60, what="the stick in the container")
        before = resets()
        with helper(jailed(instance)) as end:
            end.send(b"r")
            assert select.select([end], [], [], 30)[0], "no answer"
            assert end.recv(8) == bytes(4)
        assert resets() == before + 1
        time.sleep(1)
        assert blocks() == [], "the kernel has it"
        sh(instance, f"echo more > {PATH}/more && sync && cat {PATH}/more {PATH}/hello.txt")
        assert devices(instance)["GADGET"]["State"] == "ready"
        assert blocks() == []


only(the_kernel_is_not_made_to_read_the_stick, a_reset_is_done_outside_and_the_stick_stays)

if __name__ == "__main__":
    main()
