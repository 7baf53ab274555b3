// Which documents the answers are taken from: a choice in the page's head, where there are any documents.

import { listDocuments, setCollection } from './api.js';
import { h } from './dom.js';

export class Collection {
  #label = document.querySelector('#collection');
  #select = this.#label.querySelector('select');
  #session = null;
  #kept = ''; // what the session has

  /** `problem(words)` is called when the choice cannot be stored. */
  constructor(problem) {
    this.#select.addEventListener('change', () => this.#change(problem));
  }

  /** What a new conversation is to be answered from; null where the server knows it, or nothing is chosen. */
  get wanted() {
    return this.#session === null && this.#select.value ? this.#select.value : null;
  }

  /** Another conversation is open: none yet, or this session. */
  open(session) {
    this.#session = session?.session_id ?? null;
    this.#kept = session?.collection ?? '';
    if (this.#kept) this.#offer(this.#kept);
    this.#select.value = this.#kept;
    this.#show();
  }

  /** The session that has begun with what was wanted. */
  began(id) {
    this.#kept = this.#select.value;
    this.#session = id;
  }

  /** Ask which there are: of the user's documents and those that are shared, the latest. */
  async refresh(user) {
    try {
      const { documents } = await listDocuments(user);
      for (const { collection, user_id: owner } of documents) if (user || owner === null) this.#offer(collection);
    } catch {
      // Without a list there is no choice; whoever writes will hear what is wrong.
    }
    this.#show();
  }

  #offer(name) {
    const known = [...this.#select.options].some(({ value }) => value === name);
    if (!known) this.#select.append(h('option', { value: name, textContent: name }));
  }

  #show() {
    this.#label.hidden = this.#select.options.length < 2;
  }

  async #change(problem) {
    const session = this.#session;
    if (session === null) return;
    const chosen = this.#select.value;
    try {
      await setCollection(session, chosen || null);
      if (session === this.#session) this.#kept = chosen;
    } catch (error) {
      if (session === this.#session) this.#select.value = this.#kept;
      problem(error.message);
    }
  }
}
