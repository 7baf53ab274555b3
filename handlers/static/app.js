// The page: which conversation is open (the address's hash says), and what surrounds it.

import { getService, renameSession } from './api.js';
import { Collection } from './collection.js';
import { Composer } from './composer.js';
import { Conversation } from './conversation.js';
import { Scroll } from './scroll.js';
import { Sessions, titleFrom, UNTITLED } from './sessions.js';

const USER = 'parley.user';
const $ = (selector) => document.querySelector(selector);
const phone = matchMedia('(max-width: 48rem)');

let user = null;
try {
  user = localStorage.getItem(USER);
} catch {
  user = null; // storage is forbidden: the server makes a new identity each time
}

let conversation = null;

const sessions = new Sessions({
  user: () => user,
  renamed: (session) => session.session_id === conversation.id && desk.opened(session),
  removed: (id) => id === conversation.id && go(null),
  problem: (problem) => (problem.passing ? desk.connection(problem.message) : desk.say(problem.message)),
});

const composer = new Composer({
  send: (text) => conversation.send(text),
  stop: () => conversation.stop(),
  cancelEdit,
});

const collection = new Collection((words) => desk.say(words));

function cancelEdit() {
  conversation.cancelEdit();
  composer.text = '';
  composer.focus();
}

/** What a conversation needs of the page. */
const desk = {
  log: $('#log'),
  older: $('#older'),
  welcome: $('#welcome'),
  scroll: new Scroll($('#scroll'), $('#to-end')),
  composer,

  set userId(id) {
    user = id;
    try {
      localStorage.setItem(USER, id);
    } catch {
      return;
    }
  },

  /** What is said of a conversation with its first message. */
  get beginning() {
    const { wanted } = collection;
    return { ...(user && { user_id: user }), ...(wanted && { collection: wanted }) };
  },

  /** A message about something that went wrong; null takes it away. */
  say(words) {
    $('#notice').hidden = !words;
    $('#notice span').textContent = words ?? '';
  },

  /** The same for the connection; it goes away by itself. */
  connection(words) {
    $('#connection').hidden = !words;
    $('#connection').textContent = words ?? '';
  },

  opened(session) {
    title(session.title);
    collection.open(session);
    sessions.update(session);
  },

  created(id) {
    history.pushState(null, '', `#${id}`);
    collection.began(id);
    sessions.current = id;
  },

  /** Give a session a title, made from its first message; where the service makes titles, its own will come. */
  async name(id, text) {
    try {
      if (!(await getService()).titles) {
        const session = await renameSession(id, titleFrom(text));
        if (conversation.id === id) desk.opened(session);
      }
    } catch {
      // A title is a nicety; the list shows its stand-in.
    }
    sessions.refresh();
  },

  changed() {
    desk.connection(null);
    sessions.refresh();
  },

  gone() {
    go(null);
    desk.say('This conversation does not exist any more.');
    sessions.refresh();
  },
};

function title(text) {
  const shown = text || UNTITLED;
  $('#title').textContent = shown;
  document.title = text ? `${text} · Parley` : 'Parley';
}

function go(id) {
  history.pushState(null, '', id ? `#${id}` : location.pathname + location.search);
  open();
}

function addressed() {
  return location.hash.slice(1) || null; // ids need no decoding
}

function open() {
  const id = addressed();
  conversation?.close();
  desk.say(null);
  desk.connection(null);
  title(null);
  collection.open(null);
  collection.refresh(user);
  composer.text = '';
  sessions.current = id;
  drawer(false);
  conversation = new Conversation(id, desk);
  conversation.open();
  if (!phone.matches) composer.focus(); // on a phone it would raise the keyboard
}

// --- the drawer, which the sidebar becomes on a phone -------------------------------------------------------------

function drawer(wanted) {
  const opened = wanted && phone.matches;
  document.body.classList.toggle('drawer', opened);
  $('#menu').setAttribute('aria-expanded', String(opened));
  $('#side').inert = phone.matches && !opened;
  $('#main').inert = opened;
  if (opened) $('#new').focus();
}

$('#menu').addEventListener('click', () => drawer(true));
$('#veil').addEventListener('click', () => drawer(false));
$('#side').addEventListener('click', (event) => event.target.closest('a[href^="#"]') && drawer(false));
phone.addEventListener('change', () => drawer(false));

$('#new').addEventListener('click', () => {
  go(null);
  composer.focus();
});
$('#notice button').addEventListener('click', () => desk.say(null));

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.defaultPrevented || $('dialog[open]')) return;
  if (document.body.classList.contains('drawer')) {
    drawer(false);
    $('#menu').focus();
  } else if (composer.editing) {
    cancelEdit();
  } else {
    conversation.stop();
  }
});
document.addEventListener('visibilitychange', () => document.hidden || sessions.refresh());
// Going back fires both, and a link only one of them.
for (const name of ['hashchange', 'popstate']) addEventListener(name, () => addressed() !== conversation.id && open());

sessions.refresh();
open();
