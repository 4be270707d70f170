"""What cloche-runtime itself takes: containers with hardly any memory."""

from bundles import cgroup_version, world
from harness import Skip, main

LIMIT = 512 << 10  # bytes; a static busybox needs about half of it


def bundle_of_512_kib(w):
    if cgroup_version() == 2:
        raise Skip("v2 counts what the kernel needs for a container, too")
    w.bundle.resources["memory"] = {"limit": LIMIT}
    return w.bundle


@world
def a_container_of_512_kib_starts(w):
    bundle_of_512_kib(w).args("/bin/true")
    for _ in range(10):
        w.runtime("run", "-b", w.bundle.path, w.name)


@world
def programs_are_executed_in_512_kib(w):
    """The runtime's own memory does not count, else the kernel would kill the container for it."""
    bundle_of_512_kib(w).args("/bin/sleep", "100")
    with w.runtime.container(w.bundle, w.name):
        for _ in range(60):
            w.runtime("exec", w.name, "/bin/true")
        assert w.runtime.status(w.name) == "running"


if __name__ == "__main__":
    main()
