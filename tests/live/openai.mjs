// Calls what the lines on stdin name, on the npm package `openai`, and prints what came of each as a line of JSON.
import { createInterface } from "node:readline"
import OpenAI from "openai"

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 })

for await (const line of createInterface({ input: process.stdin })) {
  const { path, args, take, final } = JSON.parse(line)
  const events = []
  let told = { events }
  try {
    const method = path.pop()
    const made = path.reduce((owner, name) => owner[name], client)[method](...args)
    const value = final ? await made[final]() : await made
    if (!final && value[Symbol.asyncIterator]) {
      for await (const event of value) if (events.push(event) === take) break
    } else told = { value }
  } catch ({ constructor, status, code, type, message }) {
    told = { events, error: { name: constructor.name, status, code, type, message } }
  }
  console.log(JSON.stringify(told))
}
