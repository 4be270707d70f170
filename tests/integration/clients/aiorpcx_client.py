"""python3-aiorpcx through a door's TCP: calls at once, a batch, an error, a notification. Prints what came
as JSON.

usage: aiorpcx_client.py PORT
"""
import asyncio
import json
import sys

import aiorpcx


class Session(aiorpcx.RPCSession):
    def default_connection(self):
        return aiorpcx.JSONRPCConnection(aiorpcx.JSONRPCv2)


async def main():
    said = {}
    async with aiorpcx.connect_rs("127.0.0.1", int(sys.argv[1]), session_factory=Session) as session:
        said["version"] = await session.send_request("system.version")
        many = [session.send_request("container.list", {"all": True}) for _ in range(40)]
        said["many"] = await asyncio.gather(*many)
        async with session.send_batch() as batch:
            batch.add_request("rpc.ping")
            batch.add_notification("rpc.ping")
            batch.add_request("container.list", [True])
        said["batch"] = list(batch.results)
        try:
            await session.send_request("container.inspect", {"container": "shop"})
        except aiorpcx.RPCError as problem:
            said["error"] = [problem.code, problem.message]
        await session.send_notification("rpc.ping")
    print(json.dumps(said))


asyncio.run(main())
