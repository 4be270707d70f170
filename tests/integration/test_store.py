#!/usr/bin/env python3
"""The store beside everything else: slow clients, builds under way, limits by age and size."""

import contextlib
import io
import json
import os
import signal
import sqlite3
import tarfile
import time

from harness import main, run, test, wait_for
from registries import Liar, Made, config, noise, tar_of

IMAGE = "small:1"
COUNTER = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


@contextlib.contextmanager
def slow_clients(instance):
    """Four that load and send nothing, four that save and take nothing."""
    clients = [instance.start("load") for _ in range(4)] + [instance.start("save", IMAGE) for _ in range(4)]
    try:
        for client in clients[4:]:
            assert client.stdout.read(1), "the save has begun"
        time.sleep(0.3)  # the loads, too
        assert all(client.poll() is None for client in clients)
        yield
        assert all(client.poll() is None for client in clients), "they were waiting all the time"
    finally:
        for client in clients:
            client.kill()
            client.communicate()


@test
def slow_clients_hold_nobody_up(instance, images):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    for name in "till", "stuck":
        instance.cloche("run", "-d", "--name", name, "host", "sh", "-c", COUNTER)
    wait_for(lambda: instance.cloche("logs", "till").out, what="the container writes")
    with slow_clients(instance):
        for words in ("logs", "till"), ("stats", "--no-stream", "till"), ("images",), ("top", "till"), \
                ("pause", "till"), ("unpause", "till"), ("tag", IMAGE, "small:2"), ("volume", "ls"), \
                ("commit", "till", "made:1"), ("ps", "-s"), ("pause", "stuck"), ("kill", "stuck"), ("wait", "stuck"):
            instance.cloche(*words, timeout=30)


STAGES = """
FROM small:1 AS first
LABEL first=1
LABEL second=2
FROM small:1 AS second
RUN while ! test -e /go; do sleep 0.05; done
FROM second
COPY --from=first /etc/passwd /copied
"""


@test
def what_a_build_stands_on_stays_until_its_end(instance, images, scratch):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    (scratch / "Dockerfile").write_text(STAGES)
    def steps():
        return instance.cloche("images", "-a", "-q", "--no-trunc", "--filter", "label=second=2").lines
    building = instance.start("build", "-t", "built:1", scratch)
    try:
        [tip] = wait_for(steps, what="the first stage is done")
        container = wait_for(lambda: instance.cloche("ps", "-q").out.strip(), what="the second waits")
        instance.cloche("image", "prune", "-f")
        instance.cloche("builder", "prune", "-af")
        refused = instance.cloche("rmi", "-f", tip, code=None)
        assert refused.code and "under way" in refused.err, refused
        assert steps() == [tip]
        instance.cloche("exec", container, "touch", "/go")
        out, err = building.communicate(timeout=60)
        assert building.returncode == 0, (out, err)
    finally:
        building.kill()
        building.wait()
    assert instance.cloche("run", "--rm", "built:1", "cat", "/copied").out.startswith("root:")
    # What the build has left goes with it, unless somebody wants to keep it.
    def unnamed():
        return set(instance.cloche("images", "-a", "-q", "--filter", "dangling=true").lines)
    before = unnamed()
    instance.cloche("rmi", "--no-prune", "built:1")
    assert unnamed() == before
    instance.cloche("builder", "prune", "-af")
    assert not steps() and not unnamed()


def unsealed(instance):
    """Steps that a power cut would take away."""
    database = sqlite3.connect(instance.root / "state.db", timeout=60)
    try:
        return {row[0] for row in
                database.execute("SELECT image FROM build_step WHERE unsealed IS NOT NULL")}
    finally:
        database.close()


@test
def who_looks_into_the_database_takes_nothing_from_it(instance, images):
    """SQLite deletes the log with the last connection; ours has to count as one."""
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    unsealed(instance)
    instance.cloche("create", "--name", "box", IMAGE)
    instance.kill_daemon()
    assert instance.cloche("ps", "-a", "--format", "{{.Names}}").lines == ["box"]


@test
def what_stands_on_a_step_of_a_build_that_was_cut_off_is_whole(instance, images, scratch):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    (scratch / "Dockerfile").write_text(STAGES)
    def steps():
        return instance.cloche("images", "-a", "-q", "--no-trunc", "--filter", "label=second=2").lines
    building = instance.start("build", "-t", "built:1", scratch)
    try:
        [tip] = wait_for(steps, what="the first stage is done")
        wait_for(lambda: instance.cloche("ps", "-q").out.strip(), what="the second waits")
        instance.cloche("create", "--name", "early", tip)
        assert tip in unsealed(instance), "the build will do it"
        instance.kill_daemon()
    finally:
        building.kill()
        building.communicate()
    instance.start_daemon()
    wait_for(lambda: tip not in unsealed(instance), what="the step is whole")
    # And one that is made when no build is there any more.
    [other] = unsealed(instance) or [None]
    if other:
        instance.cloche("create", "--name", "late", other)
        assert other not in unsealed(instance)
    instance.cloche("start", "-a", "early")


@test
def an_image_stays_while_a_container_of_it_is_committed(instance, images, scratch):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    instance.cloche("run", "--name", "box", IMAGE, "sh", "-c", "head -c 200000000 /dev/zero > /big")
    committing = instance.start("commit", "box", "made:1")
    refused = []
    def under_way():
        refused.append(instance.cloche("rmi", "-f", IMAGE, code=None))
        return committing.poll() is not None or "under way" in refused[-1].err
    wait_for(lambda: list((instance.root / "staging").iterdir()), what="the commit has begun")
    wait_for(under_way, interval=0)
    assert "under way" in refused[0].err, refused
    assert committing.wait(60) == 0, committing.communicate()
    assert instance.cloche("run", "--rm", "made:1", "wc", "-c", "/big").out.startswith("200000000")
    committing.communicate()
    # One that is gone is missed at once, not when all has been read.
    instance.cloche("rmi", "-f", IMAGE, "made:1")
    assert "No such image" in instance.cloche("commit", "box", "again:1", code=1).err


def layers(instance):
    return {path.name for path in (instance.root / "layers").iterdir()}


@test
def a_slow_transfer_keeps_what_it_needs_and_nothing_else(instance, images, scratch):
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    other = scratch / "other.tar"
    other.write_bytes(tar_of({"file": noise(100000, 1)}))
    instance.cloche("import", other, "other:1")
    before = layers(instance)
    saving = instance.start("save", IMAGE)
    try:
        first = os.read(saving.stdout.fileno(), 1)
        instance.cloche("rmi", "other:1")
        assert len(layers(instance)) == len(before) - 1, "its layer has gone at once"
        instance.cloche("rmi", IMAGE)
        rest, _ = saving.communicate(timeout=60)
    finally:
        saving.kill()
        saving.wait()
    with tarfile.open(fileobj=io.BytesIO(first + rest)) as tar:
        assert "manifest.json" in tar.getnames()
    wait_for(lambda: not list((instance.root / "content/sha256").iterdir()), what="its blobs have gone")


@test
def a_cancelled_build_ends_its_pull(instance, scratch):
    config(instance, scratch, patienceSeconds=100)
    with Liar(Made([tar_of({"file": b"x"})])) as liar:
        def hang(handler, *words):
            liar.stopping.wait(100)
            liar.drop(handler)
            return True
        liar.hooks["manifest"] = hang
        (scratch / "Dockerfile").write_text(f"FROM {liar.name}/x\n")
        building = instance.start("build", scratch)
        wait_for(lambda: liar.requests or building.poll() is not None, what="the pull has begun")
        assert liar.requests, building.communicate()
        building.send_signal(signal.SIGKILL)
        building.communicate()
        wait_for(lambda: run("pgrep", "-x", "cloche-registry", code=None).code == 1, timeout=20,
                 what="nobody pulls any more")
        instance.cloche("builder", "prune", "-f", timeout=20)


def settings(instance, scratch, **garbage):
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"garbage": {"everySeconds": 1, **garbage}}))
    path.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(path)
    if instance.daemon_pid():
        os.kill(instance.daemon_pid(), signal.SIGHUP)


@test
def what_is_too_old_or_too_much_goes_by_itself(instance, images, scratch):
    folder = scratch / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM small:1 AS first\nLABEL step=1\nRUN dd if=/dev/zero of=/big bs=64k count=32\n"
                                       "FROM small:1\nCOPY --from=first /etc/passwd /copy\n")
    def steps():
        return instance.cloche("images", "-a", "-q", "--filter", "label=step=1").lines
    def names():
        return sorted(line for line in instance.cloche("images", "--format", "{{.Repository}}:{{.Tag}}").lines
                      if "<none>" not in line)
    settings(instance, scratch)
    instance.cloche("load", "-q", "-i", images.small(IMAGE))
    instance.cloche("create", "--name", "user", IMAGE)
    instance.cloche("import", images.small(), "apart:1")
    result = instance.cloche("build", "-q", folder).out.strip()
    assert len(steps()) == 2
    time.sleep(1.5)
    assert len(steps()) == 2, "there is room"
    settings(instance, scratch, cacheMaxBytes=1 << 20)
    wait_for(lambda: len(steps()) == 1, what="the cache is too large: its largest step goes")
    instance.cloche("build", folder)
    settings(instance, scratch, cacheMaxSeconds=1)
    wait_for(lambda: not steps(), what="the cache is too old")
    assert instance.cloche("inspect", "-f", "{{.Id}}", result).out.strip() == result, "what was built is no cache"
    instance.cloche("tag", "apart:1", "apart:2")
    assert names() == ["apart:1", "apart:2", "host:latest", IMAGE]
    settings(instance, scratch, unnamedMaxSeconds=1)
    wait_for(lambda: instance.cloche("inspect", result, code=None).code, what="it has no name")
    assert names() == ["apart:1", "apart:2", "host:latest", IMAGE], "they have names"
    settings(instance, scratch, unusedMaxSeconds=1)
    wait_for(lambda: names() == ["host:latest", IMAGE], what="nobody uses the others")


if __name__ == "__main__":
    main()
