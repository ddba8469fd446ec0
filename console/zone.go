package console

import (
	"html/template"
	"strings"
	"time"
	_ "time/tzdata" // for images without a zone database
)

// zone is the site's time zone.
type zone struct {
	name string
	loc  *time.Location
}

// loadZone returns the zone of this name, or UTC if Go does not know it.
func loadZone(name string) zone {
	loc, err := time.LoadLocation(strings.TrimPrefix(name, "posix/"))
	if err != nil {
		return zone{"UTC", time.UTC}
	}
	return zone{name, loc}
}

// At formats a time in the site's zone, with UTC beside it unless that is the same. A page calls it as {{$.Time .At}}.
func (z zone) At(t time.Time) template.HTML {
	if t.IsZero() {
		return `<span class="none">–</span>`
	}
	utc := t.UTC()
	local := t.In(z.loc)
	shown := local.Format("2006-01-02 15:04:05")
	aside := ""
	if _, offset := local.Zone(); offset != 0 {
		layout := "15:04:05 UTC"
		if local.Day() != utc.Day() {
			layout = "01-02 15:04:05 UTC"
		}
		aside = ` <small class="utc">` + utc.Format(layout) + `</small>`
	} else {
		shown += " UTC"
	}
	return template.HTML(`<time datetime="` + utc.Format(time.RFC3339) + `">` + shown + aside + `</time>`)
}
