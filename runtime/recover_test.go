package runtime

import (
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// coreOnDisk is a core over a log in a folder, without its goroutine.
type coreOnDisk struct {
	*core
	t   *testing.T
	dir string
	log *wal.Log
}

func newCoreOnDisk(t *testing.T) *coreOnDisk {
	t.Helper()
	c := &coreOnDisk{t: t, dir: t.TempDir()}
	c.open()
	t.Cleanup(func() { c.log.Close() })
	return c
}

// open opens the log and makes bus and ledger what it says.
func (c *coreOnDisk) open() {
	c.t.Helper()
	log, err := wal.Open(c.dir, wal.Config{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.log = log
	b := bus.New(bus.Config{MemoryBytes: 1}, walFrames{log})
	led := newLedger()
	if at := log.Catalog(); at > 0 {
		if led, err = recoverLedger(walFrames{log}, at, b); err != nil {
			c.t.Fatal(err)
		}
	}
	c.core = newCore(log, b, led, 1<<20)
}

func (c *coreOnDisk) reopen() {
	c.t.Helper()
	if err := c.log.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.open()
}

func (c *coreOnDisk) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *coreOnDisk) write(ch *control, marks ...bus.Mark) wal.LSN {
	c.t.Helper()
	lsn, err := c.change(ch, marks)
	c.must(err)
	return lsn
}

func (c *coreOnDisk) makeDurable() {
	c.t.Helper()
	c.must(c.log.WaitDurable(c.t.Context(), c.log.Last()))
	c.durable(c.log.Durable())
}

// publish seals one epoch of job 1 with n records in topic, in two sections.
func (c *coreOnDisk) publish(topic bus.TopicID, n int) wal.LSN {
	c.t.Helper()
	j := c.ledger.Jobs[1]
	r := &sealRequest{job: 1, attempt: c.attempts[1], header: checkpoint.Header{Job: 1, Attempt: c.attempts[1], Epoch: j.Epoch + 1}}
	for range 2 {
		var b bus.Builder
		for range n / 2 {
			b.Append(bus.Record{Value: []byte("v"), Time: bus.NoTime})
		}
		r.pubs = append(r.pubs, bus.Publication{Topic: topic, Count: b.Count(), Data: b.Bytes()})
	}
	lsn, err := c.seal(r)
	c.must(err)
	return lsn
}

// define makes job 1, which writes topic 2, and returns the frame's LSN.
func (c *coreOnDisk) define() {
	c.t.Helper()
	spec := bus.TopicSpec{Name: "t"}
	c.must(c.bus.Define(2, spec))
	c.write(&control{Topics: []topicEntry{{2, spec}}, Jobs: []jobChange{{ID: 1, Name: "j", Phase: PhaseActive, Replace: true,
		Outputs: []outputEntry{{Name: "t", Topic: 2}}}}}, bus.Mark{Topic: 2, Producer: 1, Join: true})
	_, _, err := c.fence(1)
	c.must(err)
}

func countAll(t *testing.T, r *bus.Reader) (n int) {
	t.Helper()
	for {
		b, ok, err := r.Next(3)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return n
		}
		n += b.Len()
	}
}

// TestSenderGoesOnInsideAFrame: a sender that was cut off after some of an epoch's records sends the rest of them, found
// in memory and in the log.
func TestSenderGoesOnInsideAFrame(t *testing.T) {
	c := newCoreOnDisk(t)
	c.must(c.rotateIfDue())
	c.define()
	lsn := c.publish(2, 10)
	for _, where := range []string{"memory", "log"} {
		for sent := range 11 {
			r := c.bus.NewReader(0, 2, sentStates(sentEntry{LSN: lsn, Next: bus.Offset(sent)}), func() {})
			if got := countAll(t, r); got != 10-sent {
				t.Errorf("from %s, after %d of 10 records: %d more", where, sent, got)
			}
			c.must(r.Close())
		}
		c.makeDurable() // gives memory back
	}
}

// TestRecoveryOfAChangedJob: a job whose definition changed keeps the subscription it had, and loses the one it gave up.
func TestRecoveryOfAChangedJob(t *testing.T) {
	c := newCoreOnDisk(t)
	c.must(c.rotateIfDue())
	c.define()
	input := func(sub bus.SubID) inputEntry {
		return inputEntry{Step: "in", Topic: 2, Sub: sub, States: []bus.SubState{{Watermark: bus.NoWatermark}}}
	}
	job := func(inputs ...inputEntry) *control {
		return &control{Jobs: []jobChange{{ID: 3, Name: "reader", Phase: PhaseActive, Replace: true, Inputs: inputs}}}
	}
	c.write(job(input(4), input(5)))
	c.publish(2, 10)
	c.write(job(input(5), input(6)))
	c.makeDurable()
	c.reopen()
	for sub, want := range map[bus.SubID]bool{4: false, 5: true, 6: true} {
		if got := c.bus.Subscribed(sub); got != want {
			t.Errorf("subscription %d is there: %v, want %v", sub, got, want)
		}
	}
	if lag := c.bus.Lag(5); lag != 10 {
		t.Errorf("the subscription that was kept has %d records to read, want 10", lag)
	}
}

// TestRecoveryBehindADrop: the newest catalog is older than the drop of the generation before it; who subscribes to the
// earliest after a restart begins at what is still there.
func TestRecoveryBehindADrop(t *testing.T) {
	c := newCoreOnDisk(t)
	c.must(c.rotateIfDue())
	c.define()
	c.publish(2, 10)
	led, err := c.ledger.encode()
	c.must(err)
	frames := catalogFrames(100, led, wal.Section{Kind: sectionBusCatalog, Body: c.bus.AppendCatalog(nil)})
	second, err := c.log.Rotate(frames[0], frames[1:]...)
	c.must(err)
	c.bus.Generation(second)
	c.publish(2, 6)
	c.write(&control{DropFirst: second})
	c.makeDurable()
	c.must(c.log.Drop(second))
	c.reopen()
	states, err := c.bus.Subscribe(9, "late", 2, bus.Start{Earliest: true})
	c.must(err)
	if states[0].Next != 10 {
		t.Errorf("the earliest record has offset %s, want 10", states[0].Next)
	}
	r := c.bus.NewReader(9, 2, states, func() {})
	defer r.Close()
	if got := countAll(t, r); got != 6 {
		t.Errorf("%d records read, want 6", got)
	}
	if ids := c.bus.Producers(2); len(ids) != 1 || r.Ended() {
		t.Errorf("producers %v, ended %v: the producer joined in what was dropped", ids, r.Ended())
	}
}
