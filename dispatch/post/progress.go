package post

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// phase is the phase that an attempt has reached, and in which a timeout may end it.
type phase int32

const (
	phaseStart phase = iota
	phaseDNS
	phaseConnect
	phaseTLS
	phaseSending
	phaseWaiting
	phaseReading
)

func (p phase) String() string {
	switch p {
	case phaseDNS:
		return "DNS lookup"
	case phaseStart, phaseConnect:
		return "connect"
	case phaseTLS:
		return "TLS handshake"
	case phaseSending:
		return "sending the request"
	case phaseWaiting:
		return "waiting for the reply"
	case phaseReading:
		return "reading the reply"
	default:
		return "unknown"
	}
}

// progress follows one attempt through net/http. Its hooks run on several goroutines, and some belong to a dial that
// the attempt no longer waits for, so the phase only ever rises.
type progress struct {
	at    atomic.Int32
	dials atomic.Int32
	ended <-chan struct{} // the attempt
}

func (p *progress) phase() phase { return phase(p.at.Load()) }

func (p *progress) reach(to phase) {
	for {
		at := p.at.Load()
		if at >= int32(to) || p.at.CompareAndSwap(at, int32(to)) {
			return
		}
	}
}

func (p *progress) trace(ctx context.Context) context.Context {
	p.ended = ctx.Done()
	return httptrace.WithClientTrace(context.WithValue(ctx, progressKey{}, p), &httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { p.reach(phaseDNS) },
		ConnectStart:      func(_, _ string) { p.reach(phaseConnect) },
		TLSHandshakeStart: func() { p.reach(phaseTLS) },
		GotConn:           func(httptrace.GotConnInfo) { p.reach(phaseSending) },
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				p.reach(phaseWaiting)
			}
		},
	})
}
