package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

const (
	// clockOff is a difference worth a word, clockWrong one that the hub does not forgive: "clock drift of up to 5 minutes".
	clockOff   = 2 * time.Minute
	clockWrong = 5 * time.Minute
	// certificateSoon and tokenSoon are how long before its end a credential that somebody must replace is spoken of.
	certificateSoon = 14 * 24 * time.Hour
	tokenSoon       = time.Hour
)

// credential makes a credential, and says what is wrong with it as far as it can be seen here.
func (d *doctor) credential(ctx context.Context) (core.Credential, Check) {
	if d.cfg.Credentials == nil {
		c := find("", "not-provisioned", "no hub is known", facts{})
		c.Severity = Warning
		return core.Credential{}, c
	}
	c, err := d.cfg.Credentials.Credential(ctx)
	if err != nil {
		return c, find("", "credential-unusable", err.Error(), facts{})
	}
	now := d.now()
	what, soon, life := "a SAS token", tokenSoon, c.Life
	if len(c.Certificate) > 0 {
		what, soon = "a certificate", certificateSoon
		if leaf, err := x509.ParseCertificate(c.Certificate[0]); err == nil {
			life = leaf.NotAfter.Sub(now)
			if now.Before(leaf.NotBefore) {
				return c, find("", "credential-early", c.Doubt, facts{})
			}
		}
	}
	switch {
	case c.Doubt != "":
		return c, find("", "credential-ended", c.Doubt, facts{})
	case !d.cfg.Renewed && life > 0 && life < soon:
		out := find("", "credential-ends-soon", fmt.Sprintf("%s that ends in %s", what, short(life)), facts{})
		out.Severity = Warning
		return c, out
	}
	return c, Check{Layer: LayerCredential, Severity: OK, Detail: what}
}

// judge puts together what is seen of the credential here, and what the hub says of it, if it was reached at all.
func (d *doctor) judge(here Check, ask asked, connected, reached bool) []Check {
	taken := connected || ask.accepted
	switch {
	case taken && here.Code != "":
		here.Severity = Warning // it ended, by this machine's clock, and the hub takes it all the same
		return []Check{here}
	case connected:
		here.Detail += "; the running runtime is connected by it"
		return []Check{here}
	case ask.accepted:
		here.Detail += "; the hub accepts it"
		return []Check{here}
	case here.Severity == Problem && ask.finding.Code == "credential-refused":
		here.Detail += "; " + ask.finding.Detail // which follows from it
		return []Check{here}
	case here.Code != "" && ask.finding.Code != "":
		return []Check{here, ask.finding}
	case ask.finding.Code != "":
		return []Check{ask.finding}
	case here.Severity == Problem, here.Code == "not-provisioned":
		return []Check{here}
	}
	unproven := Check{Layer: LayerCredential, Severity: Skipped, Detail: here.Detail}
	switch {
	case !reached:
		unproven.Detail += "; the hub was not reached"
	case !d.mayProve():
		unproven.Detail += "; the hub says what it thinks of it at the next connect only: a module, or a device behind a gateway, has no request that changes nothing"
	default:
		unproven = find("", "credential-unproven", here.Detail+"; no way of HTTPS got an answer of the hub", facts{})
		unproven.Severity = Warning
	}
	if here.Code != "" {
		return []Check{here, unproven}
	}
	return []Check{unproven}
}

// clock compares the machine's clock with the hub's, and with what the device knows of the time.
func (d *doctor) clock(ask asked, accepted bool) Check {
	now := d.cfg.System()
	doubt, unset := "", false
	if c := d.cfg.Clock; c != nil {
		doubt, unset = c.Doubt(), c.Now().Sub(now) > clockWrong
	}
	says := "this machine's clock says " + now.UTC().Format(time.RFC3339)
	if ask.answer != nil && !ask.date.IsZero() {
		off := ask.date.Sub(ask.at)
		switch {
		case off >= clockOff:
			return clockFinding("clock-behind", fmt.Sprintf("%s and the hub's %s: %s behind", says, ask.date.UTC().Format(time.RFC3339), short(off)), off >= clockWrong && !accepted)
		case off <= -clockOff:
			return clockFinding("clock-ahead", fmt.Sprintf("%s and the hub's %s: %s ahead", says, ask.date.UTC().Format(time.RFC3339), short(-off)), off <= -clockWrong && !accepted)
		default:
			return Check{Layer: LayerClock, Severity: OK, Detail: "within " + short(max(off.Abs(), time.Second).Round(time.Second)) + " of the hub's"}
		}
	}
	if doubt != "" {
		return clockFinding("clock-behind", doubt, unset && !accepted)
	}
	return Check{Layer: LayerClock, Severity: OK, Detail: says + "; no hub was reached that could confirm it"}
}

func clockFinding(code, detail string, isProblem bool) Check {
	c := find("", code, detail, facts{})
	if !isProblem {
		c.Severity = Warning
	}
	return c
}
