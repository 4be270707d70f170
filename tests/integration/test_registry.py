#!/usr/bin/env python3
"""Pull, push, search, login: with Debian's docker-registry, and skopeo beside us."""

import json
import os
import stat
import threading

from harness import main, program, run, test, wait_for
from registries import (INDEX, Liar, Made, Registry, config, digest_of, image_ids, noise, tar_of,
                        use_credentials)


def shop(images):
    """Several layers, with whiteouts and folders that have no entry of their own."""
    return images.umoci(images.folder / "shop.tar", "shop:1", [
        images.root(),
        lambda root: (root / "etc/shop").write_bytes(noise(300000, 1)),
        lambda root: ((root / "etc/shop").unlink(), (root / "var/till").write_text("9\n")),
    ], {"config.cmd": ["/bin/sh"]})


# ---------------------------------------------------------------- pull

@test
def an_image_is_pulled_and_runs(instance, images, scratch):
    with Registry(scratch) as registry:
        registry.fill(shop(images), "lib/shop:1")
        result = instance.cloche("pull", f"{registry.name}/lib/shop:1")
        assert result.lines[0] == "1: Pulling from lib/shop", result
        assert sum(line.endswith(": Pull complete") for line in result.lines) == 3, result
        assert result.lines[-2] == f"Status: Downloaded newer image for {registry.name}/lib/shop:1"
        assert result.lines[-1] == f"{registry.name}/lib/shop:1"
        wanted = run("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
                     f"docker://{registry.name}/lib/shop:1").out.strip()
        assert result.lines[-3] == f"Digest: {wanted}", result
        run_result = instance.cloche("run", "--rm", f"{registry.name}/lib/shop:1", "sh", "-c",
                                     "cat /var/till; ls /etc/shop", code=1)
        assert run_result.out == "9\n", run_result
        again = instance.cloche("pull", f"{registry.name}/lib/shop:1")
        assert "Status: Image is up to date" in again.out and "Already exists" in again.out, again
        instance.cloche("run", "--rm", f"{registry.name}/lib/shop@{wanted}", "true")
        assert instance.cloche("image", "inspect", "-f", "{{json .RepoDigests}}",
                               f"{registry.name}/lib/shop:1").out.strip() == \
            json.dumps([f"{registry.name}/lib/shop@{wanted}"])


@test
def run_gets_what_is_missing(instance, images, scratch):
    with Registry(scratch) as registry:
        registry.fill(images.small(), "small:1")
        name = f"{registry.name}/small:1"
        result = instance.cloche("run", "--rm", name, "echo", "here")
        assert result.out == "here\n" and "Unable to find image" in result.err, result
        instance.cloche("rmi", name)
        refused = instance.cloche("run", "--rm", "--pull", "never", name, "true", code=125)
        assert "No such image" in refused.err, refused
        instance.cloche("create", "--pull", "always", "-q", name)


@test
def layers_are_shared_and_fetched_once(instance, images, scratch):
    base = tar_of({"etc": None, "etc/base": noise(200000, 2)})
    with Liar(Made([base, tar_of({"etc/one": b"1"})])) as first, \
            Liar(Made([base, tar_of({"etc/two": b"2"}), base])) as second:
        instance.cloche("pull", f"{first.name}/one")
        out = instance.cloche("pull", f"{second.name}/two").out
        assert not second.blob_requests(second.image.layers[0]["digest"])
        assert out.count("Already exists") == 1, out
        instance.cloche("rmi", f"{first.name}/one")
        instance.cloche("create", "--name", "two", f"{second.name}/two", "x")


@test
def plain_and_zstd_layers_and_the_platform_of_an_index(instance, scratch):
    zstd = lambda tar: run("zstd", "-q", "-c", input=tar, text=False).out
    tar = tar_of({"bin": None, "bin/file": noise(100000, 3)})
    made = {"amd64": Made([tar], pack=zstd, kind="+zstd"),
            "arm64": Made([tar], pack=bytes, kind="", architecture="arm64")}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": len(image.manifest),
         "digest": digest_of(image.manifest), "platform": {"os": "linux", "architecture": name}}
        for name, image in made.items()]}).encode()
    with Liar(made["amd64"]) as liar:
        liar.image.blobs.update(made["arm64"].blobs)
        liar.manifests = {digest_of(image.manifest): (image.manifest,
                          "application/vnd.oci.image.manifest.v1+json") for image in made.values()}
        liar.manifests["latest"] = (index, INDEX)
        other = "arm64" if os.uname().machine == "x86_64" else "amd64"
        own = "amd64" if other == "arm64" else "arm64"
        assert f"Digest: {digest_of(index)}" in instance.cloche("pull", f"{liar.name}/x").out
        assert image_ids(instance)[f"{liar.name}/x:latest"] == made[own].id
        instance.cloche("pull", "--platform", f"linux/{other}", f"{liar.name}/x")
        assert image_ids(instance)[f"{liar.name}/x:latest"] == made[other].id
        refused = instance.cloche("pull", "--platform", "linux/s390x", f"{liar.name}/x", code=1)
        assert "no matching manifest for linux/s390x" in refused.err, refused
        before = len(liar.requests)
        refused = instance.cloche("pull", "--platform", "foobar", f"{liar.name}/x", code=1)
        assert '"foobar": unknown operating system or architecture' in refused.err, refused
        assert len(liar.requests) == before, "nobody is asked for what cannot be"
        instance.cloche("pull", "--platform", "aarch64" if other == "arm64" else "x86_64", f"{liar.name}/x")
        assert image_ids(instance)[f"{liar.name}/x:latest"] == made[other].id


@test
def bars_are_drawn_on_a_terminal(instance, scratch):
    with Liar(Made([tar_of({"data": noise(3000000, 1)})])) as liar:
        go = threading.Event()

        def crawl(handler, digest, body):
            if digest != liar.image.layers[0]["digest"]:
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            # In small pieces: what comes at once is told of once, or not at all.
            sent = 0
            while sent < 2000000 and not go.wait(0.05):
                handler.wfile.write(body[sent:sent + 10000])
                sent += 10000
            handler.wfile.write(body[sent:])
            return True
        liar.hooks["blob"] = crawl
        with instance.terminal("pull", f"{liar.name}/x") as terminal:
            terminal.expect(r"Downloading \[=*> *\] [\d.]+[kM]B/3(\.\d+)?MB")
            go.set()
            terminal.expect("Pull complete")
            assert terminal.wait() == 0


@test
def neither_the_daemon_nor_its_door_links_what_reads_archives_or_talks_to_registries():
    for name in ("cloched", "cloche-door"):
        needed = run("readelf", "-d", program(name)).out
        assert "Dynamic section" in needed, needed
        for library in ("libcurl", "libarchive", "libssl", "libcrypto"):
            assert library not in needed, (name, needed)
    assert "libcurl" in run("readelf", "-d", program("cloche-registry")).out


@test
def all_tags_are_pulled(instance, images, scratch):
    with Registry(scratch) as registry:
        for tag in ("1", "2", "old"):
            registry.fill(images.small(), f"small:{tag}")
        instance.cloche("pull", "-q", "-a", f"{registry.name}/small")
        assert {name.rpartition(":")[2] for name in image_ids(instance)
                if name.startswith(registry.name)} == {"1", "2", "old"}
        refused = instance.cloche("pull", "-a", f"{registry.name}/small:1", code=1)
        assert "--all-tags" in refused.err, refused
    with Liar(Made([tar_of({"a": b"1"})])) as liar:
        def pages(handler, query):
            last = int(query.get("last", ["0"])[0])
            link = {"Link": f'</v2/x/tags/list?last={last + 2}&n=2>; rel="next"'} if last < 4 else {}
            liar.send(handler, 200, json.dumps({"tags": [str(last), str(last + 1)]}).encode(),
                      **link)
        liar.hooks["tags"] = pages
        instance.cloche("pull", "-q", "-a", f"{liar.name}/x")
        assert {name.rpartition(":")[2] for name in image_ids(instance)
                if name.startswith(liar.name)} == set("012345")


@test
def mirrors_come_first_and_without_credentials(instance, images, scratch):
    image = Made([tar_of({"a": noise(5000, 4)})])
    with Liar(image) as mirror, Liar(image) as registry:
        config(instance, scratch, hosts={
            registry.name: {"mirrors": [f"http://{mirror.name}"], "url": f"http://{registry.name}"}})
        use_credentials(instance, scratch, {"auths": {registry.name: {"auth": "c2hvcDp4"}}})
        mirror.token = "never"
        mirror.credentials = "nobody:else"
        instance.cloche("pull", f"{registry.name}/a:1")
        assert mirror.requests and registry.requests
        assert all("Authorization" not in headers for _, _, headers in mirror.requests)
        mirror.token = None
        before = len(registry.requests)
        instance.cloche("pull", f"{registry.name}/a:2")
        assert len(registry.requests) == before, "the mirror had it"


@test
def a_mirror_that_breaks_in_a_layer_is_left_for_the_registry(instance, scratch):
    image = Made([tar_of({"a": noise(5000, 4)}), tar_of({"b": noise(5000, 5)})])
    def broken(handler, digest, body):
        if digest not in {layer["digest"] for layer in image.layers}:
            return False
        handler.send_response(404)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True
    with Liar(image) as mirror, Liar(image) as registry:
        config(instance, scratch, hosts={
            registry.name: {"mirrors": [f"http://{mirror.name}"], "url": f"http://{registry.name}"}})
        mirror.hooks["blob"] = broken
        instance.cloche("pull", f"{registry.name}/a:1")
        assert mirror.requests and registry.requests


# ---------------------------------------------------------------- push

@test
def what_is_pushed_is_what_others_pull(instance, images, scratch):
    with Registry(scratch) as registry:
        instance.cloche("load", "-q", "-i", shop(images))
        instance.cloche("tag", "shop:1", f"{registry.name}/lib/shop:9")
        result = instance.cloche("push", f"{registry.name}/lib/shop:9")
        assert result.lines[0] == f"The push refers to repository [{registry.name}/lib/shop]"
        assert sum(line.endswith(": Pushed") for line in result.lines) == 3, result
        digest = run("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
                     f"docker://{registry.name}/lib/shop:9").out.strip()
        assert result.lines[-1].startswith(f"9: digest: {digest} size: "), result
        run("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false",
            f"docker://{registry.name}/lib/shop:9", f"dir:{scratch}/copy")
        instance.cloche("rmi", f"{registry.name}/lib/shop:9", "shop:1")
        instance.cloche("pull", "-q", f"{registry.name}/lib/shop:9")
        again = instance.cloche("push", f"{registry.name}/lib/shop:9")
        assert again.out.count("Layer already exists") == 3, again


@test
def layers_are_mounted_from_other_repositories(instance, images, scratch):
    with Registry(scratch) as registry:
        instance.cloche("load", "-q", "-i", images.small())
        instance.cloche("tag", "small:1", f"{registry.name}/first:1")
        instance.cloche("tag", "small:1", f"{registry.name}/second/deep:1")
        instance.cloche("push", "-q", f"{registry.name}/first:1")
        result = instance.cloche("push", f"{registry.name}/second/deep:1")
        assert "Mounted from first" in result.out, result


@test
def plain_layers_are_packed_and_large_ones_go_in_chunks(instance, images, scratch):
    with Registry(scratch) as registry:
        instance.cloche("load", "-q", "-i", images.small())
        instance.cloche("run", "--name", "big", "small:1", "sh", "-c",
                        "dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null; md5sum /big")
        wanted = instance.cloche("logs", "big").out
        instance.cloche("commit", "big", f"{registry.name}/big:1")
        instance.cloche("push", "-q", f"{registry.name}/big:1")
        manifest = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false",
                                  f"docker://{registry.name}/big:1").out)
        assert all(layer["mediaType"].endswith("gzip") for layer in manifest["layers"]), manifest
        instance.cloche("rm", "big")
        instance.cloche("rmi", f"{registry.name}/big:1", "small:1")
        assert instance.cloche("run", "--rm", f"{registry.name}/big:1", "md5sum", "/big").out == \
            wanted
        instance.cloche("tag", f"{registry.name}/big:1", f"{registry.name}/big:2")
        assert instance.cloche("push", "-q", "-a", f"{registry.name}/big").out.split() == \
            [f"{registry.name}/big:1", f"{registry.name}/big:2"]


@test
def what_cannot_be_pushed_is_refused(instance, scratch):
    missing = instance.cloche("push", "127.0.0.1:1/none:1", code=1)
    assert "does not exist locally with the tag: 127.0.0.1:1/none" in missing.err, missing
    instance.cloche("tag", "host", "127.0.0.1:1/mine")
    base = instance.cloche("push", "127.0.0.1:1/mine", code=1)
    assert "cannot be pushed" in base.err, base


# ---------------------------------------------------------------- credentials and TLS

@test
def login_is_kept_and_used_and_forgotten(instance, images, scratch):
    with Registry(scratch, password="mint", tls=True) as registry:
        certificates = scratch / "certs.d"
        (certificates / registry.name).mkdir(parents=True)
        (certificates / registry.name / "ca.crt").write_bytes(
            (registry.folder / "cert.pem").read_bytes())
        config(instance, scratch, certificates=[str(certificates)])
        path = use_credentials(instance, scratch, {"detachKeys": "ctrl-x", "auths": {}})
        registry.fill(images.small(), "small:1")
        name = f"{registry.name}/small:1"
        refused = instance.cloche("pull", name, code=1)
        assert "unauthorized" in refused.err and "cloche login" in refused.err, refused
        wrong = instance.cloche("login", "-u", "shop", "--password-stdin", registry.name,
                                input="salt\n", code=1)
        assert "unauthorized" in wrong.err and "auth" not in json.loads(path.read_text())["auths"]
        instance.cloche("login", "-u", "shop", "--password-stdin", registry.name, input="mint\n")
        document = json.loads(path.read_text())
        assert document["detachKeys"] == "ctrl-x" and \
            document["auths"][registry.name]["auth"] == "c2hvcDptaW50", document
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        instance.cloche("pull", "-q", name)
        run("skopeo", "inspect", "--tls-verify=false", "--authfile", path, f"docker://{name}")
        again = instance.cloche("login", registry.name)
        assert "existing credentials" in again.out and "Login Succeeded" in again.out, again
        instance.cloche("tag", name, f"{registry.name}/small:2")
        instance.cloche("push", "-q", f"{registry.name}/small:2")
        assert "Removing login" in instance.cloche("logout", registry.name).out
        assert "Not logged in" in instance.cloche("logout", registry.name).out
        instance.cloche("pull", name, code=1)


@test
def a_certificate_of_a_stranger_is_refused(instance, images, scratch):
    with Registry(scratch, tls=True) as registry, Registry(scratch, tls=True) as other:
        certificates = scratch / "certs.d"
        (certificates / registry.name).mkdir(parents=True)
        (certificates / registry.name / "ca.crt").write_bytes(
            (other.folder / "cert.pem").read_bytes())
        config(instance, scratch, certificates=[str(certificates)])
        registry.fill(images.small(), "small:1")
        other.fill(images.small(), "small:1")
        refused = instance.cloche("pull", f"{registry.name}/small:1", code=1)
        assert "certificate" in refused.err, refused
        # Loopback without an authority of its own: as docker.
        instance.cloche("pull", "-q", f"{other.name}/small:1")


@test
def a_helper_keeps_what_the_file_does_not(instance, images, scratch):
    with Registry(scratch, password="mint") as registry:
        helper = scratch / "docker-credential-drawer"
        helper.write_text(f"""#!/bin/sh
set -e
cd {scratch}
case $1 in
store) cat > drawer; id -u > helper-uid;;
get) read server || true; test -s drawer || {{ echo "credentials not found in native keychain"; exit 1; }}; cat drawer;;
erase) rm drawer;;
esac
""")
        os.chmod(helper, 0o755)
        config(instance, scratch)
        path = use_credentials(instance, scratch, {"credHelpers": {registry.name: "drawer"}})
        instance.env["PATH"] = f"{scratch}:{os.environ['PATH']}"
        registry.fill(images.small(), "small:1")
        instance.cloche("pull", f"{registry.name}/small:1", code=1)
        instance.cloche("login", "-u", "shop", "-p", "mint", registry.name)
        assert json.loads((scratch / "drawer").read_text()) == {
            "ServerURL": registry.name, "Username": "shop", "Secret": "mint"}
        assert json.loads(path.read_text())["auths"] == {registry.name: {}}
        instance.cloche("pull", "-q", f"{registry.name}/small:1")
        instance.cloche("logout", registry.name)
        assert not (scratch / "drawer").exists()


@test
def tokens_come_from_the_service_that_the_registry_names(instance, scratch):
    image = Made([tar_of({f"f{i}": noise(20000, i)}) for i in range(6)])
    with Liar(image) as liar:
        liar.token = "one"
        liar.credentials = "shop:mint"
        config(instance, scratch)
        refused = instance.cloche("pull", f"{liar.name}/a", code=1)
        assert "token service refuses access" in refused.err, refused
        use_credentials(instance, scratch, {"auths": {liar.name: {"auth": "c2hvcDptaW50"}}})
        instance.cloche("pull", "-q", f"{liar.name}/a")
        assert liar.tokens_given == 1
        # docker's web login has other keys of the same server, which are none of the registry.
        instance.cloche("rmi", f"{liar.name}/a")
        config(instance, scratch, hosts={"docker.io": {"url": f"http://{liar.name}"}})
        use_credentials(instance, scratch, {"auths": {
            "https://index.docker.io/v1/access-token": {"auth": "c2hvcDpzYWx0"},
            "https://index.docker.io/v1/": {"auth": "c2hvcDptaW50"}}})
        instance.cloche("rpc", "call", "system.shutdown")
        wait_for(lambda: not instance.processes())
        instance.cloche("pull", "-q", "a")
        instance.cloche("rmi", "a")
        liar.requests[:] = [request for request in liar.requests if "library" not in request[1]]
        config(instance, scratch)
        use_credentials(instance, scratch, {"auths": {liar.name: {"auth": "c2hvcDptaW50"}}})
        instance.cloche("pull", "-q", f"{liar.name}/a")
        asked = [path for _, path, _ in liar.requests if path.startswith("/token")][-1]
        assert "scope=repository%3Aa%3Apull" in asked and "service=liar" in asked, asked

        def expire(handler, digest, body):
            liar.token = "two"
            return False
        liar.hooks["blob"] = expire
        instance.cloche("rmi", f"{liar.name}/a")
        instance.cloche("pull", "-q", f"{liar.name}/a")


@test
def secrets_are_in_no_argument_environment_or_log(instance, images, scratch):
    with Registry(scratch, password="peppermint") as registry:
        config(instance, scratch)
        registry.fill(images.small(), "small:1")
        instance.cloche("login", "-u", "shop", "--password-stdin", registry.name,
                        input="peppermint\n")
        instance.cloche("pull", "-q", f"{registry.name}/small:1")
        for folder in (instance.root, instance.run_folder):
            assert run("grep", "-r", "-l", "peppermint", folder, code=None).out == ""


# ---------------------------------------------------------------- search

@test
def search_looks_through_the_catalogue_or_asks_the_index(instance, images, scratch):
    with Registry(scratch) as registry, Liar() as hub:
        for name in ("till/one", "till/two", "other"):
            registry.fill(images.small(), f"{name}:1")
        found = instance.cloche("search", "--format", "{{.Name}}", f"{registry.name}/till")
        assert found.lines == [f"{registry.name}/till/one", f"{registry.name}/till/two"], found

        def answer(handler, query):
            assert query["q"] == ["busy box"]
            hub.send(handler, 200, json.dumps({"num_results": 2, "results": [
                {"name": "busybox", "description": "small\x1b[31m", "star_count": 99,
                 "is_official": True, "is_automated": False},
                {"name": "me/busybox", "description": "mine", "star_count": 1}]}).encode())
        hub.hooks["search"] = answer
        config(instance, scratch, hosts={"docker.io": {"searchUrl": f"http://{hub.name}"}})
        instance.cloche("rpc", "call", "system.shutdown")
        wait_for(lambda: not instance.processes())
        result = instance.cloche("search", "busy box")
        assert result.lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]
        assert result.lines[1].split() == ["busybox", "small", "[31m", "99", "[OK]"], result
        only = instance.cloche("search", "-f", "stars=5", "--format", "{{.Name}}", "busy box")
        assert only.lines == ["busybox"], only


if __name__ == "__main__":
    main()
