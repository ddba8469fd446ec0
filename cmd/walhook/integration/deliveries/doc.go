// Package deliveries tests what leaves the queue: matching, order, retries, limits, the log and its metrics, with real
// servers, daemons as processes and a real receiver.
package deliveries
