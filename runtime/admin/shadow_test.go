package admin_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// TestShadow: the client runs a definition beside the one that runs, and is told what came of it, or where it is wrong.
func TestShadow(t *testing.T) {
	rt, _, socket := start(t)
	c := admin.NewClient(socket)
	if _, err := apply(t, c, admin.ApplyRequest{}, jobNamed("same")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has read some", func() bool { st, _ := rt.Topic("same"); return len(st.Partitions) > 0 && st.Partitions[0].Next > 10 })
	run := func(text string, r admin.ShadowRequest) (*runtime.ShadowResult, error) {
		r.Topic, r.Show = "ticks", 3
		if r.From == "" {
			r.From = "earliest"
		}
		op, err := c.Shadow(t.Context(), []spec.File{{Name: "new.yaml", Content: []byte(text)}}, r)
		if err == nil {
			op, err = c.Await(t.Context(), op, func(admin.Operation) {})
		}
		return op.Shadow, err
	}
	res, err := run(jobNamed("same"), admin.ShadowRequest{})
	if err != nil || !res.Same || !res.Exact || res.Equal < 10 || res.Equal != res.Records {
		t.Errorf("the same: %+v, %v", res, err)
	}
	res, err = run(strings.Replace(jobNamed("same"), "outputs:", "steps: [{filter: {if: false}}]\noutputs:", 1), admin.ShadowRequest{To: "offset:5"})
	if err != nil || res.Same || res.Missing < 5 || res.Extra != 0 || len(res.Differences) != 3 {
		t.Errorf("another: %+v, %v", res, err)
	}
	var p *admin.Problem
	if _, err = run("version: 1\njob: same\nsource: {bus: ticks}\nsteps: [{filter: {if: value <}}]\noutputs: {main: {bus: same}}\n", admin.ShadowRequest{}); !errors.As(err, &p) ||
		p.Kind() != admin.KindBadDefinition || len(p.Problems) != 1 || p.Problems[0].File != "new.yaml" || p.Problems[0].Line != 4 || p.Problems[0].Column == 0 {
		t.Errorf("a bad one: %v, %+v", err, p)
	}
	if _, err = run(jobNamed("one")+"---\n"+jobNamed("two"), admin.ShadowRequest{}); !errors.As(err, &p) || p.Kind() != admin.KindBadRequest {
		t.Errorf("two: %v", err)
	}
	if _, err = run(jobNamed("same"), admin.ShadowRequest{From: "offset:1000000000"}); !errors.As(err, &p) || p.Kind() != admin.KindNotFound {
		t.Errorf("from where there is nothing: %v", err)
	}
	if _, err = run("version: 1\njob: same\nsource: {bus: ticks}\nsteps: [{map: value.nothing.at.all > 1}]\noutputs: {main: {bus: same}}\n", admin.ShadowRequest{}); !errors.As(err, &p) ||
		!strings.Contains(p.Detail, "the definition fails on a record of topic ticks") {
		t.Errorf("one that fails: %v", err)
	}
}
