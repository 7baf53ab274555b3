import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// The page asks its own server, and that one asks Parley: as behind any reverse proxy, nothing needs CORS.
const target = process.env.PARLEY_URL ?? 'http://127.0.0.1:8000';
const parley = { target, configure: passOnCuts };
const proxy = { '/api': parley, '/runs': parley, '/sessions': parley };
const host = '127.0.0.1';

export default defineConfig({
  plugins: [react()],
  server: { host, proxy },
  preview: { host, proxy, strictPort: true },
});

/** Vite's proxy would leave the page waiting when its own connection is lost in the middle of an answer. */
function passOnCuts(proxy) {
  proxy.on('proxyRes', (answer, request, response) => {
    answer.on('close', () => answer.complete || response.destroy());
  });
}
