package kafka

import (
	"slices"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

func brokersField() connector.Field {
	return connector.Field{Name: "brokers", Kind: connector.List, Required: true, Inherit: true,
		Doc: `Addresses to begin with, host:port; or "embedded" alone for the broker inside this process. An output takes the source's if it has none.`}
}

func checkBrokersField(v connector.Values) error {
	if err := checkBrokers(v.List("brokers")); err != nil {
		return &connector.FieldError{Field: "brokers", Msg: err.Error()}
	}
	return nil
}

// SourceKind describes the source to a registry.
func SourceKind() connector.SourceKind {
	return connector.SourceKind{
		Name: "kafka",
		Doc:  "Reads the partitions of Kafka topics.",
		Fields: append([]connector.Field{
			brokersField(),
			{Name: "topics", Kind: connector.List, Required: true, Doc: "The topics to read."},
			{Name: "start", Kind: connector.String, Default: "earliest",
				Doc: "Where a new job begins: earliest, latest, or a time such as 2026-01-31T00:00:00Z."},
			{Name: "end", Kind: connector.Enum, Default: "never", Enum: []string{"never", "latest"},
				Doc: "latest ends the source at the offsets that are the newest when it first connects."},
			{Name: "group", Kind: connector.String,
				Doc: "The consumer group to which durable offsets are shown (sidestream.JOB if not given); none for nowhere."},
			{Name: "isolation", Kind: connector.Enum, Default: "read_committed", Enum: []string{"read_committed", "read_uncommitted"},
				Doc: "Whether records of open and aborted transactions are left out."},
			{Name: "discovery_interval", Kind: connector.Duration, Default: "30s",
				Doc: "How often the brokers are asked for partitions that were added; they are read from their beginning."},
			{Name: "buffer_bytes", Kind: connector.Bytes, Default: "8MiB", Doc: "What is fetched ahead, for each subtask."},
			{Name: "partition_bytes", Kind: connector.Bytes, Default: "1MiB", Doc: "What one answer of a broker holds of one partition."},
		}, securityFields()...),
		New: func(v connector.Values, env connector.LoadEnv) (jobs.Source, error) {
			if err := checkBrokersField(v); err != nil {
				return nil, err
			}
			sec, err := security(v, env)
			if err != nil {
				return nil, err
			}
			s := Source{
				Brokers: v.List("brokers"), Topics: v.List("topics"), Start: v.String("start"), End: v.String("end"),
				Group: v.String("group"), Uncommitted: v.String("isolation") == "read_uncommitted", Security: sec,
				BufferBytes: v.Int("buffer_bytes"), Discovery: v.Duration("discovery_interval"),
			}
			if s.Discovery < discoveryMin {
				return nil, &connector.FieldError{Field: "discovery_interval", Msg: "is less than 100ms"}
			}
			if _, _, err := s.startMillis(); err != nil {
				return nil, &connector.FieldError{Field: "start", Msg: "is not earliest, latest or a time", Hint: "write a time as 2026-01-31T00:00:00Z"}
			}
			if n := v.Int("partition_bytes"); n < 1 || n > defaultFetchBytes {
				return nil, &connector.FieldError{Field: "partition_bytes", Msg: "is not between 1 and 8MiB"}
			}
			s.PartitionBytes = int32(v.Int("partition_bytes"))
			if _, err := s.withDefaults(); err != nil {
				return nil, &connector.FieldError{Field: "topics", Msg: err.Error()}
			}
			return s, nil
		},
	}
}

// SinkKind describes the sink to a registry.
func SinkKind() connector.SinkKind {
	codecs := []string{"none", "gzip", "snappy", "lz4", "zstd"}
	return connector.SinkKind{
		Name: "kafka",
		Doc:  "Produces each record to a Kafka topic; with exactly_once in transactions.",
		Fields: append([]connector.Field{
			brokersField(),
			{Name: "topic", Kind: connector.String, Required: true, Doc: "The topic to write."},
			{Name: "create_topic", Kind: connector.Bool, Default: "true", Doc: "Make the topic where it is missing; else it is waited for."},
			{Name: "partitions", Kind: connector.Int, Doc: "Of a topic it makes; the brokers' default if not given."},
			{Name: "compression", Kind: connector.Enum, Default: "none", Enum: slices.Clone(codecs), Doc: "How batches are compressed."},
			{Name: "message_bytes", Kind: connector.Bytes, Default: "1000012", Doc: "The largest batch, and so the largest record."},
		}, securityFields()...),
		New: func(v connector.Values, env connector.LoadEnv) (jobs.Sink, error) {
			if err := checkBrokersField(v); err != nil {
				return nil, err
			}
			sec, err := security(v, env)
			if err != nil {
				return nil, err
			}
			if n := v.Int("partitions"); n > 100_000 {
				return nil, &connector.FieldError{Field: "partitions", Msg: "is more than 100000"}
			}
			if n := v.Int("message_bytes"); n < 1<<10 || n > 1<<30 {
				return nil, &connector.FieldError{Field: "message_bytes", Msg: "is not between 1KiB and 1GiB"}
			}
			s := Sink{
				Brokers: v.List("brokers"), Topic: v.String("topic"), MustExist: !v.Bool("create_topic"),
				Partitions: int32(v.Int("partitions")), Compression: v.String("compression"),
				MessageBytes: int32(v.Int("message_bytes")), Security: sec,
			}
			if _, err := s.withDefaults(); err != nil {
				return nil, &connector.FieldError{Field: "topic", Msg: err.Error()}
			}
			return s, nil
		},
	}
}
