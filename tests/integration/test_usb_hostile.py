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
SIZE = 100_000
MAKERS = {"exfat": ["mkfs.exfat"], "fat32": ["mkfs.vfat", "-F", "32"]}
# Of once, in the midst of the data: what writes does not hear of it.
PASSING = {"wrong-tag", "phase-error", "aborted", "stall-csw", "reset-stalls"}
# Another medium, or one that is not what it says it is.
OTHERS = {"medium-change", "capacity-changed", "change-early"}
WHILE_WRITING = ["disconnect", "dead", "stall-data", "wrong-tag", "medium-error", "usbip-cut", "usbip-number",
                 "usbip-length", "medium-gone", "medium-change", "write-protect", "sense-junk", "babble",
                 "short-silent", "phase-error", "aborted", "reset-stalls"]


LARGE = ("--sector-size", "4096")


def faults():
    text = subprocess.run([MODEL, "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
    return text[text.index("all that follow)") + len("all that follow)"):].split()


def write(folder):
    """Files until an error: those that are durable by what was said, and what the mount says then."""
    durable = []
    try:
        for number in range(20):
            with open(folder / f"file{number}", "wb") as file:
                file.write(bytes([number]) * SIZE)
                file.flush()
                os.fsync(file.fileno())
            durable.append(number)
        return durable, None
    except OSError as failure:
        return durable, failure.errno


def mount(talk, fd, volume):
    """The process is the only one that has the descriptor then, so that its end is that of requests."""
    try:
        return talk.call("mount", [fd], volume=volume, timeout=200)["mount"]
    finally:
        os.close(fd)


def is_kept(path, durable, kind, arguments):
    """What was durable is on the image, which is served once more; why not, or None."""
    folder = path.with_suffix(".after")
    folder.mkdir()
    model = Model("--image", str(path), *arguments)
    process = serve(model)
    try:
        talk = process.talk()
        (volume,) = talk.ready(timeout=100)["volumes"]
        if volume["kind"] == "unknown":
            return f"it has no {kind} any more" if durable else None
        fd = mount_fuse(str(folder))
        try:
            number_of_mount = mount(talk, fd, volume["number"])
            for number in durable:
                there = (folder / f"file{number}").read_bytes()
                if there != bytes([number]) * SIZE:
                    return f"file{number} has {len(there)} bytes, not what was written"
            talk.call("unmount", mount=number_of_mount, timeout=200)
        except OSError as failure:
            return f"what was durable: {failure}"
        finally:
            unmount(str(folder))
        left = talk.call("check", volume=volume["number"], timeout=200)["left"]
        talk.call("end", timeout=200)
        return f"{left} findings" if left and not volume.get("dirty") else None
    finally:
        process.end()
        model.end()


def suffer(scratch, name, *arguments, kind="exfat"):
    """Everything with a stick of this fault; why it was not as it should, or None."""
    path = scratch / "-".join([kind, name.replace("@", "-").replace("+", ""), *arguments])
    shutil.copy(scratch / kind, path)
    durable, error = [], None
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
                    durable, error = write(folder)
                except Refused:
                    pass
                finally:
                    unmount(str(folder))
            talk.call("end", timeout=200)
        except (ConnectionError, BrokenPipeError, Refused):
            pass
        code = process.wait(60)
        if code not in (ENDED, FAILED, GONE):
            return f"{name}: exit status {code}: {process.said()}"
        if error and name.partition("@")[0] in PASSING and "@" in name:
            return f"{name}: it passes, and yet: {os.strerror(error)}"
    except (TimeoutError, subprocess.TimeoutExpired) as failure:
        return f"{name}: {failure}: {process.said()}"
    finally:
        process.end()
        model.end()
    if name.partition("@")[0] in OTHERS:
        return None
    sectors = arguments if arguments[:1] == LARGE[:1] else ()
    why = is_kept(path, durable, kind, sectors)
    path.unlink()
    return f"{name} on {kind} {' '.join(arguments)}: {why}" if why else None


def make_image(scratch, kind):
    path = scratch / kind
    with open(path, "wb") as file:
        file.truncate({"exfat": 8, "fat32": 40, "fat16": 64}[kind] << 20)
    subprocess.run(MAKERS[kind] + [str(path)], stdout=subprocess.DEVNULL, check=True)


def make_large_image(scratch, kind):
    """By our own format: not every mkfs knows such sectors."""
    path = scratch / kind
    with open(path, "wb") as file:
        file.truncate({"exfat": 16, "fat16": 64}[kind] << 20)
    model = Model("--image", str(path), "--sector-size", "4096")
    process = serve(model)
    try:
        talk = process.talk()
        talk.ready()
        talk.call("format", unit=0, kind=kind, timeout=200)
        talk.call("end", timeout=200)
        assert process.wait(60) == ENDED
    finally:
        process.end()
        model.end()


def suffer_all(scratch, cases):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda case: suffer(scratch, case[0], *case[2], kind=case[1]), cases)
        problems = [problem for problem in found if problem]
    assert not problems, "\n".join(problems)


@test
def no_misbehaviour_of_a_stick_brings_it_down(scratch):
    make_image(scratch, "exfat")
    names = faults()
    assert len(names) > 60, names
    names += [f"{name}@{number}" for name in WHILE_WRITING for number in (30, 60)]
    suffer_all(scratch, [(name, "exfat", ()) for name in names])


@test
def what_was_durable_is_kept_on_fat32_and_by_several_units(scratch):
    make_image(scratch, "fat32")
    cases = [(f"{name}@{number}", "fat32", ()) for name in WHILE_WRITING for number in (30, 60)]
    cases += [(f"{name}@30", "fat32", ("--units", "2")) for name in WHILE_WRITING[:10] if name not in OTHERS]
    suffer_all(scratch, cases)


@test
def what_was_durable_is_kept_in_sectors_of_4096_bytes(scratch):
    for kind in "exfat", "fat16":
        make_large_image(scratch, kind)
    suffer_all(scratch, [(f"{name}@{moment}", kind, LARGE) for name in WHILE_WRITING for kind, moment in
                         (("exfat", 60), ("fat16", 45))])


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
                    file.flush()
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
