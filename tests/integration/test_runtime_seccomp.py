"""linux.seccomp through cloche-runtime: what a filter answers, and the agent of SCMP_ACT_NOTIFY."""

import array
import ctypes
import errno
import fcntl
import json
import os
import platform
import socket
import struct
import threading

from bundles import world
from harness import Skip, main, run, test, wait_for
from users import user_world

rootless = user_world(test)

NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[platform.machine()]

NOTIFICATION = struct.Struct("QIIiIQ6Q")  # struct seccomp_notif
RESPONSE = struct.Struct("QqiI")          # struct seccomp_notif_resp
RECEIVE = 0xC0502100                      # SECCOMP_IOCTL_NOTIF_RECV
SEND = 0xC0182101                         # SECCOMP_IOCTL_NOTIF_SEND
CONTINUE = 1                              # SECCOMP_USER_NOTIF_FLAG_CONTINUE


class Agent:
    """Takes listeners, answers each system call with what `answers` says: number -> errno. Others
    go on."""

    def __init__(self, scratch, answers=None):
        self.path = scratch / "agent.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(self.path))
        self.socket.listen(8)
        self.documents, self.seen, self.listeners = [], [], []
        self.answers = answers or {}
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def take(self):
        """The next document and the number of its descriptors. The runtime does not wait for us to
        read it."""
        wait_for(lambda: self.documents, what="a listener comes")
        return self.documents.pop(0)

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                fds = array.array("i")
                text, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_LEN(4 * fds.itemsize))
                for _, _, data in ancillary:
                    fds.frombytes(data)
            self.listeners.append(fds[0])
            self.documents.append((json.loads(text), len(fds)))
            threading.Thread(target=self._answer, args=(fds[0],), daemon=True).start()

    def _answer(self, listener):
        while True:
            request = bytearray(NOTIFICATION.size)
            try:
                fcntl.ioctl(listener, RECEIVE, request)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                return
            identity, _, _, number = NOTIFICATION.unpack(request)[:4]
            self.seen.append(number)
            failure = self.answers.get(number)
            answer = RESPONSE.pack(identity, 0, -(failure or 0), 0 if failure else CONTINUE)
            try:
                fcntl.ioctl(listener, SEND, bytearray(answer))
            except OSError:
                continue

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def number_of(name):
    """A system call's number here."""
    library = ctypes.CDLL("libseccomp.so.2")
    return library.seccomp_syscall_resolve_name(name.encode())


def notify(w, *names, path=None, metadata="some words", **more):
    w.bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": [NATIVE],
        "listenerPath": str(path or w.scratch / "agent.sock"), "listenerMetadata": metadata,
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}], **more}


CALLER = """
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **words)
{
    for (int i = 1; i < count; i++) {
        long n[7] = {-1, -1, -1, -1, -1, -1, -1};
        char *at = words[i];
        for (int k = 0; k < 7 && *at; k++) {
            n[k] = strtol(at, &at, 0);
            at += *at == ',';
        }
        errno = 0;
        syscall(n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
        printf("%d\\n", errno);
    }
    return 0;
}
"""


def caller(w, *calls):
    """A program for the container that makes system calls, each a number or a tuple of number and
    arguments, and prints their errors: busybox has none that can."""
    source, program = w.scratch / "caller.c", w.bundle.rootfs / "caller"
    if not program.exists():
        source.write_text(CALLER)
        run("cc", "-static", "-D_GNU_SOURCE", "-o", program, source)
    words = [call if isinstance(call, tuple) else (call,) for call in calls]
    w.bundle.args("/caller", *[",".join(map(str, word)) for word in words])


ENOUGH = ["execve", "brk", "arch_prctl", "mmap", "mprotect", "munmap", "write", "exit_group", "exit",
          "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlink", "readlinkat",
          "getrandom", "uname", "newfstatat", "fstat", "prctl", "capset", "ioctl", "getuid"]


# ---------------------------------------------------------------- answers

@world
def calls_newer_than_the_profile_do_not_exist(w):
    caller(w, 5000, number_of("personality"))
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": [NATIVE],
               "syscalls": [{"names": ENOUGH, "action": "SCMP_ACT_ALLOW"}]}
    w.bundle.linux["seccomp"] = profile
    assert w.run().lines == [str(errno.ENOSYS), str(errno.EPERM)]
    # Naming it, in whatever rule, makes the profile one that knows it.
    profile["syscalls"].append({"names": ["landlock_create_ruleset"], "action": "SCMP_ACT_ERRNO",
                                "errnoRet": errno.EXDEV})
    caller(w, number_of("landlock_create_ruleset"), number_of("landlock_create_ruleset") + 200)
    assert w.run().lines == [str(errno.EXDEV), str(errno.ENOSYS)]
    # As with runc only for the architectures that are listed.
    del profile["architectures"]
    caller(w, 5000)
    assert w.run().lines == [str(errno.EPERM)]


@world
def a_default_error_of_its_own(w):
    caller(w, number_of("personality"), number_of("sethostname"))
    w.bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENXIO,
        "syscalls": [{"names": ENOUGH, "action": "SCMP_ACT_ALLOW"},
                     {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100}]}
    assert w.run().lines == [str(errno.ENXIO), "100"]


@world
def killing_actions(w):
    w.bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    for action in ("SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS",
                   "SCMP_ACT_TRAP"):
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": action}]}
        # As init it is killed like any other: the signal is forced.
        result = w.run("mkdir /dev/shm/x; echo $?")
        assert result.lines == ["159"], (action, result)  # SIGSYS


@world
def actions_that_let_pass(w):
    for action in ("SCMP_ACT_LOG", "SCMP_ACT_ALLOW"):
        w.bundle.linux["seccomp"] = {"defaultAction": action, "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_LOG"}]}
        assert w.run("mkdir /dev/shm/x && echo made").out == "made\n"
    # Nobody traces: the call does not exist.
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_TRACE"}]}
    assert "not implemented" in w.run("mkdir /dev/shm/x", code=1).err


@world
def conditions_on_arguments(w):
    """Every operator, on the second argument of a call that does nothing to it."""
    number = number_of("getpriority")

    def verdict(*conditions):
        caller(w, (number, 99, 5))
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENXIO,
             "args": [{"index": index, "value": value, "valueTwo": two, "op": "SCMP_CMP_" + op}
                      for index, op, value, two in conditions]}]}
        return {str(errno.ENXIO): True, str(errno.EINVAL): False}[w.run().out.strip()]
    for op, below, equal, above in (("EQ", 0, 1, 0), ("NE", 1, 0, 1), ("LT", 0, 0, 1),
                                    ("LE", 0, 1, 1), ("GT", 1, 0, 0), ("GE", 1, 1, 0)):
        for value, hit in ((4, below), (5, equal), (6, above)):
            assert verdict((1, op, value, 0)) == bool(hit), (op, value)
    assert verdict((1, "MASKED_EQ", 0x4, 0x4))
    assert not verdict((1, "MASKED_EQ", 0x6, 0x6))
    # On two arguments both must hold; on one they are alternatives, as runc reads them.
    assert verdict((0, "EQ", 99, 0), (1, "EQ", 5, 0))
    assert not verdict((0, "EQ", 98, 0), (1, "EQ", 5, 0))
    assert verdict((1, "EQ", 1, 0), (1, "EQ", 5, 0))
    w.bundle.linux["seccomp"]["syscalls"][0]["args"][0]["index"] = 6
    w.fails("linux.seccomp: syscalls[0]: args[0].index: system calls have 6 arguments")


@world
def a_profile_that_is_never_compiled(w):
    """libseccomp 2.5.4 goes round in a circle with these. Seen red with filter_compile() in place of
    filter_compile_guarded() (filter_cache.c): the start never ended."""
    def rule(answer, *args):
        return {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": answer,
                "args": [{"index": i, "value": value, "op": f"SCMP_CMP_{op}"}
                         for i, op, value in args]}

    w.bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": [NATIVE],
        "syscalls": [rule(2, (2, "EQ", 0), (0, "NE", 2)), rule(1, (0, "NE", 2), (3, "GT", 0)),
                     rule(1, (2, "EQ", 0)), rule(1, (1, "LT", 0), (5, "LT", 0))]}
    w.bundle.script("exit 0").write()
    result = w.runtime("run", "-b", w.bundle.path, w.name, code=None, timeout=120)
    if result.code:  # a newer libseccomp may come to an end
        assert "does not come to an end" in result.err, result.err
    assert w.runtime.names() == []


@world
def rules_may_come_twice(w):
    rule = {"names": ["mkdir", "mkdirat", "mkdir", "a_call_nobody_knows"],
            "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSPC}
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule, rule]}
    assert "No space left" in w.run("mkdir /dev/shm/x", code=1).err


@world
def architectures_of_other_machines(w):
    w.bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64",
                          "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
    assert "not permitted" in w.run("mkdir /dev/shm/x", code=1).err


@world
def flags_reach_the_kernel(w):
    features = json.loads(w.runtime("features").out)["linux"]["seccomp"]
    assert set(features["supportedFlags"]) <= set(features["knownFlags"])
    values = {"TSYNC": 0, "LOG": 2, "SPEC_ALLOW": 4}

    def flags(given):
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
        if given is not None:
            profile["flags"] = ["SECCOMP_FILTER_FLAG_" + name for name in given]
        w.bundle.linux["seccomp"] = profile
        w.bundle.script("mkdir /dev/shm/x; grep Speculation_Store /proc/self/status").write()
        result = w.runtime("--debug", "run", "-b", w.bundle.path, w.name, log=False)
        assert "not permitted" in result.err, result
        return result
    for given, value in ((None, 4), ([], 0), (["TSYNC"], 0), (["LOG"], 2), (["SPEC_ALLOW"], 4),
                         (["LOG", "SPEC_ALLOW", "TSYNC"], 6)):
        assert f'msg="seccomp filter flags: {value}"' in flags(given).err, given
    w.bundle.linux["seccomp"]["flags"] = ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]
    w.fails("linux.seccomp: flags[0]: seccomp flag 'SECCOMP_FILTER_FLAG_NEW_LISTENER' is not known")
    w.bundle.linux["seccomp"]["flags"] = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    w.fails("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for profiles that use SCMP_ACT_NOTIFY")


@world
def our_own_calls_may_be_forbidden(w):
    """What the runtime does on the way to the program is not the container's matter."""
    names = ["close_range", "fsopen", "fsconfig", "fspick", "openat2", "open_tree", "move_mount",
             "mount_setattr", "clone3", "sendmsg", "recvfrom", "memfd_create", "pidfd_send_signal"]
    for no_new_privileges in (False, True):
        w.bundle.process["noNewPrivileges"] = no_new_privileges
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}]}
        assert w.run("echo fine").out == "fine\n"
        # The program that is missing is told all the same.
        w.bundle.args("/missing")
        w.fails("/missing")


@world
def with_no_new_privileges_the_filter_comes_last(w):
    """Then nothing but the execution has to be allowed."""
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": [name for name in ENOUGH if name not in ("capset", "prctl")],
         "action": "SCMP_ACT_ALLOW"}]}
    caller(w, number_of("capset"), number_of("prctl"))
    assert w.run().lines == [str(errno.EPERM)] * 2


# ---------------------------------------------------------------- agents

@world
def an_agent_answers(w):
    agent = Agent(w.scratch, {number_of("sethostname"): errno.ENOMEDIUM})
    notify(w, "sethostname")
    w.bundle.config["annotations"] = {"org.example": "yes"}
    for no_new_privileges in (False, True):
        w.bundle.process["noNewPrivileges"] = no_new_privileges
        w.bundle.script("hostname other; echo $?; sleep 100").write()
        w.runtime("run", "-d", "-b", w.bundle.path, w.name)
        try:
            pid = w.runtime.state(w.name)["pid"]
            document, fds = agent.take()
            assert fds == 1 and document["fds"] == ["seccompFd"], document
            assert document["pid"] == pid and document["metadata"] == "some words", document
            assert document["state"] == {
                "ociVersion": document["ociVersion"], "id": w.name, "status": "creating",
                "pid": pid, "bundle": str(w.bundle.path), "annotations": {"org.example": "yes"}}
            # None of it is left in the container.
            wait_for(lambda: sorted(os.listdir(f"/proc/{pid}/fd"), key=int)[-1] in ("2", "10"))
            result = w.runtime("exec", w.name, "/bin/hostname", "other", code=1)
            assert "No medium" in result.err, result
            document, _ = agent.take()
            assert document["state"]["status"] == "running" and document["state"]["pid"] == pid
            assert document["pid"] != pid
        finally:
            w.runtime("delete", "-f", w.name)
    agent.close()


@world
def an_agent_by_annotation(w):
    """run.oci.seccomp.receiver, also for exec; the member has the last word."""
    agent = Agent(w.scratch, {number_of("sethostname"): errno.ENOMEDIUM})
    notify(w, "sethostname")
    del w.bundle.linux["seccomp"]["listenerPath"]
    w.bundle.config["annotations"] = {"run.oci.seccomp.receiver": str(agent.path)}
    w.bundle.script("hostname other; sleep 100").write()
    w.runtime("run", "-d", "-b", w.bundle.path, w.name)
    try:
        assert agent.take()[1] == 1
        assert "No medium" in w.runtime("exec", w.name, "/bin/hostname", "other", code=1).err
        assert agent.take()[1] == 1
    finally:
        w.runtime("delete", "-f", w.name)
    w.bundle.config["annotations"] = {"run.oci.seccomp.receiver": "/no/agent"}
    w.bundle.linux["seccomp"]["listenerPath"] = str(agent.path)
    assert "No medium" in w.run("hostname other", code=1).err
    agent.take()
    agent.close()


@world
def an_agent_without_a_question(w):
    """A profile that names an agent and asks it nothing: the agent hears of the container, as from
    crun; without an agent the container runs, as with runc."""
    notify(w, "sethostname")
    del w.bundle.linux["seccomp"]["syscalls"]
    assert w.run("echo fine").out == "fine\n"
    agent = Agent(w.scratch)
    assert w.run("echo fine").out == "fine\n"
    document, fds = agent.take()
    assert fds == 1 and document["metadata"] == "some words", document
    assert document["state"]["status"] == "creating", document
    agent.close()
    del w.bundle.linux["seccomp"]["listenerPath"]  # the compiled program is another one
    assert w.run("echo fine").out == "fine\n"


@world
def an_agent_may_have_our_own_calls(w):
    """From the installation to the execution: those the process makes with the filter in force."""
    agent = Agent(w.scratch)
    names = ("execve", "openat", "open", "read", "close", "sendmsg", "capset", "prctl", "exit_group")
    notify(w, *names)
    for no_new_privileges in (False, True):
        w.bundle.process["noNewPrivileges"] = no_new_privileges
        agent.seen.clear()
        assert w.run("echo fine").out == "fine\n"
        assert number_of("execve") in agent.seen
        assert (number_of("capset") in agent.seen) != no_new_privileges
    agent.close()


@world
def created_containers_have_their_agent(w):
    agent = Agent(w.scratch, {number_of("sethostname"): errno.ENOMEDIUM})
    notify(w, "sethostname", "read", "execve")
    with open(w.scratch / "out", "wb") as out:
        w.bundle.script("hostname other 2>&1").write()
        w.runtime.start("create", "-b", w.bundle.path, w.name, stdout=out).wait()
    try:
        agent.take()
        assert not agent.documents
        w.runtime("start", w.name)
        wait_for(lambda: "No medium" in (w.scratch / "out").read_text())
    finally:
        w.runtime("delete", "-f", w.name)
    agent.close()


@world
def the_waiting_may_be_killable(w):
    features = json.loads(w.runtime("features").out)["linux"]["seccomp"]
    if "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" not in features["supportedFlags"]:
        raise Skip("a kernel before 5.19")
    agent = Agent(w.scratch, {number_of("sethostname"): errno.ENOMEDIUM})
    notify(w, "sethostname", flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    assert "No medium" in w.run("hostname other", code=1).err
    agent.close()


@world
def an_agent_that_is_gone_is_no_hang(w):
    notify(w, "sethostname")
    w.fails("failed to connect with seccomp agent", "agent.sock", script="true")
    notify(w, "sethostname", path="@abstract")
    w.fails("failed to connect with seccomp agent", script="true")
    # One that dies later: the calls do not exist any more.
    agent = Agent(w.scratch)
    notify(w, "sethostname")
    agent._answer = lambda listener: None
    w.bundle.script("sleep 100").write()
    w.runtime("run", "-d", "-b", w.bundle.path, w.name)
    try:
        agent.close()
        for listener in agent.listeners:
            os.close(listener)
        pid = w.runtime.state(w.name)["pid"]
        assert open(f"/proc/{pid}/status").read().find("Seccomp:\t2") > 0
        assert "failed to connect with seccomp agent" in w.runtime(
            "exec", w.name, "/bin/true", code=255).err
    finally:
        w.runtime("delete", "-f", w.name)


@world
def calls_of_a_dead_agent_fail(w):
    agent = Agent(w.scratch)
    agent._answer = lambda listener: os.close(listener)
    notify(w, "sethostname")
    assert "not implemented" in w.run("sleep 0.2; hostname other", code=1).err
    agent.close()


@world
def what_no_agent_can_have(w):
    notify(w, "write")
    w.fails("SCMP_ACT_NOTIFY cannot be used for the write syscall")
    notify(w, "mkdir", defaultAction="SCMP_ACT_NOTIFY")
    w.fails("SCMP_ACT_NOTIFY cannot be used as default action")
    notify(w, "mkdir")
    w.bundle.linux["seccomp"]["listenerPath"] = ""
    w.fails("linux.seccomp.listenerPath: missing")
    # A path that no rule needs is none of our business.
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere",
                                 "listenerMetadata": "x"}
    assert w.run("echo fine").out == "fine\n"


@world
def an_agent_in_a_user_namespace(w):
    agent = Agent(w.scratch, {number_of("sethostname"): errno.ENOMEDIUM})
    notify(w, "sethostname")
    w.bundle.namespace("user")
    w.bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    w.bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    run("chown", "-R", "100000:100000", w.bundle.rootfs)
    for folder in (w.scratch, w.bundle.path):
        folder.chmod(0o755)
    assert "No medium" in w.run("hostname other", code=1).err
    agent.close()


@rootless
def an_agent_of_an_ordinary_user(w):
    """Who may not take descriptors of a process that hides itself: it shows itself, and has nothing
    of the host left then."""
    agent = Agent(w.user.home, {number_of("sethostname"): errno.ENOMEDIUM})
    agent.path.chmod(0o777)
    notify(w, "sethostname", path=agent.path)
    for no_new_privileges in (True, False):
        w.bundle.process["noNewPrivileges"] = no_new_privileges
        w.bundle.script("sleep 100").write()
        w.runtime("run", "-d", "-b", w.bundle.path, w.name)
        try:
            result = w.runtime("exec", w.name, "hostname", "other", code=1)
            assert "No medium" in result.err, result
            assert [document["state"]["status"] for document, _ in agent.documents] == [
                "creating", "running"]
            agent.documents.clear()
        finally:
            w.runtime("delete", "-f", w.name)
        assert "No medium" in w.run("hostname other", code=1).err
        agent.documents.clear()
        w.bundle.args("/missing")
        assert "/missing" in w.run(code=1).err
        agent.documents.clear()
    agent.close()


# ---------------------------------------------------------------- the cache of programs

@world
def agents_share_a_compiled_program(w):
    agent = Agent(w.scratch)
    for metadata in ("one", "two"):
        notify(w, "sethostname", metadata=metadata)
        w.run("hostname other", code=1)
        assert agent.take()[0]["metadata"] == metadata
    assert len(list(w.runtime.root.glob("filter,*"))) == 1
    # Other flags are another program.
    notify(w, "sethostname", flags=[])
    w.run("hostname other", code=1)
    assert len(list(w.runtime.root.glob("filter,*"))) == 2
    agent.close()


if __name__ == "__main__":
    main()
