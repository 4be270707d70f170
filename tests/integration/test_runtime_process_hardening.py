"""Attacks on the process that the runtime turns into the container's program, above all by exec.

CLOCHE_RUNTIME names another runtime to try them on. What was seen to fail where is said beside each
test: versions are Debian 12's (runc 1.1.5+ds1-1+deb12u1, crun 1.8.1-1+deb12u1), run as
`CLOCHE_RUNTIME=/usr/sbin/runc test_runtime_process_hardening.py NAME`.

Runs on the machine and in the guest.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import time

from bundles import is_ours, world
from harness import main, note, run, wait_for
from terminal import Terminal

ALL_CAPABILITIES = [name.strip() for name in
                    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP "
                    "LINUX_IMMUTABLE NET_BIND_SERVICE NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER "
                    "SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT "
                    "SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE "
                    "AUDIT_CONTROL SETFCAP".split()]


def exec_process(w, code=0, options=(), **settings):
    file = w.scratch / "process.json"
    file.write_text(json.dumps({"cwd": "/", "env": ["PATH=/bin"], **settings}))
    return w.runtime("exec", *options, "--process", file, w.name, code=code)


def own_users(w):
    w.bundle.namespace("user")
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    w.bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    run("chown", "-R", "100000:100000", w.bundle.rootfs)


@world
def nothing_is_inheritable_by_default(w):
    """CVE-2022-29162. Seen red with "inheritable" in the list of add_capabilities()
    (exec_process.c)."""
    w.bundle.script("grep CapInh /proc/self/status; sleep 100")
    w.bundle.process["capabilities"] = {"bounding": ["CAP_CHOWN"]}
    with w.runtime.container(w.bundle, w.name):
        for options in ((), ("--cap", "CAP_CHOWN", "--cap", "CAP_SYS_ADMIN")):
            out = w.runtime("exec", *options, w.name, "grep", "CapInh", "/proc/self/status").out
            assert out.split()[1] == "0" * 16, out


@world
def a_working_directory_through_a_leaked_descriptor(w):
    """CVE-2024-21626, exec's half: of our own descriptors, and of those that the caller leaks.
    Seen red on crun 1.8.1, which lists the caller's folder, and with the look at getcwd() in
    enter_working_directory() (workload.c) left out."""
    w.bundle.script("sleep 100")
    leaked = os.open(w.scratch, os.O_RDONLY)
    with w.runtime.container(w.bundle, w.name):
        for number in range(3, 24):
            for link in ("self", "thread-self", "1"):
                path = f"/proc/{link}/fd/{number}"
                command = [w.runtime.path, "--root", str(w.runtime.root), "exec", "--cwd", path,
                           w.name, "sh", "-c", "ls . .. ../..; cat ../../../../etc/hostname"]
                result = subprocess.run(command, pass_fds=[leaked], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, check=False)
                assert result.returncode != 0 and result.stdout == "", (path, result)
        exec_process(w, code=255, cwd=f"/proc/self/fd/{leaked}", args=["ls"])
    os.close(leaked)


@world
def no_program_is_found_through_a_descriptor(w):
    """CVE-2024-21626, the other half: a program, or its interpreter, that is named through a
    descriptor, which an O_CLOEXEC does not prevent. Seen red on crun 1.8.1 (through the caller's
    descriptor: "the host's" is printed), and on ours when seal_descriptors() (workload.c) only set
    O_CLOEXEC: through nearly each of its own."""
    shutil.copy(w.bundle.rootfs / "bin/busybox", w.scratch / "echo")
    up = "/.." * 12
    folders = [path.format(number) for number in range(3, 32) for path in
               ("/proc/self/fd/{}", "/proc/self/fd/{}" + up + str(w.scratch))]
    for i, folder in enumerate(folders):
        os.symlink(f"{folder}/echo", w.bundle.rootfs / f"bin/link{i}")
        script = w.bundle.rootfs / f"bin/script{i}"
        script.write_text(f"#!{folder}/echo the host's\n")
        script.chmod(0o755)
    programs = [[f"{folder}/echo", f"link{i}", f"/bin/script{i}"]
                for i, folder in enumerate(folders)]
    command = [w.runtime.path, "--root", str(w.runtime.root)]
    leaked = os.open(w.scratch, os.O_RDONLY)

    def fails(*argv):
        result = subprocess.run([*command, *argv], pass_fds=[leaked], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
        assert result.returncode != 0 and "the host's\n" not in result.stdout, (argv, result)

    for program in programs[:12]:
        for name in program:
            w.bundle.args(name, "the host's")
            fails("run", "-b", str(w.bundle.path), w.name)
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        for program in programs:
            for name in program:
                fails("exec", w.name, name, "the host's")
    os.close(leaked)


@world
def home_is_not_read_through_a_descriptor(w):
    """The image's /etc/passwd is a link to a file that the caller has open. Seen red on ours when
    lookup.c took an open() for it, and on crun 1.8.1: HOME is /leaked. runc 1.1.5 waits for ever for
    a pipe of its own."""
    secret = w.scratch / "passwd"
    secret.write_text("x:x:0:0:x:/leaked:/bin/sh\n")
    (w.bundle.rootfs / "etc").mkdir(exist_ok=True)
    passwd = w.bundle.rootfs / "etc/passwd"
    w.bundle.script("echo $HOME")
    w.bundle.process["env"] = ["PATH=/bin"]
    leaked = os.open(secret, os.O_RDONLY)
    for number in range(3, 16):
        passwd.unlink(missing_ok=True)
        os.symlink(f"/proc/self/fd/{number}", passwd)
        w.bundle.write()
        result = subprocess.run([w.runtime.path, "--root", str(w.runtime.root), "run", "-b",
                                 str(w.bundle.path), w.name], pass_fds=[leaked], text=True,
                                timeout=120, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert "/leaked" not in result.stdout, (number, result)
    os.close(leaked)


@world
def descriptors_that_the_caller_leaks_stay_out(w):
    """Everything above the preserved ones. Seen red with seal_descriptors() (workload.c) left out."""
    w.bundle.script("ls -l /proc/self/fd; sleep 100")
    leaked = os.open(w.scratch, os.O_RDONLY)
    for number in (5, 9, 30):
        os.dup2(leaked, number, inheritable=True)
    fds = [leaked, 5, 9, 30]
    try:
        with open(w.scratch / "out", "wb") as out:
            subprocess.run([w.runtime.path, "--root", str(w.runtime.root), "run", "-d", "-b",
                            str(w.bundle.path), w.name], pass_fds=fds, stdout=out, check=True)
        try:
            wait_for(lambda: (w.scratch / "out").read_text())
            assert str(w.scratch) not in (w.scratch / "out").read_text().replace(
                str(w.scratch / "out"), "")
            result = subprocess.run([w.runtime.path, "--root", str(w.runtime.root), "exec", w.name,
                                     "ls", "-l", "/proc/self/fd"], pass_fds=fds, check=True,
                                    stdout=subprocess.PIPE, text=True)
            assert str(w.scratch) not in result.stdout, result
        finally:
            w.runtime("delete", "-f", w.name)
    finally:
        for number in fds:
            os.close(number)


OVERWRITE = """
while :; do
    for exe in /proc/[0-9]*/exe; do
        case $(readlink $exe) in
        /bin/busybox | "") ;;
        *) if exec 7<$exe; then
               for i in 1 2 3 4 5 6 7 8 9 10; do
                   (echo overwritten >/proc/self/fd/7) && echo written
                   sleep 0.02
               done
           fi ;;
        esac
    done
done 2>/dev/null
"""


@world
def the_program_is_not_overwritten_by_exec(w):
    """CVE-2019-5736: the container executes the runtime by "#!/proc/self/exe" and by its path, and
    looks for it in /proc, with every capability. Seen red with cloche_runtime_seal() left out of
    main.c."""
    copy = w.scratch / "copy"
    shutil.copy(w.runtime.path, copy)
    copy.chmod(0o755)
    before = hashlib.sha256(copy.read_bytes()).hexdigest()
    w.runtime.path = str(copy)
    evil = w.bundle.rootfs / "bin/evil"
    evil.write_text("#!/proc/self/exe\n")
    evil.chmod(0o755)
    w.bundle.all_capabilities(*(f"CAP_{name}" for name in ALL_CAPABILITIES))
    w.bundle.linux.pop("maskedPaths", None)
    w.bundle.script(OVERWRITE)
    with open(w.scratch / "out", "wb") as out:
        w.runtime.start("run", "-d", "-b", w.bundle.path, w.name, stdout=out, stderr=out).wait()
    try:
        for _ in range(10):
            for command in (["/bin/evil"], ["/proc/self/exe", "--version"],
                            ["/proc/self/exe", "list"]):
                subprocess.run([copy, "--root", str(w.runtime.root), "exec", w.name, *command],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        time.sleep(0.3)
    finally:
        w.runtime("delete", "-f", w.name)
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == before
    assert "written" not in (w.scratch / "out").read_text()


@world
def the_container_cannot_look_into_a_process_on_its_way(w):
    """CVE-2016-9962: while it still has descriptors of the host, and all our rights, the process is
    not dumpable. The root of a user namespace would have the right to trace it otherwise. Seen red
    with PR_SET_DUMPABLE set to 1 in workload_become() (workload.c)."""
    if not is_ours():
        return note("a process is held on its way by --exec-wait-fifo, which the peers do not have")
    own_users(w)
    w.bundle.all_capabilities(*(f"CAP_{name}" for name in ALL_CAPABILITIES))
    w.bundle.linux.pop("maskedPaths", None)
    w.bundle.script("sleep 100")
    fifo = w.scratch / "fifo"
    os.mkfifo(fifo)
    os.chmod(fifo, 0o666)
    with w.runtime.container(w.bundle, w.name):
        w.runtime("exec", "-d", "--exec-wait-fifo", fifo, w.name, "sleep", "100")
        out = w.runtime("exec", w.name, "sh", "-c",
                        "for p in /proc/[0-9]*; do grep -qE \"^(sh|sleep|grep)$\" $p/comm && continue; cat $p/comm; "
                        "ls $p/fd && echo LOOKED; cat $p/environ && echo LOOKED; "
                        "readlink $p/exe && echo LOOKED; ls $p/root/ && echo LOOKED; done 2>/dev/null")
        assert out.out.strip() and "LOOKED" not in out.out, out
        fifo.read_bytes()


@world
def no_terminal_of_the_host_to_type_into(w):
    """TIOCSTI: a program without a terminal of its own has the caller's as standard input, and must
    not have it as its controlling terminal. Seen red with setsid() left out of exec.c and init.c."""
    probe = "if (: </dev/tty) 2>/dev/null; then echo HAS A TTY; else echo has none; fi; " \
            "awk '{ print \"tty\", $7 }' /proc/self/stat"
    w.bundle.script(f"{probe}; sleep 1000")
    command = [w.runtime.path, "--root", str(w.runtime.root)]
    with Terminal([*command, "run", "-b", str(w.bundle.path), w.name], dict(os.environ)) as terminal:
        terminal.expect("has none\r?\ntty 0")
        with Terminal([*command, "exec", w.name, "sh", "-c", probe], dict(os.environ)) as inner:
            inner.expect("has none\r?\ntty 0")
            inner.wait()
        # With one of its own it has that, and not the caller's.
        with Terminal([*command, "exec", "-t", w.name, "sh", "-c", "tty; echo $(tty </dev/tty)"],
                      dict(os.environ)) as inner:
            inner.expect("/dev/pts/0")
            inner.wait()
        w.runtime("kill", w.name, "KILL")
        terminal.wait()


@world
def names_in_messages_do_not_drive_the_terminal(w):
    """What an image calls its program is part of the error. Seen red with the message printed as
    it is."""
    for name, shown in (("a\x1b[2Jb", '"a\\x1b[2Jb"'), ("a\nroot: b", '"a\\nroot: b"'),
                        ("a\u009b2Jb", '"a\\x9b2Jb"'), ("\u00fcber", '"\u00fcber"')):
        w.bundle.args(name)
        result = w.runtime("run", "-b", w.bundle.path, w.name, code=1)
        if is_ours():
            assert f"exec: {shown}: executable file not found" in result.err, result.err
        assert "\x1b" not in result.err and "\u009b" not in result.err, result.err
        assert len(result.err.splitlines()) == 1, result.err
    # Lines of the log go to the terminal where no other place is named.
    w.bundle.args("true")
    w.bundle.mount("/x", "tmpfs", "tmpfs", ["no\u009b2J"])
    for form in ("text", "json"):
        result = w.runtime("--log-format", form, "run", "-b", w.bundle.path, w.name, code=1, log=False)
        assert "\u009b" not in result.err and "no\\u009b2J" in result.err, result.err


@world
def sizes_of_terminals_are_not_taken_modulo(w):
    """A size that does not fit is refused and not cut. Seen red on runc 1.1.5 and crun 1.8.1, which
    take 65616 columns for 80."""
    w.bundle.script("sleep 100")
    document = w.scratch / "process.json"
    command = [w.runtime.path, "--root", str(w.runtime.root), "exec", "--process", str(document),
               w.name]
    with w.runtime.container(w.bundle, w.name):
        for size in ({"height": 24, "width": 65616}, {"height": 65560, "width": 80},
                     {"height": 2 ** 32 + 24, "width": 80}, {"height": -24, "width": 80}):
            document.write_text(json.dumps({"cwd": "/", "env": ["PATH=/bin"], "terminal": True,
                                            "args": ["stty", "size"], "consoleSize": size}))
            with Terminal(command, dict(os.environ), 11, 22) as terminal:
                assert terminal.wait() != 0 and b"24 80" not in terminal.seen, (size, terminal.seen)
    if is_ours():
        w.bundle.process.update(terminal=True, consoleSize={"height": 24, "width": 65616})
        w.fails("consoleSize.width")


@world
def a_container_that_took_its_proc_away_is_entered_safely(w):
    """What the runtime writes for the kernel goes to the host's /proc, whatever is mounted over the
    container's."""
    w.bundle.all_capabilities("CAP_SYS_ADMIN")
    w.bundle.linux.pop("maskedPaths", None), w.bundle.linux.pop("readonlyPaths", None)
    w.bundle.process["oomScoreAdj"] = 77
    w.bundle.script("mount -t tmpfs none /proc; mkdir -p /proc/self /proc/thread-self/fd; "
                    "echo done; sleep 100")
    with open(w.scratch / "out", "wb") as out:
        w.runtime.start("run", "-d", "-b", w.bundle.path, w.name, stdout=out, stderr=out).wait()
    try:
        wait_for(lambda: "done" in (w.scratch / "out").read_text())
        pid = w.scratch / "pid"
        entered = w.runtime("exec", "-d", "--pid-file", pid, w.name, "sleep", "100",
                            code=0 if is_ours() else None)
        if entered.code:  # the peers refuse, which is as safe
            return
        score = pathlib.Path(f"/proc/{pid.read_text()}/oom_score_adj").read_text()
        assert score == "77\n", score
        assert w.runtime("exec", w.name, "ls", "-A", "/proc/thread-self/fd").out == ""
    finally:
        w.runtime("delete", "-f", w.name)


if __name__ == "__main__":
    main()
