'use strict'

// Runs the integration in Zapier's own core against a console and a daemon. TestZapier in cmd/walhook/documents starts
// them, and an application that records a finish of response N at POST /responses/N.
const assert = require('node:assert/strict')
const http = require('node:http')
const { test } = require('node:test')
const { setTimeout } = require('node:timers/promises')
const zapier = require('zapier-platform-core')
const app = require('..')

const { WALHOOK_ADDRESS: address, WALHOOK_API_KEY: key, APPLICATION: application } = process.env
const run = zapier.createAppTester(app)
const authData = { address: `${address}/`, api_key: key }
const { response_completed: completed, response_changed: changed } = app.triggers

const finish = async (id) => assert.equal((await fetch(`${application}/responses/${id}`, { method: 'POST' })).status, 204)
const get = (path) => fetch(`${address}/api/v1${path}`, { headers: { 'X-API-Key': key } })

const eventually = async (what, check) => {
  for (const end = Date.now() + 120_000; Date.now() < end; await setTimeout(100)) {
    const found = await check()
    if (found) return found
  }
  assert.fail(`waited too long for ${what}`)
}

// receive stands for Zapier's side of a Zap: it keeps what arrives at its address, as Zapier passes it to perform.
const receive = async (t, status = 200) => {
  const requests = []
  const server = http.createServer((request, response) => {
    let content = ''
    request.on('data', (chunk) => (content += chunk))
    request.on('end', () => {
      const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [`Http-${name}`, value]))
      requests.push({ method: request.method, headers, content, querystring: '' })
      response.writeHead(status).end()
    })
  })
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
  t.after(() => server.close())
  return { requests, targetUrl: `http://127.0.0.1:${server.address().port}/hooks/standard/1/abc` }
}

// refuses expects an error that has a name of Zapier's, and a text.
const refuses = (promise, name, text) =>
  assert.rejects(promise, (error) => {
    assert.equal(error.name, name)
    assert.match(error.message, text)
    return true
  })

test('the definition is valid', async () => {
  const { results } = await zapier.createAppHandler(app)({ command: 'validate' })
  assert.deepEqual(results, [])
})

test('a connection is tested and labelled', async () => {
  const me = await run(app.authentication.test, { authData })
  assert.deepEqual(me, { name: 'Zapier', organization_id: null, scope: 'webhooks' })
  assert.equal(await run(app.authentication.connectionLabel, { authData, inputData: me }), 'Zapier')
  const label = await run(app.authentication.connectionLabel, { authData, inputData: { ...me, organization_id: '42' } })
  assert.equal(label, 'Zapier (organization 42)')
  await refuses(run(app.authentication.test, { authData: { address, api_key: `whk_${'0'.repeat(64)}` } }), 'ExpiredAuthError', /unknown, revoked/)
})

test('a Zap is switched on, triggered, and switched off', async (t) => {
  const { requests, targetUrl } = await receive(t)
  const bundle = { authData, targetUrl, inputData: {}, meta: { zap: { id: 7 } } }
  const subscribeData = await run(completed.operation.performSubscribe, bundle)
  const webhook = await (await get(`/webhooks/${subscribeData.id}`)).json()
  assert.deepEqual([webhook.url, webhook.event_type, webhook.description], [targetUrl, 'response.completed', 'Zap 7'])

  await finish(1)
  const rawRequest = await eventually('the event', () => requests[0])
  const perform = (request) => run(completed.operation.perform, { ...bundle, subscribeData, rawRequest: request })
  const [event] = await perform(rawRequest)
  assert.deepEqual([event.EventType, event.Data], ['response.completed', { ResponseId: 1 }])
  assert.equal(event.id, rawRequest.headers['Http-webhook-id'])
  for (const field of completed.operation.outputFields) {
    const value = field.key.split('__').reduce((object, name) => object?.[name], event)
    assert.notEqual(value, undefined, field.key)
  }
  await refuses(perform({ ...rawRequest, content: rawRequest.content.replace('1}', '2}') }), 'HaltedError', /signature/)
  await refuses(perform({ ...rawRequest, headers: {} }), 'HaltedError', /signature/)

  // People map fields from samples, which have the same shape, newest first.
  await finish(2)
  const samples = await eventually('two samples', async () => {
    const list = await run(completed.operation.performList, bundle)
    return list.length === 2 && list
  })
  assert.deepEqual(samples.map((sample) => sample.Data.ResponseId), [2, 1])
  const shape = (object) => Object.keys(object).sort()
  assert.deepEqual(shape(samples[0]), shape(event))
  assert.deepEqual(shape(completed.operation.sample), shape(event))
  assert.deepEqual(await run(changed.operation.performList, bundle), [])
  assert.deepEqual(await run(completed.operation.performList, { ...bundle, inputData: { assessment_id: '18' } }), [])

  for (let time = 0; time < 2; time++) {
    await run(completed.operation.performUnsubscribe, { ...bundle, subscribeData })
    assert.equal((await get(`/webhooks/${subscribeData.id}`)).status, 404)
  }
})

test('a subscription whose answer was lost gets a new secret', async (t) => {
  const { requests, targetUrl } = await receive(t)
  const bundle = { authData, targetUrl, inputData: { assessment_id: '17' } }
  await run(changed.operation.performSubscribe, bundle)
  const subscribeData = await run(changed.operation.performSubscribe, bundle)
  const { data } = await (await get(`/webhooks?url=${encodeURIComponent(targetUrl)}`)).json()
  assert.deepEqual(data.map((webhook) => [webhook.id, webhook.assessment_id]), [[subscribeData.id, '17']])
  await finish(3)
  await finish(3)
  const rawRequest = await eventually('the event', () => requests[0])
  const [event] = await run(changed.operation.perform, { ...bundle, subscribeData, rawRequest })
  assert.equal(event.EventType, 'response.changed')
  await run(changed.operation.performUnsubscribe, { ...bundle, subscribeData })
})

test('a webhook is deleted if Zapier answers 410', async (t) => {
  const { targetUrl } = await receive(t, 410)
  const bundle = { authData, targetUrl, inputData: {} }
  const subscribeData = await run(completed.operation.performSubscribe, bundle)
  await finish(4)
  await eventually('the webhook to be deleted', async () => (await get(`/webhooks/${subscribeData.id}`)).status === 404)
  await run(completed.operation.performUnsubscribe, { ...bundle, subscribeData }) // Zapier does not know yet
})

test('refusals are what Zapier shows to people', async (t) => {
  const { targetUrl } = await receive(t)
  const subscribe = (over) => run(completed.operation.performSubscribe, { authData, targetUrl, inputData: {}, ...over })
  await refuses(subscribe({ targetUrl: 'ftp://example.com' }), 'AppError', /must be an absolute http or https URL/)
  await refuses(subscribe({ authData: { address, api_key: 'whk_x' } }), 'ExpiredAuthError', /not an API key of walhook/)
  await eventually('too many requests', async () => {
    const others = Array.from({ length: 200 }, () => get('/me'))
    const runs = await Promise.allSettled(Array.from({ length: 5 }, () => run(app.authentication.test, { authData })))
    await Promise.all(others)
    const errors = runs.map((one) => one.reason).filter(Boolean)
    for (const error of errors) {
      assert.equal(error.name, 'ThrottledError')
      assert.ok(JSON.parse(error.message).delay >= 1, error.message)
    }
    return errors.length > 0
  })
})
