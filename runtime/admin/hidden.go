package admin

import (
	"context"

	"github.com/sidestream-dev/sidestream/runtime"
)

// hidden is said in the place of an error to those who have no login: it quotes the definition, and may quote the record, that
// it is about.
const hidden = "an error, which is told over the unix socket or with a login"

// hiddenOutside is said in the place of what a source or an output waits for: it names brokers, paths and users.
const hiddenOutside = "something outside, which is told over the unix socket or with a login"

// mayRead reports whether a request may be shown what quotes records and definitions.
func mayRead(ctx context.Context) bool {
	who, known := ctx.Value(classKey{}).(class)
	return known && who != classOpen
}

func hide(text *string) {
	if *text != "" {
		*text = hidden
	}
}

// statusFor is how everything stands, as far as a request may be shown it.
func statusFor(ctx context.Context, rt *runtime.Runtime) runtime.Status {
	st := rt.Status()
	if mayRead(ctx) {
		return st
	}
	for i := range st.Jobs {
		j := &st.Jobs[i]
		hide(&j.Error)
		if j.RolledBack != nil {
			j.RolledBack = &runtime.RolledBack{At: j.RolledBack.At, Error: hidden}
		}
		for k := range j.Waiting {
			if j.Waiting[k].For == runtime.WaitOutside {
				j.Waiting[k].Text = hiddenOutside
			}
		}
		for k := range j.Outputs {
			hide(&j.Outputs[k].Error)
			if j.Outputs[k].Waiting != "" {
				j.Outputs[k].Waiting = hiddenOutside
			}
		}
	}
	return st
}

// eventFor is an event, as far as a request may be shown it.
func eventFor(ctx context.Context, e runtime.Event) runtime.Event {
	if e.Kind == runtime.EventRolledBack && !mayRead(ctx) {
		hide(&e.Text)
	}
	return e
}
