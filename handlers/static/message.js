// One message of the conversation as an element. Buttons carry `data-action`; the conversation listens.

import { Calls } from './calls.js';
import { h, icon, iconButton } from './dom.js';
import { GrowingMarkdown } from './growing.js';
import { markdown } from './markdown.js';
import { Sources } from './sources.js';

const WORDS = {
  queued: 'waiting for its turn',
  waiting: 'waiting for the first word',
  running: 'writing',
  stopping: 'stopping…',
  completed: '',
  failed: 'failed',
  cancelled: 'stopped',
  interrupted: 'interrupted',
};

// What is said when nothing better is known: the history has only the status.
const ENDINGS = {
  failed: { note: 'This answer failed.', again: true },
  interrupted: { note: 'The server was interrupted while it wrote this answer.', again: true },
};

class MessageView {
  constructor(id, label, kind) {
    this.actions = h('div', { class: 'actions' });
    // With a heading each, screen readers can go from message to message.
    this.element = h('article', { class: kind, 'data-id': id }, h('h2', { class: 'unseen', textContent: label }));
    this.id = id;
  }

  rename(id) {
    this.id = id;
    this.element.dataset.id = id;
  }

  /** Show which of its alternatives this message is, if there are several. */
  alternatives(ids) {
    this.actions.querySelector('.switch')?.remove();
    const place = ids.indexOf(this.id);
    if (ids.length < 2 || place < 0) return;
    const step = (name, label, to) =>
      iconButton(name, label, { 'data-action': 'go', 'data-to': to ?? '', disabled: to === undefined });
    this.actions.append(
      h('span', { class: 'switch' },
        step('left', 'Previous version', ids[place - 1]),
        h('span', { class: 'count', textContent: `${place + 1} of ${ids.length}` }),
        step('right', 'Next version', ids[place + 1])),
    );
  }
}

export class UserView extends MessageView {
  #note = h('p', { class: 'note', role: 'status', hidden: true });

  constructor(id, text) {
    super(id, 'You', 'user');
    this.text = text;
    this.actions.append(
      iconButton('copy', 'Copy message', { 'data-action': 'copy' }),
      iconButton('edit', 'Edit and send again', { 'data-action': 'edit' }),
    );
    this.element.append(h('div', { class: 'said', dir: 'auto', textContent: text }), this.#note, this.actions);
  }

  /** Not acknowledged yet: `words` say how it goes, `failed` offers what can be done about it. */
  pending(words, failed = false) {
    this.element.classList.toggle('pending', words !== null);
    this.#note.hidden = !words;
    this.#note.classList.toggle('problem', failed);
    this.#note.replaceChildren(words ?? '');
    if (!failed) return;
    this.#note.append(
      h('button', { type: 'button', class: 'plain', 'data-action': 'resend', textContent: 'Try again' }),
      h('button', { type: 'button', class: 'plain', 'data-action': 'unsend', textContent: 'Edit' }),
    );
  }
}

export class AnswerView extends MessageView {
  #prose = h('div', { class: 'prose', dir: 'auto' });
  #meta = h('p', { class: 'meta' });
  #note = h('div', { class: 'note', role: 'status', hidden: true });
  #calls = new Calls(this.#prose);
  #sources = new Sources();
  #reasoning = null;
  #growing = null;
  #pieces = [];
  #facts = { status: 'completed', model: '', speaker: null, tokens: null, seams: 0, proof: null, trouble: null };

  constructor(id) {
    super(id, 'Answer', 'answer');
    this.actions.append(
      iconButton('copy', 'Copy answer', { 'data-action': 'copy' }),
      iconButton('retry', 'Another answer', { 'data-action': 'retry' }),
    );
    const foot = h('footer', {}, this.actions, this.#meta);
    this.element.append(this.#prose, this.#sources.element, this.#note, foot);
  }

  get text() {
    return this.#pieces.join('');
  }

  /** A message of the history. */
  recall({ content, status, tool_calls: calls = [], sources = [] }) {
    this.#calls.recall(calls);
    this.#sources.recall(sources);
    this.#pieces = [content];
    this.#prose.replaceChildren();
    for (const node of markdown(content)) this.#prose.append(node);
    this.settle(status);
  }

  /** The beginning of a live answer; also when it has to begin anew. `shown` is called when the text has grown. */
  begin(status, model, shown) {
    this.#pieces = [];
    this.#calls.clear();
    this.#sources.clear();
    this.#prose.replaceChildren();
    this.#growing = new GrowingMarkdown(this.#prose, shown);
    this.element.setAttribute('aria-busy', 'true');
    this.element.classList.add('live');
    this.#note.hidden = true;
    this.#show({ status: status === 'queued' ? 'queued' : 'waiting', model, speaker: null, seams: 0, proof: null });
  }

  /** What the follower of the run tells of it, but its beginning and its end. */
  hearing() {
    return {
      text: (text) => this.append(text),
      reasoning: (text) => this.reason(text),
      seam: () => this.seam(),
      selected: ({ model }) => this.selected(model),
      tool: (name, data) => this.tool(name, data),
      source: (data) => this.#sources.take(data),
      trouble: (words) => this.trouble(words),
    };
  }

  /** The run has started, or says so again after a reconnect. */
  started({ status, model }) {
    this.#show({ status: this.#pieces.length ? 'running' : status === 'queued' ? 'queued' : 'waiting', model });
  }

  append(text) {
    this.#pieces.push(text);
    this.#growing.append(text);
    if (this.#facts.status === 'waiting' || this.#facts.status === 'queued') this.#show({ status: 'running' });
  }

  reason(text) {
    if (!this.#reasoning) {
      this.#reasoning = h('div', { class: 'thoughts' });
      const summary = h('summary', { textContent: 'Reasoning' });
      this.#prose.before(h('details', { class: 'reasoning' }, summary, this.#reasoning));
      this.#reasoning.append('');
    }
    this.#reasoning.firstChild.appendData(text);
  }

  tool(name, data) {
    this.#calls.take(name, data);
    if (this.#facts.status === 'waiting' || this.#facts.status === 'queued') this.#show({ status: 'running' });
  }

  seam() {
    this.#show({ seams: this.#facts.seams + 1 });
  }

  /** Another model than the run's own speaks from here on. */
  selected(model) {
    this.#show({ speaker: model });
  }

  /** What is wrong with the connection, in words; null when nothing is. */
  trouble(words) {
    if (words !== this.#facts.trouble) this.#show({ trouble: words });
  }

  stopping(yes) {
    this.#show({ status: yes ? 'stopping' : 'running' });
  }

  /** The end: `note` says in a sentence what went wrong, `again` offers another try. */
  settle(status, { note = ENDINGS[status]?.note, again = ENDINGS[status]?.again, tokens = null } = {}) {
    this.#growing?.flush();
    this.#growing = null;
    this.element.removeAttribute('aria-busy');
    this.element.classList.remove('live');
    this.#note.hidden = !note;
    this.#note.classList.toggle('problem', status === 'failed');
    this.#note.replaceChildren(h('p', {}, note));
    if (again) {
      this.#note.append(h('button', { type: 'button', class: 'plain', 'data-action': 'retry', textContent: 'Try again' }));
    }
    this.#show({ status, tokens, trouble: null });
  }

  /** Show that the text is, or is not, the one that the server stored. */
  proven(sha256) {
    this.#show({ proof: sha256 });
  }

  #show(changes) {
    const facts = Object.assign(this.#facts, changes);
    this.element.dataset.status = facts.status;
    const words = [facts.speaker ?? facts.model, facts.trouble ?? WORDS[facts.status]];
    if (facts.tokens !== null) words.push(`${facts.tokens} ${facts.tokens === 1 ? 'token' : 'tokens'}`);
    if (facts.seams) words.push('continued after a restart');
    this.#meta.classList.toggle('trouble', facts.trouble !== null);
    this.#meta.replaceChildren(...words.filter(Boolean).map((text) => h('span', { textContent: text })));
    if (facts.proof) {
      const title = `What you read is what is stored. SHA-256 ${facts.proof}`;
      this.#meta.append(h('span', { class: 'verified', title }, icon('check'), 'verified'));
    }
  }
}
