"""podman, dockerd and containerd for the tests, with cloche-runtime as their runtime."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

from harness import Skip, program, run, wait_for

DAEMON_START = 120  # seconds

# podman asks for a million descriptors; the machine's hard limit may be lower, and raising it is
# what root without CAP_SYS_RESOURCE cannot do.
LIMITS = ["--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000"]


def value_of(pid, controller, name_v1, name_v2):
    """A cgroup file of a process's cgroup."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return pathlib.Path(f"/sys/fs/cgroup/{controller}{path}/{name_v1}").read_text().strip()
    path = pathlib.Path(f"/proc/{pid}/cgroup").read_text().split("::", 1)[1].strip()
    return pathlib.Path(f"/sys/fs/cgroup{path}/{name_v2}").read_text().strip()


class Podman:
    """With folders and a cgroup parent of its own."""

    def __init__(self, scratch, images, unique, cgroups="cgroupfs"):
        self.base = ["podman", "--root", scratch / "root", "--runroot", scratch / "run", "--tmpdir",
                     scratch / "tmp", "--cgroup-manager", cgroups, "--events-backend", "file",
                     "--storage-driver", "vfs", "--runtime", program("cloche-runtime")]
        self.unique = unique
        archive = scratch / "root.tar"
        run("tar", "-C", images.root(), "-cf", archive, ".")
        self("import", archive, "small:1")

    def __call__(self, *args, **options):
        return run(*self.base, *args, timeout=300, **options)

    def options(self, *more):
        return ["--network", "none", "--cgroup-parent", "/" + self.unique, *LIMITS, *more]

    def run(self, *words, options=(), **more):
        return self("run", "--rm", *self.options(*options), "small:1", *words, **more)

    def clean(self):
        """podman leaves the parent cgroup, and conmon its own in there until it has ended."""
        self("rm", "-af", code=None)
        wait_for(self._cgroups_are_gone)

    def _cgroups_are_gone(self):
        found = subprocess.run(["find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path",
                                f"*/{self.unique}*"], capture_output=True, text=True,
                               check=False).stdout.split()
        for folder in found:
            # Of a controller that is not mounted podman makes plain folders, with a file.
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, "tasks"))
            try:
                os.rmdir(folder)
            except OSError:
                return False
        return True


class Docker:
    """dockerd with folders and a cgroup parent of its own and without networks."""

    image = "small:1"

    def __init__(self, scratch, images, unique, options=()):
        if not shutil.which("dockerd"):
            raise Skip("dockerd is not installed")
        self.unique, self.scratch = unique, scratch
        self.socket = f"unix://{scratch}/docker.sock"
        self.log = scratch / "dockerd.log"
        self.base = ["/usr/bin/docker", "-H", self.socket]
        config = scratch / "daemon.json"
        config.write_text(json.dumps({"runtimes": {"cloche": {"path": str(program("cloche-runtime"))}}}))
        self.words = ["dockerd", "--config-file", config, "-H", self.socket, "--data-root",
                      scratch / "data", "--exec-root", scratch / "exec", "--pidfile",
                      scratch / "pid", "--bridge", "none", "--iptables=false", "--ip6tables=false",
                      "--storage-driver", "vfs", "--default-runtime", "cloche",
                      *(options or ["--cgroup-parent", f"/{unique}"])]
        self.tries = 3
        self._start()
        wait_for(self._answers, DAEMON_START * self.tries, "dockerd answers")
        self("load", "-i", images.docker_archive(self.image))

    def _start(self):
        self.tries -= 1
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(self.words, stdout=log, stderr=log)

    def _answers(self):
        if self.daemon.poll() is not None:
            text = self.log.read_text()
            # It gives its containerd a few seconds, which a loaded machine may not have.
            if "timeout waiting for containerd" not in text or not self.tries:
                raise AssertionError(text[-2000:])
            self._start()
        return run(*self.base, "version", code=None).code == 0

    def __call__(self, *args, **options):
        return run(*self.base, *args, timeout=300, **options)

    def run(self, *words, options=(), **more):
        return self("run", "--rm", "--network", "none", *options, self.image, *words, **more)

    def inspect(self, name, field):
        return self("inspect", "--format", "{{%s}}" % field, name).out.strip()

    def pid(self, name):
        return int(self.inspect(name, ".State.Pid"))

    @contextlib.contextmanager
    def background(self, name, *words, options=()):
        self("run", "-d", "--name", name, "--network", "none", *options, self.image, *words)
        try:
            yield name
        finally:
            self("rm", "-f", name)

    def close(self):
        ids = self("ps", "-aq", code=None).out.split()
        if ids:
            self("rm", "-f", *ids, code=None)
        self.daemon.terminate()
        self.daemon.wait(180)
        # What dockerd leaves; its data it binds where the mount is not a shared one.
        for name in ("exec/netns/default", "data"):
            run("umount", self.scratch / name, code=None)
        found = subprocess.run(["find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path",
                                f"*/{self.unique}*"], capture_output=True, text=True,
                               check=False).stdout.split()
        for folder in found:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _protobuf(number, value):
    """A field of bytes: protobuf's encoding, lengths below 16 KiB."""
    assert len(value) < 1 << 14
    length = [len(value)] if len(value) < 128 else [len(value) & 127 | 128, len(value) >> 7]
    return bytes([number << 3 | 2, *length]) + value


_CONTAINERD_CONFIG = '''version = 2
root = "{scratch}/root"
state = "{scratch}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{scratch}/c.sock"
[ttrpc]
  address = "{scratch}/t.sock"
'''


class Containerd:
    """With folders and a cgroup parent of its own."""

    image = "docker.io/library/small:1"

    def __init__(self, scratch, images, unique):
        if not shutil.which("containerd"):
            raise Skip("containerd is not installed")
        self.unique, self.scratch, self.group = unique, scratch, f"/{unique}/c"
        self.base = ["ctr", "--address", scratch / "c.sock", "--namespace", unique]
        self.shims = pathlib.Path("/run/containerd")  # the sockets of the shims have no other place
        self.shims.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", self.shims)
        (scratch / "config.toml").write_text(_CONTAINERD_CONFIG.format(scratch=scratch))
        with open(scratch / "log", "wb") as log:
            self.daemon = subprocess.Popen(["containerd", "-c", scratch / "config.toml"], stdout=log,
                                           stderr=log)
        wait_for(self._answers, DAEMON_START, "containerd answers")
        self("image", "import", "--snapshotter", "native", images.docker_archive("small:1"))

    def _answers(self):
        if self.daemon.poll() is not None:
            raise AssertionError((self.scratch / "log").read_text()[-2000:])
        return run(*self.base, "version", code=None).code == 0

    def __call__(self, *args, **options):
        return run(*self.base, *args, timeout=300, **options)

    def options(self, *more):
        return ["--snapshotter", "native", "--runc-binary", program("cloche-runtime"), "--cgroup",
                self.group, *more]

    def run(self, name, *words, options=(), **more):
        return self("run", "--rm", *self.options(*options), self.image, name, *words, **more)

    def status(self, name):
        for line in self("tasks", "list").lines[1:]:
            if line.split()[0] == name:
                return line.split()[2]
        return None

    def update(self, name, resources):
        """What ctr has no command for and Kubernetes uses: Tasks.Update of containerd's API, one
        gRPC message by curl. Returns what it answered."""
        kind = b"types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
        value = _protobuf(1, kind) + _protobuf(2, json.dumps(resources).encode())
        message = _protobuf(1, name.encode()) + _protobuf(2, value)
        request = self.scratch / "request"
        request.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        headers = ["content-type: application/grpc", "te: trailers",
                   f"containerd-namespace: {self.unique}"]
        return run("curl", "-sS", "--max-time", 60, "--http2-prior-knowledge", "--unix-socket",
                   self.scratch / "c.sock", "-o", "/dev/null", "-D", "-",
                   *(word for header in headers for word in ("-H", header)), "--data-binary",
                   f"@{request}", "http://localhost/containerd.services.tasks.v1.Tasks/Update").out

    @contextlib.contextmanager
    def background(self, name, *words, options=()):
        self("run", "-d", *self.options(*options), self.image, name, *words)
        try:
            yield name
        finally:
            self("tasks", "rm", "-f", name, code=None)
            self("containers", "rm", name)

    def close(self):
        self.daemon.terminate()
        self.daemon.wait(180)
        run("umount", "-l", self.shims)
        found = subprocess.run(["find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path",
                                f"*/{self.unique}*"], capture_output=True, text=True,
                               check=False).stdout.split()
        for folder in found:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
