package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// AnyVersion stands for every version of a job that is there.
const AnyVersion = "*"

// version tells what a job's definition and owner are from what they were before or may be later: whoever has looked at one, and
// changes it only where it is still that, does not undo what somebody else has done meanwhile.
func (j *jobEntry) version() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %d %s\n", j.ID, j.Change, j.Origin)
	sum.Write(j.Definition)
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// MatchError refuses a change of a job that is not what whoever asks for it has looked at.
type MatchError struct {
	Job  string
	Want string
	Now  *JobInfo // nil where there is no such job
}

func (e *MatchError) Error() string {
	if e.Now == nil {
		return fmt.Sprintf("job %s is not there any more: nothing is at version %s", e.Job, e.Want)
	}
	return fmt.Sprintf("job %s is at version %s, not %s: it was changed at %s, %s's; look at it again, and change that", e.Job, e.Now.Version, e.Want,
		e.Now.Changed.UTC().Format(time.RFC3339), map[Origin]string{OriginAPI: "the API", OriginFile: "a file"}[e.Now.Origin])
}

// match refuses a change of a job that is not at the version that was asked for. On the committer's goroutine, before the frame
// of the change, nothing can come in between.
func (c *core) match(name, want string) error {
	if want == "" {
		return nil
	}
	e := c.ledger.job(name)
	switch {
	case e == nil:
		return &MatchError{Job: name, Want: want}
	case want == AnyVersion || want == e.version():
		return nil
	}
	now := e.info()
	return &MatchError{Job: name, Want: want, Now: &now}
}
