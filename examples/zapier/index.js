'use strict'

const platformVersion = require('zapier-platform-core').version
const { version } = require('./package.json')
const { authentication, sendKey, refuse } = require('./authentication')
const triggers = require('./triggers/response')

module.exports = {
  version,
  platformVersion,
  authentication,
  beforeRequest: [sendKey],
  afterResponse: [refuse],
  triggers: Object.fromEntries(triggers.map((trigger) => [trigger.key, trigger])),
}
