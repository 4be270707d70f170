"""What engines do beyond single containers, with cloche-runtime as their runtime: dockerd that is
restarted under running containers, docker-compose, dockerd of an ordinary user, podman's pods with
a container of their own and `kube play`, builds by podman and buildah."""

import json
import os
import shutil
import signal
import subprocess

from engines import LIMITS, Docker, Podman
from harness import Skip, main, program, run, test, wait_for
from users import User

UP = "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done"


def needs(name):
    if not shutil.which(name):
        raise Skip(f"{name} is not installed")


# ---------------------------------------------------------------- docker

@test
def containers_outlive_dockerd(scratch, images, unique):
    engine = Docker(scratch, images, unique, ["--live-restore", "--cgroup-parent", f"/{unique}"])
    try:
        with engine.background("one", "sh", "-c", UP) as name:
            pid = engine.pid(name)
            engine.daemon.send_signal(signal.SIGKILL)
            engine.daemon.wait(60)
            assert os.path.exists(f"/proc/{pid}")
            (scratch / "pid").unlink(missing_ok=True)
            engine.tries = 3
            engine._start()
            wait_for(engine._answers, 180, "dockerd answers again")
            assert engine.pid(name) == pid and engine.inspect(name, ".State.Running") == "true"
            assert engine("exec", name, "echo", "inside").out == "inside\n"
            engine("pause", name)
            engine("unpause", name)
            engine("kill", "-s", "TERM", name)
            assert engine("wait", name).out == "4\n"
            assert engine("logs", name).out == "up\n"
    finally:
        engine.close()
        run("umount", scratch / "data", code=None)  # of the one that was killed


COMPOSE = """
version: "2.4"
services:
  one:
    image: {image}
    network_mode: none
    command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    mem_limit: 64m
    read_only: true
    tmpfs: [/t]
    init: true
    healthcheck: {{test: ["CMD", "true"], interval: 1s}}
  two:
    image: {image}
    network_mode: "service:one"
    pid: "service:one"
    depends_on: {{one: {{condition: service_healthy}}}}
    command: sleep 1000
    cap_drop: [ALL]
"""


@test
def docker_compose(scratch, images, unique):
    needs("docker-compose")
    engine = Docker(scratch, images, unique)
    folder = scratch / "project"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(COMPOSE.format(image=engine.image))
    environment = {**os.environ, "DOCKER_HOST": engine.socket, "COMPOSE_PROJECT_NAME": unique}

    def compose(*words, code=0):
        return run("docker-compose", *words, cwd=folder, env=environment, timeout=400, code=code)

    try:
        compose("up", "-d")
        out = compose("exec", "-T", "two", "ps").out
        assert "sleep 1000" in out and "docker-init" in out, out
        assert compose("run", "--rm", "one", "echo", "ran").out.strip().endswith("ran")
        compose("pause")
        compose("unpause")
        compose("down", "-t", "1")
        assert engine("ps", "-aq").out == ""
    finally:
        engine.close()


class RootlessDocker(Docker):
    """As dockerd-rootless.sh starts it, without a network."""

    def __init__(self, scratch, images, unique, user):
        self.user = user
        runtime = scratch / "cloche-runtime"
        shutil.copy(program("cloche-runtime"), runtime)
        super().__init__(scratch, images, unique, ["--exec-opt", "native.cgroupdriver=cgroupfs"])

    def _start(self):
        self.tries -= 1
        home, folder = self.user.home, self.user.runtime_folder
        self.socket = f"unix://{folder}/docker.sock"
        self.base = ["/usr/bin/docker", "-H", self.socket]
        (home / "daemon.json").write_text(json.dumps(
            {"runtimes": {"cloche": {"path": str(self.scratch / "cloche-runtime")}}}))
        self.words = [
            "rootlesskit", "--state-dir", folder / "kit", "--net=host", "--copy-up=/etc",
            "--copy-up=/run", "--propagation=rslave", "sh", "-c",
            'rm -f /run/docker /run/containerd /run/xtables.lock; exec "$@"', "sh", "dockerd", "--rootless", "--config-file",
            home / "daemon.json", "-H", self.socket, "--data-root", home / "data", "--exec-root",
            folder / "exec", "--pidfile", folder / "pid", "--bridge", "none", "--iptables=false",
            "--ip6tables=false", "--storage-driver", "vfs", "--default-runtime", "cloche"]
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(self.user.argv(*self.words), stdout=log, stderr=log,
                                           cwd=home)

    def close(self):
        ids = self("ps", "-aq", code=None).out.split()
        if ids:
            self("rm", "-f", *ids, code=None)
        self.daemon.terminate()
        self.daemon.wait(60)


@test
def dockerd_of_an_ordinary_user(scratch, images, unique):
    needs("rootlesskit")
    needs("dockerd")
    with User(scratch) as user:
        engine = RootlessDocker(scratch, images, unique, user)
        try:
            out = engine.run("sh", "-c", "id -u; cat /proc/self/uid_map; exit 3", code=3).out
            assert out.split()[:4] == ["0", "0", str(user.uid), "1"], out
            assert "not found" in engine.run("nothing", code=127).err
            with engine.background("one", "sh", "-c", UP, options=["--user", "12", "--read-only",
                                                                    "--tmpfs", "/t"]) as name:
                assert engine("exec", name, "id", "-u").out == "12\n"
                engine("exec", name, "sh", "-c", "exit 9", code=9)
                engine("restart", "-t", "0", name)
                engine("kill", "-s", "TERM", name)
                assert engine("wait", name).out == "4\n"
        finally:
            engine.close()


# ---------------------------------------------------------------- podman

def podman(function):
    def call(scratch, images, unique):
        # podman asks for a million descriptors for the pod's own container too.
        conf = scratch / "containers.conf"
        conf.write_text('[containers]\ndefault_ulimits = ["nofile=2048:2048", "nproc=1000:1000"]\n')
        before = os.environ.get("CONTAINERS_CONF")
        os.environ["CONTAINERS_CONF"] = str(conf)
        engine = Podman(scratch, images, unique)
        try:
            function(engine, scratch)
        finally:
            engine("pod", "rm", "-af", "-t", "0", code=None)
            engine.clean()
            del os.environ["CONTAINERS_CONF"]
            if before is not None:
                os.environ["CONTAINERS_CONF"] = before
    call.__name__ = function.__name__
    return test(call)


@podman
def a_pod_with_a_container_of_its_own(engine, scratch):
    if not os.path.exists("/usr/libexec/podman/catatonit"):
        raise Skip("catatonit is not installed")
    engine("pod", "create", "--name", "group", "--cgroup-parent", "/" + engine.unique, "--network",
           "none", "--share", "net,ipc,uts,pid")
    engine("run", "-d", "--name", "one", "--pod", "group", *LIMITS, "small:1", "sleep", "1000")
    out = engine("exec", "one", "ps").out
    assert "catatonit" in out and "sleep 1000" in out, out
    engine("pod", "pause", "group")
    engine("pod", "unpause", "group")
    engine("pod", "restart", "group")
    assert "sleep 1000" in engine("exec", "one", "ps").out
    # The cgroup of podman's monitors may still be in use, whatever the runtime.
    engine("pod", "rm", "-f", "-t", "0", "group", code=None)


KUBE = """
apiVersion: v1
kind: Pod
metadata: {name: kp}
spec:
  hostNetwork: true
  containers:
  - name: one
    image: localhost/small:1
    command: ["/bin/sleep", "1000"]
    imagePullPolicy: Never
    resources: {limits: {memory: 64Mi}}
    securityContext:
      runAsUser: 5
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL], add: [CHOWN]}
"""


@podman
def kube_play(engine, scratch):
    if not os.path.exists("/usr/libexec/podman/catatonit"):
        raise Skip("catatonit is not installed")
    (scratch / "pod.yaml").write_text(KUBE)
    engine("kube", "play", scratch / "pod.yaml")
    try:
        out = engine("exec", "kp-one", "/bin/sh", "-c",
                     "PATH=/bin; id -u; grep -E '^(CapBnd|NoNewPrivs)' "
                     "/proc/self/status; touch /x 2>&1; true").lines
        assert out[0] == "5" and int(out[1].split()[1], 16) == 1 and out[2].split()[1] == "1", out
        assert "Read-only" in out[3], out
    finally:
        engine("kube", "down", scratch / "pod.yaml", code=None)
        engine("pod", "rm", "-af", "-t", "0", code=None)
        remove_default_parent()


def remove_default_parent():
    """kube play takes no --cgroup-parent."""
    wait_for(lambda: subprocess.run(
        "find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null; "
        "! ls -d /sys/fs/cgroup/*/libpod_parent 2>/dev/null", shell=True, check=False,
        stdout=subprocess.DEVNULL).returncode == 0)


@podman
def builds(engine, scratch):
    context = scratch / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM localhost/small:1\nRUN echo built >/x\n"
        "RUN --mount=type=tmpfs,target=/tm grep -q ' /tm tmpfs' /proc/mounts\n"
        "USER 5\nRUN test $(id -u) = 5\nCMD cat /x\n")
    options = ["--runtime", program("cloche-runtime"), "--isolation", "oci", "--network", "none",
               "--pull-never", *LIMITS]
    engine("build", *options, "-t", "one", "--cgroup-parent", f"/{engine.unique}/b1", context)
    out = engine("run", "--rm", *engine.options(), "localhost/one").out
    assert out == "built\n", out
    folders = ["--root", scratch / "root", "--runroot", scratch / "run", "--storage-driver", "vfs"]
    run("buildah", *folders, "bud", *options, "--cgroup-parent", f"/{engine.unique}/b2", "-t",
        "two", context, timeout=400)
    assert engine("run", "--rm", *engine.options(), "localhost/two").out == "built\n"


@podman
def messages_as_json(engine, scratch):
    """As cloche-runtime(8) says to configure it: the message without what a log has around it."""
    result = engine.run("nothing", code=127)
    assert "level=error" in result.err, result.err
    with open(os.environ["CONTAINERS_CONF"], "a") as conf:
        conf.write('[engine]\nruntime_supports_json = ["cloche-runtime"]\n')
    result = engine.run("nothing", code=127)
    assert 'exec: "nothing": executable file not found in $PATH' in result.err, result.err
    assert "level=error" not in result.err, result.err


@podman
def a_checkpoint_that_criu_cannot_make_is_refused(engine, scratch):
    engine("run", "-d", "--name", "one", *engine.options(), "small:1", "sleep", "1000")
    environment = {**os.environ, "PATH": str(scratch / "nothing") + ":/usr/bin:/bin"}
    result = engine("container", "checkpoint", "one", code=None, env=environment)
    if result.code:
        assert "criu" in result.err.lower(), result.err
        assert engine("exec", "one", "echo", "alive").out == "alive\n"


if __name__ == "__main__":
    main()
