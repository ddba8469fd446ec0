'use strict'

// Drives the node's methods as n8n does, with n8n's own Workflow for parameters and static data, against a console and
// a daemon. TestN8n in cmd/walhook/documents starts them, and an application that records a finish of response N at
// POST /responses/N.
const assert = require('node:assert/strict')
const fs = require('node:fs')
const http = require('node:http')
const path = require('node:path')
const { test } = require('node:test')
const { setTimeout } = require('node:timers/promises')
const { NodeApiError, NodeHelpers, Workflow } = require('n8n-workflow')
const manifest = require('../package.json')

const { WALHOOK_ADDRESS: address, WALHOOK_API_KEY: apiKey, APPLICATION: application } = process.env

// load returns what a file that package.json lists exports, as n8n loads it.
const load = (file) => {
  const name = path.basename(file).split('.')[0]
  return new (require(path.join('..', file))[name])()
}
const credential = load(manifest.n8n.credentials[0])
const nodeType = load(manifest.n8n.nodes[0])

const get = (path) => fetch(`${address}/api/v1${path}`, { headers: { 'X-API-Key': apiKey } })
const finish = async (id) => assert.equal((await fetch(`${application}/responses/${id}`, { method: 'POST' })).status, 204)

const eventually = async (what, check) => {
  for (const end = Date.now() + 120_000; Date.now() < end; await setTimeout(100)) {
    const found = await check()
    if (found) return found
  }
  assert.fail(`waited too long for ${what}`)
}

// active is a workflow with the trigger node, served at an address of its own.
class Active {
  constructor(parameters, key = apiKey) {
    const node = { id: '1', name: 'walhook', type: 'walhookTrigger', typeVersion: 1, position: [0, 0], parameters }
    const properties = nodeType.description.properties
    node.parameters = NodeHelpers.getNodeParameters(properties, parameters, true, false, node, nodeType.description)
    const types = { getByName: () => nodeType, getByNameAndVersion: () => nodeType, getKnownTypes: () => ({}) }
    this.workflow = new Workflow({ id: '7', name: 'Results', nodes: [node], connections: {}, active: true, nodeTypes: types })
    this.node = this.workflow.getNode('walhook')
    this.credentials = { address: `${address}/`, apiKey: key }
    this.started = [] // items with which the workflow was started
    this.answers = []
  }

  async listen(t, status = 200) {
    const { httpMethod, path } = nodeType.description.webhooks[0]
    const server = http.createServer(async (request, response) => {
      const chunks = []
      for await (const chunk of request) chunks.push(chunk)
      request.rawBody = Buffer.concat(chunks)
      response.status = (code) => ((response.statusCode = code), response)
      response.send = (body) => (response.write(body), response)
      this.last = { headers: request.headers, body: request.rawBody }
      const result = await nodeType.webhook.call(this.webhookFunctions(request, response))
      this.answers.push(response.statusCode)
      if (result.workflowData) this.started.push(...result.workflowData[0].map((item) => item.json))
      if (!result.noWebhookResponse) response.writeHead(status).end()
    })
    await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
    t.after(() => server.close())
    this.url = `http://127.0.0.1:${server.address().port}/webhook/1/${path}`
    assert.equal(httpMethod, 'POST')
    return this
  }

  common() {
    return {
      getNode: () => this.node,
      getWorkflow: () => ({ id: this.workflow.id, name: this.workflow.name, active: true }),
      getWorkflowStaticData: (type) => this.workflow.getStaticData(type, this.node),
      getNodeParameter: (name) => this.node.parameters[name],
      getCredentials: async (name) => (assert.equal(name, credential.name), this.credentials),
    }
  }

  hookFunctions() {
    const request = async (name, { method, url, body, qs = {}, returnFullResponse, ignoreHttpStatusErrors }) => {
      assert.deepEqual([name, returnFullResponse, ignoreHttpStatusErrors], [credential.name, true, true])
      const target = new URL(url)
      for (const [key, value] of Object.entries(qs)) target.searchParams.set(key, value)
      const headers = { 'Content-Type': 'application/json' }
      for (const [header, value] of Object.entries(credential.authenticate.properties.headers)) {
        headers[header] = this.workflow.expression.getSimpleParameterValue(
          this.node, value, 'internal', { $credentials: this.credentials }, undefined, '')
      }
      const response = await fetch(target, { method, headers, body: body && JSON.stringify(body) })
      const text = await response.text()
      return { statusCode: response.status, body: text && JSON.parse(text) }
    }
    return {
      ...this.common(),
      getNodeWebhookUrl: () => this.url,
      helpers: { httpRequestWithAuthentication: request },
    }
  }

  webhookFunctions(request, response) {
    return {
      ...this.common(),
      getRequestObject: () => request,
      getResponseObject: () => response,
      getHeaderData: () => request.headers,
      getBodyData: () => JSON.parse(request.rawBody),
      helpers: { returnJsonArray: (item) => [item].flat().map((json) => ({ json })) },
    }
  }

  // activate does what n8n does when a workflow is activated.
  async activate() {
    if (!(await this.call('checkExists'))) assert.equal(await this.call('create'), true)
    return this.workflow.getStaticData('node', this.node)
  }

  call(method) {
    return nodeType.webhookMethods.default[method].call(this.hookFunctions())
  }
}

const webhooksAt = async (url) => (await (await get(`/webhooks?url=${encodeURIComponent(url)}`)).json()).data

test('the package has what n8n needs of a community node', () => {
  assert.match(manifest.name, /^n8n-nodes-/)
  assert.ok(manifest.keywords.includes('n8n-community-node-package'))
  assert.equal(manifest.dependencies, undefined)
  const { description } = nodeType
  const files = path.join(__dirname, '..', path.dirname(manifest.n8n.nodes[0]))
  assert.ok(fs.existsSync(path.join(files, description.icon.replace('file:', ''))))
  assert.deepEqual(description.credentials, [{ name: credential.name, required: true }])
  assert.deepEqual([description.group, description.inputs, description.outputs], [['trigger'], [], ['main']])
})

test('the credential is tested', async () => {
  const { baseURL, url } = credential.test.request
  const { workflow, node, credentials } = new Active({})
  const at = workflow.expression.getSimpleParameterValue(node, baseURL, 'internal', { $credentials: credentials }, undefined, '')
  assert.equal((await fetch(new URL(url, at), { headers: { Authorization: `Bearer ${apiKey}` } })).status, 200)
})

test('a workflow is activated, started, and deactivated', async (t) => {
  const active = await new Active({}).listen(t)
  assert.equal(await active.call('checkExists'), false)
  const known = await active.activate()
  assert.equal(await active.call('checkExists'), true)
  const [webhook] = await webhooksAt(active.url)
  assert.deepEqual(
    [webhook.id, webhook.event_type, webhook.assessment_id, webhook.description],
    [known.webhookId, 'response.completed', null, 'n8n: Results'])

  await finish(1)
  const item = await eventually('the event', () => active.started[0])
  assert.deepEqual([item.EventType, item.Data, item.webhookId], ['response.completed', { ResponseId: 1 }, active.last.headers['webhook-id']])

  // What is not from walhook starts nothing.
  const { headers, body } = active.last
  const again = (over, content = body) => fetch(active.url, { method: 'POST', body: content, headers: { ...headers, ...over } })
  delete headers['content-length']
  delete headers.host
  assert.equal((await again({}, String(body).replace('1}', '2}'))).status, 401)
  assert.equal((await again({ 'webhook-signature': 'v1,x' })).status, 401)
  assert.equal((await again({ 'webhook-timestamp': String(headers['webhook-timestamp'] - 3600) })).status, 401)
  assert.equal((await again({})).status, 200)
  assert.equal(active.started.length, 2)

  for (let time = 0; time < 2; time++) assert.equal(await active.call('delete'), true)
  assert.deepEqual(await webhooksAt(active.url), [])
  assert.equal(await active.call('checkExists'), false)
})

test('what the node has forgotten or finds changed is replaced', async (t) => {
  const active = await new Active({ event: 'response.changed', assessmentId: '17' }).listen(t)
  const first = { ...(await active.activate()) }
  active.workflow.staticData = {}
  const second = { ...(await active.activate()) }
  assert.notEqual(second.webhookId, first.webhookId)
  assert.ok(second.secret)
  active.node.parameters.assessmentId = '18'
  const third = await active.activate()
  const found = await webhooksAt(active.url)
  assert.deepEqual(found.map((webhook) => [webhook.id, webhook.assessment_id]), [[third.webhookId, '18']])
  await active.call('delete')
})

test('a webhook is deleted if n8n answers 410', async (t) => {
  const active = await new Active({}).listen(t, 410)
  await active.activate()
  await finish(2)
  await eventually('the webhook to be deleted', async () => (await webhooksAt(active.url)).length === 0)
  assert.equal(await active.call('checkExists'), false)
  await active.call('delete')
})

test('refusals are what n8n shows to people', async (t) => {
  const refused = (active, code, text) =>
    assert.rejects(active.call('create'), (error) => {
      assert.ok(error instanceof NodeApiError)
      assert.equal(error.httpCode, code)
      assert.match(error.message, text)
      return true
    })
  await refused(await new Active({}, `whk_${'0'.repeat(64)}`).listen(t), '401', /unknown, revoked or expired/)
  const strange = await new Active({ assessmentId: ' ' }).listen(t)
  await refused(strange, '422', /cannot be an id of the respondent table/)
})
