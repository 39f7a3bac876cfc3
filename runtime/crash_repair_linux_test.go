package runtime_test

import (
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/killtest"
)

// TestTwinRepairReusing: a repair that raises no counter is caught by killtest.Repairs.
func TestTwinRepairReusing(t *testing.T) {
	killtest.NeedKernel(t)
	found := killtest.Caught(t, func(tb testing.TB) {
		killtest.Repairs{Command: killtest.RunSmall(t), Repair: child(t, "repair reusing"), Kills: 20}.Run(tb)
	})
	if !strings.Contains(found, " was ") {
		t.Fatalf("a repair that raises no counter was not caught: %s", found)
	}
	t.Logf("caught: %.300s", found)
}
