#!/usr/bin/env python3
"""Fills in what a manual page takes from the sources, so that it cannot drift from them.

usage: fill.py PAGE.scd MANAGEMENT.JSON RPC.JSON HEADER... >FILLED.scd

In a page stands, alone on a line:
    @METHODS@     the methods of the management API with their parameters and results
    @DOCUMENTS@   the documents that several of them share
    @PROTOCOL@    the methods that every server has, likewise, and @PROTOCOL_DOCUMENTS@
    @ERRORS@      the error codes
and anywhere @NAME@ for a number of the C headers, @NAME:bytes@ with its unit.
"""
import pathlib
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "src/schema"))

import generate


def escape(text):
    """Text as scdoc takes it literally."""
    return re.sub(r"([\\*_`#~\[\]])", r"\\\1", text)


def evaluate(expression, values):
    """The number that a constant expression of C is; None: it has parts that are not known."""
    for name in set(re.findall(r"\b[A-Za-z_]\w*", expression)):
        if values.get(name) is None:
            return None
        expression = re.sub(rf"\b{name}\b", str(values[name]), expression)
    return eval(expression) if re.fullmatch(r"[-0-9a-fx()*+<| ]+", expression) else None


def enumerators(header, known):
    """The value of every enumerator, and of every macro that is a number, of a C header, and of those known."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    values = dict(known)
    for name, expression in re.findall(r"#define ([A-Z_]+) ([^\n]+)", text):
        values[name] = evaluate(re.sub(r"\b(\w+?)U?LL\b", r"\1", expression), values)
    for body in re.findall(r"\benum\s*\w*\s*\{([^}]*)\}", text):
        number = -1
        for part in filter(None, (part.strip() for part in body.split(","))):
            name, _, expression = (piece.strip() for piece in part.partition("="))
            if expression:
                number = evaluate(expression, values)
            elif number is not None:
                number += 1
            values[name] = number
    return values


def size(number):
    """A number of bytes as people write it."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit and number % unit == 0:
            return f"{number // unit} {name}"
    return str(number)


class Api:
    def __init__(self, document):
        self.types = document["$defs"]
        self.methods = document["x-methods"]
        self.errors = document.get("x-errors", {})
        self.uses = {}
        for method in self.methods.values():
            for side in ("params", "result"):
                self.count(method[side])
        for definition in self.types.values():
            for member in definition.get("properties", {}).values():
                # A document inside of another has a paragraph of its own.
                self.count(member, 2)
                self.count(member.get("items", {}), 2)
        self.shared = [name for name, count in self.uses.items()
                       if count > 1 and self.types[name].get("properties")]

    def count(self, schema, weight=1):
        if "$ref" in schema:
            name = self.name(schema)
            self.uses[name] = self.uses.get(name, 0) + weight

    @staticmethod
    def name(schema):
        return schema["$ref"].rsplit("/", 1)[1]

    def type_text(self, schema):
        """The type of a member, marked up."""
        if "$ref" in schema:
            target = self.types[self.name(schema)]
            if target["type"] != "object":
                return self.type_text(target)
            return f"_{escape(self.name(schema))}_"
        if schema.get("x-raw"):
            return "any JSON"
        if "enum" in schema:
            return "one of " + ", ".join(f'"{escape(value)}"' for value in schema["enum"])
        if schema["type"] == "array":
            return "array of " + self.type_text(schema["items"])
        if schema["type"] == "object":
            return "object of " + self.type_text(schema["additionalProperties"])
        if schema["type"] == "integer":
            return schema.get("format", "int64")
        return schema["type"]

    def members(self, name):
        """A paragraph for each member of a document; a line for one whose name says it all."""
        definition = self.types[name]
        lines = []
        for member, schema in definition["properties"].items():
            needed = "" if member in definition.get("required", []) else ", optional"
            if lines and lines[-1] and "description" in schema:
                lines.append("")
            elif lines and lines[-1]:
                lines[-1] += "++"
            lines.append(f"*{escape(member)}* ({self.type_text(schema)}{needed})")
            if "description" in schema:
                lines += [f"\t{escape(schema['description'])}", ""]
        return lines if not lines[-1] else lines + [""]

    def side(self, title, schema, fds):
        name = self.name(schema)
        if not self.types[name].get("properties"):
            lines = [f"{title}: none.", ""]
        elif name in self.shared:
            lines = [f"{title}: _{escape(name)}_, see *DOCUMENTS*.", ""]
        else:
            lines = [f"{title}:", ""] + self.members(name)
        if fds:
            with_it = "With it" if title == "Result" else "With them"
            lines += [f"{with_it}: {fds} descriptor" + ("." if fds == 1 else "s."), ""]
        return lines

    def method_lines(self):
        lines = []
        for name, method in self.methods.items():
            lines += [f"## {name}", "", escape(method["summary"])]
            notes = []
            for key in ("params", "result"):
                description = self.types[self.name(method[key])].get("description", "")
                if "descriptor" in description:
                    notes.append(escape(description))
            if method.get("x-long"):
                notes.append("May take long.")
            if method.get("x-idempotent"):
                notes.append("Changes nothing.")
            lines += [" ".join(notes)] if notes else []
            lines.append("")
            lines += self.side("Parameters", method["params"], method.get("x-param-fds"))
            lines += self.side("Result", method["result"], method.get("x-result-fds"))
        return lines

    def document_lines(self):
        lines = []
        for name in self.types:
            if name in self.shared:
                lines += [f"## {escape(name)}", "", escape(self.types[name]["description"]), ""]
                lines += self.members(name)
        return lines

    def error_lines(self, words):
        lines = []
        for code, meaning in sorted(self.errors.items(), key=lambda item: -int(item[0])):
            lines += [f"*{code}*, {words[int(code)]}", f"\t{escape(meaning[0].upper() + meaning[1:])}.", ""]
        return lines


def error_words(sources, constants):
    """What the code is called in an error's data, by the table of src/rpc/fault.c."""
    return {constants[name]: word for source in sources
            for name, word in re.findall(r'\{(RPC_[A-Z_]+), "(\w+)"\}', source)}


def fill(page, api, protocol, constants, words):
    blocks = {"@METHODS@": api.method_lines, "@DOCUMENTS@": api.document_lines,
              "@PROTOCOL@": protocol.method_lines,
              "@PROTOCOL_DOCUMENTS@": protocol.document_lines, "@ERRORS@": lambda: api.error_lines(words)}

    def value(match):
        number = constants.get(match[1])
        if number is None:
            raise SystemExit(f"fill.py: there is no number {match[1]}")
        return size(number) if match[2] else str(number)

    lines = []
    for line in page.splitlines():
        if line in blocks:
            lines += blocks[line]()
        else:
            lines.append(re.sub(r"@([A-Z_]+)(:bytes)?@", value, line))
    return lines


def main():
    management, protocol = (generate.read_joined(path)[0] for path in sys.argv[2:4])
    page, *headers = (open(path, encoding="utf-8").read() for path in sys.argv[1:2] + sys.argv[4:])
    constants = {}
    for header in headers:
        constants = enumerators(header, constants)
    for line in fill(page, Api(management), Api(protocol), constants,
                     error_words(headers, constants)):
        print(line)


if __name__ == "__main__":
    main()
