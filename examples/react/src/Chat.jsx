import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from 'ai';
import { useEffect, useRef, useState } from 'react';

import { API, stop } from './conversation.js';
import { Message } from './Message.jsx';
import { useRecovery } from './useRecovery.js';

/** Parley has the conversation: what is new is enough. */
const transport = new DefaultChatTransport({
  api: API,
  prepareSendMessagesRequest: ({ id, messages, trigger, messageId }) => ({
    body: { id, trigger, messageId, message: messages.at(-1) },
  }),
});

export function Chat({ id, known }) {
  const [doubts, setDoubts] = useState(known.active ? 1 : 0);
  const chat = useChat({
    id,
    messages: known.messages,
    transport,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
    // No reason was told: the answer was stopped, or only its stream has ended.
    onFinish: ({ finishReason, isError }) => finishReason || isError || setDoubts((doubts) => doubts + 1),
  });
  const { messages, status, sendMessage, regenerate, addToolApprovalResponse } = chat;
  const [text, setText] = useState('');
  const [problem, setProblem] = useState(known.failure?.message ?? null);
  const lost = useRecovery(id, chat, doubts, { setText, setProblem });
  const stopped = messages.at(-1)?.metadata?.status === 'cancelled';
  const busy = lost || status === 'submitted' || status === 'streaming';

  function ask(request) {
    setProblem(null);
    request();
  }

  function send(event) {
    event.preventDefault();
    if (busy || !text.trim()) return;
    setText('');
    ask(() => sendMessage({ text }));
  }

  return (
    <>
      <main aria-label="Conversation" aria-busy={busy}>
        {messages.map((message) => (
          <Message key={message.id} message={message} onDecision={addToolApprovalResponse} />
        ))}
        {!busy && (problem || stopped) && messages.length > 0 && (
          <p className="note">
            {stopped && 'Stopped. '}
            <button type="button" onClick={() => ask(() => regenerate())}>Try again</button>
          </p>
        )}
      </main>
      <footer>
        <p role="status">{lost ? 'The connection is lost. Reconnecting…' : busy && 'Answering…'}</p>
        {problem && <p role="alert">{problem}</p>}
        <form onSubmit={send}>
          <Field text={text} onChange={setText} />
          {busy
            ? <button type="button" onClick={() => stop(id).catch((error) => setProblem(error.message))}>Stop</button>
            : <button>Send</button>}
        </form>
      </footer>
      <ScrollToEnd of={messages} />
    </>
  );
}

function Field({ text, onChange }) {
  const submit = (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    event.target.form.requestSubmit();
  };
  return (
    <textarea
      aria-label="Message"
      autoFocus
      onChange={(event) => onChange(event.target.value)}
      onKeyDown={submit}
      placeholder="Say something"
      rows={1}
      value={text}
    />
  );
}

/** Stays with the answer, unless the reader has scrolled up. */
function ScrollToEnd({ of: messages }) {
  const atEnd = useRef(true);
  useEffect(() => {
    const look = () => { atEnd.current = innerHeight + scrollY > document.body.scrollHeight - 80; };
    addEventListener('scroll', look);
    return () => removeEventListener('scroll', look);
  }, []);
  useEffect(() => { if (atEnd.current) scrollTo(0, document.body.scrollHeight); }, [messages]);
  return null;
}
