#!/usr/bin/env python3
"""Builds that need a network: ADD of addresses, contexts and archives from servers, private and foreign images."""

import base64
import gzip
import http.server
import json
import socket
import threading
import urllib.parse

from harness import main, run, test
from registries import Liar, Made, config, tar_of, use_credentials

TAR = tar_of({"Dockerfile": b"FROM small:1\nCOPY data /data\n", "data": b"from a server\n"})


def base(instance, images):
    instance.cloche("load", "-i", images.small("small:1"))


def build(instance, folder, dockerfile, *options, code=0, files=None):
    for name, content in {"Dockerfile": dockerfile, **(files or {})}.items():
        (folder / name).write_text(content)
    return instance.cloche("build", "-t", "built:1", *options, folder, code=code)


def shell(instance, script, image="built:1"):
    return instance.cloche("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", script).out


def docker(instance, *words, **env):
    instance.start_daemon()
    return run("/usr/bin/docker", *words, env={"DOCKER_HOST": f"unix://{instance.run_folder}/docker.sock",
                                               "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": "/nonexistent", **env})


def post(instance, path):
    """All that dockerd's interface answers."""
    instance.start_daemon()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(instance.run_folder / "docker.sock"))
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


class Server:
    """Files by path: bytes, or (bytes, headers), or a status. `hits` counts requests."""

    def __init__(self, files):
        self.files, self.hits = files, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *words):
                pass

            def do_GET(self):
                outer.hits.append(self.path)
                found = outer.files.get(urllib.parse.unquote(urllib.parse.urlsplit(self.path).path), 404)
                body, headers = found if isinstance(found, tuple) else (found, {})
                status = headers.pop("Status", 200) if isinstance(body, bytes) else body
                body = body if isinstance(body, bytes) else b"nothing"
                self.send_response(status)
                self.send_header("Content-Length", headers.get("Length", str(len(body))))
                for name, value in headers.items():
                    if name != "Length":
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@test
def addresses_are_fetched_by_add(instance, images, scratch):
    base(instance, images)
    files = {
        "/a.tar": (TAR, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}), "/x y": b"blank\n",
        "/elsewhere": (301, {"Location": "/x%20y"}), "/loop": (302, {"Location": "/loop"}),
        "/named/": (b"named\n", {"Content-Disposition": 'attachment; filename="the name.txt"'}),
        "/nameless/": b"nameless\n", "/cut": (b"cut", {"Length": "10"}),
        "/upward/": (b"up\n", {"Content-Disposition": 'attachment; filename="a/.."'}),
    }
    with Server(files) as server:
        text = f"""FROM small:1
ARG HOST={server.url}
ADD $HOST/a.tar?x=y#z /got/
ADD --chown=shop --chmod=640 $HOST/elsewhere /renamed
ADD $HOST/x%20y $HOST/named/ one /several/
ADD $HOST/nameless/ /chosen
"""
        first = build(instance, scratch, text, files={"one": "1\n"})
        out = shell(instance, "cd /got; ls; stat -c '%a %u:%g %Y' a.tar; stat -c '%a %U' /renamed; cat /renamed;"
                              "ls /several; stat -c '%a %Y' /several/*name.txt /chosen")
        assert out.splitlines() == ["a.tar", "600 0:0 1445412480", "640 shop", "blank", "one", "the name.txt", "x y",
                                    "600 0", "600 0"], out
        assert build(instance, scratch, text).out.count("Using cache") == 5
        files["/nameless/"] = b"another\n"
        assert build(instance, scratch, text).out.count("Using cache") == 4
        assert shell(instance, "cat /chosen") == "another\n"
        for line, message in (
                ("ADD $HOST/nothere /x", "ADD failed: failed to GET " + server.url + "/nothere with status 404"),
                ("ADD $HOST/nameless/ /x/", "cannot determine filename for source"),
                ("ADD $HOST/upward/ /x/", "cannot determine filename for source"),
                ("ADD $HOST/loop /x", "redirect"), ("ADD $HOST/cut /x", "ADD failed"),
                ("ADD http://127.0.0.1:1/x /x", "ADD failed"), ("ADD ftp://127.0.0.1/x /x", "not found in build context"),
                ("COPY $HOST/x /x", "source can't be a URL for COPY")):
            result = build(instance, scratch, f"FROM small:1\nARG HOST={server.url}\n{line}\n", code=1)
            assert message in result.err, (line, result.err)
    assert "[" not in first.err


@test
def contexts_and_archives_from_servers(instance, images, scratch):
    base(instance, images)
    root = tar_of({"bin": None, "bin/x": b"x"})
    files = {"/context.tar.gz": gzip.compress(TAR), "/text": b"FROM small:1\nENV ALONE=1\n", "/page": b"a\0b",
             "/limits": b"FROM small:1\nRUN echo no $(ulimit -Sn) $(ulimit -Hn)\n",
             "/root.tar": root, "/tree.tar": tar_of({"File": b"FROM small:1\nENV OTHER=1\n"})}
    with Server(files) as server:
        instance.cloche("build", "-t", "built:1", server.url + "/context.tar.gz")
        assert shell(instance, "cat /data") == "from a server\n"
        instance.cloche("build", "-t", "built:2", server.url + "/text")
        assert shell(instance, "echo $ALONE", image="built:2") == "1\n"
        instance.cloche("build", "-t", "built:3", "-f", "File", server.url + "/tree.tar")
        for address, message in ((server.url + "/nothere", "status 404"), (server.url + "/page", "neither a tar nor"),
                                 ("ftp://localhost/x", "could not be recognized as URL")):
            assert message in instance.cloche("build", address, code=1).err, address
        instance.cloche("import", "-c", "CMD [\"/bin/x\"]", server.url + "/root.tar", "imported:1")
        assert instance.cloche("diff", instance.cloche("create", "imported:1").out.strip()).out == ""
        assert "status 404" in instance.cloche("import", server.url + "/nothere", code=1).err
        quoted = urllib.parse.quote(server.url + "/context.tar.gz")
        whole = post(instance, f"/v1.41/build?t=built:4&remote={quoted}")
        assert "Successfully tagged built:4" in whole, whole
        assert shell(instance, "cat /data", image="built:4") == "from a server\n"
        for query, message in (("isolation=hyperv", "Unsupported isolation"), ("ulimits=[7]", "ulimits: "),
                               ("remote=nowhere", "could not be recognized as URL")):
            assert message in post(instance, f"/v1.41/build?{query}"), query
        limits = urllib.parse.quote('[{"Name":"nofile","Soft":77,"Hard":78}]')
        address = urllib.parse.quote(server.url + "/limits")
        assert "no 77 78" in post(instance, f"/v1.41/build?remote={address}&ulimits={limits}&cachefrom=[]")
        docker(instance, "import", server.url + "/root.tar", "imported:2")
        assert instance.cloche("images", "-q", "imported:2").out


@test
def private_images_are_built_upon(instance, images, scratch):
    image = Made([tar_of({"bin": None, "bin/sh": b"#"})])
    with Liar(image) as liar:
        config(instance, scratch)
        liar.token, liar.credentials = "t0ken", "me:secret"
        text = f"FROM {liar.name}/private/a\nCOPY --from={liar.name}/private/b /bin/sh /copied\n"
        assert "pull" in build(instance, scratch, text, code=1).err
        auths = {"auths": {liar.name: {"auth": base64.b64encode(b"me:secret").decode()}}}
        use_credentials(instance, scratch, auths)
        build(instance, scratch, text)
        instance.cloche("rmi", "-f", liar.name + "/private/a", liar.name + "/private/b", "built:1")
        docker(instance, "build", "-t", "built:2", scratch, DOCKER_CONFIG=str(scratch / "docker"))
        assert instance.cloche("images", "-q", "built:2").out


@test
def platforms_are_what_was_asked_for(instance, images, scratch):
    base(instance, images)
    foreign = Made([tar_of({"it": b"arm\n"})], architecture="arm64")
    with Liar(foreign) as liar:
        config(instance, scratch)
        name = liar.name + "/foreign"
        build(instance, scratch, f"FROM --platform=linux/arm64 {name}\nCOPY Dockerfile /x\n")
        assert json.loads(instance.cloche("inspect", "built:1").out)[0]["Architecture"] == "arm64"
        for text, options in ((f"FROM --platform=linux/amd64 {name}\n", ()), (f"FROM {name}\n", ("--platform", "linux/amd64"))):
            result = build(instance, scratch, text + "ENV A=1\n", *options, code=1)
            assert "wanted linux/amd64, actual: linux/arm64" in result.err, result.err
        build(instance, scratch, "FROM --platform=$BUILDPLATFORM small:1\nRUN true\n")
        result = build(instance, scratch, "FROM --platform=linux/arm64 small:1\nENV A=1\n", code=1)
        assert "was found but does not match the specified platform" in result.err, result.err
        assert "unknown operating system or architecture" in \
            build(instance, scratch, "FROM --platform=linux/nothing small:1\nENV A=1\n", code=1).err
        before = len(liar.requests)
        build(instance, scratch, f"FROM small:1 AS here\nENV A=1\nFROM {liar.name}/never\n", "--target", "here")
        assert len(liar.requests) == before, "images behind the target are not asked for"


if __name__ == "__main__":
    main()
