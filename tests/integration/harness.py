"""Integration tests of Cloche: registration, TAP, private instances, and the check for leftovers.

A test file looks like this:

    from harness import test, main, Skip, wait_for

    @test
    def run_prints_its_output(instance, images):
        instance.cloche("load", "-i", images.small("shop:1"))
        result = instance.cloche("run", "--rm", "shop:1", "echo", "hello")
        assert result.out == "hello\n"

    if __name__ == "__main__":
        main()

Arguments of a test function are chosen by name:

    instance   a private, empty Instance (no daemon runs yet); removed after the test
    other      a second one
    images     maker of images and root file systems (images.py), shared by the tests of a file
    scratch    an empty pathlib.Path on a real disk; removed after the test
    unique     a word that occurs nowhere else on the machine: for names of containers and cgroups
               of tests that use no instance. Leftovers that carry it are found

Everything runs in mount, network and PID namespaces of its own, so that nothing can reach the
machine and that whatever is left behind can be told for certain. After every test (in the order in
which it happens): the instances are removed by `cloche system remove --force`, which must succeed,
then the mounts, links, nftables tables, network namespaces, cgroups, processes and files are
compared with those from before. A leftover fails the test.

Environment: CLOCHE_BUILD (the build folder; default: build/ at the top of the tree),
CLOCHE_TEST_KEEP=1 keeps scratch folders of failed tests, CLOCHE_TEST_NAMESPACES=0 runs in the
machine's own namespaces (to debug). Arguments of a test file: names (or parts of names) of the
tests to run, and -v to see every command.
"""

import ctypes
import errno
import inspect
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CLOCHE_BUILD", TOP / "build")).resolve()
PROGRAMS = BUILD / "src" / "programs"
SCRATCH_BASE = pathlib.Path(os.environ.get("CLOCHE_TEST_TMP", "/var/tmp"))
SCRATCH_PREFIX = "cloche-test-"
REMOVE_TRIES = 100
# Seconds. Nothing that works waits for them: they are long enough for a machine that is loaded or slow.
COMMAND_TIMEOUT = 180.0
PATIENCE = 60.0

verbose = False


class Skip(Exception):
    """Raised by a test that cannot run here. tests/permitted-skips.txt must name it; contrib/check
    also looks at the stage."""


class CommandFailed(AssertionError):
    """A command ended otherwise than the test expected."""


def note(text):
    """A diagnostic line in the TAP stream."""
    for line in str(text).splitlines() or [""]:
        print("# " + line, flush=True)


# ---------------------------------------------------------------- commands

class Result:
    """What a finished command left: exit code (negative: killed by that signal), output, errors."""

    def __init__(self, argv, code, out, err, seconds):
        self.argv = argv
        self.code = code
        self.out = out
        self.err = err
        self.seconds = seconds

    @property
    def lines(self):
        return self.out.splitlines()

    def __repr__(self):
        words = " ".join(str(word) for word in self.argv)
        return (f"$ {words}\nexit code {self.code} after {self.seconds:.1f} s\n"
                f"--- stdout\n{_shorten(self.out)}\n--- stderr\n{_shorten(self.err)}")


def _shorten(data, limit=4000):
    text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
    return text if len(text) <= limit else text[:limit] + f"\n... ({len(text)} characters)"


def _await_end(process, timeout):
    """To the moment; subprocess itself looks again and again, and is up to 50 ms late."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise subprocess.TimeoutExpired(process.args, timeout)
    finally:
        os.close(pidfd)
    process.wait()


def run(*argv, code=0, input=None, timeout=COMMAND_TIMEOUT, env=None, cwd=None, text=True,
        stdin=None):
    """Runs a command to its end. code: the exit code that must come (None: any). env is added to
    the environment. input: text (or bytes with text=False); without it stdin is /dev/null."""
    argv = [str(word) for word in argv]
    if verbose:
        note("$ " + " ".join(argv))
    started = time.monotonic()
    data = input.encode() if isinstance(input, str) else input
    source = subprocess.PIPE if data is not None else stdin or subprocess.DEVNULL
    # Output goes to files: a daemon that a command starts must not be able to hold a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(argv, stdin=source, stdout=out, stderr=err, cwd=cwd,
                                   env={**os.environ, **(env or {})})
        try:
            if data is None:
                _await_end(process, timeout)
            else:
                process.communicate(data, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            out.seek(0), err.seek(0)
            raise CommandFailed(f"no end after {timeout} s: " + repr(
                Result(argv, None, out.read(), err.read(), timeout))) from None
        out.seek(0), err.seek(0)
        stdout, stderr = out.read(), err.read()
    if text:
        stdout, stderr = (data.decode(errors="surrogateescape") for data in (stdout, stderr))
    result = Result(argv, process.returncode, stdout, stderr, time.monotonic() - started)
    if code is not None and result.code != code:
        raise CommandFailed(f"expected exit code {code}: {result!r}")
    return result


def program(name):
    """Path of a program of the build under test."""
    path = PROGRAMS / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: not built (CLOCHE_BUILD names the build folder)")
    return str(path)


def wait_for(condition, timeout=PATIENCE, what=None, interval=0.02):
    """Calls condition until it gives something true, and returns that."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout} s: "
                                 f"{what or inspect.getsource(condition).strip()}")
        time.sleep(interval)


def settled(measure, samples=10, interval=0.05):
    """What measure gives once it has given the same for half a second: for what others change, too, but
    do not keep changing."""
    values = []

    def same():
        values.append(measure())
        return len(values) >= samples and len(set(values[-samples:])) == 1
    wait_for(same, interval=interval, what="it stays the same")
    return values[-1]


def http_get(host, port, path="/", timeout=PATIENCE, retry_for=PATIENCE):
    """Body of a page, as text. Retries while the connection is refused: servers need a moment."""
    import urllib.request
    deadline = time.monotonic() + retry_for
    host = f"[{host}]" if ":" in host else host
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with opener.open(f"http://{host}:{port}{path}", timeout=timeout) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


# ---------------------------------------------------------------- instances

class Instance:
    """A private instance of Cloche of the build under test. Use it as the fixture `instance`."""

    def __init__(self, name):
        self.name = name
        self.run_folder = pathlib.Path(f"/run/cloche-{name}")
        self.root = pathlib.Path(f"/var/lib/cloche-{name}")
        self.socket = self.run_folder / "cloche.sock"
        self.bridge = f"clo-{name}"
        self.nft_table = "cloche_" + name
        self.cgroup_parent = f"cloche-{name}"
        self.env = {"CLOCHE_INSTANCE": name, "CLOCHE_LIBEXEC": str(PROGRAMS)}

    def cloche(self, *args, env=None, **options):
        """Runs the CLI to its end; see run() for the options."""
        return run(program("cloche"), *args, env={**self.env, **(env or {})}, **options)

    def start(self, *args, env=None, **options):
        """Starts the CLI and returns the subprocess.Popen (stdin, stdout, stderr are pipes unless
        given)."""
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        argv = [program("cloche"), *(str(word) for word in args)]
        if verbose:
            note("$ " + " ".join(argv) + " &")
        return subprocess.Popen(argv, env={**os.environ, **self.env, **(env or {})}, **options)

    def terminal(self, *args, env=None):
        """Starts the CLI on a terminal of its own (terminal.py)."""
        from terminal import Terminal
        return Terminal([program("cloche"), *(str(word) for word in args)],
                        {**os.environ, **self.env, **(env or {})})

    def daemon_pid(self):
        """Process id of the running daemon, or None."""
        for pid in self.processes():
            if _command_name(pid) == "cloched":
                return pid
        return None

    def processes(self):
        """Ids of the processes whose environment names this instance."""
        wanted = f"CLOCHE_INSTANCE={self.name}".encode()
        return [pid for pid in _pids() if wanted in _read(f"/proc/{pid}/environ").split(b"\0")]

    def start_daemon(self):
        """Makes sure that a daemon runs; returns its process id."""
        self.cloche("version")
        return wait_for(self.daemon_pid, what="the daemon starts")

    def kill_daemon(self, number=signal.SIGKILL):
        """Kills the daemon and waits until it is gone. Returns the process id it had."""
        pid = self.daemon_pid()
        assert pid, "there is no daemon to kill"
        os.kill(pid, number)
        # Its socket is closed when the last of its threads has gone.
        wait_for(lambda: not _alive(pid) and _threads(pid) <= 1, what="the daemon is gone")
        return pid

    def forget_run(self):
        """What a restart of the machine does to the run folder."""
        for name in ("containers", "runtime"):
            if os.path.ismount(self.run_folder / name):
                run("umount", "--lazy", self.run_folder / name)
        run("rm", "-rf", self.run_folder)

    def remove(self):
        """Takes the instance off the machine. Returns the complaints."""
        if not self.run_folder.exists() and not self.root.exists() and not self.processes():
            return []
        try:
            result = self.cloche("system", "remove", "--force", code=None)
            return [] if result.code == 0 else [f"cloche system remove --force: {result!r}"]
        except (CommandFailed, FileNotFoundError) as failure:
            return [f"cloche system remove --force: {failure}"]


def _pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def _command_name(pid):
    return os.path.basename(_read(f"/proc/{pid}/cmdline").split(b"\0")[0].decode(errors="replace"))


def _threads(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _alive(pid):
    stat = _read(f"/proc/{pid}/stat").decode(errors="replace")
    return bool(stat) and stat.rpartition(")")[2].split()[0] not in "ZX"


class Outside:
    """Another machine: a network namespace joined to ours by a veth pair. A client in it reaches us
    at .here, as a machine beside ours would. Use as a context manager."""

    here, there = "198.51.100.1", "198.51.100.2"

    def __enter__(self):
        self.keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self):
        mine = os.stat("/proc/self/ns/net").st_ino
        wait_for(lambda: os.stat(f"/proc/{self.keeper.pid}/ns/net").st_ino != mine,
                 what="the other network namespace exists")
        run("ip", "link", "add", "outside0", "type", "veth", "peer", "name", "eth0",
            "netns", self.keeper.pid)
        run("ip", "addr", "add", f"{self.here}/24", "dev", "outside0")
        run("ip", "link", "set", "outside0", "up")
        self.run("ip", "addr", "add", f"{self.there}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "route", "add", "default", "via", self.here)

    def run(self, *argv, **options):
        return run("nsenter", "--net", "--target", self.keeper.pid, *argv, **options)

    def http_get(self, port, path="/", host=None, **options):
        """Exit code must be 0; returns the body. Retries while the connection is refused, as above."""
        return self.run(sys.executable, "-c", _FETCH, f"http://{host or self.here}:{port}{path}",
                        **options).out

    def __exit__(self, *_):
        self.keeper.kill()
        self.keeper.wait()
        # A connection that nobody ends keeps the namespace, and so the pair, for minutes.
        run("ip", "link", "delete", "outside0", code=None)
        # Not by /sys/class/net: /sys is the machine's and shows its network namespace.
        wait_for(lambda: "outside0" not in dict(map(reversed, socket.if_nameindex())),
                 what="the veth pair is gone")


_FETCH = """
import sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
deadline = time.monotonic() + 60
while True:
    try:
        sys.stdout.write(opener.open(sys.argv[1], timeout=60).read().decode())
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
"""


# ---------------------------------------------------------------- fixtures and the run

_tests = []


def test(function):
    """Registers a test."""
    _tests.append(function)
    return function


def only(*functions):
    """Leaves of the tests that are registered only these, in this order: for a file that repeats those of others."""
    missing = [function.__name__ for function in functions if function not in _tests]
    assert not missing, f"no tests: {missing}"
    _tests[:] = functions


def _random_word():
    # <= 8 characters of [a-z0-9] (an instance name), improbable in anything that is not ours.
    return "t" + "".join(random.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(6))


class _Fixtures:
    """What one test was given, and how to take it back."""

    def __init__(self, shared):
        self.shared = shared
        self.words = []
        self.instances = []
        self.folder = None

    def give(self, name):
        if name in ("instance", "other"):
            self.instances.append(Instance(self._word()))
            return self.instances[-1]
        if name == "images":
            return self.shared.images()
        if name == "scratch":
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=SCRATCH_BASE))
            return self.folder
        if name == "unique":
            return self._word()
        raise TypeError(f"there is no fixture {name!r}")

    def _word(self):
        self.words.append(_random_word())
        return self.words[-1]

    def take_back(self, failed):
        complaints = []
        for instance in self.instances:
            log = instance.run_folder / "cloched.log"
            text = log.read_text(errors="replace") if log.exists() else ""
            complaints += instance.remove()
            if (failed or complaints) and text:
                note(f"--- {log}\n{_shorten(text, 8000)}")
        if self.folder:
            if failed and os.environ.get("CLOCHE_TEST_KEEP"):
                note(f"kept: {self.folder}")
            else:
                complaints += remove_tree(self.folder)
        return complaints


class _Shared:
    """Fixtures that live as long as the test file."""

    def __init__(self):
        self._images = None
        self.folder = None

    def images(self):
        if not self._images:
            from images import Images
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=SCRATCH_BASE))
            self._images = Images(self.folder)
        return self._images

    def close(self):
        return remove_tree(self.folder) if self.folder else []


def remove_tree(path):
    mounts = [line.split()[4] for line in open("/proc/self/mountinfo")
              if (line.split()[4] + "/").startswith(str(path) + "/")]
    for mount in reversed(mounts):
        run("umount", "-l", mount, code=None)
    # A process that is being killed may still make files, or hold what is being unmounted.
    for tries in range(REMOVE_TRIES, -1, -1):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            break
        except OSError as error:
            if not tries or error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                raise
            time.sleep(0.1)
    return [f"mounted in the test's folder: {mount}" for mount in mounts]


def _permitted_skips():
    lines = (TOP / "tests" / "permitted-skips.txt").read_text().splitlines()
    return {line.split("#")[0].split()[1] for line in lines if line.split("#")[0].strip()}


def _run_one(function, shared):
    """Returns (verdict, reason): verdict is "ok", "skip" or "failed"."""
    from leftovers import Machine
    fixtures = _Fixtures(shared)
    if "images" in inspect.signature(function).parameters:
        shared.images()  # before the snapshot: it outlives the test
    before = Machine.snapshot()
    verdict, reason = "ok", ""
    try:
        function(**{name: fixtures.give(name) for name in inspect.signature(function).parameters})
    except Skip as skip:
        verdict, reason = "skip", str(skip)
    except Exception:
        verdict, reason = "failed", traceback.format_exc()
    complaints = fixtures.take_back(verdict == "failed")
    complaints += before.leftovers(fixtures.words)
    if complaints:
        text = "left behind:\n" + "\n".join("  " + line for line in complaints)
        verdict, reason = "failed", f"{reason}\n{text}" if verdict == "failed" else text
    return verdict, reason


def _run_all(chosen):
    shared = _Shared()
    file = pathlib.Path(sys.argv[0]).stem.removeprefix("test_")
    permitted = _permitted_skips()
    failures = 0
    print("TAP version 13", flush=True)
    print(f"1..{len(chosen)}", flush=True)
    for number, function in enumerate(chosen, 1):
        name = function.__name__
        started = time.monotonic()
        verdict, reason = _run_one(function, shared)
        if verdict == "skip" and f"{file}.{name}" not in permitted:
            verdict, reason = "failed", f"{file}.{name} may not be skipped: {reason}"
        if verdict == "failed":
            failures += 1
            note(reason)
        mark = {"ok": "ok", "skip": "ok", "failed": "not ok"}[verdict]
        tail = f" # SKIP {reason}" if verdict == "skip" else ""
        print(f"{mark} {number} - {name}{tail}", flush=True)
        if verbose:
            note(f"{time.monotonic() - started:.2f} s")
    for complaint in shared.close():
        note(complaint)
    return 1 if failures else 0


def main():
    """Runs the registered tests of a file; does not return."""
    global verbose
    arguments = sys.argv[1:]
    if "-v" in arguments:
        verbose = True
        arguments.remove("-v")
    if os.geteuid() != 0:
        print("1..0\nBail out! integration tests need root", flush=True)
        sys.exit(1)
    chosen = [function for function in _tests
              if not arguments or any(word in function.__name__ for word in arguments)]
    if os.environ.get("CLOCHE_TEST_NAMESPACES") != "0":
        enter_namespaces()
    sys.exit(_run_all(chosen))


# ---------------------------------------------------------------- namespaces

_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 2, 4, 8, 0x4000, 1 << 19
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source, target, kind, flags):
    _check(_libc.mount(source, target, kind, ctypes.c_ulong(flags), None),
           f"mount on {target.decode()}")


def enter_namespaces():
    """Goes on in a child with mount, network and PID namespaces of its own. The caller's process
    waits for it; between them stands the init of the PID namespace, which reaps orphans."""
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET), "unshare")
    init = os.fork()
    if init:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: os.kill(init, signal.SIGKILL))
        os._exit(_exit_code(_wait(init)))
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _mount(None, b"/", None, _MS_REC | _MS_SLAVE)
    _mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    worker = os.fork()
    if worker:
        while True:
            pid, status = os.wait()
            if pid == worker:
                os._exit(_exit_code(status))  # the kernel kills whatever is left in the namespace
    run("ip", "link", "set", "lo", "up")


def _wait(pid):
    while True:
        try:
            return os.waitpid(pid, 0)[1]
        except InterruptedError:
            continue


def _exit_code(status):
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
