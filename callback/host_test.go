package callback_test

import (
	"testing"

	"github.com/callbatch/callbatch/callback"
)

func TestHost(t *testing.T) {
	for name, tc := range map[string]struct {
		result callback.Result
		want   callback.HostState
	}{
		"nothing yet":             {callback.Result{}, callback.HostUnknown},
		"it acknowledged":         {callback.Result{Verdict: callback.Delivered, Status: 204}, callback.HostUp},
		"it switched protocols":   {callback.Result{Category: callback.CategoryStatus, Status: 101}, callback.HostUp},
		"it redirected":           {callback.Result{Category: callback.CategoryRedirect, Status: 307}, callback.HostUp},
		"it refused":              {callback.Result{Category: callback.CategoryStatus, Status: 404}, callback.HostUp},
		"it wants to be left":     {callback.Result{Verdict: callback.Gone, Category: callback.CategoryStatus, Status: 410}, callback.HostUp},
		"the body is too large":   {callback.Result{Verdict: callback.Gone, Category: callback.CategoryTooLarge, Status: 413}, callback.HostUp},
		"it is rate limited":      {callback.Result{Category: callback.CategoryStatus, Status: 429}, callback.HostUp},
		"its highest good status": {callback.Result{Category: callback.CategoryStatus, Status: 499}, callback.HostUp},
		"it failed":               {callback.Result{Category: callback.CategoryStatus, Status: 500}, callback.HostDown},
		"its status is made up":   {callback.Result{Category: callback.CategoryStatus, Status: 999}, callback.HostDown},
		"it did not answer":       {callback.Result{Category: callback.CategoryTimeout, Connected: true}, callback.HostDown},
		"its headers flooded us":  {callback.Result{Category: callback.CategoryTooLarge, Connected: true}, callback.HostDown},
		"it hung up":              {callback.Result{Category: callback.CategoryConnect, Connected: true}, callback.HostDown},
		"nobody listens":          {callback.Result{Category: callback.CategoryConnect}, callback.HostUnreachable},
		"its name is unknown":     {callback.Result{Category: callback.CategoryDNS}, callback.HostUnreachable},
		"its certificate is bad":  {callback.Result{Category: callback.CategoryTLS, SpokeTLS: true}, callback.HostUnreachable},
		"it may speak plain HTTP": {callback.Result{Category: callback.CategoryTLS}, callback.HostDown},
		"the guard forbids it":    {callback.Result{Verdict: callback.Refused, Category: callback.CategoryBlocked}, callback.HostUnknown},
		"we stopped":              {callback.Result{Verdict: callback.Interrupted, Category: callback.CategoryInterrupted}, callback.HostUnknown},
		"we stopped, connected":   {callback.Result{Verdict: callback.Interrupted, Category: callback.CategoryInterrupted, Connected: true}, callback.HostUnknown},
	} {
		if got := tc.result.Host(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestHostStatesHaveNames(t *testing.T) {
	for state, want := range map[callback.HostState]string{
		callback.HostUnknown: "unknown", callback.HostUp: "up", callback.HostDown: "down", callback.HostUnreachable: "unreachable", 9: "HostState(9)",
	} {
		if got := state.String(); got != want {
			t.Errorf("%d is called %q, want %q", state, got, want)
		}
	}
}
