package schedule

// line keeps the order of the deliveries about one response at one endpoint: its head waits for visibility, is ready or
// in flight, and the others wait behind it.
type line struct {
	response string
	heads    int         // one; more if several were in flight when a webhook changed; none while the successor is queried
	waiting  []*Delivery // behind the head

	// successorInStore means that the next delivery must be queried from the store once the head has ended, since
	// deliveries of this line may be there and not held. None is held behind the head then. othersInStore means that
	// one has come since the last such query.
	successorInStore bool
	othersInStore    bool
}

func (l *line) addHead(d *Delivery) {
	l.heads++
	d.line = l
}

// enqueue gives a held delivery its place in its line. It reports whether the delivery may go at once: as head, or
// without order.
func (e *Endpoint) enqueue(d *Delivery) bool {
	if !d.ordered() {
		return true
	}
	l := e.lines[d.ResponseID]
	switch {
	case l == nil:
		l = &line{response: d.ResponseID, successorInStore: d.loadedDue}
		put(&e.lines, d.ResponseID, l)
		l.addHead(d)
		return true
	case l.successorInStore:
		l.othersInStore = true
		e.unhold(d.ID)
		return false
	default:
		l.waiting = append(l.waiting, d)
		return false
	}
}

// advance moves the line of a recorded delivery on. It returns the new head, or the line if its successor must be
// queried from the store.
func (e *Endpoint) advance(d *Delivery, final bool) (next *Delivery, query *line) {
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
		// Those behind it are loaded again once it has ended.
		for _, w := range l.waiting {
			e.unhold(w.ID)
		}
		drop(&e.lines, l.response)
		return nil, nil
	case len(l.waiting) > 0:
		next, l.waiting = l.waiting[0], l.waiting[1:]
		l.addHead(next)
		return next, nil
	case l.successorInStore:
		// Also after a failure, if a webhook has changed meanwhile: another delivery may come first now.
		l.othersInStore = false
		return nil, l
	default:
		drop(&e.lines, l.response)
		return nil, nil
	}
}

// successorFound takes the answer to a query for the successor: nil if there is none, or none that is due. It reports
// whether next may be sent, and whether to query again.
func (e *Endpoint) successorFound(l *line, next *Delivery) (ready, again bool) {
	switch {
	case next == nil && l.othersInStore:
		l.othersInStore = false
		return false, true
	case next == nil:
		drop(&e.lines, l.response)
		return false, false
	}
	if next.ID > e.cursor {
		// It was committed a moment ago and may still be handed over, even after it has ended. Load what follows
		// instead.
		e.on(moreStored)
	}
	e.hold(next)
	l.addHead(next)
	return true, false
}

// rebuildLines replaces the lines by those of the active deliveries, for the webhooks as they are now.
func (e *Endpoint) rebuildLines() {
	e.lines = nil
	if len(e.active) == 0 {
		return
	}
	ordered := map[int64]bool{}
	for _, h := range e.hooks {
		ordered[h.ID] = h.Ordered
	}
	for _, d := range e.active {
		d.line = nil
		keeps, here := ordered[d.WebhookID]
		if !here {
			keeps = d.Hook.Ordered // its webhook has left the URL, but the attempt is in flight there
		}
		if d.Kind == KindTest || !keeps {
			continue
		}
		l := e.lines[d.ResponseID]
		if l == nil {
			l = &line{response: d.ResponseID, successorInStore: true, othersInStore: true}
			put(&e.lines, d.ResponseID, l)
		}
		l.addHead(d)
	}
}
