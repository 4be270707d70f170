#!/usr/bin/env python3
"""The command line as people and scripts use it: words, columns, exit codes, terminals, signals."""

import contextlib
import json
import os
import pathlib
import re
import signal
import termios
import time

from harness import TOP, main, program, run, test, wait_for

IMAGE = "small:1"


def load(instance, images):
    instance.cloche("load", "-i", images.small(IMAGE))


def start_sleeper(instance, name="web", *options):
    return instance.cloche("run", "-d", "--name", name, *options, IMAGE, "sleep", "1000").out.strip()


# ---------------------------------------------------------------- without a daemon

def help_of(words):
    return run(program("cloche"), *words, "--help").out


def listed_commands():
    """All commands by their shortest spelling, as lists of words."""
    def names_of(*words):
        return re.findall(r"^  ([a-z]+) +\S", help_of(words), re.M)
    management = help_of([]).split("Management Commands:")[1].split("\n\n")[0]
    groups = re.findall(r"^  ([a-z]+) ", management, re.M)
    shared = {"container", "image", "system"}  # most of theirs have shorter spellings
    own = [[group, name] for group in groups if group not in shared for name in names_of(group)]
    own.remove(["builder", "build"])
    return ([[name] for name in names_of() if name not in groups] + own +
            [["system", "check"], ["system", "df"], ["system", "remove"], ["system", "prune"],
             ["container", "prune"], ["image", "prune"]])


@test
def man_page_and_help_name_the_same_options():
    page = (TOP / "man" / "cloche.1.scd").read_text()
    sections = dict(re.findall(r"^## ([a-z ]+)\n(.*?)(?=^## |^# )", page, re.M | re.S))
    for words in listed_commands():
        name = " ".join(words)
        if name == "create":  # the page says that they are run's
            continue
        assert name in sections, f"man/cloche.1.scd has no section on {name}"
        in_help = set(re.findall(r"^  (?:-\w, |    )(--[\w-]+)", help_of(words), re.M))
        in_page = set(re.findall(r"^(?:\*-\w\*, )?\*(--[\w-]+)\*", sections[name], re.M))
        assert in_help == in_page, f"{name}: {in_help ^ in_page}"
        shorts = set(re.findall(r"^  (-\w), (--[\w-]+)", help_of(words), re.M))
        assert shorts == set(re.findall(r"^\*(-\w)\*, \*(--[\w-]+)\*", sections[name], re.M)), name
    create = set(re.findall(r"(--[\w-]+)", help_of(["create"])))
    both = set(re.findall(r"(--[\w-]+)", help_of(["run"])))
    assert both - create == {"--detach", "--detach-keys", "--sig-proxy"}


@test
def help_has_one_layout_and_fits_the_screen():
    for words in listed_commands():
        lines = help_of(words).splitlines()
        assert lines[0].startswith(f"Usage:  cloche {' '.join(words)}"), lines[0]
        assert lines[1] == "" and lines[2][0].isupper() and not lines[2].endswith("."), lines[2]
        assert max(map(len, lines)) <= 88, max(lines, key=len)
    for group in ("container", "image", "network", "system"):
        assert run(program("cloche"), group).out.startswith(f"Usage:  cloche {group} COMMAND\n")
        assert help_of([group]) == run(program("cloche"), group).out
    assert run(program("cloche"), "help", "ps").out == help_of(["ps"])
    assert run(program("cloche"), "help", "image", "ls").out == help_of(["image", "ls"])
    assert run(program("cloche"), "ps", "-h").out == help_of(["ps"])
    assert "Aliases:\n  cloche ps, cloche container ls" in help_of(["ps"])


@test
def mistakes_on_the_command_line_are_named(instance):
    def fails(code, text, *words):
        result = instance.cloche(*words, code=code)
        assert text in result.err and not result.out, repr(result)

    fails(1, "unknown command: cloche frobnicate\nSee 'cloche --help'.", "frobnicate")
    fails(1, "Did you mean 'cloche images'?", "imagse")
    fails(1, "Did you mean 'cloche container inspect'?", "container", "insepct")
    fails(125, "unknown flag: --frob\nSee 'cloche run --help'.", "run", "--frob", "x")
    fails(125, "unknown flag: --nmae (did you mean --name?)", "run", "--nmae", "x")
    fails(125, "unknown shorthand flag: 'X' in -itX", "run", "-itX", "x")
    fails(125, "flag needs an argument: --name", "run", "--name")
    fails(125, "flag needs an argument: 'e' in -e", "run", "-e")
    fails(125, 'invalid argument "1x" for "-m, --memory" flag: ', "run", "-m", "1x", "x")
    fails(125, 'invalid argument "x" for "--cpu-count" flag: it is for Windows only', "run", "--cpu-count", "x", "x")
    fails(125, "there is no support for GPUs", "run", "--gpus", "all", "x")
    fails(125, "bad mode specified: x", "run", "--device", "/dev/null:/dev/n:x", "x")
    fails(125, "invalid ulimit argument: core", "run", "--ulimit", "core", "x")
    fails(125, "opening seccomp profile (/nothing) failed", "run", "--security-opt", "seccomp=/nothing", "x")
    fails(125, "target is required", "run", "--mount", "type=bind,source=/a", "x")
    fails(125, "--no-healthcheck conflicts", "run", "--no-healthcheck", "--health-cmd", "true", "x")
    fails(125, "cannot specify both --restart and --rm", "run", "--rm", "--restart", "always", "x")
    fails(125, "cannot specify both --attach and --detach", "run", "-d", "-a", "stdout", "x")
    fails(125, "invalid label '=x': empty name", "run", "-l", "=x", "x")
    fails(125, "invalid containerPort: x", "run", "-p", "80:x", "x")
    fails(125, "open /nothing: No such file", "run", "--env-file", "/nothing", "x")
    fails(1, "'cloche run' requires at least 1 argument", "run")
    fails(1, "'cloche ps' accepts no arguments", "ps", "x")
    fails(1, "'cloche tag' requires 2 arguments", "tag", "x")
    fails(1, "'cloche container rm' requires at least 1 argument", "container", "rm")
    fails(1, "the input device is not a TTY", "run", "-it", "x")
    fails(125, "invalid detach keys (ctrl-1)", "run", "--detach-keys", "ctrl-1", "x")
    fails(125, "unknown flag: --frob\nSee 'cloche --help'.", "--frob", "ps")
    assert instance.daemon_pid() is None, "a mistake started a daemon"


@test
def an_instance_that_is_not_there_is_removed_without_a_daemon(instance):
    instance.cloche("system", "remove", "--force")
    assert not instance.root.exists() and not instance.run_folder.exists()


@test
def an_instance_is_gone_when_its_removal_returns(instance):
    pid = instance.start_daemon()
    instance.cloche("system", "remove", input="no\n", code=1)
    instance.cloche("system", "remove", input="y\n")
    assert not instance.root.exists() and not instance.run_folder.exists()
    assert not pathlib.Path(f"/proc/{pid}").exists()


def complete(*words, env=None):
    """What bash would offer for the last word, by sourcing contrib/completion/cloche.bash."""
    line = " ".join(words)
    script = f"""
        source {TOP}/contrib/completion/cloche.bash
        PATH={pathlib.Path(program("cloche")).parent}:$PATH
        COMP_LINE={shquote(line)} COMP_POINT={len(line)}
        COMP_WORDS=({" ".join(shquote(word) for word in bash_words(line))})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _cloche; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return set(run("bash", "--norc", "-c", script, env=env).out.split())


def completes(expected, *words, env):
    """A daemon that takes long is not waited for by who presses a key."""
    wait_for(lambda: complete(*words, env=env) == expected, what=f"{words} gives {expected}")


def shquote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def bash_words(line):
    """As readline splits a line for completion: at blanks, and ":" and "=" are words."""
    words = re.findall(r"[^\s:=]+|[:=]+", line)
    return words + [""] if line[-1:].isspace() or line[-1:] in ":=" else words


@test
def bash_completes_commands_and_options():
    assert complete("cloche", "comm") == {"commit"}
    assert complete("cloche", "container ") >= {"ls", "run", "rm"}
    assert complete("cloche", "run", "--pub") == {"--publish", "--publish-all"}
    assert complete("cloche", "run", "--network", "") == {"bridge", "none", "host"}
    assert complete("cloche", "kill", "-s", "SIGUSR") == {"SIGUSR1", "SIGUSR2"}
    assert complete("cloche", "ps", "--no") == {"--no-trunc"}
    assert "container" in complete("cloche", "")


# ---------------------------------------------------------------- run

@test
def run_gives_output_and_exit_codes(instance, images):
    load(instance, images)
    result = instance.cloche("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 42",
                             code=42)
    assert (result.out, result.err) == ("out\n", "err\n"), repr(result)
    process = instance.start("run", "--rm", "--name", "victim", IMAGE, "sleep", "1000")
    wait_for(lambda: instance.cloche("kill", "victim", code=None).code == 0)
    assert process.wait(60) == 137
    process.communicate()
    result = instance.cloche("run", "--rm", IMAGE, "/no/such/program", code=127)
    assert result.err.startswith("cloche: "), result.err
    instance.cloche("run", "--rm", IMAGE, "/etc/passwd", code=126)
    result = instance.cloche("run", "--rm", "nothing:1", code=125)
    assert "nothing:1" in result.err and "cloche run --help" in result.err, result.err
    assert instance.cloche("ps", "-a", "-q").out == ""


@test
def run_passes_what_it_is_told(instance, images, scratch):
    load(instance, images)
    scratch.chmod(0o755)  # user shop reads it
    (scratch / "env").write_text("# settings\nFILE=from file\nHOME_OF=\n")
    result = instance.cloche(
        "run", "--rm", "-e", "A=1 2", "-eB", "--env-file", scratch / "env", "-w", "/tmp", "-u",
        "shop", "-h", "till", "-v", f"{scratch}:/data:ro", "-m", "64m", "--label", "k=v", IMAGE,
        "sh", "-c", 'echo "$A|$B|$FILE|$HOME_OF|$(pwd)|$(id -un)|$(hostname)|$(cat /data/env | wc -l)"; '
        "touch /data/x", env={"B": "ours"}, code=1)
    assert result.out == "1 2|ours|from file||/tmp|shop|till|3\n", repr(result)
    assert "Read-only" in result.err
    assert instance.cloche("run", "--rm", "--entrypoint", "echo", IMAGE, "-n", "x").out == "x"
    assert instance.cloche("run", "--rm", "--read-only", IMAGE, "sh", "-c", "touch /x || echo no"
                           ).out == "no\n"
    assert instance.cloche("run", "--rm", "--network", "none", IMAGE, "ls", "/sys/class/net"
                           ).out == "lo\n"


@test
def run_detached_prints_the_id_and_create_does_not_start(instance, images):
    load(instance, images)
    identifier = start_sleeper(instance)
    assert re.fullmatch("[0-9a-f]{64}", identifier), identifier
    created = instance.cloche("create", "--name", "later", IMAGE, "echo", "started").out.strip()
    assert re.fullmatch("[0-9a-f]{64}", created)
    states = dict(line.split() for line in
                  instance.cloche("ps", "-a", "--format", "{{.Names}} {{.State}}").lines)
    assert states == {"web": "running", "later": "created"}, states
    result = instance.cloche("run", "-d", "--name", "web", IMAGE, code=125)
    assert "web" in result.err and "in use" in result.err, result.err
    assert instance.cloche("start", "-a", "later").out == "started\n"
    instance.cloche("rm", "-f", "web", "later")


@test
def stdin_reaches_the_container_and_its_end_too(instance, images):
    load(instance, images)
    text = "line\n" * 50000
    assert instance.cloche("run", "--rm", "-i", IMAGE, "cat", input=text).out == text
    assert instance.cloche("run", "--rm", "-i", IMAGE, "wc", "-c", input=text).out.strip() == \
        str(len(text))
    # Without -i there is none.
    assert instance.cloche("run", "--rm", IMAGE, "cat", input=text).out == ""


@test
def closed_standard_streams_are_not_taken_by_others(instance, images):
    load(instance, images)
    cloche = program("cloche")
    script = f"{cloche} run --rm -i {IMAGE} cat <&-; echo $?; {cloche} ps -q >&-; " \
             f"{cloche} run --rm {IMAGE} sh -c 'echo out; echo err >&2' 2>&-"
    result = run("sh", "-c", script, env=instance.env)
    assert (result.out, result.err) == ("0\nout\n", ""), repr(result)


@test
def a_reader_that_goes_ends_the_command(instance, images):
    load(instance, images)
    process = instance.start("run", "--name", "noisy", IMAGE, "yes")
    assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    assert process.wait(60) != 0
    process.stderr.close()
    process.stdin.close()
    instance.cloche("rm", "-f", "noisy")


@test
def signals_are_passed_on(instance, images):
    load(instance, images)
    script = "trap 'echo got it; exit 7' TERM; trap 'echo usr' USR1; echo ready; " \
             "while :; do sleep 0.05; done"
    process = instance.start("run", "--rm", IMAGE, "sh", "-c", script)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == b"usr\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"got it\n"
    assert process.wait(60) == 7
    process = instance.start("run", "--name", "apart", "--sig-proxy=false", IMAGE, "sh", "-c", script)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert instance.cloche("ps", "--format", "{{.Names}}").out == "apart\n"
    instance.cloche("rm", "-f", "apart")


# ---------------------------------------------------------------- terminals

@test
def a_program_has_the_size_of_the_terminal_from_its_beginning(instance, images):
    load(instance, images)
    for _ in range(5):
        with instance.terminal("run", "-it", "--rm", IMAGE, "stty", "size") as terminal:
            terminal.expect("24 80")


@test
def a_shell_on_a_terminal_works(instance, images):
    load(instance, images)
    with instance.terminal("run", "-it", "--rm", IMAGE, "sh") as terminal:
        terminal.expect("# ")
        before = termios.tcgetattr(terminal.main)
        assert not before[3] & termios.ICANON, "the terminal is not raw"
        terminal.send("stty size\n")
        terminal.expect("24 80")
        terminal.resize(40, 100)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.send("until stty size | grep -q '^40 100$'; do sleep 0.1; done; echo re''sized\n")
        terminal.expect("resized")
        terminal.send("echo be''ginning; sleep 100\n")
        terminal.expect("beginning")
        time.sleep(0.3)  # the shell is to have started it
        terminal.send("\x03")  # goes to the container
        terminal.send("echo $?-$(tty)\n")
        terminal.expect("130-/dev/")
        terminal.send("exit 5\n")
        assert terminal.wait() == 5
        after = termios.tcgetattr(terminal.main)
        assert after[3] & termios.ICANON and after[3] & termios.ECHO, "the terminal stayed raw"


@test
def detach_keys_part_and_attach_comes_back(instance, images):
    load(instance, images)
    with instance.terminal("run", "-it", "--name", "shell", IMAGE, "sh") as terminal:
        terminal.expect(r"# \x1b\[6n")  # busybox' line editor asks for the cursor when it reads
        terminal.send("X=kept\n\x10\x11")  # what stands before the keys arrives
        assert terminal.wait() == 0
        assert b"read escape sequence" in terminal.seen
        assert termios.tcgetattr(terminal.main)[3] & termios.ICANON
    with instance.terminal("attach", "--detach-keys", "ctrl-a,x", "shell") as terminal:
        terminal.send("echo $X\n")
        terminal.expect("kept\r\n")
        terminal.send("\x01x")
        assert terminal.wait() == 1
    with instance.terminal("attach", "shell") as terminal:
        terminal.send("exit 3\n")
        assert terminal.wait() == 3
    result = instance.cloche("attach", "shell", code=1)
    assert "stopped container" in result.err, result.err
    instance.cloche("rm", "shell")


@test
def a_killed_client_leaves_the_terminal_as_it_was(instance, images):
    load(instance, images)
    with instance.terminal("run", "-it", "--name", "shell", "--sig-proxy=false", IMAGE, "sh") \
            as terminal:
        terminal.expect("# ")
        terminal.process.terminate()
        assert terminal.wait() == 128 + signal.SIGTERM
        assert termios.tcgetattr(terminal.main)[3] & termios.ICANON
    assert instance.cloche("ps", "--format", "{{.Names}}").out == "shell\n"
    instance.cloche("rm", "-f", "shell")


# ---------------------------------------------------------------- exec

@test
def exec_runs_further_programs(instance, images):
    load(instance, images)
    start_sleeper(instance)
    result = instance.cloche("exec", "-e", "A=b", "-w", "/tmp", "-u", "shop", "web", "sh", "-c",
                             "echo $A $(pwd) $(id -un); echo bad >&2; exit 9", code=9)
    assert (result.out, result.err) == ("b /tmp shop\n", "bad\n"), repr(result)
    assert instance.cloche("exec", "-i", "web", "cat", input="in\n").out == "in\n"
    instance.cloche("exec", "web", "/no/such/program", code=127)
    instance.cloche("exec", "web", "/etc/passwd", code=126)
    instance.cloche("exec", "-d", "web", "touch", "/made")
    wait_for(lambda: instance.cloche("exec", "web", "ls", "/made", code=None).code == 0)
    with instance.terminal("exec", "-it", "web", "sh") as terminal:
        terminal.expect("# ")
        terminal.send("stty size; exit 4\n")
        terminal.expect("24 80")
        assert terminal.wait() == 4
    instance.cloche("rm", "-f", "web")
    result = instance.cloche("exec", "web", "true", code=1)
    assert "No such container: web" in result.err


# ---------------------------------------------------------------- lists

@test
def ps_has_docker_columns(instance, images):
    assert instance.cloche("ps").out == \
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    load(instance, images)
    identifier = start_sleeper(instance, "web", "-p", "127.0.0.1:19000:80", "-l", "role=front")
    lines = instance.cloche("ps").lines
    assert len(lines) == 2
    assert re.fullmatch(
        identifier[:12] + r'   small:1   "sleep 1000" +\S.* ago   Up .*   '
        r"127\.0\.0\.1:19000->80/tcp   web", lines[1]), lines[1]
    for column in ("IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"):
        at = lines[0].index(column)
        assert lines[1][at - 1] == " " and lines[1][at] != " ", column
    instance.cloche("run", "--name", "done", IMAGE, "sh", "-c", "exit 3", code=3)
    assert instance.cloche("ps", "-q", "--no-trunc").out == identifier + "\n"
    names = "{{.Names}}"
    assert instance.cloche("ps", "-a", "--format", names).lines == ["done", "web"]
    assert instance.cloche("ps", "-l", "--format", names).lines == ["done"]
    assert instance.cloche("ps", "-n", "2", "--format", names).lines == ["done", "web"]
    assert instance.cloche("ps", "-f", "status=exited", "--format", names).lines == ["done"]
    assert instance.cloche("ps", "-f", "exited=3", "--format", names).lines == ["done"]
    assert instance.cloche("ps", "-af", "label=role", "--format", names).lines == ["web"]
    assert instance.cloche("ps", "-af", "name=do", "--format", names).lines == ["done"]
    assert "invalid filter 'x'" in instance.cloche("ps", "-f", "x=y", code=1).err
    assert "Exited (3) " in instance.cloche("ps", "-a").out
    record = json.loads(instance.cloche("ps", "--format", "json").out)
    assert record["Names"] == "web" and record["Labels"] == "role=front", record
    assert instance.cloche("container", "ls", "--format", "table {{.Names}}").out == "NAMES\nweb\n"
    assert "map has no entry" in instance.cloche("ps", "--format", "{{.Nmae}}", code=1).err
    instance.cloche("rm", "-f", "web", "done")


@test
def images_are_listed_tagged_and_removed(instance, images):
    load(instance, images)
    lines = instance.cloche("images").lines
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert any(re.fullmatch(r"small +1 +[0-9a-f]{12} +.* ago +[\d.]+[kM]B", line)
               for line in lines), lines
    assert any(line.startswith("host ") for line in lines), lines
    identifier = instance.cloche("images", "-q", "--no-trunc", "small").out.strip()
    assert re.fullmatch("sha256:[0-9a-f]{64}", identifier), identifier
    instance.cloche("tag", IMAGE, "shop")
    instance.cloche("tag", identifier[7:19], "till/shop:2")
    names = "{{.Repository}}:{{.Tag}}"
    assert set(instance.cloche("images", "--format", names).lines) >= \
        {"small:1", "shop:latest", "till/shop:2"}
    assert instance.cloche("images", "--format", names, "till/*").lines == ["till/shop:2"]
    assert instance.cloche("images", "--format", names, "shop").lines == ["shop:latest"]
    assert "DIGEST" in instance.cloche("images", "--digests").lines[0]
    assert instance.cloche("rmi", "shop").out == "Untagged: shop:latest\n"
    result = instance.cloche("rmi", "nothing", "till/shop:2", code=1)
    assert result.out == "Untagged: till/shop:2\n" and "nothing" in result.err, repr(result)
    result = instance.cloche("image", "rm", IMAGE)
    assert "Untagged: small:1\n" in result.out and f"Deleted: {identifier}\n" in result.out
    assert instance.cloche("images", "-q", "small").out == ""


@test
def load_and_save_speak_to_files_and_pipes(instance, images, scratch):
    result = instance.cloche("load", "-q", "-i", images.small(IMAGE))
    assert result.out == "Loaded image: small:1\n", repr(result)
    instance.cloche("save", "-o", scratch / "saved.tar", IMAGE)
    assert os.listdir(scratch) == ["saved.tar"]
    instance.cloche("rmi", IMAGE)
    with open(scratch / "saved.tar", "rb") as archive:
        assert instance.cloche("load", stdin=archive).out == "Loaded image: small:1\n"
    piped = instance.cloche("save", IMAGE, text=False)
    assert instance.cloche("load", input=piped.out).out == "Loaded image: small:1\n"
    with instance.terminal("save", IMAGE) as terminal:
        assert terminal.wait() == 1
        assert b"terminal" in terminal.seen
    result = instance.cloche("save", "-o", scratch / "no.tar", "nothing:1", code=1)
    assert "nothing:1" in result.err and not (scratch / "no.tar").exists(), repr(result)
    result = instance.cloche("load", "-i", scratch / "none.tar", code=1)
    assert "none.tar: No such file" in result.err
    result = instance.cloche("load", input="not an archive", code=1)
    assert result.err.startswith("Error: "), result.err


@test
def an_output_that_takes_no_more_is_named(instance, images):
    load(instance, images)
    with open("/dev/full", "w") as full:
        process = instance.start("run", "--rm", IMAGE, "echo", "words", stdout=full)
        message = process.stderr.read().decode()
    assert process.wait(60) == 125, message
    assert "write to standard output: No space left on device" in message, message


# ---------------------------------------------------------------- logs

@test
def logs_show_what_was_written(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "talker", IMAGE, "sh", "-c",
                    "for i in 1 2 3 4 5; do echo line $i; done; sleep 0.7; echo bad >&2; sleep 0.7; printf end")
    result = instance.cloche("logs", "talker")
    assert result.out == "line 1\nline 2\nline 3\nline 4\nline 5\nend", repr(result)
    assert result.err == "bad\n"
    assert instance.cloche("logs", "-n", "1", "talker").out == "end"
    assert instance.cloche("logs", "--tail", "3", "talker").out == "line 5\nend"
    assert instance.cloche("logs", "-n0", "talker").out == ""
    stamped = instance.cloche("logs", "-t", "talker").lines
    assert all(re.match(r"2\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in stamped)
    times = [line.split(" ")[0] for line in stamped]
    since = instance.cloche("logs", "-t", "--since", times[2], "talker").lines
    assert since and min(since) >= times[2], since
    assert instance.cloche("logs", "--since", "1h", "talker").lines[0] == "line 1"
    assert instance.cloche("logs", "--until", "1h", "talker").out == ""
    assert instance.cloche("logs", "--since", "2100-01-01", "talker").out == ""
    assert "invalid value" in instance.cloche("logs", "--since", "soon", "talker", code=1).err
    assert "invalid tail" in instance.cloche("logs", "--tail", "x", "talker", code=1).err
    assert "No such container: nobody" in instance.cloche("logs", "nobody", code=1).err
    instance.cloche("rm", "talker")


@test
def logs_keep_the_order_of_both_streams(instance, images, scratch):
    load(instance, images)
    instance.cloche("run", "--name", "talker", IMAGE, "sh", "-c",
                    "for i in 1 2 3; do echo out $i; sleep 0.5; echo err $i >&2; sleep 0.5; done")
    with open(scratch / "both", "w") as both:
        instance.start("logs", "talker", stdout=both, stderr=both).wait(60)
    expected = [f"{stream} {i}" for i in (1, 2, 3) for stream in ("out", "err")]
    assert (scratch / "both").read_text().splitlines() == expected
    instance.cloche("rm", "talker")


@test
def logs_follow_to_the_end(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "--name", "talker", IMAGE, "sh", "-c",
                    "echo first; read -t 100 x < /tmp/go || while ! [ -e /tmp/go ]; do sleep 0.05; "
                    "done; echo last")
    follower = instance.start("logs", "-f", "talker")
    assert follower.stdout.readline() == b"first\n"
    instance.cloche("exec", "talker", "touch", "/tmp/go")
    assert follower.stdout.read() == b"last\n"
    assert follower.wait(60) == 0
    instance.cloche("rm", "talker")


# ---------------------------------------------------------------- one object, or many

@test
def inspect_has_docker_shape(instance, images, scratch):
    load(instance, images)
    identifier = start_sleeper(instance, "web", "-p", "19001:80", "-v", f"{scratch}:/data:ro", "-e",
                               "A=1", "-m", "32m", "-l", "k=v")
    (document,) = json.loads(instance.cloche("inspect", "web").out)
    assert document["Id"] == identifier and document["Name"] == "/web"
    assert document["State"]["Status"] == "running" and document["State"]["Running"] is True
    assert pathlib.Path(f"/proc/{document['State']['Pid']}").exists()
    assert document["Path"] == "sleep" and document["Args"] == ["1000"]
    assert document["HostConfig"]["Memory"] == 32 << 20
    assert document["HostConfig"]["Binds"] == [f"{scratch}:/data:ro"]
    assert document["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == "19001"
    assert document["Mounts"][0]["Destination"] == "/data" and not document["Mounts"][0]["RW"]
    assert "A=1" in document["Config"]["Env"] and document["Config"]["Labels"] == {"k": "v"}
    assert document["NetworkSettings"]["Ports"]["80/tcp"] == \
        [{"HostIp": "0.0.0.0", "HostPort": "19001"}]
    address = document["NetworkSettings"]["IPAddress"]
    assert address and document["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == address

    def formatted(template):
        return instance.cloche("inspect", "-f", template, "web").out
    assert formatted("{{.State.Status}} {{.Config.Labels.k}}") == "running v\n"
    assert formatted('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}') == "19001\n"
    assert formatted("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}") == address + "\n"
    assert json.loads(formatted("{{json .State}}"))["Running"] is True
    assert json.loads(formatted("json"))[0]["Id"] == identifier
    assert "map has no entry" in instance.cloche("inspect", "-f", "{{.Nothing}}", "web", code=1).err

    (image,) = json.loads(instance.cloche("inspect", IMAGE).out)
    assert image["RepoTags"] == [IMAGE] and image["Id"].startswith("sha256:")
    assert image["Config"]["Cmd"] == ["/bin/sh"] and len(image["RootFS"]["Layers"]) == 1
    both = instance.cloche("inspect", "web", "nobody", IMAGE, code=1)
    assert [item["Id"] for item in json.loads(both.out)] == [identifier, image["Id"]]
    assert both.err == "Error: No such object: nobody\n"
    assert instance.cloche("inspect", "nobody", code=1).out == "[]\n"
    instance.cloche("inspect", "--type", "image", "web", code=1)
    instance.cloche("image", "inspect", "web", code=1)
    instance.cloche("container", "inspect", IMAGE, code=1)
    instance.cloche("stop", "-t", "0", "web")
    assert formatted("{{.State.Status}} {{.State.Pid}}") == "exited 0\n"
    instance.cloche("rm", "-f", "web")


@test
def commands_on_many_containers_go_on_after_a_failure(instance, images):
    load(instance, images)
    for name in ("one", "two"):
        start_sleeper(instance, name)
    result = instance.cloche("kill", "-s", "USR2", "one", "nobody", "two", code=1)
    assert result.out == "one\ntwo\n" and "No such container: nobody" in result.err, repr(result)
    instance.cloche("kill", "-s", "NOSIGNAL", "one", code=1)
    result = instance.cloche("rm", "one", code=1)
    assert result.err.startswith("Error: ") and "running" in result.err, result.err
    assert instance.cloche("stop", "-t", "0", "one").out == "one\n"
    assert instance.cloche("wait", "one").out == "137\n"
    for _ in range(4):  # its link has the same name each time
        assert instance.cloche("restart", "-t", "0", "two").out == "two\n"
    assert instance.cloche("start", "one").out == "one\n"
    assert len(instance.cloche("ps", "-q").lines) == 2
    result = instance.cloche("rm", "-f", "one", "nobody", "two")
    assert result.out == "one\ntwo\n" and "No such container: nobody" in result.err, repr(result)
    result = instance.cloche("kill", "one", code=1)
    assert "No such container: one" in result.err


@test
def wait_answers_when_the_container_ends(instance, images):
    load(instance, images)
    start_sleeper(instance)
    waiter = instance.start("wait", "web")
    time.sleep(0.1)
    assert waiter.poll() is None
    instance.cloche("kill", "web")
    assert waiter.communicate(timeout=60)[0] == b"137\n"
    instance.cloche("rm", "web")


@test
def commit_prints_the_image(instance, images):
    load(instance, images)
    instance.cloche("run", "--name", "changed", IMAGE, "sh", "-c", "echo new > /file")
    result = instance.cloche("commit", "-m", "a file", "-a", "Me", "-c", "CMD cat /file", "-c",
                             "ENV X=y", "changed", "changed:1")
    assert re.fullmatch("sha256:[0-9a-f]{64}\n", result.out), result.out
    assert instance.cloche("run", "--rm", "changed:1").out == "new\n"
    (image,) = json.loads(instance.cloche("inspect", "changed:1").out)
    assert image["Id"] == result.out.strip() and "X=y" in image["Config"]["Env"]
    assert image["Comment"] == "a file" and image["Author"] == "Me"
    instance.cloche("rm", "changed")


@test
def version_and_info_tell_of_the_engine(instance):
    assert re.fullmatch(r"Cloche version \d+\.\d+\.\d+\n", instance.cloche("--version").out)
    version = instance.cloche("version").out
    assert version.startswith("Client:\n Version: ") and "\nServer:\n Engine:\n" in version, version
    document = json.loads(instance.cloche("version", "--format", "json").out)
    assert document["Client"]["Version"] == document["Server"]["Version"]
    assert instance.cloche("version", "-f", "{{.Server.Os}}").out == "linux\n"
    info = instance.cloche("info").out
    assert " Containers: 0\n" in info and f" Instance: {instance.name}\n" in info, info
    document = json.loads(instance.cloche("info", "--format", "json").out)
    assert document["DockerRootDir"] == str(instance.root)
    assert instance.cloche("info", "-f", "{{.Swarm.LocalNodeState}}").out == "inactive\n"
    assert instance.cloche("system", "info", "-f", "{{.Images}}").out.strip().isdigit()


@test
def bash_completes_names(instance, images):
    load(instance, images)
    env = instance.env
    start_sleeper(instance)
    instance.cloche("create", "--name", "later", IMAGE)
    completes({"web", "later"}, "cloche", "logs", "", env=env)
    completes({"web"}, "cloche", "exec", "-it", "", env=env)
    completes({"later"}, "cloche", "start", "", env=env)
    completes({"small:1"}, "cloche", "run", "-it", "smal", env=env)
    completes({"1"}, "cloche", "run", "-it", "small:", env=env)
    without = {key: value for key, value in env.items() if key != "CLOCHE_INSTANCE"}
    completes({"web"}, "cloche", "--instance", instance.name, "logs", "w", env=without)
    instance.cloche("rm", "-f", "web", "later")


# ---------------------------------------------------------------- the daemon comes and goes

@test
def many_commands_at_once_start_one_daemon(instance):
    processes = [instance.start("version", "-f", "{{.Server.Version}}") for _ in range(8)]
    outputs = {process.communicate(timeout=60) for process in processes}
    assert len(outputs) == 1, outputs
    assert all(process.returncode == 0 for process in processes)

    def daemons():
        found = []
        for pid in instance.processes():
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/comm").read_text() == "cloched\n":
                    found.append(pid)
        return found
    # What one of them starts has its name for a moment.
    wait_for(lambda: len(daemons()) == 1, what="there is one daemon")


@test
def a_daemon_that_cannot_start_says_why(instance, scratch):
    (scratch / "cloched").write_text("#!/bin/sh\necho 'the disk is made of cheese' >&2; exit 1\n")
    os.chmod(scratch / "cloched", 0o755)
    result = instance.cloche("ps", env={"CLOCHE_LIBEXEC": str(scratch)}, code=1)
    assert "the disk is made of cheese" in result.err and "cloched.log" in result.err, result.err
    result = instance.cloche("ps", env={"CLOCHE_LIBEXEC": "/nothing"}, code=1)
    assert "/nothing/cloched" in result.err, result.err
    result = run("setpriv", "--reuid", "65534", "--clear-groups", program("cloche"), "ps",
                 env=instance.env, code=1)
    assert "sudo" in result.err, result.err


@test
def an_attached_run_survives_the_daemon(instance, images):
    load(instance, images)
    for words in ([], ["--rm"]):
        process = instance.start("run", "-i", *words, IMAGE, "sh", "-c", "read x; echo $x; exit 6")
        identifier = wait_for(lambda: instance.cloche("ps", "-q").out.strip())
        wait_for(lambda: instance.cloche("ps", "--format", "{{.State}}").out == "running\n")
        assert identifier
        instance.kill_daemon()
        out, err = process.communicate(b"still here\n", timeout=60)
        assert (out, process.returncode) == (b"still here\n", 6), (out, err, process.returncode)
    # The next daemon finds what happened: one is kept, the one with --rm goes.
    wait_for(lambda: [line.split(" ")[0] for line in instance.cloche(
        "ps", "-a", "--format", "{{.Status}}").lines] == ["Exited"])
    instance.cloche("rm", *instance.cloche("ps", "-aq").lines)


@test
def an_attached_run_is_answered_by_the_next_daemon(instance, images):
    load(instance, images)
    process = instance.start("run", "-i", "--rm", IMAGE, "sh", "-c", "read x; echo $x; exit 6")
    wait_for(lambda: instance.cloche("ps", "-q").out.strip())
    instance.kill_daemon()
    instance.start_daemon()
    time.sleep(0.5)  # the client looks for the new daemon four times a second
    out, err = process.communicate(b"again\n", timeout=60)
    assert (out, process.returncode) == (b"again\n", 6), (out, err, process.returncode)
    wait_for(lambda: instance.cloche("ps", "-aq").out == "")


@test
def a_signal_brings_the_daemon_back(instance, images):
    load(instance, images)
    process = instance.start("run", "--rm", IMAGE, "sh", "-c",
                             "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == b"ready\n"
    instance.kill_daemon()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7, (out, err, process.returncode)


@test
def exec_and_attach_survive_the_daemon(instance, images):
    load(instance, images)
    instance.cloche("run", "-d", "-i", "--name", "web", IMAGE, "sh", "-c",
                    "read x; echo $x; exit 6")
    attached = instance.start("attach", "web")
    wait_for(lambda: instance.cloche("events", "--since", "1h", "--until", "0s", "--filter", "event=attach").out)
    program = instance.start("exec", "-i", "web", "sh", "-c", "echo up; read x; echo $x; exit 8")
    assert program.stdout.readline() == b"up\n"
    instance.kill_daemon()
    instance.start_daemon()
    time.sleep(0.5)
    assert program.communicate(b"to exec\n", timeout=60)[0] == b"to exec\n"
    assert program.returncode == 8, program.returncode
    assert attached.communicate(b"to main\n", timeout=60)[0] == b"to main\n"
    assert attached.returncode == 6, attached.returncode
    instance.cloche("rm", "web")


if __name__ == "__main__":
    main()
