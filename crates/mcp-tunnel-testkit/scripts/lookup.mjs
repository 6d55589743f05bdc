// Loaded with --import: names that end in DRIVER_RESOLVE are this machine, whatever the resolver says.

import dns from 'node:dns';

const suffix = process.env.DRIVER_RESOLVE;
const ask = dns.lookup;

dns.lookup = (name, options, done) => {
  if (!suffix || !name.endsWith(suffix)) return ask(name, options, done);
  const answer = typeof options === 'function' ? options : done;
  const all = typeof options === 'object' && options?.all;
  const address = { address: '127.0.0.1', family: 4 };
  process.nextTick(() => (all ? answer(null, [address]) : answer(null, '127.0.0.1', 4)));
  return {};
};
