"""FAT and exFAT of src/usb/files beside those of others: mkfs.vfat, fsck.fat, mtools, exfatprogs. Volumes
are files; tests/usb/volume_tool.c does to them what a door would."""

import os
import random
import subprocess
import time
import zlib

from harness import BUILD, main, run, test

TOOL = BUILD / "tests/unit/volume-tool"
MTOOLS = {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
LETTERS = "The Quick brown fox, Größe (2) über_ein.日本語 Straße Ελληνικά"


class Volume:
    """An image, our tool and the tools of others on it."""

    def __init__(self, folder, size, sector_size=512, *options):
        self.path = folder / f"volume-{random.randrange(1 << 40):x}.img"
        self.folder = folder
        self.options = ("--sector-size", sector_size, *options)
        with open(self.path, "wb") as file:
            file.truncate(size)

    def tool(self, *words, code=0, options=(), text=True, env=None):
        return run(TOOL, *self.options, *options, self.path, *words, code=code, text=text, env=env,
                   timeout=300)

    def script(self, lines, options=()):
        """The answers to many commands."""
        text = "".join("\t".join(str(word) for word in line) + "\n" for line in lines)
        return run(TOOL, *self.options, *options, self.path, "-", input=text,
                   timeout=300).out.splitlines()

    def check(self):
        out = self.tool("check").out
        assert out == "left 0\n", out

    def fsck(self):
        """Both checks find nothing."""
        self.check()
        result = run("fsck.fat", "-n", self.path, code=None)
        said = result.out
        assert result.code == 0 and len(said.splitlines()) == 2, said

    def fsck_exfat(self):
        self.check()
        result = run("fsck.exfat", "-n", self.path, code=None)
        assert result.code == 0 and ": clean" in result.out, repr(result)

    def mtools(self, name, *words, code=0, env=None, text=True):
        return run(name, "-i", self.path, *words, code=code, env={**MTOOLS, **(env or {})}, text=text)

    def put(self, path, data):
        source = self.folder / "source"
        source.write_bytes(data)
        self.tool("put", source, path)

    def cat(self, path):
        return self.tool("cat", path, text=False).out

    def mput(self, path, data, **more):
        source = self.folder / "source"
        source.write_bytes(data)
        self.mtools("mcopy", "-m", source, f"::{path}", **more)

    def mcat(self, path):
        return self.mtools("mtype", f"::{path}", text=False).out

    def ls(self, options=()):
        """path -> (type, size, CRC-32C, attributes, modified)"""
        found = {}
        for line in self.tool("ls", options=options).out.splitlines():
            kind, size, content, attributes, modified, path = line.split(" ", 5)
            found[path] = (kind, int(size), content, attributes, int(modified))
        return found

    def facts(self, options=()):
        return dict(line.partition(" ")[::2] for line in self.tool("facts", options=options).out.splitlines())

    def bytes_at(self, at, size):
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(size)

    def patch(self, at, data):
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)


def some_bytes(size, seed):
    return random.Random(seed).randbytes(size)


def upper(name):
    """Letter by letter, as volumes do."""
    return "".join(letter.upper() if len(letter.upper()) == 1 else letter for letter in name)


def mkfs(volume, *options):
    run("mkfs.vfat", *options, volume.path)


MKFS = [
    ("1440K", 512, ("-F", 12)),
    ("720K", 512, ("-F", 12, "-r", 112)),
    ("3M", 512, ("-F", 12, "-f", 1)),
    ("16M", 512, ("-F", 12, "-s", 16)),
    ("9M", 512, ("-F", 16, "-s", 1, "-R", 8)),
    ("16M", 512, ("-F", 16, "-r", 1024, "-n", "A LABEL")),
    ("40M", 512, ("-F", 16, "-f", 1, "-s", 4, "-i", "CAFE0123")),
    ("64M", 1024, ("-F", 16, "-S", 1024)),
    ("128M", 2048, ("-F", 16, "-S", 2048)),
    ("128M", 4096, ("-F", 16, "-S", 4096, "-a")),
    ("34M", 512, ("-F", 32, "-s", 1)),
    ("64M", 512, ("-F", 32, "-s", 1, "-R", 64, "-b", 12, "-f", 1)),
    ("100M", 512, ("-F", 32, "-n", "STICK", "-h", 2048)),
    ("300M", 4096, ("-F", 32, "-S", 4096)),
    ("100001024", 512, ("-F", 32, "-g", "16/63", "-a")),
    ("20000256", 512, ("-F", 16, "-a", "-M", "0xF9")),
]


def size_of(text):
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1])
    return int(text[:-1]) * scale if scale else int(text)


@test
def volumes_of_mkfs_are_read_and_written(scratch):
    for size, sector_size, options in MKFS:
        volume = Volume(scratch, size_of(size), sector_size)
        mkfs(volume, *options)
        volume.check()
        theirs, ours = some_bytes(70000, 1), some_bytes(90001, 2)
        volume.mtools("mmd", "::folder of theirs")
        volume.mput("folder of theirs/a file of theirs.bin", theirs)
        assert volume.cat("/folder of theirs/a file of theirs.bin") == theirs, options
        volume.tool("mkdir", "/folder of ours")
        volume.put("/folder of ours/ä file of öurs.bin", ours)
        volume.put("/folder of theirs/OURS.BIN", ours[:5])
        volume.tool("mv", "/folder of theirs/a file of theirs.bin", "/moved.bin")
        volume.fsck()
        assert volume.mcat("folder of ours/ä file of öurs.bin") == ours, options
        assert volume.mcat("moved.bin") == theirs, options
        volume.tool("rm", "/moved.bin")
        volume.tool("rm", "/folder of theirs/OURS.BIN")
        volume.tool("rmdir", "/folder of theirs")
        volume.fsck()
        os.unlink(volume.path)


MKFS_EXFAT = [
    ("3M", ("-c", 512)), ("8M", ()), ("64M", ("-c", "4K", "-L", "Größe 日本語")), ("64M", ("-b", "4M")),
    ("200M", ("--pack-bitmap",)), ("2G", ("-c", "32M")), ("40G", ()), ("3T", ("-c", "32M")),
]
FORMATS_EXFAT = [
    ("1M", 512, ()), ("8M", 512, ("cluster=512", "label=Größe 日本語", "id=0xCAFE0123")), ("8M", 1024, ()),
    ("16M", 2048, ("cluster=2048",)), ("64M", 4096, ()), ("2G", 512, ("cluster=33554432",)),
    ("3T", 512, ("cluster=33554432",)), ("3T", 4096, ("cluster=33554432",)),
]


def use_exfat(volume, options):
    """Files and folders, and one that is larger than FAT could have."""
    data = some_bytes(90001, 2)
    volume.tool("mkdir", "/folder of ours")
    volume.put("/folder of ours/ä file of öurs.bin", data)
    volume.tool("mv", "/folder of ours/ä file of öurs.bin", "/moved.bin")
    large = volume.path.stat().st_size // 8
    volume.put("/large", b"begins")
    volume.tool("truncate", "/large", large)
    volume.fsck_exfat()
    assert volume.cat("/moved.bin") == data, options
    facts = volume.facts()
    assert facts["kind"] == "exfat", facts
    free = int(facts["free"])
    volume.tool("rm", "/large")
    assert int(volume.facts()["free"]) > free, options
    volume.tool("rm", "/moved.bin")
    volume.tool("rmdir", "/folder of ours")
    volume.fsck_exfat()


@test
def volumes_of_mkfs_exfat_are_read_and_written(scratch):
    for size, options in MKFS_EXFAT:
        volume = Volume(scratch, size_of(size))
        run("mkfs.exfat", *options, volume.path)
        volume.check()
        if "-L" in options:
            assert volume.facts()["label"] == options[-1], volume.facts()
        use_exfat(volume, options)
        os.unlink(volume.path)


@test
def what_we_format_as_exfat_others_take(scratch):
    for size, sector_size, options in FORMATS_EXFAT:
        volume = Volume(scratch, size_of(size), sector_size)
        volume.patch(0, some_bytes(65536, 3))
        volume.tool("format", "exfat", *options)
        volume.fsck_exfat()
        said = run("dump.exfat", volume.path).out
        wanted = dict(word.split("=") for word in options)
        if "label" in wanted:
            assert f"{wanted['label']}" in said and "0xcafe0123" in said.lower(), said
        if "cluster" in wanted:
            assert wanted["cluster"] in said, said
        use_exfat(volume, options)
        os.unlink(volume.path)


@test
def labels_and_numbers_are_those_that_mkfs_gave(scratch):
    volume = Volume(scratch, 40 << 20)
    mkfs(volume, "-F", 32, "-s", 1, "-n", "THEIR LABEL", "-i", "CAFE0123")
    facts = volume.facts()
    assert (facts["label"], facts["id"], facts["kind"]) == ("THEIR LABEL", "cafe0123", "fat32"), facts
    volume.tool("label", "ours")
    assert volume.facts()["label"] == "OURS"
    volume.fsck()
    assert "Volume label is OURS" in volume.mtools("mlabel", "-s", "::").out
    volume.tool("label", "grüne ÉÅ")
    assert volume.facts()["label"] == "GRÜNE ÉÅ"
    volume.tool("label")
    volume.fsck()
    assert volume.facts()["label"] == ""


@test
def names_of_mtools_are_ours(scratch):
    volume = Volume(scratch, 20 << 20)
    mkfs(volume, "-F", 16)
    names = ["PLAIN.TXT", "lower.txt", "Mixed Case.Text", "two.dots.in.it", "日本語の名前.txt",
             "Grüße aus Köln.txt", "x" * 255, "a", "+,;=[].txt"]
    for name in names:
        volume.mput(name, name.encode())
    assert {path[1:] for path in volume.ls()} == set(names)
    for name in names:
        assert volume.cat("/" + upper(name)) == name.encode(), name
    volume.tool("rm", "/" + names[0])
    volume.fsck()


@test
def names_of_ours_are_those_of_mtools(scratch):
    volume = Volume(scratch, 20 << 20)
    volume.tool("format", "fat16")
    names = ["PLAIN.TXT", "lower.txt", "Mixed Case.Text", "two.dots.in.it", "日本語の名前.txt",
             "Grüße aus Köln.txt", "y" * 255, "b", "+,;=[].txt", "ends in.x y"]
    names += [f"alike but for the end {i}.txt" for i in range(40)]
    for name in names:
        volume.put("/" + name, name.encode())
    for name in names:
        quoted = name.replace("[", "\\[").replace("]", "\\]")
        assert volume.mcat(quoted) == name.encode(), name
    volume.fsck()
    for name in ("a/", "what?", "st*r", "quo\"te", "dot.", "blank ", "..", "c:d"):
        assert "error" in volume.script([["mkdir", "/" + name.rstrip("/") + "\x01" * name.endswith("/")]])[0], name
    volume.fsck()


@test
def short_names_are_read_by_their_code_page(scratch):
    volume = Volume(scratch, 20 << 20)
    mkfs(volume, "-F", 16)
    volume.put("/PLAIN.TXT", b"x")
    root = volume.bytes_at(0, 1 << 20).index(b"PLAIN   TXT")
    volume.patch(root, b"K\x99LN    TXT")
    assert "/KÖLN.TXT" in volume.ls()
    assert "/KÖLN.TXT" in volume.ls(["--codepage", "cp850"])
    assert "/K™LN.TXT" in volume.ls(["--codepage", "cp1252"])
    assert "/KЩLN.TXT" in volume.ls(["--codepage", "cp866"])
    assert "no code page" in volume.tool("ls", options=["--codepage", "cp1"], code=1).err
    volume.tool("rm", "/köln.txt", options=["--codepage", "cp850"])
    volume.fsck()


@test
def local_times_are_those_of_the_zone(scratch):
    volume = Volume(scratch, 20 << 20)
    mkfs(volume, "-F", 16)
    source = scratch / "dated"
    source.write_bytes(b"x")
    os.utime(source, (1700000000, 1700000000))
    run("mcopy", "-m", "-i", volume.path, source, "::", env={**MTOOLS, "TZ": "UTC-2"})
    assert volume.ls(["--minutes-east", "120"])["/dated"][4] == 1700000000
    assert volume.ls()["/dated"][4] == 1700000000 + 7200
    volume.tool("times", "/dated", 1600000000, options=["--minutes-east", "-300"])
    assert "2020-09-13   7:26" in run("mdir", "-i", volume.path, "::", env=MTOOLS).out
    assert volume.ls(["--minutes-east", "-300"])["/dated"][4] == 1600000000


@test
def attributes_are_kept(scratch):
    volume = Volume(scratch, 20 << 20)
    mkfs(volume, "-F", 16)
    volume.mput("theirs.txt", b"x")
    volume.mtools("mattrib", "+r", "+h", "-a", "::theirs.txt")
    assert volume.ls()["/theirs.txt"][3] == "rh--"
    volume.tool("attributes", "/theirs.txt", "sa")
    assert volume.mtools("mattrib", "::theirs.txt").out.split("::")[0].split() == ["A", "S"]
    volume.fsck()


FORMATS = [
    ("fat12", "160K", 512, ()), ("fat12", "1440K", 512, ("label=FLOPPY",)), ("fat12", "1M", 4096, ()),
    ("fat12", "30M", 512, ("cluster=65536",)), ("fat16", "5M", 512, ("id=0x12345678",)),
    ("fat16", "100M", 512, ("hidden=2048", "label=Green")), ("fat16", "40M", 2048, ()),
    ("fat16", "64M", 4096, ()), ("fat16", "70001K", 1024, ()), ("fat32", "40M", 512, ("cluster=512",)),
    ("fat32", "300M", 512, ()), ("fat32", "600M", 4096, ()), ("fat32", "70M", 1024, ()),
    ("fat32", "9000M", 512, ("label=LARGE",)), ("fat32", "70000M", 512, ("cluster=65536",)),
]


@test
def what_we_format_others_take(scratch):
    for kind, size, sector_size, options in FORMATS:
        volume = Volume(scratch, size_of(size), sector_size)
        volume.patch(0, some_bytes(65536, 3))
        volume.tool("format", kind, *options)
        volume.fsck()
        facts = volume.facts()
        assert facts["kind"] == kind, facts
        for option in options:
            name, value = option.split("=")
            if name == "id":
                assert int(facts["id"], 16) == int(value, 0)
            if name == "label":
                assert facts["label"] == value.upper(), facts
            if name == "cluster":
                assert facts["cluster"] == value
            if name == "hidden":
                assert int.from_bytes(volume.bytes_at(28, 4), "little") == int(value)
        volume.mput("theirs", b"theirs")
        volume.put("/ours", b"ours")
        assert (volume.cat("/theirs"), volume.mcat("ours")) == (b"theirs", b"ours"), kind
        volume.fsck()
        os.unlink(volume.path)


@test
def what_cannot_be_formatted_is_refused(scratch):
    for kind, size, sector_size, options, word in [
            ("fat32", "20M", 512, (), "fat32 has 65541 to"), ("fat16", "1M", 512, (), "fat16 has 4101 to"),
            ("fat12", "200M", 512, ("cluster=4096",), "fat12 has 1 to 4068"),
            ("fat16", "64M", 512, ("cluster=100",), "no cluster size: 100"),
            ("fat16", "64M", 4096, ("cluster=2048",), "no cluster size: 2048"),
            ("fat16", "64M", 512, ("label=much too long",), "at most 11"),
            ("fat16", "64M", 512, ("label=a*b",), "no label of FAT"),
            ("fat16", "64M", 512, ("hidden=5000000000",), "counts at most"),
            ("fat32", "2200000M", 512, (), "counts at most"),
            ("fat12", "1K", 512, (), "fat12 has")]:
        volume = Volume(scratch, size_of(size), sector_size)
        assert word in volume.tool("format", kind, *options, code=1).err, (kind, size)
        assert volume.bytes_at(0, 512) == bytes(512)
        os.unlink(volume.path)


# Damage.

class Fat:
    """The layout of an image, to break it in a certain place."""

    def __init__(self, volume):
        boot = volume.bytes_at(0, 512)
        number = lambda at, size: int.from_bytes(boot[at:at + size], "little")
        self.volume = volume
        self.sector = number(11, 2)
        self.cluster = boot[13] * self.sector
        self.table = number(14, 2) * self.sector
        self.table_size = (number(22, 2) or number(36, 4)) * self.sector
        self.bits = 32 if number(22, 2) == 0 else 16 if "fat16" in volume.facts()["kind"] else 12
        self.root = self.table + boot[16] * self.table_size
        self.data = self.root + number(17, 2) * 32
        if self.bits == 32:
            self.root = self.data

    def set(self, cluster, value, tables=(0, 1)):
        for table in tables:
            at = self.table + table * self.table_size
            if self.bits == 12:
                at += cluster + cluster // 2
                old = int.from_bytes(self.volume.bytes_at(at, 2), "little")
                new = (old & 0xF) | value << 4 if cluster % 2 else (old & 0xF000) | value
                self.volume.patch(at, new.to_bytes(2, "little"))
            else:
                size = self.bits // 8
                self.volume.patch(at + cluster * size, value.to_bytes(size, "little"))

    def find(self, short):
        """Where the entry with this short name is, and its first cluster."""
        whole = self.volume.bytes_at(self.root, 4 << 20)
        at = whole.index(short)
        first = int.from_bytes(whole[at + 26:at + 28], "little")
        return self.root + at, first

    def at(self, cluster):
        return self.data + (cluster - 2) * self.cluster


def populate(volume):
    volume.put("/WHOLE.BIN", some_bytes(50000, 5))
    volume.put("/BROKEN.BIN", some_bytes(50000, 6))
    volume.put("/a long name for it.bin", some_bytes(3000, 7))
    volume.script([["mkdir", "/FOLDER"], ["mkdir", "/FOLDER/BELOW"]])
    volume.put("/FOLDER/BELOW/DEEP.BIN", some_bytes(5000, 8))


def damage_copies(fat):
    fat.set(fat.find(b"BROKEN  BIN")[1], 0, tables=(1,))


def damage_loop(fat):
    first = fat.find(b"BROKEN  BIN")[1]
    fat.set(first + 1, first)


def damage_cross(fat):
    fat.set(fat.find(b"BROKEN  BIN")[1], fat.find(b"WHOLE   BIN")[1] + 1)


def damage_free(fat):
    fat.set(fat.find(b"BROKEN  BIN")[1] + 1, 0)


def damage_beyond(fat):
    fat.set(fat.find(b"BROKEN  BIN")[1], (1 << min(fat.bits, 28)) - 20)


def damage_size(fat):
    at = fat.find(b"BROKEN  BIN")[0]
    fat.volume.patch(at + 28, (500).to_bytes(4, "little"))


def damage_size_more(fat):
    at = fat.find(b"BROKEN  BIN")[0]
    fat.volume.patch(at + 28, (5000000).to_bytes(4, "little"))


def damage_name(fat):
    fat.volume.patch(fat.find(b"BROKEN  BIN")[0], b"B*O\x02EN  B|N")


def damage_twice(fat):
    fat.volume.patch(fat.find(b"BROKEN  BIN")[0], b"WHOLE   BIN")


def damage_long(fat):
    at = fat.find(b"ALONGN~1BIN")[0]
    fat.volume.patch(at, b"\xe5")


def damage_dotdot(fat):
    at = fat.at(fat.find(b"BELOW      ")[1])
    fat.volume.patch(at + 32 + 26, (9).to_bytes(2, "little"))


def damage_dot(fat):
    at = fat.at(fat.find(b"BELOW      ")[1])
    fat.volume.patch(at, b"X")


def damage_folder(fat):
    at = fat.at(fat.find(b"FOLDER     ")[1])
    fat.volume.patch(at, some_bytes(64, 9))


def damage_lost(fat):
    fat.volume.patch(fat.find(b"BROKEN  BIN")[0], b"\xe5")


def damage_first(fat):
    fat.volume.patch(fat.find(b"BROKEN  BIN")[0] + 26, b"\0\0")


def damage_mark(fat):
    fat.volume.patch(65 if fat.bits == 32 else 37, b"\x01")


def damage_info(fat):
    if fat.bits == 32:
        fat.volume.patch(512 + 488, (77).to_bytes(4, "little"))


def damage_backup(fat):
    if fat.bits == 32:
        fat.volume.patch(6 * fat.sector + 100, b"other")


def damage_boot(fat):
    if fat.bits == 32:
        fat.volume.patch(0, bytes(512))


DAMAGE = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@test
def damage_is_found_and_repaired(scratch):
    for kind, size in ("fat12", "4M"), ("fat16", "20M"), ("fat32", "40M"):
        clean = Volume(scratch, size_of(size))
        clean.tool("format", kind)
        populate(clean)
        clean.fsck()
        whole = clean.path.read_bytes()
        for damage in DAMAGE:
            volume = Volume(scratch, 0)
            volume.path.write_bytes(whole)
            damage(Fat(volume))
            changed = volume.path.read_bytes() != whole
            found = volume.tool("check").out
            assert ("found: " in found) == changed, (kind, damage.__name__, found)
            assert "left 0" in volume.tool("repair").out, (kind, damage.__name__)
            volume.fsck()
            assert volume.cat("/WHOLE.BIN") == some_bytes(50000, 5), (kind, damage.__name__)
            os.unlink(volume.path)


@test
def what_was_lost_is_in_lost_dir(scratch):
    volume = Volume(scratch, 20 << 20)
    volume.tool("format", "fat16")
    populate(volume)
    damage_lost(Fat(volume))
    damage_folder(Fat(volume))
    said = volume.tool("repair").out
    assert "lost chains: 4" in said and "LOST.DIR" in said, said
    volume.fsck()
    found = [volume.cat(path) for path in volume.ls() if path.startswith("/LOST.DIR/")]
    assert any(content.startswith(some_bytes(50000, 6)) for content in found)
    assert any(content.startswith(some_bytes(5000, 8)) for content in found)
    damage_lost(Fat(volume)) if b"BROKEN  BIN" in volume.bytes_at(0, 1 << 20) else None
    names = [path for path in volume.ls() if path.startswith("/LOST.DIR/")]
    assert len(names) == 4 and "/LOST.DIR/FILE0000.CHK" in names, names


# Sequences of operations by chance, beside a model.

class Model:
    """What a volume should have: path -> content, or None of a folder."""

    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.entries = {}
        self.folder = folder
        self.source = folder / f"chance-{seed}"
        self.source.write_bytes(some_bytes(300000, seed))
        self.content = self.source.read_bytes()

    def folders(self):
        return [""] + [path for path, content in self.entries.items() if content is None]

    def files(self):
        return [path for path, content in self.entries.items() if content is not None]

    def new_path(self):
        length = self.random.choice([1, 3, 8, 20, 60])
        name = "".join(self.random.choice(LETTERS) for _ in range(length)).strip(" .") or "x"
        path = f"{self.random.choice(self.folders())}/{name}"
        taken = {known.casefold() for known in self.entries}
        return None if path.casefold() in taken or path.count("/") > 5 else path

    def step(self):
        """A command, which this model has carried out."""
        what = self.random.choice(["put", "put", "append", "mkdir", "rm", "rmdir", "mv", "replace", "truncate"])
        files, path = self.files(), self.new_path()
        some = self.random.choice(files) if files else None
        if what == "put" and path:
            cut = self.folder / f"cut-{self.random.randrange(20)}"
            data = self.content[:self.random.choice([0, 1, 511, 512, 4096, 20000, 100001])]
            if not cut.exists():
                cut.write_bytes(data)
            self.entries[path] = cut.read_bytes()
            return ["put", cut, path]
        if what == "append" and some and len(self.entries[some]) < 600000:
            self.entries[some] += self.content
            return ["append", self.source, some]
        if what == "mkdir" and path:
            self.entries[path] = None
            return ["mkdir", path]
        if what == "rm" and some:
            del self.entries[some]
            return ["rm", some]
        if what == "rmdir":
            empty = [folder for folder in self.folders()[1:]
                     if not any(known.startswith(folder + "/") for known in self.entries)]
            if empty:
                del self.entries[empty[0]]
                return ["rmdir", empty[0]]
        if what == "mv" and path and len(self.entries) > 1:
            return self.move(self.random.choice(list(self.entries)), path)
        if what == "replace" and len(files) > 1:
            other = self.random.choice([file for file in files if file != some])
            self.entries[other] = self.entries.pop(some)
            return ["replace", some, other]
        if what == "truncate" and some:
            size = self.random.choice([0, 1, 1000, 70000])
            self.entries[some] = self.entries[some][:size].ljust(size, b"\0")
            return ["truncate", some, size]
        return None

    def move(self, path, to):
        if (to + "/").startswith(path + "/"):
            return None
        for known in [known for known in self.entries if known == path or known.startswith(path + "/")]:
            self.entries[to + known[len(path):]] = self.entries.pop(known)
        return ["mv", path, to]


def crc32c(data):
    table = crc32c.table
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return f"{crc ^ 0xFFFFFFFF:08x}"


def make_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0x82F63B78 * (byte & 1)
        table.append(byte)
    return table


crc32c.table = make_table()


def run_by_chance(volume, seed, steps, folder):
    model, lines = Model(seed, folder), []
    while len(lines) < steps:
        line = model.step()
        if line:
            lines.append(line)
    answers = volume.script(lines)
    for line, answer in zip(lines, answers):
        assert answer == "ok", (seed, line, answer)
    seen = volume.ls()
    wanted = set(model.entries)
    assert set(seen) == wanted, (seed, set(seen) ^ wanted)
    for path, content in model.entries.items():
        assert (seen[path][0] == "d") == (content is None), (seed, path)
        if content is not None:
            assert seen[path][1] == len(content), (seed, path)
    return model


@test
def operations_by_chance_on_fat(scratch):
    for seed, (kind, size) in enumerate([("fat12", "8M"), ("fat16", "40M"), ("fat32", "60M"), ("fat12", "20M")]):
        volume = Volume(scratch, size_of(size))
        volume.tool("format", kind)
        model = run_by_chance(volume, seed, 400, scratch)
        volume.fsck()
        target = scratch / f"out-{seed}"
        target.mkdir()
        volume.mtools("mcopy", "-s", "-n", "::*", target)
        for path, content in model.entries.items():
            there = target / path[1:]
            assert there.is_dir() if content is None else there.read_bytes() == content, (seed, path)
        os.unlink(volume.path)


@test
def operations_by_chance_on_exfat(scratch):
    for seed, sector_size in (11, 512), (12, 4096):
        volume = Volume(scratch, 60 << 20, sector_size)
        run("mkfs.exfat", volume.path) if sector_size == 512 else volume.tool("format", "exfat")
        model = run_by_chance(volume, seed, 400, scratch)
        for path in random.Random(seed).sample(model.files(), min(10, len(model.files()))):
            assert volume.cat(path) == model.entries[path], (seed, path)
        volume.fsck_exfat()
        os.unlink(volume.path)


# Limits.

@test
def a_full_volume_says_so_and_stays_whole(scratch):
    for kind, size in ("fat12", "2M"), ("fat16", "5M"), ("fat32", "34M"), ("exfat", "5M"):
        volume = Volume(scratch, size_of(size))
        volume.tool("format", kind)
        large = scratch / "large"
        large.write_bytes(some_bytes(1 << 20, 4))
        answers = volume.script([["put", large, f"/file {i}"] for i in range(40)])
        assert answers[0] == "ok" and answers[-1].startswith("error 28"), answers
        answers = volume.script([["mkdir", f"/folder {i}"] for i in range(80000)][:3000])
        assert answers[-1].startswith("error 28"), answers[-1]
        volume.fsck_exfat() if kind == "exfat" else volume.fsck()
        assert volume.cat("/file 0") == large.read_bytes()
        volume.tool("rm", "/file 0")
        volume.put("/file 0", b"there is room again")
        volume.fsck_exfat() if kind == "exfat" else volume.fsck()
        os.unlink(volume.path)


@test
def many_entries_take_their_time_only_once(scratch):
    """Twice as many take about twice as long, not four times."""
    for kind, size, count in ("fat32", "200M", 8000), ("exfat", "200M", 50000):
        took = []
        for n in (count, 2 * count):
            volume = Volume(scratch, size_of(size))
            volume.tool("format", kind)
            started = time.monotonic()
            answers = volume.script([["mkdir", "/many"], ["many", "/many", n], ["names", "/many"]])
            assert answers == ["ok", "ok", str(n), "ok"], answers
            took.append(time.monotonic() - started)
            volume.check()
            if n > count:
                assert volume.script([["clear", "/many"], ["names", "/many"]]) == ["ok", "0", "ok"]
            os.unlink(volume.path)
        assert took[1] < 3 * took[0] + 1, (kind, took)


@test
def a_folder_of_fat_ends_at_65536_entries(scratch):
    volume = Volume(scratch, 100 << 20)
    volume.tool("format", "fat32")
    answers = volume.script([["mkdir", "/m"], ["many", "/m", 70000, "F"], ["names", "/m"]])
    assert answers[1].startswith("error 28") and answers[2] == "65534", answers
    volume.check()  # fsck.fat takes minutes for so many
    assert volume.script([["clear", "/m"], ["rmdir", "/m"]]) == ["ok", "ok"]
    volume.fsck()


@test
def a_file_of_four_gigabytes_less_one(scratch):
    volume = Volume(scratch, 5 << 30)
    volume.tool("format", "fat32")
    (scratch / "end").write_bytes(b"end")
    answers = volume.script([["fill", "/large", (1 << 32) - 4], ["append", scratch / "end", "/large"],
                             ["append", scratch / "end", "/large"], ["truncate", "/large", 1 << 32]])
    assert answers[:2] == ["ok", "ok"], answers
    assert answers[2].startswith("error 27") and answers[3].startswith("error 27"), answers
    volume.check()
    assert "4294967295" in volume.mtools("mdir", "::large").out
    volume.tool("truncate", "/large", (1 << 32) - 8192)  # fsck.fat does not count further
    volume.fsck()
    volume.tool("rm", "/large")
    volume.fsck()


@test
def a_mark_of_use_is_there_while_it_is_written(scratch):
    for kind in "fat16", "fat32", "exfat":
        volume = Volume(scratch, 64 << 20)
        volume.tool("format", kind)
        dirty = lambda: volume.tool("check").out
        before = volume.bytes_at(0, 512)
        volume.tool("mkdir", "/a", options=["--abandon"])
        assert volume.bytes_at(0, 512) != before, "marked"
        volume.tool("repair")
        assert volume.bytes_at(0, 112) == before[:112], dirty()
        run(TOOL, *volume.options, "--abandon", volume.path, "-",
            input="mkdir\t/b\ntick\t1\ntick\t1001\ntick\t2500\ntick\t5000\ntick\t7000\n")
        assert volume.bytes_at(0, 112) == before[:112], "it rests"
        volume.fsck_exfat() if kind == "exfat" else volume.fsck()
        assert "/b" in volume.ls()
        os.unlink(volume.path)


if __name__ == "__main__":
    main()
