import { useEffect, useState } from 'react';

import { Chat } from './Chat.jsx';
import { AGAIN_MS, NOTHING, conversation, wordsOf } from './conversation.js';

/** The conversation's id is in the address: reload it, or open it elsewhere, and it goes on. */
function inAddress() {
  const id = location.hash.slice(1);
  if (/^[\w-][\w.-]{0,63}$/.test(id)) return { id, fresh: false };
  const made = Array.from(crypto.getRandomValues(new Uint32Array(4)), (number) => number.toString(36)).join('-');
  history.replaceState(null, '', `#${made}`);
  return { id: made, fresh: true };
}

export function App() {
  const [{ id, fresh }, setPlace] = useState(inAddress);
  useEffect(() => {
    const change = () => setPlace(inAddress());
    addEventListener('hashchange', change);
    return () => removeEventListener('hashchange', change);
  }, []);
  return (
    <>
      <header>
        <h1>Chat</h1>
        <a href="#">New conversation</a>
      </header>
      {fresh ? <Chat key={id} id={id} known={NOTHING} /> : <Conversation key={id} id={id} />}
    </>
  );
}

function Conversation({ id }) {
  const [known, setKnown] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    let timer;
    let left = false;
    async function load() {
      try {
        const found = await conversation(id);
        if (!left) setKnown(found);
      } catch (error) {
        if (left) return;
        setProblem(error.status < 500 ? wordsOf(error) : 'The server cannot be reached. Trying again…');
        timer = setTimeout(load, AGAIN_MS);
      }
    }
    load();
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [id]);
  if (known === null) return <p role="status">{problem ?? 'Loading…'}</p>;
  return <Chat id={id} known={known} />;
}
