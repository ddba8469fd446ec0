package schedule

import (
	"time"

	"walhook/dispatch/post"
)

// Result is a delivery with the outcome of its attempt, to be recorded.
type Result struct {
	Delivery   *Delivery
	Outcome    post.Outcome
	At         time.Time // of the answer
	Final      bool
	Delay      time.Duration // until the next attempt; 0 if final
	Activation int64         // of the webhook when the attempt was made

	wasLocked bool // it was deferred because another transaction had locked its rows
	Missing   bool // perhaps the store no longer had the delivery: a crash reverted its commit, or this was recorded before
}
