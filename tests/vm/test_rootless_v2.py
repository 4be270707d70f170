"""The engine of an ordinary user on cgroup v2, whose systemd delegates a cgroup to it."""

import pathlib
import pwd
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from harness import http_get, main, run, test, wait_for
from user_engine import Engine, user_processes
from users import User

CGROUPS = pathlib.Path("/sys/fs/cgroup")


class FirstUser(User):
    """Whom the unit of the guest's user is for; the machine may have one already."""
    uid = 1000
    name = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == 1000), User.name)


def start_systemd_of(user):
    """As Debian's user 1000 would have it, with `systemd --user` and its bus."""
    run("systemctl", "start", "cloche-user.service")
    wait_for(lambda: (user.runtime_folder / "bus").exists() and
             subprocess.run(["systemctl", "is-active", "-q", "cloche-user.service"], check=False).returncode == 0,
             timeout=60)


def cgroup_of(pid):
    return CGROUPS / pathlib.Path(f"/proc/{pid}/cgroup").read_text().split("::/")[1].strip()


def what_is_limited(engine):
    engine.cloche("run", "-d", "--name", "web", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "-p", "9000:80",
                  "small:1", "sh", "-c", "echo web > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    cgroup = cgroup_of(engine.inspect("web")["State"]["Pid"])
    assert cgroup.parent.name == "containers" and "cloche-user.service" in str(cgroup), cgroup
    read = lambda name: (cgroup / name).read_text().strip()
    assert (read("memory.max"), read("cpu.max"), read("pids.max")) == (str(64 << 20), "50000 100000", "50")
    assert http_get("127.0.0.1", 9000) == "web\n"
    engine.cloche("update", "--memory", "80m", "--memory-swap", "80m", "web")
    assert read("memory.max") == str(80 << 20)
    engine.cloche("pause", "web")
    assert "frozen 1" in read("cgroup.events")
    engine.cloche("unpause", "web")
    assert "httpd" in engine.cloche("top", "web").out
    assert "80MiB" in engine.cloche("stats", "--no-stream", "web").out
    result = engine.cloche("run", "--name", "eater", "-m", "16m", "--memory-swap", "16m", "small:1", "tail", "-c",
                           "100m", "/dev/zero", code=None)
    assert result.code != 0 and engine.inspect("eater")["State"]["OOMKilled"], result
    return cgroup


def begins_without(engine, user):
    """Nobody delegates a cgroup yet. The first daemon that finds no container when somebody does gets one."""
    assert "the user's systemd has given none" in engine.cloche("info").out
    engine.cloche("run", "-d", "--name", "early", "small:1", "sleep", "1000")
    start_systemd_of(user)
    engine.kill_daemon()
    assert "the user's systemd has given none" in engine.cloche("info").out
    assert engine.inspect("early")["State"]["Running"]
    engine.cloche("rm", "-f", "early")
    engine.kill_daemon()
    assert "no cgroups" not in engine.cloche("info").out
    assert cgroup_of(engine.holder()) == cgroup_of(engine.daemon_pid()), cgroup_of(engine.holder())


@test
def limits_of_an_ordinary_user(images, scratch):
    with FirstUser(scratch) as user:
        user.runtime_folder = pathlib.Path("/run/user/1000")
        user.runtime_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        user.own(user.runtime_folder)
        engine = Engine(user)
        archive = user.home / "small.tar"
        shutil.copy(images.docker_archive(), archive)
        user.own(archive)
        try:
            # The first daemon waits for the kernel's modules, which takes long here.
            wait_for(lambda: engine.cloche("version", code=None).code == 0, timeout=200, what="the daemon is ready")
            engine.cloche("load", "-i", archive)
            begins_without(engine, user)
            cgroup = what_is_limited(engine)
            assert "no cgroups" not in engine.cloche("info").out
            # The next daemon, from elsewhere, comes to the same place.
            place = cgroup_of(engine.daemon_pid())
            assert place == cgroup.parents[1] / "engine"
            engine.kill_daemon()
            engine.cloche("run", "-d", "--name", "next", "-m", "32m", "small:1", "sleep", "1000")
            assert cgroup_of(engine.daemon_pid()) == place
            assert cgroup_of(engine.inspect("next")["State"]["Pid"]).parent == cgroup.parent
        finally:
            log = engine.run_folder / "cloched.log"
            print("".join(f"# {line}\n" for line in (log.read_text() if log.exists() else "").splitlines()))
            removed = engine.cloche("system", "remove", "--force", code=None)
            if sys.exc_info()[0]:
                run("systemctl", "stop", "cloche-user.service")
        assert removed.code == 0, removed
        wait_for(lambda: not {"cloche-rootless", "sleep", "httpd"} & set(user_processes(user)), what="nothing runs")
        wait_for(lambda: not cgroup.parents[1].exists(), what="nor is a cgroup left")
        run("systemctl", "stop", "cloche-user.service")


if __name__ == "__main__":
    main()
