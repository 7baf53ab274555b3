// Markdown blocks as DOM nodes: headings, paragraphs, fenced code, lists, quotes, tables, rules. The subset of
// CommonMark and GFM that models write, and lenient where they are; HTML and indented code are plain text.

import { copyFrom, h, icon } from './dom.js';
import { inline } from './inline.js';

const DEEPEST = 16; // levels of quotes and lists
const FENCE = /^ {0,9}(`{3,}|~{3,})([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|(\d{1,9})[.)])(?:( +)(.*))?$/;
const TASK = /^\[([ xX])\] /;

/** The whole text as nodes. */
export function markdown(text) {
  return parse(split(text), 0).map(render);
}

/** Lines; a tab at the front counts as four spaces. */
export function split(text) {
  return text.split('\n').map((line) => {
    const bare = line.endsWith('\r') ? line.slice(0, -1) : line;
    return bare.trimStart() !== bare ? bare.replace(/^[ \t]+/, (front) => front.replaceAll('\t', '    ')) : bare;
  });
}

/** The blocks in order. `start` is the first line's index; a block ends where nothing can be added to it. */
export function parse(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const block = take(lines, at, depth);
    found.push({ ...block, start: at });
    at = block.end;
  }
  return found;
}

function take(lines, at, depth) {
  const line = lines[at];
  const heading = HEADING.exec(line);
  if (heading) {
    const text = (heading[2] ?? '').trimEnd().replace(/(^|[ \t])#+$/, '');
    return { kind: 'heading', level: heading[1].length, text, end: at + 1 };
  }
  if (RULE.test(line)) return { kind: 'rule', end: at + 1 };
  if (FENCE.test(line)) return takeCode(lines, at);
  if (depth < DEEPEST && QUOTE.test(line)) return takeQuote(lines, at, depth);
  if (depth < DEEPEST && item(line)) return takeList(lines, at, depth);
  if (isTable(lines, at)) return takeTable(lines, at);
  return takeParagraph(lines, at);
}

function takeCode(lines, at) {
  const [, fence, info] = FENCE.exec(lines[at]);
  const inset = indent(lines[at]);
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], fence)) end += 1;
  // The empty string behind the last newline is no line yet.
  const last = end === lines.length && lines.at(-1) === '' ? Math.max(end - 1, at + 1) : end;
  const content = lines.slice(at + 1, last).map((line) => dedent(line, inset));
  return { kind: 'code', language: info.trim().split(/\s/)[0], text: content.join('\n'), end: end + 1 };
}

function closes(line, fence) {
  const bare = line.trim();
  return bare.length >= fence.length && bare === fence[0].repeat(bare.length) && indent(line) < 10;
}

function takeQuote(lines, at, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (QUOTE.test(line)) inner.push(line.replace(QUOTE, ''));
    else if (isBlank(line) || isBlank(inner.at(-1)) || interrupts(lines, end)) break;
    else inner.push(line);
  }
  return { kind: 'quote', blocks: parse(inner, depth + 1), end };
}

function takeList(lines, at, depth) {
  const first = item(lines[at]);
  const items = [];
  let loose = false;
  let end = at;
  for (let next = at; next < lines.length; ) {
    const mark = item(lines[next]);
    const same = mark && mark.kind === first.kind && mark.inset < first.inset + 2 && !RULE.test(lines[next]);
    if (!same) break;
    if (next > end) loose = true;
    const body = [mark.text];
    end = takeItem(lines, next + 1, mark, body);
    items.push(parseItem(body, depth));
    next = skipBlank(lines, end);
  }
  loose ||= items.some(({ blocks }) => blocks.filter(({ kind }) => kind === 'paragraph').length > 1);
  return { kind: 'list', ordered: first.number !== null, from: first.number, items, loose, end };
}

/** Add the lines that belong to the item to `body`; the place behind them. */
function takeItem(lines, at, mark, body) {
  // CommonMark wants nested lists under the item's text; models often put them two spaces in.
  const near = Math.min(mark.offset, mark.inset + 2);
  let end = at;
  while (end < lines.length) {
    const line = lines[end];
    if (isBlank(line)) {
      const next = skipBlank(lines, end);
      if (next >= lines.length || indent(lines[next]) < near) return end;
      while (end < next) {
        body.push('');
        end += 1;
      }
    } else if (indent(line) >= near) {
      body.push(dedent(line, mark.offset));
      end += 1;
    } else if (isBlank(body.at(-1)) || item(line) || interrupts(lines, end)) {
      return end;
    } else {
      body.push(line);
      end += 1;
    }
  }
  return end;
}

function parseItem(body, depth) {
  const task = TASK.exec(body[0]);
  if (task) body[0] = body[0].slice(task[0].length);
  return { task: task && task[1] !== ' ', isTask: task !== null, blocks: parse(body, depth + 1) };
}

function isTable(lines, at) {
  if (at + 1 >= lines.length || !lines[at].includes('|') || !/^[\s|:-]+$/.test(lines[at + 1])) return false;
  const rule = cells(lines[at + 1]);
  return rule.every((cell) => /^:?-+:?$/.test(cell)) && rule.length === cells(lines[at]).length;
}

function takeTable(lines, at) {
  const align = cells(lines[at + 1]).map((cell) => {
    if (cell.endsWith(':')) return cell.startsWith(':') ? 'center' : 'right';
    return 'left';
  });
  let end = at + 2;
  while (end < lines.length && !isBlank(lines[end]) && !interrupts(lines, end)) end += 1;
  return { kind: 'table', align, head: cells(lines[at]), rows: lines.slice(at + 2, end).map(cells), end };
}

function cells(line) {
  const bare = line.trim();
  const inner = bare.slice(bare.startsWith('|') ? 1 : 0, /(^|[^\\])\|$/.test(bare) && bare.length > 1 ? -1 : undefined);
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll('\\|', '|'));
}

function takeParagraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && !isBlank(lines[end]) && !interrupts(lines, end) && !isTable(lines, end)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trimStart()).join('\n');
  return { kind: 'paragraph', text: text.trimEnd(), end };
}

/** Whether the line begins another block although no blank line is before it. */
function interrupts(lines, at) {
  const line = lines[at];
  if (HEADING.test(line) || RULE.test(line) || FENCE.test(line) || QUOTE.test(line)) return true;
  const mark = item(line);
  return mark !== null && mark.text !== '' && (mark.number === null || mark.number === 1) && mark.inset < 4;
}

function item(line) {
  const found = ITEM.exec(line);
  if (!found) return null;
  const [, space, marker, number, gap = ' ', text = ''] = found;
  const wide = gap.length > 4 ? 1 : gap.length; // more than four would be code inside the item
  return {
    kind: marker.at(-1),
    number: number === undefined ? null : Number(number),
    inset: space.length,
    offset: space.length + marker.length + wide,
    text,
  };
}

function skipBlank(lines, at) {
  let next = at;
  while (next < lines.length && isBlank(lines[next])) next += 1;
  return next;
}

function isBlank(line) {
  return line.trim() === '';
}

function indent(line) {
  return line.length - line.trimStart().length;
}

function dedent(line, width) {
  return line.slice(Math.min(width, indent(line)));
}

/** One block as a node. */
export function render(block) {
  switch (block.kind) {
    // The conversation is the page's h1, the message an h2.
    case 'heading': return h(`h${Math.min(Math.max(block.level + 1, 3), 6)}`, { 'data-level': block.level }, ...inline(block.text));
    case 'rule': return h('hr');
    case 'code': return renderCode(block);
    case 'quote': return h('blockquote', {}, ...block.blocks.map(render));
    case 'list': return renderList(block);
    case 'table': return renderTable(block);
    default: return h('p', {}, ...inline(block.text));
  }
}

function renderCode({ language, text }) {
  const code = h('code', { textContent: text });
  const copy = h('button', { type: 'button', class: 'quiet copy', 'aria-label': 'Copy this code' }, icon('copy'));
  copy.addEventListener('click', () => copyFrom(copy, code.textContent));
  const head = h('div', { class: 'code-head' }, h('span', { textContent: language }), copy);
  // A box that scrolls must be reachable with the keyboard.
  return h('div', { class: 'code' }, head, h('pre', { tabIndex: 0 }, code));
}

function renderList({ ordered, from, items, loose }) {
  const list = h(ordered ? 'ol' : 'ul', { start: ordered && from !== 1 ? from : null });
  for (const { task, isTask, blocks } of items) {
    const line = h('li', { class: isTask ? 'task' : null });
    if (isTask) {
      const label = task ? 'done' : 'to do';
      line.append(h('span', { class: 'box', role: 'img', 'aria-label': label }, task ? '✓' : ''));
    }
    for (const block of blocks) {
      if (block.kind === 'paragraph' && !loose) line.append(...inline(block.text));
      else line.append(render(block));
    }
    list.append(line);
  }
  return list;
}

function renderTable({ align, head, rows }) {
  const row = (name, texts) =>
    h('tr', {}, ...align.map((side, column) => h(name, { class: side }, ...inline(texts[column] ?? ''))));
  const table = h('table', {}, h('thead', {}, row('th', head)), h('tbody', {}, ...rows.map((texts) => row('td', texts))));
  return h('div', { class: 'table', tabIndex: 0, role: 'region', 'aria-label': 'Table' }, table);
}
