"""Docker's own clients at the socket of an ordinary user's engine."""

import shutil

from harness import Skip, http_get, main, only, run, wait_for
from test_compose import PROJECT
from user_engine import with_engine


def client(engine, program):
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")

    def call(*words, **options):
        return run("setpriv", "--reuid", engine.user.uid, "--regid", engine.user.uid, "--clear-groups", "env", "-i",
                   *(f"{name}={value}" for name, value in engine.env.items()),
                   f"DOCKER_HOST=unix://{engine.run_folder}/docker.sock", program, *words, **options)
    return call


@with_engine
def docker_at_the_engine_of_an_ordinary_user(engine):
    docker = client(engine, "docker")
    assert docker("run", "--rm", "small:1", "sh", "-c", "echo out; exit 3", code=3).out == "out\n"
    docker("run", "-d", "--name", "web", "-p", "9000:80", "-v", "data:/www", "small:1", "sh", "-c",
           "echo web > /www/index.html; exec httpd -f -p 80 -h /www")
    assert http_get("127.0.0.1", 9000) == "web\n"
    assert "0.0.0.0:9000->80/tcp" in docker("ps").out
    assert docker("exec", "-i", "web", "cat", input="through\n").out == "through\n"
    assert "httpd" in docker("top", "web").out
    assert "web" in docker("stats", "--no-stream").out
    context = engine.user.home / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM small:1\nCOPY file /file\nRUN chown 7:8 /file\nCMD stat -c %u:%g /file\n")
    (context / "file").write_text("x\n")
    engine.user.own(context)
    docker("build", "-t", "built", context)
    assert docker("run", "--rm", "built").out == "7:8\n"
    docker("cp", context / "file", "web:/copied")
    assert docker("diff", "web").lines.count("A /copied") == 1
    docker("commit", "web", "kept")
    assert "kept" in docker("images").out
    info = docker("info").out
    assert "rootless" in info, info
    docker("stop", "-t", "0", "web")
    docker("rm", "web")


@with_engine
def a_project_at_the_engine_of_an_ordinary_user(engine):
    folder = engine.user.home / "shop"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(PROJECT)
    (folder / "db.env").write_text("OWNER=grocer\n")
    engine.user.own(folder)
    compose = client(engine, "docker-compose")
    compose("--no-ansi", "up", "-d", cwd=folder)
    assert http_get("127.0.0.1", 8081) == "hello\n"
    wait_for(lambda: engine.cloche("exec", "shop_web_1", "wget", "-q", "-O", "-", "http://app/", code=None).out == "grocer\n",
             what="they find each other")
    compose("--no-ansi", "down", "-v", cwd=folder)
    assert engine.cloche("ps", "-aq").out == "" and engine.cloche("volume", "ls", "-q").out == ""


if __name__ == "__main__":
    only(docker_at_the_engine_of_an_ordinary_user, a_project_at_the_engine_of_an_ordinary_user)
    main()
