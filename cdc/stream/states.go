package stream

import (
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
)

// cachedStates is the capacity of each half of the cache: about 4 MiB in all. Most updates concern responses that
// changed a moment ago.
const cachedStates = 1 << 14

// stateCache caches the states of responses as stored. Only the writer changes states, so an entry stays valid until
// the writer loses its connection.
//
// States that are used go into the recent half. Once that is full it becomes the older half, whose former states are
// evicted. This approximates LRU without a list, which would need more memory than the states.
type stateCache struct{ recent, older map[string]*cdc.State }

func newStateCache() *stateCache {
	return &stateCache{recent: map[string]*cdc.State{}, older: map[string]*cdc.State{}}
}

// get returns the state, nil if the response is known to have none.
func (c *stateCache) get(id string) (state *cdc.State, cached bool) {
	if state, cached = c.recent[id]; cached {
		return state, true
	}
	if state, cached = c.older[id]; cached {
		c.put(id, state)
	}
	return state, cached
}

func (c *stateCache) put(id string, state *cdc.State) {
	if len(c.recent) >= cachedStates {
		c.recent, c.older = c.older, c.recent
		clear(c.recent)
	}
	c.recent[id] = state
}

func (c *stateCache) purge() {
	clear(c.recent)
	clear(c.older)
}

// scanState scans a row of ReadStates.
func scanState(rows pgx.Rows) (id string, state *cdc.State, err error) {
	var (
		assessment, stamp *string
		flags             int16
	)
	var organization, first *string
	if err := rows.Scan(&id, &assessment, &organization, &stamp, &flags, &first); err != nil {
		return "", nil, fmt.Errorf("read a response's state: %w", err)
	}
	return id, newState(assessment, organization, stamp, flags, first), nil
}

// newState builds a state from its columns.
func newState(assessment, organization, stamp *string, flags int16, first *string) *cdc.State {
	state := &cdc.State{AssessmentID: assessment, OrganizationID: organization, FirstID: first}
	state.SetFlags(flags)
	if stamp != nil {
		state.Stamp = *stamp
	}
	return state
}

// eventHistory records which events of a response fired or were silenced, for people who ask. Bit n - 1 stands for
// event type n.
type eventHistory struct {
	fired, silenced int16
	at              time.Time // commit time of the last
}

// add adds the events of one change.
func (f eventHistory) add(fired cdc.EventSet, silenced bool, at time.Time) eventHistory {
	if fired == 0 {
		return f
	}
	bits := int16(fired) >> cdc.Created
	f.fired, f.silenced, f.at = f.fired|bits, f.silenced&^bits, at
	if silenced {
		f.silenced |= bits
	}
	return f
}

// stateRow is a state as walhook.state_in has it.
type stateRow struct {
	ResponseID     string        `sql:"response_id"`
	FirstID        *string       `sql:"first_id"`
	AssessmentID   *string       `sql:"assessment_id"`
	OrganizationID *string       `sql:"organization_id"`
	Stamp          string        `sql:"stamp,null"`
	Flags          int16         `sql:"flags"`
	CreatedLSN     pglogrepl.LSN `sql:"created_lsn,null"`
	Fired          int16         `sql:"fired"`
	Silenced       int16         `sql:"silenced"`
	FiredAt        time.Time     `sql:"fired_at,null"`
}

// newStateRow returns a state's row. created is the commit LSN of the insert, 0 if the response is not new.
func newStateRow(id string, s *cdc.State, created pglogrepl.LSN, history eventHistory) stateRow {
	return stateRow{
		ResponseID: id, FirstID: s.FirstID, AssessmentID: s.AssessmentID, OrganizationID: s.OrganizationID, Stamp: s.Stamp,
		Flags: s.Flags(), CreatedLSN: created, Fired: history.fired, Silenced: history.silenced, FiredAt: history.at,
	}
}
