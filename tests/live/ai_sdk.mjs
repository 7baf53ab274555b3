// The AI SDK's chat without a page: `node ai_sdk.mjs ai7` takes commands as JSON lines and prints what becomes of its
// chats. A command is answered when the SDK says that it is done; meanwhile every change of a chat is told.
import { createInterface } from "node:readline"

const sdk = await import(process.argv[2])
const chats = {}
const print = (what) => console.log(JSON.stringify(what))

class State {
  #changed
  status = "ready"
  error = undefined
  messages = []
  constructor(changed) { this.#changed = changed }
  pushMessage = (message) => { this.messages = [...this.messages, message]; this.#changed() }
  popMessage = () => { this.messages = this.messages.slice(0, -1); this.#changed() }
  replaceMessage = (index, message) => {
    this.messages = this.messages.with(index, structuredClone(message))
    this.#changed()
  }
  snapshot = (thing) => structuredClone(thing)
}

class Chat extends sdk.AbstractChat {
  constructor({ name, api, query, last, body, outputs = {}, messages = [], ...init }) {
    const state = new State(() => print({ chat: name, messages: state.messages }))
    super({
      ...init,
      state,
      transport: new sdk.DefaultChatTransport({
        api,
        body,
        ...(query && { fetch: (url, init) => fetch(`${url}?${query}`, init) }),
        ...(last && { prepareSendMessagesRequest: ({ id, messages, trigger, messageId, body }) =>
          ({ body: { ...body, id, trigger, messageId, message: messages.at(-1) } }) }),
      }),
      sendAutomaticallyWhen: (told) => sdk.lastAssistantMessageIsCompleteWithToolCalls(told) ||
        sdk.lastAssistantMessageIsCompleteWithApprovalResponses(told),
      onToolCall: ({ toolCall: { toolName, toolCallId } }) => {
        if (toolName in outputs) this.addToolOutput({ tool: toolName, toolCallId, output: outputs[toolName] })
      },
      onFinish: ({ finishReason, isAbort, isDisconnect }) =>
        print({ chat: name, finished: { finishReason, isAbort, isDisconnect } }),
    })
    state.messages = messages
  }
}

const commands = {
  open: ({ chat, ...init }) => { chats[chat] = new Chat({ name: chat, ...init }) },
  send: ({ chat, text, messageId, headers }) => chats[chat].sendMessage({ text, messageId }, { headers }),
  files: ({ chat }) => chats[chat].sendMessage({ files: [{ type: "file", mediaType: "image/png", url: "data:," }] }),
  regenerate: ({ chat, messageId }) => chats[chat].regenerate({ messageId }),
  resume: ({ chat }) => chats[chat].resumeStream(),
  leave: ({ chat }) => chats[chat].stop(),
  output: ({ chat, tool, toolCallId, ...what }) => chats[chat].addToolOutput({ tool, toolCallId, ...what }),
  approve: ({ chat, id, approved }) => chats[chat].addToolApprovalResponse({ id, approved }),
  look: () => {},
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, command, ...given } = JSON.parse(line)
  Promise.resolve(commands[command](given)).then(() => {
    const { messages, status, error } = chats[given.chat]
    print({ number, chat: given.chat, messages, status, error: error?.message ?? null })
  })
}
