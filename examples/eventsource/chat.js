// A conversation: its history, the answer that is being written, and what the reader says next.
//
// The conversation's id is in the address, behind the #: reload the page in the middle of an answer, or open its
// address elsewhere, and the answer goes on.

import { Answer, h } from './answer.js';
import { call, follow } from './api.js';

const byId = (id) => document.getElementById(id);
const AGAIN_MS = 2000;
const messages = byId('messages'), composer = byId('composer'), field = byId('message');

let session = null; // its id; null until the first message is stored
let run = null; // the id of the run that is being followed
let leave = () => {}; // ends following it
let again; // the timer of the next try to load
let unsent = null; // the last message that was not acknowledged, and its key: the same again is stored once

/** The messages that lead to the one that was said last. Other answers to the same question are in none of them. */
function branch({ messages: all, leaf_id: leaf }) {
  const known = new Map(all.map((message) => [message.message_id, message]));
  const found = [];
  for (let message = known.get(leaf); message; message = known.get(message.parent_id)) found.unshift(message);
  return found;
}

/** Show the conversation that the address names; ask again until the server can say what it is. */
async function load() {
  leave();
  clearTimeout(again);
  running(null);
  const opened = location.hash.slice(1) || null;
  if (opened !== session) messages.replaceChildren();
  session = opened;
  try {
    const conversation = session && (await recalled(session));
    if (opened !== session) return;
    say('');
    complain(null);
    messages.replaceChildren();
    if (conversation) showAll(conversation);
  } catch (error) {
    complain(error);
    if (!(error.status < 500)) again = setTimeout(load, AGAIN_MS);
  }
}

/** What has been said, and the run that is answering. */
async function recalled(id) {
  const path = `/sessions/${encodeURIComponent(id)}`;
  // First the run, then the messages: an answer that ends between the two is in both, and not in neither.
  const { active_run: active } = await call('GET', path);
  const messages = branch(await call('GET', `${path}/messages?limit=200`));
  const said = messages.filter(({ run_id: run }) => !run || run !== active?.run_id);
  const last = said.at(-1);
  const failure = last?.status === 'failed' ? (await call('GET', `/runs/${last.run_id}`)).error : null;
  return { said, active, failure };
}

function showAll({ said, active, failure }) {
  for (const message of said) {
    if (message.role === 'user') show(message.content);
    else add(message.run_id).recall(message, message === said.at(-1) ? failure : null);
  }
  if (active) write(active);
}

async function send(text) {
  complain(null);
  composer.inert = true;
  if (unsent?.text !== text) unsent = { text, key: key() };
  // All that are begun in this browser are the same user's; one whose address came from elsewhere is somebody's already.
  const begins = session === null;
  const whose = begins ? { user_id: localStorage.getItem('user_id') ?? undefined } : { session_id: session };
  const body = { message: text, ...whose };
  try {
    const started = await call('POST', '/chat', body, { 'Idempotency-Key': unsent.key, Prefer: 'respond-async' });
    unsent = null;
    if (begins) localStorage.setItem('user_id', started.user_id);
    session = started.session_id;
    history.replaceState(null, '', `#${session}`);
    field.value = '';
    show(text);
    write(started);
  } catch (error) {
    complain(error);
  } finally {
    composer.inert = false;
    field.focus();
  }
}

/** Show an answer while it is being written, from its first word on. */
function write({ run_id: id, events_url: url }) {
  const answer = add(id);
  running(id);
  answer.element.ariaBusy = 'true';
  const take = (name, data) => {
    const atEnd = innerHeight + scrollY > document.body.scrollHeight - 80;
    answer.take(name, data);
    if (name.startsWith('run.')) {
      running(null);
      answer.element.ariaBusy = 'false';
      say(name === 'run.completed' ? 'The answer is complete.' : '');
    }
    if (atEnd) scrollTo(0, document.body.scrollHeight);
  };
  const connected = (is) => say(is ? 'Answering…' : 'The connection is lost. Reconnecting…');
  const refused = () => {
    connected(false);
    again = setTimeout(load, AGAIN_MS);
  };
  leave = follow(url, { take, connected, refused });
}

/** Another answer to the same message, in the place of this one. */
async function retry(id, element) {
  complain(null);
  try {
    const started = await call('POST', `/runs/${id}/retry`, {}, { Prefer: 'respond-async' });
    element.remove();
    write(started);
  } catch (error) {
    complain(error);
  }
}

async function ask(path, body) {
  try {
    await call('POST', path, body);
  } catch (error) {
    complain(error);
  }
}

function add(id) {
  const answer = new Answer({
    decide: (callId, approved) => ask(`/runs/${id}/approvals/${encodeURIComponent(callId)}`, { approved }),
    retry: () => retry(id, answer.element),
  });
  messages.append(answer.element);
  return answer;
}

function show(text) {
  messages.append(h('article', { className: 'said', ariaLabel: 'You', textContent: text }));
  scrollTo(0, document.body.scrollHeight);
}

function running(id) {
  run = id;
  byId('stop').hidden = id === null;
  byId('send').hidden = id !== null;
}

function say(text) {
  byId('state').textContent = text;
}

function complain(error) {
  byId('problem').hidden = error === null;
  byId('problem').textContent = error?.message ?? '';
}

/** crypto.randomUUID is there only on localhost and with https. */
const key = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (number) => number.toString(36)).join('-');

composer.addEventListener('submit', (event) => {
  event.preventDefault();
  if (run === null && field.value.trim()) send(field.value);
});
field.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});
byId('stop').addEventListener('click', () => ask(`/runs/${run}/cancel`));
addEventListener('hashchange', load);
load();
