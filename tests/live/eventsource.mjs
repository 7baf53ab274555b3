// Opens each URL of the command line as a browser would, with the npm package `eventsource`, and prints what it is
// told as JSON lines. Ends when all of them have given up. Nothing closes a source but the server.
import { EventSource } from "eventsource"

const NAMES = [
  "message", "run.started", "text.delta", "reasoning.delta", "tool.started", "tool.delta", "tool.called",
  "tool.finished", "run.completed", "run.failed", "run.cancelled", "run.interrupted", "stream.error",
]

process.argv.slice(2).forEach((url, source) => {
  const print = (what) => console.log(JSON.stringify({ source, ...what }))
  const events = new EventSource(url)
  events.onopen = () => print({ name: "open" })
  for (const name of NAMES) {
    events.addEventListener(name, ({ data, lastEventId }) => print({ name, data, id: lastEventId }))
  }
  events.onerror = ({ code }) => print({ name: events.readyState === EventSource.CLOSED ? "closed" : "lost", code })
})
