"""The messages of python3-jsonrpc and python3-jsonrpclib-pelix, line by line on a Unix socket.

usage: messages_client.py SOCKET
"""
import json
import socket
import sys

import jsonrpc.jsonrpc2
import jsonrpclib

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
lines = connection.makefile("rwb")


def ask(text):
    lines.write(text.encode() + b"\n")
    lines.flush()
    return lines.readline().decode()


said = {}
request = jsonrpc.jsonrpc2.JSONRPC20Request("system.version", {}, _id=7)
said["version"] = json.loads(ask(request.json))["result"]
batch = jsonrpc.jsonrpc2.JSONRPC20BatchRequest(
    jsonrpc.jsonrpc2.JSONRPC20Request("container.list", [True], _id="a"),
    jsonrpc.jsonrpc2.JSONRPC20Request("container.list", {}, is_notification=True))
said["batch"] = json.loads(ask(batch.json))
pelix = jsonrpclib.dumps({"container": "shop"}, "container.inspect", rpcid=8, version=2.0)
answer = jsonrpclib.loads(ask(pelix))
try:
    jsonrpclib.jsonrpc.check_for_errors(answer)
except jsonrpclib.ProtocolError as problem:
    said["error"] = problem.args[0][:2]
print(json.dumps(said))
