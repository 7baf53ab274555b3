// A classic script in the head, so that a dark page never flashes light: modules run only after the first paint.
(() => {
  const KEY = 'parley.theme';
  const root = document.documentElement;
  const dark = matchMedia('(prefers-color-scheme: dark)');

  function stored() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is forbidden: the system's choice stands
    }
  }

  function system() {
    return dark.matches ? 'dark' : 'light';
  }

  function show() {
    root.dataset.theme = stored() ?? system();
  }

  function toggle() {
    const wanted = root.dataset.theme === 'dark' ? 'light' : 'dark';
    root.dataset.theme = wanted;
    try {
      // Choosing what the system has anyway means following the system again.
      if (wanted === system()) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, wanted);
    } catch {
      return;
    }
  }

  dark.addEventListener('change', show);
  addEventListener('storage', show);
  addEventListener('DOMContentLoaded', () => document.querySelector('#theme').addEventListener('click', toggle));
  show();
})();
