package console

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// oidcLogin signs in by OpenID Connect: the code flow with PKCE and a nonce.
type oidcLogin struct {
	cfg         OIDC
	redirectURL string
	groupRole   func([]string) string
	recheck     time.Duration

	mu       sync.Mutex
	provider *oidc.Provider // nil until it has answered once
}

const (
	oidcPatience = 5 * time.Second  // for one request to the provider
	oidcRecheck  = 45 * time.Second // how long the groups that it named hold
	oidcGrace    = 5 * time.Minute  // how long they hold while it does not answer
)

// oidcClient bounds requests to the provider, whose context may be that of a session.
var oidcClient = &http.Client{Timeout: oidcPatience}

func oidcContext(ctx context.Context) context.Context { return oidc.ClientContext(ctx, oidcClient) }

// discover returns the provider. The console starts without it, and asks again until it answers.
func (o *oidcLogin) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.provider == nil {
		// The keys are fetched later with this context.
		provider, err := oidc.NewProvider(oidcContext(context.WithoutCancel(ctx)), o.cfg.Issuer)
		if err != nil {
			return nil, nil, &refusal{
				status: http.StatusServiceUnavailable, sentence: "The sign-in provider does not answer at the moment. Try again soon.",
				err: fmt.Errorf("discover the OpenID Connect provider %s: %w", o.cfg.Issuer, err),
			}
		}
		o.provider = provider
	}
	return o.provider, &oauth2.Config{
		ClientID: o.cfg.ClientID, ClientSecret: o.cfg.ClientSecret, RedirectURL: o.redirectURL, Endpoint: o.provider.Endpoint(),
		Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}, nil
}

// oidcStart sends the browser to the provider.
func (s *Server) oidcStart(w http.ResponseWriter, r *http.Request) {
	_, config, err := s.oidc.discover(r.Context())
	if err != nil {
		s.fail(w, r, nil, err)
		return
	}
	state, nonce, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	for key, value := range map[string]string{
		"oidc_state": state, "oidc_nonce": nonce, "oidc_verifier": verifier, "oidc_next": localPath(r.URL.Query().Get("next")),
	} {
		s.sessions.Put(r.Context(), key, value)
	}
	http.Redirect(w, r, config.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)), http.StatusSeeOther)
}

// oidcCallback takes the browser back from the provider.
func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request) {
	pop := func(key string) string { return s.sessions.PopString(r.Context(), key) }
	state, nonce, verifier, next := pop("oidc_state"), pop("oidc_nonce"), pop("oidc_verifier"), pop("oidc_next")
	refuse := func(sentence string, err error) {
		s.log.Warn("sign-in refused", "address", s.clientAddress(r), "error", err)
		s.fail(w, r, nil, &refusal{status: http.StatusForbidden, sentence: sentence, err: err})
	}
	query := r.URL.Query()
	if state == "" || subtle.ConstantTimeCompare([]byte(state), []byte(query.Get("state"))) == 0 {
		refuse("This sign-in was not begun here, or took too long. Sign in again.", errors.New("the state is another"))
		return
	}
	if code := query.Get("error"); code != "" {
		refuse("The sign-in provider refused the request.", fmt.Errorf("the provider answered %q: %.200q", code, query.Get("error_description")))
		return
	}
	entry, err := s.oidc.exchange(r.Context(), query.Get("code"), nonce, verifier)
	var refused *refusal
	switch {
	case errors.Is(err, errNoMember):
		refuse("You may not sign in: you are in no group that WALHOOK_ADMIN_GROUPS or WALHOOK_VIEWER_GROUPS lists.", err)
		return
	case errors.As(err, &refused):
		s.fail(w, r, nil, err)
		return
	case err != nil:
		refuse("The sign-in failed. Sign in again.", err)
		return
	}
	entry.pool = s.pool
	if err := s.enter(r, entry); err != nil {
		s.fail(w, r, nil, err)
		return
	}
	http.Redirect(w, r, localPath(next), http.StatusSeeOther)
}

// exchange turns the code into a login.
func (o *oidcLogin) exchange(ctx context.Context, code, nonce, verifier string) (*login, error) {
	provider, config, err := o.discover(ctx)
	if err != nil {
		return nil, err
	}
	token, err := config.Exchange(oidcContext(ctx), code, oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, fmt.Errorf("exchange the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, errors.New("the provider sent no ID token")
	}
	id, err := provider.Verifier(&oidc.Config{ClientID: o.cfg.ClientID}).Verify(oidcContext(ctx), raw)
	if err != nil {
		return nil, fmt.Errorf("verify the ID token: %w", err)
	}
	if nonce == "" || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) == 0 {
		return nil, errors.New("the nonce of the ID token is another")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return nil, fmt.Errorf("read the ID token: %w", err)
	}
	session := &oidcSession{
		login: o, subject: id.Subject, tokens: config.TokenSource(oidcContext(context.WithoutCancel(ctx)), token), until: id.Expiry, named: time.Now(),
	}
	groups, found := o.groups(claims)
	session.group, session.asks = o.groupRole(groups), provider.UserInfoEndpoint() != ""
	if session.asks {
		// Some providers name the groups here alone.
		switch err := session.ask(ctx); {
		case err != nil && !found:
			return nil, err
		case err != nil:
			session.asks = false
		}
	}
	if session.group == "" {
		return nil, errNoMember
	}
	return &login{name: nameOf(claims, id.Subject), group: session.group, refresh: session.refresh}, nil
}

// groups returns the person's groups, and whether the claim is there.
func (o *oidcLogin) groups(claims map[string]any) (groups []string, found bool) {
	switch claim := claims[o.cfg.GroupsClaim].(type) {
	case string:
		return strings.Split(claim, ","), true
	case []any:
		for _, group := range claim {
			if name, ok := group.(string); ok {
				groups = append(groups, name)
			}
		}
		return groups, true
	}
	return nil, false
}

// nameOf returns what the change log calls the person. An address that the provider has not verified may be anybody's.
func nameOf(claims map[string]any, subject string) string {
	verified := claims["email_verified"]
	if email, _ := claims["email"].(string); email != "" && (verified == nil || verified == true || verified == "true") {
		return email
	}
	if name, _ := claims["preferred_username"].(string); name != "" {
		return name
	}
	return subject
}

// oidcSession is what the provider says of a person who is signed in.
type oidcSession struct {
	login   *oidcLogin
	subject string
	tokens  oauth2.TokenSource // refreshes the access token, if the provider gave what it takes
	asks    bool               // the provider names the groups at its userinfo endpoint
	until   time.Time          // the end of the ID token

	mu    sync.Mutex
	group string
	named time.Time // when the provider last named the groups
	told  bool      // it has named them at the userinfo endpoint
}

// refresh returns the group role that the person's groups give now.
func (o *oidcSession) refresh(ctx context.Context) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asks {
		if time.Now().After(o.until) {
			return "", errSignedOut
		}
		return o.group, nil
	}
	if time.Since(o.named) > o.login.recheck {
		err := o.ask(ctx)
		var refused *refusal
		switch {
		case errors.As(err, &refused) && time.Since(o.named) < oidcGrace: // it does not answer
		case err != nil:
			return "", errSignedOut
		}
	}
	if o.group == "" {
		return "", errNoMember
	}
	return o.group, nil
}

// ask reads the groups at the userinfo endpoint. Its error is a *refusal if the provider does not answer.
func (o *oidcSession) ask(ctx context.Context) error {
	provider, _, err := o.login.discover(ctx)
	if err != nil {
		return err
	}
	var info *oidc.UserInfo
	token, err := o.tokens.Token() // refreshed, if it has expired
	if err == nil {
		info, err = provider.UserInfo(oidcContext(ctx), oauth2.StaticTokenSource(token))
	}
	var refused *oauth2.RetrieveError
	var network *url.Error
	if errors.As(err, &network) || errors.As(err, &refused) && refused.Response.StatusCode >= http.StatusInternalServerError ||
		err != nil && strings.HasPrefix(err.Error(), "5") { // the status of the userinfo endpoint
		return &refusal{status: http.StatusServiceUnavailable, sentence: "The sign-in provider does not answer at the moment. Try again soon.", err: err}
	}
	if err != nil {
		return fmt.Errorf("request the person's claims from the provider: %w", err)
	}
	claims := map[string]any{}
	if err := info.Claims(&claims); err != nil {
		return fmt.Errorf("read the person's claims: %w", err)
	}
	if info.Subject != o.subject {
		return errors.New("the provider sent the claims of somebody else")
	}
	groups, found := o.login.groups(claims)
	if !found && !o.told {
		o.asks = false // the groups are in the ID token alone
		return nil
	}
	// Some providers leave the claim out for somebody who is in no group any more.
	o.group, o.named, o.told = o.login.groupRole(groups), time.Now(), true
	return nil
}
