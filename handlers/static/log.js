// The shown branch as elements, one view a message. A view stays as long as its conversation is open: what was
// rendered once, a long answer above all, is not rendered again.

import { arrange } from './dom.js';
import { AnswerView, UserView } from './message.js';

export class Log {
  #box;
  #thread;
  #views = new Map();

  constructor(box, thread) {
    this.#box = box;
    this.#thread = thread;
  }

  get(id) {
    return this.#views.get(id);
  }

  /** The view of an answer that is about to be written. */
  answer(id) {
    const view = this.#views.get(id) ?? new AnswerView(id);
    this.#views.set(id, view);
    return view;
  }

  /** The server has given a message its id. */
  adopt(view, id) {
    view.rename(id);
    this.#views.set(id, view);
  }

  /** Show these messages, and behind them the view of one that is still on its way; how many there are. */
  show(messages, pending) {
    const views = messages.filter(({ role }) => role !== 'system').map((message) => this.#view(message));
    if (pending) views.push(pending);
    arrange(this.#box, views.map(({ element }) => element));
    return views.length;
  }

  #view(message) {
    const { message_id: id, role, content } = message;
    let view = this.#views.get(id);
    if (!view) {
      view = role === 'user' ? new UserView(id, content) : new AnswerView(id);
      if (role !== 'user') view.recall(message);
      this.#views.set(id, view);
    }
    view.alternatives(this.#thread.siblings(message));
    return view;
  }
}
