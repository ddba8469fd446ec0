// Package api is walhook's HTTP API: /api/v1 of the console, as openapi.json describes it.
//
// Its guarantee: a request runs in one transaction of the store, in which its API key is in force (walhook.use_api_key).
// Triggers, functions and views of the schema hold it to the key's scope and organization. The handlers here only turn
// requests into statements and results into JSON: they hold no rule. Every transaction has a deadline, and is rolled
// back if the answer is an error.
//
// The handler may be used by any number of requests at a time.
package api
