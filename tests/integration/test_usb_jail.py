"""The jail of cloche-usb: calls are made in the name of the released program after its jail has closed, once
with its system call filter and once without it, so that each layer is seen to hold alone."""

import ctypes
import errno
import os
import re
import select
import shutil
import subprocess

from harness import BUILD, Skip, main, test
from sticks import Model, Process, refused_calls, serve

INJECT = str(BUILD / "tests/integration/usb_inject")
AT_FDCWD = "n:-100"
OWN = "own"  # reaches nothing but the process itself, whatever the filter says
UNTRIED = "untried"  # would make a second process out of the tested one
NOWHERE = {errno.ENOENT}
RIGHTS = {errno.EPERM, errno.EACCES}

# What is tried, the call, and what it comes to without the filter. With it all are EPERM.
ATTEMPTS = [
    ("read a file", f"openat {AT_FDCWD} s:/etc/passwd n:0", NOWHERE),
    ("read a file of the kernel", f"openat {AT_FDCWD} s:/proc/1/maps n:0", NOWHERE),
    ("read memory", f"openat {AT_FDCWD} s:/dev/mem n:0", NOWHERE),
    ("open another stick", f"openat {AT_FDCWD} s:/dev/bus/usb/001/001 n:2", NOWHERE),
    ("open through a link", f"openat {AT_FDCWD} s:../../../../etc/passwd n:0", NOWHERE),
    ("open the daemon's socket", f"readlinkat {AT_FDCWD} s:/run/cloche/cloche.sock n:0 n:0", NOWHERE | {errno.EINVAL}),
    ("make a file", f"openat {AT_FDCWD} s:/file n:0x42 n:0600", {errno.EROFS}),
    ("open by how", f"openat2 {AT_FDCWD} s:/etc/passwd h:{'00' * 24} n:24", NOWHERE),
    ("make a folder", f"mkdirat {AT_FDCWD} s:/folder n:0700", {errno.EROFS}),
    ("make a device", f"mknodat {AT_FDCWD} s:/device n:0x6180 n:0x801", {errno.EROFS} | RIGHTS),
    ("make a link", f"symlinkat s:/etc {AT_FDCWD} s:/link", {errno.EROFS}),
    ("make a hard link", f"linkat {AT_FDCWD} s:/a {AT_FDCWD} s:/b n:0", NOWHERE | {errno.EROFS}),
    ("rename", f"renameat2 {AT_FDCWD} s:/a {AT_FDCWD} s:/b n:0", NOWHERE | {errno.EROFS}),
    ("remove", f"unlinkat {AT_FDCWD} s:/a n:0", NOWHERE | {errno.EROFS}),
    ("look at a file", f"statx {AT_FDCWD} s:/etc/passwd n:0 n:0x7ff h:{'00' * 256}", NOWHERE),
    ("ask for access", f"faccessat {AT_FDCWD} s:/etc/passwd n:0", NOWHERE),
    ("change a mode", f"fchmodat {AT_FDCWD} s:/ n:0777", {errno.EROFS} | RIGHTS),
    ("change an owner", f"fchownat {AT_FDCWD} s:/ n:0 n:0 n:0", {errno.EROFS} | RIGHTS),
    ("cut a file", "truncate s:/etc/passwd n:0", NOWHERE),
    ("open by handle", f"open_by_handle_at {AT_FDCWD} h:{'08000000' + '00' * 12} n:0", RIGHTS),
    ("watch all files", "fanotify_init n:0 n:0", RIGHTS),
    ("watch files", "inotify_init1 n:0", OWN),
    ("a file in memory", "memfd_create s:x n:0", OWN),
    ("execute", "execve s:/bin/sh n:0 n:0", NOWHERE),
    ("execute by descriptor", "execveat n:3 s: n:0 n:0 n:0x1000", RIGHTS),
    ("another root", "chroot s:/", RIGHTS),
    ("another folder", "chdir s:/root", NOWHERE),
    ("list a folder", f"getdents64 n:3 h:{'00' * 64} n:64", {errno.ENOTDIR}),

    ("a network socket", "socket n:2 n:1 n:0", OWN),
    ("connect to this machine", f"connect r: h:0200{22:04x}7f000001{'00' * 8} n:16", {errno.ENETUNREACH}),
    ("connect to the network", f"connect n:5 h:0200{80:04x}c0000201{'00' * 8} n:16",
     {errno.ENETUNREACH, errno.ENOTSOCK, errno.EBADF, errno.EINVAL}),
    ("a raw socket", "socket n:2 n:3 n:1", RIGHTS),
    ("a packet socket", "socket n:17 n:3 n:0", RIGHTS),
    ("a Unix socket", "socket n:1 n:1 n:0", OWN),
    ("connect to the daemon", "connect r: h:01002f72756e2f636c6f6368652f636c6f6368652e736f636b00 n:26", NOWHERE),
    ("a netlink socket", "socket n:16 n:3 n:0", OWN),
    ("bind its listener elsewhere", "bind n:3 h:0100007878 n:5", {errno.EINVAL}),

    ("kill every process", "kill n:-1 n:9", {errno.ESRCH}),
    ("kill a process", "kill n:9999 n:9", {errno.ESRCH}),
    ("signal another process", "tgkill n:9999 n:9999 n:9", {errno.ESRCH}),
    ("trace a process", "ptrace n:16 n:9999 n:0 n:0", {errno.ESRCH} | RIGHTS),
    ("read a process", "process_vm_readv n:9999 n:0 n:0 n:0 n:0 n:0", OWN),
    ("hold a process", "pidfd_open n:9999 n:0", {errno.ESRCH, errno.EINVAL}),
    ("take a descriptor", "pidfd_getfd n:3 n:0 n:0", {errno.EBADF}),
    ("signal by descriptor", "pidfd_send_signal n:3 n:9 n:0 n:0", {errno.EBADF}),
    ("advise another process", "process_madvise n:3 n:0 n:0 n:20 n:0", {errno.EBADF}),
    ("enter a namespace", "setns n:3 n:0", {errno.EINVAL}),
    ("make namespaces", "unshare n:0x20000", RIGHTS),
    ("make a user namespace", "unshare n:0x10000000", {errno.EINVAL} | RIGHTS),
    ("make a process", "clone n:17 n:0 n:0 n:0 n:0", UNTRIED),
    ("make a process in a user namespace", "clone n:0x10000011 n:0 n:0 n:0 n:0", UNTRIED),
    ("compare processes", "kcmp n:1 n:9999 n:0 n:0 n:0", {errno.ESRCH, errno.ENOSYS}),

    ("use keys of the daemon", "request_key s:user s:cloche-test-secret n:0 n:0", {errno.ENOKEY}),
    ("add a key", "add_key s:user s:cloche-test s:value n:5 n:-2", OWN),
    ("ask for a keyring", "keyctl n:0 n:-3 n:0", OWN),

    ("mount", "mount s:x s:/ s:tmpfs n:0 n:0", RIGHTS),
    ("unmount", "umount2 s:/ n:2", RIGHTS),
    ("change the root", "pivot_root s:/ s:/", RIGHTS),
    ("open a file system", "fsopen s:tmpfs n:0", RIGHTS),
    ("copy mounts", f"open_tree {AT_FDCWD} s:/ n:1", RIGHTS),
    ("change mounts", f"mount_setattr {AT_FDCWD} s:/ n:0 h:{'00' * 32} n:32", RIGHTS | {0}),

    ("load a BPF program", f"bpf n:5 h:01000000{'00' * 44} n:48", RIGHTS | {errno.EINVAL, errno.EFAULT, errno.E2BIG}),
    ("handle faults", "userfaultfd n:0", RIGHTS),
    ("an io_uring", f"io_uring_setup n:1 h:{'00' * 120}", OWN),
    ("watch performance of all", f"perf_event_open h:0100000070000000{'00' * 104} n:-1 n:0 n:-1 n:0", RIGHTS),
    ("load a module", "init_module s:x n:1 s:", RIGHTS),
    ("load a module's file", "finit_module n:3 s: n:0", RIGHTS),
    ("unload a module", "delete_module s:usbcore n:0", RIGHTS),
    ("load a kernel", "kexec_load n:0 n:0 n:0 n:0", RIGHTS),
    ("reboot", "reboot n:0xfee1dead n:0x28121969 n:0", RIGHTS),
    ("swap", "swapon s:/x n:0", RIGHTS),
    ("name the machine", "sethostname s:x n:1", RIGHTS),
    ("name its domain", "setdomainname s:x n:1", RIGHTS),
    ("set the time", f"settimeofday h:{'00' * 16} n:0", RIGHTS),
    ("set a clock", f"clock_settime n:0 h:{'00' * 16}", RIGHTS),
    ("account", "acct n:0", RIGHTS),
    ("read the kernel's log", "syslog n:5 n:0 n:0", RIGHTS),
    ("change quotas", "quotactl n:0x80000100 s:/x n:0 n:0", RIGHTS | NOWHERE | {errno.ENOTBLK}),
    ("hang up", "vhangup", RIGHTS),

    ("become root", "setuid n:0", RIGHTS),
    ("become root's group", "setgid n:0", RIGHTS),
    ("take groups", "setgroups n:1 h:00000000", RIGHTS),
    ("take capabilities", f"capset h:2205082000000000 h:{'ff' * 24}", RIGHTS),
    ("raise limits", f"prlimit64 n:0 n:7 h:{'ff' * 16} n:0", RIGHTS),
    ("become real-time", "sched_setscheduler n:0 n:1 h:63000000", RIGHTS),
    ("choose processors", f"sched_setaffinity n:9999 n:8 h:{'ff' * 8}", {errno.ESRCH} | RIGHTS),
    ("become important", "setpriority n:0 n:0 n:-20", RIGHTS),
    ("keep memory", "mlockall n:1", RIGHTS | {errno.ENOMEM}),
    ("a message queue", "mq_open s:x n:0x42 n:0600 n:0", {errno.EMFILE}),
    ("shared memory", "shmget n:0 n:4096 n:0x200", OWN),
    ("another filter", "seccomp n:1 n:0 n:0", {errno.EINVAL, errno.EFAULT}),
    ("another personality", "personality n:0x0400000", UNTRIED),
    ("executable memory", "mmap n:0 n:4096 n:7 n:0x22 n:-1 n:0", OWN),
    ("make memory executable", "mprotect n:0 n:0 n:4", OWN),
    ("ask a socket", "ioctl n:3 n:0x541b h:00000000", OWN),
    ("put into a terminal", "ioctl n:0 n:0x5412 s:x", {errno.ENOTTY} | RIGHTS),
    ("copy a descriptor", "dup n:3", OWN),
    ("copy a descriptor by fcntl", "fcntl n:3 n:0 n:0", OWN),
    ("pages of another", "move_pages n:9999 n:0 n:0 n:0 n:0 n:0", {errno.ESRCH, errno.ENOSYS} | RIGHTS),
]


def inject(process, mode, calls):
    done = subprocess.run([INJECT, str(process), mode], input="".join(call + "\n" for call in calls),
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def name_of(result):
    return errno.errorcode.get(-result, result) if result < 0 else result


def jailed_stick():
    model = Model()
    return model, serve(model)


@test
def every_call_that_reaches_out_is_refused_by_the_filter():
    model, process = jailed_stick()
    try:
        talk = process.talk()
        talk.ready()
        results = inject(process.jailed(), "keep", ["getpid"] + [call for _, call, _ in ATTEMPTS])
        assert results[0] == 1, results[0]
        wrong = [f"{what}: {name_of(result)}" for (what, call, _), result in zip(ATTEMPTS, results[1:])
                 if result != -errno.EPERM]
        assert not wrong, wrong
        assert inject(process.jailed(), "keep", ["clone3 n:0 n:0"]) == [-errno.ENOSYS]
        # The daemon's log, and a number of which the kernel takes the lower half.
        log = [f"{call} n:{fd} {words}" for fd in (2, 0x100000002)
               for call, words in (("shutdown", "n:2"), ("fcntl", "n:4 n:0x800"), ("lseek", "n:0 n:0"))]
        assert inject(process.jailed(), "keep", log) == [-errno.EPERM] * 6
        assert inject(process.jailed(), "keep", ["fcntl n:3 n:4 n:0x800"]) == [0]
        pause = f"clock_nanosleep n:0 n:0 h:{'00' * 16} n:0"  # else nobody lets others go first (files/content.c)
        assert inject(process.jailed(), "keep", [pause]) == [0]
        assert talk.call("status")["state"] == "open"
    finally:
        process.end()
        model.end()


@test
def without_the_filter_nothing_outside_is_reached_either():
    libc = ctypes.CDLL(None, use_errno=True)
    secret = libc.syscall(248, b"user", b"cloche-test-secret", b"x", 1, -3)  # add_key, session keyring
    model, process = jailed_stick()
    try:
        talk = process.talk()
        talk.ready()
        try:
            assert inject(process.jailed(), "off", ["getpid"]) == [1]
        except AssertionError as failure:
            if "seize" in str(failure):
                raise Skip(f"filters cannot be suspended here: {failure}") from failure
            raise
        tried = [attempt for attempt in ATTEMPTS if attempt[2] != UNTRIED]
        results = inject(process.jailed(), "off", [call for _, call, _ in tried])
        wrong = []
        for (what, _, expected), result in zip(tried, results):
            if expected == OWN or result == 0 and 0 in expected:
                continue
            if result >= 0 or -result not in expected | {errno.ENOSYS}:
                wrong.append(f"{what}: {name_of(result)}")
        assert not wrong, wrong
        assert sum(1 for _, _, expected in tried if expected == OWN) < len(tried) / 4
        assert talk.call("status")["state"] == "open"
    finally:
        process.end()
        model.end()
        if secret > 0:
            libc.syscall(250, 3, secret)  # keyctl, KEYCTL_REVOKE


@test
def only_its_medium_is_asked_as_a_device(scratch):
    size = "n:0x80081272 h:0000000000000000"  # BLKGETSIZE64
    path = scratch / "image"
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    with open(path, "r+b") as file:
        process = Process("image", file.fileno())
    try:
        process.talk().ready()
        of_listener, of_medium = inject(process.jailed(), "keep", [f"ioctl n:3 {size}", f"ioctl n:4 {size}"])
        assert of_listener == -errno.EPERM and of_medium == -errno.ENOTTY, (of_listener, of_medium)
    finally:
        process.end()


@test
def nothing_that_it_needs_is_refused(scratch):
    if not shutil.which("strace"):
        raise Skip("no strace")
    path = scratch / "image"
    with open(path, "wb") as file:
        file.truncate(32 << 20)
    model = Model("--image", str(path))
    try:
        denied = refused_calls(lambda under: serve(model, under=under), scratch)
        assert not denied, denied
    finally:
        model.end()
    (scratch / "of-image").mkdir()
    with open(path, "r+b") as file:
        denied = refused_calls(lambda under: Process("image", file.fileno(), under=under), scratch / "of-image",
                               eject=False)
    assert not denied, denied


@test
def nothing_is_left_to_it():
    model = Model()
    process = serve(model, under=("setpriv", "--groups", "1,2"))
    try:
        process.talk().ready()
        jailed = process.jailed()
        with open(f"/proc/{jailed}/status") as file:
            status = dict(re.findall(r"^(\w+):[ \t]*(.*)$", file.read(), re.M))
        assert status["Uid"].split() == ["65526"] * 4 and status["Gid"].split() == ["65526"] * 4
        assert status["Groups"].strip() == ""
        for kind in "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
            assert int(status[kind], 16) == 0, (kind, status[kind])
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert status["NSpid"].split()[1] == "1"
        for thread in os.listdir(f"/proc/{jailed}/task"):
            with open(f"/proc/{jailed}/task/{thread}/status") as file:
                assert "Seccomp:\t2\n" in file.read(), thread
        for kind in "mnt", "net", "ipc", "uts", "pid":
            mine, its = os.readlink(f"/proc/self/ns/{kind}"), os.readlink(f"/proc/{jailed}/ns/{kind}")
            assert mine != its, kind
        assert os.listdir(f"/proc/{jailed}/root") == []
        with open(f"/proc/{jailed}/mountinfo") as file:
            (mount,) = file.read().splitlines()
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount.split()[5].split(",")), mount
        with open(f"/proc/{jailed}/limits") as file:
            limits = file.read()
        assert os.stat(f"/proc/{jailed}/environ").st_uid == 0, "it can be traced"
        for limit in "Max core file size +0 +0", "Max open files +512 +512", "Max processes +256 +256":
            assert re.search(limit, limits), limits
        names = [os.readlink(f"/proc/{jailed}/fd/{fd}") for fd in os.listdir(f"/proc/{jailed}/fd")]
        others = [name for name in names if not name.startswith(("anon_inode:", "socket:"))]
        assert sorted(others) == sorted(["/dev/null", os.readlink(f"/proc/{jailed}/fd/1"), process.log.name]), names
        assert len([name for name in names if name.startswith("socket:")]) == 3, names
    finally:
        process.end()
        model.end()


@test
def the_jailed_process_goes_with_the_one_that_waits_for_it():
    model, process = jailed_stick()
    try:
        process.talk().ready()
        pidfd = os.pidfd_open(process.jailed())
        process.process.kill()

        assert select.select([pidfd], [], [], 10)[0], "it lives on"
        os.close(pidfd)
    finally:
        process.end()
        model.end()


if __name__ == "__main__":
    main()
