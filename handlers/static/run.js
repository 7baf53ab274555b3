// Following one run. EventSource reconnects by itself with Last-Event-ID; this adds what it cannot know: which
// events were seen already, when silence is suspicious, and that a hidden tab should give its connection back
// (over HTTP/1.1 a browser has six for all tabs of an origin). Coming back costs nothing: the cursor is exact.

import { eventsAddress } from './api.js';

const SILENCE = 45_000; // ms; the server's pings are comments, which EventSource does not show
const PAUSE = 1_000; // ms, before a ticket is asked for again
const TOOLS = ['tool.started', 'tool.delta', 'tool.called', 'tool.approval', 'tool.decided', 'tool.finished'];
const TERMINAL = ['run.completed', 'run.failed', 'run.cancelled', 'run.interrupted'];

export class Follower {
  #run;
  #on;
  #source = null;
  #opening = null; // what is not the latest any more comes to nothing
  #cursor = null;
  #seen = 0;
  #silence = null;
  #said = ''; // the server's own words about why the stream ends
  #done = false;
  #wake = () => this.#visible();

  /**
   * `on` has `started(data)`, `text(string)`, `reasoning(string)`, `seam()`, `selected(data)`, `tool(name, data)`,
   * `source(data)`, `ended(name, data)`, `trouble(message)` (null: it is over) and `lost()`: the server will not have
   * us, look at the session again.
   */
  constructor(run, on) {
    this.#run = run;
    this.#on = on;
    document.addEventListener('visibilitychange', this.#wake);
    addEventListener('online', this.again);
    this.#visible();
  }

  close() {
    this.#done = true;
    this.#release();
    document.removeEventListener('visibilitychange', this.#wake);
    removeEventListener('online', this.again);
  }

  /** Connect anew, behind the last event that was seen. */
  again = () => this.#open();

  #visible() {
    if (document.hidden) this.#release();
    else this.#open();
  }

  #release() {
    this.#opening = null;
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#source = null;
  }

  async #open() {
    if (this.#done || document.hidden) return;
    this.#release();
    const opening = (this.#opening = {});
    this.#listen();
    let address;
    try {
      address = await eventsAddress(this.#run, this.#cursor);
    } catch (problem) {
      if (opening === this.#opening) this.#refused(problem);
      return;
    }
    if (opening === this.#opening) this.#connect(address);
  }

  #connect(address) {
    const source = new EventSource(address);
    this.#source = source;
    this.#listen();
    source.onopen = () => this.#on.trouble(null);
    source.onerror = () => this.#broken(source);
    source.addEventListener('stream.error', ({ data }) => {
      this.#said = `${JSON.parse(data).message} `; // the stream ends now, and EventSource comes again
    });
    this.#hear('run.started', (data) => this.#on.started(data));
    this.#hear('text.delta', (data) => this.#on.text(data.text));
    this.#hear('reasoning.delta', (data) => this.#on.reasoning(data.text));
    this.#hear('source', (data) => this.#on.source(data));
    this.#hear('seam', () => this.#on.seam());
    this.#hear('model.selected', (data) => this.#on.selected(data));
    for (const name of TOOLS) this.#hear(name, (data) => this.#on.tool(name, data));
    for (const name of TERMINAL) this.#hear(name, (data) => this.#end(name, data));
  }

  #hear(name, act) {
    this.#source.addEventListener(name, ({ lastEventId, data }) => {
      this.#listen();
      const seq = Number(lastEventId.slice(lastEventId.lastIndexOf('.') + 1));
      // Each connection begins with run.started; anything else is taken once, in order.
      if (name !== 'run.started') {
        if (seq <= this.#seen) return;
        this.#seen = seq;
        this.#cursor = lastEventId;
      }
      act(JSON.parse(data));
    });
  }

  #end(name, data) {
    this.close();
    this.#on.ended(name, data);
  }

  /** There is no ticket: in a moment there may be one. */
  #refused(problem) {
    this.#release();
    if (!problem.passing) {
      this.#on.lost();
      return;
    }
    this.#on.trouble('Reconnecting…');
    this.#silence = setTimeout(this.again, PAUSE);
  }

  #broken(source) {
    if (source !== this.#source) return;
    if (source.readyState === EventSource.CLOSED) {
      this.#release();
      this.#on.lost();
    } else {
      this.#on.trouble(`${this.#said}Reconnecting…`);
      this.#said = '';
    }
  }

  /** A connection that died without a word looks like a model that thinks; opening it again is cheap and exact. */
  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(this.again, SILENCE);
  }
}
