package dispatch

// line is the order of one response at one endpoint: a head that waits at the gate, is ready or in flight, and those behind it.
type line struct {
	response string
	heads    int // one, but for those in flight when a webhook changed; none while the next is looked up
	waiting  []*delivery

	// viaStore tells that deliveries of this line may lie in the store unheld, because its head failed before. Then none
	// is held behind the head, and the next one is looked up when the head has ended. unheld tells that one has come since.
	viaStore bool
	unheld   bool
}

// lead makes d a head of the line.
func (l *line) lead(d *delivery) {
	l.heads++
	d.line = l
}

// enqueue takes a held delivery to its place, and reports whether it may go on at once: it keeps no order, or heads its line.
func (e *endpoint) enqueue(d *delivery) bool {
	if !d.ordered() {
		return true
	}
	l := e.lines[d.responseID]
	switch {
	case l == nil:
		l = &line{response: d.responseID, viaStore: d.wasDue}
		put(&e.lines, d.responseID, l)
		l.lead(d)
		return true
	case l.viaStore:
		l.unheld = true
		e.letGo(d.id)
		return false
	default:
		l.waiting = append(l.waiting, d)
		return false
	}
}

// advance moves the line of a delivery that was recorded on.
func (e *endpoint) advance(d *delivery, final bool) (next *delivery, lookUp *line) {
	l := d.line
	if l == nil {
		return nil, nil
	}
	d.line = nil
	if l.heads--; l.heads > 0 {
		return nil, nil
	}
	switch {
	case !final && d.generation == e.generation:
		// Those behind it are found again in the store, once it has ended.
		for _, w := range l.waiting {
			e.letGo(w.id)
		}
		drop(&e.lines, l.response)
		return nil, nil
	case len(l.waiting) > 0:
		next, l.waiting = l.waiting[0], l.waiting[1:]
		l.lead(next)
		return next, nil
	case l.viaStore:
		// Also after a failure, where a webhook has changed meanwhile: another may be the head now.
		l.unheld = false
		return nil, l
	default:
		drop(&e.lines, l.response)
		return nil, nil
	}
}

// succeeded takes the answer to a look-up of the next of a line: nil where there is none, or none that is due. It reports
// whether next goes on, and whether to look again.
func (e *endpoint) succeeded(l *line, next *delivery) (goes, lookUp bool) {
	switch {
	case next == nil && l.unheld:
		l.unheld = false
		return false, true
	case next == nil:
		drop(&e.lines, l.response)
		return false, false
	}
	if next.id > e.cursor {
		// It was committed a moment ago and may yet be handed over, even after it has ended: from here on the store tells.
		e.more, e.missed = true, true
	}
	e.hold(next)
	l.lead(next)
	return true, false
}

// redraw begins the lines anew with what is in flight, as the webhooks are now.
func (e *endpoint) redraw() {
	e.lines = nil
	if len(e.flying) == 0 {
		return
	}
	ordered := map[int64]bool{}
	for _, h := range e.hooks {
		ordered[h.id] = h.ordered
	}
	for _, d := range e.flying {
		d.line = nil
		if d.kind == kindTest || !ordered[d.webhookID] {
			continue
		}
		l := e.lines[d.responseID]
		if l == nil {
			l = &line{response: d.responseID, viaStore: true, unheld: true}
			put(&e.lines, d.responseID, l)
		}
		l.lead(d)
	}
}
