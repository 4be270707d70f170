"""cloche-runtime --systemd-cgroup: cgroups that systemd makes.

Needs systemd as the machine's init, so most of it runs in the guest (tests/vm), on cgroup v2 and
v1, where process numbers of the test are those that systemd knows.
"""

import json
import pathlib
import subprocess

from bundles import CGROUPS, Bundle, Runtime, cgroup_version
from harness import main, run, test, wait_for


SYSTEMD = pathlib.Path("/run/systemd/system").is_dir()


class World:
    """A bundle whose cgroup is the scope cloche-test-NAME.scope in a slice of its own."""

    def __init__(self, scratch, images, unique):
        self.runtime, self.name = Runtime(scratch), unique
        self.bundle = Bundle(scratch / "bundle", images, unique, script="sleep 1000")
        self.slice = f"{unique}-inner.slice"
        self.unit = f"test-{unique}.scope"
        self.path = f"{unique}.slice/{unique}-inner.slice/{self.unit}"
        self.bundle.linux["cgroupsPath"] = f"{self.slice}:test:{unique}"

    def start(self):
        self.bundle.write()
        self.systemd("run", "-d", "-b", self.bundle.path, self.name)
        return self

    def systemd(self, *args, **options):
        return self.runtime("--systemd-cgroup", *args, **options)

    def shown(self, *properties, unit=None):
        """What systemd says, by property."""
        out = run("systemctl", "show", "-p", ",".join(properties), unit or self.unit).out
        return dict(line.split("=", 1) for line in out.splitlines())

    def file(self, name, controller=None):
        base = CGROUPS if cgroup_version() == 2 else CGROUPS / controller
        return (base / self.path / name).read_text().strip()

    def known(self):
        return self.shown("LoadState")["LoadState"] == "loaded"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runtime("delete", "--force", self.name)
        subprocess.run(["systemctl", "stop", f"{self.name}.slice"], check=False,
                       capture_output=True)


def world(function):
    """A test that gets a World. Only where systemd is the machine's init."""
    def call(scratch, images, unique):
        with World(scratch, images, unique) as w:
            function(w)
    call.__name__ = function.__name__
    return test(call) if SYSTEMD else call


def v2_world(function):
    """There is nothing of the kind on cgroup v1."""
    return world(function) if cgroup_version() == 2 else function


def without_systemd_the_flag_is_refused(scratch, images, unique):
    runtime = Runtime(scratch)
    bundle = Bundle(scratch / "bundle", images, unique, script="true")
    bundle.linux["cgroupsPath"] = f"system.slice:test:{unique}"
    result = runtime("--systemd-cgroup", "run", "-b", bundle.write().path, unique, code=1)
    assert "systemd not running on this host" in result.err, result
    assert runtime.names() == []


@world
def a_container_is_a_scope_in_its_slice(w):
    w.start()
    pid = w.runtime.state(w.name)["pid"]
    shown = w.shown("ActiveState", "Slice", "Delegate", "ControlGroup", "DefaultDependencies",
                    "TasksAccounting", "MemoryAccounting")
    assert shown == {"ActiveState": "active", "Slice": w.slice, "Delegate": "yes",
                     "ControlGroup": "/" + w.path, "DefaultDependencies": "no",
                     "TasksAccounting": "yes", "MemoryAccounting": "yes"}, shown
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert all(line.endswith("/" + w.path) for line in lines), lines
    # A process that joins later is in the same cgroups.
    assert w.systemd("exec", w.name, "cat", "/proc/1/cgroup").out == \
        w.systemd("exec", w.name, "cat", "/proc/self/cgroup").out
    assert sorted(w.runtime("ps", "-f", "json", w.name).out.strip("[]\n").split(",")) == [str(pid)]
    w.systemd("pause", w.name)
    assert w.runtime.status(w.name) == "paused"
    w.systemd("resume", w.name)
    w.systemd("kill", w.name, "KILL")
    wait_for(lambda: w.runtime.status(w.name) == "stopped")
    w.systemd("delete", w.name)
    assert not w.known() and not list(CGROUPS.glob("**/" + w.unit))


@world
def names_that_are_not_given_are_ours(w):
    del w.bundle.linux["cgroupsPath"]
    w.start()
    unit = f"cloche-{w.name}.scope"
    assert w.shown("Slice", unit=unit) == {"Slice": "system.slice"}
    assert w.runtime.state(w.name)["systemd-scope"] == unit
    w.runtime("delete", "--force", w.name)
    w.bundle.linux["cgroupsPath"] = f":mine:{w.name}"
    w.start()
    assert w.shown("Slice", unit=f"mine-{w.name}.scope") == {"Slice": "system.slice"}
    w.runtime("delete", "--force", w.name)
    for path, word in (("/a/b", "slice:prefix:name"), ("a/b.slice:c:d", "invalid slice name"),
                       ("a--b.slice:c:d", "invalid slice name"), ("a:c:d", "invalid slice name"),
                       (".slice:c:d", "invalid slice name"), ("a.slice:c:d.slice", "scope"),
                       ("a.slice:../c:d", "no name of a systemd unit")):
        w.bundle.linux["cgroupsPath"] = path
        w.bundle.write()
        error = w.systemd("run", "-b", w.bundle.path, w.name, code=1).err
        assert word in error, (path, error)
        assert w.runtime.names() == []


@world
def limits_are_properties_and_files(w):
    w.bundle.resources.update(
        memory={"limit": 64 << 20, "reservation": 32 << 20},
        cpu={"shares": 512, "quota": 33333, "period": 50000, "cpus": "0-1", "mems": "0"},
        pids={"limit": 77})
    w.start()
    shown = w.shown("TasksMax", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs",
                    "AllowedMemoryNodes", "DevicePolicy", "MemoryMax", "MemoryLow", "CPUWeight",
                    "MemoryLimit", "CPUShares")
    assert shown["TasksMax"] == "77" and shown["CPUQuotaPerSecUSec"] == "670ms", shown
    assert shown["CPUQuotaPeriodUSec"] == "50ms" and shown["DevicePolicy"] == "strict", shown
    assert shown["AllowedCPUs"] == "0-1" and shown["AllowedMemoryNodes"] == "0", shown
    if cgroup_version() == 2:
        assert shown["MemoryMax"] == str(64 << 20) and shown["MemoryLow"] == str(32 << 20), shown
        assert shown["CPUWeight"] == w.file("cpu.weight") != "100", shown
        assert w.file("memory.max") == str(64 << 20)
        assert w.file("cpu.max") == "33500 50000"
        assert w.file("cpuset.cpus") == "0-1"
        assert w.file("pids.max") == "77"
    else:
        assert shown["MemoryLimit"] == str(64 << 20) and shown["CPUShares"] == "512", shown
        assert w.file("memory.limit_in_bytes", "memory") == str(64 << 20)
        assert w.file("cpu.cfs_quota_us", "cpu") == "33500"
        assert w.file("cpuset.cpus", "cpuset") == "0-1"
        assert w.file("pids.max", "pids") == "77"
    # systemd does not undo what was written when it is told to look at its units again.
    run("systemctl", "daemon-reload")
    assert w.file("pids.max", "pids") == "77"


@world
def no_process_at_all_is_a_limit_of_one(w):
    w.bundle.config["ociVersion"] = "1.3.0"  # before, 0 was no limit
    w.bundle.resources["pids"] = {"limit": 0}
    w.bundle.process["args"] = ["sleep", "1000"]  # a shell could not fork
    w.start()
    shown = w.shown("TasksMax")
    assert shown == {"TasksMax": "1"}, shown
    assert w.file("pids.max", "pids") == "1"


@world
def a_cgroup_that_is_in_use_is_refused(w):
    w.start()
    again = w.systemd("run", "-d", "-b", w.bundle.path, w.name + "b", code=1)
    assert "container's cgroup is not empty" in again.err, again
    w.runtime("delete", "--force", w.name)
    wait_for(lambda: not w.known())
    # One that is frozen would stop whoever is put into it.
    base = CGROUPS if cgroup_version() == 2 else CGROUPS / "freezer"
    state, frozen, thawed = (("cgroup.freeze", "1", "0") if cgroup_version() == 2
                             else ("freezer.state", "FROZEN", "THAWED"))
    folder = base / w.path
    folder.mkdir(parents=True)
    try:
        (folder / state).write_text(frozen)
        for command in (("run", "-d"), ("create",)):
            refused = w.systemd(*command, "-b", w.bundle.path, w.name, code=1)
            assert "container's cgroup unexpectedly frozen" in refused.err, refused
            assert w.runtime.names() == []
    finally:
        (folder / state).write_text(thawed)
        while folder != base:
            folder.rmdir()
            folder = folder.parent


@v2_world
def every_controller_is_there(w):
    """Those that systemd does not know, too, and those that none of the scope's properties wants."""
    w.start()
    assert w.file("cgroup.controllers") == (CGROUPS / "cgroup.controllers").read_text().strip()


@world
def an_update_reaches_systemd(w):
    w.bundle.resources.update(memory={"limit": 64 << 20}, pids={"limit": 77})
    w.start()
    w.systemd("update", "--memory", str(48 << 20), "--pids-limit", "55", "--cpu-quota", "33333",
              "--cpu-period", "50000", w.name)
    memory = "MemoryMax" if cgroup_version() == 2 else "MemoryLimit"
    shown = w.shown("TasksMax", memory, "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec")
    assert shown == {"TasksMax": "55", memory: str(48 << 20), "CPUQuotaPerSecUSec": "670ms",
                     "CPUQuotaPeriodUSec": "50ms"}, shown
    run("systemctl", "daemon-reload")
    assert w.file("pids.max", "pids") == "55"
    assert w.file("memory.max" if cgroup_version() == 2 else "memory.limit_in_bytes",
                  "memory") == str(48 << 20)
    w.systemd("update", "--device-allow", "c 1:11 rw", w.name)
    allowed = run("systemctl", "show", "-p", "DeviceAllow", w.unit).out.splitlines()
    assert "DeviceAllow=/dev/char/1:11 rw" in allowed, allowed


@v2_world
def a_user_has_scopes_of_the_users_systemd(w):
    """As Debian's user 1000 would have it, with `systemd --user` and its bus."""
    run("systemctl", "start", "cloche-user.service")
    folder = pathlib.Path("/run/user/1000")
    wait_for(lambda: (folder / "bus").exists() and
             subprocess.run(["systemctl", "is-active", "-q", "cloche-user.service"],
                            check=False).returncode == 0, timeout=60)
    environment = {"XDG_RUNTIME_DIR": str(folder)}
    w.bundle.namespace("user").namespace("network", remove=True)
    w.bundle.linux.update(uidMappings=[{"containerID": 0, "hostID": 1000, "size": 1}],
                          gidMappings=[{"containerID": 0, "hostID": 1000, "size": 1}])
    w.bundle.config["mounts"] = [mount for mount in w.bundle.config["mounts"]
                                 if mount["type"] != "sysfs"]
    next(mount for mount in w.bundle.config["mounts"]
         if mount["type"] == "cgroup")["destination"] = "/cgroup"
    w.bundle.namespace("cgroup")
    for mount in w.bundle.config["mounts"]:
        mount["options"] = [word for word in mount.get("options", []) if word != "gid=5"]
    w.bundle.resources.clear()
    w.bundle.resources["pids"] = {"limit": 33}
    w.bundle.linux["cgroupsPath"] = f":test:{w.name}"
    w.bundle.write()
    run("chown", "-R", "1000:1000", w.bundle.path.parent)
    run("chmod", "755", w.bundle.path.parent)

    def user(*args, flags=("--systemd-cgroup",), **options):
        return run("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups",
                   w.runtime.path, "--root", folder / w.name, *flags, *args, env=environment,
                   **options)

    user("run", "-d", "-b", w.bundle.path, w.name)
    try:
        path = f"system.slice/cloche-user.service/user.slice/{w.unit}"
        assert (CGROUPS / path / "pids.max").read_text() == "33\n"
        out = user("exec", w.name, "cat", "/proc/self/cgroup", "/cgroup/pids.max",
                   flags=[]).out  # podman does not say it again
        assert out == "0::/\n33\n", out
        user("update", "--pids-limit", "44", w.name)
        assert (CGROUPS / path / "pids.max").read_text() == "44\n"
    finally:
        user("delete", "--force", w.name)
    assert not (CGROUPS / path).exists()
    run("systemctl", "stop", "cloche-user.service")
    error = user("run", "-b", w.bundle.path, w.name, code=1).err
    assert "user's D-Bus" in error and "XDG_RUNTIME_DIR" in error, error


@v2_world
def unified_values_are_properties_too(w):
    w.bundle.resources["unified"] = {
        "memory.min": "131072", "memory.low": "524288", "memory.high": "52428800",
        "memory.max": "104857600", "pids.max": "99", "cpu.max": "10000 100000",
        "cpu.weight": "42", "cpuset.cpus": "0"}
    w.start()
    shown = w.shown("MemoryMin", "MemoryLow", "MemoryHigh", "MemoryMax", "TasksMax",
                    "CPUQuotaPerSecUSec", "CPUWeight", "AllowedCPUs")
    assert shown == {"MemoryMin": "131072", "MemoryLow": "524288", "MemoryHigh": "52428800",
                     "MemoryMax": "104857600", "TasksMax": "99", "CPUQuotaPerSecUSec": "100ms",
                     "CPUWeight": "42", "AllowedCPUs": "0"}, shown
    assert w.file("memory.high") == "52428800" and w.file("cpu.max") == "10000 100000"


@v2_world
def idle_is_a_weight_to_systemd(w):
    """Of 0, and another weight ends it."""
    w.start()
    w.systemd("update", "--cpu-share", "200", "--cpu-idle", "1", w.name)
    assert "unable to apply both" in w.runtime.log.read_text()
    assert w.file("cpu.idle") == "1"
    w.systemd("update", "--cpu-share", "200", w.name)
    assert w.file("cpu.idle") == "0" and w.shown("CPUWeight")["CPUWeight"] == w.file("cpu.weight")

    def unified(**values):
        text = json.dumps({"unified": {f"cpu.{key}": value for key, value in values.items()}})
        w.systemd("update", "-r", "-", w.name, input=text)
    unified(idle="1", weight="8")
    assert w.file("cpu.idle") == "1"
    unified(weight="8")
    assert (w.file("cpu.idle"), w.file("cpu.weight")) == ("0", "8")


@world
def devices_are_allowed_as_configured(w):
    w.bundle.resources["devices"] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"},
        {"allow": True, "type": "c", "major": 10, "access": "r"}]
    w.bundle.linux["devices"] = [
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666},
        {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1, "fileMode": 0o666}]
    w.start()
    shown = run("systemctl", "show", "-p", "DeviceAllow", w.unit).out.splitlines()
    assert "DeviceAllow=/dev/char/1:11 rw" in shown and "DeviceAllow=char-10 r" in shown, shown
    w.systemd("exec", w.name, "sh", "-c", "exec 3>/dev/kmsg && echo x >/dev/null")
    error = w.systemd("exec", w.name, "sh", "-c", "exec 3</dev/mem", code=None)
    assert error.code != 0 and "not permitted" in error.err, error
    w.runtime("delete", "--force", w.name)
    # What systemd has no words for works all the same.
    w.bundle.resources["devices"] = [
        {"allow": True, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 1, "access": "rwm"}]
    w.start()
    w.systemd("exec", w.name, "sh", "-c", "exec 3>/dev/kmsg")
    assert w.systemd("exec", w.name, "sh", "-c", "exec 3</dev/mem", code=None).code != 0


@world
def annotations_are_properties(w):
    w.bundle.config["annotations"] = {
        "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.RuntimeMaxSec": "600",
        "org.systemd.property.Documentation": "['man:cloche-runtime(8)']",
        "org.example": "not for systemd"}
    w.start()
    shown = w.shown("TimeoutStopUSec", "CollectMode", "RuntimeMaxUSec", "Documentation")
    assert shown == {"TimeoutStopUSec": "7s", "CollectMode": "inactive-or-failed",
                     "RuntimeMaxUSec": "10min", "Documentation": '"man:cloche-runtime(8)"'}, shown
    w.runtime("delete", "--force", w.name)
    for name, value, word in (("TimeoutStopUSec", "7 apples", "follows the value"),
                              ("TimeoutStopUSec", "'7'", "type"),
                              ("NoSuchThing", "true", "NoSuchThing"),
                              ("Run-Max", "1", "letters only")):
        w.bundle.config["annotations"] = {f"org.systemd.property.{name}": value}
        w.bundle.write()
        error = w.systemd("run", "-b", w.bundle.path, w.name, code=1).err
        assert word in error and w.unit in error, error
        assert w.runtime.names() == [] and not w.known()


@world
def a_unit_that_failed_is_forgotten(w):
    w.bundle.config["annotations"] = {"org.systemd.property.RuntimeMaxSec": "2",
                                      "org.systemd.property.TimeoutStopSec": "1"}
    w.start()
    wait_for(lambda: w.runtime.status(w.name) == "stopped", timeout=60)
    wait_for(lambda: w.shown("ActiveState")["ActiveState"] == "failed", timeout=60)
    w.systemd("delete", w.name)
    assert not w.known()


@world
def a_name_that_failed_before_is_taken_again(w):
    w.bundle.config["annotations"] = {"org.systemd.property.RuntimeMaxSec": "1",
                                      "org.systemd.property.TimeoutStopSec": "1"}
    w.start()
    wait_for(lambda: w.shown("ActiveState")["ActiveState"] == "failed", timeout=60)
    # The state is lost (a reboot of /run), the unit is not.
    run("rm", "-r", w.runtime.root)
    if cgroup_version() == 1:  # where systemd makes no cgroups, those of the lost container stay
        for folder in sorted(CGROUPS.glob(f"*/{w.name}.slice/**/"), reverse=True):
            subprocess.run(["rmdir", folder], check=False, capture_output=True)
    w.bundle.config["annotations"] = {}
    w.start()
    assert w.shown("ActiveState") == {"ActiveState": "active"}
    # A unit that is active belongs to somebody.
    error = w.systemd("run", "-b", w.bundle.path, w.name + "b", code=1).err
    assert w.unit in error and "already" in error, error
    assert w.shown("ActiveState") == {"ActiveState": "active"}


@v2_world
def what_a_container_makes_below_is_removed(w):
    w.bundle.namespace("cgroup")
    for mount in w.bundle.config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"].remove("ro")
    w.start()
    w.systemd("exec", w.name, "mkdir", "-p", "/sys/fs/cgroup/a/b")
    assert (CGROUPS / w.path / "a/b").is_dir()
    w.runtime("delete", "--force", w.name)
    assert not (CGROUPS / w.path).exists() and not w.known()


@v2_world
def a_cgroup_below_the_scope(w):
    """crun's annotations. The limits stay on the scope; further processes go where the first is."""
    w.bundle.config["annotations"] = {"run.oci.systemd.subgroup": "inner",
                                      "run.oci.delegate-cgroup": "payload"}
    w.bundle.namespace("cgroup")
    w.bundle.resources["pids"] = {"limit": 30}
    w.start()
    assert w.file("pids.max") == "30" and not w.file("cgroup.procs")
    assert w.file("inner/payload/cgroup.procs") == str(w.runtime.state(w.name)["pid"])
    assert w.runtime("exec", w.name, "cat", "/proc/self/cgroup").out == "0::/payload\n"
    assert "payload" in w.runtime("exec", w.name, "ls", "/sys/fs/cgroup").out.split()
    w.runtime("delete", "--force", w.name)
    assert not (CGROUPS / w.path).exists()
    w.bundle.config["annotations"] = {"run.oci.systemd.subgroup": "../x"}
    w.bundle.write()
    result = w.systemd("run", "-d", "-b", w.bundle.path, w.name, code=1)
    assert "run.oci.systemd.subgroup" in result.err, result


@world
def a_foreground_run_leaves_no_unit(w):
    w.bundle.script("echo out; exit 3").write()
    result = w.systemd("run", "-b", w.bundle.path, w.name, code=3)
    assert result.out == "out\n" and not w.known()
    w.bundle.args("/no/such/program")
    w.systemd("run", "-b", w.bundle.path, w.name, code=1)
    assert not w.known() and w.runtime.names() == []


if not SYSTEMD:
    test(without_systemd_the_flag_is_refused)

if __name__ == "__main__":
    main()
