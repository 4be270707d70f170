"""Docker's own command line on an instance's docker.sock, and requests made by hand."""

import contextlib
import json
import os
import shutil
import socket
import subprocess

from harness import Skip, program, run, wait_for

DEBIAN_PYTHON = "/usr/bin/python3"  # for which python3-docker is


class Docker:
    """The stock command line on the instance's docker.sock."""

    def __init__(self, instance):
        if not shutil.which("/usr/bin/docker"):
            raise Skip("docker.io is not installed")
        instance.start_daemon()
        self.path = str(instance.run_folder / "docker.sock")
        self.env = {"DOCKER_HOST": f"unix://{self.path}", "DOCKER_CONFIG": "/nonexistent"}

    def __call__(self, *args, **options):
        return run("/usr/bin/docker", *args, env=self.env, **options)

    def start(self, *args):
        return subprocess.Popen(["/usr/bin/docker", *args], env={**os.environ, **self.env},
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def raw(self, text, end=True):
        """All that comes back for these bytes."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(self.path)
            sock.sendall(text)
            if end:
                sock.shutdown(socket.SHUT_WR)
            data = b""
            try:
                while part := sock.recv(65536):
                    data += part
            except ConnectionResetError:
                pass
            return data

    def ask(self, method, path, body=None, version="/v1.44"):
        """Status and document."""
        text = json.dumps(body) if body is not None else ""
        head = (f"{method} {version}{path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n")
        head, _, rest = self.raw((head + text).encode(), end=False).partition(b"\r\n\r\n")
        if b"chunked" in head:
            rest = dechunk(rest)
        return int(head.split()[1]), json.loads(rest) if rest.strip() else None


def dechunk(data):
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        whole += data[:int(size, 16)]
        data = data[int(size, 16) + 2:]
    return whole


def listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def daemon(instance, folder, **settings):
    """cloched in the foreground with a door of these settings."""
    config = folder / "cloched.conf"
    config.write_text(json.dumps({"door": settings}))
    process = subprocess.Popen([program("cloched"), "--instance", instance.name, "--config", config],
                               stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env={**os.environ, **instance.env})
    try:
        wait_for(lambda: listens(int(settings["listen"][0].rpartition(":")[2])), what="the daemon is ready")
        yield
    finally:
        process.terminate()
        process.wait(60)
