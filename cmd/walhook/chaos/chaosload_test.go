package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// chaosSchema has two tables in addition to the application's: ledger records the events that each transaction should
// fire, and life the progress of each response. Both commit with the change, so they are right even if the outcome of a
// commit is unknown.
const chaosSchema = `
create table respondent (id bigint primary key, assessment_id bigint default 1, page int default 0,
  started_at timestamptz, finished_at timestamptz);
create table life (response_id bigint primary key, started bool not null, completed bool not null);
create table neighbour (id bigint, words text);
create table ledger (seq bigserial primary key, response_id bigint not null, event text not null);`

// chaosLoad simulates the application: clients that continue whatever happens to their connections.
type chaosLoad struct {
	url    atomic.Pointer[string]
	gate   sync.RWMutex // held for reading by transactions, for writing by code that must exclude them
	end    context.CancelFunc
	ended  sync.WaitGroup
	events map[string]int // whose commit is certain, by kind of transaction
	mu     sync.Mutex
}

// startLoad starts n clients, which write until the load is stopped.
func startLoad(url string, seed uint64, n int) *chaosLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &chaosLoad{end: cancel, events: map[string]int{}}
	l.url.Store(&url)
	for i := range n {
		c := &chaosClient{load: l, number: int64(i), rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		l.ended.Go(func() { c.work(ctx) })
	}
	return l
}

func (l *chaosLoad) stop() {
	l.end()
	l.ended.Wait()
}

// paused runs f while no transaction is in progress.
func (l *chaosLoad) paused(f func()) {
	l.gate.Lock()
	defer l.gate.Unlock()
	f()
}

func (l *chaosLoad) committed(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[kind]++
}

// chaosClient writes responses that no other client writes.
type chaosClient struct {
	load   *chaosLoad
	number int64
	rand   *rand.Rand
	conn   *pgx.Conn
	bulks  int64
}

// idsOfClient is the number of responses whose life cycles a client repeats.
const idsOfClient = 200

func (c *chaosClient) work(ctx context.Context) {
	pace := time.NewTicker(*chaosPace)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			c.drop()
			return
		case <-pace.C:
		}
		c.load.gate.RLock()
		kind, err := c.transaction(ctx)
		c.load.gate.RUnlock()
		if err != nil {
			c.drop() // the server was killed, or our backend: connect again
			continue
		}
		c.load.committed(kind)
	}
}

func (c *chaosClient) drop() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx)
	c.conn = nil
}

// transaction runs one transaction of the application.
func (c *chaosClient) transaction(ctx context.Context) (kind string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if c.conn == nil {
		if c.conn, err = pgx.Connect(ctx, *c.load.url.Load()); err != nil {
			c.conn = nil
			return "", err
		}
	}
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return "", err
	}
	w := &chaosWork{ctx: ctx, tx: tx, rand: c.rand}
	switch c.rand.IntN(400) {
	case 0:
		kind = "bulk"
		w.bulk(c.number, &c.bulks)
	case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
		kind = "silenced"
		w.exec("select walhook.silence()")
		w.silenced = true
		w.step(c.id())
	case 11, 12, 13, 14, 15, 16, 17, 18, 19, 20:
		kind = "savepoint"
		w.savepoint(c.id())
		w.step(c.id())
	default:
		kind = "ordinary"
		// Mostly one step of one response, sometimes many steps or several responses at once.
		for range 1 + c.rand.IntN(3)*c.rand.IntN(3) {
			w.step(c.id())
		}
	}
	if w.err != nil {
		return "", w.err
	}
	if c.rand.IntN(12) == 0 {
		return "rolled back", tx.Rollback(ctx)
	}
	w.write()
	if w.err != nil {
		return "", w.err
	}
	return kind, tx.Commit(ctx)
}

// id returns one of the client's own keys. Half of them are reserved for changes of keys.
func (c *chaosClient) id() int64 {
	return (c.number*idsOfClient + 1 + c.rand.Int64N(idsOfClient)) * (1 - 2*c.rand.Int64N(2))
}

// chaosWork is a transaction with the events that it should fire. The first error ends it.
type chaosWork struct {
	ctx       context.Context
	tx        pgx.Tx
	rand      *rand.Rand
	silenced  bool
	responses []int64
	events    []string
	err       error
}

func (w *chaosWork) exec(statement string, args ...any) {
	if w.err == nil {
		_, w.err = w.tx.Exec(w.ctx, statement, args...)
	}
}

func (w *chaosWork) fires(id int64, event string) {
	if !w.silenced {
		w.responses = append(w.responses, id)
		w.events = append(w.events, event)
	}
}

// write records in the ledger what the transaction should fire.
func (w *chaosWork) write() {
	w.exec("insert into ledger (response_id, event) select * from unnest($1::bigint[], $2::text[])", w.responses, w.events)
}

// step advances a response by one step of its life cycle.
func (w *chaosWork) step(id int64) {
	if w.err != nil {
		return
	}
	var started, completed bool
	err := w.tx.QueryRow(w.ctx, "select started, completed from life where response_id = $1", id).Scan(&started, &completed)
	if err == pgx.ErrNoRows {
		w.create(id)
		return
	}
	if w.err = err; err != nil {
		return
	}
	switch n := w.rand.IntN(20); {
	case n < 6:
		w.exec("update respondent set started_at = clock_timestamp(), page = page + 1 where id = $1", id)
		w.started(id, started)
	case n < 13:
		w.exec("update respondent set finished_at = clock_timestamp() where id = $1", id)
		w.finished(id, completed)
	case n < 15:
		w.exec("update respondent set page = page + 1 where id = $1", id)
	case n < 16:
		w.exec("update respondent set finished_at = null where id = $1", id)
	case n < 17:
		w.exec("update respondent set started_at = null where id = $1", id)
	case n < 18:
		w.rename(id)
	default:
		w.exec("delete from respondent where id = $1", id)
		w.exec("delete from life where response_id = $1", id)
	}
}

func (w *chaosWork) create(id int64) {
	markers := w.rand.IntN(4) == 0
	w.exec("insert into respondent (id, started_at, finished_at) values ($1, case when $2 then clock_timestamp() end, case when $2 then clock_timestamp() end)", id, markers)
	w.exec("insert into life values ($1, $2, $2)", id, markers)
	w.fires(id, "created")
	if markers {
		w.fires(id, "started")
		w.fires(id, "completed")
	}
}

func (w *chaosWork) started(id int64, before bool) {
	if !before {
		w.exec("update life set started = true where response_id = $1", id)
		w.fires(id, "started")
	}
}

func (w *chaosWork) finished(id int64, before bool) {
	if before {
		w.fires(id, "changed")
		return
	}
	w.exec("update life set completed = true where response_id = $1", id)
	w.fires(id, "completed")
}

// rename changes a response's key to the other one of its pair, if that is free.
func (w *chaosWork) rename(id int64) {
	var free bool
	if w.err = w.tx.QueryRow(w.ctx, "select not exists (select from life where response_id = $1)", -id).Scan(&free); w.err != nil || !free {
		return
	}
	w.exec("update respondent set id = -id where id = $1", id)
	w.exec("update life set response_id = -response_id where response_id = $1", id)
}

// savepoint makes a change and rolls it back.
func (w *chaosWork) savepoint(id int64) {
	responses, events := len(w.responses), len(w.events)
	w.exec("savepoint regretted")
	w.step(id)
	w.step(id)
	w.exec("rollback to savepoint regretted")
	w.responses, w.events = w.responses[:responses], w.events[:events]
}

// bulk inserts many responses at once, so that a kill may hit a partly consumed transaction.
func (w *chaosWork) bulk(client int64, bulks *int64) {
	*bulks++ // never reuse a key, even if the transaction fails
	first := 1_000_000_000*(client+1) + *bulks*10_000
	n := 100 + w.rand.Int64N(4900)
	w.exec("insert into respondent (id) select g from generate_series($1::bigint, $2) g", first, first+n-1)
	w.exec("insert into ledger (response_id, event) select g, 'created' from generate_series($1::bigint, $2) g", first, first+n-1)
}

func (l *chaosLoad) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.events)
}
