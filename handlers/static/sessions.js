// The list of conversations at the side.

import * as api from './api.js';
import { ask } from './dialog.js';
import { h, iconButton } from './dom.js';

const DAY = 86_400_000;
const TITLE_LENGTH = 40;
export const UNTITLED = 'New conversation';

/** A title from a message: its first words. */
export function titleFrom(text) {
  const line = [...text.replace(/\s+/g, ' ').trim()]; // code points: half of an emoji is no text
  if (line.length <= TITLE_LENGTH) return line.join('');
  return `${line.slice(0, TITLE_LENGTH).join('').replace(/\s\S{0,12}$/, '')}…`;
}

export class Sessions {
  #box = document.querySelector('#sessions');
  #items = [];
  #next = null;
  #current = null;
  #busy = false;
  #on;

  /** `on` has `user()`, `removed(id)`, `renamed(session)` and `problem(error)`. */
  constructor(on) {
    this.#on = on;
    this.#box.addEventListener('click', (event) => this.#clicked(event));
  }

  set current(id) {
    this.#current = id;
    this.#render();
  }

  /** Read the list's first page again; pages behind it that are shown stay. */
  async refresh() {
    const user = this.#on.user();
    if (!user || this.#busy) return;
    this.#busy = true;
    try {
      const page = await api.listSessions(user);
      const newest = new Set(page.sessions.map(({ session_id: id }) => id));
      const all = this.#items.length > page.sessions.length && page.next;
      this.#items = [...page.sessions, ...(all ? this.#items.filter(({ session_id: id }) => !newest.has(id)) : [])];
      if (!all) this.#next = page.next;
      this.#render();
    } catch (error) {
      this.#on.problem(error);
    } finally {
      this.#busy = false;
    }
  }

  /** Take over a session's title, without asking. */
  update(session) {
    const place = this.#items.findIndex(({ session_id: id }) => id === session.session_id);
    if (place < 0 || this.#items[place].title === session.title) return;
    this.#items[place] = { ...this.#items[place], ...session };
    this.#render();
  }

  remove(id) {
    this.#items = this.#items.filter(({ session_id: other }) => other !== id);
    this.#render();
  }

  async #more() {
    try {
      const page = await api.listSessions(this.#on.user(), this.#next);
      this.#items.push(...page.sessions);
      this.#next = page.next;
      this.#render();
    } catch (error) {
      this.#on.problem(error);
    }
  }

  #clicked(event) {
    const button = event.target.closest('button');
    if (!button) return;
    const id = button.closest('li')?.dataset.id;
    const session = this.#items.find(({ session_id: other }) => other === id);
    if (button.dataset.action === 'rename') this.#rename(session);
    else if (button.dataset.action === 'delete') this.#delete(session);
    else this.#more();
  }

  async #rename(session) {
    const title = await ask({ title: 'Rename conversation', value: session.title ?? '', confirm: 'Rename' });
    if (!title) return;
    try {
      const renamed = await api.renameSession(session.session_id, title);
      this.update(renamed);
      this.#on.renamed(renamed);
    } catch (error) {
      this.#on.problem(error);
    }
  }

  async #delete(session) {
    const sure = await ask({
      title: 'Delete this conversation?',
      text: `“${session.title ?? UNTITLED}” and all its messages will be gone for good.`,
      confirm: 'Delete',
      danger: true,
    });
    if (!sure) return;
    try {
      await api.deleteSession(session.session_id);
    } catch (error) {
      if (error.status !== 404) {
        this.#on.problem(error);
        return;
      }
    }
    this.remove(session.session_id);
    this.#on.removed(session.session_id);
  }

  #render() {
    // Redrawing must not take the focus from who walks through the list.
    const focused = document.activeElement?.closest('#sessions li')?.dataset.id;
    const action = document.activeElement?.dataset?.action ?? '';
    const groups = byAge(this.#items);
    const parts = [...groups].map(([name, items]) =>
      h('section', {}, h('h3', { textContent: name }), h('ul', {}, ...items.map((item) => this.#row(item)))));
    if (!parts.length) parts.push(h('p', { class: 'none', textContent: 'Your conversations will be kept here.' }));
    if (this.#next) parts.push(h('button', { type: 'button', class: 'plain more', textContent: 'Show more' }));
    this.#box.replaceChildren(...parts);
    if (focused) {
      const row = this.#box.querySelector(`li[data-id="${CSS.escape(focused)}"]`);
      row?.querySelector(action ? `[data-action="${action}"]` : 'a')?.focus();
    }
  }

  #row({ session_id: id, title }) {
    const shown = title || UNTITLED;
    const current = id === this.#current;
    return h('li', { 'data-id': id },
      h('a', { href: `#${id}`, title: shown, 'aria-current': current ? 'page' : null, textContent: shown }),
      iconButton('edit', `Rename “${shown}”`, { 'data-action': 'rename' }),
      iconButton('trash', `Delete “${shown}”`, { 'data-action': 'delete' }));
  }
}

function age({ updated_at: updated }) {
  const today = new Date().setHours(0, 0, 0, 0);
  const when = new Date(updated).getTime();
  if (when >= today) return 'Today';
  if (when >= today - DAY) return 'Yesterday';
  return when >= today - 7 * DAY ? 'This week' : 'Earlier';
}

function byAge(items) {
  const groups = new Map();
  for (const item of items) groups.set(age(item), [...(groups.get(age(item)) ?? []), item]);
  return groups;
}
