// The official worker for TypeScript, as its documentation starts it.
import { createRequire } from 'node:module';

// Where `cargo xtask setup` put it.
const { default: Anthropic } = createRequire(process.env.SDK)('@anthropic-ai/sdk');

const stop = new AbortController();
process.on('SIGTERM', () => stop.abort());

// The worker's calls carry the environment key or an item token, never this.
const client = new Anthropic({ apiKey: 'none' });
const worker = client.beta.environments.work.worker({
  environmentId: process.env.ENVIRONMENT_ID,
  environmentKey: process.env.ANTHROPIC_ENVIRONMENT_KEY,
  workdir: process.env.WORKDIR,
  maxIdleMs: 1000,
});
console.log('polling');
await worker.run(stop.signal);
