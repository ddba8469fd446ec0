package console

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
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

// signInProvider is what people know the OpenID Connect provider as.
const signInProvider = "sign-in provider"

// oidcLogin signs in by OpenID Connect: the code flow with PKCE and a nonce.
type oidcLogin struct {
	cfg         OIDC
	redirectURL string
	sealer      sealer
	recheck     time.Duration

	mu       sync.Mutex
	provider *oidc.Provider // nil until it has answered once
}

const (
	oidcTimeout = 5 * time.Second  // of a request to the provider
	oidcRecheck = 45 * time.Second // how long the groups that it sent are valid
	oidcGrace   = 5 * time.Minute  // how long they are valid while it does not answer
)

// oidcClient bounds requests to the provider, whose context may be that of a session.
var oidcClient = &http.Client{Timeout: oidcTimeout}

func oidcContext(ctx context.Context) context.Context { return oidc.ClientContext(ctx, oidcClient) }

// newOIDCLogin derives the key of the sign-in cookie from the client secret, which all consoles share and nobody else has.
func newOIDCLogin(cfg OIDC, redirectURL string) (*oidcLogin, error) {
	sealer, err := newSealer(cfg.ClientSecret, "sign-in")
	return &oidcLogin{cfg: cfg, redirectURL: redirectURL, sealer: sealer, recheck: oidcRecheck}, err
}

// discover returns the provider. The console starts without it, and asks again until it answers.
func (o *oidcLogin) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.provider == nil {
		// The keys are fetched later with this context.
		provider, err := oidc.NewProvider(oidcContext(context.WithoutCancel(ctx)), o.cfg.Issuer)
		if err != nil {
			err = fmt.Errorf("discover the OpenID Connect provider %s: %w", o.cfg.Issuer, err)
			return nil, nil, noAnswer(signInProvider, err)
		}
		o.provider = provider
	}
	return o.provider, &oauth2.Config{
		ClientID: o.cfg.ClientID, ClientSecret: o.cfg.ClientSecret, RedirectURL: o.redirectURL, Endpoint: o.provider.Endpoint(),
		Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}, nil
}

// signIn is a sign-in that has begun. The browser keeps it in a cookie that only consoles can read and write, so that
// sign-ins that nobody finishes cost nothing, and any console can finish one that another has begun.
type signIn struct {
	State, Nonce, Verifier, Next string
	Until                        time.Time
}

const signInLife = 10 * time.Minute

// oidcStart sends the browser to the provider.
func (s *Server) oidcStart(w http.ResponseWriter, r *http.Request) {
	_, config, err := s.oidc.discover(r.Context())
	if err != nil {
		s.fail(w, r, nil, err)
		return
	}
	begun := signIn{
		State: oauth2.GenerateVerifier(), Nonce: oauth2.GenerateVerifier(), Verifier: oauth2.GenerateVerifier(),
		Next: localPath(r.URL.Query().Get("next")), Until: time.Now().Add(signInLife),
	}
	if len(begun.Next) > longestCookie/3 {
		begun.Next = "/"
	}
	value, err := s.oidc.seal(begun)
	if err != nil {
		s.fail(w, r, nil, err)
		return
	}
	s.setCookie(w, signInCookie, value, int(signInLife.Seconds()))
	to := config.AuthCodeURL(begun.State, oidc.Nonce(begun.Nonce), oauth2.S256ChallengeOption(begun.Verifier))
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (o *oidcLogin) seal(begun signIn) (string, error) {
	text, err := json.Marshal(begun)
	return base64.RawURLEncoding.EncodeToString(o.sealer.seal(text)), err
}

// begunSignIn returns the sign-in that this browser has begun; its state is empty if there is none. It works once.
func (s *Server) begunSignIn(w http.ResponseWriter, r *http.Request) (begun signIn) {
	value := s.readCookie(r, signInCookie)
	if value == "" {
		return signIn{}
	}
	s.setCookie(w, signInCookie, "", -1)
	sealed, err := base64.RawURLEncoding.DecodeString(value)
	if err == nil {
		sealed, err = s.oidc.sealer.open(sealed)
	}
	if err != nil || json.Unmarshal(sealed, &begun) != nil || time.Now().After(begun.Until) {
		return signIn{}
	}
	return begun
}

// oidcCallback takes the browser back from the provider.
func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request) {
	begun := s.begunSignIn(w, r)
	refuse := func(sentence string, err error) {
		s.log.Warn("sign-in refused", "address", s.clientAddress(r), "error", err)
		s.fail(w, r, nil, &refusal{status: http.StatusForbidden, sentence: sentence, err: err})
	}
	query := r.URL.Query()
	if begun.State == "" || subtle.ConstantTimeCompare([]byte(begun.State), []byte(query.Get("state"))) == 0 {
		refuse("This sign-in was not begun here, or took too long. Sign in again.", errors.New("the state differs"))
		return
	}
	if code := query.Get("error"); code != "" {
		refuse("The sign-in provider refused the request.",
			fmt.Errorf("the provider answered %q: %.200q", code, query.Get("error_description")))
		return
	}
	name, session, err := s.oidc.exchange(r.Context(), query.Get("code"), begun)
	if err == nil && s.groupRole(session.groups) == "" {
		err = errNoMember
	}
	var refused *refusal
	switch {
	case errors.Is(err, errNoMember):
		refuse(inNoGroup, err)
		return
	case errors.As(err, &refused):
		s.fail(w, r, nil, err)
		return
	case err != nil:
		refuse("The sign-in failed. Sign in again.", err)
		return
	}
	token := s.newSession(w, r)
	if err := s.stored.begin(r.Context(), token, name, session); err != nil {
		s.setCookie(w, sessionCookie, "", -1)
		s.fail(w, r, nil, err)
		return
	}
	s.log.Info("signed in", "actor", name, "address", s.clientAddress(r))
	http.Redirect(w, r, localPath(begun.Next), http.StatusSeeOther)
}

// exchange redeems the code for the person's name and session.
func (o *oidcLogin) exchange(ctx context.Context, code string, begun signIn) (name string, session *oidcSession, err error) {
	provider, config, err := o.discover(ctx)
	if err != nil {
		return "", nil, err
	}
	token, err := config.Exchange(oidcContext(ctx), code, oauth2.VerifierOption(begun.Verifier))
	if err != nil {
		return "", nil, fmt.Errorf("exchange the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return "", nil, errors.New("the provider sent no ID token")
	}
	id, err := provider.Verifier(&oidc.Config{ClientID: o.cfg.ClientID}).Verify(oidcContext(ctx), raw)
	if err != nil {
		return "", nil, fmt.Errorf("verify the ID token: %w", err)
	}
	if begun.Nonce == "" || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(begun.Nonce)) == 0 {
		return "", nil, errors.New("the nonce of the ID token differs")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return "", nil, fmt.Errorf("read the ID token: %w", err)
	}
	groups, found := o.groups(claims)
	session = &oidcSession{
		Subject: id.Subject, Token: token, Until: id.Expiry, Asks: provider.UserInfoEndpoint() != "", groups: groups,
	}
	if session.Asks {
		// Some providers send the groups only here.
		switch err := o.ask(ctx, session); {
		case err != nil && !found:
			return "", nil, err
		case err != nil:
			session.Asks = false
		}
	}
	return nameOf(claims, id.Subject), session, nil
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

// nameOf returns the name for the change log. An email address counts unless the provider says that it is not verified.
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

// oidcSession is what the provider sent about a person, and what a later request to it needs.
type oidcSession struct {
	Subject string
	Token   *oauth2.Token
	Asks    bool      // the groups are read at the userinfo endpoint
	Told    bool      // that endpoint has sent groups
	Until   time.Time // when the ID token expires

	groups []string
}

// ask reads the groups at the userinfo endpoint. Its error is a *refusal if the provider does not answer.
func (o *oidcLogin) ask(ctx context.Context, session *oidcSession) error {
	provider, config, err := o.discover(ctx)
	if err != nil {
		return err
	}
	var info *oidc.UserInfo
	token, err := config.TokenSource(oidcContext(ctx), session.Token).Token() // refreshed, if it has expired
	if err == nil {
		session.Token = token
		info, err = provider.UserInfo(oidcContext(ctx), oauth2.StaticTokenSource(token))
	}
	switch {
	case isProviderDown(err):
		return noAnswer(signInProvider, err)
	case err != nil:
		return fmt.Errorf("request the person's claims from the provider: %w", err)
	}
	claims := map[string]any{}
	if err := info.Claims(&claims); err != nil {
		return fmt.Errorf("read the person's claims: %w", err)
	}
	if info.Subject != session.Subject {
		return errors.New("the provider sent the claims of somebody else")
	}
	groups, found := o.groups(claims)
	if !found && !session.Told {
		session.Asks = false // the groups are in the ID token alone
		return nil
	}
	// Some providers leave the claim out once somebody is in no group.
	session.groups, session.Told = groups, true
	return nil
}

// isProviderDown reports whether a request failed because the provider does not answer, or answered with status 5xx.
func isProviderDown(err error) bool {
	var network *url.Error
	var refused *oauth2.RetrieveError
	return errors.As(err, &network) ||
		errors.As(err, &refused) && refused.Response.StatusCode >= http.StatusInternalServerError ||
		err != nil && strings.HasPrefix(err.Error(), "5") // go-oidc's error of the userinfo endpoint begins with the status
}

// oidcPerson returns the person of a session in the store, or errSignedOut. From time to time it asks the provider for
// the groups.
func (s *Server) oidcPerson(ctx context.Context, token string, live bool) (*person, error) {
	found, err := s.stored.use(ctx, token, live, s.oidc.recheck)
	if err != nil {
		return nil, err
	}
	session := found.session
	switch {
	case !session.Asks:
		if time.Now().After(session.Until) {
			return nil, errSignedOut
		}
	case found.ask:
		// The answer is needed even if the browser leaves before it comes: no other request asks.
		ctx := context.WithoutCancel(ctx)
		err := s.oidc.ask(ctx, session)
		var refused *refusal
		named := err == nil
		if errors.As(err, &refused) && time.Since(found.namedAt) < oidcGrace { // it does not answer
			err = nil
		}
		if err != nil {
			return nil, errors.Join(errSignedOut, s.stored.end(ctx, idOf(token)))
		}
		if err := s.stored.renew(ctx, token, session, named); err != nil {
			return nil, err
		}
	}
	group := s.groupRole(session.groups)
	if group == "" {
		return nil, errNoMember
	}
	return &person{name: found.name, pool: s.pool, group: group}, nil
}
