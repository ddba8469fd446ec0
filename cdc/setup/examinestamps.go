package setup

import (
	"context"
	"fmt"
	"strings"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

const (
	// stampSample is about how many recorded responses stamps reads.
	stampSample = 100_000

	// minStamps is how many finished responses say something about their stamps.
	minStamps = 10
)

// stamps checks the recorded finish stamps: one that is NULL, constant or shared does not distinguish
// one finish from the next.
func (e *examiner) stamps(ctx context.Context) {
	columns := e.cfg.Target.Mapping.StampColumns()
	if len(columns) == 0 {
		return
	}
	const check = "stamp_values"
	var percent float64
	err := e.store.QueryRow(ctx, `
		select least(100, 100 * $1 / greatest(c.reltuples, 1))::float8 from pg_catalog.pg_class c
		 where c.oid = 'walhook.response_state'::pg_catalog.regclass`, float64(stampSample)).Scan(&percent)
	if err != nil {
		e.cannotCheck(check, err)
		return
	}
	var finished, stamped, shared int64
	err = e.store.QueryRow(ctx, `
		with finished as (
		  select s.stamp from walhook.response_state s tablesample system ($1) where s.flags & $2 = $3
		)
		select count(*), count(f.stamp),
		       coalesce((select count(*) from finished g where g.stamp is not null
		                  group by g.stamp order by 1 desc limit 1), 0)
		  from finished f`, percent, cdc.FlagFinishedNow|cdc.FlagExcluded, cdc.FlagFinishedNow).
		Scan(&finished, &stamped, &shared)
	if err != nil {
		e.cannotCheck(check, err)
		return
	}
	of := fmt.Sprintf("of %d finished responses, ", finished)
	if percent < 100 {
		of = "of a sample of" + of[len("of"):]
	}
	level, found, remedy := judgeStamps(of, finished, stamped, shared, columns)
	e.note(level, check, found, remedy)
}

// judgeStamps reports whether finish stamps distinguish one finish from the next. Of the finished responses, stamped have
// a stamp, and shared have the most frequent one. The sentence begins with of.
func judgeStamps(
	of string, finished, stamped, shared int64, columns []string,
) (level catalog.Level, found, remedy string) {
	remedy = "set WALHOOK_FINISH_STAMP to a column that changes with each finish (walhook attach --remap)"
	column := strings.Join(columns, ", ")
	switch {
	case finished < minStamps:
		return catalog.OK, "fewer than 10 responses are finished, which says nothing about their finish stamps", ""
	case stamped*2 < finished:
		return catalog.Warn, fmt.Sprintf(
			"%s%d have no finish stamp: %s is NULL, and the first value after that counts as the stamp of the same finish",
			of, finished-stamped, column), remedy
	case shared == stamped:
		return catalog.Warn, fmt.Sprintf("%sall with a finish stamp have the same one: %s does not distinguish one finish from the next",
			of, column), remedy
	case shared >= minStamps && shared*10 > stamped:
		return catalog.Warn, fmt.Sprintf("%s%d share one finish stamp: a further finish is only seen if it changes %s",
				of, shared, column),
			remedy + "; one import or bulk update that finished all of them is no problem"
	}
	return catalog.OK, of + "few share a finish stamp", ""
}
