#!/usr/bin/env python3
"""Writes the tables of characters as C: the upper case of every UTF-16 unit, and code pages.

usage: make_tables.py OUTPUT.c
"""

import sys

CODE_PAGES = [
    'cp437', 'cp737', 'cp775', 'cp850', 'cp852', 'cp855', 'cp857', 'cp858', 'cp860', 'cp861',
    'cp862', 'cp863', 'cp865', 'cp866', 'cp869', 'cp1250', 'cp1251', 'cp1252', 'cp1253', 'cp1254',
    'cp1257']


def upper(code):
    if 0xD800 <= code <= 0xDFFF:
        return code
    text = chr(code).upper()
    return ord(text) if len(text) == 1 and ord(text) < 0x10000 else code


def page_of(page):
    return [upper(page * 256 + i) for i in range(256)]


def numbers(values):
    lines = [', '.join(f'{value:#06x}' for value in values[i:i + 12]) for i in range(0, len(values), 12)]
    return '{\n    ' + ',\n    '.join(lines) + ',\n}'


def code_page(name):
    """The characters of bytes 0x80 to 0xFF; 0: there is none."""
    return [ord(bytes([i]).decode(name, 'ignore') or '\0') for i in range(0x80, 0x100)]


def main(output):
    pages = {page: page_of(page) for page in range(256)}
    changed = {page: values for page, values in pages.items()
               if values != [page * 256 + i for i in range(256)]}
    with open(output, 'w', encoding='utf-8') as file:
        print('#include "characters.h"\n', file=file)
        for page, values in changed.items():
            print(f'static const uint16_t upper_{page:02x}[256] = {numbers(values)};\n', file=file)
        rows = ''.join(f'    [{page:#04x}] = upper_{page:02x},\n' for page in changed)
        print(f'const uint16_t *const upper_pages[256] = {{\n{rows}}};\n', file=file)
        rows = ''.join(f'    {{"{name}", {numbers(code_page(name))}}},\n' for name in CODE_PAGES)
        print(f'const struct code_page code_pages[] = {{\n{rows}    {{0}},\n}};', file=file)


if __name__ == '__main__':
    main(*sys.argv[1:])
