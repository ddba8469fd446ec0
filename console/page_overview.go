package console

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"
)

// overviewData is what overview.html shows.
type overviewData struct{ Enabled bool }

func (s *Server) overview(w http.ResponseWriter, r *http.Request, p *person) error {
	data, err := s.readOverview(r.Context(), p)
	if err != nil {
		return err
	}
	return s.render(w, r, p, http.StatusOK, "overview.html", "Overview", data)
}

func (s *Server) overviewLive(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.live(w, r, p, "overview.html", "live", func(ctx context.Context) (any, error) { return s.readOverview(ctx, p) })
}

func (s *Server) readOverview(ctx context.Context, p *person) (*overviewData, error) {
	data := &overviewData{}
	return data, p.tx(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "select enabled from walhook.settings").Scan(&data.Enabled)
	})
}
