"""An ordinary user for the tests, with ranges of subordinate ids.

Nobody is added to the machine: while a User is entered, the files of /etc that tell of users are
covered by others in the mount namespace of the tests. Needs uidmap.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess

from bundles import CGROUPS, Bundle, Runtime
from harness import run

FILES = ("passwd", "group", "subuid", "subgid")


class User:
    name, uid, subuid, subgid, count = "clochetest", 23456, 2000000, 3000000, 65536

    def __init__(self, scratch):
        self.etc = scratch / "etc"
        self.home = scratch / "home"
        self.runtime_folder = scratch / "runtime"
        self.covers, self.made = [], []
        os.chmod(scratch, 0o711)
        self.etc.mkdir()
        for folder in (self.home, self.runtime_folder):
            folder.mkdir(mode=0o700)
            self.own(folder)
        lines = {"passwd": f"{self.name}:x:{self.uid}:{self.uid}::{self.home}:/bin/sh",
                 "group": f"{self.name}:x:{self.uid}:",
                 "subuid": f"{self.name}:{self.subuid}:{self.count}",
                 "subgid": f"{self.name}:{self.subgid}:{self.count}"}
        for name in FILES:
            before = pathlib.Path("/etc", name).read_text() if name in ("passwd", "group") else ""
            (self.etc / name).write_text(before + lines[name] + "\n")

    def __enter__(self):
        for name in FILES:
            place = pathlib.Path("/etc", name)
            if not place.exists():
                place.touch()
                self.made.append(place)
            run("mount", "--bind", self.etc / name, place)
            self.covers.append(place)
        return self

    def __exit__(self, *_):
        while self.covers:
            run("umount", self.covers.pop())
        while self.made:
            self.made.pop().unlink()

    def own(self, path):
        for entry in [path, *path.rglob("*")]:
            os.lchown(entry, self.uid, self.uid)
        return path

    @property
    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "USER": self.name,
                "XDG_RUNTIME_DIR": str(self.runtime_folder)}

    def argv(self, *args, **environment):
        words = [f"{key}={value}" for key, value in {**self.environment, **environment}.items()
                 if value is not None]
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups",
                "env", "-i", *words, *map(str, args)]

    def run(self, *args, environment=None, **options):
        return run(*self.argv(*args, **(environment or {})), cwd=options.pop("cwd", self.home),
                   **options)


class UserRuntime(Runtime):
    """cloche-runtime as that user, with the state where it puts it by itself."""

    def __init__(self, user):
        super().__init__(user.home)
        self.user = user
        copy = user.home.parent / "cloche-runtime"  # the build may be in a folder of root's
        shutil.copy(self.path, copy)
        self.path = copy
        self.root = user.runtime_folder / "cloche-runtime"

    def __call__(self, *args, code=0, log=True, environment=None, **options):
        to_log = ["--log", self.log] if log else []
        return self.user.run(self.path, *to_log, *args, code=code, environment=environment,
                             **options)

    def start(self, *args, **options):
        return subprocess.Popen(self.user.argv(self.path, *args), cwd=self.user.home, **options)


class UserWorld:
    """As World; the configuration is what `spec --rootless` writes."""

    def __init__(self, scratch, images, unique, user):
        self.scratch, self.images, self.name, self.user = scratch, images, unique, user
        self.runtime = UserRuntime(user)
        self.bundle = self.new_bundle("bundle")

    def new_bundle(self, name):
        bundle = Bundle(self.user.home / name, self.images, self.name)
        os.unlink(bundle.path / "config.json")
        self.user.own(bundle.path)
        self.runtime("spec", "--rootless", "-b", bundle.path)
        bundle.config = bundle.read()
        bundle.process["terminal"] = False
        return bundle

    def run(self, script=None, code=0, options=(), **more):
        if script is not None:
            self.bundle.script(script)
        self.bundle.write()
        return self.runtime("run", *options, "-b", self.bundle.path, self.name, code=code, **more)

    def fails(self, *words, script=None, **more):
        result = self.run(script, code=1, **more)
        for word in words:
            assert word in result.err, result
        assert self.runtime.names() == []
        return result

    def map_more(self, bundle=None):
        """All the ids that the user may have."""
        bundle = bundle or self.bundle
        for key, first in (("uidMappings", self.user.subuid), ("gidMappings", self.user.subgid)):
            bundle.linux[key] = [{"containerID": 0, "hostID": self.user.uid, "size": 1},
                                 {"containerID": 1, "hostID": first, "size": self.user.count}]
        return bundle.write()


def user_world(test):
    """A decorator for tests that get a UserWorld, made of the decorator for tests."""
    def decorate(function):
        def call(scratch, images, unique):
            with User(scratch) as user:
                function(UserWorld(scratch, images, unique, user))
        call.__name__ = function.__name__
        return test(call)
    return decorate


@contextlib.contextmanager
def delegated_cgroup(user, name):
    """A cgroup that the user may make others in: in every hierarchy of v1, or on v2."""
    tops = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else \
        [path for path in CGROUPS.iterdir()
         if not path.is_symlink() and (path / "tasks").exists()]
    folders = [top / name for top in tops]
    try:
        for folder in folders:
            folder.mkdir()
            for file in (".", "cgroup.procs", "tasks", "cgroup.subtree_control"):
                if (folder / file).exists():
                    os.chown(folder / file, user.uid, user.uid)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (folder / file).exists() and (folder / "tasks").exists():
                    os.chown(folder / file, user.uid, user.uid)
                    (folder / file).write_text((folder.parent / file).read_text())
        yield folders
    finally:
        for folder in folders:
            for path in sorted(folder.rglob("*"), reverse=True):
                if path.is_dir():
                    path.rmdir()
            if folder.exists():
                folder.rmdir()
