// Package post makes one POST: the stateless half of package dispatch.
//
// A [Target] is a webhook's URL and signing secrets, checked and prepared once; [Client.Attempt] POSTs a body to it and
// returns an [Outcome] whose text is safe to store and to log. Body, signature, [Backoff] and Retry-After are functions
// of their arguments.
//
// Guarantees:
//   - An attempt is one POST, from connect to the last byte of the reply within the timeout. The transport repeats it
//     only if the server cannot have seen it.
//   - An address is checked after name resolution, when connecting, however it was spelled.
//   - No outcome, error or String shows more of a URL than its scheme and host.
//   - Memory per attempt is bounded, whatever the server replies.
//
// Client, Guard and Target never change once made, and may be used concurrently. The package imports nothing else of
// walhook.
package post
