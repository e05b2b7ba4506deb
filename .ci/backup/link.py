"""A link as far as the next data centre: `link.py LISTEN_PORT TARGET_PORT DELAY_MS MEGABYTES_PER_SECOND`, on 127.0.0.1.

It sees bytes only, so it serves TLS as well. The first bytes of an answer are held back by the delay; each connection carries so many
bytes a second, counted for each direction by itself.
"""
import asyncio
import socket
import sys

PIECE = 256 * 1024


class Turn:
    """Whose turn it is on a connection: an answer is late once, after the asker has spoken."""

    def __init__(self):
        self.asked = True


async def carry(reader, writer, rate, turn, asks, delay):
    loop = asyncio.get_running_loop()
    free_at = loop.time()
    try:
        while piece := await reader.read(PIECE):
            if asks:
                turn.asked = True
            elif turn.asked:
                turn.asked = False
                await asyncio.sleep(delay)
            free_at = max(free_at, loop.time() - 0.01) + len(piece) / rate
            if (ahead := free_at - loop.time()) > 0.002:
                await asyncio.sleep(ahead)
            writer.write(piece)
            await writer.drain()
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()


async def main(listen, target, delay, rate):
    async def serve(reader, writer):
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", target, limit=4 * PIECE)
        except OSError:
            writer.close()
            return
        for end in (writer, back):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        turn = Turn()
        await asyncio.gather(carry(reader, back, rate, turn, True, delay), carry(onward, writer, rate, turn, False, delay))

    server = await asyncio.start_server(serve, "127.0.0.1", listen, limit=4 * PIECE)
    await server.serve_forever()


if __name__ == "__main__":
    LISTEN, TARGET, DELAY, RATE = sys.argv[1:]
    asyncio.run(main(int(LISTEN), int(TARGET), float(DELAY) / 1000, float(RATE) * 1e6))
