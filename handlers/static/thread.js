// The messages of a session as a tree, of which one branch is shown.

export class Thread {
  #messages = new Map();
  #begun = false;
  leaf = null; // the last message of the server's active branch
  older = null; // the cursor of the page before the oldest known message
  picked = null; // the end of the branch that the reader chose to look at instead
  #running = null; // the answer that is being written; the server lists it when it is complete

  get(id) {
    return this.#messages.get(id);
  }

  /** Whether nothing is known yet. */
  get fresh() {
    return !this.#begun;
  }

  /** Take the newest page. If so much happened that it does not reach what is known, it replaces that. */
  takeLatest({ messages, leaf_id: leaf, next }) {
    const reaches = !next || messages.some(({ message_id: id }) => this.#messages.has(id));
    if (this.fresh || !reaches) {
      this.#messages.clear();
      this.older = next;
    }
    this.#begun = true;
    this.leaf = leaf;
    for (const message of messages) this.put(message);
    if (this.#running && !this.get(this.#running.message_id)) this.put(this.#running);
  }

  takeOlder({ messages, next }) {
    const known = this.#messages;
    this.#messages = new Map(messages.map((message) => [message.message_id, message]));
    for (const [id, message] of known) this.#messages.set(id, message);
    this.older = next;
  }

  put(message) {
    this.#messages.set(message.message_id, message);
  }

  /** An answer is being written: its branch is shown. */
  run(answer) {
    this.#running = answer;
    this.picked = null;
    this.put(answer);
  }

  /** The answer has come to its end. */
  settle(content, status) {
    this.put({ ...this.#running, content, status });
    this.leaf = this.#running.message_id;
    this.#running = null;
  }

  /** The end of the branch that is to be shown. */
  get shown() {
    return this.get(this.picked) ? this.picked : this.#active;
  }

  get #active() {
    if (this.#running) return this.#running.message_id;
    // A question whose answer does not count: show the last attempt.
    return this.get(this.leaf)?.role === 'user' ? this.end(this.leaf) : this.leaf;
  }

  /** Look at the branch that goes through a message. */
  pick(id) {
    this.picked = this.end(id);
    if (this.picked === this.#active) this.picked = null;
  }

  /** From the oldest known ancestor down to `id`. */
  path(id) {
    const found = [];
    for (let message = this.get(id); message; message = this.get(message.parent_id)) found.unshift(message);
    return found;
  }

  /** The ids of the alternatives to a message, itself included, oldest first. */
  siblings({ parent_id: parent, role }) {
    const all = [...this.#messages.values()];
    return all.filter((other) => other.parent_id === parent && other.role === role).map((other) => other.message_id);
  }

  /** The newest end of the branch that goes through `id`. */
  end(id) {
    let last = id;
    // Children always come behind their parents, so one pass finds the newest line of descent.
    for (const message of this.#messages.values()) if (message.parent_id === last) last = this.#newestChild(last);
    return last;
  }

  #newestChild(id) {
    let newest = id;
    for (const message of this.#messages.values()) if (message.parent_id === id) newest = message.message_id;
    return newest;
  }
}
