#!/usr/bin/env python3
"""What the schema generator refuses, and the words it does it with, as TAP.

usage: test_generate.py GENERATE.py
"""

import importlib.util
import json
import os
import sys
import tempfile


def definition(properties, **more):
    return {'x-c-prefix': 'p', '$defs': {'t': {'type': 'object', 'properties': properties, **more}}}


def field(**schema):
    return definition({'a': schema})


STRING = {'type': 'string'}
AT = '#/$defs/t/properties/a'

# what is wrong: (the schema, the place, the message)
REFUSED = {
    'a file that is not JSON': ('{"x-c-prefix": "p",}', '#', 'not JSON: '),
    'a key twice': ('{"x-c-prefix": "p", "x-c-prefix": "p"}', '#', 'duplicate key "x-c-prefix"'),
    'a file that is an array': ([], '#', 'a schema file is an object'),
    'no prefix': ({'$defs': {}}, '#/x-c-prefix', 'missing'),
    'an unknown keyword of a file': (
        {'x-c-prefix': 'p', 'allOf': []}, '#', 'unsupported keyword "allOf"'),
    'an unknown keyword of an object': (
        definition({}, patternProperties={}), '#/$defs/t',
        'unsupported keyword "patternProperties"'),
    'an unknown keyword of a string': (
        field(type='string', pattern='x'), AT, 'unsupported keyword "pattern"'),
    'an unknown keyword of an integer': (
        field(type='integer', multipleOf=2), AT, 'unsupported keyword "multipleOf"'),
    'a value of any type': (field(), AT, 'unsupported type null'),
    'several types': (
        field(type=['string', 'integer']), AT + '/type', 'a list of types is one type and "null"'),
    'a format of no integer': (
        field(type='integer', format='int128'), AT + '/format', 'unsupported format "int128"'),
    'limits that do not fit': (
        field(type='integer', format='uint8', maximum=256), AT, 'do not fit into uint8'),
    'a format version without limits': (
        field(type='integer', **{'x-format-version': True}), AT, 'x-format-version needs'),
    'an enum of numbers': (field(type='string', enum=[1]), AT, 'are a list of strings'),
    'an object without a name': (
        field(type='object', properties={}), AT, 'unsupported keyword "properties"'),
    'a map without a name': (
        field(type='object', additionalProperties={'type': 'integer'}), AT,
        'objects are definitions of their own'),
    'an array of arrays': (
        field(type='array', items={'type': 'array', 'items': STRING}), AT + '/items',
        'definitions of their own: use $ref'),
    'an array without items': (field(type='array'), AT, 'an array needs items'),
    'optional parameters before required ones': (
        {**definition({'a': STRING, 'b': STRING}, required=['b']),
         'x-methods': {'m': {'params': {'$ref': '#/$defs/t'}}}}, '#/x-methods/m/params',
        'the optional parameter "a" stands before "b"'),
    'a keyword of another kind': (
        field(type='string', description=1), AT + '/description', 'is a string'),
    'elements that may be null': (
        field(type='array', items={'type': ['string', 'null']}), AT + '/items',
        'an element that may be null is a $ref or null'),
    'a choice of types': (
        field(oneOf=[{'type': 'integer'}, STRING]), AT + '/oneOf', 'only X or null'),
    'a string or an array of numbers': (
        field(oneOf=[STRING, {'type': 'array', 'items': {'type': 'integer'}}]), AT + '/oneOf',
        'a string goes with an array of strings only'),
    'a reference to nothing': (
        field(**{'$ref': '#/$defs/none'}), AT, '"#/$defs/none" is not a definition'),
    'a reference into nowhere': (
        field(**{'$ref': '#/properties/x'}), AT, '"#/properties/x" is not a definition'),
    'a circle of references': (
        {'x-c-prefix': 'p', '$defs': {
            't': {'type': 'object', 'properties': {'a': {'$ref': '#/$defs/u'}}},
            'u': {'$ref': '#/$defs/v'}, 'v': {'$ref': '#/$defs/u'}}}, AT, 'in a circle'),
    'a required field that is none': (
        definition({}, required=['b']), '#/$defs/t/required', '"b" is not among the properties'),
    'two fields of one C name': (
        definition({'aB': STRING, 'a_b': STRING}), '#/$defs/t/properties/a_b',
        'C name "a_b" is taken'),
    'a name that JSON would quote': (
        definition({'a"b': {**STRING, 'x-c-name': 'a'}}), '#/$defs/t/properties/a"b',
        'is written as it is: without quotes, backslashes, in ASCII'),
    'two definitions of one C name': (
        {'x-c-prefix': 'p', '$defs': {'aB': STRING, 'a_b': STRING}}, '#/$defs/a_b',
        'has the same C name as "aB"'),
    'a field without a C name': (
        definition({'@': STRING}), '#/$defs/t/properties/@', 'give one with x-c-name'),
    'unknown fields both refused and kept': (
        definition({}, additionalProperties=False, **{'x-keep-unknown': True}), '#/$defs/t',
        'x-keep-unknown contradicts'),
    'too many fields': (
        definition({f'f{i}': STRING for i in range(129)}), '#/$defs/t', 'more than 128 properties'),
    'a method with parameters of its own': (
        {'x-c-prefix': 'p', '$defs': {}, 'x-methods': {'m': {'params': STRING}}},
        '#/x-methods/m/params', 'is a $ref'),
    'a method with an unknown keyword': (
        {'x-c-prefix': 'p', '$defs': {}, 'x-methods': {'m': {'argument': STRING}}},
        '#/x-methods/m', 'unsupported keyword "argument"'),
}

PART = {'$defs': {'q': {'type': 'object', 'properties': {'a': STRING}}}}
WHOLE = {'x-c-prefix': 'p', 'x-include': ['part.json'], '$defs': {}}
REFUSED_PARTS = {  # what: file, its included one, which of both has the fault, place, message
    'an included file that is none': (WHOLE, '{', 'part.json', '#', 'not JSON'),
    'a keyword of whole files in an included one': (
        WHOLE, {**PART, 'x-c-prefix': 'p'}, 'part.json', '#', 'unsupported keyword "x-c-prefix"'),
    'a name that two files have': (
        {**WHOLE, **PART}, PART, 'part.json', '#/$defs/q', 'bad.json, too'),
    'a field that is wrong in an included file': (
        WHOLE, {'$defs': definition({'a': {'type': 'null'}})['$defs']}, 'part.json', AT, 'unsupported type'),
    'a reference to another file that does not name it': (
        {**WHOLE, '$defs': definition({'a': {'$ref': '#/$defs/q'}})['$defs']}, PART, 'bad.json', '#/$defs/t',
        '"#/$defs/q" is not a definition'),
    'a reference to what an included file has not': (
        {**WHOLE, '$defs': definition({'a': {'$ref': 'part.json#/$defs/r'}})['$defs']}, PART, 'bad.json',
        '#/$defs/t', '"part.json#/$defs/r" is not a definition'),
}


def generate_with_part(generator, folder, schema, part):
    with open(os.path.join(folder, 'part.json'), 'w', encoding='utf-8') as file:
        file.write(part if isinstance(part, str) else json.dumps(part))
    return generate(generator, folder, schema)[1]


def joins(generator, folder):
    """References in both directions, and one header of both files."""
    whole = {**WHOLE, '$defs': {'t': {'type': 'object', 'properties': {'b': {'$ref': 'part.json#/$defs/q'}}}}}
    part = {'$defs': {'q': {'type': 'object', 'properties': {'c': {'$ref': 'bad.json#/$defs/t'}}}},
            'x-methods': {'m': {'params': {'$ref': '#/$defs/q'}}}}
    said = generate_with_part(generator, folder, whole, part)
    with open(f'{folder}/x.h', encoding='utf-8') as file:
        text = file.read()
    return said is None and all(word in text for word in ('struct p_t *c;', 'struct p_q *b;', 'bad_handlers'))


def generate(generator, folder, schema):
    """Path of the schema, and what the generator ended with: its message, or None."""
    path = os.path.join(folder, 'bad.json')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(schema if isinstance(schema, str) else json.dumps(schema))
    generator.Schema.cache.clear()
    try:
        generator.main([path, os.path.join(folder, 'x.h'), os.path.join(folder, 'x.c')])
    except SystemExit as end:
        return path, str(end)
    return path, None


def main(generator_path):
    spec = importlib.util.spec_from_file_location('generate', generator_path)
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        refused = {what: (schema, None, 'bad.json', place, message)
                   for what, (schema, place, message) in REFUSED.items()} | REFUSED_PARTS
        for number, (what, (schema, part, at, place, message)) in enumerate(refused.items(), 1):
            said = (generate_with_part(generator, folder, schema, part) if part
                    else generate(generator, folder, schema)[1])
            start = f'generate.py: {folder}/{at}: {place}: '
            good = (said is not None and said.startswith(start) and message in said and
                    not os.path.exists(f'{folder}/x.h'))
            print(f'{"ok" if good else "not ok"} {number} - refuses {what}')
            if not good:
                print(f'# wanted {start}... {message}\n# got {said}')
                failures += 1
        good = joins(generator, folder)
        print(f'{"ok" if good else "not ok"} {len(refused) + 1} - joins included files')
        failures += not good
    print(f'1..{len(refused) + 1}')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.dont_write_bytecode = True
    sys.exit(main(sys.argv[1]))
