"""Sticks that misbehave, under the whole of cloche-usb: it ends as it should, with what was durable kept."""

import concurrent.futures
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

from harness import main, test
from sticks import ENDED, FAILED, GONE, MODEL, Model, Refused, mount_fuse, serve, unmount

AT_ONCE = 24
WHILE_WRITING = ["disconnect", "dead", "stall-data", "wrong-tag", "medium-error", "usbip-cut", "usbip-number",
                 "usbip-length", "medium-gone", "medium-change", "write-protect", "sense-junk", "babble",
                 "short-silent", "phase-error", "aborted", "reset-stalls"]


def faults():
    text = subprocess.run([MODEL, "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
    return text[text.index("all that follow)") + len("all that follow)"):].split()


def write(folder):
    """Files until an error: what the mount says then."""
    try:
        for number in range(20):
            with open(folder / f"file{number}", "wb") as file:
                file.write(bytes([number]) * 100_000)
                os.fsync(file.fileno())
        return None
    except OSError as failure:
        return failure.errno


def mount(talk, fd, volume):
    """The process is the only one that has the descriptor then, so that its end is that of requests."""
    try:
        talk.call("mount", [fd], volume=volume, timeout=200)
    finally:
        os.close(fd)


def suffer(scratch, name, *arguments):
    """Everything with a stick of this fault; why it was not as it should, or None."""
    path = scratch / name.replace("@", "-").replace("+", "")
    shutil.copy(scratch / "image", path)
    folder = scratch / f"{path.name}.mount"
    folder.mkdir()
    model = Model("--image", str(path), *arguments, name)
    process = serve(model)
    try:
        try:
            talk = process.talk()  # with the worst it has ended by now
            status = talk.ready(timeout=100)
            for volume in status["volumes"][:1]:
                fd = mount_fuse(str(folder))
                try:
                    mount(talk, fd, volume["number"])
                    write(folder)
                except Refused:
                    pass
                finally:
                    unmount(str(folder))
            talk.call("end", timeout=200)
        except (ConnectionError, BrokenPipeError, Refused):
            pass
        code = process.wait(60)
        return None if code in (ENDED, FAILED, GONE) else f"{name}: exit status {code}: {process.said()}"
    except (TimeoutError, subprocess.TimeoutExpired) as failure:
        return f"{name}: {failure}: {process.said()}"
    finally:
        process.end()
        model.end()


@test
def no_misbehaviour_of_a_stick_brings_it_down(scratch):
    with open(scratch / "image", "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.exfat", str(scratch / "image")], stdout=subprocess.DEVNULL, check=True)
    names = faults()
    assert len(names) > 60, names
    names += [f"{name}@{number}" for name in WHILE_WRITING for number in (30, 60)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        problems = [problem for problem in pool.map(lambda name: suffer(scratch, name), names) if problem]
    assert not problems, "\n".join(problems)


def settled(status):
    return [volume for volume in status["volumes"] if volume["kind"] != "unknown"]


def lose_power(scratch, chance):
    """Writes, with fsync, until the power goes at some time; what was promised by then."""
    promised = {}
    model = Model("--image", str(scratch / "stick"), "--volatile", str(chance.randrange(1 << 30)))
    process = serve(model)
    folder = scratch / "mount"
    folder.mkdir(exist_ok=True)
    try:
        talk = process.talk()
        (volume,) = settled(talk.ready())
        fd = mount_fuse(str(folder))
        try:
            mount(talk, fd, volume["number"])
            jailed = process.jailed()
            kept = {path.name: path.read_bytes() for path in folder.iterdir()}
            end = time.monotonic() + chance.uniform(0.05, 0.6)
            while time.monotonic() < end:
                name = f"file{chance.randrange(30)}"
                data = chance.randbytes(chance.randrange(1, 60_000))
                with open(folder / (name + ".new"), "wb") as file:
                    file.write(data)
                    os.fsync(file.fileno())
                os.rename(folder / (name + ".new"), folder / name)
                handle = os.open(folder, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)
                promised[name] = data
            os.kill(jailed, signal.SIGKILL)
        finally:
            unmount(str(folder))
        process.wait()
        model.wait_for_loss()
        return kept, promised
    finally:
        process.end()
        model.end()


def look_after(scratch, promised):
    model = Model("--image", str(scratch / "stick"))
    process = serve(model)
    folder = scratch / "mount"
    try:
        talk = process.talk()
        (volume,) = settled(talk.ready())
        fd = mount_fuse(str(folder))
        try:
            mount(talk, fd, volume["number"])
            for name, data in promised.items():
                there = (folder / name).read_bytes()
                assert there == data, f"{name}: {len(there)} bytes for {len(data)} that were promised"
            talk.call("unmount", mount=1)
        finally:
            unmount(str(folder))
        assert talk.call("check", volume=volume["number"])["left"] == 0
        talk.call("end")
    finally:
        process.end()
        model.end()


@test
def what_was_promised_is_there_when_the_power_has_gone(scratch):
    chance = random.Random(20261122)
    for maker in ["mkfs.exfat"], ["mkfs.vfat", "-F", "32"]:
        with open(scratch / "stick", "wb") as file:
            file.truncate(40 << 20)
        subprocess.run([*maker, str(scratch / "stick")], stdout=subprocess.DEVNULL, check=True)
        for _ in range(8):
            kept, promised = lose_power(scratch, chance)
            assert promised
            look_after(scratch, {**kept, **promised})
        pathlib.Path(scratch / "stick").unlink()


if __name__ == "__main__":
    main()
