#!/usr/bin/env python3
"""Copies a source file of the reader with a bug put in, for the test that the fuzz target finds it.

The bug: arrays no longer have room for their terminator, so that the fourth element of an array
makes the reader write behind the allocation.

Or another line is spoilt in another source.

usage: plant_bug.py PLACE.c OUTPUT.c [RIGHT WRONG]
"""

import sys

RIGHT = 'bool full = count + 1 >= 4 && (count & (count + 1)) == 0;'
WRONG = 'bool full = count >= 4 && (count & (count - 1)) == 0;'


def main(source, output, right=RIGHT, wrong=WRONG):
    with open(source, encoding='utf-8') as file:
        text = file.read()
    if text.count(right) != 1:
        sys.exit(f'plant_bug.py: {source}: the line to spoil is not there (once)')
    with open(output, 'w', encoding='utf-8') as file:
        file.write(text.replace(right, wrong))


if __name__ == '__main__':
    main(*sys.argv[1:])
