#!/usr/bin/env python3
"""Turns contrib/profiles/seccomp-default.json into a C string: linux.seccomp of config.json for one
architecture, compact. Usage: embed_profile.py PROFILE ARCHITECTURE OUTPUT"""

import json
import sys


def main(profile, architecture, output):
    with open(profile, encoding="utf-8") as file:
        document = json.load(file)
    own = document.pop("perArchitecture").get(architecture, [])
    names = document.pop("architectures").get(architecture)
    if names:
        document["architectures"] = names
    document["syscalls"] += own
    text = json.dumps(document, separators=(",", ":"))
    with open(output, "w", encoding="utf-8") as file:
        file.write("/* Generated from contrib/profiles/seccomp-default.json. */\n")
        file.write('#include "seccomp_profile.h"\n\nconst char seccomp_profile[] =')
        for start in range(0, len(text), 80):
            quoted = text[start:start + 80].replace("\\", "\\\\").replace('"', '\\"')
            file.write(f'\n    "{quoted}"')
        file.write(";\n")


main(*sys.argv[1:])
