// The application of client.py, with the official SDK for TypeScript.
import { readFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// Where `cargo xtask setup` put it.
const { default: Anthropic, APIError } = createRequire(process.env.SDK)('@anthropic-ai/sdk');

const script = JSON.parse(readFileSync(process.env.SCRIPT, 'utf8'));
const client = new Anthropic();

const message = (calls) => ({
  type: 'user.message',
  content: [{ type: 'text', text: 'Please run this.\n\n```json\n' + JSON.stringify(calls) + '\n```\n' }],
});

const textOf = (content) => (content ?? []).map((block) => (block.type === 'text' ? block.text : '')).join('');

// Sends a message, and follows the stream to the end of the turn.
async function turn(session, calls) {
  const events = [];
  const stream = await client.beta.sessions.events.stream(session);
  const sent = await client.beta.sessions.events.send(session, { events: [message(calls)] });
  assert.equal(sent.data[0].type, 'user.message');
  for await (const event of stream) {
    events.push(event);
    if (event.type === 'session.status_idle' && event.stop_reason.type !== 'requires_action') {
      assert.equal(event.stop_reason.type, 'end_turn');
      return events;
    }
  }
  throw new Error('the stream ended before the turn did');
}

// One line a call: what was asked, and what came back.
function report(events) {
  const results = new Map();
  for (const event of events) if (event.type === 'user.tool_result') results.set(event.tool_use_id, event);
  for (const event of events) {
    if (event.type !== 'agent.tool_use') continue;
    const result = results.get(event.id);
    const call = { name: event.name, input: event.input, is_error: Boolean(result.is_error), text: textOf(result.content) };
    console.log(JSON.stringify({ call }));
  }
}

const session = await client.beta.sessions.create({
  agent: process.env.AGENT_ID,
  environment_id: process.env.ENVIRONMENT_ID,
  title: 'from an SDK',
  metadata: { by: 'client.mjs' },
});
assert.equal(session.status, 'idle');
const streamed = [];
for (const calls of script) {
  const events = await turn(session.id, calls);
  report(events);
  streamed.push(...events);
}
const listed = [];
for await (const event of client.beta.sessions.events.list(session.id, { limit: 3 })) listed.push(event);
const ids = listed.map((event) => event.id);
assert.equal(new Set(ids).size, ids.length, 'an event is listed twice');
assert.deepEqual(streamed.filter((event) => !ids.includes(event.id)), [], 'streamed, but not listed');
console.log(JSON.stringify({ events: listed.map((event) => event.type) }));
const found = await client.beta.sessions.retrieve(session.id);
assert.deepEqual([found.status, found.metadata], ['idle', { by: 'client.mjs' }]);
const archived = await client.beta.sessions.archive(session.id);
assert.ok(archived.archived_at);
await assert.rejects(client.beta.sessions.events.send(session.id, { events: [message([])] }), APIError);
console.log(JSON.stringify({ done: session.id }));
