#!/usr/bin/env python3
"""docker-compose with a project of three services: volume, network, health, order, ports, environment."""

import shutil
import sys

from harness import Skip, http_get, main, run, test, wait_for

PROJECT = """
version: "2.4"
services:
  db:
    image: small:1
    env_file: db.env
    # The first time it takes long, so that who does not wait for its health comes too early.
    command: >-
      sh -c "echo store of $$OWNER; test -s /data/owner || { sleep 2; echo $$OWNER > /data/owner; };
      exec httpd -f -p 80 -h /data"
    volumes: ["data:/data"]
    networks: {back: {aliases: [store]}}
    healthcheck: {test: ["CMD", "test", "-s", "/data/owner"], interval: 200ms, timeout: 5s, retries: 100}
    stop_grace_period: 0s
  app:
    image: small:1
    # Before db is healthy there is nothing to fetch, and this ends at once.
    command: sh -c "mkdir /www; wget -q -O /www/index.html http://store/owner && exec httpd -f -p 80 -h /www"
    depends_on: {db: {condition: service_healthy}}
    networks: [back]
    stop_grace_period: 0s
  web:
    image: small:1
    environment: [GREETING=hello]
    command: sh -c "mkdir /www; echo $$GREETING > /www/index.html; exec httpd -f -p 80 -h /www"
    depends_on: [app]
    networks: [back]
    ports: ["8081:80"]
    stop_grace_period: 0s
networks:
  back: {}
volumes:
  data: {}
"""


class Compose:
    """docker-compose with the project on the instance's docker.sock."""

    def __init__(self, instance, images, scratch):
        if not shutil.which("docker-compose"):
            raise Skip("docker-compose is not installed")
        self.instance = instance
        self.folder = scratch / "shop"
        self.folder.mkdir()
        (self.folder / "docker-compose.yml").write_text(PROJECT)
        (self.folder / "db.env").write_text("OWNER=grocer\n")
        instance.cloche("load", "-q", "-i", images.small())

    def __call__(self, *args, **options):
        return run("docker-compose", "--no-ansi", *args, cwd=self.folder,
                   env={"DOCKER_HOST": f"unix://{self.instance.run_folder}/docker.sock"}, **options)

    def containers(self):
        """Name -> (identifier, status)."""
        rows = self.instance.cloche("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.Status}}").lines
        return {name: (identifier, status) for name, identifier, status in (row.split(" ", 2) for row in rows)}


def identifiers(containers):
    return {name: identifier for name, (identifier, _) in containers.items()}


@test
def a_project_of_three_services(instance, images, scratch):
    compose = Compose(instance, images, scratch)
    compose("up", "-d")
    first = compose.containers()
    assert sorted(first) == ["shop_app_1", "shop_db_1", "shop_web_1"], first
    assert first["shop_db_1"][1].endswith("(healthy)"), first
    assert http_get("127.0.0.1", 8081) == "hello\n"
    assert instance.cloche("volume", "ls", "-q").out == "shop_data\n"
    assert "shop_back" in instance.cloche("network", "ls", "--format", "{{.Name}}").lines
    again = compose("up", "-d")
    assert again.err.count("is up-to-date") == 3, again
    assert identifiers(compose.containers()) == identifiers(first)
    listed = compose("ps").out
    assert "shop_web_1" in listed and "0.0.0.0:8081->80/tcp" in listed and "Up (healthy)" in listed, listed
    assert "store of grocer" in compose("logs", "db").out
    assert compose("exec", "-T", "app", "cat", "/www/index.html").out == "grocer\n"

    compose("up", "-d", "--scale", "app=2")
    scaled = compose.containers()
    assert sorted(scaled) == ["shop_app_1", "shop_app_2", "shop_db_1", "shop_web_1"], scaled
    assert identifiers(first).items() <= identifiers(scaled).items()
    compose("restart", "web")
    assert http_get("127.0.0.1", 8081) == "hello\n"
    compose("stop")
    stopped = compose.containers()
    assert len(stopped) == 4 and all(row[1].startswith("Exited") for row in stopped.values()), stopped
    compose("start")
    assert identifiers(compose.containers()) == identifiers(scaled)
    wait_for(lambda: compose.containers()["shop_db_1"][1].endswith("(healthy)"), what="db is healthy again")
    assert http_get("127.0.0.1", 8081) == "hello\n"

    compose("down", "-v")
    assert compose.containers() == {}
    assert instance.cloche("volume", "ls", "-q").out == ""
    assert instance.cloche("network", "ls", "-q", "--filter", "type=custom").out == ""


if __name__ == "__main__":
    sys.exit(main())
