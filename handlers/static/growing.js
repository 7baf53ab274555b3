// Markdown that grows while it is read. Finished blocks are rendered once and never touched again; only the last,
// open block is, and only as often as it is cheap: after a pass that took t, nothing happens for PAUSE * t. So a
// long answer costs about as much as its length, and at most a fifth of the time goes into rendering.

import { parse, render, split } from './markdown.js';

const PAUSE = 4;

export class GrowingMarkdown {
  #root;
  #shown;
  #tail = ''; // the text of the open blocks
  #open = []; // their nodes
  #timer = null;
  #frame = null;
  #idleUntil = 0;

  /** `shown` is called after each pass, for whoever keeps the end in view. */
  constructor(root, shown = () => {}) {
    this.#root = root;
    this.#shown = shown;
  }

  append(text) {
    this.#tail += text;
    if (this.#timer !== null || this.#frame !== null) return;
    const wait = this.#idleUntil - performance.now();
    if (wait > 0) this.#timer = setTimeout(() => this.#schedule(), wait);
    else this.#schedule();
  }

  /** Show everything now: the text is complete, or somebody needs it. */
  flush() {
    clearTimeout(this.#timer);
    cancelAnimationFrame(this.#frame);
    this.#pass();
  }

  #schedule() {
    this.#timer = null;
    this.#frame = requestAnimationFrame(() => this.#pass());
  }

  #pass() {
    this.#timer = this.#frame = null;
    const began = performance.now();
    const lines = split(this.#tail);
    const blocks = parse(lines, 0);
    const final = countFinal(blocks, lines.length - 1);
    this.#replace(blocks, final);
    const rest = blocks[final];
    if (rest && rest.start > 0) this.#tail = dropLines(this.#tail, rest.start);
    this.#shown(); // asks for the new height, so that the layout's time counts too
    const end = performance.now();
    this.#idleUntil = end + PAUSE * (end - began);
  }

  #replace(blocks, final) {
    // The tail begins with the first open block, so only that one can be what it was before.
    const kept = blocks.length > 0 && this.#reuse(blocks[0], this.#open[0]) ? this.#open[0] : null;
    for (const node of this.#open) if (node !== kept) node.remove();
    const nodes = blocks.map((block, index) => (index === 0 && kept) || render(block));
    for (const node of nodes) if (node !== kept) this.#root.append(node);
    this.#open = nodes.slice(final);
  }

  /** Code that grows keeps its node, so that a selection and the copy button survive. */
  #reuse(block, node) {
    if (block.kind !== 'code' || !node?.matches('.code')) return false;
    node.querySelector('.code-head span').textContent = block.language;
    const code = node.querySelector('code');
    const shown = code.firstChild?.data ?? '';
    if (shown && block.text.startsWith(shown)) code.firstChild.appendData(block.text.slice(shown.length));
    else code.textContent = block.text;
    return true;
  }
}

/**
 * A block is final once the line that begins the next one is complete. Before, it may still turn out to be more of
 * the same: a `2` may become `2. the next item`.
 */
function countFinal(blocks, completeLines) {
  let final = 0;
  while (final + 1 < blocks.length && blocks[final + 1].start < completeLines) final += 1;
  return final;
}

function dropLines(text, count) {
  let at = 0;
  for (let line = 0; line < count; line += 1) at = text.indexOf('\n', at) + 1;
  return text.slice(at);
}
