package api

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	prefix = "/api/v1"
	// maxBody is more than any webhook needs: 2 kB of URL, 4 kB of headers, and a description.
	maxBody = 64 << 10
)

// Config is what the API needs.
type Config struct {
	Pool *pgxpool.Pool // of the store, as a member of walhook_admin
	URL  string        // public address of the console, without /api
	Log  *slog.Logger

	// Client returns the addresses that the client has for itself.
	Client func(*http.Request) netip.Prefix
	// Unavailable, if not nil, returns why the store cannot be used at the moment, in a sentence; "" if it may.
	Unavailable func(context.Context) string
}

type api struct {
	Config
	limits  *limits
	openAPI []byte
}

// endpoint answers a request in its transaction. serve turns any error that is not a problem into one.
type endpoint func(*request) (reply, error)

// request is one request, with its key in force.
type request struct {
	*http.Request
	api  *api
	tx   pgx.Tx
	key  key
	body []byte
}

// reply is what an endpoint answers. Its body is JSON, or nil for none.
type reply struct {
	status int
	header http.Header
	body   any
}

// openAPI describes the API. New adds its address.
//
//go:embed openapi.json
var openAPI []byte

// New returns the handler of every path below /api/v1.
func New(config Config) (http.Handler, error) {
	address, err := url.Parse(config.URL)
	if err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" {
		return nil, fmt.Errorf("the public address of the console must be an absolute http or https URL, not %q", config.URL)
	}
	config.URL = strings.TrimSuffix(config.URL, "/")
	server, err := json.Marshal(config.URL + prefix)
	if err != nil {
		return nil, err
	}
	a := &api{Config: config, limits: newLimits(), openAPI: bytes.Replace(openAPI, []byte(`"/api/v1"`), server, 1)}
	mux := http.NewServeMux()
	for path, methods := range map[string]map[string]endpoint{
		"/me":                             {"GET": me},
		"/webhooks":                       {"GET": listWebhooks, "POST": createWebhook},
		"/webhooks/{id}":                  {"GET": getWebhook, "PATCH": changeWebhook, "DELETE": deleteWebhook},
		"/webhooks/{id}/test":             {"POST": testWebhook},
		"/webhooks/{id}/redeliver-failed": {"POST": redeliverFailed},
		"/deliveries":                     {"GET": listDeliveries},
		"/deliveries/{id}":                {"GET": getDelivery},
		"/deliveries/{id}/redeliver":      {"POST": redeliver},
		"/samples":                        {"GET": samples},
	} {
		mux.HandleFunc(prefix+path, func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, methods) })
	}
	mux.HandleFunc(prefix+"/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		if !accepts(w, r, http.MethodGet) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(a.openAPI)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		write(w, problem{
			Status: http.StatusNotFound, Detail: "There is no such path. " + config.URL + prefix + "/openapi.json lists those of the API.",
		}.reply())
	})
	return mux, nil
}

func (a *api) serve(w http.ResponseWriter, r *http.Request, methods map[string]endpoint) {
	if !accepts(w, r, slices.Collect(maps.Keys(methods))...) {
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // the server leaves out the body
	}
	result, err := a.answer(w, r, methods[method])
	if err != nil {
		failure := a.problem(err)
		if failure.Status >= http.StatusInternalServerError {
			a.Log.Error("api request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		result = failure.reply()
	}
	write(w, result)
}

// accepts reports whether a path with these methods accepts that of the request. If not, it answers: OPTIONS with what
// the path accepts, and other methods with 405.
func accepts(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	if slices.Contains(methods, r.Method) {
		return true
	}
	methods = append(methods, http.MethodOptions)
	order := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions}
	slices.SortFunc(methods, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	allow := strings.Join(methods, ", ")
	result := problem{Status: http.StatusMethodNotAllowed, Detail: "This path accepts only " + allow + "."}.reply()
	if r.Method == http.MethodOptions {
		result = reply{status: http.StatusNoContent, header: http.Header{}}
	}
	result.header.Set("Allow", allow)
	write(w, result)
	return false
}

func (a *api) answer(w http.ResponseWriter, r *http.Request, endpoint endpoint) (reply, error) {
	credential, err := credentialOf(r)
	if err != nil {
		return reply{}, err
	}
	if err := a.limits.take(credential.hash, a.Client(r)); err != nil {
		return reply{}, err
	}
	if a.Unavailable != nil {
		if reason := a.Unavailable(r.Context()); reason != "" {
			return reply{}, retryAfter(http.StatusServiceUnavailable, 5*time.Second, reason)
		}
	}
	// The body is read before a connection is taken, since a client may send slowly.
	body, err := readBody(w, r)
	if err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	// The timeouts of beginQuery are shorter than requestTimeout, so the server ends a statement before the client must cancel it.
	tx, err := a.Pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginQuery})
	if err != nil {
		return reply{}, fmt.Errorf("begin transaction: %w", err)
	}
	defer func() {
		rollbackCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(rollbackCtx)
	}()
	key, err := credential.use(ctx, tx)
	if err != nil {
		if errors.As(err, &problem{}) {
			a.limits.revoked(credential.hash)
		}
		return reply{}, err
	}
	a.limits.know(credential.hash)
	result, err := endpoint(&request{Request: r, api: a, tx: tx, key: key, body: body})
	if err != nil {
		return reply{}, err
	}
	if err := tx.Commit(ctx); err != nil {
		return reply{}, fmt.Errorf("commit: %w", err)
	}
	return result, nil
}

const (
	beginQuery     = "begin; set local statement_timeout = '10s'; set local lock_timeout = '5s'; set local idle_in_transaction_session_timeout = '20s'"
	requestTimeout = 15 * time.Second
)

// write sends a reply. Caches must not keep it, since it may contain secrets.
func write(w http.ResponseWriter, result reply) {
	header := w.Header()
	for name, values := range result.header {
		header[name] = values
	}
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if result.body == nil {
		w.WriteHeader(result.status)
		return
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(result.body); err != nil {
		panic(errors.Join(errors.New("an answer of the API has no JSON form"), err))
	}
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/json")
	}
	w.WriteHeader(result.status)
	_, _ = w.Write(body.Bytes())
}
