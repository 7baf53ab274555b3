// Messages that the server has not acknowledged yet, each with its request id: sent again, after a lost answer or a
// reload, the same id never makes a second message. Kept per tab.

const KEY = 'parley.outbox';

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? [];
  } catch {
    return [];
  }
}

function write(items) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(items));
  } catch {
    return; // storage is forbidden or full: then a reload while sending loses the message, and only then
  }
}

export function newRequestId() {
  // Not crypto.randomUUID: that exists only on https and localhost.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function keep(body) {
  write([...read().filter((item) => item.request_id !== body.request_id), body]);
}

export function forget(body) {
  write(read().filter((item) => item.request_id !== body.request_id));
}

/** The unacknowledged message of a session (null: of a conversation that has no session yet), or undefined. */
export function unsent(session) {
  return read().find((item) => (item.session_id ?? null) === session);
}
