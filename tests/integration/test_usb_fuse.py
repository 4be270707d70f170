"""What a FUSE door promises: rules of names, errors, limits, ends, several doors of one volume."""

import ctypes
import errno
import fcntl
import os
import pathlib
import signal
import stat
import subprocess
import time

from harness import main, run, test, wait_for
from fuse_doors import KINDS, MIB, check_image, door, make_image

LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


def fails(number, function, *args, **options):
    try:
        function(*args, **options)
    except OSError as failure:
        assert failure.errno == number, (failure, errno.errorcode[number])
        return
    raise AssertionError(f"no error: {function.__name__} {args}")


def renameat2(old, new, flags):
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@test
def names_are_compared_by_the_rules_of_the_volume(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            top = stick.folder
            fails(errno.ENOENT, os.stat, top / "FILE.Text")
            fails(errno.ENOENT, os.stat, top / "file.text")
            (top / "File.text").write_text("one")
            for name in ("FILE.Text", "file.text", "File.text"):
                assert (top / name).read_text() == "one"
                fails(errno.EEXIST, os.mkdir, top / name)
            assert os.listdir(top) == ["File.text"]
            assert os.stat(top / "FILE.TEXT").st_ino == os.stat(top / "File.text").st_ino
            os.unlink(top / "FILE.TEXT")
            for name in ("File.text", "file.text", "FILE.TEXT", "FILE.Text"):
                fails(errno.ENOENT, os.stat, top / name)
                fails(errno.ENOENT, open, top / name)
            (top / "ordner").mkdir()
            (top / "ORDNER/a").write_text("a")
            assert (top / "Ordner/A").read_text() == "a"
            os.rename(top / "ordner/A", top / "B")
            fails(errno.ENOENT, os.stat, top / "ORDNER/a")
            fails(errno.ENOENT, os.stat, top / "ordner/a")
            os.rmdir(top / "oRDNER")
            fails(errno.ENOENT, os.listdir, top / "ordner")
            (top / "b").write_text("longer")
            assert (top / "B").stat().st_size == 6


@test
def spellings_do_not_outlive_their_file(scratch):
    """Each turn looks one spelling up and changes the file by another one."""
    for kind in KINDS:
        with door(scratch, kind) as stick:
            top = stick.folder
            for turn in range(300):
                (top / "Name").write_text(str(turn))
                assert os.stat(top / "Name").st_size == len(str(turn))
                if turn % 3 == 0:
                    os.unlink(top / "NAME")
                elif turn % 3 == 1:
                    os.rename(top / "NAME", top / "other")
                else:
                    (top / "other").write_text("o")
                    os.rename(top / "other", top / "NAME")
                    assert (top / "Name").read_text() == "o"
                    os.unlink(top / "name")
                fails(errno.ENOENT, os.stat, top / "Name")
                fails(errno.ENOENT, os.stat, top / "nAME")


@test
def what_was_removed_is_there_for_who_holds_it(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            path = stick.folder / "file"
            path.write_bytes(b"old" * 100_000)
            with open(path, "r+b") as file:
                os.unlink(path)
                fails(errno.ENOENT, os.stat, path)
                assert os.fstat(file.fileno()).st_nlink == 0
                (stick.folder / "filler").write_bytes(b"new" * 200_000)
                assert file.read() == b"old" * 100_000
                file.write(b"more")
                file.flush()
                file.seek(0)
                assert file.read() == b"old" * 100_000 + b"more"
            path.write_bytes(b"target")
            (stick.folder / "source").write_bytes(b"source")
            with open(path, "rb") as file:
                os.replace(stick.folder / "source", path)
                assert file.read() == b"target" and path.read_bytes() == b"source"


@test
def who_has_a_file_open_writes_to_it_whatever_its_names_become(scratch):
    """Another spelling removes or renames it: who asks by a name is sent to look anew, who writes by a descriptor is not."""
    for kind in KINDS:
        with door(scratch, kind) as stick:
            top = stick.folder
            for turn in range(60):
                (top / "Name").write_bytes(b"a")
                with open(top / "Name", "r+b", buffering=0) as file:
                    if turn % 2:
                        os.unlink(top / "NAME")
                    else:
                        os.replace(top / "NAME", top / "other")
                    assert os.pwrite(file.fileno(), b"more", 1) == 4
                    fails(errno.ENOENT, open, top / "Name")
                    assert os.pread(file.fileno(), 9, 0) == b"amore"


@test
def a_rename_takes_the_flags_that_vfat_takes(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            one, other = stick.folder / "one", stick.folder / "other"
            one.write_text("1")
            other.write_text("2")
            fails(errno.EEXIST, renameat2, one, other, RENAME_NOREPLACE)
            fails(errno.EINVAL, renameat2, one, other, RENAME_EXCHANGE)
            fails(errno.EINVAL, renameat2, one, other, RENAME_WHITEOUT)
            renameat2(one, stick.folder / "third", RENAME_NOREPLACE)
            os.mkdir(one)
            fails(errno.EINVAL, os.rename, one, one / "below")
            fails(errno.EISDIR, os.rename, other, one)
            fails(errno.ENOTDIR, os.rename, one, other)
            os.mkdir(stick.folder / "full")
            os.rename(other, stick.folder / "full/other")
            fails(errno.ENOTEMPTY, os.rename, one, stick.folder / "full")


@test
def small_files_cost_few_requests(scratch):
    """Written: the folder's attributes, LOOKUP, MKNOD, WRITE. Where the machine is slow, one may be dated once more."""
    number = 200
    for kind in KINDS:
        image = make_image(scratch / f"{kind}.img", kind, 128 * MIB)
        with door(scratch, kind, image=image) as stick:
            (stick.folder / "few").mkdir()
            for i in range(number):
                file = os.open(stick.folder / f"few/file{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.write(file, b"x" * 4096)
                os.close(file)
        assert stick.counts()["requests"] < number * (5.4 if kind == "exfat" else 4.4) + 40, stick.counts()
        with door(scratch, kind, image=image) as stick:
            for path in (stick.folder / "few").iterdir():
                file = os.open(path, os.O_RDONLY)  # open() would ask whether it is a terminal
                assert os.read(file, 65536) == b"x" * 4096
                os.close(file)
        assert stick.counts()["requests"] < number * 1.2 + 30, stick.counts()


def written_by(stick):
    """Bytes, to whichever descriptor."""
    words = pathlib.Path(f"/proc/{stick.process.pid}/io").read_text().split()
    return int(words[words.index("wchar:") + 1])


@test
def large_writes_take_their_places_in_order(scratch):
    """Several threads read them. A write before which there is a gap would have that filled with zeros first."""
    for kind in ("fat16", "exfat"):  # of fat32's small clusters the tables are as much as a few gaps
        with door(scratch, kind, threads=8) as stick:
            (stick.folder / "first").write_bytes(b"x")  # makes the journal
            os.sync()
            before = written_by(stick)
            for number in range(3):
                with open(stick.folder / f"large{number}", "wb") as file:
                    file.write(os.urandom(1 << 20) * 24)
                    os.fsync(file.fileno())
            assert written_by(stick) - before < (72 << 20) * 1.01, (kind, written_by(stick) - before)


@test
def times_of_change_stay_when_the_kernel_forgets_them(scratch):
    """The kernel dates what it gathers: also what it writes long afterwards."""
    for kind in KINDS:
        image = make_image(scratch / f"{kind}.img", kind, 128 * MIB)
        step = 10_000_000 if kind == "exfat" else 2_000_000_000
        with door(scratch, kind, image=image) as stick:
            paths = [stick.folder / name for name in ("late", "again", "set")]
            late = open(paths[0], "wb", buffering=0)
            late.write(b"1")
            for path in paths[1:]:
                path.write_bytes(b"1")
            os.utime(paths[2], ns=(10**18, 10**18 + 4_560_000_000))
            time.sleep(2.5)
            with open(paths[1], "ab") as file:
                file.write(b"2")
            late.close()
            before = [path.stat().st_mtime_ns for path in paths]
        with door(scratch, kind, image=image) as stick:
            after = [(stick.folder / path.name).stat().st_mtime_ns for path in paths]
        assert before[1] - before[0] >= 2 * 10**9, before
        for one, other in zip(before, after):
            assert one // step == other // step, (kind, before, after)


@test
def what_there_is_not_is_refused_as_by_vfat(scratch):
    get_flags, eject = 0x80086601, 0x5309
    for kind in KINDS:
        with door(scratch, kind) as stick:
            path = stick.folder / "file"
            path.write_text("x")
            fails(errno.EPERM, os.symlink, "file", stick.folder / "link")
            fails(errno.EPERM, os.link, path, stick.folder / "link")
            fails(errno.EPERM, os.mkfifo, stick.folder / "fifo")
            fails(errno.EPERM, os.mknod, stick.folder / "node", stat.S_IFCHR)
            fails(errno.EPERM, os.chown, path, 5, -1)
            os.chown(path, 0, 0)
            fails(errno.EOPNOTSUPP, os.setxattr, path, "user.a", b"b")
            fails(errno.EOPNOTSUPP, os.getxattr, path, "user.a")
            assert os.listxattr(path) == []
            with open(path, "rb") as file:
                fails(errno.ENOTTY, fcntl.ioctl, file, get_flags, b"x" * 8)
                fails(errno.ENOTTY, fcntl.ioctl, file, eject)
            fails(errno.EISDIR, open, stick.folder, "wb")
            fails(errno.ENOTDIR, os.listdir, path)
            fails(errno.ENOTDIR, os.stat, path / "below")
            fails(errno.EISDIR, os.unlink, stick.folder)
            for name in ('a"b', "a*b", "a:b", "a<b", "a>b", "a?b", "a\\b", "a|b", "a\x01b"):
                fails(errno.EINVAL, (stick.folder / name).write_text, "")
                fails(errno.ENOENT, os.stat, stick.folder / name)
            fails(errno.ENAMETOOLONG, (stick.folder / ("n" * 256)).write_text, "")
            fails(errno.EINVAL, open, os.fsencode(stick.folder) + b"/\xff\xfe", "wb")
            (stick.folder / ("ä" * 255)).write_text("")
            assert os.statvfs(stick.folder).f_namemax == 765


@test
def attributes_are_those_of_the_options(scratch):
    for kind in KINDS:
        with door(scratch, kind, uid=1234, gid=55, file_mode="0640", folder_mode="0750") as stick:
            path, folder = stick.folder / "file", stick.folder / "folder"
            path.write_text("x")
            folder.mkdir()
            facts = os.stat(path)
            assert (facts.st_uid, facts.st_gid, stat.filemode(facts.st_mode)) == (1234, 55, "-rw-r-----")
            assert stat.filemode(os.stat(folder).st_mode) == "drwxr-x---"
            assert stat.filemode(os.stat(stick.folder).st_mode) == "drwxr-x---"
            os.chmod(path, 0o440)  # the one thing of a mode that is kept
            assert stat.filemode(os.stat(path).st_mode) == "-r--r-----"
            os.chmod(path, 0o777)  # ... and what is not, is no error
            assert stat.filemode(os.stat(path).st_mode) == "-r--r-----"
            os.chmod(path, 0o640)
            assert stat.filemode(os.stat(path).st_mode) == "-rw-r-----"
            fails(errno.EPERM, os.chmod, path, 0o4640)
            os.utime(path, (1_700_000_000, 1_600_000_000))
            assert os.stat(path).st_mtime == 1_600_000_000
            os.utime(stick.folder, (1_700_000_000, 1_600_000_000))
            image = stick.image
        with door(scratch, kind, image=image) as again:
            assert os.stat(again.folder / "file").st_mtime == 1_600_000_000
        reader = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", "cat"]
        with door(scratch, kind, image=image, uid=1234, file_mode="0600") as private:
            (scratch / f"{kind}-0").chmod(0o755)
            refused = subprocess.run([*reader, str(private.folder / "file")], capture_output=True)
            assert b"Permission denied" in refused.stderr


@test
def a_journal_is_nobodys_business(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            (stick.folder / "file").write_text("x")  # makes the journal
            for name in ("CLOCHE.JNL", "cloche.jnl", "Cloche.Jnl", "CLOCHE.JNL.", "CLOCHE.JNL "):
                path = stick.folder / name
                fails(errno.ENOENT, os.stat, path)
                fails(errno.ENOENT, os.unlink, path)
                fails(errno.ENOENT, os.rename, path, stick.folder / "mine")
                fails(errno.EPERM, open, path, "wb")
                fails(errno.EPERM, os.mkdir, path)
                fails(errno.EPERM, os.rename, stick.folder / "file", path)
            assert os.listdir(stick.folder) == ["file"]
            os.mkdir(stick.folder / "folder")
            (stick.folder / "folder/CLOCHE.JNL").write_text("a file like any other")
            image = stick.image
        assert b"CLOCHE  JNL" in image.read_bytes() or "CLOCHE.JNL".encode("utf-16-le") in image.read_bytes()


@test
def a_read_only_door_writes_nothing(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            (stick.folder / "file").write_text("x")
            image = stick.image
        before = image.read_bytes()
        with door(scratch, kind, image=image, read_only=True) as stick:
            run("mount", "-o", "remount,rw", str(stick.folder))  # the door's own refusal
            path = stick.folder / "file"
            assert path.read_text() == "x"
            fails(errno.EROFS, os.truncate, path, 0)
            fails(errno.EROFS, os.unlink, path)
            fails(errno.EROFS, os.mkdir, stick.folder / "folder")
            fails(errno.EROFS, os.rename, path, stick.folder / "other")
            fails(errno.EROFS, open, stick.folder / "new", "wb")
            fails(errno.EROFS, os.utime, path)
            with open(path, "r+b", buffering=0) as file:
                fails(errno.EROFS, file.write, b"y")
        assert image.read_bytes() == before


@test
def a_full_disk_is_told_and_can_be_emptied(scratch):
    for kind in KINDS:
        for through in (True, False):
            options = {"write_through": True} if through else {}
            with door(scratch, kind, size=40 * MIB, **options) as stick:
                free = os.statvfs(stick.folder)
                room = free.f_bavail * free.f_frsize
                full = run("dd", "if=/dev/zero", f"of={stick.folder}/file", "bs=1M", "count=64", code=1)
                assert "No space left" in full.err
                wait_for(lambda: (stick.folder / "file").stat().st_size <= room)
                left = os.statvfs(stick.folder)
                assert left.f_bavail * left.f_frsize < 2 * MIB
                os.unlink(stick.folder / "file")
                data = os.urandom(room // 2)
                wait_for(lambda: os.statvfs(stick.folder).f_bavail * free.f_frsize > room - 2 * MIB)
                (stick.folder / "fits").write_bytes(data)
                image = stick.image
            with door(scratch, kind, image=image) as again:
                assert (again.folder / "fits").read_bytes() == data


@test
def a_size_limit_is_one(scratch):
    for kind in KINDS:
        with door(scratch, kind, size_limit=3 * MIB) as stick:
            facts = os.statvfs(stick.folder)
            assert facts.f_bavail * facts.f_frsize == 3 * MIB
            (stick.folder / "two").write_bytes(b"x" * 2 * MIB)
            facts = os.statvfs(stick.folder)
            assert facts.f_bavail * facts.f_frsize == MIB
            os.unlink(stick.folder / "two")  # what was written was written
            with open(stick.folder / "more", "wb") as file:
                file.write(b"x" * 2 * MIB)
                fails(errno.ENOSPC, os.fsync, file.fileno())
            fails(errno.ENOSPC, os.truncate, stick.folder / "more", 50 * MIB)


@test
def rates_are_kept(scratch):
    for kind in ("fat32", "exfat"):
        with door(scratch, kind, bytes_per_second=4 * MIB) as stick:
            begun = time.monotonic()
            (stick.folder / "file").write_bytes(os.urandom(4 * MIB))
            run("sync", str(stick.folder / "file"))
            written = time.monotonic()
            with open(stick.folder / "file", "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.read()
            read = time.monotonic()
            assert 0.8 < written - begun < 10 and 0.8 < read - written < 10, (written - begun, read - written)
            stick.end()
            assert stick.counts()["delayed"] > 0
        with door(scratch, kind, operations_per_second=200) as stick:
            begun = time.monotonic()
            for i in range(100):
                fails(errno.ENOENT, os.stat, stick.folder / f"no{i}")
            assert 0.35 < time.monotonic() - begun < 10, time.monotonic() - begun
            reader = subprocess.Popen(["find", str(stick.folder), "-name", "x"], stdout=subprocess.DEVNULL)
            assert reader.wait(10) == 0


@test
def an_unmount_is_noticed(scratch):
    for kind in ("fat32", "exfat"):
        with door(scratch, kind) as stick:
            file = open(stick.folder / "file", "wb")
            file.write(b"x" * 100_000)
            busy = run("umount", str(stick.folder), code=32)
            assert "busy" in busy.err
            file.close()
            run("umount", str(stick.folder))
            stick.wait_until_said("unmounted: ")
            stick.end()
            image = stick.image
        with door(scratch, kind, image=image) as again:
            with open(again.folder / "file", "ab") as file:
                run("umount", "-l", str(again.folder))
                file.write(b"y" * 100_000)
            again.wait_until_said("unmounted: ")
            again.end()
        with door(scratch, kind, image=image) as last:
            assert (last.folder / "file").read_bytes() == b"x" * 100_000 + b"y" * 100_000


@test
def an_aborted_connection_is_noticed(scratch):
    control = scratch / "connections"
    control.mkdir()
    run("mount", "-t", "fusectl", "none", str(control))
    try:
        with door(scratch, "exfat") as stick:
            number = os.minor(os.stat(stick.folder).st_dev)
            (control / str(number) / "abort").write_text("1")
            stick.wait_until_said("unmounted: ")
            fails(errno.ENOTCONN, os.stat, stick.folder / "x")
    finally:
        run("umount", str(control))


@test
def a_killed_door_leaves_nobody_waiting(scratch):
    with door(scratch, "exfat", speed=2_000_000, check=False) as stick:
        (stick.folder / "file").write_bytes(b"x" * 8 * MIB)
        writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={stick.folder}/other", "bs=1M", "count=100",
                                   "conv=fsync"], stderr=subprocess.DEVNULL)
        reader = subprocess.Popen(["dd", f"if={stick.folder}/file", "of=/dev/null", "iflag=direct", "bs=1M"],
                                  stderr=subprocess.DEVNULL)
        time.sleep(1)
        stick.process.kill()
        assert writer.wait(20) != 0 and reader.wait(20) != 0 and stick.process.wait(20) != 0
        fails(errno.ENOTCONN, os.listdir, stick.folder)


@test
def a_door_that_is_closed_leaves_nobody_waiting(scratch):
    for options in ({"speed": 4_000_000}, {"bytes_per_second": 200_000}, {"operations_per_second": 20}):
        with door(scratch, "exfat", check=False, **options) as stick:
            programs = [subprocess.Popen(["sh", "-c", f"while dd if=/dev/zero of={i} bs=1M count=4 conv=fsync; do "
                                          ":; done; exit 1"], stderr=subprocess.DEVNULL, cwd=stick.folder)
                        for i in range(6)]
            time.sleep(1)
            begun = time.monotonic()
            stick.end()
            assert time.monotonic() - begun < 15
            assert [program.wait(20) for program in programs] == [1] * 6
            check_image(stick.image, "exfat")


@test
def a_pulled_stick_answers_at_once(scratch):
    for kind in ("fat32", "exfat"):
        with door(scratch, kind, check=False) as stick:
            path = stick.folder / "file"
            path.write_bytes(b"x" * 4 * MIB)
            run("sync", str(path))
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            stick.pull()
            time.sleep(0.2)
            begun = time.monotonic()
            fails_somehow = []
            for function in (lambda: os.pread(file, 100, 0), lambda: os.listdir(stick.folder),
                             lambda: os.mkdir(stick.folder / "new"), lambda: os.stat(stick.folder / "no")):
                try:
                    function()
                except OSError as failure:
                    fails_somehow.append(failure.errno)
            assert fails_somehow and set(fails_somehow) <= {errno.ENODEV, errno.EIO}, fails_somehow
            stick.wait_until_said("gone: ")
            fails(errno.ENODEV, os.stat, stick.folder / "other")
            fails(errno.ENODEV, os.mkdir, stick.folder / "other")
            assert time.monotonic() - begun < 5
            os.close(file)
            stick.end()


@test
def damage_is_an_error_of_reading_and_logged_once(scratch):
    for kind in ("fat32", "exfat"):
        image = make_image(scratch / f"{kind}.img", kind)
        with door(scratch, kind, image=image) as stick:
            os.mkdir(stick.folder / "folder")
            (stick.folder / "folder/file").write_bytes(b"x" * 300_000)
        data = bytearray(image.read_bytes())
        _break_chains(data, kind)
        image.write_bytes(data)
        with door(scratch, kind, image=image, check=False) as stick:
            for _ in range(3):
                fails(errno.EIO, (stick.folder / "folder/file").read_bytes)
            _, log = stick.end()
            assert log.count("a volume cannot be read or written") == 1, log


def _break_chains(data, kind):
    """Where a file's second cluster is told, there is nonsense."""
    if kind == "fat32":
        table = int.from_bytes(data[14:16], "little") * 512
        for i in range(3, 200_000):
            at = table + i * 4
            if int.from_bytes(data[at:at + 4], "little") not in (0, 0x0FFFFFFF):
                data[at:at + 4] = (0x00FFFFF0).to_bytes(4, "little")
    else:
        at = data.rindex(b"f\0i\0l\0e\0") - 2 - 32  # the stream extension before the name
        assert data[at] == 0xC0
        data[at + 20:at + 24] = (0xFFFFFF).to_bytes(4, "little")
        begin = at - 32
        data[begin + 2:begin + 4] = _set_sum(data[begin:begin + 96])


def _set_sum(entries):
    total = 0
    for i, byte in enumerate(entries):
        if i not in (2, 3):
            total = ((total >> 1 | total << 15) + byte) & 0xFFFF
    return total.to_bytes(2, "little")


@test
def doors_of_one_volume_hear_of_each_other(scratch):
    for kind in KINDS:
        with door(scratch, kind, folders=3) as stick:
            one, two, three = stick.folders
            (one / "file").write_text("one")
            assert [folder.joinpath("file").read_text() for folder in stick.folders] == ["one"] * 3
            for turn, writer in enumerate((two, one, three, one, two)):
                text = f"{turn} " * (turn * 3000 + 1)
                (writer / "file").write_text(text)
                for folder in stick.folders:
                    wait_for(lambda: (folder / "file").read_text() == text, timeout=5,
                             what=f"{folder} sees turn {turn} of {writer}")
                (writer / f"new{turn}").mkdir()
                wait_for(lambda: all(f"new{turn}" in os.listdir(folder) for folder in stick.folders), timeout=5)
                os.rename(writer / f"new{turn}", writer / f"moved{turn}")
                wait_for(lambda: not any((folder / f"new{turn}").exists() for folder in stick.folders), timeout=5)
                assert all((folder / f"MOVED{turn}").is_dir() for folder in stick.folders)
            os.unlink(two / "FILE")
            wait_for(lambda: not any((folder / "file").exists() for folder in stick.folders), timeout=5)


@test
def a_file_that_is_open_becomes_longer_by_another_door(scratch):
    """As the log of one container that another follows. The first door is the one with write-back."""
    for kind in KINDS:
        with door(scratch, kind, folders=2) as stick:
            one, two = stick.folders
            (one / "log").write_bytes(b"begun\n")
            expected = b"begun\n"
            with open(one / "log", "rb", buffering=0) as file, open(two / "log", "ab", buffering=0) as log:
                assert file.read() == expected
                for size in (1, 10, 4096 - 17, 1, 4096, 9000, 3):
                    more = os.urandom(size)
                    log.write(more)
                    os.fsync(log.fileno())
                    wait_for(lambda: os.fstat(file.fileno()).st_size == len(expected) + size, what=f"{size} more")
                    assert file.read() == more, size
                    expected += more
                assert os.pread(file.fileno(), 1 << 20, 0) == expected
            assert (one / "log").read_bytes() == (two / "log").read_bytes() == expected


@test
def a_mapping_of_a_file_is_written(scratch):
    import mmap
    for kind in KINDS:
        with door(scratch, kind) as stick:
            path = stick.folder / "file"
            with open(path, "w+b") as file:
                file.truncate(3 * MIB + 100)
                with mmap.mmap(file.fileno(), 0) as memory:
                    memory[MIB:MIB + 5] = b"hello"
                    memory[-4:] = b"last"
                    memory.flush()
            expected = bytearray(3 * MIB + 100)
            expected[MIB:MIB + 5] = b"hello"
            expected[-4:] = b"last"
            assert path.read_bytes() == bytes(expected)
            image = stick.image
        with door(scratch, kind, image=image) as again:
            assert (again.folder / "file").read_bytes() == bytes(expected)


@test
def room_can_be_asked_for(scratch):
    for kind in KINDS:
        with door(scratch, kind, size=40 * MIB) as stick:
            with open(stick.folder / "file", "w+b") as file:
                os.posix_fallocate(file.fileno(), 0, 10 * MIB)
                assert os.fstat(file.fileno()).st_size == 10 * MIB
                assert os.fstat(file.fileno()).st_blocks * 512 >= 10 * MIB
                fails(errno.ENOSPC, os.posix_fallocate, file.fileno(), 0, 100 * MIB)
                assert file.read() == bytes(10 * MIB)


if __name__ == "__main__":
    main()
