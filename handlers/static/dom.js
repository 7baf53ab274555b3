// Elements without markup: text only ever becomes a text node, so nothing that a model says can become code.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with properties (`class`, `data-*` and `aria-*` become attributes) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'class' || name === 'role' || name.includes('-')) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the page's own symbols; see the sprite in playground.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  const use = document.createElementNS(SVG, 'use');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows only an icon; `label` names it for everyone who does not see it. */
export function iconButton(name, label, properties = {}) {
  return h('button', { type: 'button', class: 'quiet', title: label, 'aria-label': label, ...properties }, icon(name));
}

/** Make `parent` hold exactly `children`, in order, and leave those that are in place alone. */
export function arrange(parent, children) {
  let place = parent.firstChild;
  for (const child of children) {
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** Copy text; outside https and localhost there is no clipboard API and the old command has to do. */
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = h('textarea', { value: text, readOnly: true, class: 'unseen' });
  document.body.append(field);
  field.select();
  document.execCommand('copy');
  field.remove();
}

/** Copy, and let the button say for a moment how it went. */
export async function copyFrom(button, text) {
  const before = button.getAttribute('aria-label');
  let said = 'Copied';
  try {
    await copyText(text);
  } catch {
    said = 'Copying was refused';
  }
  button.dataset.said = said;
  button.setAttribute('aria-label', said);
  setTimeout(() => {
    delete button.dataset.said;
    button.setAttribute('aria-label', before);
  }, 1500);
}
