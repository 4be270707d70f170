"""Clients of the engines' sockets without a command line: plain sockets that stay open, no library, so
that what is measured is the engine."""

import json
import socket


class WireError(RuntimeError):
    """The engine said no."""


class Http:
    """One connection to a docker.sock."""

    VERSION = "/v1.41"

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(str(path))
        self.input = self.socket.makefile("rb")

    def close(self):
        self.input.close()
        self.socket.close()

    def send(self, method, path, body=None, upgrade=False):
        head = f"{method} {self.VERSION}{path} HTTP/1.1\r\nHost: docker\r\n"
        if upgrade:
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        text = json.dumps(body).encode() if body is not None else b""
        if body is not None:
            head += "Content-Type: application/json\r\n"
        if method != "GET":
            head += f"Content-Length: {len(text)}\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + text)

    def head(self):
        """(status, fields) of the next answer, whose body has not been read."""
        status = int(self.input.readline().split()[1])
        fields = {}
        while (line := self.input.readline().strip()):
            key, _, value = line.decode().partition(":")
            fields[key.lower()] = value.strip()
        return status, fields

    def body(self, status, fields):
        if status in (101, 204, 304):
            return b""
        if "chunked" not in fields.get("transfer-encoding", ""):
            return self.input.read(int(fields.get("content-length", 0)))
        parts = []
        while (size := int(self.input.readline().split(b";")[0], 16)):
            parts.append(self.input.read(size))
            self.input.readline()
        self.input.readline()
        return b"".join(parts)

    def ask_text(self, method, path, body=None):
        """The answer's whole body, which is not read any further."""
        self.send(method, path, body)
        status, fields = self.head()
        data = self.body(status, fields)
        if status >= 400:
            raise WireError(f"{method} {path}: {status} {data.decode(errors='replace')}")
        return data

    def ask(self, method, path, body=None):
        data = self.ask_text(method, path, body)
        return json.loads(data) if data.strip() else None


class DockerWire:
    """What the command line does, as few requests. A second connection stays open for `wait`, whose
    answer begins before the container does."""

    name = "http"

    def __init__(self, path):
        self.path = path
        self.first, self.second = Http(path), Http(path)

    def close(self):
        self.first.close()
        self.second.close()

    def create(self, image, command, remove=False):
        return self.first.ask("POST", "/containers/create", {
            "Image": image, "Cmd": command, "HostConfig": {"AutoRemove": remove}})["Id"]

    def run(self, image):
        name = self.create(image, ["true"], remove=True)
        self.second.send("POST", f"/containers/{name}/wait?condition=removed")
        head = self.second.head()
        self.first.ask("POST", f"/containers/{name}/start")
        if json.loads(self.second.body(*head))["StatusCode"] != 0:
            raise WireError("true was false")

    def start(self, image):
        name = self.create(image, ["sleep", "100000"])
        self.first.ask("POST", f"/containers/{name}/start")
        return name

    def exec(self, container):
        """Creates, starts with its streams to their end, and asks for the code."""
        name = self.first.ask("POST", f"/containers/{container}/exec", {
            "Cmd": ["true"], "AttachStdout": True, "AttachStderr": True})["Id"]
        stream = Http(self.path)
        try:
            stream.send("POST", f"/exec/{name}/start", {"Detach": False}, upgrade=True)
            if stream.head()[0] not in (101, 200):
                raise WireError("the exec did not start")
            while stream.input.read(4096):
                pass
        finally:
            stream.close()
        if self.first.ask("GET", f"/exec/{name}/json")["ExitCode"] != 0:
            raise WireError("true was false")

    def list(self):
        """Until the last byte is here. What our own reading of it takes is nothing of the engine's."""
        return self.first.ask_text("GET", "/containers/json")

    def count(self, text):
        return len(json.loads(text))


class ManagementWire:
    """The same on cloche's management socket."""

    name = "rpc"

    def __init__(self, path):
        from raw_rpc import Rpc
        self.rpc = Rpc(path, timeout=120)

    def close(self):
        self.rpc.close()

    def create(self, image, command, remove=False):
        return self.rpc.call("container.create", image=image, command=command, autoRemove=remove)["id"]

    def answers(self, *calls):
        """Sends all of them at once and waits for the answers, which come in any order."""
        first = self.rpc.last_id + 1
        for method, params in calls:
            self.rpc.last_id += 1
            self.rpc.send({"jsonrpc": "2.0", "id": self.rpc.last_id, "method": method, "params": params})
        results = {}
        while len(results) < len(calls):
            message = self.rpc.receive()
            if message is None or "error" in message:
                raise WireError(message)
            if "method" not in message:
                results[message["id"]] = message["result"]
        return [results[first + number] for number in range(len(calls))]

    def run(self, image):
        name = self.create(image, ["true"], remove=True)
        waited, _ = self.answers(("container.wait", {"container": name, "condition": "removed"}),
                                 ("container.start", {"container": name}))
        if waited["exitCode"] != 0:
            raise WireError("true was false")

    def start(self, image):
        name = self.create(image, ["sleep", "100000"])
        self.rpc.call("container.start", container=name)
        return name

    def exec(self, container):
        started = self.rpc.call("container.exec", container=container, command=["true"])
        if self.rpc.call("container.execWait", execId=started["execId"])["exitCode"] != 0:
            raise WireError("true was false")

    def list(self):
        self.rpc.last_id += 1
        self.rpc.send({"jsonrpc": "2.0", "id": self.rpc.last_id, "method": "container.list", "params": {}})
        return self.rpc.receive_line()

    def count(self, text):
        return len(json.loads(text)["result"]["containers"])
