"""cloche-usb with devices of several mass-storage interfaces, and with media that can be taken out."""

import os
import subprocess

from harness import main, test
from sticks import Model, mount_fuse, serve, unmount


def make_image(path):
    with open(path, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.vfat", str(path)], stdout=subprocess.DEVNULL, check=True)


@test
def units_of_all_interfaces_are_told(scratch):
    make_image(scratch / "image")
    model = Model("--image", str(scratch / "image"), "--interfaces", "3", "--units", "2", "2:no-medium")
    process = serve(model)
    try:
        talk = process.talk()
        status = talk.ready(units=6)
        assert [(unit["number"], unit["interface"], unit["protocol"]) for unit in status["units"]] == [
            (number, number // 2, "bulk-only") for number in range(6)], status["units"]
        assert status["device"]["interface"] == 0 and {volume["unit"] for volume in status["volumes"]} >= {0, 1, 2, 3}
        assert [unit["state"] for unit in status["units"]] == 4 * ["ready"] + 2 * ["empty"]
        talk.call("format", unit=3, kind="fat16", label="THIRD")
        (volume,) = [volume for volume in talk.ready(units=6)["volumes"] if volume["unit"] == 3]
        assert volume["label"] == "THIRD", volume
        talk.call("end")
        process.wait()
    finally:
        process.end()
        model.end()


def use(scratch, read_only):
    """How often its medium was locked in, and let go of."""
    model = Model("--image", str(scratch / "image"), "--count")
    process = serve(model)
    folder = scratch / "mount"
    folder.mkdir(exist_ok=True)
    try:
        talk = process.talk()
        (volume,) = talk.ready()["volumes"]
        for _ in range(2):
            fd = mount_fuse(str(folder))
            try:
                number = talk.call("mount", [fd], volume=volume["number"], readOnly=read_only)["mount"]
                os.close(fd)
                assert os.listdir(folder) == [] or read_only
                talk.call("unmount", mount=number)
            finally:
                unmount(str(folder))
        talk.call("end")
        process.wait()
        return model.process.stdout.readline().decode()
    finally:
        process.end()
        model.end()


@test
def what_is_mounted_to_be_written_is_locked_in(scratch):
    make_image(scratch / "image")
    assert use(scratch, True) == "prevents 0, allows 0\n"
    locked = use(scratch, False)
    assert locked in ("prevents 1, allows 1\n", "prevents 2, allows 2\n"), locked  # two mounts may be as one to the stick


def session(model, folder, *options, kill=False):
    """A process of a stick that is mounted to be written, and ends, or is killed; what the model has counted by then."""
    process = serve(model, *options)
    try:
        talk = process.talk()
        (volume,) = talk.ready()["volumes"]
        if kill:
            fd = mount_fuse(str(folder))
            try:
                talk.call("mount", [fd], volume=volume["number"])
                os.close(fd)
                (folder / "file").write_text("here")
                process.process.kill()
                process.wait()
            finally:
                unmount(str(folder))
        else:
            talk.call("end")
            process.wait()
        return model.process.stdout.readline().decode()
    finally:
        process.end()


@test
def what_a_killed_process_has_locked_in_is_let_go_of(scratch):
    make_image(scratch / "image")
    folder = scratch / "mount"
    folder.mkdir()
    model = Model("--image", str(scratch / "image"), "--count")
    try:
        assert session(model, folder, kill=True) == "prevents 1, allows 0\n"
        assert session(model, folder) == "prevents 1, allows 0\n"
        assert session(model, folder, "--locked-in") == "prevents 1, allows 1\n"
    finally:
        model.end()


if __name__ == "__main__":
    main()
