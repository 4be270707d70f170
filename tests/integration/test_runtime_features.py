"""The features document of cloche-runtime, held against what the program does."""

import json

from bundles import ConsoleSocket, world
from harness import main

# Words that change what is mounted, so that a plain tmpfs cannot have them.
OTHER_MOUNTS = {"bind", "rbind", "remount", "idmap", "ridmap", "copy-symlink", "src-nofollow",
                "dest-nofollow"}


def features(w):
    return json.loads(w.runtime("features").out)


def accepted(w, *refusals):
    """The container runs, or fails for a reason of the kernel's and not because of the word."""
    result = w.bundle.write() and w.runtime("run", "-b", w.bundle.path, w.name, code=None)
    assert result.code == 0 or not any(word in result.err for word in refusals), result
    return result


@world
def it_is_complete(w):
    document = features(w)
    assert document["ociVersionMin"] == "1.0.0" and document["ociVersionMax"] == "1.3.0"
    assert document["hooks"] == ["prestart", "createRuntime", "createContainer", "startContainer",
                                 "poststart", "poststop"]
    assert set(document["linux"]) == {
        "namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt",
        "memoryPolicy", "mountExtensions", "netDevices"}
    assert set(document["linux"]["cgroup"]) == {"v1", "v2", "systemd", "systemdUser", "rdma"}
    assert document["linux"]["mountExtensions"] == {"idmap": {"enabled": True}}
    assert document["linux"]["intelRdt"] == {"enabled": True, "schemata": True, "monitoring": True}
    major, minor, _ = document["annotations"]["io.github.seccomp.libseccomp.version"].split(".")
    assert (int(major), int(minor)) >= (2, 5)
    for names in (document["mountOptions"], document["linux"]["namespaces"],
                  document["linux"]["capabilities"], document["linux"]["seccomp"]["archs"]):
        assert len(set(names)) == len(names) > 0
    # No word is taken back by a container without that feature.
    assert w.runtime("features", "more", code=None).code != 0


@world
def its_namespaces_are_known(w):
    names = features(w)["linux"]["namespaces"]
    w.bundle.linux["namespaces"] = [{"type": name} for name in names if name != "user"]
    assert w.run("echo fine").out == "fine\n"
    assert {entry["type"] for entry in w.bundle.linux["namespaces"]} | {"user"} == set(names)
    w.bundle.linux["namespaces"].append({"type": "none"})
    w.fails("none")


@world
def its_capabilities_are_known(w):
    names = features(w)["linux"]["capabilities"]
    last = int(open("/proc/sys/kernel/cap_last_cap").read())
    assert len(names) > 40 and names[0] == "CAP_CHOWN" and names[21] == "CAP_SYS_ADMIN"
    w.bundle.all_capabilities(*names)
    w.bundle.script("grep CapPrm /proc/self/status").write()
    result = w.runtime("run", "-b", w.bundle.path, w.name, log=False)
    assert "unknown capability" not in result.err, result
    own = int(open("/proc/self/status").read().split("CapPrm:")[1].split()[0], 16)
    assert int(result.out.split()[1], 16) == own & ((1 << min(last + 1, len(names))) - 1)


@world
def its_mount_options_are_known(w):
    names = set(features(w)["mountOptions"])
    w.bundle.mount("/tmp/one", "tmpfs", kind="tmpfs", options=["bogus"])
    w.fails("bogus", script="true")
    for name in sorted(names - OTHER_MOUNTS):
        w.bundle.config["mounts"][-1]["options"] = [name]
        accepted(w, f"'{name}'", f"option '{name}'", "nknown parameter", "Invalid argument",
                 "nvalid argument")
    assert {"ro", "rro", "rbind", "bind", "nosuid", "rnosuid", "tmpcopyup", "private",
            "rslave"} <= names
    w.bundle.config["mounts"][-1].update(type="bind", source=str(w.scratch))
    for name in sorted(names & {"bind", "rbind"}):
        w.bundle.config["mounts"][-1]["options"] = [name]
        assert w.run("echo fine").out == "fine\n", name


@world
def its_seccomp_words_are_known(w):
    document = features(w)["linux"]["seccomp"]
    assert document["enabled"] is True

    def profile(**more):
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **more}
        w.bundle.script("true")
        return accepted(w, "seccomp")
    for action in document["actions"]:
        if action != "SCMP_ACT_NOTIFY":
            profile(syscalls=[{"names": ["mq_open"], "action": action}])
    for operator in document["operators"]:
        profile(syscalls=[{"names": ["mq_open"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 0, "value": 1, "valueTwo": 1, "op": operator}]}])
    for flag in set(document["supportedFlags"]) - {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}:
        profile(flags=[flag])
    assert set(document["supportedFlags"]) <= set(document["knownFlags"])
    # Of another byte order, or another ABI of the same: libseccomp's word against it.
    for name in document["archs"]:
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [name]}
        accepted(w, "not a valid arch")
    for change in ({"syscalls": [{"names": ["mq_open"], "action": "SCMP_ACT_NONE"}]},
                   {"flags": ["SECCOMP_FILTER_FLAG_NONE"]}, {"architectures": ["SCMP_ARCH_NONE"]}):
        w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **change}
        w.fails("NONE", script="true")


@world
def its_memory_policies_are_known(w):
    document = features(w)["linux"]["memoryPolicy"]
    for mode in document["modes"]:
        nodes = {} if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") else {"nodes": "0"}
        w.bundle.linux["memoryPolicy"] = {"mode": mode, **nodes}
        w.bundle.script("true")
        accepted(w, "unknown", "not a valid", "nvalid memory policy")
    w.bundle.linux["memoryPolicy"] = {"mode": "MPOL_NONE", "nodes": "0"}
    w.fails("MPOL_NONE", script="true")
    w.bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"]}
    w.fails("MPOL_F_NONE", script="true")


@world
def what_is_enabled_is_not_refused_as_missing(w):
    document = features(w)["linux"]
    for name, change in (("apparmor", {"process": {"apparmorProfile": "p"}}),
                         ("selinux", {"process": {"selinuxLabel": "a:b:c:s0"}}),
                         ("netDevices", {"linux": {"netDevices": {"not-there": {}}}}),
                         ("intelRdt", {"linux": {"intelRdt": {"closID": "x"}}})):
        assert document[name]["enabled"] is True
        other = json.loads(json.dumps(w.bundle.config))
        for section, fields in change.items():
            w.bundle.config[section].update(fields)
        w.bundle.script("true")
        accepted(w, "not supported yet")
        w.bundle.config = other


@world
def annotations_that_do_something_are_listed(w):
    names = features(w)["potentiallyUnsafeConfigAnnotations"]
    out = w.scratch / "out"
    w.bundle.config["hooks"] = {"prestart": [{"path": "/bin/echo", "args": ["echo", "hook"]}]}
    w.bundle.config["annotations"] = {"run.oci.hooks.stdout": str(out)}
    w.run("true")
    assert out.read_text() == "hook\n" and "run.oci.hooks.stdout" in names
    assert "run.oci.hooks.stderr" in names
    w.bundle.config["hooks"] = {}
    w.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]}
    w.run("true")
    w.bundle.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": "0"}
    w.run("true")
    w.bundle.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": "1"}
    w.fails("linux.seccomp.syscalls[0]: unknown seccomp syscall 'no_such_call'", script="true")
    assert "run.oci.seccomp_fail_unknown_syscall" in names

    receiver = ConsoleSocket(w.scratch)
    w.bundle.config["annotations"] = {"run.oci.pidfd_receiver": str(receiver.path)}
    w.bundle.linux.pop("seccomp")
    w.run("true")
    pidfd = receiver.take()
    assert "Pid:" in open(f"/proc/self/fdinfo/{pidfd}").read()
    assert "run.oci.pidfd_receiver" in names

    w.bundle.config["annotations"] = {"run.oci.mount_context_type": "other"}
    w.fails("run.oci.mount_context_type: 'other' is none of context, fscontext", script="true")
    w.bundle.config["annotations"] = {"run.oci.mount_context_type": "rootcontext"}
    w.run("true")
    w.bundle.config["annotations"] = {"run.oci.seccomp.receiver": "relative"}
    w.fails("run.oci.seccomp.receiver: 'relative' is not an absolute path", script="true")
    assert {"run.oci.mount_context_type", "run.oci.seccomp.receiver", "org.criu.config"} < set(names)
    assert ("org.systemd.property." in names) == features(w)["linux"]["cgroup"]["systemd"]


if __name__ == "__main__":
    main()
