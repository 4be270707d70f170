"""Real programs over volumes that a FUSE door serves; afterwards the volume is what its checker wants."""

import mmap
import os
import random
import sqlite3
import subprocess
import threading

from harness import main, run, test
from fuse_doors import KINDS, MIB, door


def _content(seed, size):
    return random.Random(seed).randbytes(size)


def _make_tree(top, files=300):
    """Folders four deep, files of all sizes, names of all kinds."""
    chance = random.Random(7)
    for i in range(files):
        folder = top.joinpath(*(f"folder {chance.randrange(4)}" for _ in range(chance.randrange(5))))
        folder.mkdir(parents=True, exist_ok=True)
        name = chance.choice([f"file{i}", f"A long name with spaces and dots. {i}.text", f"ümläut-{i}",
                              f"名前-{i}.dat", f"UPPER{i}.TXT", f"{i}." + "x" * 200])
        size = chance.choice([0, 1, 511, 512, 513, 4095, 4096, 4097, 30000, 65536, 300001])
        (folder / name).write_bytes(_content(i, size))


def _same(one, other):
    run("diff", "-r", str(one), str(other))


@test
def trees_are_copied_and_packed(scratch):
    tree = scratch / "tree"
    tree.mkdir()
    _make_tree(tree)
    for kind in KINDS:
        with door(scratch, kind) as stick:
            run("cp", "-r", str(tree), str(stick.folder / "copy"))
            _same(tree, stick.folder / "copy")
            run("tar", "-C", str(stick.folder), "-cf", str(stick.folder / "all.tar"), "copy")
            (stick.folder / "out").mkdir()
            run("tar", "-C", str(stick.folder / "out"), "-xf", str(stick.folder / "all.tar"))
            _same(tree, stick.folder / "out/copy")
            run("mv", str(stick.folder / "out/copy"), str(stick.folder / "moved"))
            run("rm", "-r", str(stick.folder / "copy"))
            image = stick.image
        with door(scratch, kind, image=image, read_only=True) as again:
            _same(tree, again.folder / "moved")
            assert sorted(os.listdir(again.folder)) == ["all.tar", "moved", "out"]


@test
def find_and_rsync_see_what_there_is(scratch):
    tree = scratch / "tree"
    tree.mkdir()
    _make_tree(tree)
    for kind in KINDS:
        with door(scratch, kind) as stick:
            run("rsync", "-rt", "--modify-window=2", f"{tree}/", f"{stick.folder}/")
            again = run("rsync", "-rtv", "--modify-window=2", f"{tree}/", f"{stick.folder}/")
            assert [line for line in again.out.splitlines()[1:] if line and line[-1] != "/"][:1] \
                == [line for line in again.out.splitlines() if line.startswith("sent ")], again.out
            checked = run("rsync", "-rcn", "--out-format=%n", f"{tree}/", f"{stick.folder}/")
            assert checked.out == ""
            ours = run("find", ".", "-type", "f", "-printf", "%P %s\n", cwd=stick.folder).out
            theirs = run("find", ".", "-type", "f", "-printf", "%P %s\n", cwd=tree).out
            assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


@test
def databases_work(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            for mode in ("delete", "wal"):
                path = stick.folder / f"{mode}.db"
                base = sqlite3.connect(path)
                assert base.execute(f"pragma journal_mode={mode}").fetchone()[0] == mode
                base.execute("create table t (i integer primary key, v blob)")
                for i in range(40):
                    with base:
                        base.executemany("insert into t (v) values (?)",
                                         ((_content(i * 100 + j, 700),) for j in range(20)))
                with base:
                    base.execute("delete from t where i % 3 = 0")
                base.execute("vacuum")
                other = sqlite3.connect(path)
                assert other.execute("select count(*) from t").fetchone()[0] == 534
                assert other.execute("pragma integrity_check").fetchone()[0] == "ok"
                other.close()
                base.close()
            image = stick.image
        with door(scratch, kind, image=image) as again:
            for mode in ("delete", "wal"):
                base = sqlite3.connect(again.folder / f"{mode}.db")
                assert base.execute("pragma integrity_check").fetchone()[0] == "ok"
                base.close()


@test
def git_clones_and_commits(scratch):
    origin = scratch / "origin"
    origin.mkdir()
    identity = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
                "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(scratch)}

    def git(folder, *args):
        return run("git", "-c", "safe.directory=*", "-C", str(folder), *args, env=identity).out

    _make_tree(origin, 60)
    git(origin, "init", "-q")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    for kind in KINDS:
        with door(scratch, kind) as stick:
            run("git", "-c", "safe.directory=*", "clone", "-q", str(origin), str(stick.folder / "clone"), env=identity)
            clone = stick.folder / "clone"
            assert git(clone, "status", "--porcelain") == ""
            (clone / "new").write_text("new")
            git(clone, "add", "-A")
            git(clone, "commit", "-qm", "two")
            git(clone, "gc", "-q")
            git(clone, "fsck", "--strict")


@test
def blocks_of_odd_sizes_arrive(scratch):
    source = scratch / "source"
    source.write_bytes(_content(1, 3 * MIB + 7))
    for kind in KINDS:
        with door(scratch, kind) as stick:
            for size in (1, 511, 4097, 65535, 1000003):
                count = min(5000, source.stat().st_size // size)
                target = stick.folder / f"of{size}"
                run("dd", f"if={source}", f"of={target}", f"bs={size}", f"count={count}", "status=none")
                run("dd", f"if={source}", f"of={target}", f"bs={size}", "skip=1", f"seek={count + 3}", "count=1",
                    "conv=notrunc", "status=none")
                data = source.read_bytes()
                expected = data[:size * count] + bytes(3 * size) + data[size:2 * size]
                assert target.read_bytes() == expected, (kind, size)
                for step in (513, 65536):
                    back = subprocess.run(["dd", f"if={target}", f"bs={step}", "status=none"], stdout=subprocess.PIPE)
                    assert back.stdout == expected


class _Pair:
    """One file on the stick and one beside it, changed alike."""

    def __init__(self, stick, plain, chance):
        self.files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644) for path in (stick, plain)]
        self.paths, self.chance, self.size, self.most = (stick, plain), chance, 0, 1_500_000

    def _range(self):
        offset = self.chance.randrange(self.most)
        return offset, min(self.chance.choice((1, 100, 5000, 70000, 300000)), self.most - offset)

    def write(self):
        offset, length = self._range()
        data = self.chance.randbytes(length)
        for file in self.files:
            assert os.pwrite(file, data, offset) == length
        self.size = max(self.size, offset + length)

    def read(self):
        offset, length = self._range()
        mine, plain = (os.pread(file, length, offset) for file in self.files)
        assert mine == plain, (offset, length, self.size)

    def truncate(self):
        self.size = self.chance.randrange(self.most)
        for file in self.files:
            os.ftruncate(file, self.size)

    def map(self):
        if self.size == 0:
            return
        offset, length = self._range()
        length = min(length, self.size - offset)
        if length <= 0:
            return
        data = self.chance.randbytes(length)
        for file in self.files:
            with mmap.mmap(file, self.size) as memory:
                memory[offset:offset + length] = data

    def map_read(self):
        if self.size:
            views = []
            for file in self.files:
                with mmap.mmap(file, self.size, prot=mmap.PROT_READ) as memory:
                    views.append(memory[:])
            assert views[0] == views[1]

    def forget(self):
        os.fsync(self.files[0])
        os.posix_fadvise(self.files[0], 0, 0, os.POSIX_FADV_DONTNEED)

    def reopen(self):
        for i, path in enumerate(self.paths):
            os.close(self.files[i])
            self.files[i] = os.open(path, os.O_RDWR)
        assert os.fstat(self.files[0]).st_size == self.size

    def close(self):
        for file in self.files:
            os.close(file)
        assert open(self.paths[0], "rb").read() == open(self.paths[1], "rb").read()


@test
def random_changes_of_a_file_are_those_of_a_plain_one(scratch):
    seed = int(os.environ.get("CLOCHE_TEST_SEED", "1"))
    for kind in KINDS:
        for through in (False, True):
            options = {"write_through": True} if through else {}
            with door(scratch, kind, **options) as stick:
                pair = _Pair(stick.folder / "file", scratch / "plain", random.Random(seed))
                steps = [pair.write] * 6 + [pair.read] * 6 + [pair.map, pair.truncate, pair.map_read, pair.forget,
                                                            pair.reopen]
                for _ in range(600):
                    pair.chance.choice(steps)()
                pair.close()
                image = stick.image
            with door(scratch, kind, image=image) as again:
                assert (again.folder / "file").read_bytes() == (scratch / "plain").read_bytes()


@test
def many_append_and_write_at_once(scratch):
    writer = "import os, sys\nfile = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n" \
             "for i in range(400):\n    os.write(file, f'{sys.argv[2]} {i:05} {\"x\" * (i % 90)}\\n'.encode())\n"
    for kind in KINDS:
        with door(scratch, kind) as stick:
            log = stick.folder / "log"
            writers = [subprocess.Popen(["python3", "-c", writer, str(log), str(i)]) for i in range(4)]
            failures = []

            def copy(number):
                data = _content(number, 2 * MIB + number)
                for turn in range(5):
                    path = stick.folder / f"copy {number} {turn}"
                    path.write_bytes(data)
                    if path.read_bytes() != data:
                        failures.append(path)

            threads = [threading.Thread(target=copy, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [process.wait() for process in writers] == [0] * 4 and not failures
            lines = log.read_text().splitlines()
            expected = [f"{i} {n:05} {'x' * (n % 90)}" for i in range(4) for n in range(400)]
            assert sorted(lines) == sorted(expected)


@test
def ten_thousand_files(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            folder = stick.folder / "many"
            folder.mkdir()
            names = {f"n{i:05}" for i in range(10_000)}
            for name in names:
                os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            assert set(os.listdir(folder)) == names
            assert sum(1 for entry in os.scandir(folder) if entry.stat().st_size == 0) == 10_000
            run("find", str(folder), "-name", "*[13579]", "-delete")
            left = {name for name in names if name[-1] in "02468"}
            assert set(os.listdir(folder)) == left
            run("rm", "-r", str(folder))
            assert os.listdir(stick.folder) == []


@test
def a_folder_may_change_while_it_is_read(scratch):
    for kind in KINDS:
        with door(scratch, kind) as stick:
            stay = {f"stays-{i:04}" for i in range(1000)}
            folder = stick.folder / "changing" # a root folder of FAT16 has room for 512 entries
            folder.mkdir()
            for name in stay:
                (folder / name).touch()
            ended = threading.Event()

            def change():
                turn = 0
                while not ended.is_set():
                    path = folder / f"passes-{turn % 50}"
                    path.write_text("x")
                    os.rename(path, folder / f"renamed-{turn % 50}")
                    os.unlink(folder / f"renamed-{turn % 50}")
                    turn += 1

            changer = threading.Thread(target=change)
            changer.start()
            try:
                for _ in range(20):
                    seen = [name for name in os.listdir(folder) if name.startswith("stays-")]
                    assert len(seen) == 1000 and set(seen) == stay
            finally:
                ended.set()
                changer.join()


if __name__ == "__main__":
    main()
