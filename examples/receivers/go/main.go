// A receiver for walhook's webhooks that keeps its inbox in PostgreSQL.
//
//	DATABASE_URL=postgres://... WEBHOOK_SECRETS="whsec_..." LISTEN=127.0.0.1:8080 go run ./examples/receivers/go
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const inboxTable = `
create table if not exists webhook_inbox (
  seq        bigint generated always as identity primary key,
  webhook_id text not null unique,
  body       jsonb not null,
  done_at    timestamptz
)`

// message is the body of a webhook.
type message struct {
	EventType string `json:"EventType"`
	Timestamp int64  `json:"Timestamp"`
	Data      struct {
		ResponseID json.RawMessage `json:"ResponseId"` // a number or a string
	} `json:"Data"`
}

type receiver struct {
	secrets [][]byte // more than one during a rotation
	db      *pgxpool.Pool
	wake    chan struct{}
}

// verify reports whether a signature was made with one of our secrets in the last five minutes.
func (r *receiver) verify(h http.Header, body []byte) bool {
	id, timestamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	for _, secret := range r.secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
		want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		for _, got := range strings.Fields(h.Get("webhook-signature")) {
			if hmac.Equal([]byte(got), []byte(want)) {
				return true
			}
		}
	}
	return false
}

// ServeHTTP stores the message and answers. The work is done afterwards.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, 64<<10))
	if err != nil {
		http.Error(w, "unreadable body", http.StatusBadRequest)
		return
	}
	if !r.verify(req.Header, body) {
		http.Error(w, "bad signature", http.StatusUnauthorized)
		return
	}
	if req.Header.Get("webhook-id") == "" || !json.Valid(body) {
		http.Error(w, "not a webhook", http.StatusBadRequest)
		return
	}
	// A repeat has the same webhook-id and is dropped here.
	_, err = r.db.Exec(req.Context(), `insert into webhook_inbox (webhook_id, body) values ($1, $2) on conflict (webhook_id) do nothing`,
		req.Header.Get("webhook-id"), string(body))
	if err != nil {
		log.Print(err)
		http.Error(w, "try again later", http.StatusServiceUnavailable) // walhook retries
		return
	}
	w.WriteHeader(http.StatusNoContent)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// work handles messages one after the other, in the order in which they arrived.
func (r *receiver) work(ctx context.Context) {
	for {
		err := pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
			var seq int64
			var m message
			err := tx.QueryRow(ctx, `select seq, body from webhook_inbox where done_at is null order by seq limit 1 for update`).Scan(&seq, &m)
			if err != nil {
				return err
			}
			if err := handle(m); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `update webhook_inbox set done_at = now() where seq = $1`, seq)
			return err
		})
		if err == nil {
			continue
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			log.Print(err)
		}
		select {
		case <-r.wake:
		case <-time.After(10 * time.Second):
		}
	}
}

// handle is where your work goes.
func handle(m message) error {
	fmt.Println(m.EventType, string(m.Data.ResponseID))
	return nil
}

func main() {
	ctx := context.Background()
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Exec(ctx, inboxTable); err != nil {
		log.Fatal(err)
	}
	r := &receiver{db: db, wake: make(chan struct{}, 1)}
	for _, secret := range strings.Fields(os.Getenv("WEBHOOK_SECRETS")) {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			log.Fatal("WEBHOOK_SECRETS: a secret is not whsec_ and base64")
		}
		r.secrets = append(r.secrets, key)
	}
	go r.work(ctx)
	server := &http.Server{Addr: os.Getenv("LISTEN"), Handler: r, ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
