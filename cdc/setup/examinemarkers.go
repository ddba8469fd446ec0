package setup

import (
	"context"
	"slices"
	"time"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// valuesTime bounds the reading of rows by markerValues.
const valuesTime = 5 * time.Second

// markerValues looks in the rows for the values that markers name.
func (e *examiner) markerValues(ctx context.Context) {
	m, unreadable := e.cfg.Target.Mapping, slices.ContainsFunc(e.preflight.Refusals(), func(f catalog.Finding) bool {
		return f.Check == "condition" || f.Check == "select_right" || f.Check == "row_security"
	})
	named := slices.ContainsFunc(m.Markers(), func(marker cdc.MappedMarker) bool { return len(marker.Values) > 0 })
	if e.preflight.Respondent == nil || unreadable || !named {
		return
	}
	const check = "marker_values"
	source, err := catalog.ConnectSource(ctx, e.cfg.SourceURL)
	if err != nil {
		e.cannotCheck(check, err)
		return
	}
	defer catalog.CloseQuietly(source)
	t := newTally(m, e.preflight.Respondent)
	if _, err := readSample(ctx, source, t, valuesTime, func(int64, int64) {}); err != nil {
		e.cannotCheck(check, err)
		return
	}
	e.findings = append(e.findings, t.missingValues()...)
}
