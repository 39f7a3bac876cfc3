package admin

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// SeekRequest sets subscriptions elsewhere.
type SeekRequest struct {
	Reader string `json:"reader" minLength:"1" maxLength:"512" doc:"a job, or one subscription of it, JOB/STEP"`
	To     string `json:"to" minLength:"1" maxLength:"512" doc:"earliest, latest, offset:N, a time as RFC 3339 has it or a date (of events), -2h or -10d for so long ago, or newest-2h for two hours before the newest record"`
	DryRun bool   `json:"dry_run,omitempty" doc:"say what would be done, and do nothing"`
}

// DetachRequest ends subscriptions.
type DetachRequest struct {
	Reader string `json:"reader" minLength:"1" maxLength:"512" doc:"a job, or one subscription of it, JOB/STEP"`
	DryRun bool   `json:"dry_run,omitempty" doc:"say what would be done, and do nothing"`
}

// PurgeRequest lets go of records.
type PurgeRequest struct {
	Before string `json:"before" minLength:"1" maxLength:"512" doc:"earliest, latest, offset:N, a time as RFC 3339 has it or a date (of events), -2h or -10d for so long ago, or newest-2h for two hours before the newest record"`
	DryRun bool   `json:"dry_run,omitempty" doc:"say what would be done, and do nothing"`
}

// RetentionRequest says how long a topic keeps what every subscription has passed.
type RetentionRequest struct {
	MaxBytes int64  `json:"max_bytes,omitempty" minimum:"-1" doc:"-1 keeps nothing; 0, without a max_age, is the default of 1 GiB"`
	MaxAge   string `json:"max_age,omitempty" maxLength:"64" doc:"such as 72h or 10d"`
	DryRun   bool   `json:"dry_run,omitempty" doc:"say what holds now, and do nothing"`
}

// TopicRetention is how long a topic keeps what every subscription has passed.
type TopicRetention struct {
	Topic  string        `json:"topic"`
	Keeps  bus.Retention `json:"keeps"`
	Was    bus.Retention `json:"was"`
	DryRun bool          `json:"dry_run,omitempty"`
}

// onTopic is a request about a topic.
type onTopic[T any] struct {
	Topic string `path:"topic" maxLength:"512"`
	Body  T
}

// place reads a parameter that is a place in a topic.
func place(name, s string, savepoints bool) (runtime.Place, error) {
	p, err := runtime.ParsePlace(s, time.Now(), savepoints)
	if err != nil {
		return p, problem(http.StatusUnprocessableEntity, KindBadRequest, "%s: %v", name, err)
	}
	return p, nil
}

// optionalPlace is place of one that may be left out.
func optionalPlace(name, s string) (*runtime.Place, error) {
	if s == "" {
		return nil, nil
	}
	p, err := place(name, s, false)
	return &p, err
}

// registerTopics makes what changes topics and the places of their readers.
func (s *Server) registerTopics() {
	addLong(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/topics/{topic}/seek", OperationID: "seek",
		Summary:     "Set the subscriptions of a job on a topic elsewhere",
		Description: "A job that runs goes on from there behind a last barrier; its state and its watermark stay. A replay sets these back too."},
		func(ctx context.Context, rt *runtime.Runtime, in *onTopic[SeekRequest]) (*body[[]runtime.Moved], error) {
			to, err := place("to", in.Body.To, false)
			if err != nil {
				return nil, err
			}
			s.audit("seek", in.Body.Reader)
			moved, err := rt.Seek(ctx, in.Body.Reader, in.Topic, to, in.Body.DryRun)
			return &body[[]runtime.Moved]{append([]runtime.Moved{}, moved...)}, err
		})
	addLong(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/topics/{topic}/detach", OperationID: "detach",
		Summary:     "End the subscriptions of a job on a topic: nothing is kept for them, and they hold nobody back",
		Description: "The job is stopped. When it is resumed or restarted it begins in the topic anew, where its definition says."},
		func(ctx context.Context, rt *runtime.Runtime, in *onTopic[DetachRequest]) (*body[[]runtime.Moved], error) {
			s.audit("detach", in.Body.Reader)
			gone, err := rt.Detach(ctx, in.Body.Reader, in.Topic, in.Body.DryRun)
			return &body[[]runtime.Moved]{append([]runtime.Moved{}, gone...)}, err
		})
	addLong(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/topics/{topic}/purge", OperationID: "purge",
		Summary: "Let go of a topic's records before a place, whatever its retention says; not of what a subscription has yet to read"},
		func(ctx context.Context, rt *runtime.Runtime, in *onTopic[PurgeRequest]) (*body[runtime.PurgeResult], error) {
			before, err := place("before", in.Body.Before, false)
			if err != nil {
				return nil, err
			}
			s.cfg.Logger.Info("asked for over the admin API", "what", "purge", "topic", in.Topic, "before", in.Body.Before, "dry_run", in.Body.DryRun)
			res, err := rt.PurgeTopic(ctx, in.Topic, before, in.Body.DryRun)
			return &body[runtime.PurgeResult]{res}, err
		})
	add(s, accessLogin, huma.Operation{Method: http.MethodDelete, Path: "/v1/topics/{topic}", OperationID: "remove-topic",
		Summary:     "Remove a topic with all its records",
		Description: "It is refused while the definition of any job names the topic, whether that runs or not. A topic of that name that is made later is another."},
		func(ctx context.Context, rt *runtime.Runtime, in *struct {
			Topic  string `path:"topic" maxLength:"512"`
			DryRun bool   `query:"dry_run" doc:"say what would go, and do nothing"`
		}) (*body[runtime.TopicRemoval], error) {
			s.cfg.Logger.Info("asked for over the admin API", "what", "remove topic", "topic", in.Topic, "dry_run", in.DryRun)
			res, err := rt.RemoveTopic(ctx, in.Topic, in.DryRun)
			return &body[runtime.TopicRemoval]{res}, err
		})
	addLong(s, accessLogin, huma.Operation{Method: http.MethodPut, Path: "/v1/topics/{topic}/retention", OperationID: "set-retention",
		Summary: "Say how long a topic keeps what every subscription has passed, in place of what definitions say"},
		func(ctx context.Context, rt *runtime.Runtime, in *onTopic[RetentionRequest]) (*body[TopicRetention], error) {
			age, ok := spec.ParseDuration(cmp.Or(in.Body.MaxAge, "0s"))
			if !ok || in.Body.MaxAge != "" && age == 0 {
				return nil, problem(http.StatusUnprocessableEntity, KindBadRequest, "max_age is %q; it is a duration such as 72h or 10d; leave it out to keep records however old they are", in.Body.MaxAge)
			}
			keep := bus.Retention{MaxBytes: in.Body.MaxBytes, MaxAge: age}
			s.cfg.Logger.Info("asked for over the admin API", "what", "retention", "topic", in.Topic, "keeps", keep, "dry_run", in.Body.DryRun)
			was, err := rt.SetRetention(ctx, in.Topic, keep, in.Body.DryRun)
			return &body[TopicRetention]{TopicRetention{in.Topic, keep, was, in.Body.DryRun}}, err
		})
}
