"""Media that are not what they are: that read otherwise each time, have less room than they say, drop what they
acknowledge, change while they are used, or hold tables without an end; and sticks that take their time."""

import concurrent.futures
import errno
import hashlib
import os
import pathlib
import shutil
import subprocess
import time

from harness import main, only, test
from sticks import ENDED, GONE, Model, Refused, mount_fuse, serve, unmount
from test_usb_stick import entry, fsck, make, make_gpt, make_mbr, run, stick

AT_ONCE = 8
MIB = 1 << 20
MAKERS = {"fat16": ["mkfs.vfat", "-F", "16"], "fat32": ["mkfs.vfat", "-F", "32"], "exfat": ["mkfs.exfat"]}
# What a file system may say of a medium that does not tell the truth; not: nothing for ever, nor a process that is gone.
EXPECTED = {errno.EIO, errno.EUCLEAN, errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
            errno.ENOTEMPTY, errno.EINVAL, errno.EFBIG, errno.ESTALE, errno.EMEDIUMTYPE, errno.EBUSY, errno.ENODEV,
            errno.ENOTCONN, errno.ENOMEDIUM, errno.ECONNABORTED}


def make_image(path, kind, size, *options):
    with open(path, "wb") as file:
        file.truncate(size)
    run(*MAKERS[kind], *options, str(path))
    return path


def at_once(function, cases):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        problems = [problem for problem in pool.map(lambda case: function(*case), cases) if problem]
    assert not problems, "\n".join(problems)


def memory(process):
    for line in pathlib.Path(f"/proc/{process.jailed()}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


class Served:
    """A volume of a stick, mounted; what fails on the way is told."""

    def __init__(self, folder, *arguments):
        folder.mkdir(exist_ok=True)
        self.folder, self.mounted, self.failures = folder, False, []
        self.model = Model(*arguments)
        self.process = serve(self.model)
        self.talk = self.process.talk()

    def ready(self):
        return self.talk.ready(timeout=100)

    def mount(self, number):
        fd = mount_fuse(str(self.folder))
        try:
            answer = self.talk.call("mount", [fd], volume=number, timeout=100)
        except Refused as refusal:
            unmount(str(self.folder))
            self.failed(refusal.code, str(refusal))
            return None
        finally:
            os.close(fd)
        self.mounted = True
        return answer["mount"]

    def unmount(self, number):
        self.call("unmount", mount=number)
        unmount(str(self.folder))
        self.mounted = False

    def failed(self, code, what):
        assert code in EXPECTED, f"{errno.errorcode.get(code, code)}: {what}"
        self.failures.append(what)

    def call(self, what, **parameters):
        try:
            return self.talk.call(what, timeout=100, **parameters)
        except Refused as refusal:
            self.failed(refusal.code, str(refusal))

    def attempt(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError as failure:
            self.failed(failure.errno, str(failure))

    def end(self):
        """As it should."""
        self.talk.call("end", timeout=100)
        code = self.process.wait(60)
        assert code == ENDED, f"exit status {code}: {self.process.said()}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.mounted:
            unmount(str(self.folder))
        self.process.end()
        self.model.end()


def write_file(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def little(data, at, size):
    return int.from_bytes(data[at:at + size], "little")


def regions(image, kind):
    """Sectors of what a file system trusts: first, count."""
    with open(image, "rb") as file:
        head = file.read(4096)
        whole = head + file.read()
    journal = whole.find(b"CLOCHEJ1")
    found = {"journal": (journal // 512, 16)} if journal >= 0 else {}
    if kind == "exfat":
        table, heap, root = little(head, 80, 4), little(head, 88, 4), little(head, 96, 4)
        cluster = 1 << head[109]
        return {"boot": (0, 24), "table": (table, little(head, 84, 4)), "bitmap": (heap, 1),
                "upcase": (heap + cluster, 12), "root": (heap + (root - 2) * cluster, cluster), **found}
    reserved, tables, slots = little(head, 14, 2), head[16], little(head, 17, 2)
    each = little(head, 22, 2) or little(head, 36, 4)
    root = reserved + tables * each
    return {"boot": (0, 8), "table": (reserved, each), "second": (reserved + each, each), "root": (root, 64), **found}


def use(served, number):
    folder = served.folder
    names = served.attempt(os.listdir, folder) or []
    for name in names[:8]:
        served.attempt(lambda: (folder / name).read_bytes() if (folder / name).is_file() else os.listdir(folder / name))
    served.attempt(write_file, folder / f"new{number}", os.urandom(40_000))
    served.attempt(os.mkdir, folder / f"folder{number}")
    for i in range(20):
        served.attempt(write_file, folder / f"folder{number}" / f"a long name of file {i}", b"x" * 700)
    served.attempt(os.rename, folder / "file0", folder / f"folder{number}" / "file")
    served.attempt(os.unlink, folder / "file1")
    served.attempt(os.truncate, folder / "file2", 12)
    served.attempt(os.statvfs, folder)


def live_with(scratch, kind, name, first, count, seed):
    """A medium of which these sectors are others each second time; why it is not borne, or None."""
    what = f"{kind}-{name}-{seed}"
    path = scratch / what
    shutil.copy(scratch / kind, path)
    try:
        with Served(scratch / f"{what}.mount", "--image", str(path), "--varying", f"{first}:{count}", "--seed", str(seed)) \
                as served:
            for number in range(2):
                volumes = served.ready()["volumes"]
                mount = served.mount(volumes[0]["number"]) if volumes else None
                if mount:
                    use(served, number)
                    served.unmount(mount)
                for repair in False, True:
                    if volumes:
                        served.call("check", volume=volumes[0]["number"], repair=repair)
            assert memory(served.process) < 100 * MIB, memory(served.process)
            if volumes:
                served.call("format", volume=volumes[0]["number"], kind=kind)
            served.end()
            varied = int(served.model.process.stdout.readline().split()[1])
            if os.environ.get("CLOCHE_USB_TALK"):
                print("#", what, varied, served.failures[:6])
            assert varied > 0 or name == "second", "nothing of it was read twice"
    except (AssertionError, OSError, TimeoutError, subprocess.TimeoutExpired) as failure:
        return f"{what}: {failure!r}"
    finally:
        path.unlink()


@test
def content_that_is_read_otherwise_each_time_is_borne(scratch):
    cases = []
    for kind, size in ("fat16", 16 * MIB), ("fat32", 40 * MIB), ("exfat", 8 * MIB):
        image = make_image(scratch / kind, kind, size)
        with Served(scratch / "mount", "--image", str(image)) as served:
            number = served.ready()["volumes"][0]["number"]
            served.mount(number)
            for i in range(6):
                write_file(served.folder / f"file{i}", os.urandom(30_000))
            os.mkdir(served.folder / "folder")
            write_file(served.folder / "folder" / "file", b"here")
            os.kill(served.process.jailed(), 9)  # what is in the journal stays there
            served.process.wait()
        cases += [(scratch, kind, name, first, count, seed) for name, (first, count) in regions(image, kind).items()
                  for seed in SEEDS]
    assert len(cases) >= 14 * len(SEEDS), cases
    at_once(live_with, cases)


SEEDS = range(1, 1 + int(os.environ.get("CLOCHE_USB_SEEDS", "1")))


def write_until(served, total):
    """Files until something fails; how many of a MiB have been acknowledged, and how it ended."""
    for number in range(total):
        try:
            write_file(served.folder / f"much{number:03}", bytes([number + 1]) * MIB)
        except OSError as failure:
            return number, failure.errno
    return total, 0


# So that a root folder of so many files has one that is there.
ONE_CLUSTER = {"fat16": ["-s", "8"], "exfat": ["-c", "32K"]}


def fake(scratch, kind, beyond):
    """A stick of 24 MiB that says it has 128."""
    whole = make_image(scratch / "whole", kind, 128 * MIB, *ONE_CLUSTER[kind])
    path = scratch / "fake"
    path.write_bytes(whole.read_bytes()[:24 * MIB])
    arguments = ["--image", str(path), "--pretend", str(128 * MIB // 512), "--beyond", beyond]
    with Served(scratch / "mount", *arguments) as served:
        mount = served.mount(served.ready()["volumes"][0]["number"])
        write_file(served.folder / "kept", b"kept" * 1000)
        acknowledged, error = write_until(served, 60)
        served.unmount(mount)
        served.end()
    return path, arguments, acknowledged, error


@test
def what_is_written_beyond_a_fake_capacity_harms_nothing_else(scratch):
    for kind in ONE_CLUSTER:
        path, arguments, acknowledged, error = fake(scratch, kind, "vanishes")
        assert acknowledged == 60 and error == 0, (acknowledged, error)  # nobody can tell by what the stick says
        with Served(scratch / "mount", *arguments) as served:
            volume = served.ready()["volumes"][0]["number"]
            served.mount(volume)
            assert (served.folder / "kept").read_bytes() == b"kept" * 1000
            assert len(os.listdir(served.folder)) == 61, os.listdir(served.folder)
            contents = [(served.folder / f"much{number:03}").read_bytes() for number in range(60)]
            right = sum(content == bytes([number + 1]) * MIB for number, content in enumerate(contents))
            lost = sum(not any(content) for content in contents)
            assert right >= 15 and lost >= 30 and right + lost >= 59, (right, lost)
            served.unmount(1)
            assert served.talk.call("check", volume=volume)["left"] == 0
            served.end()
        with open(path, "r+b") as file:
            file.truncate(128 * MIB)
        fsck(path, kind)


@test
def a_fake_capacity_that_wraps_is_borne(scratch):
    for kind in ONE_CLUSTER:
        _, arguments, _, error = fake(scratch, kind, "wraps")
        assert error in EXPECTED | {0}, error
        with Served(scratch / "mount", *arguments) as served:
            volume = served.ready()["volumes"][0]
            mount = served.mount(volume["number"])
            if mount:
                use(served, 0)
                served.unmount(mount)
            findings = served.call("check", volume=volume["number"], repair=True)
            # The stick itself has put other content where its tables were: it is said.
            assert served.failures or volume["kind"] == "unknown" or findings["findings"] > 0, (volume, findings)
            served.call("format", volume=volume["number"], kind="exfat")
            served.end()


def drop(scratch, kind, first):
    what = f"{kind}-drops-{first}"
    path = scratch / what
    shutil.copy(scratch / kind, path)
    try:
        with Served(scratch / f"{what}.mount", "--image", str(path), "--drops", str(first)) as served:
            for number in range(2):
                volume = served.ready()["volumes"][0]["number"]
                mount = served.mount(volume)
                if mount:
                    use(served, number)
                    served.unmount(mount)
                served.call("check", volume=volume, repair=True)
            served.end()
        with Served(scratch / f"{what}.mount", "--image", str(path)) as served:
            volume = served.ready()["volumes"][0]["number"]
            assert served.mount(volume), served.failures
            assert (served.folder / "kept").read_bytes() == b"kept" * 1000, "what was there before is not"
            served.unmount(1)
            left = served.talk.call("check", volume=volume)["left"]
            assert left == 0, f"{left} findings"
            served.end()
    except (AssertionError, OSError, TimeoutError, Refused, subprocess.TimeoutExpired) as failure:
        return f"{what}: {failure!r}"
    finally:
        path.unlink()


@test
def writes_that_are_dropped_from_one_on_are_as_a_power_cut(scratch):
    """All that came before is in its order, so that what the journal says holds."""
    for kind, size in ("fat32", 40 * MIB), ("exfat", 8 * MIB):
        image = make_image(scratch / kind, kind, size)
        with Served(scratch / "mount", "--image", str(image)) as served:
            mount = served.mount(served.ready()["volumes"][0]["number"])
            write_file(served.folder / "kept", b"kept" * 1000)
            for i in range(3):
                write_file(served.folder / f"file{i}", b"y" * 3000)
            served.unmount(mount)
            served.end()
    at_once(drop, [(scratch, kind, first) for kind in ("fat32", "exfat") for first in DROPS])


DROPS = [1, 2, 3, 5, 8, 13, 21, 34]


def change(scratch, kind, moment, *options):
    """With this command another medium is there: it is not written to, and what was durable of the first is kept."""
    what = f"{kind}-change-{moment}{''.join(options)}"
    first, other = scratch / what, scratch / f"{what}.other"
    shutil.copy(scratch / kind, first)
    shutil.copy(scratch / f"{kind}.other", other)
    before = hashlib.sha256(other.read_bytes()).digest()
    durable = {}
    try:
        with Served(scratch / f"{what}.mount", "--image", str(first), "--next-image", str(other), "--change-at", str(moment),
                    *options) as served:
            volumes = served.ready()["volumes"]
            mount = served.mount(volumes[0]["number"]) if volumes and volumes[0]["label"] == "FIRST" else None
            for number in range(12 if mount else 0):
                try:
                    write_file(served.folder / f"file{number}", bytes([number]) * 9000)
                    durable[f"file{number}"] = bytes([number]) * 9000
                except OSError as failure:
                    served.failed(failure.errno, str(failure))
                    break
            if mount:
                served.unmount(mount)
            served.talk.call("end", timeout=100)
            assert served.process.wait(60) in (ENDED, GONE)
        assert hashlib.sha256(other.read_bytes()).digest() == before, "the other medium has been written to"
        with Served(scratch / f"{what}.mount", "--image", str(first)) as served:
            volume = served.ready()["volumes"][0]["number"]
            assert served.mount(volume), served.failures
            for name, content in durable.items():
                assert (served.folder / name).read_bytes() == content, f"{name} is not what was durable"
            served.unmount(1)
            assert served.talk.call("check", volume=volume)["left"] == 0
            served.end()
    except (AssertionError, OSError, TimeoutError, Refused, subprocess.TimeoutExpired) as failure:
        return f"{what}: {failure!r}"
    finally:
        first.unlink()
        other.unlink()


@test
def a_medium_that_changes_with_any_command_is_not_taken_for_the_one_before(scratch):
    for kind, size in ("fat16", 16 * MIB), ("exfat", 8 * MIB):
        for name, label in (kind, "FIRST"), (f"{kind}.other", "OTHER"):
            with open(scratch / name, "wb") as file:
                file.truncate(size)
            run(*MAKERS[kind], "-L" if kind == "exfat" else "-n", label, str(scratch / name))
    at_once(change, [(scratch, kind, moment) for kind in ("fat16", "exfat") for moment in MOMENTS] +
            [(scratch, "exfat", moment, "--uas") for moment in MOMENTS[::4]])


MOMENTS = range(1, 90, 1 if "CLOCHE_USB_SEEDS" in os.environ else 3)


def extended(path, *links):
    """MBR with an extended partition, whose tables are at these sectors; each: where, its volume, the next one (both
    relative as the format has them)."""
    make_mbr(path, 16 * MIB, (0x05, 64, 20000))
    with open(path, "r+b") as file:
        for at, volume, following in links:
            table = (entry(0x06, *volume) if volume else bytes(16)) + (entry(0x05, *following) if following else bytes(16))
            file.seek(at * 512 + 446)
            file.write(table.ljust(64, b"\0") + b"\x55\xaa")
    return path


@test
def extended_partitions_without_an_end_have_one(scratch):
    tables = {
        "itself": [(64, (8, 16), (0, 100))],
        "ring": [(64, (8, 16), (100, 100)), (164, (8, 16), (200, 100)), (264, (8, 16), (100, 100))],
        "first": [(64, (8, 16), (100, 100)), (164, (8, 16), (0, 20000))],
        "outside": [(64, (8, 16), (0xFFFFFFF0, 100))],
        "long": [(64 + 2 * i, (1, 1), (2 * (i + 1), 2)) for i in range(9000)],
    }
    for name, links in tables.items():
        path = extended(scratch / name, *links)
        begun = time.monotonic()
        with stick("--image", str(path)) as (_, process):
            talk = process.talk()
            status = talk.ready(timeout=60)
            assert status["units"][0]["state"] == "ready", status
            assert len(status["volumes"]) <= 64, len(status["volumes"])
            told = status["units"][0].get("error", "")
            assert "partitions are not served" in told and status["units"][0]["table"] == "mbr", status["units"]
            places = [volume["start"] for volume in status["volumes"]]
            assert len(set(places)) == len(places), (name, places)
            assert memory(process) < 64 * MIB, memory(process)
            talk.call("end")
            assert process.wait() == ENDED
        assert time.monotonic() - begun < 60


def full_of_volumes(path):
    """64 partitions, each with a file system."""
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        file.truncate(256 << 10)
    run("mkfs.vfat", "-F", "12", str(part))
    make_gpt(path, 20 * MIB, *[(f"part {i}", 2048 + 512 * i, 512) for i in range(64)])
    with open(path, "r+b") as file:
        for i in range(64):
            file.seek((2048 + 512 * i) * 512)
            file.write(part.read_bytes())
    return path


@test
def partitions_beyond_the_limit_are_told(scratch):
    path = make_gpt(scratch / "image", 20 * MIB, *[(f"part {i}", 2048 + 256 * i, 256) for i in range(100)])
    with stick("--image", str(path)) as (_, process):
        (unit,) = process.talk().ready()["units"]
        assert unit["error"].startswith("at least 36 of its partitions are not served") and unit["table"] == "gpt", unit
        assert "36 of its partitions" in process.said()


@test
def units_full_of_volumes_stay_within_the_memory(scratch):
    path = full_of_volumes(scratch / "image")
    limit = 64 * MIB
    model = Model("--image", str(path), "--units", "16")
    process = serve(model, "--memory", str(limit))
    try:
        talk = process.talk()
        status = talk.ready(16, timeout=200)
        assert [unit["state"] for unit in status["units"]] == ["ready"] * 16, status["units"]
        kinds = [volume["kind"] for volume in status["volumes"]]
        assert kinds == ["fat12"] * 16 * 64, (len(kinds), set(kinds))
        assert len({volume["number"] for volume in status["volumes"]}) == len(kinds)
        assert memory(process) < limit, memory(process)
        last = status["volumes"][-1]["number"]
        folder = scratch / "mount"
        folder.mkdir()
        fd = mount_fuse(str(folder))
        try:
            talk.call("mount", [fd], volume=last)
            write_file(folder / "file", b"here")
            assert (folder / "file").read_bytes() == b"here"
            talk.call("unmount", mount=1)
        finally:
            os.close(fd)
            unmount(str(folder))
        talk.call("end", timeout=100)
        assert process.wait(60) == ENDED
    finally:
        process.end()
        model.end()


LATE = 3000  # ms: of those commands that have 5 seconds, and of INQUIRY which has 2 to begin with


@test
def a_stick_that_is_late_with_each_answer_does_not_hold_up_its_end(scratch):
    path = make(scratch / "image", "fat16")
    with stick("--image", path, "--late", str(LATE)) as (_, process):
        talk = process.talk()
        time.sleep(LATE / 1000)
        begun = time.monotonic()
        talk.call("status", timeout=2)
        assert time.monotonic() - begun < LATE / 1000, "the status waits for the stick"
        talk.call("end", timeout=100)
        process.wait(60)
        # Not for more than the command that is under way and what lets go of the medium.
        assert time.monotonic() - begun < 6 * LATE / 1000, time.monotonic() - begun


only(content_that_is_read_otherwise_each_time_is_borne, what_is_written_beyond_a_fake_capacity_harms_nothing_else,
     a_fake_capacity_that_wraps_is_borne, writes_that_are_dropped_from_one_on_are_as_a_power_cut,
     a_medium_that_changes_with_any_command_is_not_taken_for_the_one_before, extended_partitions_without_an_end_have_one,
     partitions_beyond_the_limit_are_told, units_full_of_volumes_stay_within_the_memory, a_stick_that_is_late_with_each_answer_does_not_hold_up_its_end)

if __name__ == "__main__":
    main()
