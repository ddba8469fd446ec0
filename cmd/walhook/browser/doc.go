// Package browser tests the console's pages in a real browser, against a console and a daemon that run as processes, a
// real PostgreSQL and a real receiver.
package browser
