"""podman of an ordinary user, with cloche-runtime as its OCI runtime: podman is root of a user
namespace then, and so is the runtime. buildah, too."""

import os

from harness import main, run, test, wait_for
from terminal import Terminal
from users import User, UserRuntime

LIMITS = ["--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000"]


class Engine:
    def __init__(self, user, images, unique):
        self.user, self.unique = user, unique
        self.runtime = UserRuntime(user)
        home = user.home
        self.base = ["podman", "--root", home / "root", "--runroot", user.runtime_folder / "run",
                     "--tmpdir", user.runtime_folder / "tmp", "--cgroup-manager", "cgroupfs",
                     "--events-backend", "file", "--storage-driver", "vfs", "--runtime",
                     self.runtime.path]
        archive = home.parent / "root.tar"
        run("tar", "-C", images.root(), "-cf", archive, ".")
        self("import", archive, "small:1")

    def __call__(self, *args, **options):
        return self.user.run(*self.base, *args, timeout=400, **options)

    def options(self, *more):
        return ["--network", "none", *LIMITS, *more]

    def run(self, *words, options=(), **more):
        return self("run", "--rm", *self.options(*options), "small:1", *words, **more)

    def terminal(self, *words):
        return Terminal(self.user.argv(*self.base, *words), dict(os.environ))

    def clean(self):
        self("rm", "-af", code=None)
        self("pod", "rm", "-af", code=None)
        self("system", "migrate", code=None)  # ends the process that holds podman's namespaces
        self("unshare", "rm", "-rf", self.user.home / "root", code=None)
        self("system", "migrate", code=None)


def podman(function):
    def call(scratch, images, unique):
        with User(scratch) as user:
            engine = Engine(user, images, unique)
            try:
                function(engine)
            finally:
                engine.clean()
    call.__name__ = function.__name__
    return test(call)


@podman
def run_and_exit_codes(engine):
    out = engine.run("sh", "-c", "id -u; cat /proc/self/uid_map; echo >/dev/null; exit 3", code=3)
    assert out.out.split() == ["0", "0", str(engine.user.uid), "1", "1", str(engine.user.subuid),
                               str(engine.user.count)], out
    assert "not found" in engine.run("nothing", code=127).err
    engine.run("/etc", code=126)
    out = engine.run("sh", "-c", "id -u; id -G; pwd; echo $A; touch /x 2>&1; "
                     "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; wc -c </proc/keys; "
                     "hostname", options=["--user", "12:34", "--group-add", "77", "--workdir",
                                          "/bin", "-e", "A=b", "--read-only", "--cap-drop", "ALL",
                                          "--security-opt", "no-new-privileges", "--tmpfs", "/t",
                                          "--hostname", "named"]).lines
    assert out[0] == "12" and out[1].split() == ["34", "77"] and out[2:4] == ["/bin", "b"], out
    assert "Read-only" in out[4] and out[5].split()[1] == "1" and out[6].split()[1] == "2", out
    assert out[7:] == ["0", "named"], out


@podman
def a_life_in_the_background(engine):
    engine("run", "-d", "--name", "one", *engine.options(), "small:1", "sh", "-c",
           "trap 'exit 4' TERM; echo started; while :; do sleep 0.1; done")
    wait_for(lambda: engine("logs", "one").out == "started\n")
    assert engine("ps", "--format", "{{.Names}}").out == "one\n"
    assert engine("exec", "one", "sh", "-c", "echo inside; exit 3", code=3).out == "inside\n"
    assert engine("exec", "-u", "12:34", "one", "id", "-u").out == "12\n"
    assert engine("exec", "-i", "one", "cat", input="through\n").out == "through\n"
    assert "sh" in engine("top", "one", "comm").out
    engine("kill", "-s", "TERM", "one")
    assert engine("wait", "one").out == "4\n"
    engine("start", "one")
    engine("restart", "-t", "0", "one")
    assert engine("exec", "one", "echo", "again").out == "again\n"
    engine("stop", "-t", "5", "one")
    engine("rm", "one")


@podman
def a_terminal(engine):
    with engine.terminal("run", "--rm", "-it", *engine.options(), "small:1", "sh", "-c",
                         "test -t 0 && echo is-a-terminal; read word; echo got $word; exit 5") as t:
        t.expect("is-a-terminal", timeout=60)
        t.send("xyz\n")
        t.expect("got xyz")
        assert t.wait(60) == 5
    engine("run", "-d", "--name", "one", *engine.options(), "small:1", "sleep", "1000")
    with engine.terminal("exec", "-it", "one", "sh", "-c", "tty; read word; exit 6") as t:
        t.expect("/dev/pts/", timeout=60)
        t.send("xyz\n")
        assert t.wait(60) == 6


@podman
def the_users_own_id_inside(engine):
    """--userns keep-id: a user namespace in podman's."""
    out = engine.run("sh", "-c", "id -u; cat /proc/self/uid_map; echo >/dev/null; touch /tmp/x",
                     options=["--userns", "keep-id"]).out.split()
    assert out[0] == str(engine.user.uid), out
    maps = [out[at:at + 3] for at in range(1, len(out), 3)]
    assert [str(engine.user.uid), "0", "1"] in maps, out
    engine("run", "-d", "--name", "one", "--userns", "keep-id", *engine.options(), "small:1",
           "sleep", "1000")
    assert engine("exec", "one", "id", "-u").out == f"{engine.user.uid}\n"
    assert engine("exec", "-u", "0", "one", "id", "-u").out == "0\n"


@podman
def volumes_devices_and_privileges(engine):
    folder = engine.user.home / "data"
    folder.mkdir(mode=0o700)
    engine.user.own(folder)
    out = engine.run("sh", "-c", "echo written >/data/file; touch /ro/x 2>&1; "
                     "test -c /dev/nought && echo device; df -m /dev/shm | tail -1",
                     options=["-v", f"{folder}:/data", "-v", "/usr:/ro:ro", "--device",
                              "/dev/zero:/dev/nought", "--shm-size", "3m"]).lines
    assert "Read-only" in out[0] and out[1] == "device" and out[2].split()[1] == "3", out
    assert os.stat(folder / "file").st_uid == engine.user.uid
    engine("volume", "create", "box")
    engine.run("sh", "-c", "echo kept >/box/file", options=["-v", "box:/box"])
    assert engine.run("cat", "/box/file", options=["-v", "box:/box"]).out == "kept\n"
    out = engine.run("sh", "-c", "mount -t tmpfs x /etc && echo mounted; ls /sys >/dev/null",
                     options=["--privileged"]).out
    assert "mounted" in out, out


@podman
def the_hosts_namespaces(engine):
    out = engine("run", "--rm", "--network", "host", "--pid", "host", *LIMITS,
                 "small:1", "sh", "-c", "for n in net pid; do readlink /proc/self/ns/$n; done; "
                 "ls /sys/class/net | head -1").lines
    assert out[:2] == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid")], out


@podman
def a_pod_shares_namespaces(engine):
    engine("run", "-d", "--name", "one", *engine.options(), "small:1", "sleep", "100")
    out = engine("run", "--rm", "--network", "container:one", "--pid", "container:one", "--ipc",
                 "container:one", *LIMITS, "small:1", "ps").out
    assert "sleep 100" in out, out
    engine("pod", "create", "--name", "group", "--infra=false")
    for name in ("first", "second"):
        engine("run", "-d", "--name", name, "--pod", "group", "--network", "none", *LIMITS,
               "small:1", "sleep", "1000")
    states = engine("ps", "--filter", "pod=group", "--format", "{{.State}}").out.split("\n")
    assert len(states) == 3 and all(state.startswith("Up") for state in states[:2]), states
    engine("pod", "kill", "group")
    engine("pod", "rm", "-f", "group")


@podman
def buildah_runs_steps_with_it(engine):
    (engine.user.home / "Containerfile").write_text(
        "FROM small:1\nRUN id -u >/who && cat /proc/self/uid_map >>/who\n")
    engine("build", "--network", "none", "--isolation", "oci", *LIMITS, "-t", "built:1",
           engine.user.home)
    out = engine("run", "--rm", *engine.options(), "built:1", "cat", "/who").out
    assert out.split()[:4] == ["0", "0", str(engine.user.uid), "1"], out


if __name__ == "__main__":
    main()
