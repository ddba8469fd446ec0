package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The methods of a Sample.
const (
	SampleAll       = "all"       // every row
	SamplePages     = "pages"     // the rows of randomly chosen pages
	SampleBeginning = "beginning" // the rows that are stored first
)

// Sample is how a bounded number of rows is read from a table.
type Sample struct {
	Statements []string
	Method     string
	Rows       float64 // an estimate of all rows, from the table's present size
}

// SampleSQL returns how to read about so many rows of a table.
//
// It takes pages from everywhere in the table, unless that could run functions of other people: to plan a query, the server
// evaluates expressions of indexes and of statistics. Then it takes the rows that are stored first, with COPY, which
// plans nothing.
func SampleSQL(ctx context.Context, source *pgx.Conn, t *Table, columns []string, rows float64) (s Sample, err error) {
	const unanalyzed = 60 // rows of a page, if nothing is known
	var runsCode bool
	err = source.QueryRow(ctx, partitionTree("$1::oid")+`, depending (class, oid) as (
		  select 'pg_catalog.pg_class'::regclass::oid, relid from tree
		  union all select 'pg_catalog.pg_class'::regclass, i.indexrelid from tree join pg_catalog.pg_index i on i.indrelid = relid
		  union all select 'pg_catalog.pg_statistic_ext'::regclass, e.oid from tree join pg_catalog.pg_statistic_ext e on e.stxrelid = relid)
		select coalesce(sum(pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int
		                    * case when c.relpages > 0 and c.reltuples > 0 then c.reltuples::float8 / c.relpages else $2 end), 0),
		       exists (select from depending join pg_catalog.pg_depend d on d.classid = class and d.objid = depending.oid
		                where d.refclassid in ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass))
		  from tree join pg_catalog.pg_class c on c.oid = relid and c.relkind = 'r'`, t.OID, float64(unanalyzed)).Scan(&s.Rows, &runsCode)
	if err != nil {
		return s, fmt.Errorf("estimate the rows of %s: %w", t.Name.Display(), err)
	}
	s.Method = SampleAll
	switch {
	case s.Rows > rows && runsCode:
		s.Method = SampleBeginning
	case s.Rows > rows:
		s.Method = SamplePages
		s.Statements = []string{fmt.Sprintf("copy (select %s from %s tablesample system (%g)) to stdout (encoding 'SQL_ASCII')",
			QuoteIdentifiers(columns), t.Name, 100*rows/s.Rows)}
		return s, nil
	}
	s.Statements, err = CopyOutSQL(ctx, source, t.Name, columns)
	return s, err
}
