// Follows a recipe's `chat`, above, once for each of the `urls` at the same time, and prints what it gives as JSON lines:
// `[place, event]`, at last `returned` or `raised`. With `stop` it stops an answer when its text begins. Nothing here
// ends the process: what a recipe leaves behind, such as a timer that reconnects, would keep it alive.
const { urls, message, stop } = JSON.parse(process.argv.at(-1))

await Promise.all(urls.map(async (url, place) => {
  const print = (event) => console.log(JSON.stringify([place, event]))
  let run
  const show = (told) => {
    print(told)
    run = told.run_id ?? run
    if (stop && told.event === "text.delta") fetch(`${url}/runs/${run}/cancel`, { method: "POST" })
  }
  try {
    const chatting = chat(...[url, message, show].slice(0, chat.length))
    if (chatting[Symbol.asyncIterator]) for await (const told of chatting) show(told)
    else await chatting
    print({ event: "returned" })
  } catch (error) {
    print({ event: "raised", message: error.message })
  }
}))
