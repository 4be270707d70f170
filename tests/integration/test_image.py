"""src/store and src/image through image_probe: images by other tools in and out, hostile archives,
commits, and what is left on the disk afterwards."""

import gzip
import io
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import tarfile
import time

import layers as made
from harness import BUILD, main, note, program, run, test, wait_for
from layers import entry, link

PROBE = BUILD / "tests" / "integration" / "image_probe"

# Prints what a tree is, a line a file, without times.
_TREE = r"""
import hashlib, os, stat
for folder, folders, files in os.walk("."):
    for name in sorted(folders + files):
        path = os.path.join(folder, name)
        status = os.lstat(path)
        line = f"{path} {stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        if stat.S_ISLNK(status.st_mode):
            line += " -> " + os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            line += f" {hashlib.sha256(open(path, 'rb').read()).hexdigest()[:16]} {status.st_nlink}"
        elif not stat.S_ISDIR(status.st_mode):
            line += f" {os.major(status.st_rdev)},{os.minor(status.st_rdev)}"
        if not stat.S_ISLNK(status.st_mode):
            line += "".join(f" {name}={os.getxattr(path, name).hex()}"
                            for name in sorted(os.listxattr(path)))
        print(line)
"""


def tree_of(folder):
    return sorted(run("python3", "-c", _TREE, cwd=folder).lines)


class Store:
    def __init__(self, folder):
        self.root = pathlib.Path(folder) / "root"
        self.containers = 0

    def probe(self, *words, **options):
        env = {"IMAGE_WORKER": str(program("cloche-image"))}
        return run(PROBE, self.root, *words, env=env, **options)

    def load(self, archive, **options):
        with open(archive, "rb") as file:
            return self.probe("load", stdin=file, **options)

    def load_bytes(self, data, **options):
        path = self.root.parent / "archive.tar"
        path.write_bytes(data)
        return self.load(path, **options)

    def refuse(self, data, *words, **options):
        """Loads what must be refused with all these words in the message, and leave nothing."""
        before = self.files()
        result = self.load_bytes(data, code=1, **options)
        for word in words:
            assert word in result.err, f"'{word}' is not in: {result.err}"
        assert result.err.count("\n") == 1, result.err
        assert self.files() == before, "something was left behind"
        return result.err

    def save(self, path, *names):
        with open(path, "wb") as out:
            process = subprocess.run([PROBE, self.root, "save", *names], stdout=out,
                                     env={**os.environ, "IMAGE_WORKER": program("cloche-image")},
                                     stderr=subprocess.PIPE, check=False)
        assert process.returncode == 0, process.stderr

    def container(self, image):
        self.containers += 1
        name = f"{self.containers:04x}"
        self.probe("prepare", name, image)
        return name

    def enter(self, container, *words):
        return self.probe("enter", container, *words)

    def tree(self, image):
        container = self.container(image)
        try:
            return sorted(self.enter(container, "python3", "-c", _TREE).lines)
        finally:
            self.probe("remove", container)

    def images(self):
        return [line for line in self.probe("list").lines if not line.endswith(" host:latest")]

    def files(self):
        """Everything but the database, the image host and the engine's own layer."""
        found = []
        for folder in ("content/sha256", "staging", "containers"):
            path = self.root / folder
            found += [f"{folder}/{name}" for name in os.listdir(path)] if path.is_dir() else []
        layers = self.root / "layers"
        found += [f"layers/{name}" for name in os.listdir(layers)
                  if name not in ("0", "1", "engine")] if layers.is_dir() else []
        return sorted(found)


def unpack(archive, reference, folder):
    """The tree that umoci makes of a saved archive."""
    layout = folder / "layout"
    run("skopeo", "--insecure-policy", "copy", "--quiet", reference, f"oci:{layout}:x")
    run("umoci", "unpack", "--image", f"{layout}:x", folder / "bundle")
    tree = tree_of(folder / "bundle" / "rootfs")
    run("rm", "-rf", layout, folder / "bundle")
    return tree


# ---------------------------------------------------------------- images by other tools

@test
def every_form_of_an_image_is_the_same_image(images, scratch):
    store = Store(scratch)
    ids = set()
    for archive in (images.small(), images.docker_archive(), images.recompressed("zstd"),
                    images.recompressed("plain"), images.recompressed("gzip")):
        identity, name = store.load(archive).out.split()
        assert name == "small:1"
        ids.add(identity)
    assert len(ids) == 1, ids
    assert store.tree("small:1") == tree_of(images.root())


@test
def an_archive_may_be_compressed_and_come_through_a_pipe(images, scratch):
    store = Store(scratch)
    for command in ("gzip", "zstd", "cat"):
        packed = subprocess.Popen([command], stdin=open(images.small(), "rb"),
                                  stdout=subprocess.PIPE)
        assert "small:1" in store.probe("load", stdin=packed.stdout).out
        packed.stdout.close()
        assert packed.wait() == 0


@test
def buildah_images_load(images, scratch):
    store = Store(scratch)
    for kind in ("docker-archive", "oci-archive"):
        archive = images.buildah(scratch / f"{kind}.tar", f"built-{kind}:1",
                                 [("copy", images.root(), "/")], kind, ["--cmd", "/bin/sh"])
        output = store.load(archive).out
        assert output.startswith("sha256:"), output
        tree = store.tree(output.split()[0])
        assert [line for line in tree if "/bin/busybox " in line], tree[:5]


def _second(root):
    os.remove(root / "bin/vi")
    run("rm", "-rf", root / "home")
    run("rm", "-rf", root / "var")
    (root / "var").mkdir()
    (root / "var/new").write_text("new\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    os.link(root / "etc/passwd", root / "etc/passwd.again")
    os.chmod(root / "bin/busybox", 0o4755)
    os.symlink("/etc/../etc/passwd", root / "link")
    (root / "naïve ☃ name").write_text("x")
    (root / ("long" * 40)).mkdir()
    (root / ("long" * 40) / ("name" * 40)).write_text("y")


def _third(root):
    (root / "home").mkdir()
    (root / "home/file").write_text("a folder that came back\n")
    os.mkfifo(root / "pipe")
    os.chown(root / "var/new", 70000, 4000000000)


@test
def whiteouts_mean_what_umoci_means_by_them(images, scratch):
    store = Store(scratch)
    archive = images.umoci(scratch / "three.tar", "three:1", [images.root(), _second, _third])
    store.load(archive)
    expected = unpack(archive, f"oci-archive:{archive}", scratch)
    assert store.tree("three:1") == expected
    assert not [line for line in expected if line.startswith("./home/shop")], "no whiteout at all"


@test
def several_images_share_their_layers(images, scratch):
    store = Store(scratch)
    one = images.umoci(scratch / "one.tar", "one:1", [images.root()])
    store.load(one)
    before = [name for name in store.files() if name.startswith("layers/")]
    two = scratch / "two.tar"
    store.probe("tag", "one:1", "two:2")
    store.save(two, "one:1", "two:2")
    other = Store(scratch / "other")
    other.root.parent.mkdir()
    lines = other.load(two).out.splitlines()
    assert len(lines) == 1 and lines[0].split()[1:] == ["one:1", "two:2"], lines
    assert len([name for name in other.files() if name.startswith("layers/")]) == len(before)


# ---------------------------------------------------------------- saving and committing

@test
def what_is_saved_is_read_by_skopeo_and_umoci(images, scratch):
    store = Store(scratch)
    archive = images.umoci(scratch / "in.tar", "three:1", [images.root(), _second, _third],
                           {"config.env": "A=1", "config.user": "root"})
    identity = store.load(archive).out.split()[0]
    out = scratch / "out.tar"
    store.save(out, "three:1")
    original = images.inspect(f"oci-archive:{archive}")
    for reference in (f"docker-archive:{out}:three:1", f"oci-archive:{out}", f"docker-archive:{out}"):
        seen = images.inspect(reference)
        assert seen["config"] == original["config"], reference
    assert images.inspect(f"oci-archive:{out}")["manifest"] == original["manifest"]
    expected = unpack(archive, f"oci-archive:{archive}", scratch)
    assert unpack(out, f"oci-archive:{out}", scratch) == expected
    assert unpack(out, f"docker-archive:{out}:three:1", scratch) == expected
    again = Store(scratch / "again")
    again.root.parent.mkdir()
    assert again.load(out).out.split() == [identity, "three:1"]
    assert again.tree("three:1") == expected


_CHANGES = r"""
set -e
rm bin/vi
rm -r home
mkdir home && echo back > home/file
echo new > etc/new && ln etc/new etc/new.again && ln -s new etc/link
chmod 4711 bin/busybox && chown 12:34 etc/group
mkdir -p deep/er/est && echo x > deep/er/est/file
mkfifo deep/pipe && mknod deep/null c 1 3
rm -r tmp && echo "no folder now" > tmp
mkdir -m 1777 "with space"
rmdir var && echo a > var && rm var
"""


@test
def a_commit_is_the_container_as_it_was(images, scratch):
    store = Store(scratch)
    store.load(images.small())
    container = store.container("small:1")
    store.enter(container, "sh", "-c", _CHANGES)
    # cap_net_raw+ep, revision 2 (linux/capability.h, struct vfs_cap_data)
    os.setxattr(store.root / "containers" / container / "upper/bin/busybox",
                "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    tree = sorted(store.enter(container, "python3", "-c", _TREE).lines)
    identity = store.probe("commit", container, "small:1", "changed:2").out.strip()
    assert store.tree("changed:2") == tree
    assert [line for line in tree if "security.capability=" in line], "no capability to keep"
    config = json.loads(store.probe("config", "changed:2").out)
    assert config["author"] == "probe" and len(config["rootfs"]["diff_ids"]) == 2
    assert config["config"]["Cmd"] == ["/bin/sh"]
    out = scratch / "out.tar"
    store.save(out, "changed:2")
    assert unpack(out, f"oci-archive:{out}", scratch) == tree
    seen = images.inspect(f"docker-archive:{out}:changed:2")
    assert seen["config"]["rootfs"] == config["rootfs"]
    # The layer itself, since trees cannot show it: marks, and no overlay attributes.
    blob = json.loads(run("skopeo", "--insecure-policy", "inspect", "--raw",
                          f"oci-archive:{out}").out)["layers"][1]["digest"]
    with tarfile.open(store.root / "content/sha256" / blob[7:]) as layer:
        names = layer.getnames()
        assert "bin/.wh.vi" in names and "home/.wh..wh..opq" in names and ".wh.var" in names, names
        assert not [info for info in layer if "overlay" in str(info.pax_headers)]
        assert len([info for info in layer if info.islnk()]) == 1
    store.probe("remove", container)
    store.probe("rmi", "changed:2")
    assert identity not in str(store.images())


@test
def a_commit_of_the_image_host_says_so(scratch):
    store = Store(scratch)
    container = store.container("host")
    store.enter(container, "sh", "-c", "echo hello > etc/hello")
    store.probe("commit", container, "host", "kiosk:1")
    assert [line for line in store.tree("kiosk:1") if line.startswith("./etc/hello ")]
    result = store.probe("save", "kiosk:1", code=1)
    assert "host" in result.err and "cannot be saved" in result.err, result.err
    store.probe("remove", container)


# ---------------------------------------------------------------- removal and crashes

@test
def removing_an_image_removes_all_it_had(images, scratch):
    store = Store(scratch)
    store.load(images.small())
    store.probe("tag", "small:1", "other/name:2")
    assert store.probe("rmi", "small:1").out == "Untagged: small:1\n"
    container = store.container("other/name:2")
    result = store.probe("rmi", "other/name:2", code=1)
    assert "must force" in result.err and container in result.err, result.err
    out = store.probe("rmi", "-f", "other/name:2").out
    assert "Untagged: other/name:2" in out and "Deleted: sha256:" in out
    assert store.images() == []
    assert store.enter(container, "ls", "bin").out.count("\n") > 10, "the container lost its root"
    store.probe("remove", container)
    assert store.files() == []


@test
def a_worker_that_is_killed_leaves_nothing(images, scratch):
    store = Store(scratch)
    store.load(images.small())
    before = store.files()
    data = pathlib.Path(images.docker_archive()).read_bytes()
    for part in (0.3, 0.9):
        read_end, write_end = os.pipe()
        loader = subprocess.Popen([PROBE, store.root, "load"], stdin=read_end,
                                  env={**os.environ, "IMAGE_WORKER": program("cloche-image")},
                                  stderr=subprocess.PIPE, text=True)
        os.close(read_end)
        os.write(write_end, data[:int(len(data) * part) // 65536 * 65536] or data[:65536])
        wait_for(lambda: any(name.startswith("staging/") for name in store.files()))
        worker = wait_for(lambda: run("pgrep", "-P", loader.pid, code=None).out.split())
        os.kill(int(worker[0]), signal.SIGKILL)
        _, err = loader.communicate(timeout=60)
        os.close(write_end)
        assert loader.returncode == 1 and "signal 9" in err, err
        assert store.files() == before


@test
def an_engine_that_is_killed_leaves_nothing(images, scratch):
    store = Store(scratch)
    store.probe("list")
    data = pathlib.Path(images.docker_archive()).read_bytes()
    read_end, write_end = os.pipe()
    loader = subprocess.Popen([PROBE, store.root, "load"], stdin=read_end,
                              env={**os.environ, "IMAGE_WORKER": program("cloche-image")})
    os.close(read_end)
    os.write(write_end, data[:60000])
    wait_for(lambda: any(name.startswith("staging/") for name in store.files()))
    loader.kill()
    loader.wait()
    wait_for(lambda: not run("pgrep", "-f", "cloche-image|image_probe", code=None).out, what="no worker")
    os.close(write_end)
    store.probe("list")
    assert store.files() == [] and store.images() == []


@test
def killed_at_any_moment_an_image_is_there_or_not(images, scratch):
    whole = Store(scratch / "whole")
    whole.root.parent.mkdir()
    whole.load(images.small())
    expected = (whole.files(), whole.tree("small:1"))
    store = Store(scratch)
    store.probe("list")
    seen = set()
    for number in range(16):
        with open(images.small(), "rb") as file:
            loader = subprocess.Popen([PROBE, store.root, "load"], stdin=file,
                                      stdout=subprocess.DEVNULL,
                                      env={**os.environ, "IMAGE_WORKER": program("cloche-image")})
        time.sleep(number * 0.015)
        loader.kill()
        loader.wait()
        wait_for(lambda: not run("pgrep", "-f", "cloche-image|image_probe", code=None).out, what="no worker")
        there = bool(store.images())
        seen.add(there)
        names = [name.split("/")[0] for name in store.files()]
        if there:
            assert names == [name.split("/")[0] for name in expected[0]], store.files()
            assert store.tree("small:1") == expected[1]
            store.probe("rmi", "small:1")
        else:
            assert names == [], store.files()
    note(f"there or not: {sorted(seen)}")


# ---------------------------------------------------------------- damaged archives

def _cut(store, data, at):
    path = store.root.parent / "cut.tar"
    path.write_bytes(data[:at])
    return store.load(path, code=None)


@test
def an_archive_that_ends_anywhere_is_refused(images, scratch):
    store = Store(scratch)
    store.probe("list")
    chosen = random.Random(5)
    for archive in (images.docker_archive(), images.small(), images.recompressed("zstd")):
        data = pathlib.Path(archive).read_bytes()
        with tarfile.open(archive) as tar:
            infos = tar.getmembers()
        # Where the last member's data ends; behind it are only zeros.
        end = max(info.offset_data + info.size for info in infos)
        places = {0, 1, 100, 511, 512, 513} | {chosen.randrange(end) for _ in range(12)}
        for info in infos:
            places |= {info.offset, info.offset_data, info.offset_data + info.size // 2}
        for place in sorted(place for place in places if place < end)[:60]:
            result = _cut(store, data, place)
            assert result.code == 1 and "archive: " in result.err, (archive, place, result)
            assert result.err.count("\n") == 1 and "signal" not in result.err, result
            assert store.files() == [], (archive, place, store.files())
    assert store.images() == []


@test
def an_archive_with_a_changed_byte_is_refused(images, scratch):
    store = Store(scratch)
    store.probe("list")
    chosen = random.Random(6)
    data = bytearray(pathlib.Path(images.small()).read_bytes())
    with tarfile.open(images.small()) as tar:
        files = [info for info in tar.getmembers() if info.isreg() and "blobs" in info.name]
    for info in files:
        for _ in range(4):
            place = info.offset_data + chosen.randrange(info.size)
            data[place] ^= 1 << chosen.randrange(8)
            message = store.refuse(bytes(data), "archive: ")
            data[:] = pathlib.Path(images.small()).read_bytes()
    assert "digest" in message or "damaged" in message or "index" in message, message


@test
def broken_documents_are_named_with_their_place(scratch):
    store = Store(scratch)
    store.probe("list")
    layer = made.tar([entry("a", b"a")])
    store.refuse(made.docker_archive([layer], manifest=b"[{"), "manifest.json:1")
    store.refuse(made.docker_archive([layer], manifest=b'[\n{"Config": 5}]'),
                 "manifest.json:2: ", "Config", "expected a string")
    store.refuse(made.docker_archive([layer], manifest=b"[]"), "manifest.json", "no images")
    store.refuse(made.docker_archive([layer], manifest=b'[{"Config":"no.json","Layers":[]}]'),
                 "no.json")
    store.refuse(made.docker_archive(
        [layer], manifest=b'[{"Config":"config.json","Layers":["1/layer.tar"]}]'), "1/layer.tar")
    store.refuse(made.docker_archive([layer], diff_ids=[]), "diff_ids")
    store.refuse(made.docker_archive([layer], diff_ids=["sha256:" + 64 * "0"]),
                 made.digest(layer), "sha256:" + 64 * "0", "0/layer.tar")
    store.refuse(made.tar([entry("hello", b"x")]), "manifest.json", "index.json")
    export = [entry("usr/share/man/a.gz", gzip.compress(b"a page")), entry("bin/sh", b"\x7fELF")]
    store.refuse(made.tar(export), "manifest.json", "index.json")
    store.refuse(made.tar([]), "empty")
    store.refuse(b"", "empty")
    store.refuse(b"this is no tar at all" * 100, "archive: ")
    store.refuse(made.layout([("x:1", [layer], None)], index=lambda top, add: {
        "schemaVersion": 2, "manifests": [{"digest": "sha256:" + 64 * "a", "size": 3}]}),
        "index.json", 64 * "a")
    store.refuse(made.layout([("x:1", [layer], None)], index=lambda top, add: {
        "schemaVersion": 2, "manifests": [{**top["manifests"][0], "size": 3}]}), "bytes, not 3")


@test
def the_image_of_this_platform_is_taken(scratch):
    store = Store(scratch)
    layer, other = made.tar([entry("right", b"a")]), made.tar([entry("wrong", b"b")])
    machine = "arm64" if os.uname().machine == "aarch64" else "amd64"

    def nested(top, add):
        inner = json.dumps({"schemaVersion": 2, "manifests": top["manifests"]}).encode()
        return {"schemaVersion": 2, "manifests": [
            add(inner, mediaType="application/vnd.oci.image.index.v1+json",
                annotations={"io.containerd.image.name": "docker.io/library/multi:1"})]}

    images = [(None, [other], {"os": "linux", "architecture": "s390x"}),
              (None, [layer], {"os": "linux", "architecture": machine}),
              (None, [other], {"os": "unknown", "architecture": "unknown"})]
    assert store.load_bytes(made.layout(images, index=nested)).out.split()[1] == "multi:1"
    assert [line.split()[0] for line in store.tree("multi:1")] == ["./right"]
    store.refuse(made.layout(images[:1], index=nested), "no image for linux/" + machine)


@test
def an_annotation_that_is_no_name_is_passed_over(scratch):
    store = Store(scratch)
    layer = made.tar([entry("a", b"a")])
    for annotation, names in (("Some TEXT", []), ("latest", []), ("shop", ["shop:latest"]),
                              ("a..b", []), ("me/shop:2", ["me/shop:2"]), ("host", [])):
        out = store.load_bytes(made.layout([(annotation, [layer], None)])).out
        assert out.split()[1:] == names, (annotation, out)


# ---------------------------------------------------------------- hostile layers

def _refuse_layer(store, entries, *words, **options):
    return store.refuse(made.docker_archive([made.tar(entries, **options)]), "0/layer.tar", *words)


@test
def a_layer_cannot_leave_its_root(scratch):
    store = Store(scratch)
    store.probe("list")
    victim = scratch / "victim"
    victim.mkdir()
    (victim / "file").write_text("safe")
    for path in ("../../../x", "a/../../x", ".."):
        _refuse_layer(store, [entry(path, b"x")], "entry 1", "'..'")
    _refuse_layer(store, [link("h", "../../etc/passwd", tarfile.LNKTYPE)], "entry 1", "hard link")
    _refuse_layer(store, [link("h", "/etc/passwd", tarfile.LNKTYPE)], "hard link", "passwd")
    _refuse_layer(store, [link("l", str(victim)), link("h", "l/file", tarfile.LNKTYPE)], "entry 2")
    # Links are followed inside the root only: what is written through them lands there.
    inside = [link("escape", "/" + "../" * 20 + str(victim)), entry("abs" + str(victim), b"x"),
              entry(str(victim)[1:]), entry("escape/file", b"changed"),
              link("here", "../../../.."), entry("here/file2", b"y"), entry("/absolute", b"z")]
    store.load_bytes(made.docker_archive([made.tar(inside)]))
    assert (victim / "file").read_text() == "safe"
    names = [line.split()[0] for line in store.tree("hand:1")]
    for name in (f".{victim}/file", "./file2", "./absolute"):
        assert name in names, (name, names)


@test
def overlay_attributes_in_a_layer_are_refused(scratch):
    store = Store(scratch)
    store.probe("list")
    for name in ("user.overlay.opaque", "user.overlay.redirect", "trusted.overlay.redirect"):
        bad = entry("a", b"x", pax_headers={f"SCHILY.xattr.{name}": "y"})
        _refuse_layer(store, [bad], name, "entry 1 'a'")


@test
def odd_entries_become_what_docker_makes_of_them(scratch):
    store = Store(scratch)
    entries = [
        entry("twice", b"first"), entry("twice", b"second"),
        entry("was-folder"), entry("was-folder/x", b"x"), entry("was-folder", b"now a file"),
        entry("was-file", b"x"), entry("was-file"), entry("was-file/y", b"y"),
        entry("null", None, tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("block", None, tarfile.BLKTYPE, devmajor=7, devminor=0, mode=0o660, gid=6),
        entry("pipe", None, tarfile.FIFOTYPE, mode=0o600),
        entry("suid", b"x", mode=0o6755, uid=1000, gid=1000),
        link("dangling", "nowhere"), link("again", "twice", tarfile.LNKTYPE),
        entry("user", b"x", pax_headers={"SCHILY.xattr.user.note": "kept",
                                         "SCHILY.xattr.security.selinux": "dropped"}),
        entry(".wh..wh.aufs", b""), entry(".wh..wh.plnk"),
    ]
    store.load_bytes(made.docker_archive([made.tar(entries)]))
    tree = {line.split()[0]: line for line in store.tree("hand:1")}
    assert sorted(tree) == sorted("./" + name for name in (
        "twice", "was-folder", "was-file", "was-file/y", "null", "block", "pipe", "suid",
        "dangling", "again", "user")), sorted(tree)
    assert tree["./twice"].split()[3:] == tree["./again"].split()[3:]
    assert tree["./was-folder"].split()[1][0] == "-" and tree["./was-file"].split()[1][0] == "d"
    assert "crw-rw-rw-" in tree["./null"] and "1,3" in tree["./null"]
    assert "brw-rw---- 0:6 7,0" in tree["./block"]
    assert "-rwsr-sr-x 1000:1000" in tree["./suid"]
    assert tree["./user"].endswith("user.note=" + b"kept".hex()), tree["./user"]


@test
def whiteouts_by_hand(scratch):
    store = Store(scratch)
    lower = [entry("d"), entry("d/old", b"1"), entry("e"), entry("e/old", b"2"), entry("f", b"3"),
             entry("g", b"4"), entry("t", mode=0o1777, uid=5), entry("t/x", b"5")]
    upper = [entry("d/.wh..wh..opq", b""), entry("d/new", b"1"),   # opaque
             entry(".wh.e", b""), entry("e"), entry("e/new", b"2"),  # hidden, then made anew
             entry("g", b"new"), entry(".wh.g", b""),                # a layer's own file stays
             entry(".wh.f", b""), entry("t/y", b"6")]                # no entry for t
    store.load_bytes(made.docker_archive([made.tar(lower), made.tar(upper)]))
    tree = {line.split()[0]: line for line in store.tree("hand:1")}
    assert sorted(tree) == ["./d", "./d/new", "./e", "./e/new", "./g", "./t", "./t/x",
                            "./t/y"], sorted(tree)
    assert "drwxrwxrwt 5:0" in tree["./t"], tree["./t"]
    for name in (".wh.", ".wh..", ".wh..."):
        _refuse_layer(store, [entry("a/" + name, b"")], "whiteout of nothing")


@test
def a_layer_may_come_more_than_once(scratch):
    store = Store(scratch)
    base = made.tar([entry("f", b"base"), entry("g", b"kept"), entry("d"), entry("d/x", b"1")])
    twice = made.tar([entry(".wh.f", b""), entry("n", b"twice"), entry("d/.wh..wh..opq", b"")])
    between = made.tar([entry("f", b"between"), entry("n", b"between"), entry("d/y", b"2")])
    store.load_bytes(made.docker_archive([base, twice, between, twice, twice]))
    tree = [line.split()[0] for line in store.tree("hand:1")]
    assert tree == ["./d", "./g", "./n"], tree


@test
def folders_that_links_make_deeper_than_paths_can_be_are_removed_again(scratch):
    """Each link leads to the end of the one before it, and the next 900 folders are below it."""
    store = Store(scratch)
    store.probe("list")
    entries, deep = [], "d/" * 900
    for number in range(5):
        above = f"l{number - 1}/" if number else ""
        entries += [entry(f"{above}{deep}f", b"x"), link(f"l{number}", (above + deep)[:-1])]
    store.load_bytes(made.docker_archive([made.tar(entries)]))
    assert store.files() != []
    run("prlimit", "--nofile=500", PROBE, store.root, "rmi", "hand:1", env={"IMAGE_WORKER": str(program("cloche-image"))})
    assert store.files() == []
    entries.append(entry("../out", b"x"))  # and what was begun and refused
    store.refuse(made.docker_archive([made.tar(entries)]), "'..'")


@test
def bombs_and_lies_about_sizes_are_refused(scratch):
    store = Store(scratch)
    store.probe("list")
    # The header says 100 GB, the data is 512 bytes.
    huge = tarfile.TarInfo("a")
    huge.size = 100 << 30
    lie = huge.tobuf(tarfile.GNU_FORMAT) + b"x" * 512 + bytes(1024)
    store.refuse(made.docker_archive([lie]), "entry 1 'a'")
    huge.size = 1 << 50
    store.refuse(made.docker_archive([huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024)]),
                 "LAYER_BYTES_MAX")
    # 1.5 GB of zeros in a zstd frame of a few dozen KB.
    bomb = subprocess.run("head -c 1500000000 /dev/zero | zstd -q -c -1", shell=True,
                          stdout=subprocess.PIPE, check=True).stdout
    note(f"a bomb of {len(bomb)} bytes")
    store.refuse(made.docker_archive([bomb]), "EXPANSION_MAX", "bomb")
    deep = "/".join(["d"] * 1500)
    _refuse_layer(store, [entry(deep, b"x")], "1000 folders")
    _refuse_layer(store, [entry("n" * 5000, b"x")], "4095 bytes")


def _with_index(layers, documents, index):
    """A docker-archive that has an index.json and blobs besides, as newer dockers write them."""
    archive = made.docker_archive(layers)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar.getmembers()]
    blobs = [entry("blobs/sha256/" + made.digest(text)[7:], text) for text in documents]
    return made.tar([*members, *blobs, entry("index.json", index)])


def _describe(text, kind, **fields):
    return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": made.digest(text),
            "size": len(text), **fields}


@test
def indexes_that_name_the_same_again_and_again_are_given_up(scratch):
    store = Store(scratch)
    store.probe("list")
    text, documents = b'{"schemaVersion":2,"manifests":[]}', []
    for _ in range(5):
        documents.append(text)
        text = json.dumps({"schemaVersion": 2, "manifests": 300 * [_describe(text, "index")]}).encode()
    layer = made.tar([entry("a", b"a")])
    store.refuse(_with_index([layer], documents, text), "READ_BYTES_MAX", timeout=120)


@test
def a_manifest_with_other_layers_is_not_the_image_s(scratch):
    store = Store(scratch)
    other = made.tar([entry("b", b"b")])
    for named in (True, False):
        layer = made.tar([entry("a", str(named).encode())])
        blob = layer if named else other
        text = json.dumps({
            "schemaVersion": 2, "config": _describe(made.config([made.digest(layer)]), "config"),
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": len(blob),
                        "digest": made.digest(blob)}]}).encode()
        index = json.dumps({"schemaVersion": 2, "manifests": [_describe(text, "manifest")]}).encode()
        store.load_bytes(_with_index([layer], [text], index))
        kept = store.root / "content/sha256" / made.digest(text)[7:]
        assert kept.exists() == named, (named, store.files())


@test
def many_links_in_an_archive_are_found_quickly_and_are_limited(scratch):
    store = Store(scratch)
    store.probe("list")
    layer = made.tar([entry("a", b"a")])
    with tarfile.open(fileobj=io.BytesIO(made.docker_archive([layer]))) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar.getmembers()]
    links = [link(f"l{number}", f"m{number}") for number in range(20000)]
    files = [entry(f"f{number}.json", b"{}") for number in range(20000)]
    started = time.monotonic()
    store.load_bytes(made.tar(links + files + members, tarfile.USTAR_FORMAT))
    assert time.monotonic() - started < 60
    links = [link(f"{'d/' * 900}{number}", "x" * 2000) for number in range(20000)]
    store.refuse(made.tar(links + members, tarfile.GNU_FORMAT), "DOCUMENTS_MAX")


@test
def a_name_in_an_archive_that_is_no_reference_is_refused(scratch):
    store = Store(scratch)
    store.probe("list")
    layer = made.tar([entry("a", b"a")])
    store.refuse(made.docker_archive([layer], name="Bad Name"), "invalid reference format")
    store.refuse(made.docker_archive([layer], name="host:latest"), "built-in")
    assert store.images() == []


if __name__ == "__main__":
    main()
