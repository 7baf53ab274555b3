// Holds a conversation with the clients of AG-UI as they are. Arguments: the client's name, then a JSON object with the
// `url`, the `threadId` and what is `said`. A tool named `look` is the client's. Prints the messages that its user sees
// after each answer as JSON lines; an error as `{"error"}`.
const [name, given] = process.argv.slice(2)
const { url, threadId, said } = JSON.parse(given)
const print = (what) => console.log(JSON.stringify(what))
const look = { name: "look", description: "Looks at the sky.", parameters: { type: "object", properties: {} } }

const clients = {
  async "ag-ui"() {
    const { HttpAgent } = await import("@ag-ui/client")
    const agent = new HttpAgent({ url, threadId })
    const run = async () => {
      let failed
      await agent.runAgent({ tools: [look] }, { onRunErrorEvent: ({ event }) => { failed = event.message } })
      if (failed) throw new Error(failed)
      const { toolCalls = [] } = agent.messages.filter(({ role }) => role === "assistant").at(-1)
      const answered = new Set(agent.messages.map(({ toolCallId }) => toolCallId))
      const open = toolCalls.filter(({ id }) => !answered.has(id))
      for (const { id } of open) agent.addMessage({ id: `result-${id}`, role: "tool", toolCallId: id, content: "Rain" })
      if (open.length) await run()
    }
    for (const [number, content] of said.entries()) {
      agent.addMessage({ id: `user-${number}`, role: "user", content })
      await run()
      print(agent.messages)
    }
  },

  async tanstack() {
    const { ChatClient, fetchServerSentEvents } = await import("@tanstack/ai-client")
    let failed
    const client = new ChatClient({
      connection: fetchServerSentEvents(url, { reconnect: { delayMs: 10, maxAttempts: 50 } }),
      threadId,
      onError: (error) => { failed = error },
    })
    for (const text of said) {
      await client.sendMessage(text)
      if (failed) throw failed
      print(client.getMessages())
    }
  },
}

try {
  await clients[name]()
} catch (error) {
  print({ error: String(error) })
}
process.exit(0)
