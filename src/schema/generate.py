#!/usr/bin/env python3
"""Turns a JSON Schema of runtime-spec/ into C: structs, tables and functions.

usage: generate.py SCHEMA.json HEADER.h SOURCE.c

Main flow: read the file -> each $defs entry becomes a Type with Fields (class Reader, which refuses
whatever is outside of the subset that README.md documents, naming the file and the place) -> the
header and the source are written from the Types (emit_header, emit_source).
"""

import json
import os
import re
import sys
import textwrap

INTEGERS = {  # format: (kind, bytes, C type, smallest, largest)
    'int8': ('JSON_INTEGER', 1, 'int8_t', -(2**7), 2**7 - 1),
    'int16': ('JSON_INTEGER', 2, 'int16_t', -(2**15), 2**15 - 1),
    'int32': ('JSON_INTEGER', 4, 'int32_t', -(2**31), 2**31 - 1),
    'int64': ('JSON_INTEGER', 8, 'int64_t', -(2**63), 2**63 - 1),
    'uint8': ('JSON_UNSIGNED', 1, 'uint8_t', 0, 2**8 - 1),
    'uint16': ('JSON_UNSIGNED', 2, 'uint16_t', 0, 2**16 - 1),
    'uint32': ('JSON_UNSIGNED', 4, 'uint32_t', 0, 2**32 - 1),
    'uint64': ('JSON_UNSIGNED', 8, 'uint64_t', 0, 2**64 - 1),
}
UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1
FIELDS_MAX = 128  # JSON_FIELDS_MAX of json_type.h
NAME = re.compile(r'[ !#-\[\]-~]+')  # of a member: what json_writer_name() writes
STRING_MAP = 'json_string_map'

# Say something about a value, but not what it may be.
ANNOTATIONS = {'title', 'description', 'default', 'examples', 'deprecated', '$comment'}
FILE_KEYS = {'$schema', '$id', 'title', 'description', '$comment', '$defs', 'x-c-prefix',
             'x-keep-unknown', 'x-null-is-absent', 'x-any-case', 'x-methods', 'x-errors', 'x-api-version',
             'x-include'}
PART_KEYS = {'$schema', '$id', 'title', 'description', '$comment', '$defs', 'x-methods'}  # of an included file
METHOD_KEYS = {'params', 'result', 'summary', 'description', 'x-param-fds', 'x-result-fds',
               'x-idempotent', 'x-long', 'x-subscription', 'x-errors'}

# What the value of a keyword is, wherever it stands.
SHAPES = {
    str: {'$ref', '$schema', '$id', '$comment', 'title', 'description', 'summary', 'format', 'x-c-name',
          'x-api-version'},
    bool: {'deprecated', 'x-keep-unknown', 'x-null-is-absent', 'x-any-case', 'x-format-version', 'x-raw',
           'x-idempotent', 'x-long', 'x-subscription'},
    int: {'minimum', 'maximum', 'minLength', 'maxLength', 'minItems', 'maxItems', 'x-param-fds',
          'x-result-fds'},
    list: {'oneOf', 'enum', 'required', 'x-include'},
    dict: {'$defs', 'properties', 'items', 'params', 'result', 'x-methods'},
}
SHAPE_OF = {key: shape for shape, keys in SHAPES.items() for key in keys}
SHAPE_NAMES = {str: 'a string', bool: 'true or false', int: 'a whole number', list: 'an array',
               dict: 'an object'}
NAMED = {'$defs', 'properties', 'x-methods'}  # their members are names, and have schemas
OPAQUE = {'default', 'examples', 'const', 'enum', 'required', 'x-errors', 'x-include'}

# Words that cannot name a field: keywords, and names that a libc may define as macros (musl does).
C_KEYWORDS = set('''auto break case char const continue default do double else enum extern float
    for goto if inline int long register restrict return short signed sizeof static struct switch
    typedef union unsigned void volatile while bool true false asm typeof
    errno stdin stdout stderr'''.split())
# GNU C predefines these as macros; a header that has members of the name takes that back.
GNU_MACROS = ('linux', 'unix')


class SchemaError(Exception):
    """Something in a schema that the generator does not take; file and place are in the text."""

    def __init__(self, path, place, message):
        super().__init__(f'{path}: {place}: {message}')


def snake_case(name):
    """camelCase, PascalCase, with-dashes, with.dots -> snake_case; OOMScoreAdj -> oom_score_adj."""
    name = re.sub(r'[^A-Za-z0-9]+', '_', name)
    name = re.sub(r'([A-Z]+)([A-Z][a-z])', r'\1_\2', name)
    name = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', name)
    return name.lower().strip('_')


def c_string(text):
    out = ''
    for byte in text.encode():
        char = chr(byte)
        if char in '"\\':
            out += '\\' + char
        elif char == '?' or not 0x20 <= byte < 0x7f:  # '?': no trigraphs
            out += f'\\{byte:03o}'
        else:
            out += char
    return f'"{out}"'


def c_int64(value):
    return 'INT64_MIN' if value == -(2**63) else f'INT64_C({value})'


def c_uint64(value):
    return 'UINT64_MAX' if value == UINT64_MAX else f'UINT64_C({value})'


class Field:
    """A member of a struct (or what an array or a map is made of) and the rules for its value."""

    def __init__(self, json_name, c_name):
        self.json_name = json_name
        self.c_name = c_name
        self.base_name = c_name  # of has_x and the like
        self.kind = None
        self.size = 8
        self.c_type = None       # of one value
        self.type_name = None    # of JSON_OBJECT: the C name of the type
        self.choices = None
        self.minimum = 0
        self.maximum = UINT64_MAX
        self.items_minimum = 0
        self.items_maximum = UINT32_MAX
        self.array = False
        self.string_or_array = False
        self.nullable = False
        self.null_elements = False  # of an array or a map
        self.null_is_absent = False
        self.required = False
        self.format_version = False
        self.description = None

    def is_pointer(self):
        return self.array or self.kind in ('JSON_STRING', 'JSON_RAW', 'JSON_OBJECT')

    def has_has(self):
        return not self.is_pointer() and not self.required

    def flags(self):
        names = [('JSON_REQUIRED', self.required), ('JSON_ARRAY', self.array),
                 ('JSON_STRING_OR_ARRAY', self.string_or_array), ('JSON_NULLABLE', self.nullable),
                 ('JSON_NULL_IS_ABSENT', self.null_is_absent),
                 ('JSON_FORMAT_VERSION', self.format_version),
                 ('JSON_NULL_ELEMENTS', self.null_elements)]
        return ' | '.join(name for name, on in names if on)


class Type:
    """A struct: an object, a map or an array definition."""

    def __init__(self, c_name, shape):
        self.c_name = c_name
        self.shape = shape
        self.fields = []
        self.unknown = 'JSON_UNKNOWN_IGNORE'
        self.any_case = False
        self.description = None


def unique(pairs):
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f'duplicate key "{key}"')
    return dict(pairs)


def read_file(path, allowed):
    """A schema file as it is on disk, with keywords of its own that are known."""
    try:
        with open(path, encoding='utf-8') as file:
            root = json.load(file, object_pairs_hook=unique)
    except ValueError as error:
        raise SchemaError(path, '#', f'not JSON: {error}') from error
    if not isinstance(root, dict):
        raise SchemaError(path, '#', 'a schema file is an object')
    for key in root:
        if key not in allowed:
            raise SchemaError(path, '#', f'unsupported keyword "{key}"')
    check_shapes(path, root, '#')
    return root


def check_shapes(path, node, place):
    """That keywords have values of their kind, so that nobody else has to look."""
    for key, value in node.items():
        inside = f'{place}/{key}'
        shape = SHAPE_OF.get(key)
        if shape and (not isinstance(value, shape) or (shape is int and isinstance(value, bool))):
            raise SchemaError(path, inside, f'is {SHAPE_NAMES[shape]}')
        if key in ('required', 'x-include') and not all(isinstance(item, str) for item in value):
            raise SchemaError(path, inside, 'is a list of names')
        if key in NAMED:
            for name, child in value.items():
                if not isinstance(child, dict):
                    raise SchemaError(path, f'{inside}/{name}', 'is described by an object')
                check_shapes(path, child, f'{inside}/{name}')
        elif key not in OPAQUE:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, dict):
                    check_shapes(path, child, inside)


def read_joined(path):
    """A schema file with what it includes, as if it was one, and which file each name of it is from."""
    root = read_file(path, FILE_KEYS)
    names = [os.path.basename(path), *root.get('x-include', [])]
    parts = [root] + [read_file(os.path.join(os.path.dirname(path), name), PART_KEYS) for name in names[1:]]
    whole = {**root, '$defs': {}, 'x-methods': {}}
    origins = {}
    for name, part in zip(names, parts):
        place = os.path.join(os.path.dirname(path), name)
        for kind in ('$defs', 'x-methods'):
            for key, value in part.get(kind, {}).items():
                at = f'#/{kind}/{key}'
                if key in whole[kind]:
                    raise SchemaError(place, at, f'is in {origins[at]}, too')
                origins[at] = place
                whole[kind][key] = join_references(value, name, dict(zip(names, parts)), (place, at))
    return whole, origins


def join_references(node, here, parts, place):
    """References to files that are joined become references within the whole."""
    if isinstance(node, list):
        return [join_references(item, here, parts, place) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value if key in OPAQUE else join_references(value, here, parts, place)
            for key, value in node.items()}
    if isinstance(node.get('$ref'), str):
        file, _, pointer = node['$ref'].partition('#')
        file = file or here
        if file in parts:
            if len(parts) > 1 and pointer.removeprefix('/$defs/') not in parts[file].get('$defs', {}):
                raise SchemaError(*place, f'"{node["$ref"]}" is not a definition')
            node['$ref'] = f'#{pointer}'
    return node


class Schema:
    """A schema file with what it includes."""

    cache = {}

    def __init__(self, path):
        self.path = path
        self.root, self.origins = read_joined(path)
        self.prefix = self.root.get('x-c-prefix')
        if not isinstance(self.prefix, str) or not re.fullmatch('[a-z][a-z0-9_]*', self.prefix):
            raise SchemaError(path, '#/x-c-prefix', 'missing, or not a C name in lower case')
        self.name = os.path.splitext(os.path.basename(path))[0].replace('-', '_')
        self.defs = self.root.get('$defs', {})

    def file_of(self, place):
        """Which file says what stands at #/$defs/NAME/... or #/x-methods/NAME/..."""
        for origin, path in self.origins.items():
            if place == origin or place.startswith(origin + '/'):
                return path
        return self.path

    @classmethod
    def load(cls, path):
        path = os.path.normpath(path)
        if path not in cls.cache:
            cls.cache[path] = cls(path)
        return cls.cache[path]

    def c_name(self, definition):
        return f'{self.prefix}_{snake_case(definition)}'


class Reader:
    """One schema file to Types."""

    def __init__(self, schema):
        self.schema = schema
        self.includes = set()  # names of other generated headers
        self.types = []
        self.methods = []

    def fail(self, place, message):
        raise SchemaError(self.schema.file_of(place), place, message)

    def read(self):
        names = {}
        for name, definition in self.schema.defs.items():
            place = f'#/$defs/{name}'
            c_name = self.schema.c_name(name)
            if names.setdefault(c_name, name) != name:
                self.fail(place, f'has the same C name as "{names[c_name]}"')
            if not isinstance(definition, dict):
                self.fail(place, 'a definition is an object')
            if self.is_struct(definition):
                self.types.append(self.read_type(c_name, definition, place))
        for name, method in self.schema.root.get('x-methods', {}).items():
            entry = self.read_method(name, method, f'#/x-methods/{name}')
            if any(member_name(other) == member_name(entry) for other in self.methods):
                self.fail(f'#/x-methods/{name}', 'its C name is taken')
            self.methods.append(entry)

    @staticmethod
    def is_struct(definition):
        """Whether the definition is a struct of its own; others are put where they are used."""
        return definition.get('type') in ('object', 'array')

    def check_keys(self, definition, allowed, place):
        for key in definition:
            if key not in allowed and key not in ANNOTATIONS:
                self.fail(place, f'unsupported keyword "{key}"')

    # Definitions

    def read_type(self, c_name, definition, place):
        if definition['type'] == 'array':
            kind = self.read_array_type(c_name, definition, place)
        elif isinstance(definition.get('additionalProperties'), dict):
            kind = self.read_map_type(c_name, definition, place)
        else:
            kind = self.read_object_type(c_name, definition, place)
        kind.description = definition.get('description')
        return kind

    def read_array_type(self, c_name, definition, place):
        kind = Type(c_name, 'JSON_SHAPE_ARRAY')
        field = Field('', definition.get('x-c-name', 'items'))
        self.read_array(field, {key: item for key, item in definition.items()
                                if key != 'x-c-name'}, place)
        kind.fields.append(field)
        return kind

    def read_map_type(self, c_name, definition, place):
        self.check_keys(definition, {'type', 'additionalProperties'}, place)
        kind = Type(c_name, 'JSON_SHAPE_MAP')
        field = Field('', 'values')
        self.read_element(field, definition['additionalProperties'],
                          f'{place}/additionalProperties')
        kind.fields.append(field)
        return kind

    def read_object_type(self, c_name, definition, place):
        self.check_keys(definition, {'type', 'properties', 'required', 'additionalProperties',
                                     'x-keep-unknown'}, place)
        kind = Type(c_name, 'JSON_SHAPE_OBJECT')
        kind.unknown = self.read_unknown(definition, place)
        kind.any_case = self.schema.root.get('x-any-case', False)
        required = definition.get('required', [])
        properties = definition.get('properties', {})
        names = {'unknown_fields': None} if kind.unknown == 'JSON_UNKNOWN_KEEP' else {}
        for name, value in properties.items():
            if not NAME.fullmatch(name):
                self.fail(f'{place}/properties/{name}', 'is written as it is: without quotes, backslashes, in ASCII')
            field = self.read_field(name, value, name in required, f'{place}/properties/{name}')
            if names.setdefault(field.c_name, name) != name:
                self.fail(f'{place}/properties/{name}', f'C name "{field.c_name}" is taken')
            kind.fields.append(field)
        for name in required:
            if name not in properties:
                self.fail(f'{place}/required', f'"{name}" is not among the properties')
        if len(kind.fields) > FIELDS_MAX:
            self.fail(place, f'more than {FIELDS_MAX} properties')
        return kind

    def read_unknown(self, definition, place):
        keep = definition.get('x-keep-unknown', self.schema.root.get('x-keep-unknown', False))
        if definition.get('additionalProperties', True) is False:
            if definition.get('x-keep-unknown'):
                self.fail(place, 'x-keep-unknown contradicts additionalProperties: false')
            return 'JSON_UNKNOWN_REFUSE'
        return 'JSON_UNKNOWN_KEEP' if keep else 'JSON_UNKNOWN_IGNORE'

    # Members

    def read_field(self, name, value, required, place):
        if not isinstance(value, dict):
            self.fail(place, 'a property is described by an object')
        c_name = value.get('x-c-name', snake_case(name))
        if not re.fullmatch('[a-z_][a-z0-9_]*', c_name):
            self.fail(place, f'"{c_name}" is no C name: give one with x-c-name')
        field = Field(name, c_name + '_' if c_name in C_KEYWORDS else c_name)
        field.base_name = c_name
        field.required = required
        field.description = value.get('description')
        value = {key: item for key, item in value.items() if key != 'x-c-name'}
        self.read_value(field, value, place)
        field.null_is_absent = (self.schema.root.get('x-null-is-absent', False) and
                                not required and not field.nullable)
        return field

    def read_value(self, field, value, place):
        value = self.inline(value, place)
        if 'oneOf' in value:
            self.read_one_of(field, value, place)
        elif isinstance(value.get('type'), list):
            self.read_nullable_type(field, value, place)
        elif value.get('type') == 'array':
            self.read_array(field, value, place)
        else:
            self.read_single(field, value, place)

    def read_nullable_type(self, field, value, place):
        others = [name for name in value['type'] if name != 'null']
        if len(others) != 1 or len(value['type']) != 2:
            self.fail(f'{place}/type', 'a list of types is one type and "null"')
        field.nullable = True
        if '$ref' in value:
            definition = self.resolve(value['$ref'], place)[1]
            if definition.get('type') != others[0]:
                self.fail(f'{place}/type', f'{value["$ref"]} is of another type')
            value = {key: item for key, item in value.items() if key != 'type'}
        else:
            value = {**value, 'type': others[0]}
        self.read_value(field, value, place)

    def read_one_of(self, field, value, place):
        """string or array of strings; anything or null."""
        self.check_keys(value, {'oneOf'}, place)
        branches = [self.inline(branch, f'{place}/oneOf') for branch in value['oneOf']]
        others = [branch for branch in branches if branch.get('type') != 'null']
        field.nullable = len(others) < len(branches)
        arrays = [branch for branch in others if branch.get('type') == 'array']
        strings = [branch for branch in others if branch.get('type') == 'string']
        if len(others) == 1:
            self.read_value(field, others[0], f'{place}/oneOf')
        elif len(others) == 2 and len(arrays) == 1 and len(strings) == 1:
            self.read_array(field, arrays[0], f'{place}/oneOf')
            field.string_or_array = True
            if field.kind != 'JSON_STRING':
                self.fail(f'{place}/oneOf', 'a string goes with an array of strings only')
        else:
            self.fail(f'{place}/oneOf', 'only X or null, and string or array of strings')

    def read_array(self, field, value, place):
        self.check_keys(value, {'type', 'items', 'minItems', 'maxItems'}, place)
        if 'items' not in value:
            self.fail(place, 'an array needs items')
        field.array = True
        field.items_minimum = value.get('minItems', 0)
        field.items_maximum = value.get('maxItems', UINT32_MAX)
        self.read_element(field, value['items'], f'{place}/items')

    def read_element(self, field, value, place):
        """Elements are never arrays themselves, unless by reference to an array definition."""
        value = self.inline(value, place)
        one_of = value.get('oneOf')
        if one_of:
            one_of = [self.inline(branch, f'{place}/oneOf') for branch in one_of]
            others = [branch for branch in one_of if branch.get('type') != 'null']
            if len(others) != 1 or '$ref' not in others[0]:
                self.fail(place, 'an element that may be null is a $ref or null')
            field.null_elements = True
            value = others[0]
        if value.get('type') == 'array':
            self.fail(place, 'arrays in arrays and maps are definitions of their own: use $ref')
        if isinstance(value.get('type'), list):
            self.fail(place, 'an element that may be null is a $ref or null, by oneOf')
        self.read_single(field, value, place)

    def read_single(self, field, value, place):
        if value.get('x-raw'):
            self.check_keys(value, {'x-raw'}, place)
            field.kind, field.c_type = 'JSON_RAW', 'char *'
        elif '$ref' in value:
            self.check_keys(value, {'$ref'}, place)
            self.set_struct(field, self.resolve(value['$ref'], place)[0])
        elif value.get('type') == 'string':
            self.read_string(field, value, place)
        elif value.get('type') == 'boolean':
            self.check_keys(value, {'type'}, place)
            field.kind, field.size, field.c_type = 'JSON_BOOLEAN', 1, 'bool'
        elif value.get('type') == 'integer':
            self.read_integer(field, value, place)
        elif value.get('type') == 'number':
            self.check_keys(value, {'type', 'format'}, place)
            field.kind, field.c_type = 'JSON_DOUBLE', 'double'
        elif value.get('type') == 'object':
            self.read_inline_map(field, value, place)
        else:
            self.fail(place, f'unsupported type {json.dumps(value.get("type"))}')

    @staticmethod
    def set_struct(field, c_name):
        field.kind, field.type_name, field.c_type = 'JSON_OBJECT', c_name, f'struct {c_name} *'

    def read_inline_map(self, field, value, place):
        self.check_keys(value, {'type', 'additionalProperties'}, place)
        values = value.get('additionalProperties')
        if isinstance(values, dict) and values.get('x-raw'):
            self.set_struct(field, STRING_MAP)
            field.type_name = 'json_raw_map'
        elif isinstance(values, dict) and set(values) - ANNOTATIONS == {'type'} and \
                values['type'] == 'string':
            self.set_struct(field, STRING_MAP)
        else:
            self.fail(place, 'objects are definitions of their own ($ref), but for maps of strings')

    def read_string(self, field, value, place):
        self.check_keys(value, {'type', 'enum', 'const', 'minLength', 'maxLength', 'format'}, place)
        field.kind, field.c_type = 'JSON_STRING', 'char *'
        field.minimum = value.get('minLength', 0)
        field.maximum = value.get('maxLength', UINT64_MAX)
        field.choices = [value['const']] if 'const' in value else value.get('enum')
        if field.choices is not None and (not field.choices or not all(
                isinstance(choice, str) for choice in field.choices)):
            self.fail(place, 'the values of a string are a list of strings')

    def read_integer(self, field, value, place):
        self.check_keys(value, {'type', 'format', 'minimum', 'maximum', 'x-format-version'}, place)
        name = value.get('format', 'int64')
        if name not in INTEGERS:
            self.fail(f'{place}/format', f'unsupported format "{name}"')
        field.kind, field.size, field.c_type, smallest, largest = INTEGERS[name]
        field.minimum = value.get('minimum', smallest)
        field.maximum = value.get('maximum', largest)
        field.format_version = value.get('x-format-version', False)
        if field.format_version and ('maximum' not in value or not field.minimum >= 1):
            self.fail(place, 'x-format-version needs minimum (1 or more) and maximum')
        if not smallest <= field.minimum <= field.maximum <= largest or field.minimum > 2**63 - 1:
            self.fail(place, f'minimum and maximum do not fit into {name}')

    # References

    def resolve(self, reference, place):
        """The C name of the referred type, the definition, and its schema."""
        file, _, pointer = reference.partition('#')
        schema = self.schema
        if file:
            schema = Schema.load(os.path.join(os.path.dirname(self.schema.path), file))
            self.includes.add(schema.name)
        name = pointer.removeprefix('/$defs/')
        if name == pointer or name not in schema.defs:
            self.fail(place, f'"{reference}" is not a definition')
        return schema.c_name(name), schema.defs[name], schema

    def inline(self, value, place):
        """A reference to a definition that is no struct stands for what is written there."""
        if not isinstance(value, dict):
            self.fail(place, 'a value is described by an object')
        seen = []
        while '$ref' in value:
            if value['$ref'] in seen:
                self.fail(place, 'definitions that refer to each other in a circle')
            seen.append(value['$ref'])
            definition = self.resolve(value['$ref'], place)[1]
            if self.is_struct(definition):
                break
            value = definition
        return value

    # Methods

    def check_order(self, definition, place):
        """By position what is optional stands behind what is required (OpenRPC 1.3, Method Object)."""
        required = definition.get('required', [])
        before = None
        for name in definition.get('properties', {}):
            if name not in required:
                before = before or name
            elif before:
                self.fail(place, f'the optional parameter "{before}" stands before "{name}", which is required')

    def read_method(self, name, method, place):
        self.check_keys(method, METHOD_KEYS, place)
        entry = {'name': name, 'summary': method.get('summary', ''), 'params': None, 'result': None,
                 'param_fds': method.get('x-param-fds', 0),
                 'result_fds': method.get('x-result-fds', 0),
                 'idempotent': method.get('x-idempotent', False),
                 'is_long': method.get('x-long', False),
                 'is_subscription': method.get('x-subscription', False)}
        for part in ('params', 'result'):
            if part not in method:
                continue
            if set(method[part]) != {'$ref'}:
                self.fail(f'{place}/{part}', 'is a $ref')
            c_name, definition, _ = self.resolve(method[part]['$ref'], f'{place}/{part}')
            if not self.is_struct(definition):
                self.fail(f'{place}/{part}', 'is not an object')
            if part == 'params':
                self.check_order(definition, f'{place}/{part}')
            entry[part] = c_name
        return entry


# The header


def comment(text, indent=''):
    text = ' '.join(text.replace('*/', '* /').split())
    lines = textwrap.wrap(text, 100 - len(indent) - 6)
    if len(lines) == 1:
        return f'{indent}/* {lines[0]} */\n'
    return f'{indent}/* ' + f'\n{indent} * '.join(lines) + ' */\n'


def declaration(c_type, name):
    return f'{c_type}{"" if c_type.endswith("*") else " "}{name}'


def count_name(field, in_array_type):
    return 'count' if in_array_type and field.c_name == 'items' else f'{field.c_name}_count'


def emit_member(field, in_array_type):
    out = comment(field.description, '    ') if field.description else ''
    star = '*' if field.array else ''
    out += f'    {declaration(field.c_type, star + field.c_name)};\n'
    if field.array:
        out += f'    size_t {count_name(field, in_array_type)};\n'
    if field.has_has():
        out += f'    bool has_{field.base_name};\n'
    if field.nullable:
        out += f'    bool null_{field.base_name};\n'
    if field.string_or_array:
        out += f'    bool {field.base_name}_was_string;\n'
    return out


def emit_struct(kind):
    out = comment(kind.description) if kind.description else ''
    out += f'struct {kind.c_name} {{\n'
    if kind.shape == 'JSON_SHAPE_MAP':
        out += '    char **keys;\n'
        out += f'    {declaration(kind.fields[0].c_type, "*values")};\n'
        out += '    size_t count;\n'
        return out + '};\n'
    for field in kind.fields:
        out += emit_member(field, kind.shape == 'JSON_SHAPE_ARRAY')
    if kind.unknown == 'JSON_UNKNOWN_KEEP':
        out += '    struct json_string_map *unknown_fields; /* the values are raw JSON */\n'
    elif not kind.fields:
        out += '    char no_fields;\n'
    return out + '};\n'


def emit_prototypes(name):
    return f'''extern const struct json_type {name}_type;
int {name}_parse(const char *text, size_t length, const char *source, struct {name} **ret,
    struct error *err);
void {name}_write(const struct {name} *value, struct buffer *out);
void {name}_write_pretty(const struct {name} *value, struct buffer *out);
void {name}_free(struct {name} *value);
static inline void cleanup_{name}_p(struct {name} **value)
{{
    {name}_free(*value);
}}
#define _cleanup_{name}_ _cleanup_(cleanup_{name}_p)
'''


def member_name(method):
    return method.get('member') or snake_case(method['name'])


def emit_handlers(schema, methods):
    """The struct of typed handlers: a member for each method."""
    out = '\nstruct rpc_request;\n\n'
    out += comment('What answers each method, for rpc_server_add_handlers(). context: of the server.')
    out += f'struct {schema.name}_handlers {{\n'
    for method in methods:
        params = f'struct {method["params"]}' if method['params'] else 'void'
        out += comment(f'{method["name"]}: {method["summary"]}', '    ')
        out += f'    void (*{member_name(method)})(struct rpc_request *request, const {params} *params,\n'
        out += '        void *context);\n'
    return out + '};\n'


def emit_header(schema, reader):
    guard = f'SCHEMA_{schema.name.upper()}_H'
    out = comment(f'Generated from runtime-spec/{os.path.basename(schema.path)}; '
                  'src/schema/README.md has the rules.')
    out += f'#ifndef {guard}\n#define {guard}\n\n#include <schema/json.h>\n'
    for name in sorted(reader.includes):
        out += f'#include <schema/{name}.h>\n'
    members = {field.c_name for kind in reader.types for field in kind.fields}
    for macro in GNU_MACROS:
        if macro in members:
            out += f'\n#undef {macro} /* of GNU C: 1 */\n'
    out += '\n' + ''.join(f'struct {kind.c_name};\n' for kind in reader.types)
    for kind in reader.types:
        out += '\n' + emit_struct(kind) + '\n' + emit_prototypes(kind.c_name)
    if reader.methods:
        out += f'''
extern const struct json_method {schema.name}_methods[];
extern const size_t {schema.name}_methods_count;
'''
        out += emit_handlers(schema, reader.methods)
    return out + '\n#endif\n'


# The source


def emit_choices(kind):
    out = ''
    for field in kind.fields:
        if field.choices is None:
            continue
        out += f'static const char *const {kind.c_name}_{field.base_name}_choices[] = {{\n'
        out += ''.join(f'    {c_string(choice)},\n' for choice in field.choices)
        out += '    NULL,\n};\n\n'
    return out


def emit_field(kind, field):
    def offset(member):
        return f'offsetof(struct {kind.c_name}, {member})'

    parts = [f'.name = {c_string(field.json_name)}',
             f'.name_length = {len(field.json_name.encode())}',
             f'.kind = {field.kind}', f'.size = {field.size}',
             f'.minimum = {c_int64(field.minimum)}', f'.maximum = {c_uint64(field.maximum)}',
             f'.items_minimum = {field.items_minimum}', f'.items_maximum = {field.items_maximum}u',
             f'.offset = {offset(field.c_name)}']
    if field.type_name:
        parts.append(f'.type = &{field.type_name}_type')
    if field.choices is not None:
        parts.append(f'.choices = {kind.c_name}_{field.base_name}_choices')
    if kind.shape == 'JSON_SHAPE_MAP':
        parts.append(f'.count_offset = {offset("count")}')
    elif field.array:
        member = count_name(field, kind.shape == 'JSON_SHAPE_ARRAY')
        parts.append(f'.count_offset = {offset(member)}')
    if kind.shape == 'JSON_SHAPE_OBJECT':
        if field.has_has():
            parts.append(f'.has_offset = {offset("has_" + field.base_name)}')
        if field.nullable:
            parts.append(f'.null_offset = {offset("null_" + field.base_name)}')
        if field.string_or_array:
            parts.append(f'.was_string_offset = {offset(field.base_name + "_was_string")}')
    if field.flags():
        parts.append(f'.flags = {field.flags()}')
    return '    {\n' + ''.join(f'        {part},\n' for part in parts) + '    },\n'


def emit_tables(kind):
    name = kind.c_name
    out = emit_choices(kind)
    if kind.fields:
        out += f'static const struct json_field {name}_fields[] = {{\n'
        out += ''.join(emit_field(kind, field) for field in kind.fields) + '};\n\n'
        order = sorted(range(len(kind.fields)), key=lambda i: kind.fields[i].json_name.encode())
        out += f'static const uint8_t {name}_sorted[] = {{\n'
        out += ''.join(f'    {index}, /* {kind.fields[index].json_name} */\n' for index in order)
        out += '};\n\n'
    out += f'const struct json_type {name}_type = {{\n    .name = "{name}",\n'
    if kind.fields:
        out += f'    .fields = {name}_fields,\n    .sorted = {name}_sorted,\n'
        out += f'    .fields_count = {len(kind.fields)},\n'
    out += f'    .size = sizeof(struct {name}),\n    .shape = {kind.shape},\n'
    out += f'    .unknown = {kind.unknown},\n'
    if kind.any_case:
        out += '    .any_case = true,\n'
    if kind.unknown == 'JSON_UNKNOWN_KEEP':
        out += f'    .unknown_offset = offsetof(struct {name}, unknown_fields),\n'
    return out + '};\n\n'


def emit_functions(name):
    return f'''int {name}_parse(const char *text, size_t length, const char *source, struct {name} **ret,
    struct error *err)
{{
    void *value;
    int r = json_parse(&{name}_type, text, length, source, &value, err);

    if (r == 0)
        *ret = value;
    return r;
}}

void {name}_write(const struct {name} *value, struct buffer *out)
{{
    json_write(&{name}_type, value, out);
}}

void {name}_write_pretty(const struct {name} *value, struct buffer *out)
{{
    json_write_pretty(&{name}_type, value, out);
}}

void {name}_free(struct {name} *value)
{{
    json_free(&{name}_type, value);
}}

'''


def emit_calls(schema, methods):
    """From what the server knows of a handler, which is no type, to the handler."""
    out = ''
    for method in methods:
        out += f'static void call_{member_name(method)}(const void *handlers,\n'
        out += '    struct rpc_request *request, const void *params, void *context)\n{\n'
        out += f'    const struct {schema.name}_handlers *typed = handlers;\n\n'
        out += f'    typed->{member_name(method)}(request, params, context);\n}}\n\n'
    return out


def emit_methods(schema, methods):
    out = emit_calls(schema, methods)
    out += f'const struct json_method {schema.name}_methods[] = {{\n'
    for method in methods:
        out += f'    {{\n        .name = {c_string(method["name"])},\n'
        for part in ('params', 'result'):
            if method[part]:
                out += f'        .{part} = &{method[part]}_type,\n'
        out += f'        .summary = {c_string(method["summary"])},\n'
        out += f'        .param_fds = {method["param_fds"]},\n'
        out += f'        .result_fds = {method["result_fds"]},\n'
        out += f'        .idempotent = {str(method["idempotent"]).lower()},\n'
        out += f'        .is_long = {str(method["is_long"]).lower()},\n'
        out += f'        .call = call_{member_name(method)},\n'
        out += f'        .handler = offsetof(struct {schema.name}_handlers, {member_name(method)}),\n'
        out += '    },\n'
    out += '};\n\n'
    count = f'sizeof({schema.name}_methods) / sizeof({schema.name}_methods[0])'
    return out + f'const size_t {schema.name}_methods_count = {count};\n'


def emit_source(schema, reader):
    out = comment(f'Generated from runtime-spec/{os.path.basename(schema.path)}.')
    out += f'#include <schema/{schema.name}.h>\n#include <schema/json_type.h>\n\n'
    for kind in reader.types:
        out += emit_tables(kind) + emit_functions(kind.c_name)
    if reader.methods:
        out += emit_methods(schema, reader.methods)
    return out


def main(arguments):
    if len(arguments) != 3:
        sys.exit(__doc__)
    path, header, source = arguments
    try:
        schema = Schema.load(path)
        reader = Reader(schema)
        reader.read()
    except (SchemaError, OSError) as error:
        sys.exit(f'generate.py: {error}')
    with open(header, 'w', encoding='utf-8') as file:
        file.write(emit_header(schema, reader))
    with open(source, 'w', encoding='utf-8') as file:
        file.write(emit_source(schema, reader))


if __name__ == '__main__':
    main(sys.argv[1:])
