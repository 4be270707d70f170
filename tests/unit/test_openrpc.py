#!/usr/bin/env python3
"""What rpc.discover answers: the document that openrpc.py makes of the schemas, as TAP.

usage: test_openrpc.py OPENRPC.py SCHEMA.json...
"""

import importlib.util
import json
import pathlib
import os
import re
import subprocess
import sys
import tempfile


def load(path):
    sys.path.insert(0, os.path.dirname(path))  # of what it imports
    spec = importlib.util.spec_from_file_location('openrpc', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nodes(node):
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def follow(document, reference):
    node = document
    for name in reference.removeprefix('#/').split('/'):
        node = node[name]
    return node


def every_reference_leads_somewhere(document, sources):
    references = {node['$ref'] for node in nodes(document) if isinstance(node, dict) and '$ref' in node}
    assert references
    for reference in references:
        assert isinstance(follow(document, reference), dict), reference


def every_method_is_there_with_its_parameters(document, sources):
    methods = {method['name']: method for method in document['methods']}
    expected = {}
    for source in sources:
        expected.update({name: (source, method) for name, method in source.get('x-methods', {}).items()})
    assert methods.keys() == expected.keys()
    for name, (source, method) in expected.items():
        definition = source['$defs'][method['params']['$ref'].rsplit('/', 1)[1]]
        params = {param['name']: param['required'] for param in methods[name]['params']}
        assert list(params) == list(definition['properties']), name
        assert {key for key, required in params.items() if required} == set(definition.get('required', [])), name
        assert methods[name]['summary'] == method['summary']
        assert methods[name].get('x-idempotent', False) == method.get('x-idempotent', False)


def what_is_required_stands_first(document, sources):
    """OpenRPC 1.3, Method Object: optional parameters stand behind all that are required."""
    for method in document['methods']:
        required = [param['required'] for param in method['params']]
        assert required == sorted(required, reverse=True), method['name']


def schemas_have_no_words_of_the_generator(document, sources):
    for node in nodes(document['components']['schemas']):
        assert not isinstance(node, dict) or not any(key.startswith('x-') for key in node), node


def errors_are_those_of_the_schemas(document, sources):
    codes = {error['code'] for error in document['components']['errors'].values()}
    assert codes == {int(code) for source in sources for code in source.get('x-errors', {})}


def what_c_has_is_the_same_text(document, sources):
    with tempfile.TemporaryDirectory() as folder:
        header, source = pathlib.Path(folder) / 'openrpc.h', pathlib.Path(folder) / 'openrpc.c'
        subprocess.run([sys.executable, sys.argv[1], header, source, *sys.argv[2:]], check=True)
        pieces = re.findall(r'^    "(.*)"', source.read_text(), re.M)
    text = re.sub(rb'\\([0-7]{3})', lambda match: bytes([int(match[1], 8)]), ''.join(pieces).encode())
    assert json.loads(text) == document


def main():
    module = load(sys.argv[1])
    document = module.build(sys.argv[2:])
    sources = [module.generate.read_joined(path)[0] for path in sys.argv[2:]]
    checks = [every_reference_leads_somewhere, every_method_is_there_with_its_parameters,
              what_is_required_stands_first, schemas_have_no_words_of_the_generator, errors_are_those_of_the_schemas,
              what_c_has_is_the_same_text]
    print(f'1..{len(checks)}')
    failed = False
    for number, check in enumerate(checks, 1):
        try:
            check(document, sources)
            print(f'ok {number} - {check.__name__}')
        except (AssertionError, KeyError) as problem:
            failed = True
            print(f'not ok {number} - {check.__name__}\n# {type(problem).__name__}: {problem}')
    return failed


if __name__ == '__main__':
    sys.exit(main())
