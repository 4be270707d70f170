"""`--device-usb`: nodes of USB devices in running containers. Natively the kernel has no USB: what it
would show below /sys/bus/usb is laid over /sys/bus, descriptors included, and looked at when the
daemon starts; nodes, device rules and containers are the kernel's own. A node that may be used
gives ENXIO here (no driver has its number), one that may not EPERM. With real devices:
tests/vm/test_usb_device.py."""

import json
import pathlib
import subprocess

from harness import main, run, test, wait_for

BUS = pathlib.Path("/sys/bus")
# USB 2.0, 9.6: a device of class "vendor", and one configuration with one interface of the same.
DEVICE = bytes.fromhex("12010002ff000040 34127856 0001 0102 03 01".replace(" ", ""))
CONFIGURATION = bytes.fromhex("0902 1200 0101 00 8032 0904 0000 00 ff0000 00".replace(" ", ""))
STICK = bytes.fromhex("0902 1200 0101 00 8032 0904 0000 00 080650 00".replace(" ", ""))


class Machine:
    """What the kernel would show of its ports."""

    def __init__(self):
        run("mount", "-t", "tmpfs", "none", BUS)
        self.devices = BUS / "usb/devices"
        self.devices.mkdir(parents=True)

    def plug_in(self, number, port="1-1", serial="S-1", device=DEVICE, configuration=CONFIGURATION):
        folder = self.devices / port
        folder.mkdir()
        for name, text in (("serial", serial), ("busnum", "1"), ("devnum", str(number)),
                           ("dev", f"189:{number - 1}"), ("bConfigurationValue", "1"), ("speed", "480")):
            (folder / name).write_text(text + "\n")
        (folder / "descriptors").write_bytes(device + configuration)

    def pull_out(self, port="1-1"):
        run("rm", "-r", self.devices / port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run("umount", "--lazy", BUS)  # the daemon has it open


def configure(instance, scratch, **settings):
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"usb": settings}))
    path.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(path)


def start(instance, images, *options, name="shop"):
    instance.cloche("load", "-q", "-i", images.small())
    instance.cloche("run", "-d", "--name", name, *options, "small:1", "sleep", "1000")


def sh(instance, command, name="shop", **options):
    return instance.cloche("exec", name, "sh", "-c", command, **options)


def node(number):
    return f"/dev/bus/usb/001/{number:03}"


def opened(instance, path, name="shop"):
    """What opening it gives."""
    return sh(instance, f": < {path}", name, code=None).err


def is_usable(instance, number, name="shop"):
    return "No such device or address" in opened(instance, node(number), name)


def is_gone(instance, number, name="shop"):
    return sh(instance, f"test -e {node(number)}", name, code=None).code == 1


def look_again(instance):
    """Here without uevents: the next daemon looks."""
    instance.kill_daemon()
    instance.start_daemon()


def passed(instance, port="1-1"):
    return json.loads(instance.cloche("usb", "inspect", port).out)[0].get("passedTo", [])


def refused(instance, number, name="shop"):
    """It stays without the node, also with one of its own making."""
    sh(instance, f"mkdir -p /own; test -e /own/{number} || mknod /own/{number} c 189 {number - 1}", name)
    return is_gone(instance, number, name) and \
        "Operation not permitted" in opened(instance, f"/own/{number}", name)


@test
def a_device_comes_and_goes_with_its_node_and_its_rule(instance, images, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        start(instance, images, "--device-usb", "1234:5678:S-1")
        start(instance, images, name="other")
        assert refused(instance, 2)
        machine.plug_in(2)
        look_again(instance)
        wait_for(lambda: is_usable(instance, 2), what="the device in the container")
        assert sh(instance, f"stat -c '%F %t:%T %u %a' {node(2)}").out == "character special file bd:1 0 666\n"
        assert len(passed(instance)) == 1
        assert refused(instance, 2, "other")
        machine.pull_out()
        machine.plug_in(9)
        look_again(instance)
        wait_for(lambda: is_usable(instance, 9), what="it is there again")
        assert refused(instance, 2)
        machine.pull_out()
        machine.plug_in(10, serial="S-2")
        look_again(instance)
        wait_for(lambda: is_gone(instance, 9), what="nothing left of it")
        assert refused(instance, 9) and refused(instance, 10)


@test
def it_is_there_after_restarts(instance, images, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2)
        start(instance, images, "--device-usb", "1234:5678", "--restart", "always")
        wait_for(lambda: is_usable(instance, 2))
        look_again(instance)
        assert is_usable(instance, 2)  # it was never away
        wait_for(lambda: len(passed(instance)) == 1)
        instance.cloche("restart", "-t", "0", "shop")
        wait_for(lambda: is_usable(instance, 2), what="the device after a restart")
        pid = instance.cloche("inspect", "--format", "{{.State.Pid}}", "shop").out.strip()
        instance.kill_daemon()
        subprocess.run(["kill", "-9", pid], check=True)
        instance.start_daemon()
        wait_for(lambda: is_usable(instance, 2), what="the device after a restart by its monitor")


@test
def what_is_put_in_its_place_keeps_no_right(instance, images, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2)
        start(instance, images, "--device-usb", "1234:5678")
        wait_for(lambda: is_usable(instance, 2))
        sh(instance, f"mknod /own c 189 1; rm {node(2)}; echo mine > {node(2)}")
        assert "No such device or address" in opened(instance, "/own")
        machine.pull_out()
        look_again(instance)
        wait_for(lambda: "Operation not permitted" in opened(instance, "/own"), what="the right taken back")
        assert sh(instance, f"cat {node(2)}").out == "mine\n"


@test
def the_policy_applies(instance, images, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2)
        start(instance, images, "--device-usb", "1234:5678")
        wait_for(lambda: is_usable(instance, 2))
        rule = instance.cloche("usb", "policy", "--vendor", "1234", "add", "deny").out.strip()
        wait_for(lambda: refused(instance, 2), what="taken back by a rule")
        assert passed(instance) == []
        events = instance.cloche("events", "--since", "10m", "--until", "0s", "--filter", "type=usb",
                                 "--format", "json").out
        assert '"device-refused"' in events and "the policy denies it" in events, events
        instance.cloche("usb", "policy", "rm", rule)
        wait_for(lambda: is_usable(instance, 2), what="given again")


@test
def a_stick_is_passed_or_served(instance, images, scratch):
    configure(instance, scratch)
    with Machine() as machine:
        machine.plug_in(2, device=DEVICE.replace(b"\xff", b"\0", 1), configuration=STICK)
        start(instance, images, "--device-usb", "1234:5678")
        wait_for(lambda: is_usable(instance, 2))
        assert "has the device itself" in instance.cloche("usb", "attach", "1-1", code=1).err
        assert is_usable(instance, 2)


@test
def what_cannot_be_had_is_said(instance, images, scratch):
    instance.cloche("load", "-q", "-i", images.small())
    assert "VENDOR:PRODUCT" in instance.cloche("create", "--device-usb", "nonsense", "small:1", code=125).err
    assert "does not look at" in instance.cloche("create", "--device-usb", "1234:5678", "small:1", code=125).err


if __name__ == "__main__":
    main()
