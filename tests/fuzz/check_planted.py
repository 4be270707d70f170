#!/usr/bin/env python3
"""Shows that the fuzz target finds a bug: a short run of a build with one planted must crash in
the reader, the same run of the right build must not. As TAP.

With a corpus its run begins there. DICTIONARY may be none.

usage: check_planted.py RIGHT-TARGET PLANTED-TARGET DICTIONARY [CORPUS FUNCTION]
"""

import os
import subprocess
import sys
import tempfile
import time

# One document to start from, in which no array is long enough for the bug.
SEED = b'{"ociVersion":"1","process":{"cwd":"/","args":["a","b","c"]}}'
RUNS = 60000
LUCK = range(1, 11)  # seeds of the fuzzer, until one finds it
SECONDS_MAX = 100
SIGNS = 'deadly signal', 'AddressSanitizer: SEGV', 'AddressSanitizer: heap-', 'runtime error'  # of a target that begins with a corpus


def run(target, dictionary, luck, seeds, seconds=SECONDS_MAX):
    """Exit code and output of a bounded run from SEED alone, or from a corpus."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = [os.path.join(folder, 'corpus')]
        os.mkdir(corpus[0])
        if seeds:
            corpus.append(seeds)
        else:
            with open(os.path.join(corpus[0], 'seed'), 'wb') as file:
                file.write(SEED)
        words = [] if dictionary == 'none' else [f'-dict={dictionary}']
        result = subprocess.run(
            [target, *words, f'-runs={RUNS}', f'-max_total_time={seconds}',
             f'-seed={luck}', '-max_len=256', f'-artifact_prefix={folder}/', *corpus],
            capture_output=True, text=True, errors='replace', timeout=3 * SECONDS_MAX)
    return result.returncode, result.stderr


def main(right, planted, dictionary, corpus=None, function='grow_array'):
    failed = False
    for luck in LUCK:
        begun = time.monotonic()
        code, output = run(planted, dictionary, luck, corpus)
        needed = time.monotonic() - begun
        found = (code != 0 and function in output and
                 ('heap-buffer-overflow' in output or
                  (corpus and any(sign in output for sign in SIGNS))))
        if found:
            break
    print(f'{"ok" if found else "not ok"} 1 - the planted bug is found')
    if not found:
        print(''.join(f'# {line}\n' for line in output.splitlines()[-30:]))
        failed = True
    code, output = run(right, dictionary, luck, corpus, 2 + 2 * int(needed))
    print(f'{"ok" if code == 0 else "not ok"} 2 - without it a run of twice that time finds nothing')
    if code != 0:
        print(''.join(f'# {line}\n' for line in output.splitlines()[-60:]))
        failed = True
    print('1..2')
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main(*sys.argv[1:])
