// Holds a conversation with the clients of AG-UI as they are. Arguments: the client's name, then a JSON object with the
// `url`, the `threadId` and what is `said`. A tool named `look` is the client's. Prints the messages that its user sees
// after each answer as JSON lines, an error as `{"error"}`, and each text of an answer that grows as `{"shown"}`; events of the service's own are `{"custom"}`.
const [name, given] = process.argv.slice(2)
const { url, threadId, said } = JSON.parse(given)
const print = (what) => console.log(JSON.stringify(what))
const look = { name: "look", description: "Looks at the sky.", parameters: { type: "object", properties: {} } }

const clients = {
  async "AG-UI"() {
    const { HttpAgent } = await import("@ag-ui/client")
    const agent = new HttpAgent({ url, threadId })
    const run = async () => {
      let failed
      await agent.runAgent({ tools: [look] }, {
        onCustomEvent: ({ event: { name, value } }) => print({ custom: { name, value } }),
        onRunErrorEvent: ({ event }) => { failed = event.message },
        onMessagesChanged: ({ messages }) => print({ shown: messages.at(-1).content ?? "" }),
      })
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

  async "TanStack AI"() {
    const { ChatClient, fetchServerSentEvents } = await import("@tanstack/ai-client")
    const { toolDefinition } = await import("@tanstack/ai")
    let failed
    const client = new ChatClient({
      connection: fetchServerSentEvents(url, { reconnect: { delayMs: 10, maxAttempts: 50 } }),
      threadId,
      tools: [toolDefinition({ ...look, inputSchema: look.parameters }).client(() => "Rain")],
      onCustomEvent: (name, value) => print({ custom: { name, value } }),
      onError: (error) => { failed = error },
      onMessagesChange: (messages) =>
        print({ shown: messages.at(-1).parts.map(({ content = "" }) => content).join("") }),
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
