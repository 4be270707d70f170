#!/usr/bin/env python3
"""Turns the methods of a JSON Schema of runtime-spec/ into functions of a client: a public header with
structures of its own, and a source that calls through the tables of generate.py.

usage: generate_stubs.py SCHEMA.json HEADER.h SOURCE.c

Main flow: generate.py reads the schema -> every structure again, under the public prefix and without
anything of this tree (class Stubs) -> for each method a synchronous function, one with options, and an
asynchronous one with a type for its callback.
"""

import os
import re
import sys

import generate

PUBLIC = 'cloche'


def flat(name):
    """container.execWait -> container_exec_wait"""
    return generate.snake_case(name)


class Method:
    def __init__(self, stubs, method):
        self.name = stubs.function(method['name'])
        self.local = flat(method['name'])
        self.summary = method['summary']
        self.idempotent = method['idempotent']
        self.is_long = method['is_long']
        self.param_fd = method['param_fds'] > 0
        self.result_fd = method['result_fds'] > 0
        self.params = stubs.public(method['params']) if method['params'] else None
        self.result = stubs.public(method['result']) if method['result'] else None
        if method['param_fds'] > 1 or method['result_fds'] > 1:
            raise generate.SchemaError(stubs.schema.path, f'#/x-methods/{method["name"]}',
                                       'stubs take one descriptor at most')

    def inputs(self):
        out = ['struct cloche_client *client']
        if self.params:
            out.append(f'const struct {self.params} *params')
        if self.param_fd:
            out.append('int fd')
        return out

    def outputs(self):
        out = []
        if self.result:
            out.append(f'struct {self.result} **ret')
        if self.result_fd:
            out.append('int *ret_fd')
        return out

    def sync(self):
        arguments = self.inputs() + self.outputs() + ['struct cloche_error *error']
        return f'int {self.name}({", ".join(arguments)})'

    def sync_with(self):
        arguments = (self.inputs() + ['const struct cloche_call_options *options'] +
                     self.outputs() + ['struct cloche_error *error'])
        return f'int {self.name}_with({", ".join(arguments)})'

    def callback(self):
        arguments = ['void *data']
        if self.result:
            arguments.append(f'struct {self.result} *result')
        if self.result_fd:
            arguments.append('int fd')
        arguments.append('const struct cloche_error *error')
        return f'typedef void (*{self.name}_done)({", ".join(arguments)})'

    def asynchronous(self):
        arguments = self.inputs() + ['uint64_t timeout_ms', f'{self.name}_done done', 'void *data']
        return f'int64_t {self.name}_async({", ".join(arguments)})'

    def asynchronous_with(self):
        arguments = (self.inputs() + ['const struct cloche_call_options *options',
                                      f'{self.name}_done done', 'void *data'])
        return f'int64_t {self.name}_async_with({", ".join(arguments)})'

    def notes(self):
        notes = [self.summary]
        if self.idempotent:
            notes.append('Idempotent.')
        if self.is_long:
            notes.append('It may take as long as it wants.')
        return ' '.join(note if note.endswith('.') else note + '.' for note in notes if note)


class Stubs:
    call = 'rpc_stub_call'      # what they call, and with _async
    others = False              # whether types of other files may be used

    def __init__(self, path):
        self.schema = generate.Schema.load(path)
        self.reader = generate.Reader(self.schema)
        self.reader.read()
        if self.reader.includes and not self.others:
            raise generate.SchemaError(path, '#', 'stubs of types of other files are not made')
        # The table has them all: the place in it is that of the method.
        self.methods = [(index, Method(self, method))
                        for index, method in enumerate(self.reader.methods)
                        if not method['is_subscription']]
        self.results = sorted({method.result for _, method in self.methods if method.result})

    def public(self, c_name):
        """api_mount -> cloche_mount"""
        return f'{PUBLIC}_{c_name.removeprefix(self.schema.prefix + "_")}'

    def function(self, method):
        return f'{PUBLIC}_{flat(method)}'

    def publish(self, text):
        text = re.sub(rf'\bstruct {self.schema.prefix}_', f'struct {PUBLIC}_', text)
        return text.replace('struct json_string_map', f'struct {PUBLIC}_string_map')


def wrap(declaration):
    """A declaration of more than a line, its arguments indented."""
    if len(declaration) < 100:
        return declaration
    head, _, rest = declaration.partition('(')
    if head.startswith('typedef'):
        head, _, rest = declaration.partition(')(')
        head += ')'
    lines, line = [], head + '('
    for argument in rest.removesuffix(')').split(', '):
        if len(line) + len(argument) + 2 > 98:
            lines.append(line.rstrip())
            line = '    '
        line += argument + ', '
    lines.append(line.removesuffix(', ') + ')')
    return '\n'.join(lines)


def emit_prototypes(stubs):
    out = ''
    for _, method in stubs.methods:
        out += '\n' + generate.comment(method.notes())
        out += wrap(method.sync()) + ';\n' + wrap(method.sync_with()) + ';\n'
        out += wrap(method.callback()) + ';\n' + wrap(method.asynchronous()) + ';\n'
        out += wrap(method.asynchronous_with()) + ';\n'
    return out


def emit_header(stubs):
    file = os.path.basename(stubs.schema.path)
    guard = f'{PUBLIC.upper()}_{stubs.schema.name.upper()}_H'
    out = f'''/*
 * The methods of Cloche as functions. Generated from runtime-spec/{file}.
 *
 * Of each method there is METHOD(), which blocks; METHOD_with(), the same with options (time-out,
 * connection); METHOD_async(), which returns at once (> 0, the number for cloche_client_cancel(); or
 * -errno, and there will be no callback) and calls back exactly once; METHOD_async_with(), the same
 * with options (progress, idempotent).
 * Blocking, threads, errors and retries: <cloche/client.h>.
 *
 * params stays the caller's, and may be NULL where nothing is required. Members that are not wanted
 * are zero: numbers and flags count when their has_x is set, strings and lists when they are not
 * NULL. A list of strings ends with NULL and has its length in x_count.
 *
 * *ret is the caller's, and is given back with its _free() function; ret may be NULL. The result that
 * a callback gets is the callback's, in the same way; it is NULL with an error, and error is NULL
 * with a result. fd goes with the request and stays the caller's, -1: none; *ret_fd, and the fd of a
 * callback, is one's own; ret_fd is NULL where it is not wanted. An answer without it is -EPROTO.
 */
#ifndef {guard}
#define {guard}

#include <cloche/client.h>

#ifdef __cplusplus
extern "C" {{
#endif

#pragma GCC visibility push(default)

/* ---- parameters and results ---- */
'''
    members = {field.c_name for kind in stubs.reader.types for field in kind.fields}
    for macro in generate.GNU_MACROS:
        if macro in members:
            out += f'\n#undef {macro} /* of GNU C: 1 */\n'
    for kind in stubs.reader.types:
        out += f'\nstruct {stubs.public(kind.c_name)};'
    out += '\n'
    for kind in stubs.reader.types:
        out += '\n' + stubs.publish(generate.emit_struct(kind))
    out += '\n/* NULL is nothing. */\n'
    for result in stubs.results:
        out += f'void {result}_free(struct {result} *result);\n'
    out += '\n/* ---- methods ---- */\n'
    out += emit_prototypes(stubs)
    return out + '''
#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
'''


def emit_method(stubs, table, method):
    params = 'params' if method.params else 'NULL'
    fd = 'fd' if method.param_fd else '-1'
    ret = '(void **)ret' if method.result else 'NULL'
    ret_fd = 'ret_fd' if method.result_fd else 'NULL'
    given = ['data']
    if method.result:
        given.append('result')
    if method.result_fd:
        given.append('fd')
    passed = [argument.split()[-1].lstrip('*') for argument in method.inputs()]
    returned = [argument.split()[-1].lstrip('*') for argument in method.outputs()]
    close = '' if method.result_fd else '    (void)fd;\n'
    if not method.result:
        close += '    (void)result;\n'
    return f'''
{method.sync_with()}
{{
    return {stubs.call}(client, {table}, {params}, {fd}, options, {ret}, {ret_fd}, error);
}}

{method.sync()}
{{
    return {method.name}_with({', '.join(passed + ['NULL'] + returned + ['error'])});
}}

static void done_{method.local}(void (*function)(void), void *data, void *result, int fd,
    const struct cloche_error *error)
{{
{close}    (({method.name}_done)function)({', '.join(given + ['error'])});
}}

{method.asynchronous_with()}
{{
    return {stubs.call}_async(client, {table}, {params}, {fd}, options, done_{method.local},
        (void (*)(void))done, data);
}}

{method.asynchronous()}
{{
    const struct cloche_call_options options = {{ .size = sizeof(options), .timeout_ms = timeout_ms }};

    return {method.name}_async_with({', '.join(passed + ['&options', 'done', 'data'])});
}}
'''


def emit_source(stubs):
    file = os.path.basename(stubs.schema.path)
    name = stubs.schema.name
    out = generate.comment(f'Generated from runtime-spec/{file}.')
    out += f'#include <{PUBLIC}/{name}.h>\n#include <rpc/pool.h>\n#include <schema/{name}.h>\n'
    out += '''
/* The public structures are the tables' own, under other names. */
#define SAME_SIZE(ours, theirs) \\
    _Static_assert(sizeof(struct ours) == sizeof(struct theirs), "made from the same schema")
#define SAME_PLACE(ours, theirs, member) \\
    _Static_assert(offsetof(struct ours, member) == offsetof(struct theirs, member), \\
        "made from the same schema")

'''
    out += f'SAME_SIZE({PUBLIC}_string_map, json_string_map);\n'
    for kind in stubs.reader.types:
        public = stubs.public(kind.c_name)
        out += f'SAME_SIZE({public}, {kind.c_name});\n'
        for field in kind.fields:
            out += f'SAME_PLACE({public}, {kind.c_name}, {field.c_name});\n'
    for result in stubs.results:
        private = f'{stubs.schema.prefix}_{result.removeprefix(PUBLIC + "_")}'
        out += f'''
void {result}_free(struct {result} *result)
{{
    json_free(&{private}_type, result);
}}
'''
    for index, method in stubs.methods:
        out += emit_method(stubs, f'&{name}_methods[{index}]', method)
    return out


def main(arguments):
    if len(arguments) != 3:
        sys.exit(__doc__)
    path, header, source = arguments
    try:
        stubs = Stubs(path)
    except (generate.SchemaError, OSError) as error:
        sys.exit(f'generate_stubs.py: {error}')
    with open(header, 'w', encoding='utf-8') as file:
        file.write(emit_header(stubs))
    with open(source, 'w', encoding='utf-8') as file:
        file.write(emit_source(stubs))


if __name__ == '__main__':
    main(sys.argv[1:])
