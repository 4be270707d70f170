"""What sticks say of themselves, and of their files, does nothing to a terminal, and is text: descriptors, INQUIRY,
labels, names of partitions and files, and whatever a process of a stick says that is not what it was."""

import json
import unicodedata

from harness import main, only, run, test
from sticks import Stick, attach, inspect
from test_usb import PATH, appears, need_fuse, sh, start
from test_usb_stick import make_gpt
from test_usb_untrue import DEVICE, STATUS, UNIT, VOLUME, attached

UNITS = {  # of UTF-16, little endian
    "escape": "\x1b]0;owned\x07\x1b[2J".encode("utf-16-le"),
    "surrogates": bytes.fromhex("00d8 41 00 00dc 00dc 00d8".replace(" ", "")),
    "turning": "\u202eevil\u2066\u061c\u200f".encode("utf-16-le"),
    "c1": "\x9b31m\x85\x90".encode("utf-16-le"),
    "zeros": "a\0b\0".encode("utf-16-le"),
    "newlines": "a\nb\r\tc\u2028d".encode("utf-16-le"),
    "long": "\U0001F600".encode("utf-16-le"),
}
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def expect_text(data, what, allowed="\n"):
    """Bytes of a terminal's: UTF-8, and nothing that does more than to be shown."""
    for character in data.decode():  # it is UTF-8
        assert character in allowed or unicodedata.category(character) != "Cc", (what, character, data)
        assert character not in TURNING, (what, character, data)


def output(instance, *words, code=0):
    done = instance.cloche(*words, code=code, text=False)
    return done.out + done.err


def expect_all_text(instance, name):
    for words in (["ls"], ["ls", "--all"], ["ls", "--format", "json"], ["ls", "--format", "{{.Name}} {{.Serial}} {{.Error}}"],
                  ["inspect", name], ["inspect", "--format", "{{.serial}} {{json .volumes}} {{json .units}}", name],
                  ["stats", name]):
        expect_text(output(instance, "usb", *words, code=None), words)
    for line in instance.cloche("usb", "ls", "--format", "json", text=False).out.splitlines():
        json.loads(line)


def expect_log_text(instance):
    for path in instance.run_folder.glob("*.log"):
        for line in path.read_bytes().splitlines():
            expect_text(line, path)
            if line.startswith(b"{"):
                json.loads(line)


@test
def strings_of_a_device_are_only_shown(instance):
    for name, units in UNITS.items():
        with Stick("--strings", units.hex(), "--inquiry", units[:28].hex()) as stick:
            attached_as = attach(instance, stick)
            shown = inspect(instance, attached_as)
            assert shown["state"] == "ready", shown
            if name in ("turning", "surrogates", "long"):
                assert shown["serial"], shown
            expect_all_text(instance, attached_as)
            output(instance, "usb", "inspect", shown["serial"] or "x", code=None)
            expect_text(output(instance, "usb", "attach", "no" + shown["serial"], code=1), "no such stick")
            expect_text(output(instance, "usb", "format", attached_as, "--volume", "9", "--yes", code=None), "format")
            instance.cloche("usb", "detach", attached_as)
    expect_log_text(instance)


def put_label(image, units):
    """exFAT, 7.3: the entry of the label, eleven units."""
    with open(image, "r+b") as file:
        whole = file.read()
        at = whole.index(bytes([0x83, 4]) + "SHOP".encode("utf-16-le"))
        file.seek(at)
        file.write(bytes([0x83, 11]) + (units * 22)[:22])


@test
def labels_are_only_shown(instance):
    for name, units in UNITS.items():
        with Stick(kind="exfat", size=8) as stick:
            stick.pull_out()
            put_label(stick.image.name, units)
            stick.plug_in()
            attached_as = attach(instance, stick)
            volume, = inspect(instance, attached_as)["volumes"]
            assert volume["kind"] == "exfat", volume
            expect_all_text(instance, attached_as)
            expect_text(output(instance, "usb", "check", attached_as, code=None), name)
            instance.cloche("usb", "detach", attached_as)
    expect_log_text(instance)


@test
def names_of_partitions_are_only_shown(instance):
    with Stick(kind=None, size=16) as stick:
        stick.pull_out()
        make_gpt(stick.image.name, 16 << 20, *[("\x1b[2J\u202e\x9b" + name, 2048 + 2048 * i, 2048)
                                               for i, name in enumerate(UNITS)])
        stick.plug_in()
        attached_as = attach(instance, stick)
        assert len(inspect(instance, attached_as)["volumes"]) == len(UNITS)
        expect_all_text(instance, attached_as)
    expect_log_text(instance)


NAMES = ["\u202egnp.exe", "C1 \x9b31m", "next\x85line", "\u2066turned\u2069", "n" * 255]


def spoil_files(image):
    """exFAT: each file of that name says that more of it is valid than there is; how many there were."""
    with open(image, "r+b") as file:
        whole = bytearray(file.read())
        found, at = 0, -1
        while (at := whole.find(b"\xc1\0" + "file".encode("utf-16-le") + b"\0\0", at + 1)) >= 0:
            first = at - 64
            assert whole[first] == 0x85 and whole[first + 32] == 0xC0
            whole[first + 40:first + 48] = (1 << 40).to_bytes(8, "little")
            total = 0  # 6.3.3
            for i in range((whole[first + 1] + 1) * 32):
                if i not in (2, 3):
                    total = ((total << 15 | total >> 1) + whole[first + i]) & 0xFFFF
            whole[first + 2:first + 4] = total.to_bytes(2, "little")
            found += 1
        file.seek(0)
        file.write(whole)
    return found


@test
def names_of_files_are_what_they_are_and_findings_are_only_shown(instance, images):
    """In a container they are names as others; what a check tells of them is for a person."""
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    with Stick(kind="exfat", size=8) as stick:
        name = attach(instance, stick)
        appears(instance)
        for folder in NAMES:
            sh(instance, f"mkdir '{PATH}/{folder}' && echo here > '{PATH}/{folder}/file'")
        listed = sh(instance, f"cd {PATH} && printf '%s\\n' *").out
        assert all(folder in listed for folder in NAMES), listed
        instance.cloche("usb", "detach", name)
        stick.pull_out()
        assert spoil_files(stick.image.name) >= len(NAMES)  # also in the journal
        stick.plug_in()
        instance.cloche("rm", "-f", "shop")
        name = attach(instance, stick)
        told = output(instance, "usb", "check", name, code=None)
        assert b"gnp.exe" in told, told
        expect_text(told, "check")
        expect_text(output(instance, "usb", "check", "--format", "json", name, code=None), "check")
    expect_log_text(instance)


WORDS = "\x1b[2J\u202e\x9b31m\x07\r\nforged: all is well"
LIAR = f"""
def tell(request, say, result):
    words = {WORDS!r}
    if "status" in request:
        return False
    if "check" in request:
        say(event={{"finding": {{"id": request["id"], "what": words, "repaired": False}}}})
        say(event={{"failed": {{"message": words}}}})
        result({{"check": {{"findings": 1, "left": 1}}}})
        return True
    if "end" in request:
        return False
    say(id=request["id"], error={{"code": -5, "message": words, "hint": words}})
    return True
"""


@test
def a_process_that_is_not_what_it_was_says_only_text(instance, images, scratch):
    words = {"label": WORDS, "id": WORDS, "error": WORDS}
    unit = {"vendor": WORDS, "product": WORDS, "revision": WORDS, "serial": WORDS, "name": WORDS, "error": WORDS}
    status = dict(STATUS, units=[dict(UNIT, **unit)], volumes=[dict(VOLUME, **words)],
                  device=dict(DEVICE, serial=WORDS, model=WORDS, manufacturer=WORDS))
    with attached(instance, scratch, LIAR, status) as name:
        expect_all_text(instance, name)
        for what in ["check", name], ["format", "--yes", name], ["eject", name], ["stats", name]:
            expect_text(output(instance, "usb", *what, code=None), what)
    begun = instance.start("events", "--since", "1", "--until", "0s")
    out, _ = begun.communicate(timeout=60)
    expect_text(out, "events")
    expect_log_text(instance)


only(strings_of_a_device_are_only_shown, labels_are_only_shown, names_of_partitions_are_only_shown,
     names_of_files_are_what_they_are_and_findings_are_only_shown, a_process_that_is_not_what_it_was_says_only_text)

if __name__ == "__main__":
    main()
