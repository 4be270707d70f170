"""cloche-usb, the process of a stick, over sticks by USB/IP and images."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import threading
import time
import zlib

from harness import main, test
from sticks import (ENDED, FAILED, GONE, MODEL, Model, Process, Refused, can_be_real_time, mount_fuse, serve,
                    unmount)

MKFS = {
    "fat12": ["mkfs.vfat", "-F", "12", "-n", "TWELVE"],
    "fat16": ["mkfs.vfat", "-F", "16", "-n", "SIXTEEN"],
    "fat32": ["mkfs.vfat", "-F", "32", "-n", "THIRTYTWO"],
    "exfat": ["mkfs.exfat", "-L", "EXTENDED"],
}
# What who writes hears when a stick is gone; ECONNABORTED (the kernel's, fuse_abort_conn) where the request was not read yet.
GONE_ERRORS = (errno.ENODEV, errno.ENOTCONN, errno.EIO, errno.ECONNABORTED)
SIZES = {"fat12": 4 << 20, "fat16": 32 << 20, "fat32": 64 << 20, "exfat": 64 << 20}


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{command}: {done.stdout.decode()}"
    return done.stdout.decode()


def make(path, kind, size=None):
    with open(path, "wb") as file:
        file.truncate(size or SIZES[kind])
    run(*MKFS[kind], str(path))
    return str(path)


def fsck(path, kind):
    run(*(["fsck.exfat", "-n"] if kind == "exfat" else ["fsck.vfat", "-n"]), str(path))


@contextlib.contextmanager
def stick(*arguments, options=()):
    """A stick model and the process that serves it; both are there no more afterwards."""
    model = Model(*arguments)
    process = serve(model, *options)
    try:
        yield model, process
    except BaseException:
        print(f"# exit status {process.process.poll()}: {process.said()}")
        raise
    finally:
        process.end()
        model.end()


@contextlib.contextmanager
def image(path, *options):
    with open(path, "r+b") as file:
        process = Process("image", file.fileno(), *options)
    try:
        yield process
    except BaseException:
        print(f"# exit status {process.process.poll()}: {process.said()}")
        raise
    finally:
        process.end()


@contextlib.contextmanager
def mounted(talk, folder, **parameters):
    """A volume at a folder; the answer to mount."""
    folder.mkdir(exist_ok=True)
    fd = mount_fuse(str(folder))
    try:
        try:
            answer = talk.call("mount", [fd], **parameters)
        finally:
            os.close(fd)
        yield answer
    finally:
        unmount(str(folder))


def refused(code, function, *arguments, **parameters):
    try:
        function(*arguments, **parameters)
    except Refused as refusal:
        assert refusal.code == code, f"{errno.errorcode[refusal.code]}: {refusal}"
        return str(refusal)
    raise AssertionError("it was not refused")


def fails(code, function, *arguments):
    try:
        function(*arguments)
    except OSError as failure:
        assert failure.errno == code, failure
        return
    raise AssertionError("it did not fail")


@test
def as_many_mounts_as_there_may_be(scratch):
    path = make(scratch / "image", "fat16")
    run("mcopy", "-i", path, __file__, "::here")
    with image(path) as process, contextlib.ExitStack() as stack:
        talk = process.talk()
        talk.ready()
        for i in range(32):
            stack.enter_context(mounted(talk, scratch / f"mount{i}", volume=1))
        for i in range(32):
            assert (scratch / f"mount{i}/here").stat().st_size == os.stat(__file__).st_size
        refused(errno.EMFILE, stack.enter_context, mounted(talk, scratch / "more", volume=1))
        assert len(talk.call("status")["mounts"]) == 32


@test
def who_is_held_up_by_a_limit_holds_up_nobody_else(scratch):
    path = make(scratch / "image", "fat16")
    run("mcopy", "-i", path, MODEL, "::file")
    content = pathlib.Path(MODEL).read_bytes()[:100_000]
    with image(path) as process:
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "slow", volume=1, bytesPerSecond=40_000), mounted(talk, scratch / "other", volume=1):
            took = {}

            def write():
                begun = time.monotonic()
                fd = os.open(scratch / "slow/file", os.O_WRONLY)
                os.write(fd, content)
                os.fsync(fd)
                os.close(fd)
                took["write"] = time.monotonic() - begun

            writer = threading.Thread(target=write)
            writer.start()
            time.sleep(0.3)
            begun = time.monotonic()
            assert (scratch / "other/file").read_bytes()[:100_000] == content
            took["read"] = time.monotonic() - begun
            writer.join()
            assert took["read"] < took["write"] / 2, took


@test
def a_stick_says_what_it_is(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        status = talk.ready()
        assert status["state"] == "open"
        assert status["device"]["serial"] == "0123456789AB", status["device"]
        assert status["device"]["protocol"] == "bulk-only"
        (unit,) = status["units"]
        assert (unit["state"], unit["sectorSize"], unit["sectors"]) == ("ready", 512, 131072), unit
        assert unit["table"] == "none" and not unit["writeProtected"]
        (volume,) = status["volumes"]
        assert (volume["kind"], volume["label"], volume["dirty"]) == ("exfat", "EXTENDED", False)
        serial = run("dump.exfat", path)
        assert volume["id"].replace("-", "").lower() in serial.lower(), (volume, serial)
        talk.call("end")
        assert process.wait() == ENDED


@test
def files_come_and_go_on_each_kind(scratch):
    content = random.Random(4711).randbytes(300_000)
    for kind in MKFS:
        path = make(scratch / kind, kind)
        with stick("--image", path) as (_, process):
            talk = process.talk()
            talk.ready()
            with mounted(talk, scratch / "mount", volume=1) as answer:
                assert answer["kind"] == kind and not answer["readOnly"], answer
                place = scratch / "mount"
                (place / "Ordner mit Ä").mkdir()
                (place / "Ordner mit Ä" / "Datei.bin").write_bytes(content)
                (place / "short.txt").write_text("short\n")
                os.rename(place / "short.txt", place / "renamed.txt")
                assert sorted(os.listdir(place)) == ["Ordner mit Ä", "renamed.txt"]
                assert (place / "Ordner mit Ä" / "Datei.bin").read_bytes() == content
                assert talk.call("status")["mounts"] == [answer]
                talk.call("unmount", mount=answer["mount"])
                fails(errno.ENOTCONN, os.listdir, place)
            assert talk.call("status")["mounts"] == []
            talk.call("end")
            assert process.wait() == ENDED
        fsck(path, kind)
        if kind != "exfat":
            assert run("mtype", "-i", path, "::renamed.txt") == "short\n"


@test
def a_stick_that_was_unmounted_by_the_kernel_is_clean(scratch):
    path = make(scratch / "image", "fat32")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "mount", volume=1) as answer:
            (scratch / "mount" / "a").write_text("a")
        told = talk.wait_for("unmounted", mount=answer["mount"])
        assert told == {"mount": 1, "volume": 1, "reason": "unmounted"}, told
        fsck(path, "fat32")


@test
def several_mounts_share_a_volume(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        first, second = scratch / "first", scratch / "second"
        with mounted(talk, first, volume=1, uid=1000, fileMode=0o600):
            with mounted(talk, second, volume=1, readOnly=True) as answer:
                assert answer["readOnly"]
                (first / "told").write_text("here")
                assert (second / "told").read_text() == "here"
                assert (first / "told").stat().st_uid == 1000
                assert (first / "told").stat().st_mode & 0o777 == 0o600
                assert (second / "told").stat().st_uid == 0
                fails(errno.EROFS, (second / "other").write_text, "")
                talk.call("unmount", mount=answer["mount"])
                assert (first / "told").read_text() == "here"
        talk.wait_for("unmounted")
        with mounted(talk, first, volume=1, readOnly=True):
            second.mkdir(exist_ok=True)
            fd = mount_fuse(str(second))
            try:
                refused(errno.EBUSY, talk.call, "mount", [fd], volume=1)
            finally:
                os.close(fd)
                unmount(str(second))
        talk.wait_for("unmounted")
        with mounted(talk, first, volume=1, readOnly=True, volumeReadOnly=False):
            with mounted(talk, second, volume=1):
                (second / "late").write_text("late")
                assert (first / "late").read_text() == "late"


def entry(kind, first, count):
    return bytes([0, 0, 0, 0, kind, 0, 0, 0]) + first.to_bytes(4, "little") + count.to_bytes(4, "little")


def make_mbr(path, size, *parts):
    """parts: type, first sector, sectors."""
    table = b"".join(entry(*part) for part in parts).ljust(64, b"\0")
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(446)
        file.write(table + b"\x55\xaa")
    return str(path)


def make_gpt(path, size, *parts):
    """parts: name, first sector, sectors. Without the second table, which nobody needs."""
    entries = b""
    for number, (name, first, count) in enumerate(parts, 1):
        kind = bytes.fromhex("a2a0d0ebe5b9334487c068b6b72699c7")  # basic data
        entries += (kind + bytes([number] * 16) + first.to_bytes(8, "little") +
                    (first + count - 1).to_bytes(8, "little") + bytes(8) +
                    name.encode("utf-16-le").ljust(72, b"\0"))
    entries = entries.ljust(128 * 128, b"\0")
    last = size // 512 - 1
    numbers = [(1, 8), (last, 8), (34, 8), (last - 33, 8)]
    fields = b"".join(value.to_bytes(length, "little") for value, length in numbers)
    fields += bytes([7] * 16) + (2).to_bytes(8, "little") + (128).to_bytes(4, "little") * 2
    fields += zlib.crc32(entries).to_bytes(4, "little")
    head = b"EFI PART\0\0\x01\0" + (92).to_bytes(4, "little")
    crc = zlib.crc32(head + bytes(8) + fields)
    make_mbr(path, size, (0xEE, 1, last))
    with open(path, "r+b") as file:
        file.seek(512)
        file.write(head + crc.to_bytes(4, "little") + bytes(4) + fields)
        file.seek(1024)
        file.write(entries)
    return str(path)


@test
def partitions_and_units_have_volumes_of_their_own(scratch):
    path = make_gpt(scratch / "image", 64 << 20, ("Erste", 2048, 32768), ("second", 34816, 32768))
    make(scratch / "part", "fat16", 16 << 20)
    with open(path, "r+b") as file:
        file.seek(34816 * 512)
        file.write((scratch / "part").read_bytes())
    with stick("--image", str(path), "--units", "3") as (_, process):
        talk = process.talk()
        status = talk.ready(3)
        assert [unit["table"] for unit in status["units"]] == ["gpt"] * 3
        volumes = [volume for volume in status["volumes"] if volume["unit"] == 1]
        assert [volume["partition"] for volume in volumes] == [1, 2]
        assert [volume["name"] for volume in volumes] == ["Erste", "second"]
        assert [volume["kind"] for volume in volumes] == ["unknown", "fat16"], volumes
        assert volumes[1]["start"] == 34816 * 512
        assert len({volume["number"] for volume in status["volumes"]}) == 6
        with mounted(talk, scratch / "mount", volume=volumes[1]["number"]):
            (scratch / "mount" / "on-the-second").write_text("x")
        talk.wait_for("unmounted")
        refused(errno.EMEDIUMTYPE, mounted(talk, scratch / "mount",
                                           volume=volumes[0]["number"]).__enter__)


@test
def partitions_in_each_other_have_one_writer(scratch):
    path = make_mbr(scratch / "image", 64 << 20, (0x0C, 2048, 65536), (0x0C, 2048, 65536), (0x0C, 70000, 2048))
    make(scratch / "part", "fat16", 32 << 20)
    with open(path, "r+b") as file:
        file.seek(2048 * 512)
        file.write((scratch / "part").read_bytes())
    with stick("--image", path) as (_, process):
        talk = process.talk()
        first, second, third = [volume["number"] for volume in talk.ready()["volumes"]]
        with mounted(talk, scratch / "first", volume=first):
            assert "in use" in refused(errno.EBUSY, mounted(talk, scratch / "second", volume=second).__enter__)
            refused(errno.EBUSY, talk.call, "format", volume=second, kind="fat16")
            refused(errno.EBUSY, mounted(talk, scratch / "second", volume=second, readOnly=True).__enter__)
            talk.call("format", volume=third, kind="fat12")
        talk.wait_for("unmounted")
        with mounted(talk, scratch / "first", volume=first, readOnly=True):
            with mounted(talk, scratch / "second", volume=second, readOnly=True):
                pass


@test
def what_is_ejected_is_out(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "mount", volume=1):
            (scratch / "mount" / "kept").write_text("kept")
            talk.call("eject", unit=0)
            assert talk.wait_for("unmounted")["reason"] == "ejected"
            fails(errno.ENOTCONN, os.listdir, scratch / "mount")
        talk.wait_for("changed", unit=0)
        status = talk.call("status")
        assert status["units"][0]["state"] == "empty" and status["volumes"] == [], status
        refused(errno.ENOMEDIUM, talk.call, "eject")
        refused(errno.ENOENT, talk.call, "eject", unit=1)
        fsck(path, "exfat")


@test
def a_stick_that_is_pulled_out_while_it_is_written_ends_everything(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (model, process):
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "mount", volume=1):
            failures = []

            def write():
                try:
                    with open(scratch / "mount" / "long", "wb") as file:
                        while True:
                            file.seek(0)  # however fast, it does not become full
                            for _ in range(16):
                                file.write(bytes(65536))
                                file.flush()
                                os.fsync(file.fileno())
                except OSError as failure:
                    failures.append(failure.errno)

            writer = threading.Thread(target=write)
            writer.start()
            time.sleep(0.3)
            model.end()
            begun = time.monotonic()
            assert talk.wait_for("unmounted")["reason"] == "gone"
            talk.wait_for("gone")
            writer.join(10)
            assert not writer.is_alive()
            assert time.monotonic() - begun < 5
            assert failures and failures[0] in GONE_ERRORS, failures
            assert process.wait() == GONE


@test
def a_write_protected_stick_stays_as_it_is(scratch):
    path = make(scratch / "image", "fat32")
    before = hashlib.sha256(pathlib.Path(path).read_bytes()).digest()
    for arguments, options in (["--read-only"], []), ([], ["--read-only"]):
        with stick("--image", path, *arguments, options=options) as (_, process):
            talk = process.talk()
            talk.ready()
            with mounted(talk, scratch / "mount", volume=1) as answer:
                assert answer["readOnly"]
                fails(errno.EROFS, (scratch / "mount" / "a").write_text, "a")
                talk.call("unmount", mount=answer["mount"])
            refused(errno.EROFS, talk.call, "format", volume=1, kind="exfat")
            refused(errno.EROFS, talk.call, "check", volume=1, repair=True)
            talk.call("end")
        assert hashlib.sha256(pathlib.Path(path).read_bytes()).digest() == before


@test
def what_is_free_is_discarded_if_that_is_wanted(scratch):
    """The model's discarded sectors are zeros."""
    content = b"content of a file that goes away " * 4096
    for kind in ("fat16", "exfat"):
        for provisioning, discard, goes in (("unmap", True, True), ("ws16", True, True), ("both", False, False),
                                            ("none", True, False)):
            path = make(scratch / "image", kind)
            with open(path, "r+b") as file:  # at the end, where nobody has written
                file.seek(-512, os.SEEK_END)
                file.write(b"old" * 170)
            with stick("--image", path, "--provisioning", provisioning) as (_, process):
                talk = process.talk()
                talk.ready()
                with mounted(talk, scratch / "mount", volume=1, discard=discard):
                    (scratch / "mount/kept").write_bytes(b"kept")
                    (scratch / "mount/gone").write_bytes(content)
                    talk.call("sync")
                    os.unlink(scratch / "mount/gone")
                talk.wait_for("unmounted")
                left = content[:1024] in pathlib.Path(path).read_bytes()
                assert left != goes, (kind, provisioning, discard)
                with mounted(talk, scratch / "mount", volume=1):
                    assert (scratch / "mount/kept").read_bytes() == b"kept"
                talk.wait_for("unmounted")
                assert pathlib.Path(path).read_bytes().endswith(b"old" * 170 + b"\0\0")
                fsck(path, kind)
                talk.call("format", volume=1, kind=kind)
                left = pathlib.Path(path).read_bytes().endswith(b"old" * 170 + b"\0\0")
                assert left == (provisioning == "none"), provisioning
                talk.call("end")
                process.wait()


@test
def volumes_are_formatted_and_checked(scratch):
    path = make(scratch / "image", "fat32")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "mount", volume=1):
            refused(errno.EBUSY, talk.call, "format", volume=1, kind="exfat")
            refused(errno.EBUSY, talk.call, "check", volume=1)
            refused(errno.EBUSY, talk.call, "format", unit=0, kind="exfat")
        talk.wait_for("unmounted")
        refused(errno.EINVAL, talk.call, "format", kind="exfat")
        refused(errno.EINVAL, talk.call, "format", volume=1, unit=0, kind="exfat")
        refused(errno.ENOENT, talk.call, "format", volume=7, kind="exfat")
        talk.call("format", volume=1, kind="exfat", label="Neu")
        (volume,) = talk.call("status")["volumes"]
        assert (volume["kind"], volume["label"]) == ("exfat", "Neu"), volume
        fsck(path, "exfat")
        assert talk.call("check", volume=1) == {"findings": 0, "left": 0}
        with open(path, "r+b") as file:  # the label's place: a bit that no file has
            boot = file.read(512)
            heap, shift = int.from_bytes(boot[88:92], "little"), boot[108] + boot[109]
            first = heap * 512  # cluster 2: the bitmap
            file.seek(first + 40)
            file.write(b"\x10")
        process_of_damage(talk, path)


def process_of_damage(talk, path):
    left = talk.call("check", volume=1)
    assert left["findings"] == left["left"] == 1, left
    assert not talk.wait_for("finding")["repaired"]
    assert talk.call("check", volume=1, repair=True) == {"findings": 1, "left": 0}
    assert talk.wait_for("finding")["repaired"]
    assert talk.call("check", volume=1) == {"findings": 0, "left": 0}
    fsck(path, "exfat")


def fill(path, kind, count):
    """A volume whose check takes many reads: folders, and a file in each."""
    make(path, kind, 256 << 20)
    with image(path) as process:
        talk = process.talk()
        talk.ready()
        with mounted(talk, path.parent / "fill", volume=1):
            for number in range(count):
                (path.parent / f"fill/{number}").mkdir()
                (path.parent / f"fill/{number}/file").write_bytes(b"x")
        talk.wait_for("unmounted")
    return str(path)


def steps_of(talk, number):
    with talk.arrived:
        told = [event["progress"] for event in talk.events if event.get("progress", {}).get("id") == number]
    return [(step["done"], step["total"]) for step in told]


@test
def how_far_a_check_is_is_told(scratch):
    for kind in ("fat32", "exfat"):
        path = fill(scratch / kind, kind, 60)
        with stick("--image", path, "--slow", "10") as (_, process):
            talk = process.talk()
            talk.ready()
            number = talk.ask("check", volume=1)
            assert talk.answer(number) == {"check": {"findings": 0, "left": 0}}
            steps = steps_of(talk, number)
            assert len(steps) >= 3 and steps == sorted(steps), steps
            assert len({total for _, total in steps}) == 1 and all(done <= total for done, total in steps), steps
            assert steps[0][0] < steps[-1][0], steps


@test
def a_check_that_is_cancelled_ends_at_once_and_another_one_may_begin(scratch):
    path = fill(scratch / "image", "exfat", 60)
    with stick("--image", path, "--slow", "50") as (_, process):
        talk = process.talk()
        talk.ready()
        number = talk.ask("check", volume=1, repair=True)
        talk.wait_for("progress", id=number)
        refused(errno.ENOENT, talk.call, "cancel", request=number + 1000)
        talk.call("cancel", request=number)
        refused(errno.ECANCELED, talk.answer, number)
        refused(errno.ENOENT, talk.call, "cancel", request=number)
        (volume,) = talk.call("status")["volumes"]
        assert volume["kind"] == "exfat" and "busy" not in volume, volume
        with mounted(talk, scratch / "mount", volume=1):
            assert len(os.listdir(scratch / "mount")) == 60
        talk.wait_for("unmounted")
    fsck(path, "exfat")


@test
def a_format_that_is_cancelled_leaves_no_file_system(scratch):
    path = make(scratch / "image", "fat32", 1 << 30)
    with stick("--image", path, "--slow", "50") as (_, process):
        talk = process.talk()
        talk.ready()
        number = talk.ask("format", volume=1, kind="fat32", clusterSize=512)
        talk.wait_for("progress", id=number)
        talk.call("cancel", request=number)
        refused(errno.ECANCELED, talk.answer, number)
        (volume,) = talk.call("status")["volumes"]
        assert volume["kind"] == "unknown", volume
        talk.call("format", volume=1, kind="exfat")
    fsck(path, "exfat")


@test
def the_end_does_not_wait_for_a_check(scratch):
    path = fill(scratch / "image", "exfat", 60)
    with stick("--image", path, "--slow", "100") as (_, process):
        talk = process.talk()
        talk.ready()
        number = talk.ask("check", volume=1)
        talk.wait_for("progress", id=number)
        end = talk.ask("end")
        refused(errno.ECANCELED, talk.answer, number)
        talk.answer(end)
        assert process.wait() == ENDED


@test
def a_stick_that_answers_no_command_is_given_up_before_a_slow_write(scratch):
    path = make(scratch / "image", "fat32", 1 << 30)
    with stick("--image", path, "mute-csw@30+") as (_, other):
        slow = other.talk()
        slow.ready()
        number = slow.ask("format", volume=1, kind="fat32", clusterSize=512)
        slow.wait_for("progress", id=number)
        with stick("mute") as (_, process):
            (unit,) = process.talk().ready(timeout=120)["units"]
            assert unit["state"] == "failed" and "no answer" in unit["error"], unit
        assert slow.call("stats")["recoveries"] == 0, "a write has no more time than that"


@test
def a_whole_medium_is_formatted_whatever_partitions_it_had(scratch):
    path = make_mbr(scratch / "image", 64 << 20, (0x0C, 2048, 32768), (7, 34816, 65536))
    with stick("--image", str(path)) as (_, process):
        talk = process.talk()
        talk.ready()
        assert [v["partition"] for v in talk.call("status")["volumes"]] == [1, 2]
        talk.call("format", unit=0, kind="exfat", label="Ganz")
        (volume,) = talk.call("status")["volumes"]
        assert (volume["partition"], volume["label"], volume["number"]) == (0, "Ganz", 3), volume
        with mounted(talk, scratch / "mount", volume=3):
            (scratch / "mount" / "a").write_text("a")


@test
def what_was_moved_is_counted(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        before = talk.call("stats")
        with mounted(talk, scratch / "mount", volume=1):
            (scratch / "mount" / "a").write_bytes(bytes(1 << 20))
            talk.call("sync")
            after = talk.call("stats")
        assert after["writes"]["bytes"] - before["writes"]["bytes"] >= 1 << 20, after
        assert after["flushes"]["operations"] > 0 and after["cacheBytes"] > 0
        assert after["commands"] > before["commands"]
        for moved in after["reads"], after["writes"], after["flushes"]:
            assert sum(moved["latency"]) == moved["operations"], moved


@test
def another_daemon_comes_back_to_it(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        first = process.talk()
        first.wait_for("ready", unit=0)
        with mounted(first, scratch / "mount", volume=1) as answer:
            first.close()
            (scratch / "mount" / "meanwhile").write_text("meanwhile")
            second = process.talk()
            assert second.call("status")["mounts"] == [answer]
            third = process.talk()
            assert third.call("status")["mounts"] == [answer]
            with second.arrived:  # the newer one has replaced it
                assert second.arrived.wait_for(lambda: second.ended, 10)
            third.call("unmount", mount=answer["mount"])
        third.call("end")
        assert process.wait() == ENDED


@test
def it_ends_with_a_daemon_that_was_killed_before_it_had_said_anything(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        process.talk().close()
        assert process.wait() == ENDED
        assert "had said anything" in process.said()


NONSENSE = [
    b"\n", b"{}\n", b"null\n", b"[" * 5000 + b"\n", b"\xff\xfe\x00\n", b"{\"version\":1}\n",
    b"{\"version\":2,\"id\":1,\"status\":{}}\n", b"{\"version\":1,\"id\":-1,\"status\":{}}\n",
    b"{\"version\":1,\"id\":1,\"status\":{},\"other\":1}\n",
    b"{\"version\":1,\"id\":1,\"fds\":3,\"sync\":{}}\n", b"x" * 200_000,
    b"{\"version\":1,\"id\":1,\"format\":{\"kind\":\"ntfs\",\"volume\":1}}\n",
]


@test
def nonsense_ends_a_connection_and_nothing_else(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        process.talk().ready()
        for nonsense in NONSENSE:
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            raw.settimeout(10)
            raw.connect(process.path)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                raw.sendall(nonsense)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := raw.recv(65536):
                    answer += piece
            assert not answer or json.loads(answer)["error"]["code"] < 0, (nonsense, answer)
            raw.close()
        talk = process.talk()
        refused(errno.EINVAL, talk.call, "mount", volume=1)  # no descriptor
        reader, writer = os.pipe()
        refused(errno.EINVAL, talk.call, "sync", [reader])
        # It has closed what it was sent for nothing.
        os.close(reader)
        fails(errno.EPIPE, os.write, writer, b"x")
        os.close(writer)
        assert talk.call("status")["state"] == "open"


@test
def a_descriptor_that_is_no_fuse_is_refused(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        left, right = socket.socketpair()
        with left, right:
            talk.call("mount", [left.fileno()], volume=1)
        assert talk.wait_for("unmounted")["reason"] in ("failed", "unmounted")
        assert talk.call("status")["mounts"] == []
        with mounted(talk, scratch / "mount", volume=1):
            assert os.listdir(scratch / "mount") == []


@test
def whoever_does_not_read_is_disconnected(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        process.talk().ready()
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.connect(process.path)
        raw.settimeout(10)
        request = b"{\"version\":1,\"id\":1,\"status\":{}}\n" * 100
        try:
            for _ in range(1000):
                raw.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            raise AssertionError("it takes requests of somebody who reads no answers, for ever")
        raw.close()
        assert process.talk().call("status")["state"] == "open"
        assert "does not read" in process.said()


@test
def many_requests_at_once_are_all_answered(scratch):
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        numbers = [talk.ask("stats") for _ in range(200)]
        refusals = 0
        for number in numbers:
            try:
                talk.answer(number)
            except Refused as refusal:
                assert refusal.code == errno.EAGAIN, refusal
                refusals += 1
        assert refusals < 200
        assert talk.call("stats")["commands"] > 0


@test
def an_image_is_served_as_a_medium(scratch):
    path = make(scratch / "image", "exfat")
    with image(path) as process:
        talk = process.talk()
        talk.ready()
        assert "device" not in talk.call("status")
        with mounted(talk, scratch / "mount", volume=1):
            (scratch / "mount" / "a").write_bytes(bytes(100_000))
        talk.wait_for("unmounted")
        refused(errno.EOPNOTSUPP, talk.call, "eject")
        assert talk.call("check", volume=1) == {"findings": 0, "left": 0}
        talk.call("end")
        assert process.wait() == ENDED
    fsck(path, "exfat")


@test
def real_time_is_of_every_thread_or_refused(scratch):
    path = make(scratch / "image", "exfat")
    refusal = can_be_real_time(7)
    model = Model("--image", path)
    process = serve(model, "--real-time", "7", "--cpus", "0")
    try:
        if refusal:
            assert process.wait() == FAILED
            assert refusal in process.said(), process.said()
            return
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "mount", volume=1):
            (scratch / "mount" / "a").write_bytes(bytes(1 << 20))
            jailed = process.jailed()
            threads = [int(thread) for thread in os.listdir(f"/proc/{jailed}/task")]
            assert len(threads) > 4, threads
            for thread in threads:
                assert os.sched_getscheduler(thread) == os.SCHED_FIFO
                assert os.sched_getparam(thread).sched_priority == 7
                assert os.sched_getaffinity(thread) == {0}
            with open(f"/proc/{jailed}/status") as file:
                locked = [line for line in file if line.startswith("VmLck:")][0]
            assert int(locked.split()[1]) > 1000, locked
        talk.wait_for("unmounted")
        assert talk.call("check", volume=1)["left"] == 0
        talk.call("end")
        assert process.wait() == ENDED
    finally:
        process.end()
        model.end()


@test
def what_cannot_be_said_is_refused_by_name():
    def start(*arguments):
        done = subprocess.run([Process.program, *arguments], capture_output=True, text=True)
        return done.returncode, done.stderr
    for arguments, word in [
        ([], "usage"), (["--listen", "3"], "usage"), (["--listen", "x"], "--listen"),
        (["--cpus", "3-1"], "--cpus"), (["--cpus", ""], "--cpus"), (["--memory", "5"], "--memory"),
        (["--real-time", "100"], "--real-time"), (["--uid", "0"], "--uid"),
        (["--device", "3", "--image", "4"], "--image"), (["--other"], "other"),
        (["--sector-size", "100"], "--sector-size"),
    ]:
        code, text = start(*arguments)
        assert code == 2 and word in text, (arguments, code, text)


if __name__ == "__main__":
    main()
