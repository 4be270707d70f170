"""The power goes at any write of load, commit, tag, pull, build, rmi and container work: the store opens, is
whole, and has every image that was acknowledged. Unflushed writes are dropped and reordered (power.py).

CLOCHE_POWER_CUTS says how many moments are tried (default 20; 0: all), CLOCHE_POWER_SEED the chance."""

import contextlib
import json
import os
import pathlib
import random
import signal
import tempfile
import uuid

from harness import main, note, run, test, wait_for
from power import Log, Recorder
from registries import Liar, Made, config, noise, tar_of

CUTS = int(os.environ.get("CLOCHE_POWER_CUTS", 20))
SEED = int(os.environ.get("CLOCHE_POWER_SEED", random.randrange(1 << 30)))


@contextlib.contextmanager
def mounted(device, instance):
    instance.root.mkdir(parents=True, exist_ok=True)
    run("mount", device, instance.root)
    try:
        yield
    finally:
        # The kernel lets go of the overlays of processes that have just been killed a moment later.
        wait_for(lambda: run("umount", instance.root, code=None).code == 0, what="it is unmounted")
        instance.root.rmdir()


BOOT = "/proc/sys/kernel/random/boot_id"


def forget_boot():
    run("umount", BOOT, code=None)


def another_boot():
    """The kernel's mark of this boot, by which builds know what may not have reached the disk."""
    with tempfile.NamedTemporaryFile("w") as mark:
        mark.write(f"{uuid.uuid4()}\n")
        mark.flush()
        run("mount", "--bind", mark.name, BOOT)


def reboot(instance):
    """Everything that runs is gone at once, and with it what was in /run."""
    def all_gone():
        for pid in instance.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not instance.processes()
    wait_for(all_gone, what="all processes of the instance are gone")
    instance.forget_run()
    forget_boot()
    another_boot()
    run("sh", "-c", f"find /sys/fs/cgroup -depth -type d -path '*/{instance.cgroup_parent}*' "
                    "-exec rmdir {} + 2>/dev/null; true")
    run("sh", "-c", f"nft delete table ip {instance.nft_table} 2>/dev/null; "
                    f"nft delete table inet {instance.nft_table} 2>/dev/null; "
                    f"ip link delete {instance.bridge} 2>/dev/null; true")


def names(instance):
    lines = instance.cloche("images", "--format", "{{.Repository}}:{{.Tag}}").lines
    return frozenset(line for line in lines if not line.startswith("host:"))


DOCKERFILE = """
FROM small:1
LABEL made=here
RUN dd if=/dev/urandom of=/large bs=64k count=8
COPY Dockerfile /
"""


def work(instance, images, disk, scratch, registry):
    """What is done to the store; returns the images that are there at each mark."""
    there = [frozenset()]
    def step(*words):
        instance.cloche(*words)
        there.append(names(instance))
        disk.mark(len(there) - 1)
    step("load", "-i", images.small())
    step("run", "--name", "one", "small:1", "sh", "-c", "dd if=/dev/urandom of=/big bs=64k count=16; ln /big /more")
    step("commit", "one", "made:1")
    step("tag", "made:1", "made:2")
    step("run", "-d", "--name", "two", "made:2", "sh", "-c", "while echo x >>/x; do sleep 0.01; done")
    step("commit", "two", "again:1")
    step("load", "-i", images.docker_archive())
    step("rmi", "made:1")
    step("rm", "-f", "two")
    step("rmi", "again:1")
    step("rm", "one")
    step("rmi", "made:2")
    step("pull", "-q", f"{registry.name}/pulled:latest")
    (scratch / "context").mkdir()
    (scratch / "context/Dockerfile").write_text(DOCKERFILE)
    step("build", "-q", "-t", "built:1", "--network", "none", scratch / "context")
    step("rmi", "built:1")
    step("load", "-i", images.recompressed("zstd"))
    return there


def whole(instance, allowed):
    """What a restart of the machine finds."""
    result = instance.cloche("system", "check", "--deep", "-f", "json", code=None)
    assert result.code == 0 and not json.loads(result.out)["Problems"], result
    found = names(instance)
    assert found in allowed, f"{sorted(found)}, and not one of {[sorted(one) for one in allowed]}"
    for path in ("staging",):
        assert not list((instance.root / path).iterdir()), path
    for name in [name for name in sorted(found) if "/" not in name][:1]:
        assert instance.cloche("run", "--rm", "--network", "none", name, "cat", "/etc/passwd") \
            .out.startswith("root:"), name


@test
def the_store_is_whole_after_a_power_cut_at_any_moment(instance, images, scratch):
    for make in (images.small, images.docker_archive, lambda: images.recompressed("zstd")):
        make()  # before the disk is there
    registry = Liar(Made([tar_of({f"etc/{n}": noise(30000, n)}) for n in range(3)]))
    config(instance, scratch)
    with registry, Recorder(scratch) as disk:
        run("mkfs.ext4", "-q", "-b", "4096", disk.device)
        with mounted(disk.device, instance):
            instance.cloche("version")
            disk.mark(0)
            first = names(instance)
            assert not first
            there = work(instance, images, disk, scratch, registry)
            reboot(instance)
    log = Log(disk)
    marks = log.marks()
    start = next(at for at, (kind, offset, _, _) in enumerate(log.entries)
                 if kind == "write" and offset >= log.size)
    moments = range(start + 1, len(log.entries) + 1)
    chance = random.Random(SEED)
    cuts = sorted(chance.sample(moments, CUTS)) if 0 < CUTS < len(moments) else list(moments)
    note(f"{len(log.entries)} writes and flushes, {len(cuts)} moments, CLOCHE_POWER_SEED={SEED}")
    try:
        for cut in cuts:
            done = marks[cut - 1]
            try:
                with log.crashed(cut, chance) as device, mounted(device, instance):
                    try:
                        whole(instance, there[done:done + 2])
                    finally:
                        reboot(instance)
            except Exception as failure:
                raise AssertionError(f"power cut behind entry {cut} of {len(log.entries)}, "
                                     f"after step {done}") from failure
    finally:
        forget_boot()


@test
def a_volume_that_is_filled_has_the_content_of_its_files(instance, images, scratch):
    """The power goes at any write of filling one, and behind it."""
    images.small()  # before the disk is there
    wanted = {path.name: path.read_bytes() for path in pathlib.Path(images.root(), "etc").iterdir() if path.is_file()}
    assert wanted["passwd"]
    with Recorder(scratch) as disk:
        run("mkfs.ext4", "-q", "-b", "4096", disk.device)
        with mounted(disk.device, instance):
            instance.cloche("load", "-i", images.small())
            disk.mark(1)
            instance.cloche("create", "--name", "one", "-v", "data:/etc", "small:1", "true")
            # Brings what was changed in folders to the disk, not what was written to files.
            instance.cloche("tag", "small:1", "small:2")
            disk.mark(2)
            reboot(instance)
    forget_boot()
    log, chance, full = Log(disk), random.Random(SEED), 0
    marks = log.marks()
    moments = [cut for cut in range(1, len(log.entries) + 1) if marks[cut - 1] >= 1]
    note(f"{len(log.entries)} writes and flushes, CLOCHE_POWER_SEED={SEED}")
    for cut in moments if len(moments) <= 3 * CUTS or not CUTS else sorted(chance.sample(moments, 3 * CUTS)):
        with log.crashed(cut, chance) as device, mounted(device, instance):
            folder = instance.root / "volumes/data"
            for name in ("_data", "_ready"):
                for path in (folder / name).iterdir() if (folder / name).exists() else ():
                    if path.name in wanted:
                        assert path.read_bytes() == wanted[path.name], (cut, path)
                        full += 1
    assert full, "not one moment with a full volume was tried"


if __name__ == "__main__":
    main()
