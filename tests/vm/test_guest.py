"""What the guest is for: cgroup v2 with its controllers, and an ext4 that overlayfs can use."""

import os
import pathlib
import subprocess

from harness import main, run, test

TOP = pathlib.Path("/sys/fs/cgroup")


@test
def cgroup_v2_has_its_controllers():
    controllers = (TOP / "cgroup.subtree_control").read_text().split()
    for name in ("cpuset", "cpu", "io", "memory", "pids"):
        assert name in controllers, controllers


@test
def the_oom_killer_obeys_a_cgroup(unique):
    group = TOP / unique
    group.mkdir()
    try:
        (group / "memory.max").write_text(str(8 << 20))
        (group / "memory.swap.max").write_text("0")
        child = subprocess.run(
            ["busybox", "sh", "-c", f"echo 0 > {group}/cgroup.procs; busybox tail /dev/zero"],
            check=False, timeout=60, capture_output=True)
        events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
        assert child.returncode != 0 and int(events["oom_kill"]) > 0, (child, events)
    finally:
        group.rmdir()


@test
def overlay_keeps_attributes_on_ext4(scratch):
    for name in ("lower", "upper", "work", "merged"):
        (scratch / name).mkdir()
    (scratch / "lower/folder").mkdir()
    (scratch / "lower/folder/file").write_text("below")
    run("mount", "-t", "overlay", "overlay", scratch / "merged", "-o",
        f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work,userxattr")
    try:
        run("busybox", "rm", "-r", scratch / "merged/folder")
        (scratch / "merged/folder").mkdir()
        assert os.getxattr(scratch / "upper/folder", "user.overlay.opaque") == b"y"
    finally:
        run("umount", scratch / "merged")


if __name__ == "__main__":
    main()
