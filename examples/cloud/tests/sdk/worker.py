"""The official worker, as its documentation starts it."""

import asyncio
import logging
import os
import sys

from anthropic import AsyncAnthropic

logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)


async def main():
    # The worker's calls carry the environment key or an item token, never this.
    async with AsyncAnthropic(api_key="none") as client:
        worker = client.beta.environments.work.worker(
            environment_id=os.environ["ENVIRONMENT_ID"],
            environment_key=os.environ["ANTHROPIC_ENVIRONMENT_KEY"],
            workdir=os.environ["WORKDIR"],
            max_idle=1.0,
        )
        print("polling", flush=True)
        await worker.run()


asyncio.run(main())
