// What an answer is from: footnotes below it that open. Nothing is loaded from their addresses until one is followed.

import { h } from './dom.js';

const PAGE = /^https?:\/\//i; // the server keeps no other; a page of an older one may still have to be looked at

export class Sources {
  #list = h('ol', {});
  #summary = h('summary', {});
  #element = h('details', { class: 'sources', hidden: true }, this.#summary, this.#list);

  get element() {
    return this.#element;
  }

  /** Those of a message of the history. */
  recall(sources) {
    this.clear();
    for (const source of sources) this.take(source);
  }

  clear() {
    this.#list.replaceChildren();
    this.#element.hidden = true;
  }

  take({ url, title, document: file, place, text }) {
    const words = title ?? url ?? file ?? 'Untitled';
    const link = PAGE.test(url)
      ? h('a', { href: url, target: '_blank', rel: 'noopener noreferrer nofollow', dir: 'auto', textContent: words })
      : h('b', { dir: 'auto', textContent: words });
    const from = [url ? hostOf(url) : null, place].filter(Boolean).join(', ');
    const whence = from ? h('span', { class: 'whence', dir: 'auto', textContent: ` ${from}` }) : null;
    const quote = text ? h('blockquote', { dir: 'auto', textContent: text }) : null;
    // A passage is as long as some paragraphs: it opens by itself. What a page is quoted with is a line or two.
    const parts = file && quote ? [h('details', {}, h('summary', {}, link, whence), quote)] : [link, whence, quote];
    this.#list.append(h('li', {}, ...parts));
    const count = this.#list.children.length;
    this.#summary.textContent = count === 1 ? '1 source' : `${count} sources`;
    this.#element.hidden = false;
  }
}

/** Where a link really leads, whatever its words say. */
function hostOf(url) {
  try {
    return new URL(url).host;
  } catch {
    return null;
  }
}
