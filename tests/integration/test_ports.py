"""Published ports and the network of containers, through the command line."""

import json
import subprocess

from harness import Outside, http_get, main, test, wait_for


def serve(instance, name, port, text, *options):
    instance.cloche("run", "-d", "--name", name, "-p", port, *options, "small:1", "sh", "-c",
                    f"echo {text} > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


def address(instance, name):
    return json.loads(instance.cloche("inspect", name).out)[0]["NetworkSettings"]["IPAddress"]


def fetch_inside(instance, name, url):
    return instance.cloche("exec", name, "wget", "-q", "-O", "-", url, code=None)


@test
def a_published_port_is_reached_from_everywhere(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    with Outside() as outside:
        serve(instance, "web", "9000:80", "hello")
        serve(instance, "client", "9001:80", "client")
        assert http_get("127.0.0.1", 9000) == "hello\n"
        assert outside.http_get(9000) == "hello\n"
        assert fetch_inside(instance, "client", f"http://{outside.here}:9000/").out == "hello\n"
        assert fetch_inside(instance, "client", f"http://{address(instance, 'web')}/").out \
            == "hello\n"
        assert fetch_inside(instance, "web", f"http://{outside.here}:9000/").out == "hello\n"
        instance.cloche("stop", "-t", "0", "web")
        assert outside.run("sh", "-c", f"echo > /dev/tcp/{outside.here}/9000", code=None).code != 0
        instance.cloche("start", "web")
        assert outside.http_get(9000) == "hello\n"


@test
def ports_that_are_taken_are_refused(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "9000:80", "hello")
    result = instance.cloche("run", "-d", "--name", "second", "-p", "9000:80", "small:1", "true",
                             code=125)
    assert "9000" in result.err, result
    assert http_get("127.0.0.1", 9000) == "hello\n"
    instance.cloche("rm", "-f", "second", code=None)


@test
def a_port_is_chosen_and_shown(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    serve(instance, "web", "80", "chosen")
    ports = json.loads(instance.cloche("inspect", "web").out)[0]["NetworkSettings"]["Ports"]
    chosen = int(ports["80/tcp"][0]["HostPort"])
    assert http_get("127.0.0.1", chosen) == "chosen\n"
    assert f"{chosen}->80/tcp" in instance.cloche("ps").out


@test
def exposed_ports_are_published_at_free_ones(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    instance.cloche("run", "-d", "--name", "web", "-P", "--expose", "80", "--expose", "82-83/udp",
                    "-p", "9000:90", "small:1", "sh", "-c",
                    "echo exposed > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    ports = json.loads(instance.cloche("inspect", "web").out)[0]["NetworkSettings"]["Ports"]
    assert set(ports) == {"80/tcp", "82/udp", "83/udp", "90/tcp"}, ports
    assert [each["HostPort"] for each in ports["90/tcp"]] == ["9000"], ports
    assert http_get("127.0.0.1", int(ports["80/tcp"][0]["HostPort"])) == "exposed\n"
    instance.cloche("run", "-d", "--name", "silent", "--expose", "80", "small:1", "sleep", "1000")
    assert instance.cloche("port", "silent").out == ""


@test
def ranges_of_ports(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    for number, name in ((8000, "first"), (8001, "second")):
        serve(instance, name, "8000-8001:80", name)
        assert instance.cloche("port", name).out == f"80/tcp -> 0.0.0.0:{number}\n"
        assert http_get("127.0.0.1", number) == name + "\n"
    assert "8000 to 8001" in instance.cloche("run", "--rm", "-p", "8000-8001:80", "small:1", "true",
                                             code=125).err
    serve(instance, "each", "8010-8012:79-81", "each")
    assert http_get("127.0.0.1", 8011) == "each\n"
    assert instance.cloche("port", "each").lines == [f"{port}/tcp -> 0.0.0.0:{port + 7931}"
                                                     for port in (79, 80, 81)]
    assert "ranges" in instance.cloche("run", "--rm", "-p", "8020-8022:80-81", "small:1", "true",
                                       code=125).err.lower()


@test
def two_instances_live_side_by_side(instance, other, images):
    for each, port in ((instance, "9000:80"), (other, "9001:80")):
        each.cloche("load", "-i", images.docker_archive())
        serve(each, "web", port, each.name)
    assert http_get("127.0.0.1", 9000) == instance.name + "\n"
    assert http_get("127.0.0.1", 9001) == other.name + "\n"
    assert len(instance.cloche("ps", "-q").lines) == 1
    instance.cloche("system", "remove", "--force")
    assert http_get("127.0.0.1", 9001) == other.name + "\n"
    result = other.cloche("run", "--rm", "small:1", "ip", "route")
    assert "default via" in result.out, result


@test
def containers_find_names_and_the_outside(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    with Outside() as outside:
        server = outside_server(outside)
        try:
            out = containers_view(instance, outside)
        finally:
            server.kill()
            server.wait()
    assert out.startswith("box\n1\n"), out
    with open("/etc/hostname", encoding="utf-8") as file:
        assert out.endswith(file.read()), out


def containers_view(instance, outside):
    script = f"hostname; grep -c box /etc/hosts; wget -q -O - http://{outside.there}:8000/hostname"
    return instance.cloche("run", "--rm", "--hostname", "box", "small:1", "sh", "-c", script).out


def outside_server(outside):
    server = subprocess.Popen(["nsenter", "--net", "--target", str(outside.keeper.pid), "busybox",
                               "httpd", "-f", "-p", "8000", "-h", "/etc"])
    wait_for(lambda: outside.run("busybox", "wget", "-q", "-O", "-",
                                 "http://127.0.0.1:8000/hostname", code=None).code == 0)
    return server


if __name__ == "__main__":
    main()
