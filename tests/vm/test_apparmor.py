"""Containers confined by AppArmor, which only the guest's kernel has."""

import pathlib
import shutil
import subprocess

import layers as made
from harness import PROGRAMS, main, program, run, test
from layers import entry
from users import User

SECURITY = pathlib.Path("/sys/kernel/security")
NOT_HERE = "profile nothing-here flags=(attach_disconnected) { file, deny /secret r, }\n"


def busybox_archive(scratch):
    busybox = pathlib.Path(shutil.which("busybox")).read_bytes()
    names = ["bin/", "proc/", "sys/", "dev/", "mnt/"]
    layer = made.tar([entry(name) for name in names] +
                     [entry("bin/busybox", busybox, mode=0o755), entry("secret", b"found\n")] +
                     [made.link(f"bin/{name}", "busybox") for name in ("sh", "cat", "mount")])
    archive = scratch / "archive.tar"
    archive.write_bytes(made.docker_archive([layer], name="small:1"))
    return archive


@test
def containers_are_confined_unless_they_are_not_to_be(instance, scratch):
    run("mount", "-t", "securityfs", "securityfs", SECURITY)
    try:
        instance.cloche("load", "-q", "-i", busybox_archive(scratch))

        def inside(*words, script, code=0):
            return instance.cloche("run", "--rm", "--network", "none", *words, "small:1", "sh", "-c",
                                   script, code=code)
        admin = ("--cap-add", "SYS_ADMIN", "--security-opt", "systempaths=unconfined")
        label = "cat /proc/self/attr/current"
        mount = "mount -t tmpfs none /mnt && echo mounted"
        write = "echo /x > /proc/sys/kernel/core_pattern"
        before = pathlib.Path("/proc/sys/kernel/core_pattern").read_text()
        # All in one: a start takes seconds here.
        result = inside(*admin, script=f"{label}; ({mount}) 2>&1; ({write}) 2>&1; cat /secret")
        assert result.lines[0] == "cloche-default (enforce)", result
        assert result.out.count("ermission denied") == 2, result
        assert "mounted" not in result.out and result.lines[-1] == "found", result
        assert pathlib.Path("/proc/sys/kernel/core_pattern").read_text() == before
        free = inside(*admin, "--security-opt", "apparmor=unconfined", script=f"{label}; {mount}")
        assert free.lines == ["unconfined", "mounted"], free
        # A profile of one's own, and the container's in what is executed in it.
        subprocess.run(["apparmor_parser", "--replace", "--skip-cache"], input=NOT_HERE.encode(),
                       check=True, timeout=100, capture_output=True)
        own = inside("--security-opt", "apparmor=nothing-here", script="cat /secret", code=1)
        assert "ermission denied" in own.err, own
        missing = instance.cloche("run", "--rm", "--network", "none", "--security-opt",
                                  "apparmor=no-such", "small:1", "true", code=None)
        assert missing.code in (125, 126, 127) and "no-such" in missing.err, missing
        instance.cloche("run", "-d", "--name", "held", "--network", "none", "small:1", "sh", "-c",
                        "while :; do busybox sleep 1; done")
        assert instance.cloche("exec", "held", "cat", "/proc/self/attr/current").lines == \
            ["cloche-default (enforce)"]
        assert "name=apparmor" in instance.cloche("info").out or \
            "apparmor" in instance.cloche("info").out
        # As aa-teardown does it, while the daemon lives: who starts next is confined again.
        (SECURITY / "apparmor" / ".remove").write_text("cloche-default")
        assert "cloche-default" not in (SECURITY / "apparmor" / "profiles").read_text()
        assert instance.cloche("exec", "held", "cat", "/proc/self/attr/current").lines == \
            ["cloche-default (enforce)"]
        (SECURITY / "apparmor" / ".remove").write_text("cloche-default")
        assert inside(script=label).lines == ["cloche-default (enforce)"]
        instance.cloche("rm", "-f", "held")
    finally:
        run("umount", SECURITY)


@test
def an_ordinary_user_goes_without_the_profile(scratch):
    """Root of a user namespace cannot load it; one that is loaded may be named."""
    run("mount", "-t", "securityfs", "securityfs", SECURITY)
    try:
        with User(scratch) as user:
            archive = user.own(busybox_archive(user.home))

            def cloche(*words, code=0):
                return user.run(program("cloche"), *words, environment={"CLOCHE_LIBEXEC": str(PROGRAMS)}, code=code)
            label = ("--network", "none", "small:1", "cat", "/proc/self/attr/current")
            try:
                cloche("load", "-q", "-i", archive)
                assert cloche("run", "--rm", *label).lines == ["unconfined"]
                assert "apparmor" not in cloche("info").out
                subprocess.run(["apparmor_parser", "--replace", "--skip-cache"], input=NOT_HERE.encode(),
                               check=True, timeout=100, capture_output=True)
                own = cloche("run", "--rm", "--security-opt", "apparmor=nothing-here", *label)
                assert own.lines == ["nothing-here (enforce)"], own
            finally:
                cloche("system", "remove", "--force", code=None)
    finally:
        run("umount", SECURITY)


if __name__ == "__main__":
    main()
