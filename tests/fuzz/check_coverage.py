#!/usr/bin/env python3
"""Runs a coverage build of a fuzz target over its corpus and holds the lines of its sources against a
minimum, as TAP.

usage: check_coverage.py TARGET CORPUS LLVM-PROFDATA LLVM-COV [each:]MINIMUM-PERCENT SOURCE.c...

The minimum is of all of them together, or of each one, except where that says another: SOURCE.c:PERCENT.
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


def percent(counts):
    return 100 * sum(covered for _, covered in counts) / sum(lines for lines, _ in counts)


def main(target, corpus, profdata, cov, minimum, *wanted):
    others = {name: float(most) for name, colon, most in (word.partition(':') for word in wanted) if colon}
    sources = [word.partition(':')[0] for word in wanted]
    counts = line_counts(target, corpus, profdata, cov, sources)
    whole = minimum.removeprefix('each:')
    for name in sources:
        lines, covered = counts[name]
        print(f'# {name}: {covered} of {lines} lines, {percent([counts[name]]):.1f} %')
    least = percent(counts.values())
    good = least >= float(whole)
    if whole != minimum:
        lacking = [name for name in sources if percent([counts[name]]) < others.get(name, float(whole))]
        good = not lacking
        print(''.join(f'# too little of {name} is run\n' for name in lacking), end='')
    print(f'{"ok" if good else "not ok"} 1 - the corpus runs {least:.1f} % of the lines of its '
          f'sources, {whole} % {"are" if whole == minimum else "of each are"} wanted')
    print('1..1')
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main(*sys.argv[1:])
