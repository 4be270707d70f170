"""Root file systems and images for the tests, made by other tools: umoci, buildah, skopeo.

An image is a tar file on disk. Each is made once for a test file and then shared; nobody writes to
one. Sizes are small: a busybox and what the test adds.
"""

import json
import os
import pathlib
import shutil

from harness import run

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n" \
          "shop:x:1000:1001:shop:/home/shop:/bin/sh\n"
_GROUP = "root:x:0:\nstaff:x:50:shop\nshop:x:1001:\nnogroup:x:65534:\n"


class Images:
    """Maker of images. All results are paths as str."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self._made = {}

    def _once(self, key, make):
        if key not in self._made:
            path = self.folder / f"{len(self._made):03d}-{key.replace('/', '_').replace(':', '_')}"
            make(path)
            self._made[key] = str(path)
        return self._made[key]

    # ---- root file systems

    def root(self):
        """A folder with busybox, its applets, /etc/passwd and /etc/group. Shared: do not write."""
        return self._once("root", self.make_root)

    def make_root(self, path):
        """The same in a new folder, for the caller to change."""
        path = pathlib.Path(path)
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "var", "home/shop"):
            (path / name).mkdir(parents=True)
        os.chmod(path / "tmp", 0o1777)
        os.chown(path / "home/shop", 1000, 1001)
        shutil.copy("/bin/busybox", path / "bin/busybox")
        for applet in run("/bin/busybox", "--list").lines:
            if applet != "busybox":
                (path / "bin" / applet).symlink_to("busybox")
        (path / "etc/passwd").write_text(_PASSWD)
        (path / "etc/group").write_text(_GROUP)
        return str(path)

    # ---- umoci

    def small(self, name="small:1", command=("/bin/sh",)):
        """A one-layer busybox image as an OCI layout tar (gzip layer), made by umoci."""
        return self._once(f"umoci-{name}-{'-'.join(command)}.tar".replace("/", "_"), lambda path:
                          self.umoci(path, name, [self.root()], {"config.cmd": list(command)}))

    def umoci(self, path, name, layers, config=None):
        """An OCI layout tar at path. layers: for each layer a folder to copy over the root, or a
        function(root: Path) that changes it (files it deletes become whiteouts). config: umoci
        options, e.g. {"config.cmd": ["a", "b"], "config.env": "A=1", "config.user": "shop"}."""
        work = pathlib.Path(str(path) + ".work")
        layout, tag = work / "layout", name.rpartition(":")[2]
        image = f"{layout}:{tag}"
        work.mkdir()
        run("umoci", "init", "--layout", layout)
        run("umoci", "new", "--image", image)
        for number, layer in enumerate(layers):
            bundle = work / f"bundle{number}"
            run("umoci", "unpack", "--image", image, bundle)
            if callable(layer):
                layer(bundle / "rootfs")
            else:
                run("cp", "-a", f"{layer}/.", bundle / "rootfs")
            run("umoci", "repack", "--image", image, bundle)
            run("rm", "-rf", bundle)
        options = []
        for key, value in (config or {}).items():
            for word in value if isinstance(value, (list, tuple)) else [value]:
                options += [f"--{key}", word]
        if options:
            run("umoci", "config", "--image", image, *options)
        run("umoci", "gc", "--layout", layout)
        _name_in_index(layout, name)
        run("tar", "-C", layout, "-cf", path, ".")
        run("rm", "-rf", work)
        return str(path)

    # ---- buildah

    def buildah(self, path, name, steps, kind="docker-archive", config=()):
        """An image by buildah from scratch, pushed to a tar at path. kind: docker-archive or
        oci-archive. steps: list of ("copy", source, target) and ("run", word, ...), one layer in
        all. config: words for `buildah config`."""
        tool = self._buildah()
        container = tool("from", "scratch").out.strip()
        for verb, *words in steps:
            if verb == "copy":
                tool("copy", "--quiet", container, *words)
            else:
                tool("run", "--isolation", "chroot", container, "--", *words)
        if config:
            tool("config", *config, container)
        tool("commit", "--quiet", "--rm", container, name)
        reference = f":{name}" if kind == "docker-archive" else f":{name}"
        tool("push", "--quiet", name, f"{kind}:{path}{reference}")
        return str(path)

    def _buildah(self):
        storage = self.folder / "buildah"
        storage.mkdir(exist_ok=True)
        policy = storage / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

        def tool(*words, **options):
            verb, *rest = words
            trust = ["--signature-policy", policy] if verb in ("commit", "push", "pull") else []
            return run("buildah", "--storage-driver", "vfs", "--root", storage / "root",
                       "--runroot", storage / "run", verb, *trust, *rest,
                       env={"BUILDAH_ISOLATION": "chroot"}, timeout=180, **options)
        return tool

    # ---- skopeo

    def copy(self, source, target, *options):
        """skopeo copy. source, target: transports, e.g. f"oci-archive:{tar}:name:tag". options:
        e.g. "--dest-compress-format", "zstd"."""
        return run("skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target,
                   timeout=180)

    def inspect(self, source):
        """What skopeo reads of an image: {"manifest": ..., "config": ...} as parsed JSON."""
        return {
            "manifest": json.loads(run("skopeo", "--insecure-policy", "inspect", "--raw",
                                       source).out),
            "config": json.loads(run("skopeo", "--insecure-policy", "inspect", "--config",
                                     source).out),
        }

    def docker_archive(self, name="small:1"):
        """The small image as `docker save` writes it, by skopeo."""
        return self._once(f"docker-{name}.tar", lambda path: self.copy(
            f"oci-archive:{self.small(name)}", f"docker-archive:{path}:{name}"))

    def recompressed(self, form, name="small:1"):
        """The small image as an OCI layout tar with its layers as gzip, zstd or plain tar."""
        def make(path):
            folder = pathlib.Path(str(path) + ".layout")
            if form == "plain":
                # A copy to dir: with --dest-decompress loses the compression; on to the archive.
                self.copy(f"oci-archive:{self.small(name)}", f"dir:{folder}", "--dest-decompress")
                self.copy(f"dir:{folder}", f"oci:{folder}.oci:{name}",
                          "--dest-oci-accept-uncompressed-layers")
                run("tar", "-C", f"{folder}.oci", "-cf", path, ".")
                run("rm", "-rf", f"{folder}.oci")
            else:
                self.copy(f"oci-archive:{self.small(name)}", f"oci:{folder}:{name}",
                          "--dest-compress-format", form, "--dest-compress")
                run("tar", "-C", folder, "-cf", path, ".")
            run("rm", "-rf", folder)
        return self._once(f"{form}-{name}.tar", make)


def _name_in_index(layout, name):
    """umoci names an image by its tag alone; other tools write the whole name."""
    path = pathlib.Path(layout) / "index.json"
    index = json.loads(path.read_text())
    for manifest in index["manifests"]:
        manifest.setdefault("annotations", {})["org.opencontainers.image.ref.name"] = name
    path.write_text(json.dumps(index))
