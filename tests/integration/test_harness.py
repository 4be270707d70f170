"""The harness itself: it must see what a test leaves behind, and the image makers must work."""

import os
import subprocess
import tarfile

from harness import Outside, http_get, main, run, test, wait_for
from leftovers import Machine
import leftovers


def seen(machine, words=()):
    """The leftovers, found at once and cleaned."""
    old, leftovers.SETTLE = leftovers.SETTLE, 0.2
    try:
        return "\n".join(machine.leftovers(list(words)))
    finally:
        leftovers.SETTLE = old


@test
def leftovers_of_every_kind_are_seen(unique, scratch):
    before = Machine.snapshot()
    assert seen(before) == ""
    run("ip", "link", "add", "left0", "type", "bridge")
    run("nft", "add", "table", "inet", "left")
    run("mount", "-t", "tmpfs", "none", scratch)
    sleeper = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    os.mkdir(f"/run/{unique}")
    hierarchy = next(line.split()[4] for line in open("/proc/self/mountinfo")
                     if line.split(" - ")[1].split()[0] in ("cgroup", "cgroup2"))
    os.mkdir(f"{hierarchy}/{unique}")
    wait_for(lambda: os.readlink(f"/proc/{sleeper.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
    text = seen(before, [unique])
    sleeper.wait()
    for kind in ("mount: ", "link: left0", "nftables table: inet left", "process: ",
                 "network namespace: ", f"file: /run/{unique}", f"cgroup: {hierarchy}/{unique}"):
        assert kind in text, f"{kind!r} not in {text!r}"
    assert seen(before, [unique]) == "", "the harness cleans what it has seen"


@test
def another_machine_reaches_this_one():
    server = subprocess.Popen(["busybox", "httpd", "-f", "-p", "8080", "-h", "/etc"])
    with Outside() as outside:
        assert http_get("127.0.0.1", 8080, "/hostname") == open("/etc/hostname").read()
        assert outside.http_get(8080, "/hostname") == open("/etc/hostname").read()
    server.kill()
    server.wait()


@test
def images_by_umoci_buildah_and_skopeo(images, scratch):
    def second_layer(root):
        (root / "etc/motd").write_text("hello\n")
        (root / "etc/group").unlink()
    two = images.umoci(scratch / "two.tar", "two:1", [images.root(), second_layer],
                       {"config.cmd": ["/bin/sh", "-c", "cat /etc/motd"], "config.env": "A=1"})
    facts = images.inspect(f"oci-archive:{two}")
    assert len(facts["manifest"]["layers"]) == 2
    assert facts["config"]["config"]["Cmd"] == ["/bin/sh", "-c", "cat /etc/motd"]

    images.buildah(scratch / "b.tar", "localhost/b:1", [("copy", images.root(), "/"),
                                                        ("run", "/bin/touch", "/made")],
                   config=("--cmd", "/bin/true"))
    with tarfile.open(scratch / "b.tar") as tar:
        assert "manifest.json" in tar.getnames()

    for form, media in (("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("plain", "tar")):
        layer = images.inspect(f"oci-archive:{images.recompressed(form)}")["manifest"]["layers"][0]
        assert layer["mediaType"].endswith("layer.v1." + media), (form, layer)
    assert os.path.getsize(images.docker_archive()) > 100000


if __name__ == "__main__":
    main()
