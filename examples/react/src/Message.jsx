import { isToolUIPart } from 'ai';

export function Message({ message, onDecision }) {
  const user = message.role === 'user';
  const sources = message.parts.filter(({ type }) => type === 'source-url' || type === 'source-document');
  return (
    <article className={user ? 'said' : 'answer'} aria-label={user ? 'You' : 'Answer'}>
      {message.parts.map((part, number) => <Part key={number} part={part} onDecision={onDecision} />)}
      {sources.length > 0 && <Sources sources={sources} />}
    </article>
  );
}

/** React puts text in as text; nothing of an answer is ever HTML. */
function Part({ part, onDecision }) {
  if (part.type === 'text') return <div className="text">{part.text}</div>;
  if (part.type === 'reasoning') {
    return (
      <details className="thinking">
        <summary>Thoughts</summary>
        <p>{part.text}</p>
      </details>
    );
  }
  return isToolUIPart(part) ? <Call part={part} onDecision={onDecision} /> : null;
}

/** Parley keeps http and https addresses alone; a page that others may serve makes sure of it. */
const PAGE = /^https?:/i;

function Sources({ sources }) {
  return (
    <details className="sources">
      <summary>{sources.length === 1 ? '1 source' : `${sources.length} sources`}</summary>
      <ol>
        {sources.map(({ sourceId, url, title, providerMetadata }) => (
          <li key={sourceId}>
            {PAGE.test(url)
              ? <a href={url} target="_blank" rel="noopener noreferrer nofollow">{title ?? url}</a>
              : <b>{title}</b>}
            {providerMetadata?.parley?.text && <blockquote>{providerMetadata.parley.text}</blockquote>}
          </li>
        ))}
      </ol>
    </details>
  );
}

const STATES = {
  'input-streaming': 'is being called…',
  'input-available': 'is running…',
  'approval-requested': 'asks for your permission',
  'approval-responded': 'has your answer',
  'output-available': 'has answered',
  'output-error': 'has failed',
  'output-denied': 'was not allowed',
};

function Call({ part, onDecision }) {
  const asks = part.state === 'approval-requested';
  const decide = (approved) => () => onDecision({ id: part.approval.id, approved });
  return (
    <div className="tool">
      <details open={asks}>
        <summary><b>{part.type.slice('tool-'.length)}</b> {STATES[part.state]}</summary>
        <code>{shown(part.input)}</code>
        <code>{part.errorText ?? shown(part.output)}</code>
      </details>
      {asks && (
        <p>
          <button type="button" onClick={decide(true)}>Allow</button>{' '}
          <button type="button" onClick={decide(false)}>Do not allow</button>
        </p>
      )}
    </div>
  );
}

const shown = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));
