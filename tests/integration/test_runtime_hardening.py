"""What a hostile image, a hostile neighbour on a shared volume and a hostile configuration may not
get: mount targets, masks, the console, /proc and the working directory.

CLOCHE_RUNTIME chooses another runtime, to see that a test can fail. Beside each test: on what it was
seen red, and what was seen. The peers are Debian 12's (2026-11):

    CLOCHE_RUNTIME=/usr/sbin/runc python3 tests/integration/test_runtime_hardening.py NAME
    unshare -m sh -c 'umount /sys/fs/cgroup/unified; CLOCHE_RUNTIME=/usr/bin/crun python3 ...'

runc is 1.1.5+ds1-1+deb12u1, which has the fix of CVE-2024-21626; crun is 1.8.1. "With a plain
openat" means ours with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS taken out of
file_open_in_root_flags() and the path taken as relative to the root's descriptor.
"""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import time

from bundles import ConsoleSocket, cgroup_version, is_ours, world
from harness import main, run

RENAME_EXCHANGE = 2
MOUNT_PAUSE = 20e-6  # seconds: about as long as a runtime takes from the look at a path to its use


@contextlib.contextmanager
def swapping(first, second, pause=0.0):
    """A process exchanges the two paths as fast as it can, or with a pause in seconds."""
    libc = ctypes.CDLL(None)
    pid = os.fork()
    if pid == 0:
        a, b = os.fsencode(first), os.fsencode(second)
        while True:
            libc.renameat2(-100, a, -100, b, RENAME_EXCHANGE)
            end = time.monotonic() + pause
            while time.monotonic() < end:
                pass
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def try_to_run(w, *options):
    """The container runs or is refused; nothing is asserted of that."""
    w.bundle.write()
    command = [w.runtime.path, "--root", w.runtime.root, "--log", w.runtime.log, "run", *options,
               "-b", w.bundle.path, w.name]
    result = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, timeout=400,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if w.runtime.names():
        w.runtime("delete", "--force", w.name)
    return result.stdout


def without(w, *places):
    """The configuration without its mounts on and below these."""
    w.bundle.config["mounts"] = [
        entry for entry in w.bundle.config["mounts"]
        if not any((entry["destination"] + "/").startswith(place + "/") for place in places)]


# ---------------------------------------------------------------- mount targets

# CVE-2021-30465, CVE-2024-45310. Red on runc 1.1.5, in about one start of five: ['made0'] is on the
# host, made by MkdirAll. Red on ours with a plain openat: "['made10', 'made8', ...]".
@world
def a_swapped_volume_does_not_lead_the_mounts_outside(w):
    """The neighbour exchanges a folder of the shared volume with a link to the host's while mounts
    are made below it."""
    volume, outside = w.scratch / "volume", w.scratch / "outside"
    (volume / "a").mkdir(parents=True)
    outside.mkdir()
    os.symlink(outside, volume / "b")
    w.bundle.mount("/volume", volume, options=["rbind"])
    for number in range(12):
        w.bundle.mount(f"/volume/a/made{number}/deep/er", "tmpfs", "tmpfs", ["size=64k"])
    w.bundle.args("true")
    before = pathlib.Path("/proc/self/mountinfo").read_text()
    with swapping(volume / "a", volume / "b", MOUNT_PAUSE):
        for _ in range(100):
            try_to_run(w)
            assert os.listdir(outside) == [], os.listdir(outside)
    assert pathlib.Path("/proc/self/mountinfo").read_text() == before


# Red with a plain openat.
@world
def links_in_all_shapes_stay_in_the_root(w):
    outside = w.scratch / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    up = "../" * 12
    shapes = {"absolute": str(outside), "dots": up + str(outside)[1:], "chain": "absolute",
              "magic": "/proc/1/root", "self": "/proc/self/cwd"}
    for name, target in shapes.items():
        os.symlink(target, w.bundle.rootfs / name)
    w.bundle.config["root"]["readonly"] = False
    w.bundle.args("true")
    for name in shapes:
        w.bundle.mount(f"/{name}/place", "tmpfs", "tmpfs", ["size=64k"])
        try_to_run(w)
        w.bundle.config["mounts"][-1].update(destination=f"/{name}/file", type="bind",
                                             source="/etc/hostname", options=["bind"])
        try_to_run(w)
        w.bundle.config["mounts"].pop()
        w.bundle.linux["maskedPaths"] = [f"/{name}/file"]
        try_to_run(w)
        w.bundle.linux["maskedPaths"] = []
    assert sorted(os.listdir(outside)) == ["file"] and (outside / "file").read_text() == "kept"
    assert not (w.scratch / "place").exists() and not pathlib.Path("/place").exists()


# CVE-2019-19921, CVE-2023-27561. Red on ours without RESOLVE_NO_SYMLINKS in mounts.c: the procfs is
# in the decoy. runc 1.1.5 and crun 1.8.1 have their fixes.
@world
def proc_and_sys_do_not_go_through_links(w):
    for place in ("proc", "sys"):
        folder = w.bundle.rootfs / place
        if folder.is_dir():
            folder.rmdir()
        (w.bundle.rootfs / "decoy").mkdir(exist_ok=True)
        os.symlink("decoy", folder)
        w.bundle.args("ls", "/decoy")
        out = try_to_run(w)
        assert "cmdline" not in out and "kernel" not in out, out
        assert not is_ours() or "must be mounted on ordinary directory" in out, out
        folder.unlink()
        (w.bundle.rootfs / place).mkdir()


# The same through a volume. Red on ours without RESOLVE_NO_SYMLINKS in mounts.c; the peers have
# their fixes.
@world
def proc_is_not_mounted_into_a_volume(w):
    without(w, "/proc")
    volume = w.scratch / "volume"
    (volume / "inner").mkdir(parents=True)
    os.symlink("/volume/inner", w.bundle.rootfs / "into")
    w.bundle.mount("/volume", volume).mount("/into", "proc", "proc", [])
    w.bundle.args("ls", "/volume/inner")
    out = try_to_run(w)
    assert "cmdline" not in out, out
    assert not is_ours() or "must be mounted on ordinary directory" in out, out


# CVE-2019-16884, and the first step of CVE-2025-52881. Red on crun 1.8.1: it starts with a folder of
# the host as /proc. Red on runc 1.1.5: it starts with a tmpfs on /proc/self/attr.
@world
def nothing_but_a_procfs_is_proc(w):
    fake = w.scratch / "fake"
    (fake / "self/attr").mkdir(parents=True)
    (fake / "self/attr/exec").write_text("")
    os.symlink("/proc", w.bundle.rootfs / "alias")
    w.bundle.args("echo", "started")
    for place in ("/proc", "/proc/", "//proc", "/proc/self", "/proc/self/attr", "/alias/sys",
                  "/proc/sys/kernel", "/proc/../proc/1"):
        w.bundle.mount(place, fake, options=["bind"])
        for kind in ("bind", "proc"):  # the option decides, not the type
            w.bundle.config["mounts"][-1]["type"] = kind
            out = try_to_run(w)
            assert "started" not in out, (place, kind, out)
            assert not is_ours() or "mounted" in out, (place, kind, out)
        w.bundle.config["mounts"][-1].update(type="tmpfs", source="tmpfs", options=[])
        out = try_to_run(w)
        assert "started" not in out, (place, out)
        w.bundle.config["mounts"].pop()
    # What lxcfs has, and a procfs, are taken.
    (w.scratch / "uptime").write_text("1 2\n")
    w.bundle.mount("/proc/uptime", w.scratch / "uptime", options=["bind", "ro"])
    assert w.bundle.args("cat", "/proc/uptime") and try_to_run(w) == "1 2\n"
    w.bundle.config["mounts"].pop()
    for entry in w.bundle.config["mounts"]:
        if entry["destination"] == "/proc":
            entry.update(type="bind", source="/proc", options=["rbind"])
    w.bundle.args("echo", "started")
    assert "started" in try_to_run(w)


# ---------------------------------------------------------------- masks

# CVE-2025-31133. Red on runc 1.1.5: the masked file is the image's decoy, and is written to.
@world
def masks_are_the_hosts_null_device(w):
    """The image has something else at /dev/null, which would cover the masked file."""
    without(w, "/dev")
    root = w.bundle.rootfs
    (root / "dev").mkdir(exist_ok=True)
    (root / "decoy").write_text("the decoy")
    (root / "secret").write_text("the secret")
    w.bundle.linux["maskedPaths"] = ["/secret", "/proc/sysrq-trigger"]
    w.bundle.config["root"]["readonly"] = False
    w.bundle.script("cat /secret; echo changed >/secret")
    for kind in ("link", "file", "missing"):
        (root / "dev/null").unlink(missing_ok=True)
        if kind == "link":
            os.symlink("/decoy", root / "dev/null")
        elif kind == "file":
            (root / "dev/null").write_text("the decoy")
        out = try_to_run(w)
        assert "the decoy" not in out and "the secret" not in out, (kind, out)
        assert (root / "decoy").read_text() == "the decoy", kind
        assert (root / "secret").read_text() == "the secret", kind


# Red on ours without verify_cover(), on runc 1.1.5 and on crun 1.8.1: the containers start, and nobody
# notices.
@world
def a_mask_that_was_moved_is_noticed(w):
    """The neighbour exchanges the masked folder with another while the mask is put on."""
    volume = w.scratch / "volume"
    for folder in ("a", "b"):
        (volume / folder).mkdir(parents=True)
        (volume / folder / "file").write_text("the secret")
    w.bundle.mount("/volume", volume, options=["rbind"])
    w.bundle.linux["maskedPaths"] = ["/volume/a/file"]
    w.bundle.args("true")
    with swapping(volume / "a", volume / "b"):
        assert any("was moved while it was covered" in try_to_run(w) for _ in range(2000))
    for folder in ("a", "b"):
        assert (volume / folder / "file").read_text() == "the secret"


# Red on ours without verify_readonly(), on runc 1.1.5 and on crun 1.8.1: nobody notices.
@world
def a_read_only_path_that_was_moved_is_noticed(w):
    volume = w.scratch / "volume"
    for folder in ("a", "b"):
        (volume / folder / "inner").mkdir(parents=True)
    w.bundle.mount("/volume", volume, options=["rbind"])
    w.bundle.linux["readonlyPaths"] = ["/volume/a/inner"]
    w.bundle.args("true")
    assert try_to_run(w) == ""
    with swapping(volume / "a", volume / "b"):
        assert any("was moved while it was made read-only" in try_to_run(w) for _ in range(2000))


# Red on ours with O_NOFOLLOW in mask_path().
@world
def masks_hold_behind_links(w):
    root = w.bundle.rootfs
    (root / "real").mkdir()
    (root / "real/file").write_text("the secret")
    os.symlink("real/file", root / "link")
    os.symlink("real", root / "parent")
    os.symlink("/../../real/file", root / "dots")
    for path in ("/link", "/parent/file", "/dots", "/parent", "/real/../real/file"):
        w.bundle.linux["maskedPaths"] = [path]
        w.bundle.script("cat /real/file /link /parent/file /dots 2>&1")
        assert "the secret" not in try_to_run(w), path


# Red on ours with capability_limit_bounding() and capability_apply() left out of workload.c: the
# container unmounts them.
@world
def masks_cannot_be_taken_off(w):
    """By a container without CAP_SYS_ADMIN, and by one that makes a user namespace."""
    (w.bundle.rootfs / "folder").mkdir()
    (w.bundle.rootfs / "folder/file").write_text("the secret")
    (w.bundle.rootfs / "file").write_text("the secret")
    (w.bundle.rootfs / "mnt").mkdir(exist_ok=True)
    w.bundle.linux["maskedPaths"] += ["/folder", "/file"]
    w.bundle.all_capabilities("CAP_SETFCAP", "CAP_SYS_CHROOT")
    w.bundle.script(
        "umount /file; umount /folder; "
        "unshare -Urm sh -c 'umount /file; umount /folder; mount --bind / /mnt; "
        "mount --rbind / /mnt; cat /mnt/file /mnt/folder/file'; cat /file /folder/file; true")
    assert "the secret" not in try_to_run(w)


# ---------------------------------------------------------------- the console

# CVE-2025-52565. Red on runc 1.1.5: "kept" is empty, the console was made through the link. Red on
# crun 1.8.1: the link's target is made on the host, in its "/".
@world
def the_console_does_not_go_through_links(w):
    without(w, "/dev")
    root = w.bundle.rootfs
    (root / "dev/pts").mkdir(parents=True, exist_ok=True)
    (root / "kept").write_text("kept")
    w.bundle.mount("/dev/pts", "devpts", "devpts", ["newinstance", "ptmxmode=0666", "mode=0620"])
    w.bundle.config["root"]["readonly"] = False
    w.bundle.process["terminal"] = True
    w.bundle.script("cat /kept; exit 0")
    for target in ("/kept", "../kept", "/missing", f"/{w.name}-made", f"{w.scratch}/made"):
        (root / "dev/console").unlink(missing_ok=True)
        os.symlink(target, root / "dev/console")
        console = ConsoleSocket(w.scratch)
        try_to_run(w, "-d", "--console-socket", str(console.path))
        console.socket.close()
        console.path.unlink()
        assert (root / "kept").read_text() == "kept", target
        assert not (root / "missing").exists() and not (w.scratch / "made").exists(), target
        assert not pathlib.Path(f"/{w.name}-made").exists(), target


# ---------------------------------------------------------------- /proc

# CVE-2025-52881. Red on runc 1.1.5: the parameter is written into the image's file (and the start
# refused afterwards). Red on ours when sysctl.c opened /proc/sys below root_fd.
@world
def parameters_are_written_to_the_kernel(w):
    """The image has a /proc of its own and no procfs is mounted."""
    without(w, "/proc")
    fake = w.bundle.rootfs / "proc/sys/kernel"
    fake.mkdir(parents=True, exist_ok=True)
    (w.bundle.rootfs / "proc/self/fd").mkdir(parents=True)
    (fake / "shm_rmid_forced").write_text("unchanged")
    w.bundle.linux["sysctl"] = {"kernel.shm_rmid_forced": "1"}
    w.bundle.linux["maskedPaths"] = w.bundle.linux["readonlyPaths"] = []
    w.bundle.config["root"]["readonly"] = False
    w.bundle.script("sleep 100")
    created = w.runtime("create", "-b", w.bundle.path, w.name, code=0 if is_ours() else None)
    try:
        assert (fake / "shm_rmid_forced").read_text() == "unchanged"
        if created.code:  # refusing the root is as safe
            return
        pid = w.runtime.state(w.name)["pid"]
        assert run("nsenter", "-i", "-t", pid, "cat", "/proc/sys/kernel/shm_rmid_forced").out == "1\n"
    finally:
        if not created.code:
            w.runtime("delete", "--force", w.name)


# The same with a link in the image's /proc. Red on runc 1.1.5: the value is in "victim".
@world
def parameters_do_not_go_through_links(w):
    without(w, "/proc")
    fake = w.bundle.rootfs / "proc/sys/kernel"
    fake.mkdir(parents=True, exist_ok=True)
    (w.bundle.rootfs / "victim").write_text("kept")
    os.symlink("/victim", fake / "shm_rmid_forced")
    w.bundle.linux["sysctl"] = {"kernel.shm_rmid_forced": "1"}
    w.bundle.linux["maskedPaths"] = w.bundle.linux["readonlyPaths"] = []
    w.bundle.config["root"]["readonly"] = False
    w.bundle.process["oomScoreAdj"] = 500
    w.bundle.args("true")
    try_to_run(w)
    assert (w.bundle.rootfs / "victim").read_text() == "kept"


# CVE-2022-0811-like: a name that is checked as the container's and opened as the host's. Red on ours
# without is_plain() in sysctl.c: "net/../kernel/core_pattern" was written.
@world
def parameters_cannot_leave_their_name(w):
    value = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()  # in case it is written
    w.bundle.args("echo", "started")
    for name in ("kernel.shm_rmid_forced/../core_pattern", "net.ipv4.../../../kernel/core_pattern",
                 "net/../kernel/core_pattern", "net.//.kernel.core_pattern", "net//kernel",
                 "fs.mqueue.../../kernel/core_pattern", "fs/mqueue/../../kernel/core_pattern",
                 "kernel.core_pattern", "net.", "net", "", "net/ipv4/../../kernel/core_pattern"):
        w.bundle.linux["sysctl"] = {name: value}
        assert "started" not in try_to_run(w), name
    w.bundle.linux["sysctl"] = {"net/ipv4/conf/lo/forwarding": "1", "net.ipv4.conf.all.forwarding":
                                "1"}
    assert "started" in try_to_run(w)


# ---------------------------------------------------------------- the working directory

# CVE-2024-21626. Red on ours with the check of getcwd() out of enter_working_directory() and ELOOP
# taken as success in rootfs_working_directory(): the listing is that of the host's /proc.
@world
def descriptors_are_no_working_directories(w):
    mark = w.scratch / "host-mark"
    mark.write_text("host")
    script = f"pwd; ls -a . .. ../.. ../../..; cat ../../../../..{mark} ../../../../../..{mark}"
    for number in range(3, 24):
        for form in (f"/proc/self/fd/{number}", f"/proc/thread-self/fd/{number}",
                     f"/proc/1/fd/{number}/../.."):
            w.bundle.process["cwd"] = form
            out = try_to_run(w.bundle.script(script) and w)
            assert "host-mark" not in out.replace(str(mark), "") and "\nhost" not in out, (form, out)


# Red on ours without the check of getcwd(): "host" is read through /proc/self/fd/3.
@world
def descriptors_are_no_working_directories_for_exec(w):
    mark = w.scratch / "host-mark"
    mark.write_text("host")
    for number in range(3, 12):
        os.symlink(f"/proc/self/fd/{number}", w.bundle.rootfs / f"fd{number}")
    w.bundle.script("sleep 100")
    subprocess.run([w.runtime.path, "--root", str(w.runtime.root), "run", "-d", "-b",
                    str(w.bundle.path), w.name], stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, check=True)
    try:
        for number in range(3, 12):
            for form in (f"/proc/self/fd/{number}", f"/fd{number}"):
                result = subprocess.run(
                    [w.runtime.path, "--root", str(w.runtime.root), "exec", "--cwd", form, w.name,
                     "sh", "-c", f"cat ../../../../../..{mark}"], stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                assert "host" != result.stdout.strip(), (form, result.stdout)
    finally:
        w.runtime("delete", "--force", w.name)


# ---------------------------------------------------------------- devices

# Red with a plain openat: the device is in the host's folder.
@world
def devices_do_not_go_through_links(w):
    without(w, "/dev")
    root = w.bundle.rootfs
    shutil.rmtree(root / "dev", ignore_errors=True)
    (root / "dev").mkdir()
    outside = w.scratch / "outside"
    outside.mkdir()
    os.symlink(outside, root / "dev/folder")
    os.symlink(outside / "made", root / "dev/direct")
    w.bundle.config["root"]["readonly"] = False
    w.bundle.args("true")
    for path in ("/dev/folder/made", "/dev/direct"):
        w.bundle.linux["devices"] = [{"path": path, "type": "c", "major": 1, "minor": 3,
                                      "fileMode": 0o666}]
        try_to_run(w)
        assert os.listdir(outside) == [], path


# Red with a plain openat.
@world
def the_working_directory_is_made_in_the_root(w):
    outside = w.scratch / "outside"
    outside.mkdir()
    os.symlink(outside, w.bundle.rootfs / "link")
    w.bundle.config["root"]["readonly"] = False
    w.bundle.args("true")
    for path in ("/link/made", "/link/../made/../link/deep", "/proc/1/root/made"):
        w.bundle.process["cwd"] = path
        try_to_run(w)
    assert os.listdir(outside) == []


# release_agent of cgroup v1 is a program that the kernel runs on the host. What is written is what is
# there. Red on ours: "mounted" with capability_limit_bounding() and capability_apply() left out of
# workload.c; "written" when besides mounts_cgroup.c binds the hierarchy's root and not the
# container's own part, and forgets MS_RDONLY.
@world
def cgroups_do_not_lead_out(w):
    file = "cgroup.procs" if cgroup_version() == 2 else "release_agent"
    again = "echo 0" if cgroup_version() == 2 else "(cat $f; echo)"
    w.bundle.mount("/tmp", "tmpfs", "tmpfs", [])
    w.bundle.script(f"for f in /sys/fs/cgroup/{file} /sys/fs/cgroup/*/{file}; do "
                    f"[ -e $f ] && echo found && {again} >$f && echo written; done 2>/dev/null; "
                    "mkdir /tmp/c && mount -t cgroup -o memory none /tmp/c && echo mounted; true")
    out = w.run().out
    assert "written" not in out and "mounted" not in out, out


if __name__ == "__main__":
    main()
