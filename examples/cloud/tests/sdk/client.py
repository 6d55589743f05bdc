"""An application: runs a session with the official SDK and prints what came of it, one JSON line a call.

Whose worker serves the session, and on which machine, it does not know: that is in the environment."""

import asyncio
import json
import os

from anthropic import AsyncAnthropic, APIStatusError

SCRIPT = json.load(open(os.environ["SCRIPT"], encoding="utf-8"))


def message(calls):
    text = "Please run this.\n\n```json\n" + json.dumps(calls) + "\n```\n"
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def text_of(content):
    return "".join(block.text for block in content or [] if block.type == "text")


async def turn(client, session_id, calls):
    """Sends a message, and follows the stream to the end of the turn."""
    events = []
    stream = await client.beta.sessions.events.stream(session_id)
    async with stream:
        sent = await client.beta.sessions.events.send(session_id, events=[message(calls)])
        assert sent.data[0].type == "user.message", sent
        async for event in stream:
            events.append(event)
            if event.type == "session.status_idle" and event.stop_reason.type != "requires_action":
                assert event.stop_reason.type == "end_turn", event
                return events
    raise AssertionError("the stream ended before the turn did")


def report(events):
    """One line a call: what was asked, and what came back."""
    results = {event.tool_use_id: event for event in events if event.type == "user.tool_result"}
    for event in events:
        if event.type == "agent.tool_use":
            result = results[event.id]
            line = {"name": event.name, "input": event.input}
            line |= {"is_error": bool(result.is_error), "text": text_of(result.content)}
            print(json.dumps({"call": line}), flush=True)


async def history(client, session_id):
    return [event async for event in client.beta.sessions.events.list(session_id, limit=3)]


async def main():
    async with AsyncAnthropic() as client:
        agent_id = os.environ["AGENT_ID"]
        environment_id = os.environ["ENVIRONMENT_ID"]
        session = await client.beta.sessions.create(
            agent=agent_id, environment_id=environment_id, title="from an SDK", metadata={"by": "client.py"}
        )
        assert session.status == "idle" and session.agent.id == agent_id, session
        streamed = []
        for calls in SCRIPT:
            events = await turn(client, session.id, calls)
            report(events)
            streamed += events
        listed = await history(client, session.id)
        ids = [event.id for event in listed]
        assert len(set(ids)) == len(ids), "an event is listed twice"
        lost = [event.type for event in streamed if event.id not in ids]
        assert not lost, f"streamed, but not listed: {lost}"
        order = [event.processed_at for event in listed]
        assert order == sorted(order), "the history is not in order"
        shapes = [event.type for event in listed]
        print(json.dumps({"events": shapes}), flush=True)
        found = await client.beta.sessions.retrieve(session.id)
        assert found.status == "idle" and found.metadata == {"by": "client.py"}, found
        mine = [one.id async for one in client.beta.sessions.list(agent_id=agent_id)]
        assert session.id in mine, mine
        archived = await client.beta.sessions.archive(session.id)
        assert archived.archived_at is not None, archived
        try:
            await client.beta.sessions.events.send(session.id, events=[message([])])
            raise AssertionError("an archived session took a message")
        except APIStatusError as error:
            assert error.status_code in (400, 409), error
        print(json.dumps({"done": session.id}), flush=True)


asyncio.run(main())
