"""Archives and layers made by hand, byte by byte where it must be: what no well-behaved tool writes."""

import gzip
import hashlib
import io
import json
import tarfile


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(name, data=None, kind=None, **fields):
    """A member for tar(): a regular file with data, or of another kind (tarfile's constants)."""
    info = tarfile.TarInfo(name)
    info.type = kind or (tarfile.REGTYPE if data is not None else tarfile.DIRTYPE)
    info.mode = fields.pop("mode", 0o644 if data is not None else 0o755)
    if data is not None:
        info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def link(name, target, kind=tarfile.SYMTYPE):
    return entry(name, None, kind, linkname=target, mode=0o777)


def tar(entries, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def config(diff_ids, **fields):
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
                       "rootfs": {"type": "layers", "diff_ids": diff_ids}, **fields}).encode()


def docker_archive(layers, name="hand:1", diff_ids=None, manifest=None):
    """layers: tars, as bytes. diff_ids, manifest: something else than what is true."""
    text = config(diff_ids if diff_ids is not None else [digest(layer) for layer in layers])
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    if manifest is None:
        manifest = json.dumps([{"Config": "config.json", "RepoTags": [name],
                                "Layers": names}]).encode()
    return tar([entry(path, layer) for path, layer in zip(names, layers)] +
               [entry("config.json", text), entry("manifest.json", manifest)])


def layout(images, compress=gzip.compress, index=None):
    """An OCI layout. images: list of (name or None, [layers], platform or None)."""
    blobs, manifests = {}, []

    def add(data, **fields):
        blobs[digest(data)] = data
        return {"digest": digest(data), "size": len(data), **fields}

    for name, layers, platform in images:
        packed = [compress(layer) for layer in layers]
        manifest = json.dumps({
            "schemaVersion": 2,
            "config": add(config([digest(layer) for layer in layers]),
                          mediaType="application/vnd.oci.image.config.v1+json"),
            "layers": [add(data, mediaType="application/vnd.oci.image.layer.v1.tar+gzip")
                       for data in packed]}).encode()
        descriptor = add(manifest, mediaType="application/vnd.oci.image.manifest.v1+json")
        if name:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        if platform:
            descriptor["platform"] = platform
        manifests.append(descriptor)
    top = {"schemaVersion": 2, "manifests": manifests}
    if index:
        top = index(top, add)
    return tar([entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
                entry("index.json", json.dumps(top).encode())] +
               [entry(f"blobs/sha256/{name[7:]}", data) for name, data in blobs.items()])
