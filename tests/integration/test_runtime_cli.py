"""What callers see of cloche-runtime's command line beside the containers: completion."""

import pathlib

from bundles import world
from harness import TOP, main, program, run


def complete(w, *words):
    """What bash would offer for the last word."""
    quoted = " ".join("'" + word + "'" for word in words)
    script = f"""
        source {TOP}/contrib/completion/cloche-runtime.bash
        PATH={pathlib.Path(program("cloche-runtime")).parent}:$PATH
        COMP_WORDS=({quoted}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _cloche_runtime; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return set(run("bash", "--norc", "-c", script).out.split())


@world
def bash_completes_commands_options_and_containers(w):
    name = "cloche-runtime"
    assert complete(w, name, "fe") == {"features"}
    assert complete(w, name, "delete", "--f") == {"--force"}
    assert complete(w, name, "run", "--k") == {"--keep"}
    assert complete(w, name, "run", "--det") == {"--detach"}
    assert complete(w, name, "exec", "--pidf") == {"--pidfd-socket"}
    assert complete(w, name, "exec", "--t") == {"--tty"}
    assert complete(w, name, "list", "--format", "") == {"table", "json"}
    assert complete(w, name, "--log-format", "") == {"text", "json"}
    assert complete(w, name, "--ro") >= {"--root", "--rootless"}
    with w.runtime.container(w.bundle.script("sleep 100"), w.name):
        assert complete(w, name, "--root", str(w.runtime.root), "kill", w.name[:3]) == {w.name}


@world
def levels_of_the_log(w):
    """crun's --log-level; what is not said cannot be missed."""
    w.bundle.process["capabilities"]["bounding"].append("CAP_NOT_YET_INVENTED")
    w.bundle.script("exit 0").write()
    for level, words in (("error", []), ("warning", ["warning"]), ("debug", ["warning", "debug"])):
        result = w.runtime("--log-level", level, "run", "-b", w.bundle.path, w.name, log=False)
        found = {line.split("level=")[1].split()[0] for line in result.err.splitlines()}
        assert found == set(words), (level, result)
    assert "none" in w.runtime("--log-level", "none", "list", code=1).err
    for place in ("syslog:x", "journald:x"):
        assert "files only" in run(w.runtime.path, "--log", place, "list", code=1).err


if __name__ == "__main__":
    main()
