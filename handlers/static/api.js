// The server's API as functions. Every failure is a Problem whose `detail` can be shown as it is.

import * as key from './key.js';

const BASE = new URL('.', location.href); // the service may live below a prefix
const PATIENCE = 30_000; // ms; behind it the network is taken for gone
const PASSING = new Set([0, 408, 502, 503, 504]);

export class Problem extends Error {
  constructor(status, members = {}, retryAfter = null) {
    super(members.detail || members.title || `The server answered with status ${status}.`);
    this.status = status; // 0: no answer at all
    this.code = members.code ?? null;
    this.runId = members.run_id ?? null;
    this.retryAfter = retryAfter; // seconds
  }

  /** Whether the very same request may well succeed in a moment. */
  get passing() {
    return PASSING.has(this.status);
  }
}

/** `quiet`: who is not let in is not asked for a key. */
async function call(method, path, { body, headers = {}, quiet = false } = {}) {
  const used = key.current();
  const init = { method, headers: { ...headers }, signal: AbortSignal.timeout(PATIENCE), cache: 'no-store' };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers['Content-Type'] = 'application/json';
  }
  if (used) init.headers.Authorization = `Bearer ${used}`;
  let response;
  let members;
  try {
    response = await fetch(new URL(path, BASE), init);
    members = response.status === 204 ? null : await response.json();
  } catch (error) {
    if (response && error instanceof SyntaxError) throw new Problem(response.status);
    throw new Problem(0, { code: 'unreachable', detail: 'The server cannot be reached.' });
  }
  if (response.status === 401 && !quiet && (await key.another(used))) return call(method, path, { body, headers });
  if (!response.ok) throw new Problem(response.status, members ?? {}, Number(response.headers.get('Retry-After')) || null);
  return members;
}

const LATER = { Prefer: 'respond-async' };
const part = encodeURIComponent;

export const getService = () => call('GET', '');
export const startRun = (body) => call('POST', 'chat', { body, headers: LATER });
export const getRun = (run) => call('GET', `runs/${part(run)}`);
export const cancelRun = (run) => call('POST', `runs/${part(run)}/cancel`);
export const decideCall = (run, id, approved) =>
  call('POST', `runs/${part(run)}/approvals/${part(id)}`, { body: { approved } });
export const retryRun = (run, key) =>
  call('POST', `runs/${part(run)}/retry`, { headers: { ...LATER, 'Idempotency-Key': key } });

export const listSessions = (user, after) =>
  call('GET', `sessions?user_id=${part(user)}&limit=50${after ? `&after=${part(after)}` : ''}`);
export const getSession = (id) => call('GET', `sessions/${part(id)}`);
export const renameSession = (id, title) => call('PATCH', `sessions/${part(id)}`, { body: { title } });
export const setCollection = (id, collection) => call('PATCH', `sessions/${part(id)}`, { body: { collection } });
export const listDocuments = (user) =>
  call('GET', `documents?limit=200${user ? `&user_id=${part(user)}` : ''}`, { quiet: true });
export const deleteSession = (id) => call('DELETE', `sessions/${part(id)}`);
export const listMessages = (id, before) =>
  call('GET', `sessions/${part(id)}/messages?limit=100${before ? `&before=${part(before)}` : ''}`);

/** Where a run's events are, behind the cursor if there is one. EventSource sends no key: a ticket stands for it. */
export async function eventsAddress(run, cursor) {
  const address = new URL(`runs/${part(run)}/events?format=events`, BASE);
  if (cursor !== null) address.searchParams.set('after', cursor);
  if (key.current()) address.searchParams.set('ticket', (await call('POST', `runs/${part(run)}/ticket`)).ticket);
  return address;
}
