"""What everyday use needs of an ordinary user's engine: builds, copies, archives, health, docker's own clients."""

import io
import json
import os
import pathlib
import signal
import tarfile

from harness import main, wait_for
from user_engine import user_processes, with_engine

DOCKERFILE = """\
FROM small:1 AS first
RUN echo made > /made && id -u > /who
RUN adduser -D -H -u 1000 app 2>/dev/null || echo app:x:1000:1000::/:/bin/sh >> /etc/passwd
FROM small:1
COPY --from=first /made /who /from-first/
COPY --chown=1000:1000 mine.txt /mine.txt
ADD packed.tar /unpacked/
RUN mkdir /gone /data && echo lower > /data/seed && chown -R 33:33 /data
RUN rm -r /gone && ln -s /made /link
VOLUME /data
USER 1000
RUN id -u > /tmp/user
USER 0
WORKDIR /work
CMD ["cat", "/from-first/made"]
"""


def write_context(engine):
    context = engine.user.home / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "mine.txt").write_text("mine\n")
    with tarfile.open(context / "packed.tar", "w") as archive:
        entry = tarfile.TarInfo("folder/file")
        entry.size, entry.uid, entry.gid, entry.mode = 7, 7, 8, 0o640
        archive.addfile(entry, io.BytesIO(b"packed\n"))
    return engine.user.own(context)


@with_engine
def an_ordinary_user_builds(engine):
    engine.cloche("build", "-t", "built", write_context(engine))
    assert engine.cloche("run", "--rm", "built").out == "made\n"
    look = lambda *words: engine.cloche("run", "--rm", "built", *words).out
    assert look("cat", "/from-first/who") == "0\n" and look("cat", "/tmp/user") == "1000\n"
    assert look("stat", "-c", "%u:%g", "/mine.txt") == "1000:1000\n"
    assert look("stat", "-c", "%u:%g %a", "/unpacked/folder/file") == "7:8 640\n"
    assert look("sh", "-c", "ls -d /gone 2>&1; pwd; readlink /link").splitlines()[1:] == ["/work", "/made"]
    # A new volume is filled with what the image has there.
    engine.cloche("run", "--rm", "-v", "filled:/data", "built", "true")
    assert engine.cloche("run", "--rm", "-v", "filled:/data", "small:1", "sh", "-c",
                         "cat /data/seed; stat -c %u /data/seed").out == "lower\n33\n"
    again = engine.cloche("build", "-t", "again", engine.user.home / "context")
    assert "ache" in again.out + again.err, again


@with_engine
def an_ordinary_user_commits_copies_and_saves(engine):
    engine.cloche("run", "-d", "--name", "web", "small:1", "sh", "-c", "mkdir /w; chown 5:6 /w; rm /etc/profile; echo hi; exec sleep 1000")
    wait_for(lambda: engine.cloche("logs", "web").out == "hi\n")
    note = engine.user.home / "note"
    note.write_text("note\n")
    engine.user.own(note)
    engine.cloche("cp", note, "web:/w/note")
    assert engine.cloche("exec", "web", "cat", "/w/note").out == "note\n"
    engine.cloche("cp", "web:/w", engine.user.home / "back")
    assert (engine.user.home / "back/note").read_text() == "note\n"
    assert (engine.user.home / "back/note").stat().st_uid == engine.user.uid
    assert "A /w" in engine.cloche("diff", "web").lines
    engine.cloche("commit", "-m", "said", "web", "changed:1")
    engine.cloche("save", "-o", engine.user.home / "changed.tar", "changed:1")
    engine.cloche("rmi", "changed:1")
    engine.cloche("load", "-i", engine.user.home / "changed.tar")
    assert engine.cloche("run", "--rm", "changed:1", "stat", "-c", "%u:%g", "/w").out == "5:6\n"
    engine.cloche("export", "-o", engine.user.home / "root.tar", "web")
    with tarfile.open(engine.user.home / "root.tar") as archive:
        assert (archive.getmember("w").uid, archive.getmember("w").gid) == (5, 6)
    engine.cloche("import", engine.user.home / "root.tar", "flat:1")
    assert engine.cloche("run", "--rm", "flat:1", "cat", "/w/note").out == "note\n"


@with_engine
def containers_of_an_ordinary_user_are_kept_healthy(engine):
    engine.cloche("run", "-d", "--name", "sick", "--health-cmd", "test -e /tmp/well", "--health-interval", "200ms",
                  "--health-retries", "1", "small:1", "sleep", "1000")
    health = lambda: engine.inspect("sick")["State"]["Health"]["Status"]
    wait_for(lambda: health() == "unhealthy")
    engine.cloche("exec", "sick", "touch", "/tmp/well")
    wait_for(lambda: health() == "healthy")
    engine.cloche("run", "-d", "--name", "again", "--restart", "on-failure:2", "small:1", "sh", "-c", "exit 3")
    wait_for(lambda: engine.inspect("again")["State"]["Status"] == "exited")
    state = engine.inspect("again")
    assert (state["RestartCount"], state["State"]["ExitCode"]) == (2, 3), state
    assert engine.cloche("wait", "again").out == "3\n"


@with_engine
def a_terminal_and_streams_of_an_ordinary_user(engine):
    assert engine.cloche("run", "--rm", "-i", "small:1", "cat", input="through\n").out == "through\n"
    assert engine.cloche("run", "--rm", "-t", "small:1", "tty").out.startswith("/dev/")
    engine.cloche("run", "-d", "--name", "web", "--init", "--read-only", "--tmpfs", "/tmp", "-e", "A=b", "-w", "/tmp",
                  "-h", "box", "--cap-drop", "ALL", "--ulimit", "nofile=100", "--dns", "192.0.2.1", "small:1", "sleep", "1000")
    assert engine.cloche("exec", "web", "sh", "-c", "echo $A; pwd; hostname; ulimit -n").out == "b\n/tmp\nbox\n100\n"
    assert "192.0.2.1" in engine.cloche("exec", "web", "cat", "/etc/resolv.conf").out
    assert engine.cloche("exec", "-u", "7", "web", "id", "-u").out == "7\n"
    engine.cloche("kill", "-s", "KILL", "web")
    wait_for(lambda: engine.inspect("web")["State"]["ExitCode"] == 137)


@with_engine
def processes_of_an_ordinary_user_are_seen_without_cgroups(engine):
    engine.cloche("run", "-d", "--name", "web", "small:1", "sh", "-c", "sleep 1001 & exec sleep 1000")
    shown = lambda name, *words: engine.cloche("top", name, *words).out
    wait_for(lambda: "sleep 1001" in shown("web"), what="its processes are shown")
    assert "sleep 1000" in shown("web") and "cloched" not in shown("web"), shown("web")
    assert "sleep 1001" in shown("web", "-o", "pid,args")
    # So are those of one that has the machine's process numbers: no others of them.
    engine.cloche("run", "-d", "--name", "host", "--pid", "host", "small:1", "sleep", "1002")
    rows = shown("host").splitlines()
    assert len(rows) == 2 and "sleep 1002" in rows[1], rows
    engine.cloche("run", "-d", "--name", "busy", "small:1", "sh", "-c", "while :; do :; done")
    statistics = lambda name: json.loads(engine.cloche("stats", "--no-stream", "--format", "json", name).lines[0])
    wait_for(lambda: float(statistics("busy")["CPUPerc"].rstrip("%")) > 1, what="it is seen to work")
    assert statistics("web")["PIDs"] == "2", statistics("web")
    assert not statistics("web")["MemUsage"].startswith("0B"), statistics("web")


@with_engine
def nothing_of_an_ordinary_user_is_left_without_cgroups(engine):
    engine.cloche("run", "-d", "--name", "web", "small:1", "sh", "-c", "sleep 1001 & exec sleep 1000")
    engine.cloche("exec", "-d", "web", "setsid", "sleep", "1002")
    state = engine.inspect("web")["State"]
    monitor = int(pathlib.Path(f"/proc/{state['Pid']}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: engine.inspect("web")["State"]["Status"] == "exited", what="its end is known")
    wait_for(lambda: "sleep" not in user_processes(engine.user), what="its processes end")
    engine.cloche("start", "web")
    engine.cloche("stop", "-t", "0", "web")
    wait_for(lambda: "sleep" not in user_processes(engine.user), what="its processes end")
    for command in (("pause", "web"), ("update", "--memory", "64m", "web")):
        engine.cloche("start", "web")
        err = engine.cloche(*command, code=1).err
        assert "need cgroups, which this engine of an ordinary user does not have" in err, err


if __name__ == "__main__":
    main()
