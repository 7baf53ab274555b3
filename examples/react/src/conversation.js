// What Parley knows of a conversation, as useChat wants it.

export const API = '/api/chat';
export const AGAIN_MS = 1000;

/** A conversation in which nothing was said yet. */
export const NOTHING = { messages: [], active: false, failure: null };

/**
 * The messages that lead to the one that was said last, whether an answer is being written, and why the last one failed.
 *
 * Throws an Error with the `status` of the answer, or without one where the server cannot be reached.
 */
export async function conversation(id) {
  const session = await get(`/sessions/${id}`);
  if (session === null) return NOTHING;
  const { messages, leaf_id: leaf } = await get(`/sessions/${id}/messages?limit=200`);
  const known = new Map(messages.map((message) => [message.message_id, message]));
  const branch = [];
  for (let message = known.get(leaf); message; message = known.get(message.parent_id)) branch.unshift(message);
  const last = branch.at(-1);
  return {
    messages: branch.filter(({ run_id: run }) => !run || run !== session.active_run?.run_id).map(uiMessage),
    active: session.active_run !== null,
    failure: last?.status === 'failed' ? (await get(`/runs/${last.run_id}`)).error : null,
  };
}

export async function stop(id) {
  const response = await fetch(`${API}/${id}/stop`, { method: 'POST' });
  if (!response.ok) throw new Error('The answer could not be stopped.');
}

/** What a failed request or answer says to a reader. */
export function wordsOf(error) {
  try {
    return JSON.parse(error.message).detail; // RFC 9457, application/problem+json
  } catch {
    return error.message;
  }
}

export const textOf = (message) => message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');

async function get(path) {
  const response = await fetch(path);
  if (response.status === 404) return null;
  if (!response.ok) throw Object.assign(new Error(await response.text()), { status: response.status });
  return response.json();
}

function uiMessage({ message_id: id, role, content, status, tool_calls: calls, sources, run_id: run }) {
  const text = content ? [{ type: 'text', text: content }] : [];
  return { id, role, metadata: { status }, parts: [...calls.map(toolPart), ...text, ...sources.map((source) => sourcePart(run, source))] };
}

/** As the stream has it. */
function sourcePart(run, { id, url, title, document, ...more }) {
  const part = { sourceId: `${run}.${id}`, providerMetadata: { parley: { ...more, ...(document && { document }) } } };
  if (url) return { ...part, type: 'source-url', url, title };
  return { ...part, type: 'source-document', mediaType: 'text/plain', title: title ?? document ?? id };
}

function toolPart({ call_id: toolCallId, name, arguments: given, result, error }) {
  const part = { type: `tool-${name}`, toolCallId, input: parsed(given), providerExecuted: true };
  if (error !== null) return { ...part, state: 'output-error', errorText: error };
  if (result !== null) return { ...part, state: 'output-available', output: parsed(result) };
  return { ...part, state: 'output-error', errorText: 'Stopped.' };
}

/** What the model or the tool has written: JSON, if it did well. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
