// One modal question at a time.

import { h } from './dom.js';

/** Ask; resolves to true, to the text if `value` was given, or to null when it was dismissed. */
export function ask({ title, text = null, value = null, secret = false, confirm, danger = false }) {
  const kind = secret ? { type: 'password', autocomplete: 'off' } : { type: 'text', maxLength: 200 };
  const field = value === null ? null : h('input', { ...kind, value, 'aria-label': title });
  const yes = h('button', { type: 'submit', class: danger ? 'danger' : 'primary', textContent: confirm });
  const no = h('button', { type: 'button', class: 'plain', textContent: 'Cancel' });
  const heading = h('h2', { id: 'question', textContent: title });
  const form = h('form', {}, heading, text && h('p', { textContent: text }), field, h('div', { class: 'choices' }, no, yes));
  const dialog = h('dialog', { 'aria-labelledby': 'question' }, form);
  return new Promise((resolve) => {
    let answer = null;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      answer = field ? field.value.trim() : true;
      dialog.close();
    });
    no.addEventListener('click', () => dialog.close());
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(answer || null);
    });
    document.body.append(dialog);
    dialog.showModal();
    field?.select();
    if (danger) no.focus();
  });
}
