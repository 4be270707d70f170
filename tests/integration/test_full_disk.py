"""The disk is full: what does not fit is refused in words, nothing is left of it, and room can be made."""

import contextlib
import json
import os
import re

from harness import main, run, test, wait_for
from power import attach, detach


@contextlib.contextmanager
def small_disk(instance, scratch, megabytes):
    """The instance's root on a disk of its own."""
    with open(scratch / "disk", "wb") as file:
        file.truncate(megabytes << 20)
    device = attach(scratch / "disk")
    try:
        run("mkfs.ext4", "-q", "-m", "0", device)
        instance.root.mkdir(parents=True)
        run("mount", device, instance.root)
        yield
    finally:
        instance.cloche("system", "remove", "--force", code=None)
        wait_for(lambda: run("umount", instance.root, code=None).code == 0, what="it is unmounted")
        instance.root.rmdir()
        detach(device)


def free(instance):
    status = os.statvfs(instance.root)
    return status.f_bavail * status.f_frsize


def fill(instance, leave=0):
    """A file of somebody else's that takes all that is free."""
    path = instance.root / "somebody"
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while free(instance) > leave or size == 1:
                    file.write(bytes(size))
    return path


def whole(instance):
    assert not list((instance.root / "staging").iterdir())
    problems = json.loads(instance.cloche("system", "check", "-f", "json").out)["Problems"]
    assert not problems, problems


@test
def an_image_that_does_not_fit_is_refused_and_leaves_nothing(instance, images, scratch):
    with small_disk(instance, scratch, 48):
        instance.cloche("load", "-i", images.small())
        before = free(instance)
        filler = fill(instance, leave=1 << 20)
        refused = instance.cloche("load", "-i", images.docker_archive(), code=1)
        assert "No space left on device" in refused.err, refused.err
        filler.unlink()
        whole(instance)
        assert free(instance) > before - (1 << 20)
        instance.cloche("load", "-i", images.docker_archive())


@test
def room_can_be_made_on_a_disk_that_is_full(instance, images, scratch):
    with small_disk(instance, scratch, 48):
        instance.cloche("load", "-i", images.small())
        instance.cloche("run", "--name", "keeps", "small:1", "sh", "-c", "dd if=/dev/zero of=/x bs=64k count=32")
        filler = fill(instance)
        assert free(instance) == 0
        refused = instance.cloche("run", "--name", "more", "small:1", "true", code=125)
        assert re.search("[Nn]o space|full", refused.err), refused.err
        instance.cloche("rm", "keeps")
        instance.cloche("rmi", "small:1")
        filler.unlink()
        whole(instance)
        assert instance.cloche("ps", "-aq").out == ""
        instance.cloche("load", "-i", images.small())
        assert instance.cloche("run", "--rm", "small:1", "echo", "again").out == "again\n"


@test
def a_container_that_fills_the_disk_hurts_itself_alone(instance, images, scratch):
    with small_disk(instance, scratch, 48):
        instance.cloche("load", "-i", images.small())
        instance.cloche("run", "-d", "--name", "calm", "small:1", "sh", "-c",
                        "while echo beat; do sleep 0.1; done")
        full = instance.cloche("run", "--name", "greedy", "small:1", "dd", "if=/dev/zero", "of=/big", "bs=64k", code=1)
        assert "No space left on device" in full.err, full
        beats = len(instance.cloche("logs", "calm").lines)
        instance.cloche("ps", "-a")
        instance.cloche("exec", "calm", "true")
        instance.cloche("kill", "calm")
        assert instance.cloche("wait", "calm").out == "137\n"
        instance.cloche("rm", "greedy")
        instance.cloche("start", "calm")
        wait_for(lambda: len(instance.cloche("logs", "calm").lines) > beats, what="it writes its log again")
        instance.cloche("rm", "-f", "calm")
        whole(instance)


@test
def the_daemon_starts_on_a_disk_that_is_full(instance, images, scratch):
    with small_disk(instance, scratch, 48):
        instance.cloche("load", "-i", images.small())
        instance.cloche("run", "-d", "--name", "calm", "small:1", "sleep", "1000")
        instance.kill_daemon()
        fill(instance)
        assert instance.cloche("ps", "--format", "{{.Names}}").out == "calm\n"
        instance.cloche("exec", "calm", "true")
        instance.cloche("rm", "-f", "calm")
        instance.cloche("rmi", "small:1")
        assert free(instance) > 1 << 20


if __name__ == "__main__":
    main()
