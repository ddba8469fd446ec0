package console

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const recordsPerPage = 50

// recordRoutes are the pages that list what happened, and the API keys.
func (s *Server) recordRoutes() []route {
	return []route{
		{"GET", "/incidents", s.incidents},
		{"GET", "/changes", s.changes},
		{"GET", "/keys", s.keys},
		{"POST", "/keys", s.createKey},
		{"GET", "/keys/{id}/revoke", withID("API key", s.askRevoke)},
		{"POST", "/keys/{id}/revoke", withID("API key", s.revokeKey)},
	}
}

// incidentRow is an incident.
type incidentRow struct {
	At       time.Time
	Kind     string
	Detail   string
	Resolved *time.Time
	ID       int64
}

// Title is the kind in words.
func (i *incidentRow) Title() string { return words(i.Kind) }

// words shows a name such as slot_lost to people.
func words(name string) string {
	if name == "" {
		return ""
	}
	return strings.ToUpper(name[:1]) + strings.ReplaceAll(name[1:], "_", " ")
}

// incidentsData is what incidents.html shows.
type incidentsData struct {
	Open, Rows  []incidentRow
	Next, First string
	OpenOnly    bool
}

func (s *Server) incidents(w http.ResponseWriter, r *http.Request, p *person) error {
	data := &incidentsData{}
	before := number(r.URL.Query().Get("before"))
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		const read = "select at, kind, detail, resolved_at, incident_id from walhook.incident "
		if before == nil {
			rows, err := tx.Query(r.Context(), read+"where resolved_at is null order by incident_id desc limit 100")
			if err != nil {
				return err
			}
			if data.Open, err = pgx.CollectRows(rows, pgx.RowToStructByPos[incidentRow]); err != nil {
				return err
			}
		}
		rows, err := tx.Query(r.Context(), read+`where resolved_at is not null and ($1::bigint is null or incident_id < $1)
			order by incident_id desc limit $2`, before, recordsPerPage+1)
		if err != nil {
			return err
		}
		data.Rows, err = pgx.CollectRows(rows, pgx.RowToStructByPos[incidentRow])
		return err
	})
	if err != nil {
		return err
	}
	if len(data.Rows) > recordsPerPage {
		data.Rows = data.Rows[:recordsPerPage]
		data.Next = "/incidents?before=" + strconv.FormatInt(data.Rows[recordsPerPage-1].ID, 10)
	}
	if before != nil {
		data.First = "/incidents"
	}
	return s.render(w, r, p, http.StatusOK, "incidents.html", "Incidents", data)
}

// changeRow is an entry of the change log.
type changeRow struct {
	At             time.Time
	Actor          string
	Action, Object string
	ObjectID       *int64
	Changes        map[string]json.RawMessage
	Login          string
	ID             int64
}

// Title says what was done, in words.
func (c *changeRow) Title() string {
	verb := map[string]string{"insert": "Added", "update": "Changed", "delete": "Deleted"}[c.Action]
	what := map[string]string{"webhook": "webhook", "settings": "the settings", "api_key": "API key"}[c.Object]
	if c.ObjectID == nil {
		return verb + " " + what
	}
	return fmt.Sprintf("%s %s %d", verb, what, *c.ObjectID)
}

// Link is the page of what was changed; "": none.
func (c *changeRow) Link() string {
	switch {
	case c.Object == "webhook" && c.Action != "delete" && c.ObjectID != nil:
		return webhookPath(*c.ObjectID)
	case c.Object == "api_key":
		return "/keys"
	case c.Object == "settings":
		return "/settings"
	}
	return ""
}

// edit is one column that changed.
type edit struct{ Column, Old, New string }

// Edits are the columns that changed.
func (c *changeRow) Edits() []edit {
	shown := func(v any) string {
		switch v := v.(type) {
		case nil:
			return "none"
		case string:
			return v
		default:
			text, _ := json.Marshal(v)
			return string(text)
		}
	}
	var edits []edit
	for _, column := range slices.Sorted(maps.Keys(c.Changes)) {
		if column == "created_at" || column == "disabled_at" {
			continue // as the change itself
		}
		var both struct{ Old, New any }
		if json.Unmarshal(c.Changes[column], &both) != nil {
			edits = append(edits, edit{column, "", "(changed)"})
			continue
		}
		switch c.Action {
		case "insert":
			edits = append(edits, edit{column, "", shown(both.New)})
		case "delete":
			edits = append(edits, edit{column, shown(both.Old), ""})
		default:
			edits = append(edits, edit{column, shown(both.Old), shown(both.New)})
		}
	}
	return edits
}

// changesData is what changes.html shows.
type changesData struct {
	Rows             []changeRow
	Object, ObjectID string // filters
	Next, First      string
}

// Objects are what the filter offers.
func (d *changesData) Objects() []choice {
	return []choice{{"webhook", "Webhooks"}, {"settings", "Settings"}, {"api_key", "API keys"}}
}

func (s *Server) changes(w http.ResponseWriter, r *http.Request, p *person) error {
	query := r.URL.Query()
	data := &changesData{Object: query.Get("object"), ObjectID: query.Get("id")}
	before := number(query.Get("before"))
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		rows, err := tx.Query(r.Context(), `select at, actor, action, object, object_id, changes, login, change_id
			from walhook.change_log
			where ($1::bigint is null or change_id < $1) and ($2 = '' or object = $2) and ($3::bigint is null or object_id = $3)
			order by change_id desc limit $4`, before, data.Object, number(data.ObjectID), recordsPerPage+1)
		if err != nil {
			return err
		}
		data.Rows, err = pgx.CollectRows(rows, pgx.RowToStructByPos[changeRow])
		return err
	})
	if err != nil {
		return err
	}
	address := func(before string) string {
		values := url.Values{}
		for name, value := range map[string]string{"object": data.Object, "id": data.ObjectID, "before": before} {
			if value != "" {
				values.Set(name, value)
			}
		}
		return "/changes?" + values.Encode()
	}
	if len(data.Rows) > recordsPerPage {
		data.Rows = data.Rows[:recordsPerPage]
		data.Next = address(strconv.FormatInt(data.Rows[recordsPerPage-1].ID, 10))
	}
	if before != nil {
		data.First = address("")
	}
	return s.render(w, r, p, http.StatusOK, "changes.html", "Changes", data)
}

// keyRow is an API key.
type keyRow struct {
	ID                             int64
	Name, Prefix                   string
	Organization                   *string
	Scope                          string
	CreatedAt                      time.Time
	CreatedBy                      string
	ExpiresAt, LastUsedAt, Revoked *time.Time
}

// State says whether the key can be used.
func (k *keyRow) State() string {
	switch {
	case k.Revoked != nil:
		return "revoked"
	case k.ExpiresAt != nil && !k.ExpiresAt.After(time.Now()):
		return "expired"
	}
	return "active"
}

// keysData is what keys.html shows.
type keysData struct {
	Rows                                 []keyRow
	Name, Organization, Scope, ExpiresAt string // as typed
	Zone                                 string
	Created                              string // the key, shown this once
	Scopes                               []choice
}

func (s *Server) keys(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.showKeys(w, r, p, nil, &keysData{Scope: "webhooks"})
}

func (s *Server) showKeys(w http.ResponseWriter, r *http.Request, p *person, refused error, data *keysData) error {
	data.Zone = p.zone.name
	data.Scopes = []choice{
		{"webhooks", "webhooks: reads everything, changes webhooks"},
		{"read", "read: changes nothing"},
		{"admin", "admin: changes webhooks of all organizations, and settings"},
	}
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		rows, err := tx.Query(r.Context(), `select id, name, prefix, organization_id, scope, created_at, created_by,
				expires_at, last_used_at, revoked_at
			from walhook.api_key order by revoked_at is not null, id desc limit 500`)
		if err != nil {
			return err
		}
		data.Rows, err = pgx.CollectRows(rows, pgx.RowToStructByPos[keyRow])
		return err
	})
	switch {
	case err != nil:
		return err
	case refused != nil:
		return s.renderRefused(w, r, p, refused, "keys.html", "API keys", data)
	}
	return s.render(w, r, p, http.StatusOK, "keys.html", "API keys", data)
}

func (s *Server) createKey(w http.ResponseWriter, r *http.Request, p *person) error {
	data := &keysData{
		Name:         strings.TrimSpace(r.PostFormValue("name")),
		Organization: strings.TrimSpace(r.PostFormValue("organization_id")),
		Scope:        r.PostFormValue("scope"),
		ExpiresAt:    strings.TrimSpace(r.PostFormValue("expires_at")),
	}
	expires, err := p.moment("expires_at", data.ExpiresAt)
	if err == nil {
		err = p.scan(r.Context(), []any{&data.Created}, "select walhook.create_api_key($1, nullif($2, ''), $3, $4)",
			data.Name, data.Organization, data.Scope, expires)
	}
	if err == nil {
		data.Name, data.Organization, data.Scope, data.ExpiresAt = "", "", "webhooks", ""
	}
	return s.showKeys(w, r, p, err, data)
}

func (s *Server) askRevoke(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	var name, prefix string
	err := p.scan(r.Context(), []any{&name, &prefix}, "select name, prefix from walhook.api_key where id = $1", id)
	if err != nil {
		return err
	}
	return s.ask(w, r, p, "Revoke "+name+"?", &question{
		Sentences: []string{
			"Requests with the key " + prefix + "… are refused from now on.",
			"Webhooks that were created with it stay.", "A revoked key cannot be restored.",
		},
		Button: "Revoke key", Action: r.URL.Path, Back: "/keys", Danger: true,
	})
}

func (s *Server) revokeKey(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(r.Context(), "select walhook.revoke_api_key($1)", id)
		return err
	})
	if err != nil {
		return err
	}
	return s.redirect(w, r, "/keys", p.said("The key is revoked."))
}
