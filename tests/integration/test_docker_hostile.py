#!/usr/bin/env python3
"""Clients of the Docker Engine API that break off, do not read, hold too much, or are pages of the web."""

import contextlib
import io
import json
import pathlib
import socket
import sys
import tarfile
import time

from dockers import Docker
from harness import main, test, wait_for

HOST = b"Host: d\r\n"


def archive(**files):
    """A tar of these files, which is whole for a reader at every multiple of 512 bytes."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return data.getvalue()


def connect(docker):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(docker.path)
    return sock


def door(docker):
    """Process id of the door that serves docker.sock."""
    with connect(docker) as sock:
        sock.sendall(b"GET /_ping HTTP/1.1\r\n" + HOST + b"\r\n")
        sock.recv(4096)
    for status in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"docker+unix://{docker.path}".encode() in status.read_bytes():
                return int(status.parent.name)
    raise AssertionError(f"nobody serves {docker.path}")


def resident(pid):
    return next(int(line.split()[1]) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
                if line.startswith("VmRSS"))


@test
def half_of_an_upload_is_not_taken_for_the_whole(instance, images):
    docker = Docker(instance)
    instance.cloche("load", "-i", images.small("small:1"))
    instance.cloche("run", "-d", "--name", "one", "small:1", "sleep", "1000")
    half = archive(Dockerfile=b"FROM small:1\nCOPY . /all\n", one=b"1")[:2048]
    long = b"Content-Length: 999999\r\n\r\n" + half
    chunk = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(half), half)
    for body in (long, chunk, chunk + b"zz\r\n"):
        for path in ("/images/create?fromSrc=-&repo=half", "/build?t=half", "/images/load"):
            answer = docker.raw(b"POST /v1.41%b HTTP/1.1\r\n%bContent-Type: application/x-tar\r\n%b" % (
                path.encode(), HOST, body))
            assert answer.startswith(b"HTTP/1.1 400") or b'"error":"unexpected EOF"' in answer, (path, body[:30], answer)
            assert b"unexpected EOF" in answer, answer
        answer = docker.raw(b"PUT /v1.41/containers/one/archive?path=/ HTTP/1.1\r\n" + HOST + body)
        assert answer.startswith(b"HTTP/1.1 400") and b"unexpected EOF" in answer, answer
        # Who is gone altogether is told nothing, and has made nothing either.
        with connect(docker) as sock:
            sock.sendall(b"POST /v1.41/images/create?fromSrc=-&repo=half HTTP/1.1\r\n" + HOST + body)
    time.sleep(0.5)
    assert docker.ask("GET", "/images/half/json")[0] == 404
    # The same to its end is an image.
    whole = archive(one=b"1")
    answer = docker.raw(b"POST /v1.41/images/create?fromSrc=-&repo=half HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (
        HOST, len(whole), whole))
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert docker.ask("GET", "/images/half/json")[0] == 200
    docker("rm", "-f", "one")


@test
def pages_of_the_web_can_say_nothing(instance):
    """A browser sends these types without asking first."""
    docker = Docker(instance)
    for kind in ("", "Content-Type: text/plain;charset=UTF-8\r\n", "Content-Type: application/x-www-form-urlencoded\r\n",
                 "Content-Type: application/jsonp\r\n"):
        for path in ("/containers/create", "/volumes/create", "/networks/create", "/auth"):
            answer = docker.raw(f"POST {path} HTTP/1.1\r\nHost: d\r\n{kind}Content-Length: 2\r\n\r\n{{}}".encode())
            assert answer.startswith(b"HTTP/1.1 400") and b"must be 'application/json'" in answer, answer
    answer = docker.raw(b"POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Type: Application/JSON ; charset=utf-8\r\n"
                        b"Content-Length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 201"), answer


@test
def requests_are_read_to_the_letter(instance):
    docker = Docker(instance)
    ping = b"GET /_ping HTTP/1.1\r\n" + HOST
    assert docker.raw(ping + b"X: " + b"a" * 2_000_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")
    assert docker.raw(ping + b"X-Registry-Config: " + b"a" * 200_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    # Each of several headers of a list counts.
    twice = docker.raw(ping + b"Connection: keep-alive\r\nConnection: close\r\n\r\n", end=False)
    assert b"Connection: close" in twice
    # Who asks twice and says no more hears two answers.
    assert docker.raw((ping + b"\r\n") * 2).count(b"200 OK") == 2
    chunked = b"POST /auth HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"body of the request is broken" in docker.raw(chunked + b"2\0;\r\n{}\r\n0\r\n\r\n")


@test
def the_door_of_the_socket_has_no_libraries_of_networks(instance):
    maps = pathlib.Path(f"/proc/{door(Docker(instance))}/maps").read_text()
    assert "cloche-docker" in maps and not any(word in maps for word in ("gnutls", "p11-kit", "microhttpd")), maps


@test
def memory_of_all_clients_is_limited(instance):
    docker = Docker(instance)
    pid = door(docker)
    before = resident(pid)
    body = b" " * (3 << 20)
    head = b"POST /containers/create HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % (len(body) + 1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(docker)) for _ in range(40)]
        for client in clients:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(head + body)
        assert docker.ask("GET", "/version")[0] == 200
        assert resident(pid) - before < 100 << 10, (before, resident(pid))
        left = 0
        for client in clients:
            client.setblocking(False)
            try:
                left += client.recv(1, socket.MSG_PEEK) == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                left += 1
        assert 5 < left < 40, left
    wait_for(lambda: resident(pid) < before + (20 << 10), what="what they held is given back")


@test
def a_follower_that_reads_nothing_more_ends_quietly(instance, images):
    """It has said its last while the log goes on and on."""
    docker = Docker(instance)
    instance.cloche("load", "-i", images.small("small:1"))
    instance.cloche("run", "-d", "--name", "one", "small:1", "sh", "-c", "while :; do echo " + "x" * 1000 + "; done")
    pid = door(docker)
    followers = [connect(docker) for _ in range(3)]
    for follower in followers:
        follower.sendall(b"GET /v1.41/containers/one/logs?follow=1&stdout=1 HTTP/1.1\r\n" + HOST + b"\r\n")
    time.sleep(1)  # until everything is full
    for follower in followers:
        follower.shutdown(socket.SHUT_WR)
    for follower in followers:
        time.sleep(0.2)  # for the door to see that
        while follower.recv(1 << 20):
            pass
        follower.close()
    assert docker.ask("GET", "/version")[0] == 200 and door(docker) == pid
    docker("rm", "-f", "one")


if __name__ == "__main__":
    sys.exit(main())
