"""The store on Debian's own kernel (6.1), which lacks the mount options that newer ones have: many
layers, whiteouts and a commit through overlayfs' older interface."""

import os
import pathlib
import tarfile

import layers as made
from harness import main, program, run, test
from layers import entry

PROBE = pathlib.Path(os.environ["BUILD"]) / "tests/integration/image_probe"
LAYERS = 100


@test
def a_snapshot_of_many_layers(scratch):
    root = scratch / "root"

    def probe(*words, **options):
        return run(PROBE, root, *words, env={"IMAGE_WORKER": str(program("cloche-image"))},
                   timeout=300, **options)

    layers = [made.tar([entry(f"file{number}", b"x"), entry("last", str(number).encode())] +
                       ([entry(f".wh.file{number - 1}", b"")] if number % 10 == 0 else []))
              for number in range(LAYERS)]
    archive = scratch / "archive.tar"
    archive.write_bytes(made.docker_archive(layers, name="many:1"))
    with open(archive, "rb") as file:
        probe("load", stdin=file)
    probe("prepare", "ab", "many:1")
    names = probe("enter", "ab", "busybox", "ls").out.split()
    assert len(names) == LAYERS - 9 + 1 and "file9" not in names and "file11" in names, names
    assert probe("enter", "ab", "busybox", "cat", "last").out == str(LAYERS - 1)
    probe("enter", "ab", "busybox", "sh", "-c", "busybox rm file1; echo new > new")
    probe("commit", "ab", "many:1", "more:1")
    probe("remove", "ab")
    probe("prepare", "cd", "more:1")
    names = probe("enter", "cd", "busybox", "ls").out.split()
    assert "new" in names and "file1" not in names, names
    with open(scratch / "saved.tar", "wb") as out:
        out.write(run(PROBE, root, "save", "more:1", text=False, timeout=300,
                      env={"IMAGE_WORKER": str(program("cloche-image"))}).out)
    with tarfile.open(scratch / "saved.tar") as saved:
        assert "manifest.json" in saved.getnames()
    probe("remove", "cd")


if __name__ == "__main__":
    main()
