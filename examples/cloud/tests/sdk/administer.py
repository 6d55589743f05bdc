"""Agents, environments, skills and their keys with the official SDK: every operation that is served.

Leaves an agent, an environment and a key behind, and prints them."""

import asyncio
import io
import json
import os
import zipfile

import anthropic
from anthropic import AsyncAnthropic, APIStatusError

NEW = not anthropic.__version__.startswith("0.")

SKILL = b"""---
name: greeting
description: Says hello the way that this house does.
---
Run scripts/hello.sh.
"""
SCRIPT = b"#!/bin/sh\necho hello from a skill\n"


def files(description=SKILL):
    return [
        ("greeting/SKILL.md", description, "text/markdown"),
        ("greeting/scripts/hello.sh", SCRIPT, "text/x-sh"),
    ]


def zipped():
    """The same files in one archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path, content, _ in files():
            out.writestr(path, content)
    return [("greeting.zip", archive.getvalue(), "application/zip")]


async def refused(status, call):
    try:
        await call
    except APIStatusError as error:
        assert error.status_code == status, f"{error.status_code} instead of {status}: {error}"
        assert error.request_id, "no request id"
        return error.body["error"]
    raise AssertionError(f"{status} was expected")


async def environments(client):
    made = await client.beta.environments.create(
        name="a cloud", config={"type": "cloud", "packages": {"pip": ["numpy"]}}, metadata={"a": "1", "b": "2"}
    )
    assert made.config.type == "cloud" and made.config.packages.pip == ["numpy"], made
    assert made.config.networking.type == "unrestricted" and made.config.packages.apt == [], made
    changed = await client.beta.environments.update(made.id, metadata={"a": None, "c": "3"}, description="x")
    assert changed.metadata == {"b": "2", "c": "3"} and changed.description == "x", changed
    error = await refused(400, client.beta.environments.update(made.id, config={"type": "self_hosted"}))
    assert error["details"]["error_code"] == "invalid_config_type_change", error
    assert (await client.beta.environments.archive(made.id)).archived_at
    error = await refused(400, client.beta.environments.update(made.id, name="y"))
    assert error["details"]["error_code"] == "environment_archived", error
    assert (await client.beta.environments.delete(made.id)).type == "environment_deleted"
    error = await refused(404, client.beta.environments.retrieve(made.id))
    assert error["details"]["error_code"] == "environment_not_found", error
    mine = await client.beta.environments.create(name="mine", config={"type": "self_hosted"})
    assert mine.config.type == "self_hosted" and mine.metadata == {}, mine
    assert (await client.beta.environments.retrieve(mine.id)) == mine
    listed = [one.id async for one in client.beta.environments.list(limit=1)]
    assert mine.id in listed and made.id not in listed, listed
    return mine


async def skills(client):
    title = {"display_name" if NEW else "display_title": "Greeting"}
    made = await client.beta.skills.create(files=files(), **title)
    latest = made.latest_version_id if NEW else made.latest_version
    shown = made.display_name if NEW else made.display_title
    assert shown == "Greeting", made
    version = await client.beta.skills.versions.retrieve("latest", skill_id=made.id)
    concrete = version.id if NEW else version.version
    assert (concrete, version.name) == (latest, "greeting"), version
    again = SKILL.replace(b"Says hello", b"Still says hello")
    second = await client.beta.skills.versions.create(made.id, files=files(again))
    assert second.description.startswith("Still says hello"), second
    ids = [one.id async for one in client.beta.skills.versions.list(made.id, limit=1)]
    assert ids == [second.id, version.id], ids
    await client.beta.skills.versions.delete(latest, skill_id=made.id)
    content = await (await client.beta.skills.versions.download(second.id, skill_id=made.id)).read()
    assert b"hello from a skill" in content, content
    await refused(400, client.beta.skills.create(files=[("x/README.md", b"x", "text/plain")]))
    gone = await client.beta.skills.create(files=zipped())
    contents = []
    for skill in (gone, await client.beta.skills.create(files=files())):
        latest = skill.latest_version_id if NEW else skill.latest_version
        download = await client.beta.skills.versions.download(latest, skill_id=skill.id)
        contents.append(await download.read())
    assert contents[0] == contents[1], "an archive comes to something else than its files"
    if NEW:
        assert (await client.beta.skills.delete(gone.id)).type == "skill_deleted"
    found = [one.id async for one in client.beta.skills.list(limit=1)]
    assert made.id in found, found
    return made


async def agents(client, skill):
    made = await client.beta.agents.create(
        name="scripted",
        model="scripted",
        system="Be brief.",
        tools=[{"type": "agent_toolset_20260401", "configs": [{"name": "web_search", "type": "web_search", "enabled": False}]}],
        skills=[{"type": "custom", "skill_id": skill.id}],
    )
    toolset = made.tools[0]
    assert made.version == 1 and made.model.id == "scripted", made
    assert toolset.default_config.enabled and toolset.default_config.permission_policy.type == "always_allow", made
    assert [one.name for one in toolset.configs] == ["web_search"] and not toolset.configs[0].enabled, made
    assert made.skills[0].version == "latest", made
    changed = await client.beta.agents.update(made.id, version=1, description="for a test", metadata={"k": "v"})
    assert (changed.version, changed.name, changed.metadata) == (2, "scripted", {"k": "v"}), changed
    await refused(409, client.beta.agents.update(made.id, version=1, name="late"))
    same = await client.beta.agents.update(made.id, version=2, name="scripted")
    assert same.version == 2, same
    first = await client.beta.agents.retrieve(made.id, version=1)
    assert first.description is None and first.version == 1, first
    versions = [one.version async for one in client.beta.agents.versions.list(made.id, limit=1)]
    assert versions == [2, 1], versions
    await refused(400, client.beta.agents.create(name="x", model="scripted", mcp_servers=[{"type": "url", "name": "s", "url": "https://a.example"}]))
    gone = await client.beta.agents.create(name="gone", model={"id": "scripted", "effort": "high"})
    assert gone.model.effort.type == "high", gone
    assert (await client.beta.agents.archive(gone.id)).archived_at
    listed = [one.id async for one in client.beta.agents.list(limit=1)]
    assert gone.id not in listed and made.id in listed, listed
    return made


async def main():
    async with AsyncAnthropic(max_retries=0) as client:
        environment = await environments(client)
        skill = await skills(client)
        agent = await agents(client, skill)
        path = f"/v1/environments/{environment.id}/keys"
        key = await client.post(path, body={"name": "host 1"}, cast_to=object)
        other = await client.post(path, body={"name": "host 2"}, cast_to=object)
        await client.post(f"{path}/{other['id']}/revoke", body={"reason": "a test"}, cast_to=object)
        left = await client.get(path, cast_to=object)
        assert [one["id"] for one in left["data"]] == [key["id"]] and "key" not in left["data"][0], left
        error = await refused(404, client.get("/v1/vaults", cast_to=object))
        assert "not served here yet" in error["message"], error
        made = {"agent": agent.id, "environment": environment.id, "key": key["key"], "revoked": other["key"], "skill": skill.id}
        print(json.dumps(made), flush=True)


asyncio.run(main())
