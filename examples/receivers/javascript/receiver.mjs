// A receiver for walhook's webhooks, for Node 18 and later, without dependencies.
//
//   WEBHOOK_SECRETS="whsec_..." LISTEN=127.0.0.1:8080 node receiver.mjs
import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import { setTimeout } from 'node:timers/promises'

// More than one during a rotation.
const secrets = (process.env.WEBHOOK_SECRETS ?? '').split(' ').filter(Boolean)
  .map((secret) => Buffer.from(secret.replace(/^whsec_/, ''), 'base64'))

// Was a signature made with one of our secrets in the last five minutes? The body is the raw bytes.
function verify(headers, body) {
  const id = headers['webhook-id'], timestamp = headers['webhook-timestamp']
  if (!id || !/^\d+$/.test(timestamp ?? '') || Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) return false
  const signatures = (headers['webhook-signature'] ?? '').split(' ').map((text) => Buffer.from(text))
  return secrets.some((secret) => {
    const mac = createHmac('sha256', secret).update(`${id}.${timestamp}.`).update(body).digest('base64')
    const want = Buffer.from(`v1,${mac}`)
    return signatures.some((got) => got.length === want.length && timingSafeEqual(got, want))
  })
}

// In memory to keep the example short. Keep it in your database: a table whose webhook_id is unique, with
// INSERT ... ON CONFLICT DO NOTHING, and answer only when the row is committed.
const seen = new Set()
const inbox = []
let working = false

function store(id, body) {
  if (seen.has(id)) return // a repeat
  seen.add(id)
  inbox.push(body)
  setImmediate(work)
}

// Handles messages one after the other, in the order in which they arrived. Retries one that fails, so that no later
// one overtakes it.
async function work() {
  if (working) return
  working = true
  while (inbox.length > 0) {
    try {
      await handle(inbox[0])
      inbox.shift()
    } catch (error) {
      console.error(error)
      await setTimeout(1000)
    }
  }
  working = false
}

// Where your work goes. JSON.parse rounds integers above 2^53: if your keys are that large, read ResponseId from the text.
async function handle(body) {
  const message = JSON.parse(body)
  console.log(message.EventType, message.Data.ResponseId)
}

createServer((request, response) => {
  const parts = []
  let size = 0
  request.on('data', (part) => {
    size += part.length
    if (size > 65536) request.destroy()
    else parts.push(part)
  })
  request.on('end', () => {
    const body = Buffer.concat(parts)
    if (!verify(request.headers, body)) {
      response.writeHead(401).end('bad signature')
      return
    }
    store(request.headers['webhook-id'], body.toString())
    response.writeHead(204).end() // the work is done afterwards
  })
}).listen(Number(process.env.LISTEN.split(':')[1]), process.env.LISTEN.split(':')[0])
