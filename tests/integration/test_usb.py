"""USB sticks in containers, by the daemon: remote ones by USB/IP, which the tests' stick model serves
and cloche-usb has. (Sticks in ports of the machine: tests/vm/test_usb_engine.py.)"""

import json
import os
import pathlib
import signal
import tempfile
import time

from harness import Skip, main, run, test, wait_for
from sticks import Stick, attach, can_be_real_time, inspect, start

PATH = "/media/stick"


def need_fuse():
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")


def sticks(instance):
    return [json.loads(line) for line in instance.cloche("usb", "ls", "--format", "json").lines]


def processes(instance):
    """Of cloche-usb, of this instance: by their records."""
    return [json.loads(path.read_text())["pid"]
            for path in instance.run_folder.glob("usb/remote*.json")]


def sh(instance, command, name="shop", **options):
    return instance.cloche("exec", name, "sh", "-c", command, **options)


def is_there(instance, name="shop", path=PATH):
    return "fuse" in sh(instance, f"grep ' {path} ' /proc/self/mountinfo | tail -n 1", name).out


def appears(instance, name="shop", path=PATH):
    wait_for(lambda: is_there(instance, name, path), what="the stick in the container")


def vanishes(instance, name="shop", path=PATH):
    wait_for(lambda: not is_there(instance, name, path), what="the stick gone from the container")


@test
def a_remote_stick_is_attached_listed_and_let_go_of(instance):
    need_fuse()
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        name = attach(instance, stick)
        assert name == "remote-1"
        shown = inspect(instance, name)
        assert shown["state"] == "ready" and shown["url"] == stick.url, shown
        assert [(v["kind"], v["label"]) for v in shown["volumes"]] == [("fat16", "SHOP")] or \
            shown["volumes"][0]["label"] == "SHOP", shown
        assert [row["ID"] for row in sticks(instance)] == [name]
        assert attach(instance, stick) == name  # it is there
        pid, = processes(instance)
        instance.cloche("usb", "detach", name)
        assert sticks(instance) == []
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of its process")
        assert "No such USB device" in instance.cloche("usb", "inspect", name, code=1).err


def kept_under_way(instance):
    """What the kernel was told of the mount's cache."""
    number = sh(instance, f"grep ' {PATH} ' /proc/self/mountinfo | tail -n 1").out.split()[2]
    return {name: pathlib.Path(f"/sys/class/bdi/{number}/{name}").read_text().strip()
            for name in ("read_ahead_kb", "max_ratio", "min_ratio")}


@test
def a_stick_comes_into_a_running_container_and_goes_with_detach(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    assert not is_there(instance) and sh(instance, f"ls {PATH}").out == ""
    assert "Read-only" in sh(instance, f"touch {PATH}/x", code=1).err  # not into the container's own folder
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        name = attach(instance, stick)
        appears(instance)
        assert sh(instance, f"cat {PATH}/hello.txt").out == "hello\n"
        sh(instance, f"mkdir {PATH}/sub && echo new > {PATH}/sub/new.txt && sync")
        shown = inspect(instance, name)
        assert [(m["target"], m["readOnly"]) for m in shown["mounts"]] == [(PATH, False)], shown
        options = sh(instance, f"grep ' {PATH} fuse' /proc/self/mounts || grep ' {PATH} ' /proc/self/mounts").out
        assert all(word in options for word in ("nosuid", "nodev", "noexec")), options
        assert kept_under_way(instance) == {"read_ahead_kb": "4096", "max_ratio": "7", "min_ratio": "3"}
        instance.cloche("usb", "detach", name)
        vanishes(instance)
        assert sh(instance, f"ls {PATH}").out == ""
        assert stick.read("sub/new.txt") == "new\n"
        run("fsck.vfat", "-n", stick.image.name)


@test
def a_stick_that_is_there_already_comes_into_a_container_that_starts(instance, images):
    need_fuse()
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        attach(instance, stick)
        start(instance, images, "--usb-storage", PATH + ":ro")
        appears(instance)
        assert sh(instance, f"cat {PATH}/hello.txt").out == "hello\n"
        assert "Read-only" in sh(instance, f"touch {PATH}/x", code=1).err
        instance.cloche("restart", "-t", "0", "shop")
        appears(instance)
        instance.cloche("rm", "-f", "shop")
        wait_for(lambda: not inspect(instance, "remote-1").get("mounts"), what="the end of the mount")


@test
def a_stick_that_is_pulled_out_vanishes_and_comes_again(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        attach(instance, stick)
        appears(instance)
        stick.pull_out()
        vanishes(instance)
        assert sh(instance, f"ls {PATH}").out == ""
        wait_for(lambda: sticks(instance) == [], what="the stick gone from the list")
        stick.plug_in()
        attach(instance, stick)
        appears(instance)
        assert sh(instance, f"cat {PATH}/hello.txt").out == "hello\n"


@test
def a_stick_lives_through_the_death_of_the_daemon(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        name = attach(instance, stick)
        appears(instance)
        before = processes(instance)
        reader = instance.start("exec", "shop", "sh", "-c",
                                f"exec 3< {PATH}/hello.txt; sleep 4; cat <&3")
        time.sleep(0.5)
        instance.kill_daemon()
        assert inspect(instance, name)["state"] in ("starting", "ready")
        wait_for(lambda: inspect(instance, name)["state"] == "ready", what="the stick taken over")
        assert processes(instance) == before
        assert [m["target"] for m in inspect(instance, name)["mounts"]] == [PATH]
        assert is_there(instance) and reader.communicate(timeout=20)[0] in (b"hello\n", "hello\n")
        instance.cloche("usb", "eject", name)
        vanishes(instance)


@test
def a_process_that_dies_is_started_again(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        name = attach(instance, stick)
        appears(instance)
        before, = processes(instance)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: processes(instance) not in ([before], []), what="another process")
        wait_for(lambda: inspect(instance, name).get("mounts"), what="the mount again")
        assert sh(instance, f"cat {PATH}/hello.txt").out == "hello\n"
        mounts = sh(instance, f"grep -c ' {PATH} .*fuse' /proc/self/mountinfo").out.strip()
        assert mounts == "1", "a dead mount is left"


@test
def mounts_of_an_older_daemon_are_unmounted(instance, images):
    """Its records have no user, and its mounts not the name of the stick."""
    need_fuse()
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        name = attach(instance, stick)
        instance.kill_daemon()
        record, = instance.run_folder.glob("usb/remote*.json")
        content = json.loads(record.read_text())
        del content["user"]
        record.write_text(json.dumps(content))
        start(instance, images, "--usb-storage", PATH)
        appears(instance)
        assert " - fuse cloche-usb " in sh(instance, f"grep ' {PATH} ' /proc/self/mountinfo").out
        instance.kill_daemon()
        instance.cloche("usb", "detach", name)
        vanishes(instance)


@test
def several_containers_have_a_stick_one_writes(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH, name="writer")
    start(instance, images, "--usb-storage", PATH + ":ro", name="reader")
    start(instance, images, "--usb-storage", PATH + ":label=OTHER", name="other")
    start(instance, images, "--usb-storage", PATH + ":ro:usb=dead:beef", name="picky")
    with Stick() as stick:
        attach(instance, stick)
        appears(instance, "writer")
        appears(instance, "reader")
        sh(instance, f"echo seen > {PATH}/x", "writer")
        wait_for(lambda: sh(instance, f"cat {PATH}/x 2>/dev/null || true", "reader").out == "seen\n")
        sh(instance, f"touch {PATH}/y", "reader", code=1)
        assert not is_there(instance, "other") and not is_there(instance, "picky")


@test
def a_stick_has_programs_where_they_are_allowed(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH + ":exec,port=*/1-1", name="exec")
    start(instance, images, "--usb-storage", PATH, name="none")
    start(instance, images, "--usb-storage", PATH + ":port=*/9-9", name="elsewhere")
    with Stick(files=[("x", "#!/bin/sh\necho ran\n")]) as stick:
        attach(instance, stick)
        appears(instance, "exec")
        appears(instance, "none")
        assert sh(instance, f"{PATH}/x", "exec").out == "ran\n"
        assert "denied" in sh(instance, f"{PATH}/x", "none", code=126).err
        assert not is_there(instance, "elsewhere")


@test
def a_container_writes_no_more_than_it_may(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH + ":size=1m", name="little")
    start(instance, images, "--usb-storage", PATH + ":bps=400k", name="slow")
    start(instance, images, "--usb-storage", PATH + ":iops=5", name="seldom")
    with Stick() as stick:
        name = attach(instance, stick)
        for container in ("little", "slow", "seldom"):
            appears(instance, container)
        sh(instance, f"dd if=/dev/zero of={PATH}/b bs=64k count=8 conv=fsync", "little")
        full = sh(instance, f"dd if=/dev/zero of={PATH}/a bs=64k count=64 conv=fsync", "little", code=1).err
        assert "No space left" in full, full
        begun = time.monotonic()
        sh(instance, f"dd if=/dev/zero of={PATH}/c bs=64k count=32 conv=fsync", "slow")
        assert time.monotonic() - begun > 2  # of five; the rest may be had ahead
        begun = time.monotonic()
        sh(instance, f"for i in $(seq 30); do mkdir {PATH}/$i; done", "seldom")
        assert time.monotonic() - begun > 3
        instance.cloche("usb", "detach", name)
        run("fsck.vfat", "-n", stick.image.name)


@test
def files_belong_to_the_user_of_the_container(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH, "--user", "1000:1001", name="user")
    with Stick(files=[("hello.txt", "hello\n")]) as stick:
        attach(instance, stick)
        appears(instance, "user")
        assert sh(instance, f"stat -c %u:%g {PATH}/hello.txt", "user").out == "1000:1001\n"
        sh(instance, f"echo mine > {PATH}/mine", "user")


@test
def a_container_cannot_lead_a_stick_elsewhere(instance, images):
    need_fuse()
    start(instance, images, "--privileged", "--usb-storage", PATH)
    sh(instance, f"umount {PATH} && rmdir {PATH} && ln -s /../../../../proc/1/root/tmp {PATH}")
    with Stick() as stick:
        attach(instance, stick)
        time.sleep(1)
        own = pathlib.Path("/proc/self/mountinfo").read_text()
        assert "cloche-usb" not in own, "mounted outside"
        wait_for(lambda: inspect(instance, "remote-1")["state"] == "ready")
        instance.cloche("usb", "detach", "remote-1")
        sh(instance, f"rm -f {PATH}; mkdir -p {PATH}")
        assert sh(instance, "grep -c fuse /proc/self/mountinfo || true").out.strip() == "0"


@test
def rules_are_added_listed_and_kept(instance):
    first = instance.cloche("usb", "policy", "--vendor", "0781", "add", "deny").out.strip()
    second = instance.cloche("usb", "policy", "--class", "03", "--class", "08:06:50", "--last", "add", "kernel").out.strip()
    rules = [json.loads(line) for line in instance.cloche("usb", "policy", "--format", "json", "ls").lines]
    assert [(r["ID"], r["Action"], r["Devices"]) for r in rules[:2]] == [
        (first, "deny", "vendor=0781"), (second, "kernel", "classes=03,08:06:50")], rules
    assert [(r["ID"], r["Action"], r["From"]) for r in rules[2:]] == [
        ("-", "allow", "default"), ("-", "kernel", "default")], rules
    instance.kill_daemon()
    assert instance.cloche("usb", "policy", "--format", "{{.ID}}", "ls").lines[:2] == [first, second]
    assert instance.cloche("usb", "policy", "rm", first).out.strip() == first
    assert "no rule" in instance.cloche("usb", "policy", "rm", first, code=1).err
    assert "four hex digits" in instance.cloche("usb", "policy", "--vendor", "07zz", "add", "deny", code=1).err
    assert instance.cloche("usb", "policy", "--format", "{{.ID}}", "ls").lines[0] == second


def offered(instance, *words):
    return {line.split("\t")[0] for line in instance.cloche("__complete", *words).lines}


@test
def words_of_usb_are_completed(instance):
    assert offered(instance, "usb", "policy", "") == {"ls", "add", "rm"}
    assert offered(instance, "usb", "policy", "add", "") == {"allow", "kernel", "deny"}
    assert offered(instance, "usb", "policy", "add", "deny", "") == set()
    rule = instance.cloche("usb", "policy", "--serial", "X", "add", "deny").out.strip()
    assert offered(instance, "usb", "policy", "rm", "") == {rule}
    assert {"exfat", "fat32"} <= offered(instance, "usb", "format", "--kind", "")
    with Stick() as stick:
        name = attach(instance, stick)
        row = sticks(instance)[0]
        vendor, product = row["Device"].split(":")
        for command in ("check", "detach", "eject", "format", "inspect", "stats", "attach"):
            assert offered(instance, "usb", command, "r") == {name}, command
        for option, word in (("vendor", vendor), ("product", product), ("serial", row["Serial"]), ("port", name)):
            assert offered(instance, "usb", "policy", f"--{option}", "") == {word}, option
        assert offered(instance, "run", "--device-usb", "") == {row["Device"]}


@test
def everything_is_told_as_json_and_by_templates(instance):
    with Stick() as stick:
        name = attach(instance, stick)
        serial = sticks(instance)[0]["Serial"]
        show = lambda *words, code=0: instance.cloche("usb", *words, code=code).out
        assert show("ls", "--format", "{{.ID}} {{.State}}") == f"{name} ready\n"
        assert show("ls", "--format", "table {{.ID}}\t{{.Serial}}").split() == ["ID", "SERIAL", name, serial]
        assert show("ls", "-q") == f"{name}\n"
        assert show("inspect", "--format", "{{.state}} {{(index .volumes 0).kind}}", serial).startswith("ready fat")
        assert json.loads(show("stats", "--format", "json", name))[0]["commands"] > 0
        assert int(show("stats", "--format", "{{.commands}}", name)) > 0
        assert show("check", "--format", "{{.left}} left", name) == "0 left\n"
        assert json.loads(show("check", "--format", "json", name))["findings"] == []
        assert show("policy", "--format", "{{.Action}}", "ls").split() == ["allow", "kernel"]
        for words in (("ls",), ("policy", "ls"), ("inspect", name), ("stats", name), ("check", name)):
            assert "template" in instance.cloche("usb", *words, "--format", "{{.x", code=None).err, words


@test
def what_is_wrong_comes_with_what_to_do(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    with Stick() as stick, Stick() as other:
        attach(instance, stick)
        attach(instance, other)
        appears(instance)
        serial = sticks(instance)[0]["Serial"]
        refused = instance.cloche("usb", "inspect", serial, code=1).err
        assert "several USB devices" in refused and "by its ID" in refused, refused
        mounted, = [row["ID"] for row in sticks(instance) if row["Mounts"]]
        for words in (("format", "--yes", mounted), ("check", mounted)):
            refused = instance.cloche("usb", *words, code=1).err
            assert "is mounted" in refused and "cloche usb ls" in refused, refused
        refused = instance.cloche("usb", "check", "--volume", "9", mounted, code=1).err
        assert "no volume 9" in refused, refused


@test
def times_and_short_names_are_read_as_the_settings_say(instance, images, scratch):
    need_fuse()
    settings = scratch / "cloched.conf"
    settings.write_text(json.dumps({"usb": {"minutesEast": 330, "codepage": "cp866"}}))
    settings.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(settings)
    with Stick() as stick:
        old = scratch / "old"
        old.write_text("old")
        os.utime(old, (1_600_000_000, 1_600_000_000))
        run("mcopy", "-m", "-i", stick.image.name, old, "::old", env=dict(os.environ, TZ="UTC-5:30"))
        run("mcopy", "-i", stick.image.name, old, "::XYZ.TXT")
        content = pathlib.Path(stick.image.name).read_bytes()
        assert content.count(b"XYZ     TXT") == 1
        with open(stick.image.name, "r+b") as image:  # as an old instrument would write it
            image.seek(content.index(b"XYZ     TXT"))
            image.write("ДОМ".encode("cp866"))
        attach(instance, stick)
        start(instance, images, "--usb-storage", PATH)
        appears(instance)
        assert sh(instance, f"stat -c %Y {PATH}/old").out == "1600000000\n"
        assert sh(instance, f"cat {PATH}/ДОМ.TXT").out == "old"
        sh(instance, f"echo new > {PATH}/new && touch -d @1500000000 {PATH}/new")
        instance.cloche("usb", "eject", "remote-1")
        run("mcopy", "-m", "-i", stick.image.name, "::new", scratch / "new", env=dict(os.environ, TZ="UTC-5:30"))
        assert (scratch / "new").stat().st_mtime == 1_500_000_000


@test
def a_code_page_that_is_none_is_named(instance, scratch):
    settings = scratch / "cloched.conf"
    settings.write_text(json.dumps({"usb": {"codepage": "cp1"}}))
    settings.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(settings)
    assert "usb.codepage" in instance.cloche("version", code=None).err
    settings.write_text("{}")


@test
def remote_sticks_are_judged_by_all_of_their_interfaces(instance, scratch):
    need_fuse()
    configure(instance, scratch, exclusive=True)
    with Stick() as stick, Stick("also-keyboard") as keyboard:
        assert inspect(instance, attach(instance, stick))["state"] == "ready"
        assert "more than a stick" in instance.cloche("usb", "attach", keyboard.url, code=1).err
        instance.cloche("usb", "policy", "add", "--serial", "0123456789AB", "allow")
        shown = inspect(instance, attach(instance, keyboard))
        assert shown["state"] == "ready" and shown["classes"] == ["08:06:50", "03:01:01"], shown


@test
def what_the_policy_denies_is_not_served(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    rule = instance.cloche("usb", "policy", "--port", "usbip:*", "add", "deny").out.strip()
    with Stick() as stick:
        refused = instance.cloche("usb", "attach", stick.url, code=1).err
        assert "policy denies" in refused, refused
        wait_for(lambda: sticks(instance) == [], what="nothing left of it")
        assert not is_there(instance)
        instance.cloche("usb", "policy", "rm", rule)
        attach(instance, stick)
        appears(instance)
        instance.cloche("usb", "policy", "--storage-only", "add", "deny")
        instance.cloche("usb", "policy", "--not-storage-only", "add", "deny")
        vanishes(instance)


@test
def a_stick_is_formatted_and_checked(instance):
    with Stick(kind=None) as stick:
        name = attach(instance, stick)
        assert "--yes" in instance.cloche("usb", "format", name, code=1).err
        instance.cloche("usb", "format", "--yes", "--kind", "fat16", "--label", "NEW", name)
        wait_for(lambda: [v["label"] for v in inspect(instance, name).get("volumes", [])] == ["NEW"])
        assert instance.cloche("usb", "check", name).out == "all good\n"
        assert json.loads(instance.cloche("usb", "check", "--format", "json", name).out)["left"] == 0
        statistics = json.loads(instance.cloche("usb", "stats", "--format", "json", name).out)[0]
        assert statistics["writes"]["bytes"] > 0, statistics
        instance.cloche("usb", "detach", name)
        run("fsck.vfat", "-n", stick.image.name)


def fill(stick, count):
    """Folders: a check reads each."""
    with tempfile.TemporaryDirectory(prefix="cloche-test-", dir="/var/tmp") as folder:
        names = [os.path.join(folder, str(number)) for number in range(count)]
        for name in names:
            os.mkdir(name)
        run("mcopy", "-i", stick.image.name, "-s", *names, "::")


@test
def a_check_shows_how_far_it_is_and_ctrl_c_ends_it(instance):
    with Stick("--slow", "250") as stick:
        fill(stick, 500)
        name = attach(instance, stick)
        with instance.terminal("usb", "check", name) as terminal:
            terminal.expect(r"Checking  \[[#.]{24}\] +\d+%")
            told = instance.cloche("usb", "check", name, code=1).err  # no terminal
            assert "busy" in told and "%" not in told, told
            terminal.send("\x03")
            assert terminal.wait() == -signal.SIGINT
        wait_for(lambda: "busy" not in instance.cloche("usb", "format", "--yes", name, code=None).err,
                 what="the check's end")
        with instance.terminal("usb", "format", "--yes", "--kind", "fat16", name) as terminal:
            assert terminal.wait() == 0


@test
def detaching_does_not_wait_for_a_check(instance):
    with Stick("--slow", "200") as stick:
        fill(stick, 500)
        name = attach(instance, stick)
        with instance.terminal("usb", "check", name) as terminal:
            terminal.expect(r"\d+%")
            instance.cloche("usb", "detach", name)
            terminal.expect("cancelled")
            assert terminal.wait() == 1
        assert sticks(instance) == []


def configure(instance, scratch, **settings):
    """Before its daemon is started."""
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"usb": settings}))
    path.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(path)


@test
def processes_of_sticks_stay_on_the_processors_of_the_configuration(instance, scratch):
    one = max(os.sched_getaffinity(0))
    configure(instance, scratch, cpus=str(one))
    with Stick() as stick:
        attach(instance, stick)
        pid, = processes(instance)
        jailed, = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for thread in os.listdir(f"/proc/{jailed}/task"):
            assert os.sched_getaffinity(int(thread)) == {one}, thread


@test
def processes_of_sticks_are_real_time_where_the_configuration_says_so(instance, scratch):
    configure(instance, scratch, realTime=10)
    with Stick() as stick:
        refusal = can_be_real_time(10)
        if refusal:
            assert "ended with 1" in instance.cloche("usb", "attach", stick.url, code=1).err
            log = (instance.run_folder / "cloched.log").read_text()
            assert refusal in log, log
            return
        attach(instance, stick)
        pid, = processes(instance)
        jailed, = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert os.sched_getscheduler(int(jailed)) == os.SCHED_FIFO
        assert "VmLck:\t       0" not in pathlib.Path(f"/proc/{jailed}/status").read_text()


@test
def what_cannot_be_had_is_said(instance):
    assert "is wanted" in instance.cloche("usb", "attach", "usbip://127.0.0.1/", code=1).err
    assert "connect to the USB/IP server" in instance.cloche("usb", "attach", "usbip://127.0.0.1:9/1-1", code=1).err
    assert "No such USB device" in instance.cloche("usb", "eject", "1-1", code=1).err
    assert "absolute" in instance.cloche("create", "--usb-storage", "here", "small:1", code=125).err
    with Stick() as stick:
        refused = instance.cloche("usb", "attach", stick.url.replace("1-1", "9-9"), code=1).err
        assert "Error" in refused
        assert sticks(instance) == []


@test
def events_tell_of_sticks(instance, images):
    need_fuse()
    start(instance, images, "--usb-storage", PATH)
    with Stick() as stick:
        name = attach(instance, stick)
        appears(instance)
        instance.cloche("usb", "eject", name)
        events = [json.loads(line) for line in
                  instance.cloche("events", "--since", "10m", "--until", "0s", "--filter", "type=usb",
                                  "--format", "json").lines]
        actions = [event["Action"] for event in events]
        assert actions == ["attach", "ready", "mount", "eject", "unmount", "gone"], actions


if __name__ == "__main__":
    main()
