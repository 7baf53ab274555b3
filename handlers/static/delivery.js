// Getting a message to the server: the same request id until somebody answers, so it arrives once or not at all.

import { startRun } from './api.js';
import { forget, keep } from './outbox.js';

const PAUSES = [500, 1000, 2000, 4000, 8000, 8000]; // ms between attempts, before it is left to the reader

/** The started run. `waiting` is called when an attempt failed and another will follow. Throws a Problem. */
export async function deliver(body, waiting) {
  keep(body);
  for (let attempt = 0; ; attempt += 1) {
    try {
      const run = await startRun(body);
      forget(body);
      return run;
    } catch (problem) {
      const pause = PAUSES[attempt];
      if (!problem.passing || pause === undefined) throw problem;
      waiting();
      await connectionOr(Math.max(pause, (problem.retryAfter ?? 0) * 1000));
    }
  }
}

/** After `delay` ms, or as soon as the browser says that the network is back. */
function connectionOr(delay) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, delay);
    addEventListener('online', done);
    function done() {
      clearTimeout(timer);
      removeEventListener('online', done);
      resolve();
    }
  });
}
