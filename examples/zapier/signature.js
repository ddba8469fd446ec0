'use strict'

const { createHmac, timingSafeEqual } = require('node:crypto')

const tolerance = 5 * 60 // seconds by which the clocks may differ

// header reads a header of a request as Zapier passes it on: names may be in any case, and may begin with "Http-".
const header = (request, name) => {
  const found = Object.entries(request.headers ?? {}).find(([key]) => key.toLowerCase().replace(/^http-/, '') === name)
  return found?.[1]
}

// isSigned reports whether a request is recent and has a signature with the secret (Standard Webhooks).
const isSigned = (request, secret) => {
  const [id, at, signatures] = ['webhook-id', 'webhook-timestamp', 'webhook-signature'].map((name) => header(request, name))
  if (!id || !signatures || !(Math.abs(Date.now() / 1000 - Number(at)) <= tolerance)) {
    return false
  }
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  const want = Buffer.from('v1,' + createHmac('sha256', key).update(`${id}.${at}.${request.content}`).digest('base64'))
  return signatures.split(' ').some((signature) => {
    const sent = Buffer.from(signature)
    return sent.length === want.length && timingSafeEqual(sent, want)
  })
}

module.exports = { header, isSigned }
