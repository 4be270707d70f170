#!/usr/bin/env python3
"""Registries that lie, hang, truncate, or send what nobody should believe."""

import contextlib
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
import zlib

from harness import PROGRAMS, main, run, test, wait_for
from registries import (DOCKER_MANIFEST, INDEX, MANIFEST, Certificate, Liar, Made, config,
                        digest_of, image_ids, noise, tar_of)

MEBIBYTE = 1 << 20


def refuse(instance, liar, *words, name="x"):
    """What must be refused with all these words, and leave nothing behind but what may help the
    next pull."""
    result = instance.cloche("pull", f"{liar.name}/{name}", code=1)
    for word in words:
        assert word in result.err, f"'{word}' is not in: {result.err}"
    assert result.err.count("\n") <= 2, result.err
    assert f"{liar.name}/{name}:latest" not in image_ids(instance)
    assert os.listdir(instance.root / "staging") == []
    content = set(os.listdir(instance.root / "content/sha256"))
    assert not content & {digest[7:] for digest in (liar.image.blobs if liar.image else ())}
    return result


def quick(instance, scratch, attempts=2, **more):
    config(instance, scratch, **{"patienceSeconds": 1, "attempts": attempts, "pauseMilliseconds": 20, **more})


def break_off(liar, handler, body, length):
    """The first bytes of a body, and no more."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:length])
    liar.drop(handler)


def image(size=3 * MEBIBYTE, seed=1):
    return Made([tar_of({"data": noise(size, seed)})])


# ---------------------------------------------------------------- connections

@test
def a_broken_connection_goes_on_where_it_ended(instance, scratch):
    quick(instance, scratch)
    with Liar(image()) as liar:
        layer = liar.image.layers[0]["digest"]

        def cut(handler, digest, body):
            if digest != layer or len(liar.blob_requests(layer)) > 1:
                return False
            break_off(liar, handler, body, 2 * MEBIBYTE)
            return True
        liar.hooks["blob"] = cut
        result = instance.cloche("pull", f"{liar.name}/x")
        requests = liar.blob_requests(layer)
        assert len(requests) == 2, requests
        start = int(requests[1][2]["Range"].removeprefix("bytes=").removesuffix("-"))
        assert 0 < start <= 2 * MEBIBYTE, start
        assert "Pull complete" in result.out, result


@test
def a_server_without_ranges_is_skipped_through(instance, scratch):
    quick(instance, scratch)
    with Liar(image()) as liar:
        layer = liar.image.layers[0]["digest"]
        liar.ranges = False

        def cut(handler, digest, body):
            if digest != layer or len(liar.blob_requests(layer)) > 1:
                return False
            break_off(liar, handler, body, MEBIBYTE)
            return True
        liar.hooks["blob"] = cut
        instance.cloche("pull", "-q", f"{liar.name}/x")


@test
def what_a_failed_pull_got_is_used_by_the_next(instance, scratch):
    quick(instance, scratch)
    with Liar(image()) as liar:
        layer = liar.image.layers[0]["digest"]

        def cut(handler, digest, body):
            if digest != layer:
                return False
            if handler.headers.get("Range"):
                liar.drop(handler)
                return True
            break_off(liar, handler, body, 2 * MEBIBYTE)
            return True
        liar.hooks["blob"] = cut
        refuse(instance, liar, "x")
        kept = instance.root / "partial" / layer[7:]
        length = kept.stat().st_size
        assert 0 < length <= 2 * MEBIBYTE
        del liar.hooks["blob"]
        liar.requests.clear()
        instance.cloche("pull", "-q", f"{liar.name}/x")
        assert [headers.get("Range") for _, _, headers in liar.blob_requests(layer)] == \
            [f"bytes={length}-"]
        assert not kept.exists()


@test
def a_damaged_beginning_is_thrown_away(instance, scratch):
    quick(instance, scratch)
    with Liar(image()) as liar:
        layer = liar.image.layers[0]["digest"]
        instance.cloche("version")
        folder = instance.root / "partial"
        folder.mkdir()
        (folder / layer[7:]).write_bytes(noise(MEBIBYTE, 7))
        instance.cloche("pull", "-q", f"{liar.name}/x")
        assert [headers.get("Range") for _, _, headers in liar.blob_requests(layer)][-1] is None


@test
def what_another_registry_left_is_thrown_away(instance, scratch):
    quick(instance, scratch)
    good = image()
    digest = good.layers[0]["digest"]
    with Liar(image()) as evil, Liar(good) as liar:
        # A beginning of the right name that cannot be unpacked, long before any digest is known.
        evil.image.blobs[digest] = gzip.compress(tar_of(
            {"noise": noise(600000, 5), "a": b"", "a/b": b"", "more": noise(600000, 6)}))
        refuse(instance, evil, "layer sha256:")
        instance.cloche("pull", "-q", f"{liar.name}/x")
        # The same from a mirror, in one pull.
        instance.cloche("rmi", f"{liar.name}/x")
        quick(instance, scratch, hosts={
            liar.name: {"mirrors": [f"http://{evil.name}"], "url": f"http://{liar.name}"}})
        instance.cloche("rpc", "call", "system.shutdown")
        wait_for(lambda: not instance.processes())
        evil.requests.clear()
        instance.cloche("pull", "-q", f"{liar.name}/x")
        assert evil.blob_requests(digest)


@test
def a_server_that_refuses_ranges_is_asked_for_all_of_it(instance, scratch):
    quick(instance, scratch)
    pulls = {}
    with contextlib.ExitStack() as stack:
        for status in (416, 400, 403, 501, 206):
            liar = stack.enter_context(Liar(image(seed=status)))
            layer = liar.image.layers[0]["digest"]

            def answer(handler, digest, body, liar=liar, layer=layer, status=status):
                if digest != layer or len(liar.blob_requests(layer)) > 2:
                    return False
                if handler.headers.get("Range"): # 206: without a word on what comes
                    liar.send(handler, status, body if status == 206 else b"")
                else:
                    break_off(liar, handler, body, 2 * MEBIBYTE)
                return True
            liar.hooks["blob"] = answer
            pulls[status] = (liar, layer, instance.start("pull", "-q", f"{liar.name}/x"))
        for status, (liar, layer, pull) in pulls.items():
            assert pull.wait() == 0, (status, pull.stderr.read())
            assert ["Range" in headers for _, _, headers in liar.blob_requests(layer)] == \
                [False, True, False], status


@test
def pulls_of_one_image_at_once_are_one_and_outlive_the_first(instance, scratch):
    config(instance, scratch, parallel=1)
    made = Made([tar_of({f"f{i}": noise(100000, i)}) for i in range(3)])
    digests = [layer["digest"] for layer in made.layers]
    with Liar(made) as liar:
        gates = {digest: threading.Event() for digest in digests}

        def wait(handler, digest, body):
            if digest in gates:
                while not gates[digest].wait(0.1) and not liar.stopping.is_set():
                    pass
            return False
        liar.hooks["blob"] = wait
        first = instance.start("pull", f"{liar.name}/x", stdout=subprocess.DEVNULL)
        wait_for(lambda: liar.blob_requests(digests[0]))
        other = instance.start("pull", f"{liar.name}/x", stdout=subprocess.PIPE, text=True)

        def pulls():
            stats = json.loads(instance.cloche("rpc", "call", "rpc.stats").out)
            return sum(method["inFlight"] for method in stats["methods"]
                       if method["method"] == "image.pull")
        wait_for(lambda: pulls() == 2)
        gates[digests[0]].set()
        assert any("Pull complete" in line for line in other.stdout)
        first.send_signal(signal.SIGINT)
        first.wait()
        for gate in gates.values():
            gate.set()
        assert "Downloaded newer image" in other.communicate()[0] and other.returncode == 0
        assert [len(liar.blob_requests(digest)) for digest in digests] == [1, 1, 1]


@test
def a_killed_pull_and_a_killed_daemon_leave_their_part(instance, scratch):
    config(instance, scratch)
    with Liar(image(8 * MEBIBYTE)) as liar:
        layer = liar.image.layers[0]["digest"]

        def crawl(handler, digest, body):
            if digest != layer or handler.headers.get("Range"):
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[:6 * MEBIBYTE])
            handler.wfile.flush()
            liar.stopping.wait(60)
            return True
        liar.hooks["blob"] = crawl
        partial = instance.root / "partial" / layer[7:]

        def pulling():
            found = list((instance.root / "staging").glob(f"*/content/partial-{layer[7:]}"))
            return found and found[0].stat().st_size > 4 * MEBIBYTE

        pull = instance.start("pull", "-q", f"{liar.name}/x")
        wait_for(pulling)
        pull.send_signal(signal.SIGINT)
        pull.wait()
        wait_for(partial.exists)
        partial.unlink()
        pull = instance.start("pull", "-q", f"{liar.name}/x")
        wait_for(pulling)
        for pid in instance.processes():
            command = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")[0]
            if command.endswith(b"cloched"):
                os.kill(pid, signal.SIGKILL)
        pull.wait()
        wait_for(lambda: instance.cloche("version", code=None).code == 0 and
                 (partial.exists() or instance.cloche("rpc", "call", "system.shutdown")) and
                 partial.exists())
        liar.requests.clear()
        instance.cloche("pull", "-q", f"{liar.name}/x")
        assert "Range" in liar.blob_requests(layer)[0][2]


@test
def a_silent_server_is_given_up(instance, scratch):
    quick(instance, scratch)
    with Liar(image()) as liar:
        def hang(handler, *words):
            liar.stopping.wait(30)
            liar.drop(handler)
            return True
        liar.hooks["manifest"] = hang
        started = time.monotonic()
        refuse(instance, liar, "silent for 1 seconds")
        assert len(liar.requests) == 2, liar.requests
        assert time.monotonic() - started < 25
        del liar.hooks["manifest"]

        def drip(handler, digest, body):
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            for byte in body[:30]:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if liar.stopping.wait(1):
                    break
            return True
        liar.hooks["blob"] = drip
        refuse(instance, liar, "silent")


@test
def a_busy_server_is_asked_again_and_not_for_ever(instance, scratch):
    quick(instance, scratch, attempts=3, pauseMilliseconds=100)
    with Liar(image(1000)) as liar:
        busy, seen = [429, 503], []

        def answer(handler, *words):
            seen.append(time.monotonic())
            if not busy:
                return False
            status = busy.pop()
            liar.send(handler, status, b"{}", **({"Retry_After": "1"} if status != 500 else {}))
            return True
        liar.hooks["manifest"] = answer
        instance.cloche("pull", "-q", f"{liar.name}/y")
        instance.cloche("rmi", f"{liar.name}/y")
        assert seen[1] - seen[0] >= 1 and seen[2] - seen[1] >= 1, seen
        busy += [500] * 9
        seen.clear()
        refuse(instance, liar, "status 500")
        assert len(busy) == 6, busy
        assert seen[1] - seen[0] >= 0.1 and seen[2] - seen[1] >= 0.2, f"the second pause is twice the first: {seen}"


@test
def one_layer_that_fails_ends_the_others(instance, scratch):
    quick(instance, scratch)
    with Liar(Made([tar_of({f"f{i}": noise(100000, i)}) for i in range(4)])) as liar:
        good = liar.image.layers[0]["digest"]

        def answer(handler, digest, body):
            if digest == liar.image.id:
                return False
            if digest == good:
                liar.stopping.wait(20)
                return True
            liar.send(handler, 403, b'{"errors":[{"message":"not yours\\u001b[2J\\u009b3m\\u202e!"}]}')
            return True
        liar.hooks["blob"] = answer
        started = time.monotonic()
        result = refuse(instance, liar, "not yours", "status 403")
        assert not set("\x1b\x9b\u202e") & set(result.err), result.err
        assert time.monotonic() - started < 15


# ---------------------------------------------------------------- content

@test
def content_that_is_not_what_its_digest_says_is_refused(instance, scratch):
    quick(instance, scratch)
    for which in ("layer", "config", "manifest", "diff"):
        with Liar(image(500000)) as liar:
            layer, other = liar.image.layers[0], gzip.compress(tar_of({"data": b"another"}))
            if which == "layer":
                good = liar.image.blobs[layer["digest"]]
                liar.image.blobs[layer["digest"]] = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
                refuse(instance, liar, "layer sha256:")
            elif which == "config":
                liar.image.blobs[liar.image.id] = liar.image.config.replace(b"linux", b"lunix")
                refuse(instance, liar, "its content has the digest")
            elif which == "manifest":
                wanted = "sha256:" + "0" * 64
                liar.manifests[wanted] = (liar.image.manifest, MANIFEST)
                result = instance.cloche("pull", f"{liar.name}/x@{wanted}", code=1)
                assert "its content has the digest" in result.err, result
            else:
                layer["digest"], layer["size"] = liar.image.add(other), len(other)
                liar.image.manifest = liar.image.write_manifest()
                refuse(instance, liar, "diff ID")


@test
def bodies_that_are_longer_or_shorter_than_promised(instance, scratch):
    quick(instance, scratch)
    with Liar(image(500000)) as liar:
        layer = liar.image.layers[0]
        layer["size"] -= 1000
        liar.image.manifest = liar.image.write_manifest()
        refuse(instance, liar, "longer than")
        layer["size"] += 5000
        liar.image.manifest = liar.image.write_manifest()
        refuse(instance, liar)
        layer["size"] = 1 << 62
        liar.image.manifest = liar.image.write_manifest()
        refuse(instance, liar, "layer 1 has digest")


@test
def documents_that_cannot_be_used_are_refused_with_the_reason(instance, scratch):
    quick(instance, scratch)
    cases = [
        (b'{"schemaVersion":1,"name":"x","signatures":[{}]}',
         "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (b'{"schemaVersion":1}', "application/json", "schema 1"),
        (b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json",'
         b'"digest":"sha256:' + b"0" * 64 + b'","size":2},"layers":[]}', MANIFEST,
         "no image of a container"),
        (b'{"schemaVersion":2}', MANIFEST, "config"),
        (b'{"schemaVersion":2}', "text/html", "neither a manifest nor an index"),
        (b"<html>welcome</html>", "text/html", "manifest"),
        (b'{"schemaVersion":2,"mediaType":"' + INDEX.encode() + b'","manifests":[]}', MANIFEST,
         "calls itself"),
        (b'{"schemaVersion":2,"manifests":[]}', INDEX, "no matching manifest"),
        (b"[" * 100000, MANIFEST, "manifest"),
        (b" " * (5 * MEBIBYTE), MANIFEST, "longer than"),
    ]
    with Liar(image(1000)) as liar:
        for text, kind, reason in cases:
            liar.manifests["latest"] = (text, kind)
            refuse(instance, liar, reason)
        liar.manifests["latest"] = (liar.image.write_manifest(mediaType=DOCKER_MANIFEST),
                                    DOCKER_MANIFEST)
        instance.cloche("pull", "-q", f"{liar.name}/x")


@test
def an_index_inside_itself_ends(instance, scratch):
    quick(instance, scratch)
    with Liar(image(1000)) as liar:
        text, digest = b"", "sha256:" + "1" * 64
        for _ in range(8):
            text = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
                {"mediaType": INDEX, "digest": digest, "size": len(text)}]}).encode()
            digest = digest_of(text)
            liar.manifests[digest] = (text, INDEX)
        liar.manifests["latest"] = (text, INDEX)
        refuse(instance, liar, "more than 4 indexes")


@test
def layers_that_lead_out_of_their_folder_are_refused(instance, scratch):
    quick(instance, scratch)
    for name, kind, target in (("../../out", tarfile.REGTYPE, ""),
                               ("link", tarfile.LNKTYPE, "../../../state.db")):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
        with Liar(Made([out.getvalue()])) as liar:
            refuse(instance, liar, "layer sha256:")


@test
def a_bomb_is_refused(instance, scratch):
    quick(instance, scratch)
    tar = tar_of({"zeros": b""})[:512]
    size = 3 << 30
    header = tarfile.TarInfo("zeros")
    header.size = size
    # One piece that stands on nothing before it is the same again and again.
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    packed = packer.compress(header.tobuf()) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += 66 * (packer.compress(bytes(16 * MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH))
    with Liar(Made([tar], pack=lambda _: packed)) as liar:
        refuse(instance, liar, "EXPANSION_MAX")


@test
def headers_without_end_and_redirects_in_a_circle(instance, scratch):
    quick(instance, scratch)
    with Liar(image(1000)) as liar:
        def flood(handler, *words):
            handler.send_response(200)
            for number in range(3000):
                handler.send_header(f"X-{number}", "y" * 60)
            handler.end_headers()
            return True
        liar.hooks["manifest"] = flood
        refuse(instance, liar, "HTTP_HEADERS_MAX")
        liar.hooks["manifest"] = lambda handler, reference: liar.send(
            handler, 307, b"", Location=f"http://{liar.name}{handler.path}") or True
        refuse(instance, liar, "redirects")

        def dither(handler, *words):
            while not liar.stopping.is_set():
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\nX: " + b"y" * 900 + b"\r\n\r\n")
        liar.hooks["manifest"] = dither
        refuse(instance, liar, "GET http://")
        liar.hooks["manifest"] = lambda handler, reference: liar.send(
            handler, 307, b"", Location="http://192.0.2.7/x") or True
        refuse(instance, liar, "redirects to a server without TLS")


@test
def nobodys_word_leads_to_link_local_addresses(instance, scratch):
    """Where clouds give a machine's credentials to who asks."""
    quick(instance, scratch)
    run("ip", "address", "add", "169.254.169.254/32", "dev", "lo")
    with Liar(image(1000)) as liar, socket.socket() as cloud:
        cloud.bind(("169.254.169.254", 0))
        cloud.listen()
        cloud.setblocking(False)
        place = f"https://169.254.169.254:{cloud.getsockname()[1]}/latest"
        liar.hooks["manifest"] = lambda handler, reference: liar.send(handler, 307, b"", Location=place) or True
        refuse(instance, liar, "link-local")
        try:
            raise AssertionError(f"somebody came: {cloud.accept()}")
        except BlockingIOError:
            pass


@test
def credentials_do_not_follow_a_redirect_to_another_host(instance, scratch):
    with Liar(image(1000)) as liar, Liar(image(1000)) as other:
        quick(instance, scratch)
        liar.token = "secret"
        liar.hooks["blob"] = lambda handler, digest, body: liar.send(
            handler, 307, b"", Location=f"http://{other.name}{handler.path}") or True
        instance.cloche("pull", "-q", f"{liar.name}/x")
        assert other.requests and all("Authorization" not in headers
                                      for _, _, headers in other.requests)


def start_with_authority(instance, scratch, certificate):
    """A daemon that sees another file of the machine's authorities."""
    file = next(path for path in ("/etc/ssl/certs/ca-certificates.crt",
                                  "/etc/pki/tls/certs/ca-bundle.crt") if os.path.exists(path))
    run("unshare", "-m", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', certificate,
        file, PROGRAMS / "cloche", "version", env={**os.environ, **instance.env})


@test
def certificates_of_a_registry_are_for_its_host_and_add_to_the_machine_s(instance, scratch):
    mine, client = Certificate(scratch, "127.0.0.1"), Certificate(scratch, "127.0.0.1")
    others = Certificate(scratch, "127.0.0.2")
    made, shown = image(100000), {}

    def note(handler, name):
        shown[name] = bool(handler.connection.getpeercert())

    def lead(server):
        def answer(handler, digest, body):
            if server is not plain:
                note(handler, "own")
            server.send(handler, 307, b"", Location=f"https://{other.name}{handler.path}")
            return True
        server.hooks["blob"] = answer
    with Liar(made, tls=mine.server(client)) as liar, Liar(made) as plain, \
            Liar(made, "127.0.0.2", others.server(client)) as other:
        folder = scratch / "certs.d" / liar.name
        folder.mkdir(parents=True)
        for name, path in (("ca.crt", mine.certificate), ("client.cert", client.certificate),
                           ("client.key", client.key)):
            (folder / name).write_bytes(path.read_bytes())
        quick(instance, scratch, certificates=[str(scratch / "certs.d")])
        start_with_authority(instance, scratch, others.certificate)
        lead(liar)
        lead(plain)
        other.hooks["blob"] = lambda handler, *words: note(handler, "other")
        instance.cloche("pull", "-q", f"{liar.name}/x")
        assert shown == {"own": True, "other": False}, shown
        instance.cloche("rmi", f"{liar.name}/x")
        instance.cloche("pull", "-q", f"{plain.name}/x")


@test
def a_token_service_that_makes_no_sense(instance, scratch):
    quick(instance, scratch)
    with Liar(image(1000)) as liar:
        liar.token = "x y\r\nEvil: 1"
        refuse(instance, liar, "gives no token")
        liar.answer_token = lambda handler: liar.send(handler, 200, b"[]")
        refuse(instance, liar, "token service")
        liar.answer_token = lambda handler: liar.send(handler, 200, b'{"token":"wrong"}')
        refuse(instance, liar, "UNAUTHORIZED", "cloche login")


@test
def plain_http_is_for_loopback_only(instance, scratch):
    quick(instance, scratch)
    result = instance.cloche("pull", "192.0.2.1:5000/x", code=1, timeout=60)
    assert "https://192.0.2.1:5000" in result.err and "http://" not in result.err, result


@test
def a_full_disk_is_told_and_leaves_nothing(instance, scratch):
    quick(instance, scratch)
    with Liar(image(8 * MEBIBYTE)) as liar:
        instance.cloche("version")
        instance.cloche("rpc", "call", "system.shutdown")
        wait_for(lambda: not instance.processes())
        run("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", instance.root / "staging")
        try:
            result = instance.cloche("pull", f"{liar.name}/x", code=1)
            assert "No space left" in result.err, result
        finally:
            instance.cloche("rpc", "call", "system.shutdown")
            wait_for(lambda: run("umount", instance.root / "staging", code=None).code == 0)


@test
def a_token_service_elsewhere_without_tls_hears_no_password(instance, scratch):
    quick(instance, scratch)
    with Liar(image()) as liar:
        liar.token = "wanted"
        for realm in ("http://192.0.2.7/token", "http://127.0.0.1.example/token", "http://localhost@192.0.2.7/token"):
            liar.realm = realm
            refuse(instance, liar, "its token service", "has no TLS")


@test
def an_upload_that_is_forgotten_again_and_again_is_given_up(instance, images, scratch):
    quick(instance, scratch, attempts=3)
    instance.cloche("load", "-q", "-i", images.small())
    instance.cloche("run", "--name", "big", "small:1", "sh", "-c",
                    "dd if=/dev/urandom of=/big bs=1M count=17 2>/dev/null")
    with Liar() as liar:
        name = f"localhost:{liar.port}/big:1"
        instance.cloche("commit", "big", name)
        liar.token, patches = "wanted", []

        def answer(handler, body):
            # The port and host of the location are spelt in another way than the registry's.
            place = {"Location": f"http://LOCALHOST:{liar.port}/v2/big/blobs/uploads/1"}
            if handler.command == "PATCH":
                patches.append(handler.headers["Content-Range"])
                liar.send(handler, 503 if len(patches) % 2 == 0 else 202, **place)
            else:
                liar.send(handler, 202 if handler.command == "POST" else 201, **place)
        liar.hooks["upload"] = answer
        get = liar.answer
        liar.answer = lambda handler: liar.send(handler, 204, Range="0-0") \
            if "/uploads/" in handler.path else get(handler)
        refused = instance.cloche("push", name, code=1)
        assert "503" in refused.err, refused
        assert 4 <= len(patches) <= 20, patches
        assert all("Authorization" in headers for method, _, headers in liar.requests
                   if method == "PATCH")


if __name__ == "__main__":
    main()
