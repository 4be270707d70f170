"""Sticks beside users: containers with user namespaces, and the engine of an ordinary user."""

import os

from harness import main, only, test, wait_for
from test_usb import PATH, Stick, appears, attach, need_fuse, sh, start
from test_userns import mapped_to, subordinate
from user_engine import with_engine


@test
def files_belong_to_the_user_that_a_namespace_maps(instance, images, scratch):
    need_fuse()
    with subordinate(scratch):
        start(instance, images, "--userns=auto", "--usb-storage", PATH, name="box")
        start(instance, images, "--userns=auto", "--user", "1000:1001", "--usb-storage", PATH, name="user")
        with Stick(files=[("hello.txt", "hello\n")]) as stick:
            name = attach(instance, stick)
            for container, owner in (("box", "0:0"), ("user", "1000:1001")):
                appears(instance, container)
                assert sh(instance, f"stat -c %u:%g {PATH} {PATH}/hello.txt", container).lines == [owner, owner]
                sh(instance, f"echo {container} > {PATH}/{container}", container)
                assert sh(instance, f"stat -c %u:%g {PATH}/{container}", container).out == owner + "\n"
                # Of the machine it is one of the container's own, and none of its.
                pid = instance.cloche("inspect", "--format", "{{.State.Pid}}", container).out.strip()
                at = os.stat(f"/proc/{pid}/root{PATH}/hello.txt")
                first = mapped_to(instance, container)
                assert (at.st_uid, at.st_gid) == tuple(first + int(number) for number in owner.split(":")), at
            # Device files and programs with the rights of others are nothing on it, here too.
            options = sh(instance, f"grep ' {PATH} ' /proc/self/mounts", "box").out
            assert {"nosuid", "nodev", "noexec"} <= set(options.split()[3].split(",")), options
            assert sh(instance, f"mount -o remount,exec {PATH}", "box", code=None).code != 0
            instance.cloche("usb", "detach", name)
            wait_for(lambda: "fuse" not in sh(instance, f"grep ' {PATH} ' /proc/self/mountinfo || true", "box").out,
                     what="the stick gone")
            assert stick.read("box") == "box\n" and stick.read("user") == "user\n"


@with_engine
def the_engine_of_an_ordinary_user_says_that_it_has_no_sticks(engine):
    refused = engine.cloche("usb", "attach", "1-1", code=1).err
    assert "No such USB device" in refused and "an ordinary user" in refused, refused
    for words, code in ((("usb", "attach", "usbip://192.0.2.1/1-1"), 1),
                        (("run", "--rm", "--usb-storage", PATH, "small:1", "true"), 125),
                        (("run", "--rm", "--device-usb", "0781:5567", "small:1", "true"), 125)):
        refused = engine.cloche(*words, code=code).err
        assert "needs the machine's root" in refused, refused
    assert engine.cloche("usb", "ls", "--all", "--format", "json").out == ""


if __name__ == "__main__":
    only(files_belong_to_the_user_that_a_namespace_maps, the_engine_of_an_ordinary_user_says_that_it_has_no_sticks)
    main()
