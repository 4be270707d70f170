"""The daemon as a service of systemd (contrib/systemd): it comes up, goes and comes back under its containers."""

import os
import pathlib
import time

from harness import PROGRAMS, main, run, test, wait_for

UNITS = pathlib.Path("/run/systemd/system")
SOURCE = pathlib.Path(__file__).resolve().parents[2]


def install(instance):
    """The unit as it is installed, with the programs of this build."""
    text = (SOURCE / "contrib/systemd/cloched@.service.in").read_text().replace("@bindir@", str(PROGRAMS))
    UNITS.mkdir(parents=True, exist_ok=True)
    (UNITS / "cloched@.service").write_text(text)
    drop_in = UNITS / "cloched@.service.d"
    drop_in.mkdir()
    # Nothing else is to come up with it here.
    (drop_in / "build.conf").write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\nEnvironment=" +
        " ".join(f"{name}={value}" for name, value in instance.env.items()) + "\n")
    run("systemctl", "daemon-reload")
    return f"cloched@{instance.name}.service"


def details(instance, name, form):
    return instance.cloche("inspect", "-f", "{{" + form + "}}", name).out.strip()


@test
def the_unit_starts_the_daemon_and_containers_outlive_it(instance, images):
    unit = install(instance)
    run("systemctl", "start", unit)
    assert run("systemctl", "is-active", unit).out == "active\n"
    daemon = wait_for(instance.daemon_pid, what="the daemon runs")
    instance.cloche("load", "-i", images.small("small:1"))
    instance.cloche("run", "-d", "--name", "box", "-m", "64m", "small:1", "sleep", "1000")
    pid = details(instance, "box", ".State.Pid")
    # Not a group of the service: systemd would end it, and count it there.
    assert unit not in pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    # One that is killed is started again by systemd, and has its container.
    os.kill(daemon, 9)
    wait_for(lambda: instance.daemon_pid() not in (None, daemon), what="systemd starts another")
    assert details(instance, "box", ".State.Pid") == pid
    run("systemctl", "restart", unit)
    assert details(instance, "box", ".State.Running") == "true"
    assert details(instance, "box", ".State.Pid") == pid
    # A stop leaves containers alone, and is no failure.
    run("systemctl", "stop", unit)
    time.sleep(0.5)
    assert run("systemctl", "is-failed", unit, code=None).out == "inactive\n"
    os.kill(int(pid), 0)
    run("systemctl", "start", unit)
    instance.cloche("rm", "-f", "box")
    assert instance.cloche("ps", "-aq").out == ""
    run("systemctl", "stop", unit)


if __name__ == "__main__":
    main()
