"""One fake ZeroTier One as a process, for a network namespace of its own:

ip netns exec NAME python -m tests.zerotier.service --home DIR --planet SOCKET --address 1a2b3c4d5e --device zt0
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from pathlib import Path

from tests.zerotier.devices import Devices
from tests.zerotier.fake import FakeService
from tests.zerotier.membership import Timing


async def _run(options: argparse.Namespace) -> None:
    timing = Timing(**json.loads(options.timing))
    devices = Devices(options.device, timing.interface_cache) if options.device else None
    service = FakeService(
        options.home,
        options.planet,
        options.address,
        timing=timing,
        devices=devices,
        endpoint=options.endpoint,
    )
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    try:
        await service.start(options.port)
        ends = {asyncio.create_task(told.wait()), asyncio.create_task(service.failed())}
        ended, running = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for one in running:
            one.cancel()
        for one in ended:
            one.result()
    finally:
        await service.stop()


def main() -> None:
    asking = argparse.ArgumentParser(prog="tests.zerotier.service")
    asking.add_argument("--home", type=Path, required=True)
    asking.add_argument("--planet", type=Path, required=True)
    asking.add_argument("--address", required=True)
    asking.add_argument("--device", default="", help="the interface for the first network")
    asking.add_argument("--port", type=int, default=9993)
    asking.add_argument("--endpoint", default="10.231.0.1/9993", help="where others say they reach it")
    asking.add_argument("--timing", default="{}", help="members of Timing, as JSON")
    asyncio.run(_run(asking.parse_args()))


if __name__ == "__main__":
    main()
