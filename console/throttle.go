package console

import (
	"strconv"
	"sync"
	"time"
)

// throttle delays sign-ins after failures. Each failure beyond a few doubles the wait of the role at that address; many
// failures also delay the role everywhere, and the address for every role. A role's own wait is short, since others can
// cause it.
type throttle struct {
	mu   sync.Mutex
	seen map[throttleKey]*failures
	now  func() time.Time
}

type throttleKey struct{ role, address string }

type failures struct {
	count int
	until time.Time
	last  time.Time
}

type throttleLimit struct {
	free    int           // failures without a wait
	longest time.Duration // wait
}

const (
	throttleForget = 15 * time.Minute // without a failure
	throttleMost   = 20_000           // entries
)

func newThrottle() *throttle { return &throttle{seen: map[throttleKey]*failures{}, now: time.Now} }

// attempt is one sign-in. It counts as failed until it has succeeded, so concurrent attempts gain nothing.
type attempt struct {
	throttle *throttle
	wait     time.Duration // if not 0, the attempt is refused and may be repeated after it
	pair     throttleKey
	own      []throttleKey
}

func (t *throttle) begin(role, address string) *attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	pair := throttleKey{role, address}
	limits := map[throttleKey]throttleLimit{
		pair: {5, 5 * time.Minute}, {role: role}: {30, 20 * time.Second}, {address: address}: {30, 5 * time.Minute},
	}
	now := t.now()
	a := &attempt{throttle: t, pair: pair}
	for key := range limits {
		if f := t.seen[key]; f != nil {
			if now.Sub(f.last) > throttleForget {
				delete(t.seen, key)
			} else {
				a.wait = max(a.wait, f.until.Sub(now))
			}
		}
	}
	if a.wait > 0 {
		return a
	}
	if len(t.seen) > throttleMost {
		t.forget(now)
	}
	for key, limit := range limits {
		f := t.seen[key]
		if f == nil {
			f = &failures{}
			t.seen[key] = f
		}
		f.count++
		f.last = now
		if over := f.count - limit.free; over >= 0 {
			f.until = now.Add(min(time.Second<<min(over, 20), limit.longest))
		}
		a.own = append(a.own, key)
	}
	return a
}

// forget removes old entries, and all of them if too many remain.
func (t *throttle) forget(now time.Time) {
	for key, f := range t.seen {
		if now.Sub(f.last) > throttleForget {
			delete(t.seen, key)
		}
	}
	if len(t.seen) > throttleMost {
		clear(t.seen)
	}
}

// succeeded undoes what begin counted, and forgets the failures of the role at this address.
func (a *attempt) succeeded() {
	a.throttle.mu.Lock()
	delete(a.throttle.seen, a.pair)
	a.throttle.mu.Unlock()
	a.undo()
}

// undo takes back what begin has counted.
func (a *attempt) undo() {
	a.throttle.mu.Lock()
	defer a.throttle.mu.Unlock()
	for _, key := range a.own {
		if f := a.throttle.seen[key]; f != nil {
			f.count--
			f.until = time.Time{}
		}
	}
}

// seconds formats a duration for Retry-After, rounded up.
func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }
