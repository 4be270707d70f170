"""The daemon beside a process of a stick that has become another one: whatever it answers, or does not, the daemon lives,
serves the others, keeps its memory and its descriptors, and lets go of it when it is asked to."""

import json
import os
import pathlib
import time

from harness import main, note, only, test, wait_for
from test_usb_untrue import DEVICE, STATUS, attached

# Each is a program's way to answer: status is what the first answer says; tell(request, say, result) is asked first.
LIES = {
    "numbers": """
STATUS["units"] = [dict(STATUS["units"][0], number=n, sectors=2**64 - 1, sectorSize=2**32 - 1) for n in (0, 0, 4294967295)]
STATUS["volumes"] = [dict(STATUS["volumes"][0], number=n, unit=4000000000, size=2**64 - 1, start=2**64 - 1) for n in (0, 1, 1)]
""",
    "many": """
STATUS["volumes"] = [dict(STATUS["volumes"][0], number=n, label="x" * 100) for n in range(4000)]
""",
    "endless": """
STATUS["volumes"] = [dict(STATUS["volumes"][0], number=n, label="x" * 1000) for n in range(4000)]
""",
    "mounts": """
STATUS["mounts"] = [dict(mount=n, volume=n, readOnly=False, kind="fat16", label="") for n in (0, 1, 1, 4294967295)]
""",
    "other result": """
def tell(request, say, result):
    if "status" in request:
        return False
    result({"status": STATUS})
    return True
""",
    "no result": """
def tell(request, say, result):
    if "status" in request:
        return False
    say(id=request["id"])
    return True
""",
    "twice": """
def tell(request, say, result):
    for _ in range(3):
        result({"status": STATUS} if "status" in request else None)
    return True
""",
    "not asked": """
def tell(request, say, result):
    for number in (0, 2**64 - 1, request["id"] + 1, request["id"] + 2):
        say(id=number, result={"status": STATUS})
    return False
""",
    "result and error": """
def tell(request, say, result):
    say(id=request["id"], result={"status": STATUS}, error={"code": -5, "message": "both"})
    return True
""",
    "codes": """
CODES = iter([0, 1, -2**31, -2**40, -4096, -512] * 100)
def tell(request, say, result):
    if "status" in request:
        return False
    say(id=request["id"], error={"code": next(CODES), "message": ""})
    return True
""",
    "events": """
def tell(request, say, result):
    if "status" in request:
        result({"status": STATUS})
        for n in (0, 1, 4294967295):
            say(event={"unmounted": {"mount": n, "volume": n, "reason": "gone"}})
            say(event={"unblocked": {"block": n, "unit": n, "reason": "gone"}})
            say(event={"progress": {"id": n, "done": 2**64 - 1, "total": 0}})
            say(event={"finding": {"id": n, "what": "x" * 10000, "repaired": True}})
            say(event={"recovered": {"volume": n, "outcome": "replayed"}})
            say(event={"gone": {}})
            say(event={"failed": {"message": "y" * 100000}})
        return True
""",
    "changed for ever": """
def tell(request, say, result):
    say(event={"changed": {"unit": 0}})
    return False
""",
    "findings": """
def tell(request, say, result):
    if "check" in request:
        for n in range(3000):
            say(event={"finding": {"id": request["id"], "what": str(n), "repaired": False}})
        result({"check": {"findings": 2**32 - 1, "left": 2**32 - 1}})
        return True
""",
    "junk": """
def tell(request, say, result):
    if "status" not in request:
        connection.sendall(b"\\xff\\x00[[[[[[[[" + b"[" * 5000 + b"\\n")
        return True
""",
    "no end of line": """
def tell(request, say, result):
    if "stats" in request:
        connection.sendall(b'{"version":1,"event":{"failed":{"message":"' + b"z" * (8 << 20))
        return True
""",
    "descriptors": """
import array
def tell(request, say, result):
    fds = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(100)])
    for _ in range(20):
        connection.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    return False
""",
    "byte by byte": """
def say(**message):
    for byte in json.dumps(dict(version=1, **message)).encode() + b"\\n":
        connection.send(bytes([byte]))
def tell(request, _, result):
    say(id=request["id"], result={"status": STATUS} if "status" in request else {})
    return True
""",
    "closes": """
def tell(request, say, result):
    if "status" not in request:
        connection.shutdown(socket.SHUT_RDWR)
        time.sleep(1000)
""",
    "dies": """
def tell(request, say, result):
    if "status" not in request:
        os._exit(0)
""",
    "version": """
def tell(request, say, result):
    if "status" not in request:
        connection.sendall(b'{"version":2,"id":%d,"result":{}}\\n' % request["id"])
        return True
""",
}
# One program for all; which of them it is, its number among those that were started says.
CHOOSE = """
LIES = {lies!r}
started = {folder!r}
number = len(os.listdir(started))
while True:
    try:
        os.close(os.open(started + "/" + str(number), os.O_CREAT | os.O_EXCL))
        break
    except FileExistsError:
        number += 1
exec(LIES[open(started + ".which").read()])
if "tell" in globals():
    answer = tell
    def tell(request, say, result):
        return "end" not in request and answer(request, say, result)
"""


def resident(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) << 10


def listen_to(instance, name, what):
    """Everything that can be asked, and the end."""
    for words in (["inspect", name], ["ls"], ["stats", name], ["check", name], ["format", "--yes", name]):
        instance.cloche("usb", *words, code=None, timeout=60)
    asks = instance.start("usb", "check", name)
    instance.cloche("usb", "eject" if len(what) % 2 else "detach", name, code=None, timeout=60)
    asks.communicate(timeout=60)


def settled(instance):
    """Its name, when it is there or has failed for the first time."""
    for line in instance.cloche("usb", "ls", "--format", "json").lines:
        shown = json.loads(line)
        if shown["State"] in ("ready", "waiting", "failed"):
            return shown["ID"]
    return None


@test
def the_daemon_outlives_whatever_a_process_says(instance, scratch):
    started = scratch / "started"
    started.mkdir()
    which = scratch / "started.which"
    more = CHOOSE.format(lies=LIES, folder=str(started))
    with attached(instance, scratch, more, dict(STATUS, device=DEVICE), attach=False) as url:
        daemon = instance.start_daemon()
        before = descriptors = None
        for what in LIES:
            which.write_text(what)
            begun = time.monotonic()
            attaches = instance.start("usb", "attach", url)
            name = wait_for(lambda: settled(instance), what=f"{what}: what comes of it")
            listen_to(instance, name, what)
            attaches.communicate(timeout=60)
            wait_for(lambda: not instance.cloche("usb", "ls", "-q").out, what=f"{what}: it is let go of")
            note(f"{what}: {time.monotonic() - begun:.1f} s")
            assert instance.daemon_pid() == daemon, f"{what}: the daemon has died"
            if before is None:
                before, descriptors = resident(daemon), len(os.listdir(f"/proc/{daemon}/fd"))
        assert len(os.listdir(started)) >= len(LIES)
        wait_for(lambda: len(os.listdir(f"/proc/{daemon}/fd")) <= descriptors, what="no descriptor left")
        assert resident(daemon) - before < 48 << 20, (before, resident(daemon))
        left = [path.name for path in (instance.run_folder / "usb").iterdir()]
        assert not left, left


only(the_daemon_outlives_whatever_a_process_says)

if __name__ == "__main__":
    main()
