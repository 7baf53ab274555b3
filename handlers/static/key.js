// The key or token that the service asks for, if it does. It is kept for this tab, and goes with it.

import { ask } from './dialog.js';

const KEY = 'parley.key';
const USER = 'parley.user';

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  key = null; // storage is forbidden: it is asked for again
}

let asking = null;

export const current = () => key;

/** The service did not take `used`: ask for another, once for all who wait. Whether there is one now. */
export async function another(used) {
  if (used !== key) return true; // it was given meanwhile
  asking ??= ask({
    title: 'Who are you?',
    text: used ? 'The service does not know this key or token.' : 'The service asks for a key or token.',
    value: '',
    secret: true,
    confirm: 'Go on',
  }).finally(() => {
    asking = null;
  });
  const given = await asking;
  if (!given || key !== used) return key !== used;
  key = given;
  try {
    sessionStorage.setItem(KEY, key);
    const known = localStorage.getItem(USER);
    localStorage.removeItem(USER); // that was somebody else, perhaps
    if (known) location.reload();
  } catch {
    return true;
  }
  return true;
}
