// Package stream tests what reaches the queue: events, classification, gaps, lost slots, comparisons and kills, with
// real servers, daemons as processes and a real receiver.
package stream
