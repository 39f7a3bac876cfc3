package file

import (
	"path/filepath"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// SourceKind describes the source to a registry.
func SourceKind() connector.SourceKind {
	return connector.SourceKind{
		Name: "file",
		Doc:  "Reads the records of files, each to its end, or as they grow.",
		Fields: []connector.Field{
			{Name: "path", Kind: connector.String, Required: true,
				Doc: "The file, or a pattern with * ? [a-z] for several; relative to the working directory of the process. What ends in .gz or .zst is unpacked."},
			{Name: "format", Kind: connector.Enum, Default: "jsonl", Enum: []string{"jsonl", "csv", "lines"},
				Doc: "How a file is cut into records: one JSON value a line, csv with a header, or every line a string."},
			{Name: "follow", Kind: connector.Bool, Default: "false",
				Doc: "Read on as files grow, are rotated and come new; the source never ends."},
			{Name: "start", Kind: connector.Enum, Default: "earliest", Enum: []string{"earliest", "latest"},
				Doc: "Where a new job begins with the files that are there, if they are followed; new ones are read from their beginning."},
			{Name: "poll_interval", Kind: connector.Duration, Default: "250ms", Doc: "How often followed files are looked at."},
			{Name: "line_bytes", Kind: connector.Bytes, Default: "1MiB", Doc: "The longest line, or csv record, that is accepted."},
		},
		Encoding: func(v connector.Values) connector.Encoding { return encoding(v.String("format")) },
		New: func(v connector.Values, env connector.LoadEnv) (jobs.Source, error) {
			s := Source{
				Path:      env.Path(v.String("path")),
				Format:    Format(v.String("format")),
				LineBytes: int(v.Int("line_bytes")),
				Follow:    v.Bool("follow"),
			}
			if s.Follow {
				s.Start, s.Poll = v.String("start"), v.Duration("poll_interval")
			} else if v.String("start") == "latest" {
				return nil, &connector.FieldError{Field: "start", Msg: "latest is for files that are followed", Hint: "add follow: true"}
			}
			if how := packing(s.Path); how != "" && s.Follow {
				return nil, &connector.FieldError{Field: "path", Msg: "names compressed files, which cannot be followed", Hint: "let it match files that are written to"}
			}
			if s.Follow && s.Poll < pollMin {
				return nil, &connector.FieldError{Field: "poll_interval", Msg: "is less than 10ms"}
			}
			if _, err := filepath.Match(s.Path, ""); err != nil {
				return nil, &connector.FieldError{Field: "path", Msg: "is not a pattern: " + err.Error(), Hint: `write [[] for a bracket`}
			}
			if s.LineBytes < 1 || s.LineBytes > 1<<30 {
				return nil, &connector.FieldError{Field: "line_bytes", Msg: "is not between 1 and 1GiB"}
			}
			if s.Path == "" {
				return nil, &connector.FieldError{Field: "path", Msg: "is empty"}
			}
			return s, nil
		},
	}
}

// SinkKind describes the sink to a registry.
func SinkKind() connector.SinkKind {
	return connector.SinkKind{
		Name: "file",
		Doc:  "Writes each record as a line of a file; can do exactly_once.",
		Fields: []connector.Field{
			{Name: "path", Kind: connector.String, Required: true,
				Doc: "The file; it belongs to this output alone. Relative to the working directory of the process. One that ends in .gz is compressed."},
			{Name: "format", Kind: connector.Enum, Default: "jsonl", Enum: []string{"jsonl", "lines"},
				Doc: "One JSON value a line, or a string's text."},
		},
		Encoding: func(v connector.Values) connector.Encoding { return encoding(v.String("format")) },
		New: func(v connector.Values, env connector.LoadEnv) (jobs.Sink, error) {
			if v.String("path") == "" {
				return nil, &connector.FieldError{Field: "path", Msg: "is empty"}
			}
			if packing(v.String("path")) == "zstd" {
				return nil, &connector.FieldError{Field: "path", Msg: "ends in .zst, and zstd is not written", Hint: "name it .gz, or leave it as it is"}
			}
			return Sink{Path: env.Path(v.String("path")), Format: Format(v.String("format"))}, nil
		},
	}
}

func encoding(format string) connector.Encoding {
	if format == string(Lines) {
		return connector.Text
	}
	return connector.JSON
}
