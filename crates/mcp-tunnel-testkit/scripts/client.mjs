// Drives the TypeScript SDKs against an MCP server: lists tools, calls one, prints one JSON object.
//
// Usage: node client.mjs SDK URL, where SDK is 1, 2 or 2-auto, with the folder that holds
// node_modules in DRIVER_MODULES. Environment: DRIVER_HEADERS, DRIVER_TOOL, DRIVER_ARGUMENTS (JSON).

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [sdk, url] = process.argv.slice(2);
const require = createRequire(`${process.env.DRIVER_MODULES}/package.json`);
const load = (path) => import(pathToFileURL(require.resolve(path)).href);

const headers = JSON.parse(process.env.DRIVER_HEADERS ?? '{}');
const name = process.env.DRIVER_TOOL ?? 'echo';
const parameters = JSON.parse(process.env.DRIVER_ARGUMENTS ?? '{"text": "hello"}');
const info = { name: 'driver', version: '1' };

async function connect() {
  const transport = { requestInit: { headers } };
  if (sdk === '1') {
    const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
    const http = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const client = new Client(info);
    await client.connect(new http.StreamableHTTPClientTransport(new URL(url), transport));
    return client;
  }
  const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');
  const options = sdk === '2-auto' ? { versionNegotiation: { mode: 'auto' } } : {};
  const client = new Client(info, options);
  await client.connect(new StreamableHTTPClientTransport(new URL(url), transport));
  return client;
}

async function drive() {
  const client = await connect();
  let progress = 0;
  const onprogress = () => { progress += 1; };
  const { tools } = await client.listTools();
  const call = { name, arguments: parameters };
  const result = sdk === '1'
    ? await client.callTool(call, undefined, { onprogress })
    : await client.callTool(call, { onprogress });
  const era = client.getNegotiatedProtocolVersion?.() ?? client.transport?.protocolVersion;
  await client.close();
  return {
    ok: !result.isError,
    era: era ?? '',
    tools: tools.map((tool) => tool.name),
    text: result.content.map((block) => block.text ?? '').join(''),
    progress,
  };
}

function messages(error) {
  const found = [];
  for (let at = error; at; at = at.cause) {
    found.push(`${at.name}: ${at.message}`);
    if (at.data?.text) found.push(at.data.text);
  }
  return found.join(' | ');
}

let report;
try {
  report = await drive();
} catch (error) {
  report = { ok: false, error: messages(error) };
}
console.log(JSON.stringify(report));
process.exit(0);
