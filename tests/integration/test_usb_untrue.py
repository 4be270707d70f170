"""The daemon beside a process of a stick that is not what it was: a program of the test in the place of
cloche-usb, which says what a hostile stick would have it say, or nothing."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time

from harness import PROGRAMS, main, only, test, wait_for
from test_usb_device import DEVICE as DESCRIPTOR, STICK, Machine, configure

UNIT = {"number": 0, "state": "ready", "vendor": "V", "product": "P", "revision": "1", "serial": "S", "sectorSize": 512,
        "sectors": 65536, "removable": True, "writeProtected": False, "caching": False, "discards": False,
        "table": "none"}
VOLUME = {"number": 1, "unit": 0, "partition": 0, "start": 0, "size": 33554432, "kind": "fat16", "label": "SHOP"}
STATUS = {"state": "open", "units": [UNIT], "volumes": [VOLUME], "mounts": []}
LISTEN = 3
# What a test adds: tell(request, say) is asked first; True: it has answered itself.
PROGRAM = """#!/usr/bin/python3
import json, os, socket, sys, time
STATUS = json.loads({status!r})
def tell(request, say, result): return False
{more}
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    def say(**message):
        connection.sendall(json.dumps(dict(version=1, **message)).encode() + b"\\n")
    file = connection.makefile()
    for line in file:
        request = json.loads(line)
        def result(what=None):
            say(id=request["id"], result=what or {{}})
        if tell(request, say, result):
            continue
        result({{"status": STATUS}} if "status" in request else None)
        if "end" in request:
            sys.exit(0)
"""


def program(scratch, more="", status=None):
    path = scratch / "cloche-usb"
    path.write_text(PROGRAM.format(status=json.dumps(status or STATUS), more=more))
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def attached(instance, scratch, more="", status=None, attach=True):
    """A remote stick that is this program; its server only accepts."""
    folder = scratch / "libexec"
    folder.mkdir(exist_ok=True)
    for path in PROGRAMS.iterdir():
        if path.name != "cloche-usb" and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    program(folder, more, status)
    instance.env["CLOCHE_LIBEXEC"] = str(folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"usbip://127.0.0.1:{server.getsockname()[1]}/1-1"
        yield instance.cloche("usb", "attach", url).out.strip() if attach else url


@contextlib.contextmanager
def left_behind(instance, scratch, port, more="", mounts=(), **record):
    """A process that an earlier daemon has started for what is in the port."""
    folder = instance.run_folder / "usb"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / f"{port}.abcdef01.sock"))
    listener.listen()
    os.set_inheritable(listener.fileno(), True)
    process = subprocess.Popen(["sh", "-c", f"exec {program(scratch, more)} 3<&{listener.fileno()}"], close_fds=False)
    started = int(pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    (folder / f"{port}.abcdef01.json").write_text(json.dumps(
        {"version": 1, "id": port, "pid": process.pid, "started": started, "bus": 1, "device": 2, "mounts": list(mounts),
         **record}))
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        listener.close()


@test
def what_is_pulled_out_while_its_process_goes_on_is_remembered(instance, scratch):
    configure(instance, scratch)
    with Machine():
        daemon = instance.start_daemon()
        instance.kill_daemon()
        heard = scratch / "heard"
        more = f"""
def tell(request, say, result):
    if "end" in request:
        for i in range(200):
            say(event={{"changed": {{"unit": 0}}}})
            say(event={{"failed": {{"message": "x" * 100}}}})
        open({str(heard)!r}, "w")
        time.sleep(0.5)
        sys.exit(0)
    return False
"""
        with left_behind(instance, scratch, "1-1", more) as process:
            daemon = instance.start_daemon()
            wait_for(heard.exists, what="the end that it is asked for, as nothing is in the port")
            process.wait(timeout=20)
            wait_for(lambda: not list((instance.run_folder / "usb").glob("1-1*")), what="the end of its record")
            assert instance.cloche("usb", "ls").out and instance.daemon_pid() == daemon, "the daemon has died"


DEVICE = {"vendor": 0x1234, "product": 0x5678, "release": 1, "manufacturer": "M", "model": "P", "serial": "S",
          "interface": 0, "protocol": "bulk-only", "speed": "high"}


@test
def what_is_denied_while_it_waits_is_not_started_again(instance, scratch):
    starts = scratch / "starts"
    more = f"""
open({str(starts)!r}, "a").write("x")
def tell(request, say, result):
    if "status" in request:
        result({{"status": STATUS}})
        time.sleep(0.3)
        os._exit(7)
"""
    with attached(instance, scratch, more, dict(STATUS, device=DEVICE)):
        wait_for(lambda: len(starts.read_text()) == 3, what="the second start again")
        wait_for(lambda: [json.loads(line)["State"] for line in instance.cloche("usb", "ls", "--format", "json").lines]
                 == ["waiting"], what="the pause before the third")
        instance.cloche("usb", "policy", "--vendor", "1234", "add", "deny")
        number = len(starts.read_text())
        time.sleep(3)
        assert len(starts.read_text()) == number, "started though it is denied"
        assert instance.cloche("usb", "ls", "-q").out == ""


@test
def an_eject_that_failed_is_told_so(instance, scratch):
    more = """
def tell(request, say, result):
    if "eject" not in request:
        return False
    say(id=request["id"], error={"code": -16, "message": "volume 1 is busy: check"})
    return True
"""
    with attached(instance, scratch, more) as name:
        failed = instance.cloche("usb", "eject", name, code=1).err
        assert "volume 1 is busy: check" in failed, failed
        assert instance.cloche("usb", "ls", "-q").out == ""


@test
def a_process_that_fails_at_its_end_is_told_of(instance, scratch):
    more = """
def tell(request, say, result):
    if "end" in request:
        os._exit(1)
"""
    with attached(instance, scratch, more) as name:
        assert "ended in failure" in instance.cloche("usb", "detach", name, code=1).err


@test
def a_process_that_does_not_answer_is_killed_though_it_is_to_end(instance, scratch):
    more = """
def tell(request, say, result):
    if "stats" in request:
        time.sleep(1000)
"""
    configure(instance, scratch, answerSeconds=2)
    with attached(instance, scratch, more) as name:
        asks = instance.start("usb", "stats", name)
        time.sleep(0.5)
        assert "did not answer" in instance.cloche("usb", "detach", name, code=1, timeout=120).err
        assert asks.wait(timeout=20) == 1
        assert "does not end" not in (instance.run_folder / "cloched.log").read_text()


@test
def the_configuration_that_the_kernel_had_chosen_outlives_the_daemon(instance, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2, device=DESCRIPTOR.replace(b"\xff", b"\0", 1), configuration=STICK)
        bus = machine.devices / "usb1"
        bus.mkdir()
        (bus / "interface_authorized_default").write_text("0\n")
        instance.start_daemon()
        instance.kill_daemon()
        with left_behind(instance, scratch, "1-1", configuration=7) as process:
            record, = (instance.run_folder / "usb").glob("1-1.*.json")
            instance.start_daemon()
            instance.cloche("usb", "attach", "1-1")
            assert json.loads(record.read_text())["configuration"] == 7 and "user" not in json.loads(record.read_text())
            instance.kill_daemon()
            instance.cloche("usb", "policy", "--serial", "S-1", "add", "kernel")
            process.wait(timeout=20)
            chosen = machine.devices / "1-1/bConfigurationValue"
            wait_for(lambda: chosen.read_text().strip() == "7", what="the kernel's configuration")


@test
def who_waits_for_a_stick_hears_that_it_was_let_go_of(instance, scratch):
    more = """
def tell(request, say, result):
    return "status" in request
"""
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2, device=DESCRIPTOR.replace(b"\xff", b"\0", 1), configuration=STICK)
        instance.start_daemon()
        instance.kill_daemon()
        with left_behind(instance, scratch, "1-1", more):
            instance.start_daemon()
            waits = instance.start("usb", "attach", "1-1")
            time.sleep(0.5)
            instance.cloche("usb", "detach", "1-1")
            assert b"let go of" in waits.communicate(timeout=20)[1]


SLOW_TO_END = """
def tell(request, say, result):
    if "end" in request:
        time.sleep(1.5)
        sys.exit(0)
"""


def is_ending(instance, name):
    return "it is ending" in instance.cloche("usb", "stats", name, code=None).err


@test
def an_attach_waits_for_the_end_of_what_was_there(instance, scratch):
    with attached(instance, scratch, SLOW_TO_END) as name:
        url = json.loads(instance.cloche("usb", "inspect", name).out)[0]["url"]
        leaves = instance.start("usb", "detach", name)
        wait_for(lambda: is_ending(instance, name))
        assert instance.cloche("usb", "attach", url).out == "remote-2\n"
        assert leaves.wait(timeout=20) == 0
        shown, = [json.loads(line) for line in instance.cloche("usb", "ls", "--format", "json").lines]
        assert shown["ID"] == "remote-2" and shown["State"] == "ready", shown


@test
def an_attach_of_a_local_stick_waits_for_the_end_of_its_process(instance, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2, device=DESCRIPTOR.replace(b"\xff", b"\0", 1), configuration=STICK)
        instance.start_daemon()
        instance.kill_daemon()
        with left_behind(instance, scratch, "1-1", SLOW_TO_END) as process:
            instance.start_daemon()
            instance.cloche("usb", "attach", "1-1")
            leaves = instance.start("usb", "detach", "1-1")
            wait_for(lambda: is_ending(instance, "1-1"))
            failed = instance.cloche("usb", "attach", "1-1", code=1).err  # there is no such device in truth
            assert leaves.wait(timeout=20) == 0 and "let go of" not in failed, failed
            process.wait(timeout=20)


@test
def a_process_that_says_too_much_is_ended(instance, scratch):
    """It would have the daemon read and write without end."""
    more = """
def tell(request, say, result):
    if "stats" not in request:
        return False
    line = json.dumps({"version": 1, "event": {"unmounted": {"mount": 0, "volume": 1, "reason": "gone"}}}).encode() + b"\\n"
    for i in range(200):
        connection.sendall(line * 500)
    time.sleep(1000)
"""
    with attached(instance, scratch, more) as name:
        pid = json.loads(next(instance.run_folder.glob("usb/remote*.json")).read_text())["pid"]
        talker = instance.start("usb", "stats", name)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="its end")
        assert talker.wait(timeout=20) == 1


@test
def what_it_says_of_itself_does_nothing_to_a_terminal(instance, scratch):
    device = dict(DEVICE, serial="\x1b]0;x\x07S", model="P\u202ex", manufacturer="é" * 2000)
    with attached(instance, scratch, status=dict(STATUS, device=device)) as name:
        shown = json.loads(instance.cloche("usb", "inspect", name).out)[0]
        assert shown["serial"] == " ]0;x S" and "\u202e" not in shown["model"], shown
        assert "\x1b" not in instance.cloche("usb", "ls").out


@test
def a_mount_of_which_nobody_knows_is_ended(instance, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2, device=DESCRIPTOR.replace(b"\xff", b"\0", 1), configuration=STICK)
        instance.start_daemon()
        instance.kill_daemon()
        heard = scratch / "heard"
        more = f"""
STATUS["mounts"] = [dict(mount=n, volume=1, readOnly=False, kind="fat16", label="SHOP") for n in (3, 4, 5)]
def tell(request, say, result):
    if "unmount" in request:
        open({str(heard)!r}, "a").write(str(request["unmount"]["mount"]))
"""
        places = [{"number": number, "container": "0" * 64, "pid": 1, "target": "/x", "device": 99, "volume": 1,
                   "readOnly": False, "begun": begun} for number, begun in ((4, False), (5, True))]
        with left_behind(instance, scratch, "1-1", more, places):
            instance.start_daemon()
            wait_for(lambda: heard.exists() and {"3", "5"} <= set(heard.read_text()), what="both unmounted")


@test
def a_serial_number_is_no_place(instance, scratch):
    with attached(instance, scratch, status=dict(STATUS, device=dict(DEVICE, serial="1-2"))):
        assert "No such USB device" in instance.cloche("usb", "inspect", "1-2", code=1).err
        assert json.loads(instance.cloche("usb", "inspect", "1234:5678:1-2").out)[0]["serial"] == "1-2"


only(what_is_pulled_out_while_its_process_goes_on_is_remembered, what_is_denied_while_it_waits_is_not_started_again,
     an_eject_that_failed_is_told_so, a_process_that_fails_at_its_end_is_told_of,
     who_waits_for_a_stick_hears_that_it_was_let_go_of, an_attach_waits_for_the_end_of_what_was_there,
     an_attach_of_a_local_stick_waits_for_the_end_of_its_process, a_process_that_says_too_much_is_ended,
     what_it_says_of_itself_does_nothing_to_a_terminal, a_mount_of_which_nobody_knows_is_ended,
     a_serial_number_is_no_place, a_process_that_does_not_answer_is_killed_though_it_is_to_end,
     the_configuration_that_the_kernel_had_chosen_outlives_the_daemon)

if __name__ == "__main__":
    main()
