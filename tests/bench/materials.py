"""What engine.py gives the engines: images of its own making, a context to build, a registry."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile

from harness import run, wait_for
from registries import answers, free_port

SMALL, BIG, MANY, NET = "small:1", "benchbig:1", "benchlayers:1", "benchnet:1"
IPERF_PORT, SINK_PORT = 5201, 5202


def tar_of_folder(folder, path):
    run("tar", "-C", folder, "--numeric-owner", "-cf", path, ".")
    return path


def tar_of_file(name, data, path, mode=0o644):
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), mode
        archive.addfile(entry, io.BytesIO(data))
    return path


def docker_archive(path, name, layers):
    """An archive as `docker save` writes it, of tars."""
    digests = [hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
                         "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]},
                         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
                         "history": [{"created_by": "bench"} for _ in layers]}).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name],
                 "Layers": [f"{digest}/layer.tar" for digest in digests]}]
    with tarfile.open(path, "w") as archive:
        for member, data in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for digest, layer in zip(digests, layers):
            archive.add(layer, f"{digest}/layer.tar")
    return path


class Materials:
    """Makes each when it is first asked for. scale: 1 for the sizes of README.md."""

    def __init__(self, folder, images, helpers, scale):
        self.folder, self.images, self.helpers = folder, images, helpers
        self.megabytes = lambda full: max(1, round(full * scale))
        self.layer_count = max(3, round(40 * scale))
        self.made = {}

    def _once(self, key, make):
        if key not in self.made:
            self.made[key] = make(self.folder / f"material-{key}")
        return self.made[key]

    def base(self):
        return self._once("base", lambda path: tar_of_folder(self.images.root(), path))

    def archive(self, name):
        make = {SMALL: self._small, BIG: self._big, MANY: self._many, NET: self._net}[name]
        return self._once(name.replace(":", "-"), make)

    def _small(self, path):
        return docker_archive(path, SMALL, [self.base()])

    def _big(self, path):
        """Random bytes: a registry's gzip makes nothing of them."""
        layer = tar_of_file("data", os.urandom(self.megabytes(200) << 20), self.folder / "big.tar")
        return docker_archive(path, BIG, [self.base(), layer])

    def _many(self, path):
        layers = [tar_of_file(f"file{number}", os.urandom(1 << 18), self.folder / f"layer{number}.tar")
                  for number in range(self.layer_count - 1)]
        return docker_archive(path, MANY, [self.base(), *layers])

    def _net(self, path):
        root = self.folder / "net"
        root.mkdir()
        shutil.copy(self.helpers / "sink", root / "sink")
        if iperf := shutil.which("iperf3"):
            for file in [iperf, *(word for word in run("ldd", iperf).out.split() if word.startswith("/"))]:
                target = pathlib.Path(f"{root}{file}")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        return docker_archive(path, NET, [self.base(), tar_of_folder(root, self.folder / "net.tar")])

    def context(self):
        return self._once("context", self._context)

    def _context(self, path):
        """Twenty steps: eight that run something, four that copy, eight of the configuration."""
        path.mkdir()
        lines = [f"FROM {SMALL}", "WORKDIR /shop", "ENV A=1", "LABEL kind=bench"]
        for number in range(4):
            (path / f"file{number}").write_bytes(os.urandom(1 << 16))
            lines += [f"COPY file{number} /shop/", f"RUN sha256sum file{number} > sum{number}",
                      f"RUN mkdir d{number} && cp file{number} d{number}/"]
        lines += ["ENV B=2", "EXPOSE 80", "USER shop", 'CMD ["/bin/true"]']
        (path / "Dockerfile").write_text("\n".join(lines) + "\n")
        return path


class Registry:
    """docker-registry with the big image, one process for each network namespace on the same data."""

    def __init__(self, folder):
        self.folder = folder / "registry"
        self.folder.mkdir()
        self.name = None
        self.processes = []

    def serve(self, enter):
        port = free_port()
        config = self.folder / f"config-{port}.yml"
        config.write_text("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                          f"storage: {{filesystem: {{rootdirectory: {self.folder}/data}}}}\n"
                          f"http:\n  addr: 127.0.0.1:{port}\n")
        with open(self.folder / "log", "ab") as log:
            self.processes.append(subprocess.Popen([*enter, "docker-registry", "serve", config], stdout=log, stderr=log))
        if enter:
            wait_for(lambda: run(*enter, "ss", "-Hltn", f"sport = :{port}").out, what="docker-registry listens")
        else:
            wait_for(lambda: answers(port), what="docker-registry listens")
        return f"127.0.0.1:{port}"

    def fill(self, archive):
        run("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false",
            f"docker-archive:{archive}", f"docker://{self.serve([])}/{BIG}", timeout=600)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Outside:
    """A network namespace joined to the engine's by a veth pair: a client there comes as another machine
    does. The addresses differ by number, as two engines may share a namespace."""

    def __init__(self, number, enter):
        self.here, there = f"198.51.{number}.1", f"198.51.{number}.2"
        self.link, self.engine = f"bench{number}", enter
        self.keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.enter = ["nsenter", "-n", "-t", str(self.keeper.pid)]
        mine = os.stat("/proc/self/ns/net").st_ino
        wait_for(lambda: os.stat(f"/proc/{self.keeper.pid}/ns/net").st_ino != mine, what="it has its namespace")
        run(*enter, "ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.keeper.pid)
        run(*enter, "ip", "addr", "add", f"{self.here}/24", "dev", self.link)
        run(*enter, "ip", "link", "set", self.link, "up")
        for words in (("addr", "add", f"{there}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                      ("link", "set", "lo", "up"), ("route", "add", "default", "via", self.here)):
            run(*self.enter, "ip", *words)

    def close(self):
        self.keeper.kill()
        self.keeper.wait()
        with contextlib.suppress(AssertionError):
            run(*self.engine, "ip", "link", "del", self.link, code=None)
