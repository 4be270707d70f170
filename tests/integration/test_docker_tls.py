#!/usr/bin/env python3
"""The Docker Engine API over TLS and TCP, with docker's own command line: streams, sizes, certificates, pages."""

import os
import random
import socket
import ssl
import subprocess
import sys
import time

from dockers import Docker, daemon
from door import Certificates, free_port
from harness import main, run, test, wait_for


class Remote:
    """The command line at a place of the network."""

    def __init__(self, port, certificates, name="client"):
        self.flags = ["-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", certificates.path("ca.pem"),
                      "--tlscert", certificates.path(name + ".pem"), "--tlskey", certificates.path(name + ".key")]
        self.env = {"DOCKER_CONFIG": "/nonexistent"}

    def __call__(self, *args, **options):
        return run("/usr/bin/docker", *self.flags, *args, env=self.env, **options)

    def start(self, *args, **options):
        return subprocess.Popen(["/usr/bin/docker", *self.flags, *args], env={**os.environ, **self.env}, **options)


def ask(sock, *headers, path="/_ping", method="GET"):
    sock.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *headers, "Connection: close", "", ""]).encode())
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


@test
def the_docker_cli_comes_over_tls(instance, images, scratch):
    Docker(instance)  # skips without it
    instance.kill_daemon()
    certificates = Certificates(scratch)
    certificates.make("clerk", "ca", "/CN=clerk", "extendedKeyUsage=clientAuth")
    port = free_port()
    with daemon(instance, scratch, listen=[f"docker+tls://127.0.0.1:{port}"], tlsCert=certificates.path("server.pem"),
                tlsKey=certificates.path("server.key"), tlsClientCa=certificates.path("ca.pem"), stallSeconds=1,
                methods=["system.version"], grants=[{"certificates": ["CN:till 7"], "methods": ["*"]}]):
        docker = Remote(port, certificates)
        assert "small:1" in docker("load", "-i", images.small("small:1")).out
        # Streams both ways, larger than all buffers between, and their ends.
        data = random.Random(7).randbytes(8 << 20)
        assert docker("run", "--rm", "-i", "small:1", "cat", input=data, text=False).out == data
        docker("run", "-d", "--name", "one", "small:1", "sh", "-c", "sleep 1000")
        assert docker("exec", "-i", "one", "cat", input=data, text=False).out == data
        docker("exec", "one", "sh", "-c", "exit 3", code=3)
        docker("save", "-o", str(scratch / "saved.tar"), "small:1")
        (scratch / "big").write_bytes(data)
        docker("cp", str(scratch / "big"), "one:/big")
        docker("cp", "one:/big", str(scratch / "back"))
        assert (scratch / "back").read_bytes() == data
        # Who reads page by page is not sent away, however long a page is looked at.
        with docker.start("exec", "one", "cat", "/dev/zero", stdout=subprocess.PIPE) as pages:
            pages.stdout.read(100_000)
            time.sleep(3)
            assert len(pages.stdout.read(50_000_000)) == 50_000_000
            pages.kill()
        docker("kill", "one")
        docker("rm", "one")
        # Certificates decide.
        clerk = Remote(port, certificates, "clerk")
        assert clerk("version", "--format", "{{.Server.Os}}").out == "linux\n"
        assert "may not be called" in clerk("ps", code=1).err
        Remote(port, certificates, "stranger")("ps", code=1)
        # A browser with a certificate brings the page's name along.
        context = ssl.create_default_context(cafile=certificates.path("ca.pem"))
        context.load_cert_chain(certificates.path("client.pem"), certificates.path("client.key"))
        for headers, status in ((["Host: d"], b"200"), (["Host: d", "Origin: https://page.example"], b"403")):
            with socket.create_connection(("127.0.0.1", port)) as plain, \
                    context.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
                assert ask(sock, *headers).split()[1] == status, headers


@test
def pages_do_not_come_in_by_tcp(instance, scratch):
    instance.start_daemon()
    instance.kill_daemon()
    port = free_port()
    with daemon(instance, scratch, listen=[f"docker+tcp://127.0.0.1:{port}"], insecureLoopback=True):
        for headers, status in (
                ([f"Host: 127.0.0.1:{port}"], b"200"), (["Host: localhost"], b"200"), (["Host: a.localhost:1"], b"200"),
                (["Host: [::1]:1"], b"200"), (["Host: page.example"], b"403"), (["Host: 127.0.0.1.page.example"], b"403"),
                (["Host: not.localhost.example"], b"403"), (["Host: docker:2375"], b"200"),
                ([f"Host: 127.0.0.1:{port}", "Origin: http://page.example"], b"403"),
                (["Host: localhost", "Origin: null"], b"403")):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                assert ask(sock, *headers).split()[1] == status, headers
        with socket.create_connection(("127.0.0.1", port)) as sock:
            assert ask(sock, "Host: page.example", method="POST", path="/containers/one/start").split()[1] == b"403"


if __name__ == "__main__":
    sys.exit(main())
