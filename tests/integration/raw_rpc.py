"""A JSON-RPC client of the management socket that knows nothing but JSON, lines and sockets: what
the tests of the socket speak with."""

import collections
import json
import socket
import time


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(json.dumps(error))
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data", {})


class Rpc:
    """One connection. Notifications that come between answers are kept in .notices."""

    def __init__(self, path, timeout=60.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.input = b""
        self.last_id = 0
        self.notices = collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive_line(self):
        """The text of the next message, or None at the end."""
        while b"\n" not in self.input:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.input += data
        line, _, self.input = self.input.partition(b"\n")
        return line

    def receive(self):
        """The next message, or None at the end."""
        line = self.receive_line()
        return None if line is None else json.loads(line)

    def call(self, method, **params):
        self.last_id += 1
        self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        while True:
            message = self.receive()
            if message is None:
                raise ConnectionResetError(f"{method}: no answer came")
            if "method" in message:
                self.notices.append(message)
            elif "error" in message:
                raise RpcError(message["error"])
            else:
                assert message["id"] == self.last_id, message
                return message["result"]

    def fails(self, method, **params):
        """The error that the call must end with."""
        try:
            result = self.call(method, **params)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} succeeded: {result}")

    def notice(self, timeout=60.0):
        """The next notification."""
        deadline = time.monotonic() + timeout
        while not self.notices:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.01))
            message = self.receive()
            assert message is not None, "the connection ended"
            self.notices.append(message)
        return self.notices.popleft()

    def event(self, timeout=60.0):
        """(number, event) of the next notification, which must be an event."""
        notice = self.notice(timeout)
        assert notice["method"] == "events.event", notice
        return notice["params"]["sequence"], notice["params"]["event"]

    def events_until(self, action, **attributes):
        """The events up to the first of this action (and these attributes)."""
        events = []
        while True:
            events.append(self.event()[1])
            last = events[-1]
            if last["action"] == action and attributes.items() <= last["attributes"].items():
                return events
