#!/usr/bin/env python3
"""Registries through the Docker Engine API: what a pull and a push tell of each layer, in dockerd's words, and what a
registry has under a name."""

import base64
import json
import sys
import threading

from dockers import Docker, dechunk
from harness import main, test
from registries import INDEX, MANIFEST, Liar, Made, Registry, config, digest_of, noise, tar_of


def lines_of(docker, method, path, auth=None):
    """Status, and the documents of an answer of many lines."""
    headers = f"X-Registry-Auth: {auth}\r\n" if auth else ""
    answer = docker.raw(f"{method} /v1.41{path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{headers}"
                        "Content-Length: 0\r\n\r\n".encode(), end=False)
    head, _, body = answer.partition(b"\r\n\r\n")
    body = dechunk(body) if b"chunked" in head else body
    return int(head.split()[1]), [json.loads(line) for line in body.split(b"\r\n") if line.strip()]


def steps_of(lines, item):
    steps = []
    for line in lines:
        if line.get("id") == item and line["status"] not in steps:
            steps.append(line["status"])
    return steps


def auth(**words):
    return base64.urlsafe_b64encode(json.dumps(words).encode()).decode()


def image_archive(layers, name):
    """A docker-archive of plain layers, each named by its digest."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}}).encode()
    paths = [f"blobs/sha256/{digest_of(blob).split(':')[1]}" for blob in [*layers, config]]
    manifest = json.dumps([{"Config": paths[-1], "RepoTags": [name], "Layers": paths[:-1]}]).encode()
    return tar_of(dict(zip([*paths, "manifest.json"], [*layers, config, manifest])))


@test
def a_pull_tells_of_each_layer(instance, images, scratch):
    layers = [tar_of({f"data{i}": noise(300_000, i)}) for i in range(6)]
    with Liar(Made(layers)) as liar:
        slow = liar.image.layers[0]["digest"]
        go = threading.Event()

        def crawl(handler, digest, body):
            if digest != slow:
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            sent = 0
            while sent < len(body) and not go.wait(0.02):
                handler.wfile.write(body[sent:sent + 5000])
                sent += 5000
            handler.wfile.write(body[sent:])
            return True
        liar.hooks["blob"] = crawl
        docker = Docker(instance)
        status, lines = lines_of(docker, "POST", f"/images/create?fromImage={liar.name}/x&tag=1")
        assert status == 200 and lines[0] == {"status": "Pulling from x", "id": "1"}, lines[:3]
        items = [layer["digest"].split(":")[1][:12] for layer in liar.image.layers]
        for item in items[1:4]:
            assert steps_of(lines, item)[0] == "Pulling fs layer", lines
            assert steps_of(lines, item)[-3:] == ["Verifying Checksum", "Download complete", "Pull complete"], lines
        for item in items[4:]:
            assert steps_of(lines, item)[:2] == ["Pulling fs layer", "Waiting"], lines
        moving = [line for line in lines if line.get("id") == items[0] and line["status"] == "Downloading"]
        assert moving, lines
        for line in moving:
            detail = line["progressDetail"]
            assert detail["total"] == liar.image.layers[0]["size"] and 0 < detail["current"] <= detail["total"], line
            assert line["progress"].startswith("[") and line["progress"].endswith("kB"), line
        assert {"status": "Pulling fs layer", "progressDetail": {}, "id": items[1]} in lines, lines
        assert lines[-2]["status"].startswith("Digest: sha256:"), lines
        assert lines[-1] == {"status": f"Status: Downloaded newer image for {liar.name}/x:1"}, lines
        docker("rmi", f"{liar.name}/x:1")
        go.set()
        out = docker("pull", f"{liar.name}/x:1").out
        assert out.count(": Pull complete\n") == 6 and f"Status: Downloaded newer image for {liar.name}/x:1" in out, out
        again = docker("pull", f"{liar.name}/x:1").out
        assert again.count(": Already exists") in (0, 6) and "Status: Image is up to date" in again, again
        status, lines = lines_of(docker, "POST", f"/images/create?fromImage={liar.name}/x&tag=nothing/bad")
        assert status == 400, lines


@test
def a_push_tells_of_each_layer(instance, images, scratch):
    with Registry(scratch) as registry:
        config(instance, scratch)
        docker = Docker(instance)
        docker("load", "-i", images.small("small:1"))
        name = f"{registry.name}/shop"
        docker("tag", "small:1", f"{name}:1")
        status, lines = lines_of(docker, "POST", f"/images/{name}/push?tag=1", auth())
        assert status == 200 and lines[0] == {"status": f"The push refers to repository [{name}]"}, lines
        items = {line["id"] for line in lines if "id" in line and len(line["id"]) == 12}
        assert items and all(steps_of(lines, item)[0] == "Preparing" and steps_of(lines, item)[-1] == "Pushed"
                             for item in items), lines
        assert all(line["progressDetail"] == {} for line in lines if line.get("status") == "Pushed"), lines
        aux = lines[-1]["aux"]
        assert aux["Tag"] == "1" and lines[-1]["progressDetail"] == {}, lines
        assert lines[-2]["status"] == f"1: digest: {aux['Digest']} size: {aux['Size']}", lines
        lines = lines_of(docker, "POST", f"/images/{name}/push?tag=1", auth())[1]
        assert all(steps_of(lines, item)[-1] == "Layer already exists" for item in items), lines
        assert docker("push", f"{name}:1").out.count("Layer already exists") == len(items)
        lines = lines_of(docker, "POST", "/images/nowhere/push?tag=1", auth())[1]
        assert lines[0]["status"] == "The push refers to repository [docker.io/library/nowhere]", lines
        assert "does not exist locally" in lines[-1]["errorDetail"]["message"], lines


@test
def a_load_tells_of_each_layer(instance, scratch):
    layers = {digest_of(data): data for data in (tar_of({f"data{i}": noise(400_000, i)}) for i in range(3))}
    archive = image_archive(list(layers.values()), "three:1")

    def load(query):
        answer = docker.raw(f"POST /v1.41/images/load{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
                            f"Content-Length: {len(archive)}\r\n\r\n".encode() + archive, end=False)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"200" and b"application/json" in head, head
        return [json.loads(line) for line in dechunk(body).split(b"\r\n") if line.strip()]

    docker = Docker(instance)
    lines = load("?quiet=0")
    for digest, data in layers.items():
        of_it = [line for line in lines if line.get("id") == digest.split(":")[1][:12]]
        assert of_it and {line["status"] for line in of_it} == {"Loading layer"}, lines
        assert of_it[-1]["progressDetail"] == {"current": len(data), "total": len(data)}, lines
        assert of_it[-1]["progress"].startswith("[" + "=" * 50 + ">]"), lines
    assert lines[-1] == {"stream": "Loaded image: three:1\n"} and len(lines) >= 4, lines
    assert load("?quiet=1") == lines[-1:]
    (scratch / "three.tar").write_bytes(archive)
    assert docker("load", "-i", scratch / "three.tar").out == "Loaded image: three:1\n"


@test
def what_a_registry_has_is_described(instance, images, scratch):
    image = Made([tar_of({"a": b"1"})])
    with Liar(image) as liar:
        other = Made([tar_of({"b": b"2"})], architecture="arm64")
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": MANIFEST, "digest": digest_of(each.manifest), "size": len(each.manifest),
             "platform": {"os": "linux", "architecture": name, **more}}
            for each, name, more in ((image, "amd64", {}), (other, "arm64", {"variant": "v8"}))]}).encode()

        def manifest(handler, reference):
            if reference == "gone":
                liar.send(handler, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            elif reference == "many":
                liar.send(handler, 200, index, INDEX)
            else:
                return False
            return True
        liar.hooks["manifest"] = manifest
        docker = Docker(instance)
        status, found = docker.ask("GET", f"/distribution/{liar.name}/lib/x:one/json")
        assert status == 200 and found == {
            "Descriptor": {"mediaType": MANIFEST, "digest": digest_of(image.manifest), "size": len(image.manifest)},
            "Platforms": [{"architecture": "amd64", "os": "linux"}]}, found
        assert docker.ask("GET", f"/distribution/{liar.name}/lib/x/json")[1] == found
        assert docker.ask("GET", f"/distribution/{liar.name}/lib/x@{digest_of(image.manifest)}/json")[1] == found
        status, found = docker.ask("GET", f"/distribution/{liar.name}/x:many/json")
        assert status == 200 and found == {
            "Descriptor": {"mediaType": INDEX, "digest": digest_of(index), "size": len(index)},
            "Platforms": [{"architecture": "amd64", "os": "linux"},
                          {"architecture": "arm64", "os": "linux", "variant": "v8"}]}, found
        assert docker.ask("GET", f"/distribution/{liar.name}/x:gone/json")[0] == 404
        assert docker.ask("GET", "/distribution/UPPER/json")[0] == 400
        assert not any("/blobs/" in path and path.endswith(image.layers[0]["digest"])
                       for _, path, _ in liar.requests), liar.requests
        assert liar.name not in docker("images", "-a").out


@test
def credentials_of_the_request_are_shown_to_the_registry(instance, images, scratch):
    with Liar(Made([tar_of({"a": b"1"})])) as liar:
        liar.token, liar.credentials = "secret", "shop:pass word"
        docker = Docker(instance)
        for given, wanted in ((auth(username="shop", password="pass word", serveraddress=liar.name), 200),
                              (auth(username="shop", password="wrong"), 401), (auth(registrytoken="secret"), 200),
                              (None, 401)):
            status, found = lines_of(docker, "GET", f"/distribution/{liar.name}/x:1/json", given)
            assert status == wanted, (given, status, found)


if __name__ == "__main__":
    sys.exit(main())
