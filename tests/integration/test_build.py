"""`cloche build`: Dockerfiles, contexts, the cache, and what goes wrong."""

import bz2
import io
import json
import os
import signal
import subprocess
import tarfile
import time

from harness import PROGRAMS, main, test, wait_for

BASE = "small:1"


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def build(instance, folder, dockerfile, *options, code=0, files=None):
    """Builds it as built:1. Returns the result of the command."""
    write(folder, {"Dockerfile": dockerfile, **(files or {})})
    return instance.cloche("build", "-t", "built:1", *options, folder, code=code)


def base(instance, images):
    instance.cloche("load", "-i", images.small(BASE))


def config_of(instance, name="built:1"):
    details = json.loads(instance.cloche("rpc", "call", "image.inspect", f"image={name}").out)
    return json.loads(details["config"]) if isinstance(details["config"], str) else details["config"]


def shell(instance, script, *options, image="built:1"):
    return instance.cloche("run", "--rm", "--entrypoint", "/bin/sh", *options, image, "-c", script).out


@test
def every_instruction_does_what_it_says(instance, images, scratch):
    base(instance, images)
    result = build(instance, scratch, """
# syntax=docker/dockerfile:1
ARG IMAGE=small
FROM $IMAGE:1 AS first
ARG WHO=world
ENV GREETING="hello $WHO" OTHER=a
MAINTAINER somebody
LABEL one=1 two="t w o"
WORKDIR /work
WORKDIR deeper
RUN echo "$GREETING" > greeting && \\
    # not a line of its own

    pwd >> greeting
RUN ["/bin/sh", "-c", "echo exec >> greeting"]
RUN <<EOF
echo heredoc $WHO >> greeting
EOF
RUN <<SCRIPT
#!/bin/cat
a script of its own
SCRIPT
COPY <<X /copied
it is $GREETING
X
SHELL ["/bin/sh", "-ec"]
USER shop
RUN id -un > /tmp/who
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s CMD true
ENTRYPOINT ["/bin/cat"]
CMD ["greeting"]
""", "--build-arg", "WHO=you", "--label", "three=3")
    assert "Step 2/23 : FROM $IMAGE:1 AS first\n" in result.out, result.out
    assert "a script of its own" in result.out, result.out
    assert result.lines[-1] == "Successfully tagged built:1", result.out
    assert instance.cloche("run", "--rm", "built:1").out == \
        "hello you\n/work/deeper\nexec\nheredoc you\n"
    assert shell(instance, "cat /copied /tmp/who") == "it is hello you\nshop\n"
    whole = config_of(instance)
    config = whole["config"]
    assert whole["author"] == "somebody", whole
    assert config["Labels"] == {"one": "1", "two": "t w o", "three": "3"}, config
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"} and set(config["Volumes"]) == {"/data"}
    assert (config["User"], config["StopSignal"], config["WorkingDir"]) == ("shop", "SIGINT", "/work/deeper")
    assert config["Shell"] == ["/bin/sh", "-ec"] and config["Healthcheck"]["Interval"] == 30 * 10**9
    created = [entry["created_by"] for entry in whole["history"] if "created_by" in entry]
    assert "/bin/sh -c #(nop)  LABEL one=1 two=t w o" in created, created
    assert any(text.startswith('|1 WHO=you /bin/sh -c echo "$GREETING"') for text in created), created


@test
def copies_follow_dockers_rules(instance, images, scratch):
    base(instance, images)
    write(scratch, {"one": "1\n", "two": "2\n", "tree/a": "a\n", "tree/deep/b": "b\n", "skip/not": "x",
                    "skip/but": "y\n", ".dockerignore": "skip/*\n!skip/but\n*.log\n", "x.log": "l"})
    os.chmod(scratch / "one", 0o640)
    os.symlink("one", scratch / "link")
    build(instance, scratch, """FROM small:1
RUN mkdir -p /to/existing /real && ln -s /real /to/aside && touch /real/was && ln -s ../one /to/filelink
COPY one /to/renamed
COPY one two /to/several/
COPY tree /to/tree
COPY tree /to/existing
COPY t*o link /to/aside/
COPY --chown=shop:staff --chmod=700 one /to/owned
COPY --chown=7 tree /to/seven
COPY . /to/all
WORKDIR /to/relative
COPY one ./
COPY one name
""")
    out = shell(instance, "cd /to; cat renamed several/two tree/deep/b existing/a; ls /real all all/skip;"
                "stat -c '%a %U %G' owned renamed; stat -c %u:%g seven/deep/b seven; cat /real/link;"
                "ls relative; stat -c %F all/link")
    assert out.splitlines() == [
        "1", "2", "b", "a", "/real:", "link", "two", "was", "", "all:", "Dockerfile", "link", "one",
        "skip", "tree", "two", "", "all/skip:", "but", "700 shop staff", "640 root root", "7:7", "7:7",
        "1", "name", "one", "symbolic link"], out
    for line, message in (
            ("COPY nothing /x", "file not found in build context"),
            ("COPY ../one /x", "forbidden path outside the build context"),
            ("COPY n* /x", "no source files were specified"),
            ("COPY * /x", "must be a directory and end with a /"),
            ("COPY --chown=nobodyhere one /x", "no such user: nobodyhere"),
            ("COPY tree /bin/busybox", "cannot copy to non-directory")):
        result = build(instance, scratch, f"FROM small:1\n{line}\n", code=1)
        assert message in result.err, (line, result.err)


@test
def archives_are_unpacked_by_add(instance, images, scratch):
    base(instance, images)
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar.bz2", "w:bz2")):
        with tarfile.open(scratch / name, mode) as tar:
            entry = tarfile.TarInfo(f"in/{name}")
            entry.size, entry.uid, entry.mode = 4, 1000, 0o751
            tar.addfile(entry, io.BytesIO(b"tar\n"))
    build(instance, scratch, """FROM small:1
ADD a.tar a.tar.gz a.tar.xz a.tar.bz2 /added/
COPY a.tar /copied/
ADD Dockerfile /added/
""")
    assert shell(instance, "ls /added/in /copied; stat -c '%a %u' /added/in/a.tar; ls /added").split() == [
        "/added/in:", "a.tar", "a.tar.bz2", "a.tar.gz", "a.tar.xz", "/copied:", "a.tar", "751", "1000",
        "Dockerfile", "in"]


@test
def an_archive_of_add_that_is_a_bomb_is_refused(instance, images, scratch):
    base(instance, images)
    header = tarfile.TarInfo("zeros")
    header.size = 3 << 30
    zeros = bytes(16 << 20)
    # What is packed in several pieces is unpacked as one.
    (scratch / "a.tar.bz2").write_bytes(bz2.compress(header.tobuf()) + 70 * bz2.compress(zeros))
    result = build(instance, scratch, "FROM small:1\nADD a.tar.bz2 /\n", code=1)
    assert "EXPANSION_MAX" in result.err + result.out, result


@test
def stages_and_targets(instance, images, scratch):
    base(instance, images)
    text = """FROM small:1 AS made
RUN mkdir /out && echo result > /out/file && chown 5:6 /out/file
FROM scratch AS bare
COPY --from=made /bin/busybox /bin/cat
COPY --from=0 /out /
CMD ["/bin/cat", "/file"]
FROM bare AS last
LABEL last=1
"""
    build(instance, scratch, text)
    assert instance.cloche("run", "--rm", "built:1").out == "result\n"
    build(instance, scratch, text, "--no-cache")
    assert instance.cloche("run", "--rm", "built:1").out == "result\n", "from nothing for a second time"
    build(instance, scratch, text, "--target", "made")
    assert shell(instance, "stat -c %u:%g /out/file") == "5:6\n"
    assert "failed to reach build target nowhere" in \
        build(instance, scratch, text, "--target", "nowhere", code=1).err
    assert "ONE stage name already used" in build(instance, scratch, "FROM small:1 AS one\nFROM small:1 AS ONE\n", code=1).err
    onbuild = ("FROM small:1\nONBUILD COPY Dockerfile /triggered\nONBUILD RUN <<-'E' cat >> /triggered\n\tran\n\tE\n"
               "ONBUILD COPY <<A <<B /many/\na $B\nA\nb\nB\n")
    build(instance, scratch, onbuild)
    instance.cloche("tag", "built:1", "trigger:1")
    result = build(instance, scratch, "FROM trigger:1\n")
    assert "# Executing 3 build triggers\n" in result.out
    assert shell(instance, "cat /triggered /many/A /many/B") == "FROM trigger:1\nran\na \nb\n"
    assert not config_of(instance)["config"].get("OnBuild")


@test
def what_has_not_changed_is_found_again(instance, images, scratch):
    base(instance, images)
    text = "FROM small:1\nCOPY data /data\nRUN date +%N > /when\nENV A=1\n"
    first = build(instance, scratch, text, "-q", files={"data": "one"}).out
    assert build(instance, scratch, text, "-q", files={"data": "one"}).out == first, "the same content"
    os.utime(scratch / "data", (1, 1))
    instance.kill_daemon()
    again = build(instance, scratch, text)
    assert again.out.count("Using cache") == 3, again.out
    changed = build(instance, scratch, text, files={"data": "two"})
    assert "Using cache" not in changed.out, changed.out
    assert build(instance, scratch, text, "-q", files={"data": "one"}).out == first, "and back"
    assert build(instance, scratch, text, "-q", "--no-cache").out != first
    assert "Using cache" not in build(instance, scratch, text + "ARG B\nRUN echo $B\n", "--build-arg",
                                      "B=1", "--no-cache").out
    other = build(instance, scratch, text + "ARG B\nRUN echo $B\n", "--build-arg", "B=2")
    assert other.out.count("Using cache") == 4, other.out


@test
def words_that_only_look_the_same_are_other_steps(instance, images, scratch):
    """The history joins the words of RUN with blanks; the cache must not."""
    base(instance, images)
    one = 'FROM small:1\nWORKDIR /w\nRUN ["sh", "-c", "touch a b"]\n'
    two = 'FROM small:1\nWORKDIR /w\nRUN ["sh", "-c", "touch a", "b"]\n'
    for text, names in ((one, "a\nb\n"), (two, "a\n")):
        identity = build(instance, scratch, text, "-q").out.strip()
        assert instance.cloche("run", "--rm", identity, "ls").out == names, text


@test
def prune_removes_what_no_image_needs(instance, images, scratch):
    base(instance, images)
    build(instance, scratch, "FROM small:1\nRUN echo one > /one\nRUN echo two > /two\n")
    count = len(instance.cloche("images", "-aq").lines)
    assert len(instance.cloche("images", "-q").lines) == count - 1, "steps are not shown"
    instance.cloche("system", "check")
    assert "Total reclaimed space: 0B" in instance.cloche("builder", "prune", "-f").out
    build(instance, scratch, "FROM small:1\nRUN echo one > /one\nRUN echo three > /two\n")
    out = instance.cloche("builder", "prune", "-f").out
    assert out.count("sha256:") == 1, out
    assert "Using cache" in build(instance, scratch, "FROM small:1\nRUN echo one > /one\n").out
    instance.cloche("builder", "prune", "-af")
    assert "Using cache" not in build(instance, scratch, "FROM small:1\nRUN echo one > /one\n").out
    instance.cloche("rmi", "built:1")
    instance.cloche("builder", "prune", "-af")
    assert len(instance.cloche("images", "-aq").lines) == 2, instance.cloche("images", "-a").out
    instance.cloche("system", "check")


@test
def independent_stages_run_at_the_same_time(instance, images, scratch):
    base(instance, images)
    # Each waits until the other has begun, which it hears of through the network of the machine.
    meet = ("nc -l -p {} </dev/null >/dev/null & n=0; until nc -w 1 127.0.0.1 {} </dev/null >/dev/null 2>&1; "
            "do n=$((n+1)); [ $n -lt 200 ] || exit 1; sleep 0.2; done; wait; ")
    text = ("FROM small:1 AS a\nRUN " + meet.format(7001, 7002) + "sleep 1; echo a\n"
            "FROM small:1 AS b\nRUN " + meet.format(7002, 7001) + "echo b\n"
            "FROM small:1\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n")
    out = build(instance, scratch, text, "--network", "host").out
    assert out.index("\na\n") < out.index("Step 3/7 : FROM small:1 AS b") < out.index("\nb\n"), out


@test
def contexts_from_elsewhere(instance, images, scratch):
    base(instance, images)
    text = "FROM small:1\nCOPY data /data\n"
    write(scratch, {"context/data": "data\n", "elsewhere": text, "context/named/File": text})
    instance.cloche("build", "-t", "built:1", "-f", scratch / "elsewhere", scratch / "context")
    assert shell(instance, "cat /data; ls / | grep docker; true") == "data\n"
    instance.cloche("build", "-t", "built:2", "-t", "built:3", "-f", "-", scratch / "context", input=text)
    assert shell(instance, "cat /data", image="built:3") == "data\n"
    instance.cloche("build", "-t", "built:4", "-f", scratch / "context/named/File", scratch / "context")
    instance.cloche("build", "-t", "built:5", "-", input="FROM small:1\nENV ALONE=1\n")
    assert shell(instance, "echo $ALONE", image="built:5") == "1\n"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        for name, content in (("Dockerfile", text), ("data", "from a tar\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    instance.cloche("build", "-t", "built:6", "--iidfile", scratch / "iid", "-", input=tar.getvalue())
    assert shell(instance, "cat /data", image="built:6") == "from a tar\n"
    assert (scratch / "iid").read_text().startswith("sha256:")
    assert "not found" in instance.cloche("build", scratch / "nowhere", code=1).err
    (scratch / "empty").mkdir()
    assert "Cannot locate specified Dockerfile: Dockerfile" in \
        instance.cloche("build", scratch / "empty", code=1).err


@test
def failures_say_what_failed(instance, images, scratch):
    base(instance, images)
    result = build(instance, scratch, "FROM small:1\nRUN echo before; exit 7\nRUN never\n", "--force-rm", code=7)
    assert result.err == "The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7\n"
    assert "before\n" in result.out and "never" not in result.out
    assert not instance.cloche("ps", "-aq").out
    for text, message in (("FROM small:1\nNOPE\n", "dockerfile parse error line 2: unknown instruction: NOPE"),
                          ("FROM nothere:1\n", "nothere:1"), ("FROM scratch\n", "No image was generated"),
                          ("", "cannot be empty"), ("FROM small:1\nRUN nosuchprogram\n", "127")):
        assert message in build(instance, scratch, text, "--force-rm", code=None).err, text
    assert "invalid reference format" in instance.cloche("build", "-t", "UP per", scratch, code=1).err


@test
def hostile_contexts_stay_in_their_jail(instance, images, scratch):
    base(instance, images)
    (scratch / "secret").write_text("secret\n")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        def add(name, content=None, link=None):
            entry = tarfile.TarInfo(name)
            if link:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO((content or "").encode()))
        add("up", link="../../../../../../../../../.." + str(scratch / "secret"))
        add("root", link="/")
        add("Dockerfile", "FROM small:1\nRUN ln -s /etc /etc2 && ln -s /../../../../ /out\n"
            "COPY Dockerfile /out/inside\nCOPY Dockerfile /etc2/there\nCOPY root/Dockerfile /linked\n")
    instance.cloche("build", "-t", "built:1", "-", input=tar.getvalue())
    assert shell(instance, "ls /inside /etc/there /linked").split() == ["/etc/there", "/inside", "/linked"]
    assert not os.path.exists("/inside")
    build(instance, scratch, "FROM small:1\nCOPY up /x\n", code=1)
    result = instance.cloche("build", "-", input=b"ustar" * 4000, code=1)
    assert result.err, result


@test
def a_build_ends_with_its_client(instance, images, scratch):
    base(instance, images)
    write(scratch, {"Dockerfile": "FROM small:1\nRUN echo begun; sleep 1000\n"})
    client = subprocess.Popen([PROGRAMS / "cloche", "--instance", instance.name, "build", scratch],
                              stdout=subprocess.PIPE, text=True)
    while client.stdout.readline() != "begun\n":
        assert client.poll() is None
    assert len(instance.cloche("ps", "-q").lines) == 1
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()
    wait_for(lambda: not instance.cloche("ps", "-aq").out)


if __name__ == "__main__":
    main()
