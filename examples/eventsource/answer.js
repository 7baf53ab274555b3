// One answer on the page. Text is only ever put in as text.

export function h(tag, members = {}, ...children) {
  const element = Object.assign(document.createElement(tag), members);
  element.append(...children);
  return element;
}

const CALL = { 'tool.started': 'is being called…', 'tool.called': 'is running…', 'tool.finished': 'has answered' };

export class Answer {
  #thoughts = h('p');
  #thinking = h('details', { className: 'thinking', hidden: true }, h('summary', { textContent: 'Thoughts' }), this.#thoughts);
  #tools = h('ul', { className: 'tools', ariaLabel: 'Tools' });
  #text = h('div', { className: 'text' });
  #note = h('p', { className: 'note', hidden: true });
  #calls = new Map();
  #decide;
  #retry;

  element = h('article', { className: 'answer', ariaLabel: 'Answer' }, this.#thinking, this.#tools, this.#text, this.#note);

  /** `decide(callId, approved)` and `retry()` are what the reader's clicks lead to. */
  constructor({ decide, retry }) {
    this.#decide = decide;
    this.#retry = retry;
  }

  /** An event of the run that writes this answer. */
  take(name, data) {
    if (name.startsWith('tool.')) this.#take(name, data);
    else if (name === 'text.delta') this.#text.append(data.text);
    else if (name === 'reasoning.delta') {
      this.#thinking.hidden = false;
      this.#thoughts.append(data.text);
    } else if (name.startsWith('run.')) this.end(name.slice('run.'.length), data);
  }

  /** A message of the history, and why it failed if that is known. */
  recall({ content, status, tool_calls: calls }, failure) {
    this.#text.append(content);
    for (const call of calls) {
      this.#take('tool.started', call);
      this.#take('tool.called', call);
      if (call.result !== null || call.error !== null) this.#take('tool.finished', call);
    }
    this.end(status, failure ?? {});
  }

  end(status, { message, retryable = true }) {
    const words = { failed: message ?? 'The answer failed.', cancelled: 'Stopped.', interrupted: 'The answer was interrupted.' };
    this.#note.hidden = !(status in words);
    this.#note.replaceChildren(words[status] ?? '');
    this.#note.classList.toggle('problem', status === 'failed');
    if (status in words && retryable) {
      this.#note.append(' ', h('button', { type: 'button', textContent: 'Try again', onclick: this.#retry }));
    }
  }

  #take(name, { call_id: id, name: tool, arguments: given, text, approved, result, error }) {
    const call = this.#calls.get(id) ?? this.#add(id, tool);
    call.state.textContent = CALL[name] ?? call.state.textContent;
    if (name === 'tool.delta') call.given.append(text);
    if (name === 'tool.called') call.given.textContent = given;
    if (name === 'tool.approval') this.#ask(call, id);
    if (name === 'tool.decided') {
      call.question.replaceChildren();
      call.state.textContent = approved ? CALL['tool.called'] : 'was not allowed';
    }
    if (name === 'tool.finished') {
      if (error) call.state.textContent = 'has failed';
      call.result.textContent = result ?? error;
    }
  }

  #add(id, tool) {
    const state = h('span'), given = h('code'), result = h('code'), question = h('p');
    const head = h('summary', {}, h('b', { textContent: tool }), ' ', state);
    this.#tools.append(h('li', {}, h('details', {}, head, given, result), question));
    const call = { state, given, result, question };
    this.#calls.set(id, call);
    return call;
  }

  #ask(call, id) {
    call.state.textContent = 'asks for your permission';
    call.given.parentElement.open = true; // what it is that one says yes to
    const button = (textContent, approved) =>
      h('button', { type: 'button', textContent, onclick: () => this.#decide(id, approved) });
    call.question.replaceChildren(button('Allow', true), ' ', button('Do not allow', false));
  }
}
