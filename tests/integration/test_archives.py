"""Images of umoci, buildah, skopeo, podman, containerd and newer dockers: loaded, run, committed, saved, and read back."""

import hashlib
import json
import os
import pathlib
import subprocess
import tarfile

from harness import main, run, test, wait_for


def outputs(instance, image, script):
    """What a shell script prints in a container of the image."""
    return instance.cloche("run", "--rm", image, "sh", "-c", script).out


def load(instance, path):
    """Loads an archive; returns the image's name."""
    out = instance.cloche("load", "-i", path, timeout=400).out
    names = [line.split(": ", 1)[1] for line in out.splitlines() if line.startswith("Loaded image")]
    assert len(names) == 1, out
    return names[0]


def second_layer(root):
    """A change with everything that a layer can say: removed, replaced, opaque, linked, special."""
    (root / "etc/group").unlink()
    (root / "data/old/one").unlink()
    (root / "data/old").rmdir()
    (root / "data/old").mkdir()  # opaque: what was below it is gone
    (root / "data/old/new").write_text("new\n")
    (root / "data/file").unlink()
    (root / "data/file").mkdir()
    (root / "data/file/inside").write_text("a folder where a file was\n")
    (root / "data/setuid").write_text("s")
    os.chown(root / "data/setuid", 1000, 1001)
    os.chmod(root / "data/setuid", 0o4755)
    os.link(root / "data/setuid", root / "data/hard")
    os.symlink("/etc/passwd", root / "data/absolute")
    os.mkfifo(root / "data/fifo")


def two_layers(images, path, name="two:1"):
    def first_layer(root):
        (root / "data/old").mkdir(parents=True)
        (root / "data/old/one").write_text("old\n")
        (root / "data/file").write_text("file\n")
    return images.umoci(path, name, [images.root(), first_layer, second_layer],
                        {"config.cmd": ["/bin/sh", "-c", "cat /data/old/new"],
                         "config.env": "COLOR=green", "config.workingdir": "/data",
                         "config.user": "shop"})


@test
def bars_are_drawn_on_a_terminal(instance, images, scratch):
    with instance.terminal("load", "-i", images.small("small:1")) as terminal:
        terminal.expect(r"[0-9a-f]{12}: Loading layer \[=+\] ([\d.]+[kM]?B)/\1")
        terminal.expect("Loaded image: small:1")
        assert terminal.wait() == 0
    with instance.terminal("save", "-o", scratch / "small.tar", "small:1") as terminal:
        terminal.expect(r"[0-9a-f]{12}: Saving layer \[=+\] ([\d.]+[kM]?B)/\1")
        assert terminal.wait() == 0
    with instance.terminal("load", "-q", "-i", scratch / "small.tar") as terminal:
        terminal.expect("^Loaded image: small:1")
        assert terminal.wait() == 0
    assert instance.cloche("load", "-i", scratch / "small.tar").out == "Loaded image: small:1\n"


@test
def archives_of_every_form_are_loaded_and_run(instance, images):
    for archive in (images.small(), images.docker_archive(), images.recompressed("gzip"),
                    images.recompressed("zstd"), images.recompressed("plain")):
        name = load(instance, archive)
        assert outputs(instance, name, "echo it runs") == "it runs\n", archive
        instance.cloche("rmi", name)


@test
def images_of_buildah_are_loaded_and_run(instance, images, scratch):
    for kind in ("docker-archive", "oci-archive"):
        tar = images.buildah(scratch / f"{kind}.tar", f"localhost/{kind}:1",
                             [("copy", images.root(), "/"), ("run", "/bin/touch", "/made")], kind,
                             ("--cmd", '["/bin/ls", "/made"]', "--env", "A=b c"))
        name = load(instance, tar)
        assert instance.cloche("run", "--rm", name).out == "/made\n"
        assert outputs(instance, name, 'echo "$A"') == "b c\n"


@test
def layers_are_applied_as_their_maker_meant(instance, images, scratch):
    name = load(instance, two_layers(images, scratch / "two.tar"))
    assert instance.cloche("run", "--rm", name).out == "new\n", "the image's command"
    assert outputs(instance, name, "echo $COLOR; pwd; id -un") == "green\n/data\nshop\n"
    assert outputs(instance, name, "ls -A old; cat file/inside; ls /etc/group 2>&1; true") == \
        "new\na folder where a file was\nls: /etc/group: No such file or directory\n"
    assert outputs(instance, name, "stat -c '%a %u %g %h' setuid; stat -c %F fifo; readlink absolute") \
        == "4755 1000 1001 2\nfifo\n/etc/passwd\n"


@test
def a_commit_is_one_more_layer_and_others_read_it(instance, images, scratch):
    name = load(instance, two_layers(images, scratch / "two.tar"))
    instance.cloche("run", "--name", "work", "-u", "root", name, "sh", "-c",
                    "echo kept > /data/kept; rm -r /data/old; rm /data/hard")
    before = json.loads(instance.cloche("inspect", name).out)[0]
    identity = instance.cloche("commit", "work", "shop:2").out.strip()
    assert identity.startswith("sha256:"), identity
    after = json.loads(instance.cloche("inspect", "shop:2").out)[0]
    assert after["RootFS"]["Layers"][:-1] == before["RootFS"]["Layers"]

    assert outputs(instance, "shop:2", "cat /data/kept; ls -A /data") == \
        "kept\nabsolute\nfifo\nfile\nkept\nsetuid\n"
    instance.cloche("save", "-o", scratch / "saved.tar", "shop:2")
    check_by_others(images, scratch / "saved.tar", scratch, len(after["RootFS"]["Layers"]))


def check_by_others(images, saved, scratch, layers):
    """skopeo reads the archive; umoci unpacks it and finds the changes."""
    images.copy(f"docker-archive:{saved}", f"oci:{scratch}/layout:shop")
    facts = images.inspect(f"oci:{scratch}/layout:shop")
    assert len(facts["manifest"]["layers"]) == layers
    assert facts["config"]["config"]["WorkingDir"] == "/data"
    run("umoci", "unpack", "--image", f"{scratch}/layout:shop", scratch / "bundle")
    data = pathlib.Path(scratch / "bundle/rootfs/data")
    assert sorted(os.listdir(data)) == ["absolute", "fifo", "file", "kept", "setuid"]
    assert (data / "kept").read_text() == "kept\n"
    assert (data / "setuid").stat().st_mode & 0o7777 == 0o4755


@test
def what_was_loaded_is_saved_again_unchanged(instance, images, scratch):
    name = load(instance, images.docker_archive())
    instance.cloche("save", "-o", scratch / "again.tar", name)
    def config_digest(path):
        with tarfile.open(path) as tar:
            manifest = json.load(tar.extractfile("manifest.json"))
        return os.path.basename(manifest[0]["Config"]).removesuffix(".json")
    assert config_digest(scratch / "again.tar") == config_digest(images.docker_archive())


@test
def an_image_moves_to_another_instance(instance, other, images, scratch):
    name = load(instance, images.small())
    instance.cloche("save", "-o", scratch / "move.tar", name)
    assert len(other.cloche("images", "-q").lines) == 1, "the image host"
    moved = load(other, scratch / "move.tar")
    assert outputs(other, moved, "echo moved") == "moved\n"
    first, second = (json.loads(each.cloche("inspect", image).out)[0]["Id"]
                     for each, image in ((instance, name), (other, moved)))
    assert first == second


def podman(scratch):
    """podman with a storage of its own, and no trust in what it does not need."""
    policy = scratch / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    options = ["--root", scratch / "podman", "--runroot", scratch / "podman-run", "--storage-driver", "vfs",
               "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--tmpdir", scratch / "podman-tmp"]

    def tool(verb, *words):
        trust = ["--signature-policy", policy] if verb == "load" else []
        return run("podman", *options, verb, *trust, *words, timeout=300)
    return tool


def names_of(out):
    return sorted(line.split(": ", 1)[1] for line in out.splitlines() if line.startswith("Loaded image"))


@test
def podman_and_we_read_each_other_s_archives(instance, images, scratch):
    name, other = load(instance, two_layers(images, scratch / "two.tar")), load(instance, images.small("other:1"))
    instance.cloche("save", "-o", scratch / "ours.tar", name, other)
    tool = podman(scratch)
    tool("load", "-q", "-i", scratch / "ours.tar")
    kept = sorted(tool("images", "--format", "{{.Repository}}:{{.Tag}}").lines)
    assert [word.rsplit("/", 1)[1] for word in kept] == sorted([name, other]), kept
    instance.cloche("rmi", name, other)
    full = next(word for word in kept if word.endswith(name))
    for form in ("docker-archive", "oci-archive"):
        tool("save", "-q", "--format", form, "-o", scratch / f"{form}.tar", full)
        out = instance.cloche("load", "-i", scratch / f"{form}.tar").out
        loaded = names_of(out)[0]
        assert instance.cloche("run", "--rm", loaded).out == "new\n", (form, out)
        assert outputs(instance, loaded, "stat -c '%a %u %g %h' setuid; ls /etc/group 2>&1; true") == \
            "4755 1000 1001 2\nls: /etc/group: No such file or directory\n", form
        instance.cloche("rmi", loaded)
    tool("save", "-q", "-m", "-o", scratch / "both.tar", *kept)
    assert names_of(instance.cloche("load", "-i", scratch / "both.tar").out) == kept


@test
def containerd_and_we_read_each_other_s_archives(instance, images, scratch):
    name = load(instance, two_layers(images, scratch / "two.tar"))
    instance.cloche("tag", name, "docker.io/library/moved:1")
    instance.cloche("save", "-o", scratch / "ours.tar", "moved:1")
    instance.cloche("rmi", name, "moved:1")
    settings, sock = scratch / "containerd.toml", scratch / "containerd.sock"
    settings.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    daemon = subprocess.Popen(["containerd", "--config", settings, "--root", scratch / "containerd",
                               "--state", scratch / "containerd-run", "--address", sock],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ctr(*words, code=0):
        return run("ctr", "--address", sock, *words, code=code, timeout=300)
    try:
        wait_for(lambda: ctr("version", code=None).code == 0, 60, "containerd answers")
        ctr("images", "import", "--no-unpack", scratch / "ours.tar")
        assert "docker.io/library/moved:1" in ctr("images", "ls", "-q").lines
        ctr("images", "export", scratch / "theirs.tar", "docker.io/library/moved:1")
    finally:
        daemon.terminate()
        daemon.wait()
    assert names_of(instance.cloche("load", "-i", scratch / "theirs.tar").out) == ["moved:1"]
    assert instance.cloche("run", "--rm", "moved:1").out == "new\n"


def layout_of(images, folder, name):
    """The small image as an unpacked OCI layout."""
    images.copy(f"oci-archive:{images.small(name)}", f"oci:{folder}:{name}")
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads(blob(folder, index["manifests"][0]).read_text())
    return index, manifest


def blob(folder, descriptor):
    return folder / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")


def add_blob(folder, data, **fields):
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data), **fields}


@test
def archives_of_newer_dockers_are_loaded(instance, images, scratch):
    """From 25 on they are OCI layouts with a manifest.json, of an index that has attestations, too."""
    folder = scratch / "layout"
    index, manifest = layout_of(images, folder, "newer:1")
    platform = {"architecture": "arm64" if os.uname().machine == "aarch64" else "amd64", "os": "linux"}
    statement = add_blob(folder, b'{"_type": "https://in-toto.io/Statement/v0.1"}', mediaType="application/vnd.in-toto+json")
    config = add_blob(folder, b'{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}',
                      mediaType="application/vnd.oci.image.config.v1+json")
    attestation = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                              "config": config, "layers": [statement]}).encode()
    described = {**index["manifests"][0], "platform": platform, "annotations": {}}
    inner = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        described, add_blob(folder, attestation, mediaType="application/vnd.oci.image.manifest.v1+json",
                            platform={"architecture": "unknown", "os": "unknown"},
                            annotations={"vnd.docker.reference.type": "attestation-manifest",
                                         "vnd.docker.reference.digest": described["digest"]})]}).encode()
    top = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        add_blob(folder, inner, mediaType="application/vnd.oci.image.index.v1+json", annotations={
            "io.containerd.image.name": "docker.io/library/newer:1", "org.opencontainers.image.ref.name": "1"})]}
    (folder / "index.json").write_text(json.dumps(top))
    run("tar", "-C", folder, "-cf", scratch / "index.tar", "index.json", "oci-layout", "blobs")
    path = [f"blobs/sha256/{layer['digest'][7:]}" for layer in manifest["layers"]]
    (folder / "manifest.json").write_text(json.dumps([{
        "Config": f"blobs/sha256/{manifest['config']['digest'][7:]}", "RepoTags": ["newer:1"], "Layers": path,
        "LayerSources": {layer["digest"]: layer for layer in manifest["layers"]}}]))
    run("tar", "-C", folder, "-cf", scratch / "newer.tar", "blobs", "index.json", "manifest.json", "oci-layout")
    for archive in ("newer.tar", "index.tar"):
        assert load(instance, scratch / archive) == "newer:1", archive
        assert outputs(instance, "newer:1", "echo it runs") == "it runs\n", archive
        assert (instance.root / "content/sha256" / described["digest"][7:]).exists(), f"{archive}: its own manifest is kept"
        instance.cloche("rmi", "newer:1")


@test
def layers_that_are_not_to_be_distributed_are_loaded_where_they_are(instance, images, scratch):
    folder = scratch / "layout"
    index, manifest = layout_of(images, folder, "foreign:1")
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    manifest["layers"][0]["urls"] = ["http://127.0.0.1:1/never-asked"]
    whole = blob(folder, manifest["layers"][0])
    index["manifests"] = [add_blob(folder, json.dumps(manifest).encode(), mediaType=index["manifests"][0]["mediaType"],
                                   annotations={"io.containerd.image.name": "docker.io/library/foreign:1"})]
    (folder / "index.json").write_text(json.dumps(index))
    run("tar", "-C", folder, "-cf", scratch / "foreign.tar", ".")
    assert load(instance, scratch / "foreign.tar") == "foreign:1"
    assert outputs(instance, "foreign:1", "echo it runs") == "it runs\n"
    instance.cloche("rmi", "foreign:1")
    whole.unlink()
    run("tar", "-C", folder, "-cf", scratch / "foreign.tar", ".")
    result = instance.cloche("load", "-i", scratch / "foreign.tar", code=1)
    assert "does not have layer 1" in result.err, result


@test
def truncated_archives_leave_nothing(instance, images, scratch):
    instance.cloche("images")
    whole = pathlib.Path(images.docker_archive()).read_bytes()
    before = images_and_files(instance)
    for part in (0, 1, 511, 512, 700, 5000, len(whole) // 2, len(whole) * 9 // 10):
        cut = scratch / "cut.tar"
        cut.write_bytes(whole[:part])
        result = instance.cloche("load", "-i", cut, code=None)
        assert result.code == 1 and result.err.strip(), (part, result)
        assert images_and_files(instance) == before, (part, result)


def images_and_files(instance):
    """The list of images, and what the store holds on disk besides the records."""
    files = [str(path.relative_to(instance.root)) for folder in ("content", "layers", "staging")
             for path in (instance.root / folder).glob("**/*")
             if len(path.relative_to(instance.root).parts) <= 3]
    return instance.cloche("images", "--format", "{{.ID}} {{.Tag}}").out, sorted(files)


@test
def damaged_archives_are_refused_with_their_place(instance, images, scratch):
    tar = bytearray(pathlib.Path(images.recompressed("plain")).read_bytes())
    place = tar.index(b"root:x:0:0:root:/root:/bin/sh")  # inside a layer: its digest is wrong now
    tar[place:place + 4] = b"toor"
    (scratch / "damaged.tar").write_bytes(tar)
    result = instance.cloche("load", "-i", scratch / "damaged.tar", code=1)
    assert "digest" in result.err or "sha256" in result.err, result
    result = instance.cloche("load", "-i", "/etc/passwd", code=1)
    assert result.err.strip(), result


@test
def a_container_keeps_its_image(instance, images):
    name = load(instance, images.small())
    instance.cloche("run", "-d", "--name", "user", name, "sleep", "1000")
    result = instance.cloche("rmi", name, code=1)
    assert "user" in result.err or "in use" in result.err or "using" in result.err, result
    instance.cloche("rm", "-f", "user")
    instance.cloche("rmi", name)


if __name__ == "__main__":
    main()
