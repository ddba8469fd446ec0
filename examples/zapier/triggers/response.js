'use strict'

const { api } = require('../authentication')
const { header, isSigned } = require('../signature')

const events = [
  { name: 'created', label: 'Response Created', description: 'Triggers when a respondent opens an assessment for the first time.' },
  { name: 'started', label: 'Response Started', description: 'Triggers when a respondent saves the first page of an assessment.' },
  { name: 'completed', label: 'Response Completed', description: 'Triggers when a respondent finishes an assessment.' },
  { name: 'changed', label: 'Response Changed', description: 'Triggers when a respondent finishes an assessment again.' },
]

const subscribe = (event) => async (z, bundle) => {
  const body = {
    target_url: bundle.targetUrl,
    event,
    assessment_id: bundle.inputData.assessment_id || null,
    description: bundle.meta?.zap?.id ? `Zap ${bundle.meta.zap.id}` : 'Zapier',
  }
  const create = async () => (await z.request({ method: 'POST', url: api(bundle, '/webhooks'), body })).data
  let webhook = await create()
  if (!webhook.secret) {
    // An earlier request has created it, but its answer, with the only copy of the secret, was lost.
    await unsubscribe(z, { ...bundle, subscribeData: webhook })
    webhook = await create()
  }
  return { id: webhook.id, secret: webhook.secret }
}

const unsubscribe = async (z, bundle) => {
  await z.request({ method: 'DELETE', url: api(bundle, `/webhooks/${bundle.subscribeData.id}`) })
  return {}
}

// receive verifies a request before it starts the Zap. The id is the same if walhook sends an event again.
const receive = (z, bundle) => {
  const { rawRequest, subscribeData } = bundle
  if (!isSigned(rawRequest, subscribeData.secret)) {
    throw new z.errors.HaltedError('The request is not from walhook: its signature is wrong, or older than five minutes.')
  }
  return [{ id: header(rawRequest, 'webhook-id'), ...JSON.parse(rawRequest.content) }]
}

const samples = (event) => async (z, bundle) => {
  const params = { event_type: event, assessment_id: bundle.inputData.assessment_id, limit: 3 }
  const { data } = await z.request({ url: api(bundle, '/samples'), params })
  return data.map((body) => ({ id: `${body.EventType} ${body.Data.ResponseId} ${body.Timestamp}`, ...body }))
}

module.exports = events.map(({ name, label, description }) => ({
  key: `response_${name}`,
  noun: 'Response',
  display: { label, description },
  operation: {
    type: 'hook',
    inputFields: [
      {
        key: 'assessment_id',
        label: 'Assessment ID',
        type: 'string',
        helpText: 'Leave it empty to trigger for every assessment that the API key may see.',
      },
    ],
    performSubscribe: subscribe(`response.${name}`),
    performUnsubscribe: unsubscribe,
    perform: receive,
    performList: samples(`response.${name}`),
    sample: {
      id: 'msg_0123456789abcdef0123456789abcdef',
      EventType: `response.${name}`,
      Timestamp: 1773859449,
      Data: { ResponseId: 1112057 },
    },
    outputFields: [
      { key: 'id', label: 'Message ID' },
      { key: 'EventType', label: 'Event' },
      { key: 'Timestamp', label: 'Time (Unix seconds)', type: 'integer' },
      { key: 'Data__ResponseId', label: 'Response ID' },
    ],
  },
}))
