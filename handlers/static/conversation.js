// The conversation that is open: its messages, the answer that is being written, and what one can do with them.

import * as api from './api.js';
import { deliver } from './delivery.js';
import { copyFrom } from './dom.js';
import { Log } from './log.js';
import { UserView } from './message.js';
import { forget, newRequestId, unsent } from './outbox.js';
import { MISMATCH, sha256 } from './proof.js';
import { Follower } from './run.js';
import { Thread } from './thread.js';
import { Watch } from './watch.js';

const SLOWEST = 16_000; // ms between attempts to reach a run
const UNREACHABLE = 'No connection to the server. Trying again…';
const UNSENT = 'The message above is not sent yet. Try again, or edit it.';
const BUSY = 'An answer is still being written here. Your message waits in the box below.';

export class Conversation {
  #desk;
  #thread = new Thread();
  #log;
  #live = null; // the run that is followed: { run, view, follower, stopping }
  #pending = null; // the message that is not acknowledged yet: { body, view }
  #edited = null; // the message that the next one replaces
  #turn = 0; // grows with every change of ours, so that an answer to an older question can be told
  #titled = true; // until the server says otherwise
  #closed = new AbortController();

  /** `desk` is the page around the conversation; see app.js. */
  constructor(id, desk) {
    this.id = id;
    this.#desk = desk;
    this.#log = new Log(desk.log, this.#thread);
  }

  async open() {
    const { log, older, composer } = this.#desk;
    const { signal } = this.#closed;
    log.addEventListener('click', (event) => this.#clicked(event), { signal });
    older.addEventListener('click', () => this.#loadOlder(), { signal });
    composer.state = 'idle';
    composer.editing = false;
    log.setAttribute('aria-live', 'off'); // the history is not news
    this.#render();
    if (this.id) await this.#sync();
    if (signal.aborted) return;
    this.#desk.scroll.toEnd();
    setTimeout(() => log.setAttribute('aria-live', 'polite'), 0);
    const body = unsent(this.id);
    if (body) this.#deliver(body);
    new Watch(() => this.#look(), signal);
  }

  close() {
    this.#closed.abort();
    this.#live?.follower.close();
  }

  // --- what the reader does ---------------------------------------------------------------------------------------

  send(text) {
    if (this.#pending) {
      this.#desk.say(UNSENT);
      return;
    }
    const body = { message: text, request_id: newRequestId() };
    if (this.id) body.session_id = this.id; // and is somebody's already, who may not be the reader
    else Object.assign(body, this.#desk.beginning);
    if (this.#edited) body.parent_id = this.#edited.parent_id;
    else if (this.#thread.picked) body.parent_id = this.#thread.picked;
    this.#desk.composer.text = '';
    this.#desk.say(null);
    this.cancelEdit();
    this.#deliver(body);
  }

  async stop() {
    const live = this.#live;
    if (!live || live.stopping) return;
    live.stopping = true;
    live.view.stopping(true);
    this.#desk.composer.stopping();
    try {
      await api.cancelRun(live.run.run_id);
    } catch (problem) {
      live.stopping = false;
      if (this.#live !== live) return;
      live.view.stopping(false);
      this.#desk.composer.state = 'answering';
      this.#desk.say(`Not stopped. ${problem.message}`);
    }
  }

  cancelEdit() {
    this.#edited = null;
    this.#desk.composer.editing = false;
  }

  #clicked(event) {
    const button = event.target.closest('button[data-action]');
    if (!button) return;
    const view = this.#viewOf(button.closest('article'));
    switch (button.dataset.action) {
      case 'copy': return copyFrom(button, view.text);
      case 'edit': return this.#edit(view);
      case 'retry': return this.#retry(view.id);
      case 'allow': case 'deny': return this.#decide(button.dataset);
      case 'go': return this.#go(button.dataset.to);
      case 'resend': return this.#deliver(this.#pending.body);
      default: return this.#unsend();
    }
  }

  #decide({ call, action }) {
    const say = (problem) => this.#desk.say(problem ? `Not decided. ${problem.message}` : null);
    api.decideCall(this.#live.run.run_id, call, action === 'allow').then(() => say(null), say);
  }

  #viewOf(article) {
    return article === this.#pending?.view.element ? this.#pending.view : this.#log.get(article.dataset.id);
  }

  #edit(view) {
    if (this.#busy) return;
    this.#edited = this.#thread.get(view.id);
    this.#desk.composer.text = view.text;
    this.#desk.composer.editing = true;
    this.#desk.composer.focus();
  }

  async #retry(answer) {
    if (this.#busy) return;
    const turn = this.#begin();
    this.#desk.say(null);
    this.#desk.composer.state = 'sending';
    try {
      const run = await api.retryRun(this.#thread.get(answer).run_id, newRequestId());
      if (turn === this.#turn) this.#follow(run);
    } catch (problem) {
      if (turn !== this.#turn) return;
      this.#desk.composer.state = 'idle';
      this.#desk.say(problem.message);
      if (problem.code === 'run_in_progress') this.#sync();
    }
  }

  /** Look at the branch that goes through a message. */
  #go(message) {
    this.#thread.pick(message);
    this.#render();
    this.#log.get(message)?.element.querySelector('.switch button:not(:disabled)')?.focus();
  }

  async #loadOlder() {
    try {
      const page = await api.listMessages(this.id, this.#thread.older);
      if (this.#closed.signal.aborted) return;
      this.#thread.takeOlder(page);
      this.#desk.scroll.keep(() => this.#render());
    } catch (problem) {
      this.#desk.say(problem.message);
    }
  }

  // --- sending ----------------------------------------------------------------------------------------------------

  async #deliver(body) {
    const view = this.#pending?.view ?? new UserView('pending', body.message);
    this.#pending = { body, view };
    this.#begin();
    this.#desk.composer.state = 'sending';
    view.pending('');
    this.#render();
    this.#desk.scroll.toEnd();
    try {
      const run = await deliver(body, () => view.pending('Waiting for the connection…'));
      if (!body.session_id) this.#desk.userId = run.user_id;
      if (this.#closed.signal.aborted) this.#desk.changed();
      else this.#delivered(run);
    } catch (problem) {
      if (!this.#closed.signal.aborted) this.#undelivered(problem);
    }
  }

  #delivered(run) {
    const { body, view } = this.#pending;
    const { message_id: id } = run;
    this.#pending = null;
    if (this.#thread.get(id)) {
      this.#restore(); // it had arrived before, and only the answer to that was lost
      return;
    }
    const before = this.#thread.shown;
    const parent = body.parent_id === undefined ? before : body.parent_id;
    view.pending(null);
    this.#log.adopt(view, id);
    this.#thread.put({ message_id: id, parent_id: parent, role: 'user', content: body.message, status: 'completed' });
    this.#thread.leaf = id;
    const created = !this.id;
    if (created) {
      this.id = run.session_id;
      this.#desk.created(this.id);
    }
    this.#follow(run);
    if (created || (!this.#titled && before === null)) this.#desk.name(this.id, body.message);
    else this.#desk.changed();
    if (!created) this.#reload();
  }

  #undelivered(problem) {
    if (problem.code === 'run_in_progress') {
      this.#unsend();
      this.#desk.say(BUSY);
      this.#look();
      return;
    }
    this.#desk.composer.state = 'idle';
    this.#pending.view.pending(`Not sent. ${problem.message}`, true);
    this.#desk.scroll.follow();
  }

  /** Put the message back into the box. It may have arrived after all; then the poll shows it. */
  #unsend() {
    const { body } = this.#pending;
    const { composer } = this.#desk;
    forget(body);
    this.#pending = null;
    composer.text = [body.message, composer.text].filter(Boolean).join('\n\n');
    composer.focus();
    this.#restore();
  }

  /** Nothing is on its way any more. */
  #restore() {
    this.#desk.composer.state = this.#live ? 'answering' : 'idle';
    this.#render();
  }

  // --- the answer -------------------------------------------------------------------------------------------------

  #follow(run) {
    this.#begin();
    this.#live?.follower.close();
    const { answer_id: id, message_id: parent, run_id: runId } = run;
    const view = this.#log.answer(id);
    this.#thread.run({ message_id: id, parent_id: parent, role: 'assistant', content: '', status: 'running', run_id: runId });
    view.begin(run.status, run.model ?? '', () => this.#desk.scroll.follow());
    const live = { run, view, follower: null, stopping: false, losses: 0 };
    this.#live = live;
    this.#desk.composer.state = 'answering';
    this.#render();
    this.#desk.scroll.follow();
    live.follower = new Follower(runId, {
      started: (data) => {
        live.losses = 0;
        if (!live.stopping) view.started(data);
      },
      ...view.hearing(),
      ended: (name, data) => this.#ended(live, name.slice('run.'.length), data),
      lost: () => this.#lost(live),
    });
  }

  #ended({ run, view }, status, data) {
    this.#begin();
    this.#live = null;
    this.#thread.settle(view.text, status);
    const { message: note, retryable: again, usage } = data;
    view.settle(status, { note, again, tokens: usage?.output_tokens });
    this.#settled();
    if (status === 'completed') this.#prove(run, view, data.text_sha256);
  }

  #settled() {
    this.#desk.composer.state = 'idle';
    this.#render();
    this.#desk.scroll.follow();
    this.#desk.changed();
  }

  async #prove({ answer_id: id }, view, expected) {
    let digest = await sha256(view.text);
    if (digest === null) return;
    if (digest !== expected) {
      await this.#reload();
      const message = this.#thread.get(id);
      view.recall(message);
      digest = await sha256(message.content);
    }
    if (digest === expected) view.proven(digest);
    else this.#desk.say(MISMATCH);
  }

  /** EventSource has given up: see what became of the run. */
  async #lost(live) {
    live.view.trouble('Reconnecting…');
    live.losses += 1;
    await new Promise((resolve) => setTimeout(resolve, Math.min(1000 * live.losses, SLOWEST)));
    if (this.#live !== live || this.#closed.signal.aborted) return;
    let session = null;
    try {
      session = await api.getSession(this.id);
    } catch (problem) {
      if (problem.status === 404) this.#desk.gone();
    }
    if (this.#live !== live || this.#closed.signal.aborted) return;
    if (!session || session.active_run?.run_id === live.run.run_id) {
      if (session && live.losses > 1) this.#follow(session.active_run); // the cursor is refused: from the start
      else live.follower.again();
      return;
    }
    live.follower.close();
    this.#live = null;
    this.#thread.settle(live.view.text, 'interrupted'); // unless the history knows better
    await this.#reload();
    live.view.recall(this.#thread.get(live.run.answer_id));
    this.#settled();
  }

  // --- the server's state -----------------------------------------------------------------------------------------

  /** A change of ours begins: answers to questions asked before are stale. */
  #begin() {
    this.#turn += 1;
    return this.#turn;
  }

  get #busy() {
    return this.#live !== null || this.#pending !== null;
  }

  async #look() {
    return this.#busy || !this.id ? true : this.#sync();
  }

  /** Take over what the server says, unless something of ours began meanwhile; whether it answered. */
  async #sync() {
    const turn = this.#turn;
    const stale = () => turn !== this.#turn || this.#closed.signal.aborted;
    try {
      const session = await api.getSession(this.id);
      if (stale()) return true;
      const { active_run: active, leaf_id: leaf } = session;
      this.#titled = Boolean(session.title);
      this.#desk.connection(null);
      this.#desk.opened(session);
      if (this.#thread.fresh || leaf !== this.#thread.leaf || active) {
        const page = await api.listMessages(this.id);
        if (stale()) return true;
        if (!this.#thread.fresh) this.#desk.changed();
        this.#thread.takeLatest(page);
        this.#render();
        this.#desk.scroll.follow();
        if (active && !this.#thread.get(active.answer_id)) this.#follow(active);
        else this.#explain(page.messages.at(-1));
      }
    } catch (problem) {
      if (stale()) return true;
      if (problem.status === 404) this.#desk.gone();
      else this.#desk.connection(problem.passing ? UNREACHABLE : problem.message);
      return problem.status === 404;
    }
    return true;
  }

  /** The history knows that an answer failed; its run knows why. */
  async #explain(message) {
    if (message?.status !== 'failed') return;
    try {
      const { error } = await api.getRun(message.run_id);
      this.#log.get(message.message_id)?.settle('failed', { note: error.message, again: error.retryable });
    } catch {
      return; // the general words stand
    }
  }

  async #reload() {
    try {
      const page = await api.listMessages(this.id);
      if (this.#closed.signal.aborted) return;
      this.#thread.takeLatest(page);
      this.#render();
    } catch {
      return; // the next look at the session finds the difference
    }
  }

  // --- showing ----------------------------------------------------------------------------------------------------

  #render() {
    const { older, welcome } = this.#desk;
    const replaced = this.#pending?.body.parent_id;
    const path = this.#thread.path(replaced === undefined ? this.#thread.shown : replaced);
    const count = this.#log.show(path, this.#pending?.view);
    older.hidden = !this.#thread.older;
    welcome.hidden = count > 0 || this.id !== null;
  }
}
