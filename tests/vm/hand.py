"""The hand at the guest's ports: plugs devices in and pulls them out over QMP, as a test in the guest asks
by files in /share/hand (guest_sticks.py)."""

import json
import os
import pathlib
import socket
import threading

ALLOWED = ("device_add", "device_del", "qom-set")
PAUSE = 0.1  # seconds


class Hand:
    """Between `with` and its end, as long as QEMU runs. The folder has N.ask, a list of QMP commands, and
    gets N.answer, a list of what QEMU answered."""

    def __init__(self, folder, path):
        self.folder = pathlib.Path(folder)
        self.path = path  # QMP's socket
        self.file = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _work(self):
        while not self.over.wait(PAUSE):
            for ask in sorted(self.folder.glob("*.ask")):
                answers = [self._execute(command) for command in json.loads(ask.read_text())]
                ask.unlink()
                answer = ask.with_suffix(".answer")
                answer.with_suffix(".part").write_text(json.dumps(answers))
                os.rename(answer.with_suffix(".part"), answer)

    def _execute(self, command):
        if command.get("execute") not in ALLOWED:
            return {"error": f"not one of {', '.join(ALLOWED)}"}
        arguments = command["arguments"]
        if "pcap" in arguments:  # a name in the folder
            arguments["pcap"] = str(self.folder / pathlib.Path(arguments["pcap"]).name)
        try:
            return self._talk(command)
        except (OSError, ValueError) as e:
            return {"error": f"QMP: {e}"}

    def _talk(self, command):
        if not self.file:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.path)
            connection.settimeout(60)
            self.file = connection.makefile("rw")
            self.file.readline()  # the greeting
            self._talk({"execute": "qmp_capabilities"})
        self.file.write(json.dumps(command) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                return answer
