#!/usr/bin/env python3
"""usage: engine.py [--rounds N] [--build FOLDER] [--cases a,b] [--peers docker,podman] [--scale X]

Times cloche beside dockerd (its own mount and network namespace) and podman. The engines take turns on
the same work, each round in another order:

    memory     daemon and door, before any work
    run        run --rm of /bin/true on the bridge network: command line, docker.sock, management socket
    run-d      run -d of it, likewise
    exec       exec of /bin/true in a running container, likewise
    ps         ps while 100 containers run, likewise; what memory each of them costs
    commit     of 100 MB that a container wrote
    save load  of an image of 200 MB, and of one with 40 layers
    pull       of 200 MB from docker-registry on loopback
    build      of a Dockerfile of 20 steps, nothing of it known, and all
    port       bytes (iperf3) and connections a second through a published port

The command lines are each engine's own. "http" and "rpc" are plain sockets that stay open. Rows with "+sync"
contain a syncfs after the work. Milliseconds by the clock; "CPU" is the processor's time of client, daemon
and container together (without our own client's), "-" where cgroup v1's accounts are missing. The columns
after it say how many times cloche's the value is (its command line's, or its docker.sock's), by the median
and by the fastest. Sizes and numbers are multiplied by --scale. --rounds are those of `exec`; what takes
longer gets a part of them. Everything runs in namespaces of its own; nothing of it stays. Needs root.
"""

import argparse
import contextlib
import os
import pathlib
import random
import statistics
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

RATES = ("connections/s", "Gbit/s")


def take_turns(bench, name, plan, engines, rounds):
    """{case: {(engine, way): [(value, processor)]}}, and the engines that failed."""
    make, part, warm_up = plan
    samples, failed = {}, set()
    stacks, turns = {engine: contextlib.ExitStack() for engine in engines}, {}
    for engine in engines:
        with failing(engine, name, failed):
            turns[engine] = stacks[engine].enter_context(make(bench, engine))
    warm_up = min(warm_up, rounds - 1)
    for number in range(warm_up + max(1, rounds // part)):
        for engine in random.sample(list(turns), len(turns)):
            if engine in failed:
                continue
            with failing(engine, name, failed):
                for case, way, value, processor in list(turns[engine]()):
                    if number >= warm_up:
                        rows = samples.setdefault(case, {})
                        rows.setdefault((engine.name, way), []).append((value, processor))
    for engine in engines:
        with failing(engine, name, failed):
            stacks[engine].close()
    return samples, failed


@contextlib.contextmanager
def failing(engine, case, failed):
    """An engine that cannot do a case is out of it; the others go on."""
    try:
        yield
    except Exception as problem:  # whatever a client of a strange engine ends with
        failed.add(engine)
        print(f"{case:<14} {engine.name:<12} failed: {problem}"[:600], flush=True)


def report(case, rows, order):
    rate = case in RATES
    best = max if rate else min
    for (name, way), values in sorted(rows.items(), key=lambda row: (row[0][1], order.index(row[0][0]))):
        value = statistics.median(sample[0] for sample in values)
        fastest = best(sample[0] for sample in values)
        taken = [sample[1] for sample in values if sample[1] is not None]
        base = rows.get(("cloche", "http" if way == "rpc" else way))
        ratios = "       -      -"
        if base:
            ratios = (f"{value / statistics.median(sample[0] for sample in base):>8.2f} "
                      f"{fastest / best(sample[0] for sample in base):>6.2f}")
        print(f"{case:<14} {name + (' ' + way if way else ''):<16} {value:>9.2f} {fastest:>9.2f} "
              f"{statistics.median(taken) if taken else '-':>9{'.2f' if taken else ''}} {ratios}", flush=True)


def measure(harness, folder, engines, arguments):
    from cases import CASES, Bench
    from images import Images
    from materials import SMALL, Materials
    helpers = harness.BUILD / "tests" / "bench"
    bench = Bench(harness, folder, Materials(folder, Images(folder), helpers, arguments.scale), arguments)
    order, bad = [engine.name for engine in engines], set()
    try:
        for engine in engines:
            engine.start()
            bench.load(engine, SMALL)
            print(f"{engine.name} {engine.version()}")
        print(f"{'case':<14} {'engine':<16} {'median':>9} {'best':>9} {'CPU':>9} {'x median':>8} {'x best':>6}")
        for name in (arguments.cases or ",".join(CASES)).split(","):
            samples, failed = take_turns(bench, name, CASES[name], engines, arguments.rounds)
            bad |= failed
            for case, rows in samples.items():
                report(case, rows, order)
    finally:
        if bench.registry:
            bench.registry.close()
    return any(engine.name == "cloche" for engine in bad)


def main():
    parser = argparse.ArgumentParser(description="times cloche beside dockerd and podman")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--build")
    parser.add_argument("--cases", help="all of them when not given")
    parser.add_argument("--peers", default="docker,podman")
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.build:
        os.environ["CLOCHE_BUILD"] = arguments.build
    import harness
    from contenders import KINDS, installed, remove_cgroups
    harness.enter_namespaces()
    if os.path.ismount("/sys/fs/cgroup/unified"):  # crun 1.8 refuses such a machine, and podman uses it
        harness.run("umount", "/sys/fs/cgroup/unified")
    folder = pathlib.Path(tempfile.mkdtemp(prefix=harness.SCRATCH_PREFIX, dir="/var/tmp"))
    engines = []
    try:
        for name in ["cloche", *filter(None, arguments.peers.split(","))]:
            if installed(name):
                engines.append(KINDS[name][0](folder))
        failed = measure(harness, folder, engines, arguments)
    finally:
        for engine in engines:
            engine.close()
        remove_cgroups()
        harness.remove_tree(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
