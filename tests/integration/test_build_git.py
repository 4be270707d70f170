#!/usr/bin/env python3
"""Builds whose context is a repository of git, from servers on loopback: git's own, smart and dumb HTTP."""

import base64
import contextlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse

from harness import main, run, test, wait_for

IDENTITY = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
            "GIT_ALLOW_PROTOCOL": "file:git:http"}


def git(folder, *words):
    return run("git", "-C", folder, *words, env=IDENTITY).out.strip()


class Repository:
    """A repository that is worked in, and the bare one that is served."""

    def __init__(self, root, name):
        self.work, self.bare = root / f"{name}.work", root / f"{name}.git"
        self.work.mkdir(parents=True)
        git(self.work, "init", "-q", "-b", "trunk")
        run("git", "clone", "-q", "--bare", self.work, self.bare, env=IDENTITY)

    def commit(self, files, *refs):
        """The commit's name. refs: where else it is to be than on the branch."""
        for path, content in files.items():
            file = self.work / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                file.unlink()
            elif isinstance(content, tuple):
                os.symlink(content[0], file)
            else:
                file.write_text(content)
        git(self.work, "add", "-A")
        return self.push(*refs)

    def push(self, *refs):
        git(self.work, "commit", "-q", "-m", "x")
        git(self.work, "push", "-q", self.bare, "HEAD", *refs)
        git(self.bare, "symbolic-ref", "HEAD", "refs/heads/trunk")
        git(self.bare, "update-server-info")
        return git(self.work, "rev-parse", "HEAD")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def git_daemon(root):
    port = free_port()
    daemon = subprocess.Popen(["git", "daemon", "--export-all", f"--base-path={root}", "--listen=127.0.0.1",
                               f"--port={port}", "--reuseaddr", str(root)], env={**os.environ, **IDENTITY},
                              stderr=subprocess.DEVNULL, start_new_session=True)

    def answers():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False
    try:
        wait_for(answers, what="git daemon listens")
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()


@contextlib.contextmanager
def http_server(root, smart, wanted=None, asked=None):
    """Of files, as dumb HTTP is, or git's own program behind it; also by way of itself as a proxy. wanted: credentials
    by the header that has to have them; asked() is called for each request that has."""
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words, **options):
            super().__init__(*words, directory=str(root), **options)

        def log_message(self, *words):
            pass

        def parse_request(self):
            if not super().parse_request():
                return False
            for header, (code, challenge, credentials) in (wanted or {}).items():
                expected = "Basic " + base64.b64encode(credentials.encode()).decode()
                if self.headers.get(header) != expected:
                    self.send_response(code)
                    self.send_header(challenge, "Basic realm=\"here\"")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return False
            if asked:
                asked()
            return True

        def do_GET(self):
            self.through_git() if smart else super().do_GET()

        def do_POST(self):
            self.through_git()

        def through_git(self):
            parts = urllib.parse.urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            env = {**os.environ, **IDENTITY, "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1",
                   "PATH_INFO": parts.path, "QUERY_STRING": parts.query, "REQUEST_METHOD": self.command,
                   "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
                   "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                   "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
            answer = subprocess.run(["git", "http-backend"], input=body, env=env, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, check=True).stdout
            head, content = answer.split(b"\r\n\r\n", 1)
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


DOCKERFILE = "FROM small:1\nCOPY . /got\n"


def got(instance, *, image="built:1", what="cd /got && find . ! -type d | sort && cat data"):
    return instance.cloche("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", what).lines


def build(instance, address, *options, code=0):
    return instance.cloche("build", "-t", "built:1", *options, address, code=code)


def prepare(instance, images, scratch):
    instance.cloche("load", "-q", "-i", images.small("small:1"))
    root = scratch / "served"
    root.mkdir()
    return root, Repository(root, "shop")


@test
def repositories_are_fetched_over_each_protocol(instance, images, scratch):
    root, shop = prepare(instance, images, scratch)
    old = shop.commit({"Dockerfile": DOCKERFILE, "data": "old\n", "left-out": "x", ".dockerignore": "left-out\nkept/*\n!kept/a\n",
                       "kept/a": "", "kept/b": ""}, "HEAD:refs/tags/v1")
    new = shop.commit({"data": "new\n", "run": "#!\n"}, "HEAD:refs/heads/other/branch")
    listed = ["./.dockerignore", "./Dockerfile", "./data", "./kept/a"]
    with git_daemon(root) as daemon, http_server(root, True) as smart, http_server(root, False) as dumb:
        for server in (daemon, smart, dumb):
            result = build(instance, f"{server}/shop.git")
            assert f"Commit {new}" in result.out, result
            assert got(instance) == [*listed, "./run", "new"], server
            assert "Using cache" not in result.out or server != daemon, result
            for ref, commit in (("#v1", old), ("#other/branch", new), (f"#{old}", old), ("#trunk:kept/..", new)):
                assert f"Commit {commit}" in build(instance, f"{server}/shop.git{ref}").out, (server, ref)
            assert f"Commit {old}" in build(instance, f"{server}/shop.git#{old[:10]}").out, server
            assert got(instance) == [*listed, "old"], server
        # The same files have the same result, wherever they come from.
        assert "Using cache" in build(instance, f"{smart}/shop.git#v1").out
        # From a client of the Docker API.
        instance.start_daemon()
        quoted = urllib.parse.quote(f"{smart}/shop.git#v1")
        answer = run("curl", "-sS", "-X", "POST", "--unix-socket", instance.run_folder / "docker.sock",
                     f"http://d/v1.41/build?t=built:2&remote={quoted}").out
        assert "Successfully tagged built:2" in answer, answer
        assert got(instance, image="built:2")[-1] == "old"


@test
def folders_links_and_submodules_of_repositories(instance, images, scratch):
    root, shop = prepare(instance, images, scratch)
    part = Repository(root, "part")
    part.commit({"data": "of the part\n"})
    with git_daemon(root) as daemon:
        git(shop.work, "submodule", "add", "-q", f"{daemon}/part.git", "inner")
        shop.commit({"sub/Dockerfile": DOCKERFILE, "sub/data": "sub\n", "link": ("sub",), "up": ("../../../..",),
                     "sub/away": ("/etc/shadow",), "Dockerfile": "FROM small:1\nCOPY inner/data /got/data\n"})
        build(instance, f"{daemon}/shop.git")
        assert got(instance, what="cat /got/data") == ["of the part"]
        build(instance, f"{daemon}/shop.git#:sub")
        assert got(instance) == ["./Dockerfile", "./away", "./data", "sub"]
        assert got(instance, what="readlink /got/away") == ["/etc/shadow"], "a link stays what it is"
        build(instance, f"{daemon}/shop.git#trunk:link")
        build(instance, f"{daemon}/shop.git#trunk:up/sub")  # a link leads nowhere else than to the repository
        for folder, message in ((":nothing", "nothing"), (":sub/data", "not a directory")):
            result = build(instance, f"{daemon}/shop.git#{folder}", code=1)
            assert message in result.err, result


def told_on(words, root):
    """Command lines, but of our own CLI, and configurations of git below root that have one of the words."""
    found = []
    for path in (*pathlib.Path("/proc").glob("[0-9]*/cmdline"), *root.rglob("git/.git/config")):
        with contextlib.suppress(OSError):
            text = path.read_bytes()
            first = text.split(b"\0")[0]
            found += [text for word in words if word.encode() in text and not first.endswith(b"/cloche")]
    return found


@test
def passwords_for_repositories_are_on_no_command_line(instance, images, scratch):
    root, shop = prepare(instance, images, scratch)
    Repository(root, "part").commit({"data": "of the part\n"})
    git(shop.work, "submodule", "add", "-q", root / "part.git", "inner")
    git(shop.work, "config", "-f", ".gitmodules", "submodule.inner.url", "../part.git")
    new = shop.commit({"Dockerfile": "FROM small:1\nCOPY inner/data /got/data\n"})
    secrets, found, asked = ("s3cr:et@", "s3cr%3Aet%40", "pr0xyword"), [], []

    def look():
        asked.append(1)
        found.extend(told_on(secrets, instance.root))
    origin = {"Authorization": (401, "WWW-Authenticate", f"me:{secrets[0]}")}
    proxy = {"Proxy-Authorization": (407, "Proxy-Authenticate", f"way:{secrets[2]}")}
    with http_server(root, True, origin, look) as server:
        name = server.removeprefix("http://")
        assert f"Commit {new}" in build(instance, f"http://me:{secrets[1]}@{name}/shop.git").out
        assert got(instance, what="cat /got/data") == ["of the part"], "its submodule's server wants them, too"
        assert asked and not found, found
        for user, folder in (("me:wrong-one@", "shop"), ("me@", "shop"), ("", "shop"), (f"me:{secrets[1]}@", "none"),
                             ("me:two%0alines@", "shop")):
            result = build(instance, f"http://{user}{name}/{folder}.git", code=1)
            assert "wrong-one" not in result.err and secrets[1] not in result.err, result
    assert asked and not found, found
    with http_server(root, True, origin | proxy, look) as server:
        config = scratch / "cloched.conf"
        config.write_text(json.dumps({"registries": {"proxy": server.replace("http://", f"http://way:{secrets[2]}@")}}))
        config.chmod(0o600)
        instance.env["CLOCHE_CONFIG"] = str(config)
        instance.kill_daemon()
        asked.clear()
        address = f"http://me:{secrets[1]}@shop.example/shop.git"
        assert f"Commit {new}" in build(instance, address).out
    assert asked and not found, found


def roots_of_git():
    """The roots of processes that fetch over HTTP, as they see them."""
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text() == "git-remote-http\n":
                yield comm.parent / "root"


@test
def git_sees_no_keys_of_the_machine(instance, images, scratch):
    """As both families of distributions have them, beside the certificates."""
    root, shop = prepare(instance, images, scratch)
    shop.commit({"Dockerfile": DOCKERFILE, "data": "x\n"})
    covers = {"ssl": ("certs/ca.crt", "openssl.cnf", "private/key.pem", "web.key"),
              "pki": ("tls/certs/ca.crt", "ca-trust/extracted/pem/ca.pem", "tls/private/key.pem", "ca-trust/source/x")}
    made, seen = [], set()
    for name, files in covers.items():
        for file in files:
            (scratch / name / file).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name / file).touch()
        place = pathlib.Path("/etc", name)
        if not place.exists():
            place.mkdir()
            made.append(place)
        run("mount", "--bind", scratch / name, place)

    def look():
        for jail in roots_of_git():
            seen.update(str(path.relative_to(jail)) for name in covers for path in (jail / "etc" / name).rglob("*")
                        if path.is_file())
    try:
        with http_server(root, True, asked=look) as server:
            build(instance, f"{server}/shop.git")
    finally:
        for name in covers:
            run("umount", pathlib.Path("/etc", name))
        for place in made:
            place.rmdir()
    assert seen == {"etc/ssl/certs/ca.crt", "etc/ssl/openssl.cnf", "etc/pki/tls/certs/ca.crt",
                    "etc/pki/ca-trust/extracted/pem/ca.pem"}, seen


@test
def hostile_and_absent_repositories_are_refused(instance, images, scratch):
    root, shop = prepare(instance, images, scratch)
    marker = scratch / "was-here"
    part = Repository(root, "part")
    part.commit({"data": "x"})
    shop.commit({"Dockerfile": DOCKERFILE, "data": "x\n"})
    with git_daemon(root) as daemon:
        address = f"{daemon}/shop.git"
        for strange, message in (
                (f"{address}#nothing", "nothing"), (f"{daemon}/absent.git", "git: "),
                (f"{address}#--upload-pack=touch {marker}", "no branch, tag or commit"),
                (f"{address}#refs/heads/*", "no branch, tag or commit"),
                ("git@127.0.0.1:shop.git", "not fetched over ssh"), ("ssh://127.0.0.1/shop.git", "not fetched over ssh"),
                (f"git://127.0.0.1:{free_port()}/x.git", "git: ")):
            result = build(instance, strange, code=1)
            assert message in result.err, (strange, result)
        # Files of the machine, by a submodule and by what is no protocol of the network.
        for url in (str(part.bare), f"file://{part.bare}", f"ext::sh -c 'touch {marker}'"):
            (shop.work / ".gitmodules").write_text(f'[submodule "p"]\n\tpath = p\n\turl = {url}\n')
            git(shop.work, "add", ".gitmodules")
            git(shop.work, "update-index", "--add", "--cacheinfo",
                f"160000,{git(part.work, 'rev-parse', 'HEAD')},p")
            shop.push()
            result = build(instance, address, code=1)
            assert "git: " in result.err, (url, result)
        shop.commit({".gitmodules": None, ".gitattributes": "* filter=evil\n"})
        build(instance, address)
    assert not marker.exists()
    add = scratch / "add"
    add.mkdir()
    (add / "Dockerfile").write_text("FROM small:1\nADD git@github.com:x/y.git /x\n")
    assert instance.cloche("build", add, code=1).err


def object_of(repository, kind, data):
    """Writes what git's own commands would refuse to make."""
    return run("git", "-C", repository, "hash-object", "-t", kind, "-w", "--stdin", "--literally", text=False,
               input=data, env=IDENTITY).out.decode().strip()


def tree_of(entries):
    """entries: list of (mode, name, object)."""
    return b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(identity) for mode, name, identity in entries)


@test
def trees_that_want_to_be_more_than_files_are_refused(instance, images, scratch):
    """What would be git's own folder, a way out of the repository, or more than a disk holds."""
    root, shop = prepare(instance, images, scratch)
    shop.commit({"Dockerfile": DOCKERFILE, "data": "x\n"})
    marker = scratch / "was-here"
    script = object_of(shop.bare, "blob", f"#!/bin/sh\ntouch {marker}\n".encode())
    dockerfile = object_of(shop.bare, "blob", DOCKERFILE.encode())
    link = object_of(shop.bare, "blob", b"/etc")
    hooks = object_of(shop.bare, "tree", tree_of([("100755", "post-checkout", script)]))
    inner = object_of(shop.bare, "tree", tree_of([("40000", "hooks", hooks)]))
    written = object_of(shop.bare, "tree", tree_of([("100644", "escaped", script)]))
    bomb = object_of(shop.bare, "tree", tree_of([("100644", f"{number:04}", script) for number in range(1000)]))
    for _ in range(4):
        bomb = object_of(shop.bare, "tree", tree_of([("40000", f"{number:02}", bomb) for number in range(20)]))
    cases = {
        "folder": [("40000", ".git", inner), ("100644", "Dockerfile", dockerfile)],
        "folder-in-capitals": [("40000", ".GIT", inner), ("100644", "Dockerfile", dockerfile)],
        "way-out": [("100644", "../escaped", script), ("100644", "Dockerfile", dockerfile)],
        "parent": [("40000", "..", written), ("100644", "Dockerfile", dockerfile)],
        "link-and-folder": [("100644", "Dockerfile", dockerfile), ("120000", "d", link), ("40000", "d", written)],
        "bomb": [("100644", "Dockerfile", dockerfile), ("40000", "bomb", bomb)],
    }
    for name, entries in cases.items():
        top = object_of(shop.bare, "tree", tree_of(entries))
        commit = object_of(shop.bare, "commit", f"tree {top}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nx\n".encode())
        (shop.bare / "refs/heads" / name).write_text(commit + "\n")
    with git_daemon(root) as daemon:
        for name in cases:
            result = build(instance, f"{daemon}/shop.git#{name}", code=None)
            assert not marker.exists() and not os.path.exists("/etc/escaped"), name
            if name not in ("folder-in-capitals", "link-and-folder"):  # which git may take for one of both
                assert result.code == 1 and "git" in result.err, (name, result)
            assert os.listdir(instance.root / "staging") == [], name


@test
def a_silent_server_is_given_up_and_a_build_can_be_cancelled(instance, images, scratch):
    config = scratch / "cloched.conf"
    config.write_text('{"registries": {"patienceSeconds": 2}}')
    config.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(config)
    prepare(instance, images, scratch)  # starts the daemon
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"git://127.0.0.1:{silent.getsockname()[1]}/x.git"
        result = build(instance, address, code=1)
        assert "said nothing for too long" in result.err, result
        config.write_text('{"registries": {"patienceSeconds": 600}}')
        os.kill(instance.daemon_pid(), 1)
        building = instance.start("build", address)
        silent.accept()[0].recv(1)
        building.terminate()
        building.communicate()
        wait_for(lambda: run("pgrep", "-f", address, code=None).code == 1, what="git is gone")


@test
def repositories_have_limits_of_size_number_and_time(instance, images, scratch):
    config = scratch / "cloched.conf"
    config.write_text("{}")
    config.chmod(0o600)
    instance.env["CLOCHE_CONFIG"] = str(config)
    root, repository = prepare(instance, images, scratch)
    repository.commit({"Dockerfile": "FROM small:1\nCOPY . /got\n", "data": "x\n", "big": os.urandom(1500000).hex(),
                       **{f"many/{number}": "y" for number in range(300)}})

    def limited(address, **limits):
        config.write_text(json.dumps({"registries": limits}))
        os.kill(instance.daemon_pid(), signal.SIGHUP)
        result = build(instance, address, code=None)
        assert os.listdir(instance.root / "staging") == [], limits
        return result

    with git_daemon(root) as daemon:
        address = f"{daemon}/shop.git"
        for limits, problem in (({"gitBytes": 2 << 20}, "it is too large (gitBytes"),
                                ({"gitFiles": 200}, "it has too many files (gitFiles")):
            result = limited(address, **limits)
            assert result.code == 1 and problem in result.err, (limits, result)
        assert limited(address, gitBytes=64 << 20, gitFiles=2000).code == 0
    with socket.socket() as silent:  # not for so long that it is given up for that
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        result = limited(f"git://127.0.0.1:{silent.getsockname()[1]}/x.git", gitSeconds=2)
        assert result.code == 1 and "it takes too long (gitSeconds" in result.err, result


@test
def without_git_the_package_is_named(instance, images, scratch):
    """In a mount namespace of the daemon's own, in which git is covered."""
    prepare(instance, images, scratch)
    covered = pathlib.Path(shutil.which("git")).resolve()
    nothing = scratch / "nothing"
    nothing.touch(mode=0o600)
    run("mount", "--bind", nothing, covered)
    try:
        result = build(instance, "git://127.0.0.1:1/x.git", code=1)
        assert "install the package git" in result.err, result
    finally:
        run("umount", covered)


if __name__ == "__main__":
    main()
