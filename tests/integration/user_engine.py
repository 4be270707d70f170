"""The engine of an ordinary user for the tests: root of a user namespace of his own."""

import json
import os
import pathlib
import shutil
import signal

from harness import program, PROGRAMS, run, test, wait_for
from users import User


class Engine:
    """An engine of an ordinary user. Its programs are found by their folder, as installed ones are."""

    def __init__(self, user):
        self.user = user
        self.run_folder = user.runtime_folder / "cloche"
        self.env = {"HOME": str(user.home), "XDG_RUNTIME_DIR": str(user.runtime_folder),
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CLOCHE_LIBEXEC": str(PROGRAMS)}

    def argv(self, *words):
        return ["setpriv", "--reuid", str(self.user.uid), "--regid", str(self.user.uid), "--clear-groups", "env", "-i",
                *(f"{name}={value}" for name, value in self.env.items()), *map(str, words)]

    def cloche(self, *words, code=0, **options):
        return run(*self.argv(program("cloche"), *words), code=code, **options)

    def daemon_pid(self):
        return int((self.run_folder / "cloched.pid").read_text())

    def holder(self):
        return int((self.run_folder / "rootless.pid").read_text())

    def kill_daemon(self):
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), what="it is dead")

    def inspect(self, name):
        return json.loads(self.cloche("inspect", name).out)[0]


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def with_engine(function):
    def wrapped(images, scratch):
        with User(scratch) as user:
            engine = Engine(user)
            archive = user.home / "small.tar"
            shutil.copy(images.docker_archive(), archive)
            user.own(archive)
            try:
                engine.cloche("load", "-i", archive)
                function(engine)
            finally:
                removed = engine.cloche("system", "remove", "--force", code=None)
            assert removed.code == 0, removed
            wait_for(lambda: not user_processes(user), what=f"nothing runs: {user_processes(user)}")
            assert not engine.run_folder.exists()
            assert not (user.home / ".local/share/cloche").exists()
    wrapped.__name__ = function.__name__
    return test(wrapped)


def user_processes(user):
    found = []
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and os.stat(f"/proc/{pid}").st_uid in (user.uid, *range(user.subuid, user.subuid + 9)):
                found.append(pathlib.Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            pass
    return found
