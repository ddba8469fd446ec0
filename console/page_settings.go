package console

import (
	"net/http"

	"github.com/jackc/pgx/v5"
)

// settingsData is what settings.html shows.
type settingsData struct {
	Enabled bool
	Zone    string
	Zones   []string
}

func (s *Server) settings(w http.ResponseWriter, r *http.Request, p *person) error {
	data, err := s.readSettings(r, p)
	if err != nil {
		return err
	}
	return s.render(w, r, p, http.StatusOK, "settings.html", "Settings", data)
}

func (s *Server) readSettings(r *http.Request, p *person) (*settingsData, error) {
	data := &settingsData{}
	return data, p.tx(r.Context(), func(tx pgx.Tx) error {
		if err := tx.QueryRow(r.Context(), "select enabled, time_zone from walhook.settings").Scan(&data.Enabled, &data.Zone); err != nil {
			return err
		}
		if zones := s.zones.Load(); zones != nil {
			data.Zones = *zones
			return nil
		}
		rows, err := tx.Query(r.Context(), `select name from pg_catalog.pg_timezone_names
			where name !~ '^(posix|right)/' and name !~ '^(Etc|SystemV)/' and name <> 'localtime' order by name`)
		if err != nil {
			return err
		}
		if data.Zones, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
			s.zones.Store(&data.Zones)
		}
		return err
	})
}

func (s *Server) saveSettings(w http.ResponseWriter, r *http.Request, p *person) error {
	enabled, timeZone := r.PostFormValue("enabled") != "", r.PostFormValue("time_zone")
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(r.Context(), "update walhook.settings set enabled = $1, time_zone = $2", enabled, timeZone)
		return err
	})
	if err == nil {
		return s.redirect(w, r, "/settings", "Settings saved.")
	}
	data, readErr := s.readSettings(r, p)
	if readErr != nil {
		return readErr
	}
	data.Enabled, data.Zone = enabled, timeZone
	return s.renderRefused(w, r, p, err, "settings.html", "Settings", data)
}
