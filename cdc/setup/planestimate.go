package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
)

const (
	// sampleRows is how many rows are read to estimate the time for all of them.
	sampleRows = 50000

	// sampleTimeout bounds the reading of the sample.
	sampleTimeout = 10 * time.Second

	// writeShare is an upper bound for the cost of writing the state relative to reading the rows, if the store is as
	// fast as the source.
	writeShare = 1
)

// errSampled ends the reading of a sample.
var errSampled = errors.New("enough rows were read")

// lineCounter counts rows in COPY's text format, up to the size of a sample.
type lineCounter int64

func (c *lineCounter) Write(p []byte) (int, error) {
	if *c += lineCounter(bytes.Count(p, []byte{'\n'})); *c >= sampleRows {
		return 0, errSampled
	}
	return len(p), nil
}

// sample reads up to sampleRows rows as attach would. The connection cannot be used afterwards.
func sample(ctx context.Context, source *pgx.Conn, t *catalog.Table, columns []string) (rows lineCounter, err error) {
	statements, err := catalog.CopyOutSQL(ctx, source, t.Name, columns)
	for _, statement := range statements {
		if _, err = source.PgConn().CopyTo(ctx, &rows, statement); err != nil {
			break
		}
	}
	if errors.Is(err, errSampled) {
		err = nil
	}
	return rows, err
}

// estimateSnapshot reads a sample of rows and estimates the time for all of them, with the basis of the estimate.
func estimateSnapshot(ctx context.Context, url string, t *catalog.Table, columns []string) string {
	size := fmt.Sprintf("Table %s: %s, %s.", t.Name.Display(), catalog.FormatRows(t.Rows), t.Size())
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	var rows lineCounter
	source, err := catalog.ConnectSource(ctx, url)
	began := time.Now()
	if err == nil {
		rows, err = sample(ctx, source, t, columns)
		defer catalog.CloseQuietly(source)
	}
	took := time.Since(began)
	switch {
	case err != nil:
		return size + fmt.Sprintf(" How long the snapshot will take is not known: reading %d rows to find out failed (%s).",
			sampleRows, err)
	case rows < sampleRows:
		return fmt.Sprintf(
			"Table %s: %d rows, %s. The snapshot takes well under a minute: reading all rows took %s just now.",
			t.Name.Display(), rows, t.Size(), took.Round(time.Millisecond),
		)
	case t.Rows < float64(rows):
		return size + " How long the snapshot will take is not known, because the table has more rows than that: " +
			"run ANALYZE on it first."
	}
	total := time.Duration(float64(took) * t.Rows / float64(rows) * (1 + writeShare))
	return size + fmt.Sprintf(" The snapshot takes about %s, estimated from %d rows that were read just now in %s, "+
		"and as much again for the store to write them.",
		total.Round(time.Second), rows, took.Round(time.Millisecond))
}
