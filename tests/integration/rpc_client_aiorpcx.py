"""A Python program that calls the calculator of contrib/examples through aiorpcx, which knows TCP only:
between the two stands a relay.

usage: rpc_client_aiorpcx.py SOCKET
"""

import asyncio
import sys

import aiorpcx


async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def relay(reader, writer):
    unix_reader, unix_writer = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(copy(reader, unix_writer), copy(unix_reader, writer))


async def main():
    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with aiorpcx.connect_rs(*server.sockets[0].getsockname()) as session:
        print(await session.send_request("subtract", [42, 23]))
        print(await session.send_request("subtract", {"minuend": 42, "subtrahend": 23}))
        await session.send_notification("update", [1, 2, 3, 4, 5])
        async with session.send_batch() as batch:
            batch.add_request("sum", [1, 2, 4])
            batch.add_notification("update", [7])
            batch.add_request("foobar")
            batch.add_request("get_data")
        print(batch.results[0], batch.results[1].code, batch.results[2])
    server.close()


asyncio.run(main())
