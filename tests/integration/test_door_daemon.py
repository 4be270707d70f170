"""The daemon with a door: started for the first client, started again when it crashed, and letting each
client do what its certificate allows."""

import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from door import Certificates, free_port, read_all, rpc
from harness import TOP, main, program, run, test, wait_for

FALLBACK_ID = 65527


class Daemon:
    """cloched in the foreground with these settings of a door."""

    def __init__(self, instance, folder, **settings):
        self.instance = instance
        self.file = pathlib.Path(folder) / "cloched.conf"
        self.write(settings)
        self.log = []

    def write(self, settings):
        self.file.write_text(json.dumps({} if settings is None else {"door": settings}))

    def reload(self, word="the configuration is read again", **settings):
        """Other settings, on SIGHUP; until the daemon says so."""
        self.write(settings or None)
        before = sum(word in line for line in self.log)
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: sum(word in line for line in self.log) > before, 30, word)

    def argv(self, *more):
        return [program("cloched"), "--instance", self.instance.name, "--config", str(self.file),
                "--log-level", "debug", *more]

    def __enter__(self):
        self.process = subprocess.Popen(self.argv(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        env={**os.environ, **self.instance.env})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        wait_for(lambda: self.said("ready on") or self.process.poll() is not None, what="the daemon is ready")
        assert self.process.poll() is None, self.log
        return self

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line.decode(errors="replace"))

    def said(self, text):
        return any(text in line for line in self.log)

    def door(self):
        """Process id of the door, or None."""
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and pathlib.Path(f"/proc/{name}/stat").read_text().split()[3] == str(self.process.pid) \
                        and pathlib.Path(f"/proc/{name}/comm").read_text() == "cloche-door\n":
                    return int(name)
            except OSError:
                pass
        return None

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        self.reader.join(5)
        self.process.stderr.close()


@test
def a_door_is_started_by_its_first_client(instance, scratch):
    url = f"tcp://127.0.0.1:{free_port()}"
    with Daemon(instance, scratch, listen=[url], insecureLoopback=True, exitSeconds=1) as daemon:
        assert daemon.door() is None
        client = rpc.connect(url)
        assert client.call("system.version")["os"] == "linux"
        pid = daemon.door()
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{FALLBACK_ID}\t{FALLBACK_ID}" in status and "CapEff:\t0000000000000000" in status, status
        client.wire.close()
        wait_for(lambda: daemon.door() is None, what="a door that nobody uses ends")
        assert rpc.connect(url).call("system.version")["os"] == "linux"
    assert not os.path.exists(f"/proc/{pid}")


@test
def a_door_that_crashed_is_started_again(instance, scratch):
    url = f"ws://127.0.0.1:{free_port()}"
    with Daemon(instance, scratch, listen=[url], insecureLoopback=True) as daemon:
        for crash in range(3):
            client = wait_for(lambda: try_connect(url))
            client.call("rpc.ping")
            os.kill(daemon.door(), signal.SIGKILL)
            wait_for(lambda: sum("cloche-door ended on signal 9" in line for line in daemon.log) == crash + 1)
        assert client.wire.receive() is None
        pauses = [line.split("the next one in ")[1].split(" s")[0] for line in daemon.log if "the next one" in line]
        assert pauses == ["0.1", "0.2", "0.4"], pauses
        # The daemon's own socket does not notice.
        assert rpc.connect(f"unix://{instance.socket}").call("system.version")


def try_connect(url, **options):
    try:
        return rpc.connect(url, **options)
    except (OSError, EOFError):
        return None


def connect_page(url, origin):
    """As a page of that origin; None: it is not let in."""
    host = url.split("//")[1]
    try:
        return rpc.Client(rpc.WebSocket(socket.create_connection(tuple(host.split(":")), timeout=60), host,
                                        headers=["Origin: " + origin]))
    except (OSError, EOFError):
        return None


@test
def certificates_decide_what_may_be_called(instance, scratch):
    certificates = Certificates(scratch)
    url = f"tls://127.0.0.1:{free_port()}"
    settings = {
        "listen": [url], "tlsCert": certificates.path("server.pem"), "tlsKey": certificates.path("server.key"),
        "tlsClientCa": certificates.path("ca.pem"), "methods": ["system.version"],
        "grants": [{"certificates": ["CN:nobody", "DNS:till*.example"], "methods": ["container.list"]},
                   {"certificates": ["CN:boss"], "methods": ["*"]}]}
    certificates.make("boss", "ca", "/CN=boss", "extendedKeyUsage=clientAuth")
    certificates.make("other", "ca", "/CN=other", "subjectAltName=DNS:boss.example\nextendedKeyUsage=clientAuth")
    with Daemon(instance, scratch, **settings):
        for name, allowed in (("client", {"system.version", "container.list"}), ("other", {"system.version"}),
                              ("boss", {"system.version", "container.list", "system.info"})):
            client = rpc.connect(url, **certificates.client_options(name))
            for method in ("system.version", "container.list", "system.info"):
                try:
                    client.call(method)
                    assert method in allowed, (name, method)
                except RuntimeError as problem:
                    assert method not in allowed and "(-4)" in str(problem), (name, method, problem)
            client.wire.close()


@test
def nobody_can_say_who_they_are(instance, scratch):
    """What the door says beside a connection, a client may say within it, first or later."""
    url = f"ws://127.0.0.1:{free_port()}"
    boss = {"transport": "tls", "address": "192.0.2.1:1", "listener": "x", "name": "boss"}
    settings = {"listen": [url], "insecureLoopback": True, "methods": ["system.version"], "origins": ["*"],
                "grants": [{"certificates": ["CN:boss"], "methods": ["*"]}]}

    def refused(client, method, params, code):
        try:
            client.call(method, params)
            raise AssertionError(f"{method} was allowed")
        except RuntimeError as problem:
            assert code in str(problem), problem

    with Daemon(instance, scratch, **settings):
        # Words of the door that are refused leave nobody behind, whose client could say others.
        for origin in ("https://shop.example", "https://shop.example/" + "x" * 2100, "\xff" * 700):
            client = connect_page(url, origin)
            if client:
                refused(client, "rpc.peer", boss, "(-32601)")
                refused(client, "system.info", {}, "(-4)")
                assert client.call("system.version")
        refused(rpc.connect(f"unix://{instance.socket}"), "rpc.peer", boss, "(-32601)")


@test
def clients_see_who_they_are_and_what_they_may(instance, scratch):
    certificates = Certificates(scratch)
    urls = {scheme: f"{scheme}://127.0.0.1:{free_port()}" for scheme in ("tls", "ws")}
    settings = {
        "listen": list(urls.values()), "tlsCert": certificates.path("server.pem"),
        "tlsKey": certificates.path("server.key"), "tlsClientCa": certificates.path("ca.pem"),
        "insecureLoopback": True, "methods": ["system.version"],
        "grants": [{"certificates": ["CN:till 7"], "methods": ["container.*"]}]}
    free = {"rpc.hello", "rpc.ping", "rpc.cancel", "rpc.whoami", "rpc.discover"}
    with Daemon(instance, scratch, **settings):
        till = rpc.connect(urls["tls"], **certificates.client_options())
        page = rpc.connect(urls["ws"])
        me, it = till.call("rpc.whoami"), page.call("rpc.whoami")
        assert me["certificate"] == "CN:till 7" and me["transport"] == "tls" and me["listener"] == urls["tls"], me
        assert "DNS:till7.example" in me["certificateNames"] and me["address"].startswith("127.0.0.1:"), me
        assert it["transport"] == "ws" and it["listener"] == urls["ws"] and "certificate" not in it, it
        assert set(it["methods"]) == free | {"system.version"}
        assert {"container.list", "container.exec"} <= set(me["methods"]) and "system.info" not in me["methods"]
        for client, known in ((till, me), (page, it)):
            shown = {method["name"] for method in client.call("rpc.discover")["methods"]}
            assert shown == set(known["methods"]), shown ^ set(known["methods"])


@test
def one_client_too_many_ends_nobody_elses_connection(instance, scratch):
    """The daemon has no descriptor left: the one who comes is turned away, the others stay."""
    import resource
    url = f"tcp://127.0.0.1:{free_port()}"
    with Daemon(instance, scratch, listen=[url], insecureLoopback=True, connectionsPerAddress=200,
                handshakesPerAddress=200) as daemon:
        client = rpc.connect(url)
        client.call("rpc.ping")
        door = daemon.door()
        limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        used = set(map(int, os.listdir(f"/proc/{daemon.process.pid}/fd")))
        lowest_free = [number for number in range(1000) if number not in used]
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (lowest_free[8], limits[1]))
        crowd = [socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) for _ in range(30)]
        wait_for(lambda: daemon.said("no descriptor left"))
        assert client.call("rpc.ping") == {} and daemon.door() == door
        for sock in crowd:
            sock.close()
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)

        def served():
            other = try_connect(url)
            try:
                return other.call("rpc.ping") == {}
            except (OSError, EOFError, AttributeError):
                return False
        wait_for(served)
        assert daemon.door() == door and client.call("rpc.ping") == {}


@test
def a_guest_uses_up_its_own_share_alone(instance, scratch):
    """To the kernel all guests are the door; their limits are each one's own."""
    port = free_port()
    with Daemon(instance, scratch, listen=[f"tcp://127.0.0.1:{port}"], insecureLoopback=True):
        hogs = []
        # 64 MiB but for a few bytes, of which no message is whole.
        for source, length in [("127.0.0.2", (1 << 20) - 16)] * 64 + [("127.0.0.3", 1000)]:
            hog = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
            hogs.append(hog)
            try:
                hog.sendall(b"[" + b" " * (length - 1))
            except OSError:
                pass  # it was enough
        instance.cloche("run", "-d", "--name", "shop", "host", "sleep", "600", timeout=400)
        try:
            client = rpc.connect(f"tcp://127.0.0.1:{port}")
            numbers = [client.send("container.wait", {"container": "shop"}) for _ in range(10)]
            assert client.call("rpc.ping") == {}
            client.call("container.stop", {"container": "shop", "timeout": 0})
            assert all("exitCode" in client.take(number) for number in numbers)
        finally:
            for hog in hogs:
                hog.close()
            instance.cloche("rm", "-f", "shop", code=None)


@test
def clients_that_are_gone_end_their_calls(instance, scratch):
    """One that shut its half and vanished is no client any more, though it waits for an answer."""
    port = free_port()
    with Daemon(instance, scratch, listen=[f"tcp://127.0.0.1:{port}"], insecureLoopback=True):
        instance.cloche("run", "-d", "--name", "shop", "host", "sleep", "600", timeout=400)
        try:
            def waits():
                stats = rpc.connect(f"tcp://127.0.0.1:{port}").call("rpc.stats")
                return sum(m["inFlight"] for m in stats["methods"] if m["method"] == "container.wait")
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"container.wait","params":{"container":"shop"}}\n')
            wait_for(lambda: waits() == 1)
            sock.shutdown(socket.SHUT_WR)
            time.sleep(0.3)
            assert waits() == 1  # half of it is still there
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            wait_for(lambda: waits() == 0, what="the call of a client that is gone ends")
        finally:
            instance.cloche("rm", "-f", "shop", code=None)


@test
def a_killed_daemon_takes_its_door_along(instance, scratch):
    url = f"tcp://127.0.0.1:{free_port()}"
    with Daemon(instance, scratch, listen=[url], insecureLoopback=True) as daemon:
        client = rpc.connect(url)
        client.call("rpc.ping")
        door = daemon.door()
        daemon.process.kill()
        assert client.wire.receive() is None
        # The next one gets the same place.
        with Daemon(instance, scratch, listen=[url], insecureLoopback=True) as another:
            assert rpc.connect(url).call("system.version")["pid"] == another.process.pid
            assert another.door() != door
            wait_for(lambda: not os.path.exists(f"/proc/{door}"))


@test
def settings_that_make_no_sense_stop_the_daemon(instance, scratch):
    certificates = Certificates(scratch)
    taken = socket.create_server(("127.0.0.1", 0))
    place = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    for settings, message in (
            ({"listen": ["tcp://127.0.0.1:1"]}, "door: tcp://127.0.0.1:1 would let in whoever can reach it"),
            ({"listen": ["tls://127.0.0.1:7071"], "tlsCert": "/nowhere", "insecureLoopback": True}, "come together"),
            ({"listen": ["tls://127.0.0.1:1"], "tlsCert": certificates.path("server.pem"),
              "tlsKey": certificates.path("client.key"), "tlsClientCa": certificates.path("ca.pem")}, "server.pem"),
            ({"listen": []}, "listen"), ({}, "listen"), ({"listen": ["x"], "colour": 1}, "colour"),
            ({"listen": [place], "insecureLoopback": True}, "Address already in use"),
            ({"listen": [place], "insecureLoopback": True, "user": "root"}, "may not run as root"),
            ({"listen": [place], "insecureLoopback": True, "methods": ["container.lst"]}, "no method fits"),
            ({"listen": [place], "insecureLoopback": True,
              "grants": [{"certificates": ["CN:boss"], "methods": ["*", "imagelist"]}]}, "no method fits 'imagelist'"),
            ({"listen": [place], "insecureLoopback": True, "user": "no-such-user"}, "no user")):
        daemon = Daemon(instance, scratch, **settings)
        if "in use" not in message:
            looked = run(*daemon.argv("--check-config"), env=instance.env, code=None)
            assert looked.code == 1 and message in looked.err, (settings, looked)
        result = run(*daemon.argv(), env=instance.env, code=1)
        assert message in result.err, (settings, result)
    taken.close()


# ---- other settings

def ends(client):
    """Whether the connection is closed from the other side."""
    client.wire.sock.settimeout(20)
    try:
        return client.wire.receive() is None
    except OSError:
        return True


def refuses(url, **options):
    try:
        rpc.connect(url, **options).call("rpc.ping")
        return False
    except (OSError, EOFError):
        return True


@test
def places_come_and_go_on_sighup(instance, scratch):
    """Connections to places that stay are not dropped; those to others are."""
    stays, goes, comes = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
    with Daemon(instance, scratch, listen=[stays, goes], insecureLoopback=True) as daemon:
        kept, dropped = rpc.connect(stays), rpc.connect(goes)
        assert kept.call("rpc.ping") == {} and dropped.call("rpc.ping") == {}
        first = daemon.door()
        daemon.reload(listen=[stays, goes], insecureLoopback=True)
        assert daemon.door() == first and rpc.connect(goes).call("rpc.ping") == {}  # nothing has changed
        daemon.reload("the door stays as it was", listen=["tcp://0.0.0.0:1"])
        assert dropped.call("rpc.ping") == {}
        daemon.reload(listen=[comes, stays], insecureLoopback=True, idleSeconds=3600)
        assert ends(dropped) and refuses(goes)
        for url in (stays, comes):
            assert rpc.connect(url).call("rpc.ping") == {}
        assert kept.call("rpc.ping") == {}
        # The door of before goes with its last client.
        kept.wire.close()
        wait_for(lambda: not os.path.exists(f"/proc/{first}"), 20)
        # Another transport at the same place, and none at all, and one again.
        wide = comes.replace("127.0.0.1", "0.0.0.0")
        daemon.reload(listen=[comes.replace("tcp:", "ws:")], insecureLoopback=True)
        assert rpc.connect(comes.replace("tcp:", "ws:")).call("rpc.ping") == {} and refuses(stays)
        daemon.reload()
        assert refuses(comes) and daemon.door() is None, wide
        daemon.reload(listen=[comes], insecureLoopback=True)
        assert rpc.connect(comes).call("rpc.ping") == {}


@test
def certificates_are_renewed_on_sighup(instance, scratch):
    certificates = Certificates(scratch)
    certificates.make("boss", "ca", "/CN=boss", "extendedKeyUsage=clientAuth")
    certificates.make("renewed", "ca", "/CN=renewed door",
                      "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth")
    url = f"tls://127.0.0.1:{free_port()}"
    settings = {"listen": [url], "tlsCert": certificates.path("server.pem"), "tlsKey": certificates.path("server.key"),
                "tlsClientCa": certificates.path("ca.pem")}

    def shown(client):
        return dict(pair[0] for pair in client.wire.sock.getpeercert()["subject"])["commonName"]

    with Daemon(instance, scratch, **settings) as daemon:
        till, boss = (rpc.connect(url, **certificates.client_options(name)) for name in ("client", "boss"))
        assert till.call("rpc.ping") == boss.call("rpc.ping") == {} and shown(till) == "door"
        for kind in ("pem", "key"):
            os.replace(certificates.path(f"renewed.{kind}"), certificates.path(f"server.{kind}"))
        daemon.reload(**settings)
        later = rpc.connect(url, **certificates.client_options("boss"))
        assert later.call("rpc.ping") == {} and shown(later) == "renewed door"
        assert till.call("rpc.ping") == boss.call("rpc.ping") == {}
        # One is revoked: its connections end, at whichever door they are; the others stay.
        for name, text in (("index", ""), ("number", "01\n")):
            (scratch / name).write_text(text)
        (scratch / "ca.cnf").write_text(f"[ca]\ndefault_ca=a\n[a]\ndatabase={scratch}/index\n"
                                        f"crlnumber={scratch}/number\ndefault_md=sha256\ndefault_crl_days=2\n")
        authority = ["-config", scratch / "ca.cnf", "-cert", certificates.path("ca.pem"), "-keyfile",
                     certificates.path("ca.key")]
        run("openssl", "ca", *authority, "-revoke", certificates.path("client.pem"))
        run("openssl", "ca", *authority, "-gencrl", "-out", certificates.path("crl.pem"))
        settings["tlsCrl"] = certificates.path("crl.pem")
        young = rpc.connect(url, **certificates.client_options())
        assert young.call("rpc.ping") == {}
        daemon.reload(**settings)
        assert ends(young)
        assert refuses(url, **certificates.client_options())
        assert boss.call("rpc.ping") == later.call("rpc.ping") == {}
        assert ends(till)


@test
def rights_are_read_again_on_sighup(instance, scratch):
    url = f"tcp://127.0.0.1:{free_port()}"
    settings = {"listen": [url], "insecureLoopback": True}
    with Daemon(instance, scratch, **settings, methods=["system.version"]) as daemon:
        client = rpc.connect(url)
        assert "system.info" not in client.call("rpc.whoami")["methods"]
        door = daemon.door()
        daemon.reload(**settings, methods=["system.version", "system.info"])
        assert client.call("system.info") and daemon.door() == door
        daemon.reload(**settings, methods=["system.info"])
        assert ends(client)
        later = rpc.connect(url)
        assert later.call("system.info") and "system.version" not in later.call("rpc.whoami")["methods"]


# ---- the command line

@test
def the_command_line_reaches_a_daemon_through_a_door(instance, scratch):
    certificates = Certificates(scratch)
    ports = {"tls": free_port(), "tcp": free_port()}
    urls = {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in ports.items()}
    identity = ["--tlscacert", certificates.path("ca.pem"), "--tlscert", certificates.path("client.pem"),
                "--tlskey", certificates.path("client.key")]
    with Daemon(instance, scratch, listen=list(urls.values()), insecureLoopback=True,
                tlsCert=certificates.path("server.pem"), tlsKey=certificates.path("server.key"),
                tlsClientCa=certificates.path("ca.pem")):
        instance.cloche("create", "--name", "shop", "host", "true", timeout=400)

        def remote(*arguments, **options):
            """Without the instance's name, nothing here could be meant."""
            return run(program("cloche"), *arguments, env={"CLOCHE_LIBEXEC": os.environ.get("CLOCHE_LIBEXEC", ""),
                                                           "CLOCHE_INSTANCE": ""}, **options)

        for host in (["-H", urls["tcp"]], ["-H", urls["tls"], *identity], ["--host", f"unix://{instance.socket}"]):
            assert remote(*host, "ps", "-a", "--format", "{{.Names}}").lines == ["shop"], host
        remote("-H", urls["tls"], *identity, "rm", "shop")
        assert remote("-H", urls["tcp"], "ps", "-aq").lines == []
        for arguments, message in (
                (["-H", urls["tls"], *identity[:2], "ps"], ""),
                (["-H", urls["tls"], *identity[2:], "ps"], "certificate"),
                (["-H", urls["tls"].replace("127.0.0.1", "localhost"), *identity, "ps"], "certificate"),
                (["-H", f"tcp://127.0.0.1:{free_port()}", "ps"], "Connection refused"),
                (["-H", "tcp://no-such-host.invalid:1", "ps"], "no-such-host.invalid"),
                (["-H", "http://127.0.0.1:1", "ps"], "is no daemon's address"),
                (["-H", "ws://127.0.0.1:1", "ps"], "listen on a tcp:// address"),
                (["-H", "wss://127.0.0.1:1", "ps"], "listen on a tls:// address"),
                (["-H", urls["tls"], *identity[:4], "ps"], "come together"),
                (["-H", urls["tcp"], "logs", "shop"], "daemon of this machine only")):
            result = remote(*arguments, code=None)
            assert result.code == 1 and message in result.err, (arguments, result)


# ---- the page

class Browser:
    """Chromium, asked through its pipe (DevTools protocol)."""

    def __init__(self, folder, url):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "sh",
             "/usr/lib/chromium/chromium", "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
             "--disable-dev-shm-usage", f"--user-data-dir={folder}/profile", "--window-size=1200,800",
             "--remote-debugging-pipe", url],
            pass_fds=[to_browser, from_browser], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}, start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        self.pending, self.last, self.session = b"", 0, None
        targets = wait_for(lambda: [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"])
        self.session = self.call("Target.attachToTarget", targetId=targets[0]["targetId"], flatten=True)["sessionId"]

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.pending:
                part = os.read(self.read, 65536)
                assert part, "the browser has ended"
                self.pending += part
            text, _, self.pending = self.pending.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.last:
                assert "result" in answer, answer
                return answer["result"]

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def href(self):
        try:
            return self.evaluate("location.href")
        except AssertionError:  # the page was just leaving
            return None

    def text(self, selector):
        return self.evaluate(f"document.querySelector('{selector}')?.textContent")

    def close(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.write)
        os.close(self.read)


@test
def a_browser_shows_containers_and_events_live(instance, scratch):
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    page = str(TOP / "contrib" / "examples" / "containers.html")
    with Daemon(instance, scratch, listen=[url], insecureLoopback=True, page=page):
        browser = Browser(scratch, f"http://127.0.0.1:{port}/")
        try:
            try:
                wait_for(lambda: browser.text("#link-text") == "live", 120)
            except AssertionError:
                raise AssertionError(browser.text("header")) from None
            assert "none yet" in browser.text("#containers")
            instance.cloche("run", "-d", "--name", "shop", "host", "sleep", "600", timeout=400)
            wait_for(lambda: browser.text("#containers li[data-state=running] .name") == "shop")
            wait_for(lambda: "start" in (browser.text("#events") or ""))
            picture = browser.call("Page.captureScreenshot")["data"]
            if os.environ.get("CLOCHE_TEST_PICTURE"):
                import base64
                pathlib.Path(os.environ["CLOCHE_TEST_PICTURE"]).write_bytes(base64.b64decode(picture))
            # A page of somebody else's, in the same browser, does not get in.
            browser.call("Page.navigate", url="data:text/html,x")
            wait_for(lambda: browser.href() == "data:text/html,x")
            opened = browser.evaluate(
                f"new Promise(done => {{ const s = new WebSocket('{url}/rpc', 'cloche-rpc');"
                "s.onopen = () => done('open'); s.onerror = () => done('refused'); })")
            assert opened == "refused", opened
        finally:
            browser.close()
            instance.cloche("rm", "-f", "shop", code=None)


if __name__ == "__main__":
    main()
