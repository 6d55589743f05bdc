"""Drives the Python SDK against an MCP server: lists tools, calls one, prints one JSON object.

Usage: client.py MODE URL, where MODE is legacy, auto, modern or sse.
Environment: DRIVER_HEADERS (JSON object), DRIVER_TOOL, DRIVER_ARGUMENTS (JSON object),
DRIVER_RESOLVE (names that end in it resolve to 127.0.0.1), SSL_CERT_FILE.
"""

import json
import os
import socket
import sys

import anyio
import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28", "sse": "legacy"}


def resolve_locally(suffix):
    """Names that end in `suffix` are this machine, whatever the resolver says."""
    ask = socket.getaddrinfo

    def getaddrinfo(host, *rest, **named):
        name = host.decode() if isinstance(host, bytes) else host
        if name and name.endswith(suffix):
            host = "127.0.0.1"
        return ask(host, *rest, **named)

    socket.getaddrinfo = getaddrinfo


def messages(error):
    """What went wrong, from the outside in: groups and causes included."""
    found = []
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                found += messages(inner)
        else:
            found.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return found


async def drive(mode, url):
    headers = json.loads(os.environ.get("DRIVER_HEADERS", "{}"))
    tool = os.environ.get("DRIVER_TOOL", "echo")
    arguments = json.loads(os.environ.get("DRIVER_ARGUMENTS", '{"text": "hello"}'))
    progress = []

    async def on_progress(done, total, message):
        progress.append(done)

    async with httpx2.AsyncClient(headers=headers, timeout=30.0) as http:
        if mode == "sse":
            transport = sse_client(url, headers=headers)
        else:
            transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=MODES[mode]) as client:
            tools = await client.list_tools()
            result = await client.call_tool(tool, arguments, progress_callback=on_progress)
            return {
                "ok": not result.is_error,
                "era": client.protocol_version,
                "tools": [tool.name for tool in tools.tools],
                "text": "".join(getattr(block, "text", "") for block in result.content),
                "progress": len(progress),
            }


async def bounded(mode, url):
    with anyio.fail_after(float(os.environ.get("DRIVER_TIMEOUT", "30"))):
        return await drive(mode, url)


def main():
    mode, url = sys.argv[1:]
    if suffix := os.environ.get("DRIVER_RESOLVE"):
        resolve_locally(suffix)
    try:
        report = anyio.run(bounded, mode, url)
    except BaseException as error:
        report = {"ok": False, "error": " | ".join(messages(error))}
    print(json.dumps(report))


main()
