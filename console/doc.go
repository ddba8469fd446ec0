// Package console serves the administrators' pages, and beside them the HTTP API of package console/api.
//
// Its guarantee: PostgreSQL decides who may do what. Each request runs in transactions under the person's own role
// (login database), or under walhook_admin or walhook_viewer, depending on the person's groups (oidc, proxy). Handlers
// contain no rules. Whatever a page does is a statement that people can run in psql.
//
// A Server may run in any number of processes. Connections are the console's own, few, and with a statement timeout, so
// that a slow page slows down nothing else. Everything may be called concurrently, except a person, which belongs to one
// request.
package console
