#!/usr/bin/env python3
"""usage: openrpc.py OUTPUT.h OUTPUT.c SCHEMA.json...

Writes the OpenRPC document (https://spec.open-rpc.org, 1.3) of the methods that the schemas describe, as a
constant of C: what a server answers to rpc.discover. The documents of the methods become JSON Schemas
under components.schemas, named by their schema's prefix; of our own keywords those stay that a caller can use.
"""
import json
import os
import sys

sys.dont_write_bytecode = True

import generate

# Of a method: how it may be called. All others that begin with x- are for the generator of C.
METHOD_KEYWORDS = ('x-param-fds', 'x-result-fds', 'x-idempotent', 'x-long')
LINE = 100  # bytes of the text in a line of C


class Document:
    def __init__(self, paths):
        self.files = {}
        for path in paths:
            self.file(os.path.abspath(path))
        self.schemas = {}
        self.methods = []

    def file(self, path):
        if path not in self.files:
            self.files[path] = generate.read_joined(path)[0]
        return self.files[path]

    @staticmethod
    def target(path, reference):
        """File and name of a definition."""
        other, _, pointer = reference.partition('#/$defs/')
        return os.path.join(os.path.dirname(path), other) if other else path, pointer

    def reference(self, path, reference):
        """The place of a definition in the document, which has it from then on."""
        path, pointer = self.target(path, reference)
        name = f'{self.file(path)["x-c-prefix"]}_{pointer}'
        if name not in self.schemas:
            self.schemas[name] = None  # it may refer to itself
            self.schemas[name] = self.schema(path, self.file(path)['$defs'][pointer])
        return f'#/components/schemas/{name}'

    def schema(self, path, node):
        if isinstance(node, list):
            return [self.schema(path, item) for item in node]
        if not isinstance(node, dict):
            return node
        result = {}
        for key, value in node.items():
            if key == '$ref':
                result[key] = self.reference(path, value)
            elif key == 'properties':
                result[key] = {name: self.schema(path, item) for name, item in value.items()}
            elif not key.startswith('x-'):
                result[key] = self.schema(path, value) if key not in ('enum', 'const', 'default') else value
        return result

    def params(self, path, method):
        if 'params' not in method:
            return []
        path, pointer = self.target(path, method['params']['$ref'])
        definition = self.schema(path, self.file(path)['$defs'][pointer])
        required = definition.get('required', [])
        params = []
        for member, schema in definition.get('properties', {}).items():
            param = {'name': member}
            if 'description' in schema:
                param['description'] = schema['description']
            param['required'] = member in required
            param['schema'] = schema
            params.append(param)
        return params

    def result(self, path, method):
        if 'result' not in method:
            return {'name': 'result', 'schema': {'type': 'null'}}
        place = self.reference(path, method['result']['$ref'])
        return {'name': place.rsplit('/', 1)[1], 'schema': {'$ref': place}}

    def add_methods(self, path):
        for name, method in self.file(path).get('x-methods', {}).items():
            entry = {'name': name, 'summary': method.get('summary', '')}
            if 'description' in method:
                entry['description'] = method['description']
            entry['paramStructure'] = 'either'
            entry['params'] = self.params(path, method)
            entry['result'] = self.result(path, method)
            entry.update({key: method[key] for key in METHOD_KEYWORDS if key in method})
            self.methods.append(entry)

    def errors(self):
        found = {}
        for root in self.files.values():
            for code, message in root.get('x-errors', {}).items():
                found[f'error{code}'] = {'code': int(code), 'message': message}
        return found


def build(paths):
    """The first file says what the whole is."""
    document = Document(paths)
    for path in paths:
        document.add_methods(os.path.abspath(path))
    first = document.file(os.path.abspath(paths[0]))
    return {
        'openrpc': '1.3.2',
        'info': {'title': first.get('title', first['x-c-prefix']),
                 'description': first.get('description', ''),
                 'version': first.get('x-api-version', '0')},
        'methods': document.methods,
        'components': {'schemas': document.schemas, 'errors': document.errors()},
    }


def c_literal(text):
    """The text as a string of C, in lines."""
    data = text.encode()
    lines = []
    for start in range(0, len(data), LINE):
        piece = ''.join(chr(byte) if 0x20 <= byte < 0x7f and byte not in b'"\\?' else f'\\{byte:03o}'
                        for byte in data[start:start + LINE])
        lines.append(f'    "{piece}"')
    return '\n'.join(lines)


def c_source(text):
    return f'#include <schema/openrpc.h>\n\nconst char schema_openrpc[] =\n{c_literal(text)};\n'


HEADER = '''/* Generated by src/schema/openrpc.py; do not edit. */
#ifndef SCHEMA_OPENRPC_H
#define SCHEMA_OPENRPC_H

/* The OpenRPC document of the management socket, JSON text on one line: the answer to rpc.discover. */
extern const char schema_openrpc[];

#endif
'''


def text_of(paths):
    """On one line."""
    return json.dumps(build(paths), ensure_ascii=False, separators=(',', ':'))


def main():
    header, source, *paths = sys.argv[1:]
    try:
        text = text_of(paths)
    except (generate.SchemaError, OSError) as error:
        sys.exit(f'openrpc.py: {error}')
    with open(header, 'w', encoding='utf-8') as out:
        out.write(HEADER)
    with open(source, 'w', encoding='utf-8') as out:
        out.write(c_source(text))


if __name__ == '__main__':
    main()
