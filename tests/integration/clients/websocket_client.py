"""Calls the calculator with websocket-client. Arguments: URL, files of authority, certificate and key."""

import json
import sys

import websocket

url, authority, certificate, key = sys.argv[1:]
options = {"ca_certs": authority, "certfile": certificate, "keyfile": key}
secure = url.startswith("wss")
# Its own Origin says http:// even here, which is not the door's.
client = websocket.create_connection(url + "/rpc", timeout=30, sslopt=options if secure else None,
                                     suppress_origin=secure)
client.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "subtract", "params": [42, 23]}))
print(json.loads(client.recv())["result"])
client.ping(b"there?")
print(client.recv_frame().opcode == websocket.ABNF.OPCODE_PONG)
client.close()
