"""`cloche system check`: what a disk that lost or changed something has done is found and mended."""

import json
import os
import pathlib

from harness import main, test


def check(instance, *options, code=0):
    """What it found, as text."""
    document = json.loads(instance.cloche("system", "check", *options, "-f", "json", code=code).out)
    return document["Problems"]


def only(problems):
    assert len(problems) == 1, problems
    return problems[0]


def folder_of(instance, name):
    """The folder of an image's highest layer."""
    folders = [int(path.name) for path in (instance.root / "layers").iterdir()
               if (path / "bin/busybox").exists()]
    assert len(folders) == 1, (name, folders)
    return instance.root / "layers" / str(folders[0])


def blobs(instance):
    """Manifest, configuration and layer of the one image that has been loaded, by their size."""
    files = sorted((instance.root / "content/sha256").iterdir(), key=lambda path: path.stat().st_size)
    assert len(files) == 3, files
    manifest, config = sorted(files[:2], key=lambda path: b'"rootfs"' in path.read_bytes())
    return manifest, config, files[2]


@test
def a_store_that_is_whole_has_no_problems(instance, images):
    instance.cloche("load", "-i", images.small())
    instance.cloche("run", "--name", "cc", "small:1", "touch", "/made")
    instance.cloche("commit", "cc", "made:1")
    assert check(instance) == [] == check(instance, "--deep")
    out = instance.cloche("system", "check", "--deep").out
    assert out.endswith("and 1 containers checked: all good\n"), out


@test
def a_layer_that_was_changed_is_unpacked_again(instance, images):
    instance.cloche("load", "-i", images.small())
    folder = folder_of(instance, "small:1")
    changes = [
        (lambda: (folder / "etc/passwd").write_text("hacked\n"), "etc/passwd"),
        (lambda: (folder / "etc/group").unlink(), "etc/group: it is missing"),
        (lambda: (folder / "etc/more").write_text("x"), "etc/more: it is not of this layer"),
        (lambda: os.chmod(folder / "bin/busybox", 0o4755), "bin/busybox: its owner or mode"),
        (lambda: os.setxattr(folder / "bin/busybox", "user.x", b"y"), "bin/busybox: its attributes"),
        (lambda: os.truncate(folder / "bin/busybox", 100), "bin/busybox: its size"),
        (lambda: ((folder / "bin/ls").unlink(), (folder / "bin/ls").symlink_to("x")), "bin/ls: "),
        (lambda: os.rename(folder, folder.parent.parent / "away"), "it is missing"),
    ]
    for change, told in changes:
        change()
        problem = only(check(instance, "--deep", code=1))
        assert told in problem["Problem"] and "layer sha256:" in problem["What"], problem
        assert not problem["Repaired"]
        assert only(check(instance, "--deep", "--repair"))["Repaired"]
        assert check(instance, "--deep") == [], told
    assert instance.cloche("run", "--rm", "small:1", "cat", "/etc/passwd").out.startswith("root:")


@test
def only_a_deep_check_reads_layers(instance, images):
    instance.cloche("load", "-i", images.small())
    (folder_of(instance, "small:1") / "etc/passwd").write_text("hacked\n")
    assert check(instance) == []
    assert check(instance, "--deep", code=1)


@test
def a_damaged_blob_is_thrown_away_and_comes_back_with_its_image(instance, images):
    instance.cloche("load", "-i", images.small())
    def flip(path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    damages = [(2, flip), (2, lambda path: os.truncate(path, 1000)), (2, pathlib.Path.unlink),
               (1, flip), (1, pathlib.Path.unlink), (0, flip), (0, pathlib.Path.unlink)]
    for which, damage in damages:
        damage(blobs(instance)[which])
        found = check(instance, "--deep", code=1)
        assert found and not any(problem["Repaired"] for problem in found), found
        repaired = check(instance, "--deep", "--repair", code=None)
        assert [problem["Repaired"] for problem in repaired] == [which == 1] * len(repaired), repaired
        assert instance.cloche("run", "--rm", "small:1", "echo", "still").out == "still\n"
        instance.cloche("load", "-i", images.small())
        assert check(instance, "--deep") == [], (which, damage)
    instance.cloche("save", "-o", "/dev/null", "small:1")


@test
def a_lost_folder_comes_back_with_its_image(instance, images):
    instance.cloche("load", "-i", images.small())
    folder = folder_of(instance, "small:1")
    os.rename(folder, instance.root / "away")
    blobs(instance)[2].unlink()
    assert len(check(instance, code=1)) == 2
    instance.cloche("load", "-i", images.small())
    assert check(instance, "--deep") == []


@test
def a_layer_that_a_container_runs_on_stays_until_it_has_ended(instance, images):
    instance.cloche("load", "-i", images.small())
    instance.cloche("run", "-d", "--name", "cc", "small:1", "sleep", "1000")
    (folder_of(instance, "small:1") / "etc/passwd").write_text("hacked\n")
    problem = only(check(instance, "--deep", "--repair", code=1))
    assert not problem["Repaired"] and "stop it" in problem["Remedy"], problem
    assert instance.cloche("exec", "cc", "cat", "/etc/passwd").out == "hacked\n"
    instance.cloche("stop", "-t", "0", "cc")
    assert only(check(instance, "--deep", "--repair"))["Repaired"]
    instance.cloche("start", "cc")
    assert instance.cloche("exec", "cc", "cat", "/etc/passwd").out.startswith("root:")


if __name__ == "__main__":
    main()
