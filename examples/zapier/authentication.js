'use strict'

// api returns the address of a path of the API.
const api = (bundle, path) => bundle.authData.address.trim().replace(/\/+$/, '') + '/api/v1' + path

const authentication = {
  type: 'custom',
  fields: [
    {
      key: 'address',
      label: 'Console address',
      type: 'string',
      required: true,
      placeholder: 'https://walhook.example.com',
      helpText: 'The address of the walhook console, without a path.',
    },
    {
      key: 'api_key',
      label: 'API key',
      type: 'password',
      required: true,
      helpText: 'An administrator creates one with scope webhooks on the page *API keys* of the console.',
    },
  ],
  test: async (z, bundle) => (await z.request(api(bundle, '/me'))).data,
  connectionLabel: (z, bundle) => {
    const { name, organization_id: organization } = bundle.inputData
    return organization ? `${name} (organization ${organization})` : name
  },
}

// sendKey adds the API key to requests to the API, and to no others.
const sendKey = (request, z, bundle) => {
  if (bundle.authData.address && request.url.startsWith(api(bundle, '/'))) {
    request.headers.Authorization = `Bearer ${bundle.authData.api_key}`
  }
  return request
}

// refuse turns an error of the API (problem details, RFC 9457) into the error that Zapier has for it.
const refuse = (response, z) => {
  if (response.status < 400) {
    return response
  }
  let problem = {}
  try {
    problem = JSON.parse(response.content)
  } catch {
    // not JSON: the answer comes from a proxy in front of the console
  }
  const detail = problem.detail ?? `The console answered with status ${response.status}.`
  switch (response.status) {
    case 401:
      throw new z.errors.ExpiredAuthError(detail) // Zapier asks the user to connect again
    case 429:
    case 503:
      throw new z.errors.ThrottledError(detail, Number(response.getHeader('retry-after') ?? 60)) // Zapier retries
  }
  throw new z.errors.Error(detail, problem.title ?? 'Error', response.status)
}

module.exports = { api, authentication, sendKey, refuse }
