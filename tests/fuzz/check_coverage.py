#!/usr/bin/env python3
"""Runs a coverage build of a fuzz target over its corpus and holds the lines of its sources against a
minimum, as TAP.

usage: check_coverage.py TARGET CORPUS LLVM-PROFDATA LLVM-COV MINIMUM-PERCENT SOURCE.c...
"""

import json
import os
import subprocess
import sys
import tempfile


def line_counts(target, corpus, profdata, cov, sources):
    """{source: (lines, lines run)}"""
    with tempfile.TemporaryDirectory() as folder:
        raw, merged = os.path.join(folder, 'raw'), os.path.join(folder, 'merged')
        subprocess.run([target, '-runs=0', corpus], check=True, stderr=subprocess.DEVNULL,
                       env={**os.environ, 'LLVM_PROFILE_FILE': raw})
        subprocess.run([profdata, 'merge', '-o', merged, raw], check=True)
        report = subprocess.run([cov, 'export', '-summary-only', f'-instr-profile={merged}', target],
                                check=True, capture_output=True, text=True).stdout
    counts = {}
    for file in json.loads(report)['data'][0]['files']:
        name = os.path.basename(file['filename'])
        if '/src/' in os.path.abspath(file['filename']) and name in sources:
            counts[name] = (file['summary']['lines']['count'], file['summary']['lines']['covered'])
    return counts


def main(target, corpus, profdata, cov, minimum, *sources):
    counts = line_counts(target, corpus, profdata, cov, sources)
    for name in sources:
        lines, covered = counts[name]
        print(f'# {name}: {covered} of {lines} lines')
    lines = sum(count for count, _ in counts.values())
    covered = sum(count for _, count in counts.values())
    percent = 100 * covered / lines
    good = percent >= float(minimum)
    print(f'{"ok" if good else "not ok"} 1 - the corpus runs {percent:.1f} % of the lines of its '
          f'sources, {minimum} % are wanted')
    print('1..1')
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main(*sys.argv[1:])
