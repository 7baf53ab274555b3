// Markdown inside a line: emphasis, code, links, breaks. CommonMark's delimiter algorithm, which stays linear on
// hostile input such as 100,000 asterisks or brackets. https://spec.commonmark.org/0.31.2/#phase-2-inline-structure
// HTML is not interpreted (but for <br>), images are not loaded: they become links.

import { h } from './dom.js';

const DEEPEST = 32; // levels; more can only be an attack on the layout engine's stack
const SPECIAL = /[\\`*_~[\]!<\n]|https?:\/\//g;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const SPACE = /[\s]|^$/u;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
const BREAK = /<br\s{0,9}\/?>/iy;
const BARE = /https?:\/\/[^\s<>"`|]{1,2000}/y;
// The destination's length is bounded so that `[](` repeated does not make the scan quadratic.
const DESTINATION =
  /\(\s{0,99}(?:<([^<>\n]{0,2000})>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.){0,999}\)){0,2000}))(?:\s{1,99}(?:"[^"]{0,999}"|'[^']{0,999}'|\([^()]{0,999}\)))?\s{0,99}\)/y;

/** The text as an array of nodes for `append`. */
export function inline(text) {
  return new Scanner(text).nodes();
}

/** The address if it is one that a click may open, else null: `javascript:` and relative ones are not. */
export function safeAddress(address) {
  try {
    const url = new URL(address);
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function link(address) {
  return h('a', { href: address, rel: 'noopener noreferrer nofollow', target: '_blank' });
}

class Scanner {
  constructor(text) {
    this.text = text;
    this.pieces = []; // strings, and {open}, {close}, {node} or delimiter runs
    this.brackets = []; // places in `pieces` of `[` that may still open a link
    this.missing = new Set(); // lengths of backtick runs that are known not to come again
  }

  nodes() {
    this.scan();
    emphasise(this.pieces, 0);
    return build(this.pieces);
  }

  scan() {
    const { text } = this;
    let at = 0;
    while (at < text.length) {
      SPECIAL.lastIndex = at;
      const found = SPECIAL.exec(text);
      const stop = found ? found.index : text.length;
      if (stop > at) this.pieces.push(text.slice(at, stop));
      if (!found) return;
      at = this.special(stop);
    }
  }

  /** Take what begins at `at`; the place behind it. */
  special(at) {
    const { text } = this;
    switch (text[at]) {
      case '\\': return this.escape(at);
      case '`': return this.code(at);
      case '*':
      case '_':
      case '~': return this.run(at);
      case '!':
        if (text[at + 1] === '[') return this.bracket(at, 2);
        break;
      case '[': return this.bracket(at, 1);
      case ']': return this.closeBracket(at);
      case '<': return this.angle(at);
      case '\n': return this.newline(at);
      default: return this.bare(at);
    }
    this.pieces.push(text[at]);
    return at + 1;
  }

  escape(at) {
    const next = this.text[at + 1];
    if (next === '\n') {
      this.pieces.push({ node: h('br') });
      return at + 2;
    }
    if (next && ESCAPABLE.test(next)) {
      this.pieces.push(next);
      return at + 2;
    }
    this.pieces.push('\\');
    return at + 1;
  }

  code(at) {
    const { text } = this;
    const inside = endOfRun(text, at);
    const length = inside - at;
    if (!this.missing.has(length)) {
      for (let close = text.indexOf('`', inside); close >= 0; close = text.indexOf('`', close)) {
        const end = endOfRun(text, close);
        if (end - close === length) {
          let content = text.slice(inside, close).replaceAll('\n', ' ');
          const padded = content.startsWith(' ') && content.endsWith(' ') && content.trim();
          if (padded) content = content.slice(1, -1);
          this.pieces.push({ node: h('code', { textContent: content }) });
          return end;
        }
        close = end;
      }
      this.missing.add(length);
    }
    this.pieces.push(text.slice(at, inside));
    return inside;
  }

  run(at) {
    const { text } = this;
    const char = text[at];
    const end = endOfRun(text, at);
    const before = at > 0 ? text[at - 1] : '';
    const after = end < text.length ? text[end] : '';
    const left = !SPACE.test(after) && (!PUNCTUATION.test(after) || SPACE.test(before) || PUNCTUATION.test(before));
    const right = !SPACE.test(before) && (!PUNCTUATION.test(before) || SPACE.test(after) || PUNCTUATION.test(after));
    const inWord = char === '_' && left && right;
    this.pieces.push({
      char,
      size: end - at,
      left: end - at,
      opens: left && (!inWord || PUNCTUATION.test(before)),
      closes: right && (!inWord || PUNCTUATION.test(after)),
      closing: [],
      opening: [],
    });
    return end;
  }

  bracket(at, length) {
    this.brackets.push({ place: this.pieces.length, image: length === 2 });
    if (this.brackets.length > DEEPEST) this.brackets.shift();
    this.pieces.push(this.text.slice(at, at + length));
    return at + length;
  }

  closeBracket(at) {
    const opener = this.brackets.pop();
    DESTINATION.lastIndex = at + 1;
    const target = opener && DESTINATION.exec(this.text);
    const address = target && safeAddress((target[1] ?? target[2]).replace(/\\([!-/:-@[-`{-~])/g, '$1'));
    if (!address) {
      this.pieces.push(']');
      return at + 1;
    }
    emphasise(this.pieces, opener.place + 1);
    for (const piece of this.pieces.slice(opener.place + 1)) {
      if (piece.open?.localName === 'a') piece.open = h('span'); // no link inside a link
    }
    if (this.pieces.length === opener.place + 1) this.pieces.push(address);
    const anchor = link(address);
    if (opener.image) anchor.className = 'image';
    this.pieces[opener.place] = { open: anchor };
    this.pieces.push({ close: true });
    if (!opener.image) this.brackets.length = 0;
    return at + 1 + target[0].length;
  }

  angle(at) {
    BREAK.lastIndex = ANGLE.lastIndex = at;
    const found = BREAK.exec(this.text);
    if (found) {
      this.pieces.push({ node: h('br') });
      return at + found[0].length;
    }
    const auto = ANGLE.exec(this.text);
    const address = auto && safeAddress(auto[1]);
    if (address) this.pieces.push({ open: link(address) }, auto[1], { close: true });
    else this.pieces.push('<');
    return at + (address ? auto[0].length : 1);
  }

  newline(at) {
    const last = this.pieces.length - 1;
    const before = this.pieces[last];
    const hard = typeof before === 'string' && before.endsWith('  ');
    if (typeof before === 'string') this.pieces[last] = before.trimEnd();
    this.pieces.push(hard ? { node: h('br') } : '\n');
    return at + 1;
  }

  bare(at) {
    const before = this.text[at - 1];
    BARE.lastIndex = at;
    const found = (!before || !/\w/.test(before)) && BARE.exec(this.text);
    if (!found) {
      this.pieces.push('http');
      return at + 4;
    }
    const shown = trimAddress(found[0]);
    const address = safeAddress(shown);
    if (address) this.pieces.push({ open: link(address) }, shown, { close: true });
    else this.pieces.push(shown);
    return at + shown.length;
  }
}

function endOfRun(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end;
}

/** Without the punctuation that belongs to the sentence, and without a bracket that was opened before. */
function trimAddress(address) {
  let end = address.length;
  let open = 0;
  for (const char of address) open += char === '(' ? 1 : char === ')' ? -1 : 0;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    if (last === ')' && open < 0) open += 1;
    else if (!'.,;:!?\'*_~]'.includes(last)) break;
  }
  return address.slice(0, end);
}

/** Pair the delimiter runs behind `from`; those left over stay text. */
function emphasise(pieces, from) {
  const stack = []; // runs that may open
  const bottom = new Map(); // no opener for this kind of closer below this height
  for (let place = from; place < pieces.length; place += 1) {
    const run = pieces[place];
    if (!run.char || run.done) continue;
    if (run.closes) closeWith(run, stack, bottom);
    if (run.opens && run.left > 0) stack.push(run);
  }
  for (let place = from; place < pieces.length; place += 1) {
    if (pieces[place].char) pieces[place].done = true;
  }
}

function closeWith(closer, stack, bottom) {
  const kind = `${closer.char}${closer.opens}${closer.size % 3}`;
  while (closer.left > 0) {
    const floor = bottom.get(kind) ?? 0;
    let top = stack.length - 1;
    while (top >= floor && !pairs(stack[top], closer)) top -= 1;
    if (top < floor) {
      bottom.set(kind, stack.length);
      return;
    }
    const opener = stack[top];
    const size = opener.left >= 2 && closer.left >= 2 ? 2 : 1;
    opener.left -= size;
    closer.left -= size;
    opener.opening.unshift(closer.char === '~' ? 'del' : size === 2 ? 'strong' : 'em');
    closer.closing.push(size);
    stack.length = opener.left > 0 ? top + 1 : top;
    for (const [name, height] of bottom) if (height > stack.length) bottom.set(name, stack.length);
  }
}

function pairs(opener, closer) {
  if (opener.char !== closer.char || opener.left === 0) return false;
  if (opener.char === '~') return opener.left === 2 && closer.left === 2;
  if (!opener.closes && !closer.opens) return true;
  return (opener.size + closer.size) % 3 !== 0 || (opener.size % 3 === 0 && closer.size % 3 === 0);
}

/** The pieces as a tree; a run closes what it ends, shows what is left of it, and opens what it begins. */
function build(pieces) {
  const root = document.createDocumentFragment();
  const stack = [root];
  const enter = (element) => {
    const top = stack.at(-1);
    stack.push(stack.length > DEEPEST ? top : top.appendChild(element));
  };
  for (const piece of pieces) {
    if (typeof piece === 'string') stack.at(-1).append(piece);
    else if (piece.node) stack.at(-1).append(piece.node);
    else if (piece.open) enter(piece.open);
    else if (piece.close) stack.pop();
    else {
      for (let count = piece.closing.length; count > 0; count -= 1) stack.pop();
      if (piece.left > 0) stack.at(-1).append(piece.char.repeat(piece.left));
      for (const tag of piece.opening) enter(document.createElement(tag));
    }
  }
  root.normalize();
  return [...root.childNodes];
}
