#!/usr/bin/env python3
"""usage: summary.py LOG-FOLDER PERMITTED-SKIPS [FAILED-STAGE...]

Counts the results of `meson test` in the folder's *.json logs, every test of a TAP stream and of a
cmocka program by itself, names what failed and what was skipped, and ends with "N passed, N failed,
N skipped". Exit code 1 when anything failed: a test, a stage that could not run, or a skip that the
list does not permit.
"""

import json
import pathlib
import re
import sys

_TAP = re.compile(r"^(not )?ok\b *\d* *-? *([^#]*?) *(?:# *(SKIP\b.*))?$",
                  re.IGNORECASE | re.MULTILINE)
_CMOCKA = re.compile(r"^\[ RUN      \] (.*)\n(?s:.*?)"
                     r"(?:^(?=\[ RUN)|^\[ *(OK|FAILED|SKIPPED) *\] \1$|\Z)", re.MULTILINE)
_CMOCKA_VERDICTS = {"OK": "passed", "SKIPPED": "skipped"}
_MESON_VERDICTS = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}


def cases(output):
    """(case, verdict, remark) of the single tests in a program's output."""
    if re.search(r"^1\.\.\d+", output, re.MULTILINE):
        for bad, case, skip in _TAP.findall(output):
            yield case, "failed" if bad else "skipped" if skip else "passed", skip
    else:
        for case, verdict in _CMOCKA.findall(output):
            yield case, _CMOCKA_VERDICTS.get(verdict, "failed"), verdict


def diagnostics(output, case):
    """The comment lines of a TAP stream right before the line of a failed case."""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("not ok") and line.endswith(" - " + case):
            start = number
            while start > 0 and lines[start - 1].startswith("#"):
                start -= 1
            return lines[start:number]
    return []


def show_failures(log):
    """What the failed tests of one log have said."""
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if _MESON_VERDICTS.get(entry["result"]):
            continue
        output, errors = entry.get("stdout") or "", entry.get("stderr") or ""
        for case, verdict, _ in cases(output):
            if verdict == "failed":
                print(f"---- {log.stem}: {entry['name']}: {case}")
                print("\n".join(diagnostics(output, case)[-80:]))
        print("\n".join(errors.splitlines()[-40:]))


def results(log):
    """(test, case, verdict, remark) of everything in one log of meson test."""
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        name = entry["name"].split(" / ")[-1]
        verdict = _MESON_VERDICTS.get(entry["result"], "failed")
        found = list(cases(entry.get("stdout") or ""))
        for case in found:
            yield name, *case
        if not found:
            yield name, "", verdict, entry["result"]
        elif verdict == "failed" and all(case[1] != "failed" for case in found):
            # A crash, a time-out or a wrong plan, after lines that are all ok.
            yield name, "(as a whole)", "failed", entry["result"]


def main():
    folder, permitted_file, *failed_stages = sys.argv[1:]
    lines = pathlib.Path(permitted_file).read_text().splitlines()
    permitted = {line.split("#")[0].strip() for line in lines} - {""}
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for stage in failed_stages:
        counts["failed"] += 1
        print(f"failed: stage {stage}")
    logs = sorted(pathlib.Path(folder).glob("*.json"))
    for log in logs:
        show_failures(log)
    for log in logs:
        for test, case, verdict, remark in results(log):
            name = f"{test}.{case}" if case else test
            if verdict == "skipped" and f"{log.stem} {name}" not in permitted:
                verdict, remark = "failed", f"skipping it is not permitted: {remark}"
            counts[verdict] += 1
            if verdict != "passed":
                print(f"{verdict}: {log.stem}: {name} {remark}")
    if counts["passed"] == 0:
        counts["failed"] += 1
        print("failed: no test has run")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts), flush=True)
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
