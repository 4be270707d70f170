"""Finds the guest's kernel and its modules."""

import pathlib
import subprocess

# On a busy host the emulated timer is late, and the kernel takes that for a broken board and panics:
# no_timer_check.
OPTIONS = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check"


class Kernel:
    """image: the vmlinuz; modules: folder that holds a folder per version; version."""

    def __init__(self, root, version):
        root = pathlib.Path(root)
        self.version = version
        self.image = root / "boot" / f"vmlinuz-{version}"
        self.modules = root / "usr/lib/modules"
        if not (self.modules / version).exists():
            self.modules = root / "lib/modules"

    def complete(self):
        return self.image.exists() and (self.modules / self.version / "modules.dep").exists()

    def with_dependencies(self, names):
        """Files of the modules, each after those it needs. Built-in ones are left out."""
        files, needs = {}, {}
        folder = self.modules / self.version
        for line in (folder / "modules.dep").read_text().splitlines():
            path, _, rest = line.partition(":")
            name = pathlib.Path(path).name.split(".")[0].replace("-", "_")
            files[path] = folder / path
            needs[path] = rest.split()
            files.setdefault(name, path)
        ordered = []

        def add(path):
            if files[path] in ordered:
                return
            for other in needs[path]:
                add(other)
            ordered.append(files[path])
        for name in names:
            if name in files:
                add(files[name])
        return ordered


def find(build):
    """The kernel unpacked in the build folder, else the newest one of the machine."""
    for root in (pathlib.Path(build) / "vm-kernel", pathlib.Path("/")):
        images = sorted((root / "boot").glob("vmlinuz-*-amd64"), key=_version_key)
        for image in reversed(images):
            kernel = Kernel(root, image.name.removeprefix("vmlinuz-"))
            if kernel.complete():
                return kernel
    raise FileNotFoundError(f"no kernel for the guest: run tests/vm/get-kernel {build}/vm-kernel")


def _version_key(path):
    return [int(word) if word.isdigit() else 0
            for word in path.name.replace("-", ".").split(".")]


def unpack_deb(deb, folder):
    """Unpacks a kernel package and writes its modules.dep."""
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    for version in (pathlib.Path(folder) / "lib/modules").iterdir():
        subprocess.run(["depmod", "-b", folder, version.name], check=True)
