package jobstest_test

import (
	"fmt"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

func TestMessagesIsASource(t *testing.T) {
	jobstest.TestSource(t, jobstest.SourceSuite{Records: 12, New: func(*testing.T) jobs.Source {
		m := &jobstest.Messages{Parts: make([][]jobs.Message, 3)} // the last one stays empty
		for i := range 12 {
			m.Parts[i%2] = append(m.Parts[i%2], jobstest.At(int64(i), fmt.Sprint("v", i)))
		}
		return m
	}})
}

func TestSinkIsASink(t *testing.T) {
	var sink *jobstest.Sink
	jobstest.TestSink(t, jobstest.SinkSuite{
		New: func(*testing.T) jobs.Sink { sink = &jobstest.Sink{}; return sink },
		Read: func(*testing.T) (out []string) {
			for _, m := range sink.Have() {
				out = append(out, string(m.Value))
			}
			return out
		},
	})
}
