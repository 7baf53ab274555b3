// The tools that an answer has called: each with its arguments, what it answered, and a question if it asks first.

import { h } from './dom.js';

const WORDS = { written: 'writing the call…', made: 'running…', asked: 'asks for your permission', denied: 'not allowed' };

export class Calls {
  #list = h('ul', { class: 'calls', 'aria-label': 'Tools' });
  #calls = new Map();
  #prose;

  /** `prose` is what the list stands above, as soon as there is a call. */
  constructor(prose) {
    this.#prose = prose;
  }

  /** A message of the history. */
  recall(calls) {
    this.clear();
    for (const { call_id: id, name, arguments: given, result, error } of calls) {
      this.take('tool.started', { call_id: id, name });
      this.take('tool.called', { call_id: id, name, arguments: given });
      if (result !== null || error !== null) this.take('tool.finished', { call_id: id, result, error });
    }
  }

  clear() {
    this.#calls.clear();
    this.#list.replaceChildren();
    this.#list.remove();
  }

  /** An event of the run whose name begins with `tool.`. */
  take(event, { call_id: id, name, arguments: given, text, approved, result, error }) {
    const call = this.#calls.get(id) ?? this.#add(id, name);
    switch (event) {
      case 'tool.delta': call.given.textContent += text; break;
      case 'tool.called': call.given.textContent = given; this.#say(call, 'made'); break;
      case 'tool.approval': this.#ask(call, id); break;
      case 'tool.decided': call.question.replaceChildren(); this.#say(call, approved ? 'made' : 'denied'); break;
      case 'tool.finished':
        call.answer.textContent = result ?? error ?? '';
        call.element.classList.toggle('problem', Boolean(error));
        call.state.textContent = error ? 'failed' : 'done';
        break;
      default: // tool.started
    }
  }

  #add(id, name) {
    if (!this.#list.isConnected) this.#prose.before(this.#list);
    const state = h('span', { class: 'state' });
    const given = h('code', { class: 'given' });
    const answer = h('code', { class: 'result' });
    const question = h('span', { class: 'question' });
    const summary = h('summary', {}, h('b', { textContent: name }), ' ', state);
    const element = h('li', {}, h('details', {}, summary, given, answer), question);
    this.#list.append(element);
    const call = { element, state, given, answer, question };
    this.#calls.set(id, call);
    this.#say(call, 'written');
    return call;
  }

  #say(call, state) {
    call.state.textContent = WORDS[state];
  }

  #ask(call, id) {
    this.#say(call, 'asked');
    call.element.querySelector('details').open = true; // what it is that one says yes to
    const button = (action, label) =>
      h('button', { type: 'button', class: 'plain', 'data-action': action, 'data-call': id, textContent: label });
    call.question.replaceChildren(button('allow', 'Allow'), button('deny', 'Do not allow'));
  }
}
