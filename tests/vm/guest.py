"""Process 1 of the guest, or a service of its systemd: sets the machine up, runs the test files that the command line names,
powers off. Results: /share/tap and /share/exit."""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import traceback

_RB_POWER_OFF = 0x4321FEDC
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind, options=b""):
    os.makedirs(target, exist_ok=True)
    if _libc.mount(source, target.encode(), kind, 0, options) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def set_up():
    os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                      HOME="/root", TERM="dumb")
    mount(b"devpts", "/dev/pts", b"devpts", b"newinstance,ptmxmode=0666,mode=620,gid=5")
    mount(b"shm", "/dev/shm", b"tmpfs")
    mount(b"run", "/run", b"tmpfs")
    mount(b"cgroup2", "/sys/fs/cgroup", b"cgroup2", b"nsdelegate")
    for name in ("fd", "stdin", "stdout", "stderr"):
        number = {"stdin": "/0", "stdout": "/1", "stderr": "/2"}.get(name, "")
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(f"/proc/self/fd{number}", f"/dev/{name}")
    controllers = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    pathlib.Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(
        " ".join("+" + name for name in controllers))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def set_up_service():
    """systemd has made everything but what its network and user services would do."""
    os.environ.update(HOME="/root", TERM="dumb", CLOCHE_TEST_NAMESPACES="0")


def copy_programs(build):
    """To memory: starting one over 9p costs tens of milliseconds."""
    programs = pathlib.Path(os.environ["BUILD"]) / "src/programs"
    (build / "src/programs").mkdir(parents=True)
    for path in programs.iterdir() if programs.exists() else ():
        if path.is_file() and os.access(path, os.X_OK):
            shutil.copy(path, build / "src/programs")


def run_tests():
    """One after the other, each to its end. The line before each names it (run_guest.py)."""
    build = pathlib.Path("/build")
    copy_programs(build)
    source = pathlib.Path(os.environ["SOURCE"])
    environment = {**os.environ, "CLOCHE_BUILD": str(build), "CLOCHE_GUEST": "1",
                   "PYTHONPATH": str(source / "tests/integration"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = 0
    with open("/share/tap", "w") as tap:
        for test in os.environ["TESTS"].split(","):
            print(f"\n== {test}", file=tap, flush=True)
            code |= subprocess.run([sys.executable, source / test], env=environment,
                                   stdin=subprocess.DEVNULL, stdout=tap,
                                   stderr=subprocess.STDOUT).returncode
    return code


def main():
    code = 1
    try:
        if os.environ.get("INIT") == "systemd":
            set_up_service()
        else:
            set_up()
        code = run_tests()
    except BaseException:
        pathlib.Path("/share/guest-error").write_text(traceback.format_exc())
    pathlib.Path("/share/exit").write_text(str(code))
    os.sync()
    # From here on nothing may be executed or loaded: QEMU takes 9p away.
    _libc.reboot(_RB_POWER_OFF)


main()
