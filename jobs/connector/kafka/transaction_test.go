package kafka

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sidestream-dev/sidestream/jobs"
)

func exactlyOnceEnv(known int64, state []byte) jobs.SinkEnv {
	env := sinkEnv(nil)
	env.Delivery, env.LogID, env.Known, env.State = jobs.ExactlyOnce, "log", known, state
	return env
}

func numbered(from, to int) (ms []jobs.Message) {
	for i := from; i < to; i++ {
		ms = append(ms, jobs.Message{Key: fmt.Appendf(nil, "k%d", i%5), Value: fmt.Appendf(nil, "v%d", i), Time: jobs.NoTime, Offset: int64(i)})
	}
	return ms
}

// repeats returns how many of the records 0..n-1 a topic holds more than once; each must be there.
func repeats(t *testing.T, addr, topic string, n int) (more int) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range all(t, addr, topic) {
		seen[string(r.Value)]++
	}
	for i := range n {
		c := seen[fmt.Sprint("v", i)]
		if c == 0 {
			t.Fatalf("v%d of %d is missing in %s", i, n, topic)
		}
		more += c - 1
	}
	return more
}

// TestTransactionsKilled: a process that sends is killed with -9 at random moments, and goes on from a position that is
// older than what it sent, as the log's may be. With exactly_once each record stands in the topic once; its broken twin,
// at_least_once, repeats some, which shows that the test can tell.
func TestTransactionsKilled(t *testing.T) {
	if os.Getenv("SIDESTREAM_TEST_SENDER") != "" {
		senderProcess(t)
		return
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SIDESTREAM_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("SIDESTREAM_TEST_SEED=%d", seed)
	addr := broker(t, &Embedded{})
	for _, d := range []jobs.Delivery{jobs.ExactlyOnce, jobs.AtLeastOnce} {
		rng, topic := rand.New(rand.NewPCG(seed, 0)), topicName(t)
		makeTopic(t, client(t, addr), topic, 3)
		dir, done := t.TempDir(), false
		kills := 0
		for ; !done; kills++ {
			if kills == 200 {
				t.Fatal("not done after 200 processes")
			}
			done = runSender(t, addr, topic, dir, d, rng)
		}
		more := repeats(t, addr, topic, senderRecords)
		t.Logf("%v: %d processes, %d records repeated", d, kills, more)
		if d == jobs.ExactlyOnce && more > 0 {
			t.Errorf("%d records stand in the topic more than once", more)
		}
		if d == jobs.AtLeastOnce && more == 0 {
			t.Error("no record was repeated at least once: the test sees nothing")
		}
	}
}

const senderRecords = 3000

// runSender runs a process that sends, kills it some Writes later, or between them, and reports whether it had done all.
func runSender(t *testing.T, addr, topic, dir string, d jobs.Delivery, rng *rand.Rand) (done bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTransactionsKilled$")
	cmd.Env = append(os.Environ(), "SIDESTREAM_TEST_SENDER="+strings.Join([]string{addr, topic, dir, d.String()}, " "))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	writes := 2 + rng.IntN(8)
	for n := 0; n < writes && lines.Scan(); n++ {
		if strings.HasPrefix(lines.Text(), "done") {
			done = true
			break
		}
	}
	time.Sleep(time.Duration(rng.IntN(8000)) * time.Microsecond) // into the next Write
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	for lines.Scan() {
		done = done || strings.HasPrefix(lines.Text(), "done")
	}
	_ = cmd.Wait() // it was killed
	return done
}

// senderProcess sends from the position that stands in its folder, which it moves on at each third Write only.
func senderProcess(t *testing.T) {
	args := strings.Fields(os.Getenv("SIDESTREAM_TEST_SENDER"))
	addr, topic, file := args[0], args[1], filepath.Join(args[2], "position")
	env := exactlyOnceEnv(senderRecords, nil)
	if args[3] == jobs.AtLeastOnce.String() {
		env.Delivery = jobs.AtLeastOnce
	}
	at := 0
	if b, err := os.ReadFile(file); err == nil {
		n, state, _ := strings.Cut(string(b), " ")
		at, _ = strconv.Atoi(n)
		env.State = []byte(state)
	}
	w, err := Sink{Brokers: []string{addr}, Topic: topic}.Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	save := func(state []byte) {
		if err := os.WriteFile(file+".new", fmt.Appendf(nil, "%d %s", at, state), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	if env.State == nil {
		state, err := w.Write(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		save(state)
	}
	for n := 1; at < senderRecords; n++ {
		to := min(at+37, senderRecords)
		state, err := w.Write(t.Context(), numbered(at, to))
		if err != nil {
			t.Fatal(err)
		}
		at = to
		if n%3 == 0 {
			save(state)
		}
		fmt.Println("sent", at)
	}
	fmt.Println("done")
	time.Sleep(time.Minute) // until killed
}

// TestTransactions: what may go wrong with a position outside is said, never passed over.
func TestTransactions(t *testing.T) {
	addr := broker(t, &Embedded{})
	adm := kadm.NewClient(client(t, addr))
	begin := func(t *testing.T) (s Sink, state []byte) {
		s = Sink{Brokers: []string{addr}, Topic: topicName(t), Partitions: 2}
		w, err := s.Open(t.Context(), exactlyOnceEnv(20, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if state, err = w.Write(t.Context(), numbered(0, 20)); err != nil {
			t.Fatal(err)
		}
		return s, state
	}
	env := func(t *testing.T, known int64, state []byte) jobs.SinkEnv { // of an output of its own
		e := exactlyOnceEnv(known, state)
		e.Output = t.Name()
		return e
	}
	stopped := func(t *testing.T, err error, want string) {
		t.Helper()
		var s *jobs.StoppedError
		if !errors.As(err, &s) || !strings.Contains(err.Error(), want) || s.Choice == "" {
			t.Errorf("got %v, want a StoppedError with %q", err, want)
		}
	}
	t.Run("an older writer is shut out", func(t *testing.T) {
		s := Sink{Brokers: []string{addr}, Topic: topicName(t), Partitions: 1}
		old, err := s.Open(t.Context(), env(t, 10, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		if _, err := old.Write(t.Context(), numbered(0, 5)); err != nil {
			t.Fatal(err)
		}
		began, err := old.Write(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		young, err := s.Open(t.Context(), env(t, 10, began))
		if err != nil {
			t.Fatal(err)
		}
		defer young.Close()
		if _, err := old.Write(t.Context(), numbered(5, 8)); err == nil {
			t.Error("the older writer still writes")
		}
		if _, err := young.Write(t.Context(), numbered(0, 10)); err != nil { // of which 5 stand there
			t.Fatal(err)
		}
		if more := repeats(t, addr, s.Topic, 10); more != 0 {
			t.Errorf("%d records are repeated", more)
		}
	})
	t.Run("a log that knows less", func(t *testing.T) {
		s, state := begin(t)
		_, err := s.Open(t.Context(), exactlyOnceEnv(19, state))
		stopped(t, err, "up to number 20 of this output, but the log knows of only 19")
	})
	t.Run("a position that is gone", func(t *testing.T) {
		s := Sink{Brokers: []string{addr}, Topic: topicName(t), Partitions: 1}
		w, err := s.Open(t.Context(), env(t, 20, nil))
		if err != nil {
			t.Fatal(err)
		}
		state, err := w.Write(t.Context(), numbered(0, 5))
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if _, err := adm.DeleteGroups(t.Context(), w.(*writer).name()); err != nil {
			t.Fatal(err)
		}
		_, err = s.Open(t.Context(), env(t, 20, state))
		stopped(t, err, "has no position of what was sent")
		alo := env(t, 20, state)
		alo.Delivery = jobs.AtLeastOnce // the choice
		w, err = s.Open(t.Context(), alo)
		if err != nil {
			t.Fatal(err)
		}
		if state, err = w.Write(t.Context(), numbered(5, 8)); err != nil {
			t.Fatal(err)
		}
		w.Close()
		w, err = s.Open(t.Context(), env(t, 20, state))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.Write(t.Context(), numbered(8, 20)); err != nil {
			t.Fatal(err)
		}
		if more := repeats(t, addr, s.Topic, 20); more != 0 {
			t.Errorf("%d records are repeated", more)
		}
	})
	t.Run("a transaction that fails is sent again, once", func(t *testing.T) {
		s := Sink{Brokers: []string{addr}, Topic: topicName(t), Partitions: 1}
		w, err := s.Open(t.Context(), env(t, 0, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.Write(t.Context(), numbered(0, 5)); err != nil {
			t.Fatal(err)
		}
		w.(*writer).cl.Close() // as if the connection were lost for good
		if _, err := w.Write(t.Context(), numbered(5, 10)); err == nil {
			t.Fatal("a closed client writes")
		}
		if _, err := w.Write(t.Context(), numbered(5, 10)); err != nil {
			t.Fatal(err)
		}
		if more := repeats(t, addr, s.Topic, 10); more != 0 {
			t.Errorf("%d records are repeated", more)
		}
	})
	t.Run("an output that is made again begins anew", func(t *testing.T) {
		s, _ := begin(t)
		w, err := s.Open(t.Context(), exactlyOnceEnv(5, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.Write(t.Context(), numbered(0, 5)); err != nil {
			t.Fatal(err)
		}
		if more := repeats(t, addr, s.Topic, 20); more != 5 {
			t.Errorf("%d records of the second output arrived, want 5", more)
		}
	})
	t.Run("foreign state", func(t *testing.T) {
		s := Sink{Brokers: []string{addr}, Topic: topicName(t)}
		if _, err := s.Open(t.Context(), env(t, 0, []byte("x"))); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("uncommitted readers see what committed ones do not", func(t *testing.T) {
		s := Sink{Brokers: []string{addr}, Topic: topicName(t), Partitions: 1}
		jw, err := s.Open(t.Context(), env(t, 5, nil))
		if err != nil {
			t.Fatal(err)
		}
		began, err := jw.Write(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		w := jw.(*writer)
		if err := w.cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := w.produce(t.Context(), numbered(0, 5)); err != nil {
			t.Fatal(err)
		}
		w.Close() // a crash before the commit
		jw, err = s.Open(t.Context(), env(t, 5, began))
		if err != nil {
			t.Fatal(err)
		}
		defer jw.Close()
		if got := all(t, addr, s.Topic); len(got) != 0 {
			t.Errorf("%d records of an aborted transaction are read", len(got))
		}
		if _, err := jw.Write(t.Context(), numbered(0, 5)); err != nil {
			t.Fatal(err)
		}
		if more := repeats(t, addr, s.Topic, 5); more != 0 {
			t.Errorf("%d records are repeated", more)
		}
	})
}
