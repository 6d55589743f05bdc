"""Runs cases through the official SDK's agent toolset: JSON in, JSON out."""

import asyncio
import json
import sys

from anthropic.lib.tools._tool_dispatch import tool_error_content, tool_result_content
from anthropic.lib.tools.agent_toolset import AgentToolContext, beta_agent_toolset_20260401


def blocks(content):
    """As the SDK's session runner posts it."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content or "(no output)"}]
    return [dict(block) for block in content]


async def run(case):
    context = AgentToolContext(workdir=case["root"], env=case["env"])
    tools = {tool.name: tool for tool in beta_agent_toolset_20260401(context)}
    results = []
    for name, given in case["calls"]:
        try:
            content, failed = tool_result_content(await tools[name].call(given)), False
        except Exception as error:
            content, failed = tool_error_content(error), True
        results.append({"content": blocks(content), "is_error": failed})
    manager = getattr(tools["bash"], "_context_manager", None)
    if manager is not None:
        await manager.__aexit__(None, None, None)
    return results


async def main():
    cases = json.load(sys.stdin)
    json.dump([await run(case) for case in cases], sys.stdout)


asyncio.run(main())
