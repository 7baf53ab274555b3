// Keeps the end in view while text arrives, but only for a reader who is at the end.

const NEAR = 24; // px that still count as the end

export class Scroll {
  #box;
  #button;
  #sticks = true;
  #last = 0;

  constructor(box, button) {
    this.#box = box;
    this.#button = button;
    box.addEventListener('scroll', () => this.#moved(), { passive: true });
    button.addEventListener('click', () => this.toEnd());
    new ResizeObserver(() => this.follow()).observe(box);
  }

  /** The content has grown. */
  follow() {
    if (this.#sticks) this.#box.scrollTop = this.#box.scrollHeight;
    this.#button.hidden = this.#atEnd();
  }

  toEnd() {
    this.#sticks = true;
    this.follow();
  }

  /** Run `change`, which adds content above, without moving what is being read. */
  keep(change) {
    const below = this.#box.scrollHeight - this.#box.scrollTop;
    change();
    this.#box.scrollTop = this.#box.scrollHeight - below;
  }

  #moved() {
    const top = this.#box.scrollTop;
    if (this.#atEnd()) this.#sticks = true;
    else if (top < this.#last) this.#sticks = false;
    this.#last = top;
    this.#button.hidden = this.#atEnd();
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    return scrollHeight - scrollTop - clientHeight <= NEAR;
  }
}
