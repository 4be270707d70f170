"""cloche-runtime run and exec that stay until the end: what the caller learns only then, and the folder
that an ended container leaves for the next one.
"""

import os

from bundles import world
from harness import main, wait_for

SPARE = ",spare"
TRAP = "trap 'exit 7' TERM"
WAIT = "while :; do sleep 0.1; done"


def started(w, name):
    """A run in the foreground whose program runs by now."""
    w.bundle.script(f"{TRAP}; echo up > /tmp/{name}; {WAIT}")
    process = w.runtime.start("run", "-b", w.bundle.path, name)
    wait_for(lambda: (w.bundle.rootfs / "tmp" / name).exists())
    assert w.runtime.names() == [name] and w.runtime.status(name) == "running"
    return process


def ended(w, process, name):
    w.runtime("kill", name, "TERM")
    assert process.wait(60) == 7
    assert w.runtime.names() == []


def writable(function):
    def call(w):
        w.bundle.config["root"]["readonly"] = False
        (w.bundle.rootfs / "tmp").mkdir(exist_ok=True)
        function(w)
    call.__name__ = function.__name__
    return world(call)


@writable
def the_folder_of_an_ended_run_serves_the_next(w):
    ended(w, started(w, w.name), w.name)
    spare = (w.runtime.root / SPARE).stat().st_ino
    other = w.name + "-2"
    w.bundle.linux["cgroupsPath"] += "-2"
    process = started(w, other)
    try:
        assert (w.runtime.root / other).stat().st_ino == spare
        assert not (w.runtime.root / SPARE).exists()
        assert w.runtime.state(other)["id"] == other
        w.runtime("state", w.name, code=1)
    finally:
        ended(w, process, other)
    assert os.listdir(w.runtime.root / SPARE) == []


@writable
def what_an_update_left_goes_with_the_container(w):
    process = started(w, w.name)
    w.runtime("update", "--pids-limit", "77", w.name)
    assert len(os.listdir(w.runtime.root / w.name)) > 1
    ended(w, process, w.name)
    assert not (w.runtime.root / SPARE).exists(), os.listdir(w.runtime.root / SPARE)


@writable
def a_folder_that_is_locked_is_not_passed_on(w):
    import fcntl
    process = started(w, w.name)
    fd = os.open(w.runtime.root / w.name, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        ended(w, process, w.name)
        assert os.listdir(w.runtime.root) == []
    finally:
        os.close(fd)


@writable
def the_record_of_another_container_is_none(w):
    process = started(w, w.name)
    try:
        os.symlink(w.name, w.runtime.root / "other")  # links are not followed at all
        assert "does not exist" in w.runtime("state", "other", code=1, log=False).err
        os.unlink(w.runtime.root / "other")
        os.rename(w.runtime.root / w.name, w.runtime.root / "other")
        assert "does not exist" in w.runtime("state", "other", code=1, log=False).err
        assert "does not exist" in w.runtime("kill", "other", "KILL", code=1, log=False).err
        os.rename(w.runtime.root / "other", w.runtime.root / w.name)
    finally:
        ended(w, process, w.name)


@world
def a_program_that_cannot_be_executed_leaves_nothing(w):
    path = w.bundle.rootfs / "bin" / "broken"
    path.write_bytes(b"\x7fELF, but not really")
    path.chmod(0o755)
    w.bundle.args("/bin/broken")
    assert "exec format error" in w.runtime("run", "-b", w.bundle.path, w.name, code=1, log=False).err
    assert w.runtime.names() == [] and not (w.runtime.root / w.name).exists()
    with w.runtime.container(w.bundle.script("sleep 1000"), w.name):
        result = w.runtime("exec", w.name, "/bin/broken", code=255, log=False)
        assert "exec format error" in result.err, result.err


if __name__ == "__main__":
    main()
