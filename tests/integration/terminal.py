"""A program on a terminal of its own, driven as a person would: write, wait for text, resize."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    """Use as a context manager: the program is killed at the end when it still runs."""

    def __init__(self, argv, env, rows=24, columns=80):
        self.main, side = pty.openpty()
        self.resize(rows, columns)
        self.seen = b""
        self._read_to = 0
        self.process = subprocess.Popen(argv, stdin=side, stdout=side, stderr=side, env=env,
                                        start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(side)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.main)

    def resize(self, rows, columns):
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.main, text.encode() if isinstance(text, str) else text)

    def expect(self, pattern, timeout=60.0):
        """Waits until the regular expression matches what came after the last match; returns the
        match object (bytes)."""
        pattern = pattern.encode() if isinstance(pattern, str) else pattern
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.seen[self._read_to:])
            if match:
                self._read_to += match.end()
                return match
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"no {pattern!r} in {self.seen[self._read_to:]!r} "
                                     f"(all: {self.seen!r})")

    def wait(self, timeout=60.0):
        """Reads to the end of the program; returns its exit code (negative: signal)."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def hang_up(self):
        os.kill(self.process.pid, signal.SIGHUP)

    def _read(self, timeout):
        if timeout <= 0 or not select.select([self.main], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.main, 65536)
        except OSError:  # EIO: the last holder of the other side closed it
            return False
        self.seen += data
        return bool(data)
