import { useEffect, useRef, useState } from 'react';

import { AGAIN_MS, conversation, textOf, wordsOf } from './conversation.js';

const questionsIn = (messages) => messages.filter(({ role }) => role === 'user');

/**
 * Whenever there is an error or one more of `doubts`, asks Parley how things stand, until it can say. The answer is
 * still being written: it is rebuilt from its first word and goes on. It has ended: what is stored is shown, and why it
 * failed if it did. The message never arrived: it is the reader's again.
 *
 * Returns whether the server cannot be reached.
 */
export function useRecovery(id, chat, doubts, { setText, setProblem }) {
  const [lost, setLost] = useState(false);
  const cleared = useRef(0); // so many doubts
  const latest = useRef(chat);
  useEffect(() => { latest.current = chat; });
  const { error } = chat;

  useEffect(() => {
    if (!error && doubts === cleared.current) return undefined;
    let timer;
    let left = false;

    async function recover() {
      try {
        const known = await conversation(id);
        if (left) return;
        setLost(false);
        if (known.active) await resume();
        else settle(known);
      } catch {
        if (left) return;
        setLost(true);
        timer = setTimeout(recover, AGAIN_MS);
      }
    }

    /** useChat's own, which does nothing where the answer has just ended. */
    async function resume() {
      await latest.current.resumeStream();
      if (left) return;
      cleared.current = doubts;
      if (error || latest.current.messages.at(-1)?.role === 'user') timer = setTimeout(recover, AGAIN_MS);
    }

    function settle({ messages, failure }) {
      cleared.current = doubts;
      const questions = questionsIn(latest.current.messages);
      latest.current.setMessages(messages);
      latest.current.clearError();
      if (questionsIn(messages).length < questions.length) {
        setText((typed) => typed || textOf(questions.at(-1)));
        setProblem(`Not sent. ${wordsOf(error)}`);
      } else if (!['completed', 'cancelled'].includes(messages.at(-1)?.metadata.status)) {
        setProblem(failure?.message ?? (error ? wordsOf(error) : 'The answer was interrupted.'));
      }
    }

    recover();
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [error, doubts]);
  return lost;
}
