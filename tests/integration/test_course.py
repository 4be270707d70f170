#!/usr/bin/env python3
"""The command lines of a docker course, as they are typed: with the stock docker command line, and with ours.

LINES is the course: what a shell is given (`docker` is whichever command line is tested), and a regular
expression that must be found in what is printed (both streams); NOTHING: nothing may be printed. A number
before the line is the exit code that must come. {registry}, {folder}: where the test has them."""

import os
import re
import shutil
import sys

from harness import Skip, main, program, run, test
from registries import Registry

NOTHING = r"\A\Z"
ID = r"\A[0-9a-f]{{64}}\n\Z"

LINES = [
    # ---- the engine, and images from a registry
    (r"docker version", r"^Server:"),
    (r"docker info", r"^ *Containers: 0$"),
    (r"docker login -u shop -p till {registry}", r"^Login Succeeded$"),
    (r"docker search {registry}/lib", r"^(\S*/)?lib/small\b"),
    (r"docker pull {registry}/lib/small:1", r"^Status: Downloaded newer image for {registry}/lib/small:1$"),
    (r"docker tag {registry}/lib/small:1 small:1", NOTHING),
    (r"docker images", r"^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE\n(.*\n)*small +1 +[0-9a-f]{{12}} "),
    (r"docker images -q small", r"\A[0-9a-f]{{12}}\n\Z"),
    (r"docker history small:1", r"^IMAGE +CREATED +CREATED BY +SIZE +COMMENT\n"),
    (r"docker inspect -f '{{{{.Config.Cmd}}}}' small:1", r"^\[/bin/sh\]$"),

    # ---- run
    (r"docker run --rm small:1 echo hello", r"\Ahello\n\Z"),
    (3, r"docker run --rm small:1 sh -c 'exit 3'", NOTHING),
    (127, r"docker run --rm small:1 nosuch", r"executable file not found"),
    (125, r"docker run --rm --pull never no-such:1 true", r"No such image: no-such:1"),
    (r"echo through | docker run --rm -i small:1 cat", r"\Athrough\n\Z"),
    (r"docker run --rm -e A=b -w /tmp -u shop -h box small:1 sh -c 'echo $A $PWD $(id -un) $(hostname)'",
     r"\Ab /tmp shop box\n\Z"),
    (r"docker run --name talk small:1 sh -c 'echo one; echo two >&2'", r"^one$"),
    (r"docker run -d --name web -p 8080:80 -v site:/www small:1 httpd -f -p 80 -h /www", ID),
    (r"docker exec web sh -c 'echo hello > /www/index.html'", NOTHING),
    (r"curl -sS --retry 9 --retry-connrefused http://127.0.0.1:8080/", r"\Ahello\n\Z"),

    # ---- looking at containers
    (r"docker ps", r"^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES\n"
                   r'[0-9a-f]{{12}} +small:1 +"httpd -f -p 80 -h .*" +.* ago +Up .*0\.0\.0\.0:8080->80/tcp.* web$'),
    (r"docker ps -a --format '{{{{.Names}}}}: {{{{.Status}}}}'", r"^talk: Exited \(0\) "),
    (r"docker ps -aq --no-trunc --filter name=talk", ID),
    (r"docker logs talk", r"\Aone\ntwo\n\Z"),
    (r"docker logs --tail 1 talk 2>&1", r"\Atwo\n\Z"),
    (r"docker logs -t talk", r"^20\S+Z one$"),
    (r"docker port web", r"^80/tcp -> 0\.0\.0\.0:8080$"),
    (r"docker top web", r"httpd -f -p 80 -h /www$"),
    (r"docker stats --no-stream web", r"^CONTAINER ID +NAME +CPU %.*\n[0-9a-f]{{12}} +web +[0-9.]+% .* / "),
    (r"docker inspect -f '{{{{.State.Running}}}} {{{{.Config.Image}}}}' web", r"\Atrue small:1\n\Z"),
    (r"docker inspect web", r'^ +"Status": "running",$'),
    (1, r"docker inspect nobody", r"No such object: nobody"),
    (r"docker exec web touch /new", NOTHING),
    (r"docker diff web", r"^A /new$"),
    (r"docker cp web:/www/index.html {folder}/page && cat {folder}/page", r"^hello$"),
    (r"docker cp {folder}/page web:/page && docker exec web cat /page", r"^hello$"),

    # ---- their life
    (r"docker pause web", r"\Aweb\n\Z"),
    (r"docker ps --filter status=paused --format '{{{{.Status}}}}'", r"\(Paused\)$"),
    (r"docker unpause web", r"\Aweb\n\Z"),
    (r"docker update -m 64m --memory-swap 64m web", r"\Aweb\n\Z"),
    (r"docker stop -t 0 web", r"\Aweb\n\Z"),
    (1, r"docker exec web true", r"is not running$"),
    (r"docker start web", r"\Aweb\n\Z"),
    (r"docker restart -t 0 web", r"\Aweb\n\Z"),
    (r"curl -sS --retry 9 --retry-connrefused http://127.0.0.1:8080/", r"\Ahello\n\Z"),
    (r"docker kill web", r"\Aweb\n\Z"),
    (r"docker wait web", r"\A137\n\Z"),
    (r"docker start web", r"\Aweb\n\Z"),
    (1, r"docker rm web", r"You cannot remove a running container [0-9a-f]{{64}}\. Stop the container before "),
    (r"docker rename talk said", NOTHING),
    (r"docker start -a said", r"^one$"),
    (r"docker rm said", r"\Asaid\n\Z"),
    (r"docker create --name later small:1 echo later", ID),
    (r"docker start -a later && docker rm later", r"\Alater\nlater\n\Z"),

    # ---- images of one's own
    (r"docker commit -m words -c 'CMD cat /new /page' web made:1", r"\Asha256:[0-9a-f]{{64}}\n\Z"),
    (r"docker run --rm made:1", r"\Ahello\n\Z"),
    (r"docker build -t built:1 --build-arg WORD=argument {folder}/context", r"^Successfully tagged built:1$"),
    (r"docker run --rm built:1", r"\Aargument of the context\n\Z"),
    (r"docker build -q -f {folder}/context/Other -t built:2 {folder}/context", r"\Asha256:[0-9a-f]{{64}}\n\Z"),
    (4, r"docker build -f {folder}/context/Broken {folder}/context", r"returned a non-zero code: 4"),
    (r"docker save -o {folder}/built.tar built:1 built:2", NOTHING),
    (r"docker rmi built:1 built:2", r"^Untagged: built:1$"),
    (r"docker load -i {folder}/built.tar", r"^Loaded image: built:1\nLoaded image: built:2$"),
    (r"docker save built:1 | docker load", r"^Loaded image: built:1$"),
    (r"docker tag built:1 {registry}/lib/built:1", NOTHING),
    (r"docker push {registry}/lib/built:1", r"^1: digest: sha256:[0-9a-f]{{64}} size: \d+$"),
    (r"docker rmi built:1 {registry}/lib/built:1", r"^Untagged: {registry}/lib/built:1$"),
    (r"docker run --rm {registry}/lib/built:1 cat /told", r"^argument of the context$"),
    (r"docker export web | docker import - flat:1", r"\Asha256:[0-9a-f]{{64}}\n\Z"),
    (r"docker run --rm flat:1 cat /page", r"\Ahello\n\Z"),

    # ---- networks and volumes
    (r"docker network create back", ID),
    (r"docker network ls", r"^[0-9a-f]{{12}} +back +bridge +local$"),
    (r"docker run -d --name db --network back small:1 sleep 1000", ID),
    (r"docker run --rm --network back small:1 ping -c 1 db", r"1 packets received"),
    (r"docker network connect --alias front back web", NOTHING),
    (r"docker exec db wget -q -O - http://front/", r"\Ahello\n\Z"),
    (r"docker network inspect -f '{{{{len .Containers}}}}' back", r"\A2\n\Z"),
    (r"docker network disconnect back web", NOTHING),
    (1, r"docker network rm back", r"has active endpoints"),
    (r"docker rm -f db", r"\Adb\n\Z"),
    (r"docker network rm back", r"\Aback\n\Z"),
    (r"docker volume create data", r"\Adata\n\Z"),
    (r"docker run --rm -v data:/d small:1 sh -c 'echo kept > /d/file'", NOTHING),
    (r"docker run --rm --mount type=volume,source=data,target=/d small:1 cat /d/file", r"\Akept\n\Z"),
    (r"docker run --rm -v {folder}/context:/here:ro small:1 cat /here/file", r"\Aof the context\n\Z"),
    (r"docker volume ls", r"^local +data$"),
    (r"docker volume inspect -f '{{{{.Name}}}} {{{{.Driver}}}}' data", r"\Adata local\n\Z"),
    (r"docker volume rm data", r"\Adata\n\Z"),

    # ---- cleaning up
    (r"docker system df", r"^Containers +2 +1 "),
    (r"docker rm -f web", r"\Aweb\n\Z"),
    (1, r"docker rm web", r"No such container: web"),
    (r"docker container prune -f", r"^Deleted Containers:\n[0-9a-f]{{64}}\n\nTotal reclaimed space: 0B$"),
    (r"docker volume rm site", r"\Asite\n\Z"),
    (r"docker rmi made:1", r"^Untagged: made:1\nDeleted: sha256:"),
    (r"docker image prune -af", r"^Total reclaimed space: [0-9.]+[kM]?B$"),
    (r"docker ps -aq; docker volume ls -q", NOTHING),
    (r"docker logout {registry}", r"^Removing login credentials for {registry}$"),
]

CONTEXT = {
    "Dockerfile": "FROM small:1\nARG WORD\nCOPY file /told\nRUN sed -i \"s/^/$WORD /\" /told\nCMD [\"cat\", \"/told\"]\n",
    "Other": "FROM built:1\nENV A=b\n",
    "Broken": "FROM small:1\nRUN exit 4\n",
    "file": "of the context\n",
}


def follow(command, env, images, scratch):
    """All lines, in their order; what went wrong with any of them is told at the end."""
    (scratch / "context").mkdir()
    for name, text in CONTEXT.items():
        (scratch / "context" / name).write_text(text)
    env = {**env, "CLI": command, "DOCKER_CONFIG": str(scratch / "config")}
    wrong = []
    with Registry(scratch, password="till") as registry:
        registry.fill(images.small(), "lib/small:1")
        places = {"registry": registry.name, "folder": scratch}
        for line in LINES:
            *code, line, wanted = line
            line, wanted = line.format(**places), wanted.format(**places)
            result = run("sh", "-c", 'docker() { "$CLI" "$@"; }\n' + line, env=env, code=None)
            if [result.code] != (code or [0]) or not re.search(wanted, result.out + result.err, re.M):
                wrong.append(f"{wanted!r} and {code or 0} wanted of\n{result}")
    assert not wrong, "\n".join(wrong)


@test
def the_stock_command_line_follows_the_course(instance, images, scratch):
    if not shutil.which("/usr/bin/docker"):
        raise Skip("docker.io is not installed")
    instance.start_daemon()
    follow("/usr/bin/docker", {"DOCKER_HOST": f"unix://{instance.run_folder}/docker.sock",
                               "DOCKER_BUILDKIT": "0"}, images, scratch)


@test
def our_command_line_follows_the_course(instance, images, scratch):
    follow(program("cloche"), instance.env, images, scratch)


if __name__ == "__main__":
    sys.exit(main())
