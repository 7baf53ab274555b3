// Where one writes: Enter sends, Shift+Enter breaks the line; while an answer is being written the button stops it.

export class Composer {
  #form = document.querySelector('#composer');
  #field = document.querySelector('#message');
  #send = document.querySelector('#send');
  #stop = document.querySelector('#stop');
  #editing = document.querySelector('#editing');
  #state = 'idle';

  /** `on` has `send(text)`, `stop()` and `cancelEdit()`. */
  constructor(on) {
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit(on);
    });
    this.#field.addEventListener('keydown', (event) => {
      // While an input method is composing, Enter chooses a word. 229: Safari says so only in this way.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit(on);
    });
    this.#field.addEventListener('input', () => this.#fit());
    this.#stop.addEventListener('click', () => on.stop());
    this.#editing.querySelector('button').addEventListener('click', () => on.cancelEdit());
    this.#fit();
  }

  /** `idle`, `sending` or `answering`. */
  set state(state) {
    const stopHadFocus = document.activeElement === this.#stop;
    this.#state = state;
    this.#stop.hidden = state !== 'answering';
    this.#stop.disabled = false;
    this.#send.hidden = state === 'answering';
    this.#fit();
    if (stopHadFocus && this.#stop.hidden) this.focus();
  }

  stopping() {
    this.#stop.disabled = true;
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#fit();
  }

  /** Whether the text is a new version of an earlier message. */
  get editing() {
    return !this.#editing.hidden;
  }

  set editing(editing) {
    this.#editing.hidden = !editing;
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  #submit(on) {
    const text = this.#field.value;
    if (this.#state === 'idle' && text.trim()) on.send(text);
  }

  #fit() {
    this.#send.disabled = this.#state !== 'idle' || !this.#field.value.trim();
    if (CSS.supports('field-sizing', 'content')) return;
    this.#field.style.height = 'auto';
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }
}
