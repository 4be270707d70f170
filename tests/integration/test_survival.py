"""The daemon is killed, as a user or a supervisor does it: commands follow at once, images are being
changed, ports are in use."""

import os
import signal
import subprocess
import time

from harness import http_get, main, test, wait_for


def load(instance, images):
    instance.cloche("load", "-i", images.docker_archive())
    return "small:1"


@test
def a_command_right_after_the_kill_is_answered(instance, images):
    image = load(instance, images)
    for number in range(15):
        os.kill(instance.start_daemon(), signal.SIGKILL)
        # No wait: the dying daemon may still take the connection.
        assert len(instance.cloche("ps", "-aq").lines) == number
        os.kill(instance.start_daemon(), signal.SIGKILL)
        instance.cloche("run", "-d", "--name", f"c{number}", image, "sleep", "1000")


@test
def published_ports_work_while_no_daemon_lives(instance, images):
    image = load(instance, images)
    instance.cloche("run", "-d", "--name", "web", "-p", "9000:80", image, "sh", "-c",
                    "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    assert http_get("127.0.0.1", 9000) == "page\n"
    instance.kill_daemon()
    assert http_get("127.0.0.1", 9000) == "page\n"
    instance.cloche("ps")
    assert http_get("127.0.0.1", 9000) == "page\n"
    instance.cloche("rm", "-f", "web")
    try:
        http_get("127.0.0.1", 9000, retry_for=0)
        raise AssertionError("the port is still published")
    except OSError:
        pass


@test
def a_killed_container_can_be_removed_at_once(instance, images):
    image = load(instance, images)
    for number in range(10):
        instance.cloche("run", "-d", "--name", "web", image, "sleep", "1000")
        instance.cloche("kill", "web")
        instance.cloche("rm", "web")


def next_daemon_is_tidy(instance):
    instance.kill_daemon()
    instance.start_daemon()
    return not list((instance.root / "staging").iterdir())


@test
def the_daemon_may_die_while_images_change(instance, images):
    image = load(instance, images)
    instance.cloche("run", "--name", "work", image, "sh", "-c",
                    "dd if=/dev/urandom of=/big bs=1M count=8 2>/dev/null")
    for number, delay in enumerate((0.0, 0.02, 0.05, 0.1, 0.2)):
        for words in (("load", "-i", images.small("other:1")), ("commit", "work", f"new:{number}")):
            daemon = instance.start_daemon()
            client = instance.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            os.kill(daemon, signal.SIGKILL)
            client.wait(60)
            instance.start_daemon()
            # A worker that dies with its daemon may still write while the next ones tidy up.
            wait_for(lambda: next_daemon_is_tidy(instance), what="what was begun is removed")
            for name in instance.cloche("images", "--format", "{{.Repository}}:{{.Tag}}").lines:
                if not name.startswith("host"):
                    assert instance.cloche("run", "--rm", name, "echo", "ok").out == "ok\n", name


if __name__ == "__main__":
    main()
