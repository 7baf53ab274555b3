// What the page asks of Parley.

export const server = 'http://localhost:8000';

/** The JSON of the answer; throws an Error that can be shown to the reader. */
export async function call(method, path, body, headers = {}) {
  let response;
  try {
    response = await fetch(server + path, {
      method,
      headers: body ? { 'Content-Type': 'application/json', ...headers } : headers,
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Error('The server cannot be reached.');
  }
  if (!response.ok) throw Object.assign(new Error(await detail(response)), { status: response.status });
  return response.json();
}

async function detail(response) {
  const problem = await response.json().catch(() => ({})); // a proxy on the way may answer with a page
  return problem.detail ?? `The server answered ${response.status}.`;
}

const EVENTS = [
  'model.selected', 'text.delta', 'reasoning.delta', 'seam',
  'tool.started', 'tool.delta', 'tool.called', 'tool.approval', 'tool.decided', 'tool.finished',
  'run.completed', 'run.failed', 'run.cancelled', 'run.interrupted',
];

/**
 * Follows a run from its start to its end, through every loss of the connection: EventSource asks again with the id of
 * the last event, and Parley goes on right behind it.
 *
 * `take(name, data)` gets each event once, `connected(is)` how it stands, and `refused()` is called where something
 * answered with an error, which is final to an EventSource. Returns what ends it early.
 */
export function follow(eventsUrl, { take, connected, refused }) {
  const source = new EventSource(`${server}${eventsUrl}?format=events`);
  source.onopen = () => connected(true);
  source.onerror = () => (source.readyState === EventSource.CLOSED ? refused() : connected(false));
  for (const name of EVENTS) {
    source.addEventListener(name, ({ data }) => {
      if (name.startsWith('run.')) source.close();
      take(name, JSON.parse(data));
    });
  }
  return () => source.close();
}
