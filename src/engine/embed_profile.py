#!/usr/bin/env python3
"""Turns contrib/profiles/seccomp-default.json into two C strings: linux.seccomp of config.json for one
architecture and the capabilities that containers have without further words, and the profile itself,
for all others. Usage: embed_profile.py PROFILE ARCHITECTURE OUTPUT"""

import json
import sys

GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def counts(rule, architecture):
    """Whether a rule counts without any of the capabilities that the profile speaks of."""
    included = rule.get("includes", {})
    if "caps" in included:
        return False
    return "arches" not in included or GO_NAMES.get(architecture) in included["arches"]


def resolve(document, architecture):
    resolved = {key: document[key] for key in ("defaultAction", "defaultErrnoRet")}
    for entry in document["archMap"]:
        if entry["architecture"] == f"SCMP_ARCH_{architecture.upper()}":
            resolved["architectures"] = [entry["architecture"], *entry["subArchitectures"]]
    resolved["syscalls"] = [
        {key: value for key, value in rule.items() if key not in ("includes", "excludes")}
        for rule in document["syscalls"] if counts(rule, architecture)]
    return resolved


def write_string(file, name, document):
    text = json.dumps(document, separators=(",", ":"))
    file.write(f"\nconst char {name}[] =")
    for start in range(0, len(text), 80):
        quoted = text[start:start + 80].replace("\\", "\\\\").replace('"', '\\"')
        file.write(f'\n    "{quoted}"')
    file.write(";\n")


def main(profile, architecture, output):
    with open(profile, encoding="utf-8") as file:
        document = json.load(file)
    with open(output, "w", encoding="utf-8") as file:
        file.write("/* Generated from contrib/profiles/seccomp-default.json. */\n")
        file.write('#include "seccomp_profile.h"\n')
        write_string(file, "seccomp_default", resolve(document, architecture))
        write_string(file, "seccomp_default_source", document)


if __name__ == "__main__":
    main(*sys.argv[1:])
