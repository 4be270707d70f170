#!/usr/bin/env python3
"""usage: test_initramfs.py BUILD-FOLDER

Boots a kernel with nothing but an initramfs, whose root cannot be pivoted (pivot_root(2)), and runs
a container from there."""

import json
import pathlib
import subprocess
import sys
import tempfile

import initramfs
import kernel as kernels

HERE = pathlib.Path(__file__).resolve().parent
BOOT_LIMIT = 300  # seconds

INIT = """#!/busybox sh
b=/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b mount -t devtmpfs dev /dev
$b mkdir -p /run
echo == begin
/runtime run -b /bundle inner
echo == exit $?
$b grep -q ' - proc ' /proc/self/mountinfo || echo == the host lost its proc
$b poweroff -f
"""
SCRIPT = ("echo == inside; ls -d /sys/kernel /dev/null; ls /bundle ../bundle 2>&1; "
          "touch /x 2>&1; true")


def configuration():
    config = json.loads((HERE.parents[0] / "bundles/runc-spec.json").read_text())
    config["process"].update(terminal=False, args=["/busybox", "sh", "-c", SCRIPT])
    for name in ("ls", "touch"):
        config["process"]["args"][3] = config["process"]["args"][3].replace(
            f"{name} -", f"/busybox {name} -").replace(f"; {name} /", f"; /busybox {name} /")
    return json.dumps(config)


def write(path, build):
    archive = initramfs.Archive()
    for name in ("dev", "proc", "sys", "bundle", "bundle/rootfs"):
        archive.folder(name)
    archive.copy("/bin/busybox", "busybox")
    archive.copy("/bin/busybox", "bundle/rootfs/busybox")
    archive.copy(build / "src/programs/cloche-runtime", "runtime")
    archive.add("init", 0o100755, INIT.encode())
    archive.add("bundle/config.json", 0o100644, configuration().encode())
    path.write_bytes(archive.bytes())


def boot(build, work):
    write(work / "initramfs", build)
    subprocess.run(
        ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "512",
         "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
         "-serial", f"file:{work}/console", "-kernel", str(kernels.find(build).image),
         "-initrd", f"{work}/initramfs",
         "-append", kernels.OPTIONS],
        stdin=subprocess.DEVNULL, timeout=BOOT_LIMIT, check=True)
    return (work / "console").read_text(errors="replace").replace("\r", "")


def main():
    with tempfile.TemporaryDirectory(prefix="cloche-vm-", dir="/var/tmp") as work:
        out = boot(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(work))
    lines = out.splitlines()
    # Inside: its own /sys and /dev, nothing of the initramfs, and read-only.
    good = ("== exit 0" in lines and "== inside" in lines and "/sys/kernel" in out and
            "/dev/null" in out and out.count("No such file") == 2 and "Read-only" in out and
            "lost" not in out)
    print("TAP version 13\n1..1")
    if not good:
        print("".join(f"# {line}\n" for line in lines), end="")
    print(("ok" if good else "not ok") + " 1 - a_container_on_an_initramfs")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
