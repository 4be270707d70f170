"""What cloche-usb keeps has bounds, whatever is on a stick and whatever is done with it."""

import os
import pathlib
import subprocess
import time

from harness import main, only, test
from test_usb_stick import make, mounted, stick

FOLDERS, IN_EACH = 30, 5000
WRITES = 40_000


def memory(process):
    """Bytes that the jailed process has for itself."""
    for line in pathlib.Path(f"/proc/{process.jailed()}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


def make_files(folder):
    folder.mkdir()
    for number in range(IN_EACH):
        os.close(os.open(folder / str(number), os.O_CREAT | os.O_WRONLY))


@test
def what_the_kernel_knows_of_names_has_a_bound(scratch):
    path = make(scratch / "image", "exfat", 256 << 20)
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "mount", volume=1):
            used = []
            for number in range(FOLDERS):
                make_files(scratch / "mount" / str(number))
                used.append(memory(process))
            half, whole = used[FOLDERS // 2 - 1], used[-1]  # the bound is reached by the half
            assert whole - half < 10 << 20, used
            for number in range(FOLDERS):  # and those that were forgotten are found
                names = {entry.name for entry in os.scandir(scratch / "mount" / str(number)) if entry.stat().st_size == 0}
                assert len(names) == IN_EACH
            assert memory(process) - half < 10 << 20, (used, memory(process))


@test
def what_is_to_be_told_to_a_slow_kernel_has_a_bound(scratch):
    """One mount, with a limit, reads; pages of it are locked meanwhile, and what another one writes cannot be told."""
    path = make(scratch / "image", "exfat")
    with stick("--image", path) as (_, process):
        talk = process.talk()
        talk.ready()
        with mounted(talk, scratch / "slow", volume=1, bytesPerSecond=4096):
            with mounted(talk, scratch / "other", volume=1):
                (scratch / "other" / "file").write_bytes(bytes(8 << 20))
                reader = subprocess.Popen(["cat", str(scratch / "slow" / "file")], stdout=subprocess.DEVNULL)
                time.sleep(1)
                writer = os.open(scratch / "other" / "file", os.O_WRONLY)
                write = lambda count: [os.pwrite(writer, b"x" * 512, number % 2000 * 4096) for number in range(count)]
                write(2000)
                before = memory(process)
                write(WRITES)
                grown = memory(process) - before
                os.close(writer)
                reader.kill()
                talk.call("unmount", mount=1)
                reader.wait()
                assert grown < WRITES * 64, grown  # one note for each of them would be more


only(what_is_to_be_told_to_a_slow_kernel_has_a_bound, what_the_kernel_knows_of_names_has_a_bound)

if __name__ == "__main__":
    main()
