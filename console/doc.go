// Package console is the administrators' page. It serves the HTTP API, package console/api, beside it.
//
// Its guarantee: PostgreSQL decides who may do what. Each request runs in transactions under the person's own role
// (login database) or under the group role that the person's groups give (oidc, proxy), and handlers hold no rules.
// Whatever the page does is a statement that people can run in psql.
//
// A Server may run in any number of processes. Connections are the console's own, few, and with a statement timeout, so
// that a slow page slows nothing else. Everything here may be called concurrently; a person belongs to one request.
package console
