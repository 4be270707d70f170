#!/usr/bin/env python3
"""What the engine makes of a request: limits, users, mounts, networks, lifecycles, conflicts."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

from harness import PROGRAMS, Outside, http_get, main, run, settled, test, wait_for

IMAGE = "small:1"
CGROUPS = "/sys/fs/cgroup"


def load(instance, images, **options):
    instance.cloche("load", "-q", "-i", images.small(IMAGE, **options))


def sh(instance, script, *options, **kwargs):
    """Output of a script in a container of its own."""
    return instance.cloche("run", "--rm", *options, IMAGE, "sh", "-c", script, **kwargs).out


def start(instance, name, *options, command=("sleep", "1000")):
    return instance.cloche("run", "-d", "--name", name, *options, IMAGE, *command).out.strip()


def is_up(instance, name):
    """Waits until the program, whose first word is "up", has come so far."""
    wait_for(lambda: instance.cloche("logs", name).out.startswith("up\n"), what=f"{name} is up")


def details(instance, name):
    return json.loads(instance.cloche("inspect", name).out)[0]


def cgroup_file(instance, identifier, v1, v2):
    """Content of a control file; v1: "memory/memory.limit_in_bytes", v2: "memory.max"."""
    unified = not os.path.isdir(f"{CGROUPS}/memory")
    controller, name = ("", v2) if unified else v1.split("/")
    path = f"{CGROUPS}/{controller}/{instance.cgroup_parent}/{identifier}/{name}"
    return open(path).read().strip()


# ---------------------------------------------------------------- what a container gets

@test
def limits_reach_the_kernel(instance, images):
    load(instance, images)
    box = start(instance, "box", "-m", "64m", "--cpus", "0.5", "--pids-limit", "20")
    assert cgroup_file(instance, box, "memory/memory.limit_in_bytes", "memory.max") == "67108864"
    assert cgroup_file(instance, box, "pids/pids.max", "pids.max") == "20"
    quota = cgroup_file(instance, box, "cpu/cpu.cfs_quota_us", "cpu.max")
    assert quota in ("50000", "50000 100000"), quota
    assert "can't fork" in instance.cloche(
        "exec", "box", "sh", "-c", "for i in $(seq 30); do sleep 5 & done", code=None).err


@test
def a_container_out_of_memory_says_so(instance, images):
    load(instance, images)
    code = instance.cloche("run", "--name", "eater", "-m", "16m", IMAGE, "sh", "-c",
                           "x=a; while :; do x=$x$x; done", code=None).code
    assert code == 137, code
    assert details(instance, "eater")["State"]["OOMKilled"] is True


@test
def defaults_are_docker_s(instance, images):
    load(instance, images)
    capabilities = sh(instance, "grep Cap /proc/self/status")
    assert re.search(r"CapEff:\s*00000000a80425fb", capabilities), capabilities
    assert re.search(r"Seccomp:\s*2", sh(instance, "cat /proc/self/status"))
    assert sh(instance, "mount -t tmpfs x /tmp 2>&1; true").strip().endswith("permission denied") \
        or "denied" in sh(instance, "mount -t tmpfs x /tmp 2>&1; true")
    assert sh(instance, "cat /proc/kcore | wc -c").strip() == "0"
    assert "Read-only" in sh(instance, "(echo 1 > /proc/sys/kernel/domainname) 2>&1; true")
    mounts = sh(instance, "cat /proc/self/mountinfo")
    for path in ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup",
                 "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
        assert f" {path} " in mounts, path
    assert sh(instance, "df -k /dev/shm | tail -1").split()[1] == "65536"


@test
def environment_user_and_folder_follow_docker_s_rules(instance, images):
    load(instance, images)
    assert sh(instance, "echo $HOME $PATH; id -u; pwd") == \
        "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n0\n/\n"
    shop = sh(instance, "id; echo $HOME; grep CapEff /proc/self/status", "-u", "shop").splitlines()
    assert shop[0].startswith("uid=1000(shop) gid=1001(shop) groups=") and "50(staff)" in shop[0], shop
    assert shop[1:] == ["/home/shop", "CapEff:\t0000000000000000"], shop
    assert sh(instance, "id -u; id -g", "-u", "4711:4712") == "4711\n4712\n"
    result = instance.cloche("run", "--rm", "-u", "stranger", IMAGE, "id", code=125)
    assert "unable to find user stranger" in result.err
    assert sh(instance, "pwd", "-w", "/made/up") == "/made/up\n"
    assert sh(instance, "hostname; cat /etc/hostname", "--hostname", "till") == "till\ntill\n"
    assert instance.cloche("ps", "-aq").out == "", "a failed run --rm left its container"


@test
def folders_of_the_machine_are_bound(instance, images, scratch):
    load(instance, images)
    (scratch / "file").write_text("from outside\n")
    os.chmod(scratch, 0o755)
    assert sh(instance, "cat /d/file; echo inside > /d/new", "-v", f"{scratch}:/d") == "from outside\n"
    assert (scratch / "new").read_text() == "inside\n"
    assert "Read-only" in sh(instance, "touch /d/x 2>&1; true", "-v", f"{scratch}:/d:ro")
    assert sh(instance, "ls /d", "-v", f"{scratch}/made/here:/d") == ""
    assert (scratch / "made/here").is_dir(), "a missing folder is made, as docker does"
    assert sh(instance, "cat /etc/hosts", "-v", f"{scratch}/file:/etc/hosts") == "from outside\n"
    assert "Read-only" in sh(instance, "touch /x 2>&1; true", "--read-only")
    result = instance.cloche("run", "--rm", "-v", f"{scratch}:/", IMAGE, "true", code=125)
    assert "'/'" in result.err


@test
def networks(instance, images):
    load(instance, images)
    assert sh(instance, "ls /sys/class/net", "--network", "none") == "lo\n"
    machine = subprocess.run(["hostname"], capture_output=True, text=True).stdout
    assert sh(instance, "cat /proc/net/dev | grep -c eth0; true", "--network", "none") == "0\n"
    addresses = sh(instance, "ip -4 -o addr show eth0; ip route")
    subnet = instance.cloche("info", "--format", "{{.Subnet}}", code=None).out.strip()
    assert "default via" in addresses and " inet " in addresses, (addresses, subnet)
    first = start(instance, "first", command=("httpd", "-f", "-p", "8080", "-h", "/etc"))
    address = details(instance, "first")["NetworkSettings"]["IPAddress"]
    assert "root:" in sh(instance, f"wget -qO- http://{address}:8080/passwd")
    own = sh(instance, "ip -4 -o addr show eth0 | wc -l", "--network", "host", code=None)
    assert machine and own is not None and first


@test
def published_ports_are_reached_from_everywhere(instance, images):
    load(instance, images)
    start(instance, "web", "-p", "9741:80", "-p", "9742:80/udp",
          command=("sh", "-c", "echo shop > /tmp/index.html; exec httpd -f -p 80 -h /tmp"))
    assert http_get("127.0.0.1", 9741, "/index.html") == "shop\n"
    with Outside() as outside:
        assert outside.http_get(9741, "/index.html") == "shop\n"
        assert sh(instance, f"wget -qO- http://{outside.here}:9741/index.html") == "shop\n"
    ports = instance.cloche("ps", "--format", "{{.Ports}}").out
    assert "0.0.0.0:9741->80/tcp" in ports and "0.0.0.0:9742->80/udp" in ports, ports
    result = instance.cloche("run", "-d", "--name", "second", "-p", "9741:80", IMAGE, "true", code=125)
    assert "9741" in result.err, result.err
    instance.cloche("rm", "-f", "web")
    instance.cloche("start", "second")
    chosen = start(instance, "chosen", "-p", "80")
    assert re.match(r"0\.0\.0\.0:\d+->80/tcp", instance.cloche(
        "ps", "--filter", f"id={chosen}", "--format", "{{.Ports}}", code=None).out or
        instance.cloche("ps", "-n", "1", "--format", "{{.Ports}}").out)


@test
def a_port_that_somebody_has_is_refused(instance, images):
    load(instance, images)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 9743))
        taken.listen()
        result = instance.cloche("run", "-d", "--name", "web", "-p", "9743:80", IMAGE, "true", code=125)
        assert "9743" in result.err and "in use" in result.err, result.err
    instance.cloche("start", "web")


@test
def the_image_host_runs_the_machine_s_programs(instance):
    assert instance.cloche("run", "--rm", "host", "python3", "-c", "print(6 * 7)").out == "42\n"
    assert instance.cloche("run", "--rm", "host", "sh", "-c", "touch /usr/x 2>&1; ls /root /home"
                           ).out.count("Read-only") == 1
    assert instance.cloche("run", "--rm", "host", "cat", "/etc/shadow", code=1).out == ""


# ---------------------------------------------------------------- lifecycles

@test
def a_container_starts_again_with_its_files_and_its_log(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "twice", IMAGE, "sh", "-c",
                    "cat /tmp/count 2>/dev/null; echo once >> /tmp/count; echo ran")
    assert instance.cloche("start", "-a", "twice").out == "once\nran\n"
    assert instance.cloche("logs", "twice").out == "ran\nonce\nran\n"
    first = details(instance, "twice")["State"]
    assert first["Status"] == "exited" and first["ExitCode"] == 0


@test
def stop_asks_first_and_kills_then(instance, images):
    load(instance, images)
    start(instance, "polite", command=("sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; sleep 1000 & wait"))
    start(instance, "deaf", command=("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"))
    is_up(instance, "polite"), is_up(instance, "deaf")
    instance.cloche("stop", "-t", "60", "polite")
    assert details(instance, "polite")["State"]["ExitCode"] == 3
    assert instance.cloche("logs", "polite").out == "up\nbye\n"
    for tries in range(3, 0, -1):
        began = time.monotonic()
        instance.cloche("stop", "-t", "1", "deaf")
        seconds = time.monotonic() - began
        assert seconds > 0.9 and (tries > 1 or seconds < 9), seconds
        if seconds < 9:  # 10 would be the time that is not asked for
            break
        instance.cloche("start", "deaf")
        wait_for(lambda: instance.cloche("logs", "deaf").out.count("up") > 4 - tries)
    assert details(instance, "deaf")["State"]["ExitCode"] == 137
    assert instance.cloche("stop", "deaf").out == "deaf\n", "stopping twice is no failure"


@test
def signals_reach_the_init(instance, images):
    load(instance, images)
    start(instance, "box", command=("sh", "-c", "trap 'echo usr1; exit 9' USR1; echo up; sleep 1000 & wait"))
    is_up(instance, "box")
    instance.cloche("kill", "-s", "SIGUSR1", "box")
    assert instance.cloche("wait", "box").out == "9\n"
    assert "is not running" in instance.cloche("kill", "box", code=1).err
    assert "nvalid signal" in instance.cloche("kill", "-s", "NOSUCH", "box", code=1).err


@test
def a_forced_removal_does_not_wait_for_a_stop(instance, images):
    load(instance, images)
    identifier = start(instance, "deaf", command=("sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
    assert "cannot remove a running container" in instance.cloche("rm", "deaf", code=1).err
    stopping = instance.start("stop", "-t", "60", "deaf")
    time.sleep(0.5)
    began = time.monotonic()
    instance.cloche("rm", "-f", "deaf")
    assert time.monotonic() - began < 50
    stopping.communicate(timeout=60)
    assert not (instance.root / "containers" / identifier).exists()


@test
def names_and_prefixes(instance, images):
    load(instance, images)
    first = start(instance, "one")
    result = instance.cloche("run", "-d", "--name", "one", IMAGE, "true", code=125)
    assert "is already in use by container" in result.err and first in result.err
    invented = [instance.cloche("create", IMAGE).out.strip() for _ in range(3)]
    for identifier in invented:
        assert re.fullmatch(r"/[a-z]+_[a-z]+\d*", details(instance, identifier)["Name"])
        assert details(instance, identifier[:16])["Id"] == identifier
    assert "No such container" in instance.cloche("logs", "nobody", code=1).err
    instance.cloche("rm", *invented)
    assert instance.cloche("ps", "-aq").out.split() == [first[:12]]


@test
def programs_that_cannot_run(instance, images):
    load(instance, images)
    result = instance.cloche("run", "--rm", IMAGE, "nothing", code=127)
    assert "executable file not found in $PATH" in result.err
    assert instance.cloche("run", "--rm", IMAGE, "/etc/passwd", code=126).err
    assert instance.cloche("run", "--rm", IMAGE, "/no/such", code=127).err
    assert "No such image" in instance.cloche("run", "--pull", "never", "--rm", "none:1",
                                              code=125).err
    instance.cloche("run", "--name", "broken", IMAGE, "nothing", code=127)
    broken = details(instance, "broken")["State"]
    assert (broken["Status"], broken["ExitCode"]) == ("created", 127) and broken["Error"], broken
    start(instance, "box")
    assert instance.cloche("exec", "box", "nothing", code=127).err
    assert instance.cloche("exec", "box", "/etc/passwd", code=126).err
    assert list((instance.run_folder / "containers").iterdir()) == \
        [instance.run_folder / "containers" / details(instance, "box")["Id"]]


@test
def exec_takes_user_folder_and_environment(instance, images):
    load(instance, images)
    start(instance, "box", "-e", "KEPT=1", "-u", "shop", "-w", "/tmp")
    out = instance.cloche("exec", "-e", "MORE=2", "box", "sh", "-c", "echo $KEPT$MORE; id -un; pwd").out
    assert out == "12\nshop\n/tmp\n", out
    out = instance.cloche("exec", "-u", "0", "-w", "/etc", "box", "sh", "-c", "id -un; pwd; echo $HOME").out
    assert out == "root\n/etc\n/root\n", out
    assert instance.cloche("exec", "-i", "box", "cat", input="in\n").out == "in\n"
    assert instance.cloche("exec", "box", "sh", "-c", "kill -9 $$", code=137)
    instance.cloche("exec", "-d", "box", "touch", "/tmp/detached")
    wait_for(lambda: instance.cloche("exec", "box", "ls", "/tmp").out == "detached\n")
    assert instance.cloche("exec", "box", "ls", "/run", code=None).code != 125
    leftovers = list((instance.run_folder / "containers").glob("*/process-*"))
    assert leftovers == [], leftovers


@test
def a_hostile_passwd_cannot_make_the_engine_wait(instance, images):
    load(instance, images)
    start(instance, "trap", "-u", "0",
          command=("sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd; echo up; sleep 1000"))
    is_up(instance, "trap")
    result = instance.cloche("exec", "-u", "shop", "trap", "id", code=None)
    assert result.code != 0 and "not a regular file" in result.err, repr(result)
    instance.cloche("kill", "trap")
    instance.cloche("wait", "trap")
    result = instance.cloche("start", "trap", code=1)
    assert "not a regular file" in result.err


@test
def commits(instance, images):
    load(instance, images)
    start(instance, "box", "-e", "A=1", "-w", "/srv",
          command=("sh", "-c", "echo kept > /kept; rm /etc/group; echo up; sleep 1000"))
    is_up(instance, "box")
    instance.cloche("commit", "-c", 'CMD ["cat", "/kept"]', "-c", "ENV B=2", "-c", "USER shop",
                    "-m", "why", "-a", "who", "box", "made:1")
    assert instance.cloche("run", "--rm", "made:1").out == "kept\n"
    assert instance.cloche("run", "--rm", "made:1", "sh", "-c",
                           "id -un; echo $A$B; pwd; ls /etc/group 2>&1 | wc -l").out == "shop\n12\n/srv\n1\n"
    assert details(instance, "box")["State"]["Running"], "the commit ended the container"
    assert "not a valid change" in instance.cloche("commit", "-c", "RUN x", "box", "made:2", code=1).err
    start(instance, "full", "--expose", "81", "-v", "/vol", "--health-cmd", "true", "--health-retries", "7")
    instance.cloche("commit", "-c", "ONBUILD RUN x", "-c",
                    'SHELL ["/bin/ash", "-c"]', "-c", "CMD own", "full", "made:3")
    config = json.loads(instance.cloche("image", "inspect", "made:3").out)[0]["Config"]
    assert set(config["ExposedPorts"]) == {"81/tcp"} and set(config["Volumes"]) == {"/vol"}, config
    assert config["Healthcheck"]["Retries"] == 7 and config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"], config
    assert config["OnBuild"] == ["RUN x"] and config["Cmd"] == ["/bin/ash", "-c", "own"], config
    assert list((instance.root / "staging").glob("*")) == []


@contextlib.contextmanager
def busy_machine(processes):
    """So that what happens between two system calls of the daemon takes long."""
    spinning = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


@test
def what_ends_while_it_is_committed_or_paused_is_not_waited_for(instance, images):
    load(instance, images)
    with busy_machine(6):
        for number in range(12):
            name = f"short-{number}"
            start(instance, name, command=("sh", "-c", "touch /x"))
            instance.cloche("commit", name, f"short:{number}")
            assert instance.cloche("run", "--rm", f"short:{number}", "ls", "/x").out == "/x\n"
            start(instance, f"paused-{number}", command=("sh", "-c", "touch /x"))
            paused = instance.cloche("pause", f"paused-{number}", code=None)
            assert paused.code == 0 or "is not running" in paused.err, repr(paused)
            instance.cloche("rm", "-f", name, f"paused-{number}")


@test
def a_commit_holds_what_the_container_did_and_nothing_else(instance, images, scratch):
    load(instance, images)
    instance.cloche("run", "--name", "box", IMAGE, "sh", "-c", "mkdir /new; echo x > /new/file")
    instance.cloche("commit", "box", "made:1")
    instance.cloche("save", "-o", scratch / "made.tar", "made:1")
    run("tar", "-xf", scratch / "made.tar", "-C", scratch)
    top = json.loads((scratch / "manifest.json").read_text())[0]["Layers"][-1]
    names = {name.strip("./") for name in run("tar", "-tf", scratch / top).lines}
    assert names - {"", "etc"} == {"new", "new/file"}, names


# ---------------------------------------------------------------- the daemon

@test
def two_instances_do_not_see_each_other(instance, other, images):
    for each in (instance, other):
        load(each, images)
        start(each, "web", "-p", "9744:80" if each is instance else "9745:80",
              command=("sh", "-c", f"echo {each.name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp"))
    assert http_get("127.0.0.1", 9744, "/index.html") == f"{instance.name}\n"
    assert http_get("127.0.0.1", 9745, "/index.html") == f"{other.name}\n"
    assert "9744" in other.cloche("run", "-d", "-p", "9744:80", IMAGE, "true", code=125).err
    instance.cloche("system", "remove", "--force")
    assert http_get("127.0.0.1", 9745, "/index.html") == f"{other.name}\n"
    assert other.cloche("ps", "--format", "{{.Names}}").out == "web\n"


@test
def only_one_daemon_per_instance(instance):
    pid = instance.start_daemon()
    second = run(PROGRAMS / "cloched", code=1, env=instance.env)
    assert "runs already" in second.err
    assert instance.daemon_pid() == pid and instance.socket.exists()
    instance.cloche("version")


@test
def a_daemon_that_ends_is_waited_for(instance):
    """Who has the lock and no socket any more."""
    instance.socket.parent.mkdir()
    with open(instance.socket.parent / "cloched.pid", "w") as ending:
        fcntl.flock(ending, fcntl.LOCK_EX)
        command = subprocess.Popen([PROGRAMS / "cloche", "version"], env=instance.env, stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        assert command.poll() is None
    assert command.wait() == 0


@test
def a_removal_that_failed_is_tried_again(instance, images):
    instance.cloche("load", "-i", images.small())
    instance.cloche("run", "-d", "small:1", "sleep", "1000")
    place = instance.root / "content/mounted"
    place.mkdir()
    run("mount", "-t", "tmpfs", "none", place)
    try:
        first = instance.daemon_pid()
        assert "mounted" in instance.cloche("system", "remove", "--force", code=1).err
        # Not one that has no store.
        wait_for(lambda: instance.daemon_pid() != first)
        error = instance.cloche("images", code=1).err
        assert "a removal of instance" in error and "mounted" in error, error
    finally:
        run("umount", place)
    assert "small" not in instance.cloche("images").out and instance.cloche("ps", "-aq").out == ""
    instance.cloche("load", "-i", images.small())
    instance.cloche("run", "--rm", "small:1", "true")
    instance.cloche("system", "remove", "--force")
    assert not instance.root.exists()


@test
def removing_an_instance_with_running_containers_wants_force(instance, images):
    load(instance, images)
    start(instance, "box")
    result = instance.cloche("system", "remove", input="y\n", code=1)
    assert "runs" in result.err, result.err
    assert details(instance, "box")["State"]["Running"]


@test
def many_at_once(instance, images):
    load(instance, images)
    outputs = {}

    def one(number):
        outputs[number] = sh(instance, f"echo {number}")

    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n" for number in range(12)}, outputs
    assert instance.cloche("ps", "-aq").out == ""


@test
def a_client_that_goes_leaves_no_descriptors(instance, images):
    load(instance, images)
    start(instance, "box")
    daemon = instance.daemon_pid()

    def descriptors():
        """But for spare networks, which are made when there is time: a namespace and a socket each."""
        links = []
        for name in os.listdir(f"/proc/{daemon}/fd"):
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(f"/proc/{daemon}/fd/{name}"))
        return len(links) - 2 * sum(link.startswith("net:[") for link in links)

    sh(instance, "true")
    wait_for(lambda: instance.cloche("ps", "-aq").out.count("\n") == 1)
    before = settled(descriptors)
    for command in (("wait", "box"), ("logs", "-f", "box"), ("attach", "box"),
                    ("exec", "box", "sleep", "1")):
        client = instance.start(*command)
        time.sleep(0.3)
        client.send_signal(signal.SIGKILL)
        client.communicate()
    for _ in range(5):
        sh(instance, "true")
    wait_for(lambda: descriptors() <= before, what=f"{before} descriptors again")


@test
def memory_does_not_grow_with_containers(instance, images):
    load(instance, images)
    daemon = instance.start_daemon()

    def resident():
        status = open(f"/proc/{daemon}/status").read()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])

    for _ in range(8):
        sh(instance, "true")
    before = resident()
    for _ in range(25):
        sh(instance, "true")
    assert resident() - before < 600, f"{before} kB, then {resident()} kB"


if __name__ == "__main__":
    main()
