"""What cloche-runtime itself takes: containers with hardly any memory."""

from bundles import cgroup_version, world
from harness import Skip, main

KIB = 1 << 10  # bytes


def bundle_of(w, limit):
    if cgroup_version() == 2:
        raise Skip("v2 counts what the kernel needs for a container, too")
    w.bundle.resources["memory"] = {"limit": limit}
    return w.bundle


@world
def a_container_of_512_kib_starts(w):
    """A static busybox needs about half of it."""
    bundle_of(w, 512 * KIB).args("/bin/true")
    for _ in range(10):
        w.runtime("run", "-b", w.bundle.path, w.name)


@world
def programs_are_executed_in_1_mib(w):
    """The runtime's own memory does not count, else the kernel would kill the container for it.
    Twice what the container takes: the kernel frees the memory of ended processes some time later.
    """
    bundle_of(w, 1024 * KIB).args("/bin/sleep", "100")
    with w.runtime.container(w.bundle, w.name):
        for _ in range(60):
            w.runtime("exec", w.name, "/bin/true")
        assert w.runtime.status(w.name) == "running"


if __name__ == "__main__":
    main()
