package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// somethingToReplay refuses a replay from a time that no record is of: all it would do is to drop the job's state. It happens
// to who says -1h of a topic whose event times are of last year.
func (a *app) somethingToReplay(ctx context.Context, client *admin.Client, job string, r admin.ReplayRequest) error {
	from, err := runtime.ParsePlace(r.From, time.Now(), true)
	if err != nil || from.Time.IsZero() || r.DryRun {
		return nil // the replay itself says what is wrong
	}
	r.DryRun = true
	op, err := client.Replay(ctx, job, r)
	if err == nil {
		op, err = client.Await(ctx, op, func(admin.Operation) {})
	}
	if err != nil || op.Replay == nil || op.Replay.Records > 0 {
		return nil
	}
	newest := time.Time{}
	_ = client.Tail(ctx, runtime.Tail{Topic: r.Topic, Partition: -1, Last: 1}, func(rec runtime.TopicRecord) error {
		if rec.Time != nil && rec.Time.After(newest) {
			newest = *rec.Time
		}
		return nil
	})
	err = fmt.Errorf("nothing was done: topic %s has no record of %s or later that job %s has read", r.Topic, from.Time.UTC().Format(time.RFC3339), job)
	if !newest.IsZero() {
		err = fmt.Errorf("%w; its newest is of %s, by event time: say --from with a time before that", err, newest.UTC().Format(time.RFC3339))
	}
	return withCode(exitFailed, err)
}
