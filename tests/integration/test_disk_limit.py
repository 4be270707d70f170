"""`--storage-opt size=`: what a container writes is limited, whatever the file system of the machine is."""

import json

from harness import main, run, test, wait_for


def create(instance, name, size, *command):
    return instance.cloche("create", "--name", name, "--storage-opt", f"size={size}", "small:1", *command)


def loops(instance):
    return [line for line in run("losetup", "--list", "--noheadings", "--output", "BACK-FILE").lines
            if str(instance.root) in line]


def free_of_loops(instance):
    wait_for(lambda: not loops(instance), what="no loop device has a file of the instance")


@test
def a_container_cannot_write_more_than_its_size(instance, images):
    instance.cloche("load", "-i", images.small())
    create(instance, "box", "16m", "sh", "-c",
           "dd if=/dev/zero of=/big bs=64k count=1000; echo $?; stat -c %s /big; cat /etc/passwd | head -n 1")
    result = instance.cloche("start", "-a", "box")
    assert "No space left on device" in result.err, result
    code, size, passwd = result.lines
    assert code == "1" and 8 << 20 < int(size) < 16 << 20 and passwd.startswith("root:"), result
    disk = next(instance.root.glob("containers/*/disk"))
    assert disk.stat().st_size == 16 << 20
    free_of_loops(instance)
    instance.cloche("rm", "box")


@test
def it_keeps_its_files_and_can_be_committed_and_counted(instance, images):
    instance.cloche("load", "-i", images.small())
    create(instance, "box", "32m", "sh", "-c", "echo more >>/kept; cat /kept; ls -ld / | cut -c 1-10; sleep 1000")
    instance.cloche("start", "box")
    wait_for(lambda: "drwx" in instance.cloche("logs", "box").out)
    instance.cloche("commit", "box", "running:1")
    instance.cloche("stop", "-t", "0", "box")
    free_of_loops_after_stop = len(loops(instance))
    instance.cloche("start", "box")
    wait_for(lambda: instance.cloche("logs", "box").out.count("more") == 3)
    instance.kill_daemon()
    instance.cloche("exec", "box", "sh", "-c", "echo again >>/kept")
    instance.cloche("stop", "-t", "0", "box")
    instance.cloche("commit", "box", "stopped:1")
    assert instance.cloche("run", "--rm", "running:1", "cat", "/kept").out == "more\n"
    assert instance.cloche("run", "--rm", "stopped:1", "cat", "/kept").out == "more\nmore\nagain\n"
    sizes = json.loads(instance.cloche("ps", "-a", "-s", "--format", "{{json .Size}}").out)
    assert sizes.startswith("16B"), sizes
    instance.cloche("rm", "box")
    free_of_loops(instance)
    assert free_of_loops_after_stop <= 1


@test
def one_that_removes_itself_takes_its_disk_along(instance, images):
    instance.cloche("load", "-i", images.small())
    assert instance.cloche("run", "--rm", "--storage-opt", "size=16m", "small:1",
                           "sh", "-c", "echo x >/x; sync; cat /x").out == "x\n"
    wait_for(lambda: not list((instance.root / "containers").iterdir()), what="it is removed")
    free_of_loops(instance)


@test
def sizes_that_are_none_are_refused(instance, images):
    instance.cloche("load", "-i", images.small())
    for option, told in (("size=much", "invalid size"), ("size=1m", "too small"), ("inodes=7", "unknown option inodes")):
        refused = instance.cloche("run", "--storage-opt", option, "small:1", "true", code=125)
        assert told in refused.err, refused
    assert instance.cloche("ps", "-aq").out == ""
    assert not list((instance.root / "containers").iterdir())


@test
def a_killed_daemon_leaves_no_mount_behind(instance, images):
    instance.cloche("load", "-i", images.small())
    create(instance, "box", "16m", "touch", "/x")
    instance.cloche("start", "-a", "box")
    instance.cloche("commit", "box", "made:1")  # leaves it mounted
    assert [line for line in open("/proc/self/mountinfo") if f" {instance.root}/containers/" in line]
    instance.kill_daemon()
    instance.start_daemon()
    assert not [line for line in open("/proc/self/mountinfo") if f" {instance.root}/containers/" in line]
    free_of_loops(instance)


if __name__ == "__main__":
    main()
