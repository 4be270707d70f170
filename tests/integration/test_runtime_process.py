"""The process of a container: scheduling, memory policy, personality, labels, environment, keyring,
descriptors that are handed in. exec has a file of its own.

Runs on the machine and in the guest (an older kernel, real-time scheduling, AppArmor).
"""

import ctypes
import json
import os
import pathlib
import shutil
import socket
import subprocess

from bundles import cgroup_version, world
from harness import Skip, main, run, wait_for

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_IOPRIO_GET, SYS_KEYCTL = (252, 250) if os.uname().machine == "x86_64" else (31, 219)
IO_CLASSES = {1: "RT", 2: "BE", 3: "IDLE"}


def io_priority(pid):
    value = LIBC.syscall(SYS_IOPRIO_GET, 1, pid)
    return IO_CLASSES.get(value >> 13), value & 7


def scheduling(pid):
    """Policy, nice and real-time priority, as proc(5) has them."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(stat[41 - 3]), int(stat[19 - 3]), int(stat[40 - 3])


def scheduler(w, **settings):
    w.bundle.process["scheduler"] = settings
    return w.bundle.write()


# ---------------------------------------------------------------- scheduling

@world
def the_scheduler_is_set(w):
    w.bundle.script("sleep 100")
    for policy, number, nice in (("SCHED_BATCH", os.SCHED_BATCH, 19), ("SCHED_IDLE", os.SCHED_IDLE, os.nice(0)),
                                 ("SCHED_OTHER", os.SCHED_OTHER, 7)):
        scheduler(w, policy=policy, nice=nice, priority=0)
        with w.runtime.container(w.bundle, w.name, start=False):
            assert scheduling(w.runtime.state(w.name)["pid"]) == (number, nice, 0)
    scheduler(w, policy="SCHED_OTHER", nice=-3, flags=["SCHED_FLAG_RESET_ON_FORK"])
    out = w.run("cat /proc/self/stat; true").out.rpartition(")")[2].split()
    assert out[19 - 3] == "0", out  # of the child of the shell


@world
def real_time_scheduling_where_the_machine_allows_it(w):
    w.bundle.script("sleep 100")
    scheduler(w, policy="SCHED_RR", priority=5, flags=["SCHED_FLAG_RESET_ON_FORK"])
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except PermissionError:
        w.fails("process.scheduler: sched_setattr SCHED_RR: Operation not permitted")
        return
    if cgroup_version() == 1:  # with RT_GROUP_SCHED a cgroup has no time for it of its own
        w.bundle.resources["cpu"] = {"realtimePeriod": 1000000, "realtimeRuntime": 1000}
    with w.runtime.container(w.bundle.write(), w.name):
        assert scheduling(w.runtime.state(w.name)["pid"])[::2] == (os.SCHED_RR, 5)
    # A deadline is for all CPUs of the machine.
    scheduler(w, policy="SCHED_DEADLINE", runtime=42000, deadline=1000000, period=1000000)
    with w.runtime.container(w.bundle, w.name):
        assert scheduling(w.runtime.state(w.name)["pid"])[0] == 6
    w.bundle.resources["cpu"] = {"cpus": "0"}
    if os.cpu_count() > 1:
        w.fails("process scheduler can't be used together with AllowedCPUs")


@world
def schedulers_that_cannot_be_are_refused_by_name(w):
    def refused(*words, **settings):
        scheduler(w, **settings)
        w.fails("process.scheduler", *words)
    deadline = {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 4000}
    refused("policy", policy="SCHED_FAIR")
    refused("flags[1]", "SCHED_FLAG_X", policy="SCHED_IDLE", flags=["SCHED_FLAG_RECLAIM",
                                                                    "SCHED_FLAG_X"])
    refused("nice", "20", policy="SCHED_OTHER", nice=20)
    refused("priority", policy="SCHED_BATCH", priority=1)
    refused("only for SCHED_DEADLINE", policy="SCHED_OTHER", runtime=1)
    for name in ("runtime", "deadline"):
        refused(f"`SCHED_DEADLINE` requires `{name}`",
                **{key: value for key, value in deadline.items() if key != name})
    refused("runtime must be greater than 0", **{**deadline, "runtime": 0})
    refused("runtime 1023 must be between", **{**deadline, "runtime": 1023})
    refused("runtime 9223372036854775809 must be between",
            **{**deadline, "runtime": 2 ** 63 + 1, "deadline": 2 ** 63 + 2})
    refused("runtime 3001 must be <= deadline 3000", **{**deadline, "runtime": 3001})
    refused("deadline 4001 must be <= period 4000", **{**deadline, "deadline": 4001})


@world
def the_io_priority_is_set(w):
    w.bundle.script("sleep 100")
    for name, level in (("BE", 4), ("RT", 2), ("IDLE", 0)):
        w.bundle.process["ioPriority"] = {"class": f"IOPRIO_CLASS_{name}", "priority": level}
        with w.runtime.container(w.bundle.write(), w.name):
            assert io_priority(w.runtime.state(w.name)["pid"]) == (name, level)
    w.bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 8}
    w.fails("process.ioPriority.priority", "8")
    w.bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_X"}
    w.fails("process.ioPriority.class")


@world
def a_user_namespace_does_not_lose_the_scheduler(w):
    """The runtime's rights count and not those that the process has left in its namespace."""
    w.bundle.namespace("user")
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    w.bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    run("chown", "-R", "100000:100000", w.bundle.rootfs)
    w.bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_RT", "priority": 1}
    scheduler(w, policy="SCHED_OTHER", nice=-5)
    with w.runtime.container(w.bundle.script("sleep 100"), w.name):
        pid = w.runtime.state(w.name)["pid"]
        assert io_priority(pid) == ("RT", 1)
        assert scheduling(pid)[1] == -5


@world
def the_callers_cpus_are_not_the_containers(w):
    everything = run("grep", "Cpus_allowed_list", "/proc/self/status").out
    if len(os.sched_getaffinity(0)) < 2:
        raise Skip("one CPU only")
    first = min(os.sched_getaffinity(0))
    bound = ["taskset", "-c", str(first), w.runtime.path, "--root", w.runtime.root]
    w.bundle.args("grep", "Cpus_allowed_list", "/proc/self/status")
    assert run(*bound, "run", "-b", w.bundle.path, w.name).out == everything
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        assert run(*bound, "exec", w.name, "grep", "Cpus_allowed_list",
                   "/proc/self/status").out == everything



@world
def pipes_of_the_caller_become_the_users(w):
    """Its /dev/stdout can be opened again; files and the null device stay whose they are."""
    w.bundle.process["user"] = {"uid": 7, "gid": 8}
    w.bundle.script("stat -Lc %u:%g /proc/self/fd/0 /proc/self/fd/1").write()
    command = [str(w.runtime.path), "--root", str(w.runtime.root), "run", "-b", str(w.bundle.path),
               w.name]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          check=True).stdout.split() == ["0:0", "7:8"]
    with open(w.scratch / "out", "w+", encoding="ascii") as file:
        subprocess.run(command, stdin=subprocess.PIPE, stdout=file, check=True)
        assert (w.scratch / "out").read_text().split() == ["7:8", "0:0"]


# ---------------------------------------------------------------- memory and personality

@world
def the_memory_policy_is_set(w):
    if not pathlib.Path("/proc/self/numa_maps").exists():
        raise Skip("a kernel without NUMA")

    def policy(**settings):
        w.bundle.linux["memoryPolicy"] = settings
        return w.run("head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2").out.strip()
    assert policy() == "default"
    assert policy(mode="MPOL_DEFAULT") == "default"
    assert policy(mode="MPOL_INTERLEAVE", nodes="0") == "interleave:0"
    assert policy(mode="MPOL_BIND", nodes="0", flags=["MPOL_F_STATIC_NODES"]) == "bind=static:0"
    assert policy(mode="MPOL_PREFERRED", nodes=" 0 ,", flags=["MPOL_F_RELATIVE_NODES"]) == \
        "prefer=relative:0"
    assert policy(mode="MPOL_LOCAL") == "local"
    w.bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    with w.runtime.container(w.bundle.script("sleep 100"), w.name):
        out = w.runtime("exec", w.name, "head", "-n", "1", "/proc/self/numa_maps").out
        assert out.split()[1] == "bind:0", out


@world
def memory_policies_that_cannot_be_are_refused(w):
    def refused(*words, **settings):
        w.bundle.linux["memoryPolicy"] = settings
        w.fails("linux.memoryPolicy", *words)
    refused("invalid memory policy mode", mode="INTERLEAVE", nodes="0")
    refused("invalid memory policy mode", nodes="0-7")
    refused("invalid memory policy flag", "badflag", mode="MPOL_BIND", nodes="0",
            flags=["MPOL_F_STATIC_NODES", "badflag"])
    for nodes in ("0-9876543210", "1024", "bad", "0-", "3-1", "1 2", "0;1", "-1"):
        refused("invalid memory policy node", mode="MPOL_BIND", nodes=nodes)
    refused("set_mempolicy: invalid argument", mode="MPOL_DEFAULT", nodes="0-7",
            flags=["MPOL_F_NUMA_BALANCING", "MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"])
    refused("set_mempolicy: invalid argument", mode="MPOL_INTERLEAVE")


@world
def the_personality_is_set(w):
    machine = os.uname().machine
    w.bundle.linux["personality"] = {"domain": "LINUX"}
    assert w.run("uname -m").out.strip() == machine
    w.bundle.linux["personality"] = {"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]}
    # A filter that forbids the call comes after it.
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO"}]}
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        other = w.runtime("exec", w.name, "uname", "-m").out.strip()
        assert other != machine or machine not in ("x86_64", "aarch64"), other
    assert "linux.personality.flags[0]: 'ADDR_NO_RANDOMIZE' is not supported" in \
        w.runtime.log.read_text()
    w.bundle.linux["personality"] = {"domain": "WINDOWS"}
    w.fails("linux.personality.domain")


# ---------------------------------------------------------------- labels

def apparmor_enabled():
    file = pathlib.Path("/sys/module/apparmor/parameters/enabled")
    return file.exists() and file.read_text().startswith("Y")


@world
def labels_that_would_not_be_in_force_are_refused(w):
    if not apparmor_enabled():
        w.bundle.process["apparmorProfile"] = "some"
        w.fails("process.apparmorProfile: apparmor: config provided but apparmor not supported")
        del w.bundle.process["apparmorProfile"]
    if not pathlib.Path("/sys/fs/selinux/enforce").exists():
        w.bundle.process["selinuxLabel"] = "system_u:system_r:container_t:s0"
        w.fails("process.selinuxLabel: selinux label is specified in config, but selinux is "
                "disabled or not supported")
        # A label of mounts without SELinux is only worth a line in the log.
        del w.bundle.process["selinuxLabel"]
        w.bundle.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
        ran = w.run("grep -c context= /proc/self/mounts; true")
        log = (w.scratch / "runtime.log").read_text()
        assert ran.out == "0\n" and "linux.mountLabel: selinux is disabled" in log, (ran, log)


APPARMOR_PROFILE = """
profile {name} flags=(attach_disconnected) {{
  file,
  capability,
  signal,
  ptrace,
  deny /etc/forbidden r,
}}
"""


@world
def the_apparmor_profile_is_in_force(w):
    if not apparmor_enabled():  # the guest has it; here see labels_that_would_not_be_in_force...
        return
    run("mount", "-t", "securityfs", "securityfs", "/sys/kernel/security")
    profile = w.scratch / "profile"
    name = f"cloche-{w.name}"
    profile.write_text(APPARMOR_PROFILE.format(name=name))
    run("apparmor_parser", "--skip-cache", "--replace", profile)
    try:
        (w.bundle.rootfs / "etc/forbidden").write_text("secret\n")
        w.bundle.process["apparmorProfile"] = name
        out = w.run("cat /proc/self/attr/current; cat /etc/forbidden 2>&1; cat /etc/passwd").out
        assert out.startswith(f"{name} (enforce)\n"), out
        assert "secret" not in out and "ermission denied" in out and "root:x:" in out, out
        # exec has the container's, or the one it is given.
        with w.runtime.container(w.bundle.script("sleep 100"), w.name):
            current = w.runtime("exec", w.name, "cat", "/proc/self/attr/current").out
            assert current == f"{name} (enforce)\n", current
            result = w.runtime("exec", "--apparmor", "not-loaded", w.name, "true", code=255)
            assert "apply apparmor profile `not-loaded`: profile not loaded" in result.err, result
        # CVE-2019-16884: the image's own /proc catches nothing that is written for the kernel.
        w.bundle.config["mounts"] = [m for m in w.bundle.config["mounts"]
                                     if m["destination"] != "/proc"]
        false = w.scratch / "false"
        for path in ("self/attr/apparmor/exec", "self/attr/exec", "thread-self/attr/apparmor/exec"):
            (false / path).parent.mkdir(parents=True, exist_ok=True)
            (false / path).write_text("")
        shutil.copytree(false, w.bundle.rootfs / "proc", dirs_exist_ok=True)
        w.bundle.linux.pop("maskedPaths"), w.bundle.linux.pop("readonlyPaths")
        result = w.run("cat /etc/forbidden 2>&1; true")
        assert "secret" not in result.out, result
    finally:
        run("apparmor_parser", "--remove", profile)
        run("umount", "/sys/kernel/security")
    w.bundle.process["apparmorProfile"] = "not-loaded"
    w.fails("apply apparmor profile `not-loaded`: profile not loaded")


# ---------------------------------------------------------------- environment

@world
def every_variable_is_there_once(w):
    def environment(*variables):
        w.bundle.process["env"] = list(variables)
        w.bundle.args("/bin/env")
        return w.run().lines
    assert environment("ONE=two", "PATH=/bin", "ONE=three") == ["PATH=/bin", "ONE=three",
                                                               "HOME=/root"]
    assert environment("HOME=/over", "HOME=") == ["HOME=/root"]
    assert environment("HOME=/over") == ["HOME=/over"]
    many = [f"V{i % 5000}={i}" for i in range(20000)]
    assert environment(*many)[:-1] == many[-5000:]
    w.bundle.process["env"] = ["A=1", "PATH"]
    w.fails("process.env[1]: invalid environment variable: missing '='")
    w.bundle.process["env"] = ["=x"]
    w.fails("process.env[0]: invalid environment variable: name cannot be empty")


@world
def home_comes_from_a_passwd_that_nobody_trusts(w):
    passwd = w.bundle.rootfs / "etc/passwd"
    w.bundle.args("/bin/env")
    w.bundle.process["env"] = []
    w.bundle.process["user"] = {"uid": 1234, "gid": 1}

    def home():
        return w.run().out.strip()
    passwd.write_text("x:x:1234:1:g:/home/right:/bin/sh\n")
    assert home() == "HOME=/home/right"
    for line in ("x:x:1234:1:g:relative:/bin/sh", "x:x:01234x:1:g:/wrong:/bin/sh", "x:x:1234", ":::::",
                 "x:x:99999999999999999999:1:g:/wrong:/bin/sh", "+", "x:x:-1234:1:g:/wrong:s"):
        passwd.write_text(line + "\n")
        assert home() == "HOME=/", line
    passwd.write_bytes(b"\0" * 100 + b"\nx:x:1234:1:g:/home/after:/bin/sh\n")
    assert home() in ("HOME=/", "HOME=/home/after")
    passwd.unlink()
    os.mkfifo(passwd)  # must not block
    assert home() == "HOME=/"
    passwd.unlink()
    passwd.symlink_to("/dev/zero")  # must end
    assert home() == "HOME=/"
    passwd.unlink()
    passwd.symlink_to("/proc/self/environ")
    assert home() == "HOME=/"


# ---------------------------------------------------------------- keyring

@world
def the_containers_processes_share_a_session_keyring(w):
    w.bundle.linux.pop("maskedPaths")
    with w.runtime.container(w.bundle.script("sleep 100"), w.name):
        def session(*command):
            keys = w.runtime("exec", *command, w.name, "cat", "/proc/keys").out
            return {line.split()[0] for line in keys.splitlines() if f"_ses.{w.name}" in line}
        one, two = session(), session()
        assert one and one == two, (one, two)
    other = f"{w.name}-other"
    w.runtime("create", "--no-new-keyring", "-b", w.bundle.path, other)
    try:
        keys = w.runtime("exec", other, "cat", "/proc/keys").out
        assert f"_ses.{other}" not in keys, keys
    finally:
        w.runtime("delete", "-f", other)


# ---------------------------------------------------------------- descriptors

@world
def listen_fds_reach_the_program(w):
    """sd_listen_fds(3): first those of LISTEN_FDS, then those of --preserve-fds."""
    read_fd, write_fd = os.pipe()
    w.bundle.script("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES $$; echo a >&3; echo b >&4")
    command = [w.runtime.path, "--root", str(w.runtime.root), "run", "--preserve-fds", "1", "-b",
               str(w.bundle.path), w.name]
    script = f'exec 3>&{write_fd} 5>&3 4>&5 5>&-; LISTEN_FDS=1 LISTEN_FDNAMES=web ' \
             'LISTEN_PID=$PID exec "$@"'
    result = subprocess.run(["sh", "-c", script.replace("$PID", "$$"), "sh", *command],
                            pass_fds=[write_fd], check=False, stdout=subprocess.PIPE, text=True)
    assert (result.returncode, result.stdout) == (0, "1 1 web 1\n"), result
    assert os.read(read_fd, 100) == b"a\nb\n"
    # Not meant for this process: nothing of it is passed on.
    result = subprocess.run(["sh", "-c", script.replace("$PID", "1"), "sh", *command],
                            pass_fds=[write_fd], check=False, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.PIPE)
    assert result.stdout.strip() == "1" and "4: Bad file descriptor" in result.stderr, result
    # For nobody by name: as crun takes it.
    result = subprocess.run(["sh", "-c", script.replace("LISTEN_PID=$PID", ""), "sh", *command],
                            pass_fds=[write_fd], check=False, stdout=subprocess.PIPE, text=True)
    assert (result.returncode, result.stdout) == (0, "1 1 web 1\n"), result
    os.close(read_fd), os.close(write_fd)


@world
def a_pidfd_goes_to_the_socket(w):
    w.bundle.script("sleep 100")

    def taken(*command):
        path = w.scratch / "pidfd.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(1)
            w.runtime(*[path if word == "SOCKET" else word for word in command])
            with listener.accept()[0] as connection:
                kind, fds, _, _ = socket.recv_fds(connection, 64, 1)
        path.unlink()
        info = pathlib.Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
        os.close(fds[0])
        return kind.decode(), int(info.partition("Pid:")[2].split()[0])
    for command in (("create", "-b", w.bundle.path), ("run", "-d", "-b", w.bundle.path)):
        try:
            kind, pid = taken(*command, "--pidfd-socket", "SOCKET", w.name)
            assert (kind, pid) == ("standard", w.runtime.state(w.name)["pid"])
            kind, pid = taken("exec", "-d", "--pid-file", w.scratch / "pid", "--pidfd-socket",
                              "SOCKET", w.name, "sleep", "100")
            assert (kind, pid) == ("setns", int((w.scratch / "pid").read_text()))
        finally:
            w.runtime("delete", "-f", w.name)
    result = w.runtime("create", "--pidfd-socket", w.scratch / "none", "-b", w.bundle.path, w.name,
                       code=1)
    assert "--pidfd-socket" in result.err and w.runtime.names() == [], result


@world
def a_null_device_is_the_containers_own(w):
    """Of the descriptors it is given; the host's lies on a mount that is not here."""
    look = ("for fd in 0 2; do grep -c \"^$(sed -n 's/mnt_id:\\t//p' /proc/self/fdinfo/$fd) \" "
            "/proc/self/mountinfo; grep flags: /proc/self/fdinfo/$fd; done")
    expected = ["1", "flags:\t0100002", "1", "flags:\t0100001"]

    def lines(*command):
        with open(os.devnull, "wb") as null:
            process = w.runtime.start(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=null)
            return process.communicate(timeout=60)[0].decode().splitlines()
    w.bundle.script(look)
    found = lines("run", "-b", w.bundle.path, w.name)
    assert found == expected, found
    w.bundle.script("sleep 100")
    with w.runtime.container(w.bundle, w.name):
        found = lines("exec", w.name, "sh", "-c", look)
        assert found == expected, found
    # What the image has in its place is not taken for one.
    w.bundle.config["mounts"] = [m for m in w.bundle.config["mounts"] if m["destination"] != "/dev"]
    (w.bundle.rootfs / "text").write_text("text\n")
    w.bundle.mount("/dev/null", w.bundle.rootfs / "text").script("cat")
    found = lines("run", "-b", w.bundle.path, w.name)
    assert found == [], found


# ---------------------------------------------------------------- readiness

class Manager:
    """The service manager's side of sd_notify(3)."""

    def __init__(self, folder):
        (folder / "systemd").mkdir()
        self.path = str(folder / "systemd/notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(60)
        self.environment = {**os.environ, "NOTIFY_SOCKET": self.path}

    def expect(self, *messages):
        for message in messages:
            text, fds, _, _ = socket.recv_fds(self.socket, 100, 4)
            for fd in fds:
                os.close(fd)
            assert text.decode().strip() == message, (text, message)

    def hears_nothing(self):
        self.socket.settimeout(0.2)
        try:
            raise AssertionError(self.socket.recv(100))
        except TimeoutError:
            self.socket.settimeout(60)


def inside(w, folder="/run/notify"):
    """The container's socket, from outside."""
    return f"/proc/{w.runtime.state(w.name)['pid']}/root{folder}/notify.sock"


def say(w, *messages):
    """As a process in the container."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(inside(w))
        for message in messages:
            client.send(message.encode())


@world
def the_manager_is_told_when_the_container_is_ready(w):
    manager = Manager(w.scratch)
    w.bundle.script("echo $NOTIFY_SOCKET; touch /run/notify/x; sleep 100")
    with open(w.scratch / "out", "wb") as out:
        assert w.runtime.start("create", "-b", w.bundle.path, w.name, env=manager.environment,
                               stdout=out, stderr=out).wait() == 0
    pid = w.runtime.state(w.name)["pid"]
    try:
        starting = w.runtime.start("start", w.name, env=manager.environment)
        wait_for(lambda: "Read-only" in (w.scratch / "out").read_text())
        assert (w.scratch / "out").read_text().startswith("/run/notify/notify.sock\n")
        say(w, "STATUS=READY=1", "READY=0", "MAINPID=1", "x" * 5000 + "\nREADY=1")
        manager.hears_nothing()
        assert starting.poll() is None  # start waits
        say(w, "STATUS=fine\nREADY=1\nMAINPID=1")
        manager.expect("READY=1", f"MAINPID={pid}", "BARRIER=1")
        assert starting.wait(60) == 0
    finally:
        w.runtime("delete", "-f", w.name)
    # A container that ends without a word lets start go on.
    w.bundle.script("true")
    assert w.runtime.start("run", "-d", "-b", w.bundle.path, w.name,
                           env=manager.environment).wait(60) == 0
    w.runtime("delete", "-f", w.name)
    manager.hears_nothing()
    # In the foreground it is told on the way.
    w.bundle.script("sleep 100")
    running = w.runtime.start("run", "-b", w.bundle.path, w.name, env=manager.environment)
    wait_for(lambda: w.runtime.is_running(w.name) and pathlib.Path(inside(w)).exists())
    say(w, "READY=1")
    manager.expect("READY=1", f"MAINPID={w.runtime.state(w.name)['pid']}")
    w.runtime("kill", w.name, "KILL")
    assert running.wait(60) == 137


@world
def the_managers_socket_is_where_it_is_outside(w):
    """As with crun; not over the place of a systemd's own socket."""
    w.bundle.script("echo $NOTIFY_SOCKET; ls -d $NOTIFY_SOCKET")
    for path, place in (("/run/some/place", "/run/some/place"), ("@abstract", "/run/notify"),
                        ("/run/systemd/notify", "/run/notify"), ("/x" + 93 * "y", None),
                        ("/x" + 94 * "y", "/run/notify")):
        expected = f"{place or path}/notify.sock"
        result = w.runtime("run", "-b", w.bundle.path, w.name, code=None,
                           env={**os.environ, "NOTIFY_SOCKET": path})
        assert result.out == 2 * f"{expected}\n", (path, result)


if __name__ == "__main__":
    main()
