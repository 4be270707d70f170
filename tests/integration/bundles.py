"""Bundles for cloche-runtime, and the program itself with a --root of its own.

The configuration is the one that `runc spec` (1.1.5) wrote, tests/bundles/runc-spec.json; a test
changes what it is about. The root is a directory tree with busybox.

Environment: CLOCHE_RUNTIME is the program under test (default: that of the build).
"""

import contextlib
import json
import os
import pathlib
import socket
import array
import subprocess

from harness import TOP, program, run, test

SPEC = TOP / "tests" / "bundles" / "runc-spec.json"
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def is_ours():
    """Whether the program under test is this tree's: peers say things in other words."""
    return os.path.basename(os.environ.get("CLOCHE_RUNTIME", "cloche-runtime")) == "cloche-runtime"


def cgroup_version():
    return 2 if (CGROUPS / "cgroup.controllers").exists() else 1


class Runtime:
    """cloche-runtime with a root folder below a scratch folder. With its log in a file the errors
    on standard error are bare texts."""

    def __init__(self, scratch):
        self.path = os.environ.get("CLOCHE_RUNTIME") or program("cloche-runtime")
        self.root = scratch / "state"
        self.log = scratch / "runtime.log"

    def __call__(self, *args, code=0, log=True, **options):
        to_log = ["--log", self.log] if log else []
        return run(self.path, "--root", self.root, *to_log, *args, code=code, **options)

    def start(self, *args, **options):
        """A process of it in the background."""
        return subprocess.Popen([self.path, "--root", self.root, *map(str, args)], **options)

    def state(self, name):
        return json.loads(self("state", name).out)

    def status(self, name):
        return self.state(name)["status"]

    def is_running(self, name):
        """For waiting: also when it is not there yet, or half made (`list` has it then already)."""
        result = self("state", name, code=None)
        return result.code == 0 and json.loads(result.out)["status"] == "running"

    def names(self):
        return self("list", "-q").out.split()

    @contextlib.contextmanager
    def container(self, bundle, name, start=True):
        """A created (and started) container that is deleted at the end, whatever happens."""
        self("create", "-b", bundle.path, name)
        try:
            if start:
                self("start", name)
            yield name
        finally:
            self("delete", "--force", name)


class Bundle:
    def __init__(self, path, images, unique, script=None):
        self.path = path
        self.rootfs = path / "rootfs"
        path.mkdir(parents=True)
        # By a program: file by file in Python takes seconds in the guest.
        subprocess.run(["cp", "-a", images.root(), self.rootfs], check=True)
        self.config = json.loads(SPEC.read_text())
        # Not inheritable, which is worth a warning for each.
        del self.config["process"]["capabilities"]["ambient"]
        self.config["process"]["terminal"] = False
        self.config["linux"]["cgroupsPath"] = f"/{unique}"
        if script is not None:
            self.script(script)
        self.write()

    def script(self, text):
        self.config["process"]["args"] = ["/bin/sh", "-c", text]
        return self.write()

    def args(self, *args):
        self.config["process"]["args"] = list(args)
        return self.write()

    def write(self):
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self

    def read(self):
        return json.loads((self.path / "config.json").read_text())

    @property
    def process(self):
        return self.config["process"]

    @property
    def linux(self):
        return self.config["linux"]

    @property
    def resources(self):
        return self.linux.setdefault("resources", {})

    def mount(self, destination, source, kind="bind", options=("bind",)):
        self.config["mounts"].append({"destination": destination, "type": kind,
                                      "source": str(source), "options": list(options)})
        return self.write()

    def namespace(self, kind, path=None, remove=False):
        spaces = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]
        if not remove:
            spaces.append({"type": kind, **({"path": str(path)} if path else {})})
        self.linux["namespaces"] = spaces
        return self.write()

    def all_capabilities(self, *names):
        self.process["capabilities"] = {kind: list(names) for kind in
                                        ("bounding", "effective", "permitted")}
        return self.write()


class World:
    """What nearly every test wants: a runtime, a bundle and a name."""

    def __init__(self, scratch, images, unique):
        self.runtime = Runtime(scratch)
        self.scratch, self.images, self.name = scratch, images, unique
        self.bundle = Bundle(scratch / "bundle", images, unique)

    def run(self, script=None, code=0, options=(), **more):
        if script is not None:
            self.bundle.script(script)
        self.bundle.write()
        return self.runtime("run", *options, "-b", self.bundle.path, self.name, code=code, **more)

    def fails(self, *words, script=None):
        """The run fails with an error that holds the words, and leaves nothing."""
        result = self.run(script, code=1)
        for word in words:
            assert word in result.err, result
        assert self.runtime.names() == []
        assert not list(CGROUPS.glob(f"*/{self.name}")) and not (CGROUPS / self.name).exists()
        return result


def world(function):
    """A test that gets a World."""
    def call(scratch, images, unique):
        function(World(scratch, images, unique))
    call.__name__ = function.__name__
    return test(call)


class ConsoleSocket:
    """What conmon and containerd offer as --console-socket: takes one terminal."""

    def __init__(self, folder):
        self.path = folder / "console.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(self.path))
        self.socket.listen(1)

    def take(self):
        self.socket.settimeout(60)
        connection, _ = self.socket.accept()
        connection.settimeout(60)
        fds = array.array("i")
        _, ancillary, _, _ = connection.recvmsg(256, socket.CMSG_LEN(fds.itemsize))
        connection.close()
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[:fds.itemsize])
        self.socket.close()
        return fds[0]


def cgroup_file(unique, controller, name):
    """A control file of the container whose cgroupsPath is /unique."""
    folder = CGROUPS / unique if cgroup_version() == 2 else CGROUPS / controller / unique
    return (folder / name).read_text().strip()
