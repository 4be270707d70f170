"""Registries for the tests: Debian's docker-registry, and one of our own that can lie.

    with Registry(folder) as registry: ...         docker-registry on loopback, plain
    with Registry(folder, password="x", tls=True)  with basic auth for the user "shop", with TLS
    with Liar(image) as liar: ...                  whatever the test makes of it
"""

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import random
import re
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import urllib.parse

from harness import Skip, run, wait_for

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def config(instance, scratch, **registries):
    """Settings of registries for the instance's daemon, and an empty credential file."""
    path = scratch / "cloched.conf"
    path.write_text(json.dumps({"registries": registries}))
    os.chmod(path, 0o600)
    instance.env["CLOCHE_CONFIG"] = str(path)
    use_credentials(instance, scratch)


def use_credentials(instance, scratch, document=None):
    folder = scratch / "docker"
    folder.mkdir(exist_ok=True)
    if document is not None:
        (folder / "config.json").write_text(json.dumps(document))
    instance.env["DOCKER_CONFIG"] = str(folder)
    return folder / "config.json"


def image_ids(instance):
    return {line.split()[0]: line.split()[1] for line in instance.cloche(
        "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").lines}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Registry:
    """docker-registry. `name` is HOST:PORT as it stands in names of images."""

    def __init__(self, folder, password=None, tls=False):
        if not shutil.which("docker-registry"):
            raise Skip("docker-registry is not installed")
        self.folder = pathlib.Path(folder) / f"registry-{random.randrange(1 << 30)}"
        self.folder.mkdir()
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self.password = password
        self.tls = tls

    def _config(self):
        lines = ["version: 0.1", "log: {level: error, accesslog: {disabled: true}}",
                 f"storage: {{filesystem: {{rootdirectory: {self.folder}/data}}}}"]
        http_part = f"  addr: 127.0.0.1:{self.port}"
        if self.tls:
            run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                "-keyout", self.folder / "key.pem", "-out", self.folder / "cert.pem",
                "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
            http_part += (f"\n  tls: {{certificate: {self.folder}/cert.pem, "
                          f"key: {self.folder}/key.pem}}")
        lines += ["http:", http_part]
        if self.password:
            line = run("htpasswd", "-nbB", "shop", self.password).out
            (self.folder / "htpasswd").write_text(line)
            lines.append(f"auth: {{htpasswd: {{realm: shop, path: {self.folder}/htpasswd}}}}")
        path = self.folder / "config.yml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def __enter__(self):
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", self._config()],
                                            stdout=log, stderr=log)
        wait_for(lambda: answers(self.port), what="docker-registry listens")
        return self

    def __exit__(self, *failure):
        self.process.kill()
        self.process.wait()

    def fill(self, archive, name):
        """Puts the image of an OCI layout tar there, by skopeo."""
        words = ["--dest-tls-verify=false"]
        if self.password:
            words += ["--dest-creds", f"shop:{self.password}"]
        run("skopeo", "--insecure-policy", "copy", "--quiet", *words, f"oci-archive:{archive}",
            f"docker://{self.name}/{name}")

    def blobs(self):
        return sorted(path.parent.name for path in self.folder.glob("data/**/blobs/sha256/*/*/data"))


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(files):
    """A plain tar. files: name -> bytes, None for a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if data is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def noise(size, seed):
    return random.Random(seed).randbytes(size)


def pack_alike(data):
    """The same content always gives the same digest."""
    return gzip.compress(data, mtime=0)


class Made:
    """An image made here: blobs by digest, and its manifest. layers: plain tars."""

    def __init__(self, layers, pack=pack_alike, kind="+gzip", architecture="amd64"):
        self.blobs = {}
        self.layers = []
        for tar in layers:
            blob = pack(tar)
            self.layers.append({"mediaType": LAYER + kind, "digest": self.add(blob),
                                "size": len(blob)})
        config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
                  "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in layers]}}
        self.config = json.dumps(config).encode()
        self.id = self.add(self.config)
        self.manifest = self.write_manifest()

    def add(self, blob):
        self.blobs[digest_of(blob)] = blob
        return digest_of(blob)

    def write_manifest(self, **changes):
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                               "digest": self.id, "size": len(self.config)},
                    "layers": self.layers, **changes}
        return json.dumps(manifest).encode()


class Certificate:
    """Signed by itself, for one address, with its files in a folder: cert.pem and key.pem."""

    def __init__(self, folder, address):
        self.folder = pathlib.Path(folder) / f"certificate-{random.randrange(1 << 30)}"
        self.folder.mkdir()
        self.certificate, self.key = self.folder / "cert.pem", self.folder / "key.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-keyout", self.key, "-out", self.certificate,
            "-subj", f"/CN={address}", "-addext", f"subjectAltName=IP:{address}")

    def server(self, clients=None):
        """clients: the Certificate that a client may show."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if clients:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(clients.certificate)
        return context


class Liar:
    """A registry that serves one image under every name, and does what hooks make of it.

    hooks["blob"](handler, digest, body) -> True when it has answered itself; likewise "manifest"
    (handler, reference). hooks["upload"](handler, body) and "tags" (handler, query) answer always. `requests` are all requests: (method, path, headers)."""

    def __init__(self, image=None, address="127.0.0.1", tls=None):
        """tls: an ssl.SSLContext of the server."""
        self.image = image
        self.hooks = {}
        self.requests = []
        self.manifests = {}
        self.token = None        # wanted, where not None
        self.realm = None        # of the token service, where it is another's
        self.tokens_given = 0
        self.credentials = None  # of the token service, "user:password"
        self.ranges = True
        self.tags = ["latest"]
        self.stopping = threading.Event()
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words):
                pass

            def do_GET(self):
                liar.requests.append((self.command, self.path, dict(self.headers)))
                with contextlib.suppress(ConnectionError):
                    liar.answer(self)

            do_HEAD = do_GET

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                liar.requests.append((self.command, self.path, dict(self.headers)))
                with contextlib.suppress(ConnectionError):
                    if liar.allowed(self):
                        liar.hooks["upload"](self, body)

            do_PUT = do_PATCH = do_POST

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request, address):
                pass

        self.server = Server((address, 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.name = f"{address}:{self.port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.stopping.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    # ---- answers

    def send(self, handler, status, body=b"", kind="application/json", **headers):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def drop(self, handler):
        """The connection breaks, here and now."""
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)

    def allowed(self, handler):
        if self.token is None or handler.headers.get("Authorization") == f"Bearer {self.token}":
            return True
        realm = self.realm or f"http://{self.name}/token"
        challenge = f'Bearer realm="{realm}",service="liar",scope="x"'
        self.send(handler, 401, b'{"errors":[{"code":"UNAUTHORIZED"}]}',
                  WWW_Authenticate=challenge)
        return False

    def answer_token(self, handler):
        given = handler.headers.get("Authorization", "")
        wanted = base64.b64encode((self.credentials or "").encode()).decode()
        if self.credentials and given != f"Basic {wanted}":
            self.send(handler, 401, b"{}")
            return
        self.tokens_given += 1
        self.send(handler, 200, json.dumps({"token": self.token}).encode())

    def answer(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)", url.path)
        if url.path == "/token":
            self.answer_token(handler)
        elif not self.allowed(handler):
            return
        elif url.path == "/v2/":
            self.send(handler, 200, b"{}")
        elif url.path == "/v1/search" and "search" in self.hooks:
            self.hooks["search"](handler, urllib.parse.parse_qs(url.query))
        elif not match:
            self.send(handler, 404, b"{}")
        elif match[2] == "tags" and "tags" in self.hooks:
            self.hooks["tags"](handler, urllib.parse.parse_qs(url.query))
        elif match[2] == "tags":
            self.send(handler, 200, json.dumps({"tags": self.tags}).encode())
        elif match[2] == "manifests":
            self.answer_manifest(handler, match[3])
        else:
            self.answer_blob(handler, match[3])

    def answer_manifest(self, handler, reference):
        if "manifest" in self.hooks and self.hooks["manifest"](handler, reference):
            return
        found = self.manifests.get(reference)
        if not found and self.image and not reference.startswith("sha256:"):
            found = (self.image.manifest, MANIFEST)
        if not found and self.image and reference == digest_of(self.image.manifest):
            found = (self.image.manifest, MANIFEST)
        if not found:
            self.send(handler, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN",'
                                    b'"message":"manifest unknown"}]}')
            return
        self.send(handler, 200, found[0], found[1])

    def answer_blob(self, handler, digest):
        body = self.image.blobs.get(digest) if self.image else None
        if "blob" in self.hooks and self.hooks["blob"](handler, digest, body):
            return
        if body is None:
            self.send(handler, 404, b"{}")
            return
        first = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if first and self.ranges:
            start = int(first[1])
            self.send(handler, 206, body[start:], "application/octet-stream",
                      Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send(handler, 200, body, "application/octet-stream")

    def blob_requests(self, digest=None):
        return [request for request in self.requests
                if "/blobs/" in request[1] and (not digest or digest in request[1])]
