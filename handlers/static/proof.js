// That what was read is what is stored: the completed event carries the SHA-256 of the whole text.

export const MISMATCH =
  'This text is not the one that the server stored. Please report it: it should be impossible.';

/** In hexadecimal, or null where the browser does not compute it (neither https nor localhost). */
export async function sha256(text) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
