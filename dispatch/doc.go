// Package dispatch turns events into answered POSTs: it matches and queues, schedules, sends and records.
//
// Its stateless half is one attempt. A [Target] is what is known of a webhook's URL and secrets, prepared once;
// [Client.Attempt] makes one POST to it and returns an [Outcome] whose text is safe to store and to log. Body, message
// id, signature, backoff and Retry-After are functions of their arguments. A Client, a Guard and a Target never change
// after they were made, and may be used by any number of goroutines.
//
// What is promised here:
//   - The body and the webhook-id of a delivery are the same at every attempt and in every process.
//   - An attempt is one POST, from connect to the reply's last byte within the timeout. The transport repeats it only
//     where the server cannot have seen it.
//   - An address is checked after name resolution, at connect, however it was spelt.
//   - No outcome, error or String tells more of a URL than its scheme and host.
//   - Memory per attempt is bounded, whatever the server replies.
package dispatch
