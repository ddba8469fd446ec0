// Package api is walhook's HTTP API: /api/v1 of the console, as openapi.json describes it.
//
// Its guarantee: a request runs in one transaction of the store, in which its API key is in force (walhook.use_api_key).
// Triggers, functions and views of the schema restrict it to the key's scope and organization. Handlers only turn requests
// into statements and results into JSON; they contain no rules. Every transaction has a deadline, and is rolled back if the
// request fails.
//
// The handler is safe for concurrent use.
package api
