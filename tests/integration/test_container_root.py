"""What an engine puts into the root of every container: programs look there to know that they are in one, and where they
look for mounts. dockerd does the same beside."""

import io
import json
import os
import subprocess
import tarfile

from dockers import Docker as Client
from engines import Docker
from harness import main, test


def entry(tar, name, mode=0o755, content=None, link=None, owner=(0, 0)):
    info = tarfile.TarInfo(name)
    info.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.mode, info.linkname, info.uid, info.gid, info.size = mode, link or "", *owner, len(content or b"")
    tar.addfile(info, io.BytesIO(content or b""))


def programs(tar, images):
    """A shell and what it calls."""
    entry(tar, "bin")
    tar.add(os.path.realpath(images.root() + "/bin/busybox"), "bin/busybox")
    for name in ("sh", "stat", "cat", "rm", "ls", "head", "find", "sort", "sleep", "chmod", "ln", "id"):
        entry(tar, "bin/" + name, link="busybox")


# What images have besides programs.
ROOTS = {
    "bare": [],
    "usual": [("etc", {}), ("etc/passwd", {"content": b"root:x:0:0:::\n", "mode": 0o644})],
    "own": [("etc", {"mode": 0o711, "owner": (5, 6)}), ("etc/mtab", {"content": b"stale\n"}),
            ("etc/hosts", {"content": b"image's\n"}), (".dockerenv", {"content": b"image's\n"})],
    "link": [("conf", {}), ("conf/here", {"content": b"x"}), ("etc", {"link": "conf"})],
    "hostile": [("etc", {}), ("etc/mtab", {"link": "/victim"}), (".dockerenv", {"link": "/victim"}), ("victim", {"content": b"v\n"})],
}


def make_image(images, folder, name):
    path = folder / f"{name}.tar"
    with tarfile.open(path, "w") as tar:
        programs(tar, images)
        for where, what in ROOTS[name]:
            entry(tar, where, **what)
    return path


LOOK = ("stat -c '%a %u %g %s %F %N' /.dockerenv /etc /etc/mtab; "
        "cat /victim 2>&1; ls -A /conf 2>&1; ls -A /etc")
CHANGE = "rm /.dockerenv; echo new > /etc/new; ls -la /etc/mtab > /seen; chmod 700 /etc"


def lines(result):
    return [line for line in result.out.splitlines() if line]


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {(member.name.removeprefix("./").strip("/"), member.type, member.mode & 0o7777, member.linkname) for member in tar}
    return {item for item in found if item[0].split("/")[0] not in ("", ".", "bin", "dev", "proc", "sys")}


def story(call, image):
    """All that is to be the same, whoever runs it."""
    call("create", "--name", "cc", "--network", "none", image, "sh", "-c", CHANGE)
    call("start", "-a", "cc")
    told = {"look": lines(call("run", "--rm", "--network", "none", image, "sh", "-c", LOOK, code=None)),
            "read-only": lines(call("run", "--rm", "--read-only", "--network", "none", image, "stat", "-c", "%a %F", "/.dockerenv")),
            "diff": sorted(lines(call("diff", "cc"))), "export": names(call("export", "cc", text=False).out)}
    call("commit", "cc", "made:1")
    told["again"] = lines(call("run", "--rm", "--network", "none", "made:1", "sh", "-c", LOOK + "; cat /seen | cut -c1-10", code=None))
    with tarfile.open(fileobj=io.BytesIO(call("save", "made:1", text=False).out)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][-1])) as layer:
            told["layer"] = sorted(member.name.removeprefix("./") for member in layer if not member.isdir())
    call("rm", "cc")
    call("rmi", "made:1")
    return told


@test
def the_root_is_as_dockers(instance, images, scratch, unique):
    docker, wrong = Docker(scratch, images, unique, ["--cgroup-parent", f"/{unique}", "--storage-driver", "overlay2"]), []
    try:
        for name in ROOTS:
            archive = make_image(images, scratch, name)
            docker("import", archive, name)
            instance.cloche("import", archive, name)
            theirs, ours = story(docker, name), story(instance.cloche, name)
            wrong += [f"{name}: {key}:\n  ours     {ours[key]}\n  docker's {theirs[key]}" for key in theirs if ours[key] != theirs[key]]
    finally:
        docker.close()
    assert not wrong, "\n".join(wrong)


@test
def it_is_there_for_every_container(instance, images, scratch):
    for name in ("bare", "own"):
        instance.cloche("import", make_image(images, scratch, name), name)
        for options in ((), ("--read-only",), ("--user", "7:7", "--cap-drop", "all"), ("--network", "host")):
            out = instance.cloche("run", "--rm", *options, name, "stat", "-c", "%a %s %N", "/.dockerenv", "/etc/mtab").out
            assert out.replace("'", "").splitlines() == ["755 0 /.dockerenv", "777 12 /etc/mtab -> /proc/mounts"], (options, out)
        # No work of the container, and nothing that a build would find in an image.
        container = instance.cloche("run", "-d", name, "sleep", "1000").out.strip()
        assert instance.cloche("diff", container).out == ""
        instance.cloche("restart", "-t", "0", container)
        assert instance.cloche("diff", container).out == ""
        assert instance.cloche("exec", container, "cat", "/etc/hosts").out.startswith("127.0.0.1\tlocalhost")
        instance.cloche("rm", "-f", container)
        (scratch / "Dockerfile").write_text(f"FROM {name}\nRUN stat /.dockerenv\nFROM scratch\nCOPY --from=0 / /all/\nCOPY --from=0 /bin /bin\n")
        instance.cloche("build", "-t", "copied", scratch)
        found = instance.cloche("run", "--rm", "copied", "find", "/all", "-name", ".dockerenv", "-o", "-name", "mtab").lines
        assert sorted(found) == ([] if name == "bare" else ["/all/.dockerenv", "/all/etc/mtab"]), found
        # Whatever a daemon that was killed left of it, the next one has it whole.
        layer = instance.root / "layers/engine"
        assert layer.is_dir(), layer
    instance.kill_daemon()
    subprocess.run(["rm", "-r", layer / "etc", layer / ".dockerenv"], check=True)
    assert "/.dockerenv" in instance.cloche("run", "--rm", "bare", "ls", "/.dockerenv", "/etc/mtab").out


@test
def aliases_are_for_networks_that_were_made(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    words = "network-scoped alias is supported only for containers in user defined networks"
    for options in (("--network-alias", "x"), ("--network", "bridge", "--network-alias", "x"),
                    ("--network", "host", "--network-alias", "x"), ("--network", "name=bridge,alias=x")):
        assert words in instance.cloche("create", *options, "small:1", code=125).err, options
        assert words in instance.cloche("run", *options, "small:1", "true", code=125).err, options
    assert instance.cloche("ps", "-aq").out == ""
    instance.cloche("network", "create", "mine")
    instance.cloche("run", "-d", "--name", "web", "--network", "mine", "--network-alias", "x", "small:1", "sleep", "1000")
    assert words in instance.cloche("network", "connect", "--alias", "x", "bridge", "web", code=1).err
    client = Client(instance)
    bridge = client.ask("GET", "/networks/bridge")[1]["Id"]
    for network in ("bridge", "default", bridge):
        status, answer = client.ask("POST", "/containers/create", {"Image": "small:1", "NetworkingConfig": {
            "EndpointsConfig": {network: {"Aliases": ["x"]}}}})
        assert (status, answer["message"]) == (400, words), (network, status, answer)
    status, answer = client.ask("POST", "/networks/bridge/connect", {"Container": "web", "EndpointConfig": {"Aliases": ["x"]}})
    assert (status, answer["message"]) == (400, words), answer
    assert client.ask("POST", "/networks/bridge/connect", {"Container": "web", "EndpointConfig": {"Aliases": []}})[0] == 200
    assert client.ask("POST", "/containers/create", {"Image": "small:1", "NetworkingConfig": {
        "EndpointsConfig": {"bridge": {"Aliases": None}}}})[0] == 201


if __name__ == "__main__":
    main()
