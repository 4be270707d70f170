#!/usr/bin/env python3
"""That what cloche-rpcgen makes of schemas can be compiled, as TAP; what it does is the business of
tests/integration/test_rpc_generator.py.

usage: test_rpcgen.py RPCGEN.py INCLUDE-FOLDER SCHEMA.json... -- COMPILER...
"""

import json
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))

import generate

FLAGS = ['-std=gnu11', '-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Werror', '-fsyntax-only']


def as_others_have_it(path, folder):
    """A schema of ours as if it was of another program."""
    schema = generate.read_joined(path)[0]
    schema.pop('x-include', None)
    schema['x-c-prefix'] = 'theirs' if schema['x-c-prefix'] in ('rpc', 'api') else schema['x-c-prefix']
    schema['x-methods'] = {name.replace('rpc.', 'their.'): method
                           for name, method in schema.get('x-methods', {}).items()}
    copy = folder / path.name
    copy.write_text(json.dumps(schema))
    return copy


def check(generator, include, path, compiler):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        schema = as_others_have_it(path, folder)
        subprocess.run([sys.executable, generator, '--output', folder, schema], check=True)
        source = folder / (path.stem.replace('-', '_') + '.c')
        subprocess.run([*compiler, *FLAGS, '-I', include, source], check=True)


def main():
    words, compiler = sys.argv[1:sys.argv.index('--')], sys.argv[sys.argv.index('--') + 1:]
    generator, include, *schemas = words
    print(f'1..{len(schemas)}')
    failed = False
    for number, path in enumerate(map(pathlib.Path, schemas), 1):
        try:
            check(generator, include, path, compiler)
            print(f'ok {number} - {path.stem}')
        except subprocess.CalledProcessError as problem:
            failed = True
            print(f'not ok {number} - {path.stem}\n# {problem}')
    return failed


if __name__ == '__main__':
    sys.exit(main())
