package post

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBackoffDoublesUpToItsCap(t *testing.T) {
	t.Parallel()
	b := Backoff{Base: 5 * time.Second, Cap: 12 * time.Hour}
	for _, tt := range []struct {
		attempt     int
		least, most time.Duration
	}{
		{0, 4 * time.Second, 6 * time.Second},
		{1, 4 * time.Second, 6 * time.Second},
		{2, 8 * time.Second, 12 * time.Second},
		{3, 16 * time.Second, 24 * time.Second},
		{14, 32768 * time.Second, 12 * time.Hour},
		{15, 9*time.Hour + 36*time.Minute, 12 * time.Hour},
		{math.MaxInt, 9*time.Hour + 36*time.Minute, 12 * time.Hour},
	} {
		for rnd := 0.0; rnd < 1; rnd += 0.001 {
			if d := b.Delay(tt.attempt, rnd); d < tt.least || d > tt.most {
				t.Fatalf("attempt %d, rnd %v: %v is not within %v and %v", tt.attempt, rnd, d, tt.least, tt.most)
			}
		}
	}
}

func TestSixteenAttemptsSpanADayAndAHalf(t *testing.T) {
	t.Parallel()
	b := Backoff{Base: 5 * time.Second, Cap: 12 * time.Hour}
	sum := func(rnd float64) (total time.Duration) {
		for attempt := 1; attempt < 16; attempt++ {
			total += b.Delay(attempt, rnd)
		}
		return total
	}
	for _, rnd := range []float64{0, 0.25, 0.5, 0.75, 0.999} {
		if total := sum(rnd); total < 27*time.Hour || total > 42*time.Hour {
			t.Errorf("rnd %v: 16 attempts span %v", rnd, total)
		}
	}
	if total := sum(0.5); total.Round(time.Hour) != 35*time.Hour {
		t.Errorf("without jitter 16 attempts span %v", total)
	}
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{
			Base: time.Duration(rapid.Int64().Draw(t, "base")),
			Cap:  time.Duration(rapid.Int64().Draw(t, "cap")),
		}
		d := b.Delay(rapid.Int().Draw(t, "attempt"), rapid.Float64().Draw(t, "rnd"))
		if d < 0 || d > max(b.Cap, 0) {
			t.Fatalf("%+v waits %v", b, d)
		}
	})
	if d := (Backoff{Base: time.Second, Cap: time.Minute}).Delay(1, math.NaN()); d != 800*time.Millisecond {
		t.Errorf("not a number: waits %v", d)
	}
}
