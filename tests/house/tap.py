"""Checks as TAP: each is a function that returns its problems, or None when it cannot be made."""
import sys


def run(checks, skipped):
    """Returns the exit code. skipped says why a check that returns None was not made."""
    print(f"1..{len(checks)}")
    failed = False
    for number, check in enumerate(checks, 1):
        problems = check()
        if problems is None:
            print(f"ok {number} - {check.__name__} # SKIP {skipped}")
            continue
        print(f"{'not ok' if problems else 'ok'} {number} - {check.__name__}")
        for problem in problems:
            print(f"# {problem}")
            print(problem, file=sys.stderr)
        failed = failed or bool(problems)
    return 1 if failed else 0
