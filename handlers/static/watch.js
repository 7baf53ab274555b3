// Asks again and again while the page is visible. Another tab or device may write in the same conversation; a small
// GET every two seconds learns of it without holding one of the browser's six connections.

const PACE = 2000; // ms
const SLOWEST = 16_000; // ms, when nobody answers

export class Watch {
  #look;
  #signal;
  #timer = null;
  #failures = 0;

  /** `look` resolves to whether the server answered. Ends with `signal`. */
  constructor(look, signal) {
    this.#look = look;
    this.#signal = signal;
    document.addEventListener('visibilitychange', () => this.now(), { signal });
    addEventListener('online', () => this.now(), { signal });
    signal.addEventListener('abort', () => clearTimeout(this.#timer));
    this.#wait();
  }

  async now() {
    clearTimeout(this.#timer);
    if (this.#signal.aborted || document.hidden) return; // becoming visible starts it again
    this.#failures = (await this.#look()) ? 0 : this.#failures + 1;
    this.#wait();
  }

  #wait() {
    clearTimeout(this.#timer);
    if (this.#signal.aborted) return;
    this.#timer = setTimeout(() => this.now(), Math.min(PACE * 2 ** this.#failures, SLOWEST));
  }
}
