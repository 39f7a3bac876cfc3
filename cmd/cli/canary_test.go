package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
)

// canary is a secret that stands nowhere but in the places that are given it. It is a name too, for the twin.
const canary = "canary-7f3a9c51"

// canaryJobs log in with the canary, by file and by environment: jobs that work, one with a wrong user, one with a broker that
// is not there and one whose expression fails. name goes before theirs, and leak is a step of the job that works.
func canaryJobs(broker, name, leak string) map[string]string {
	login := func(broker, user, ref string) string {
		return fmt.Sprintf(`kafka: {brokers: [%q], topics: [in], sasl: plain, username: %s, password: %q}`, broker, user, ref)
	}
	job := func(job, rest string) string { return "version: 1\njob: " + name + job + "\n" + rest }
	const byFile, byEnv = "${file:password}", "${env:KAFKA_PASSWORD}"
	return map[string]string{
		"works.yaml": job("works", "source:\n  "+login(broker, "u", byFile)+"\nsteps:\n"+leak+"  - key_by: value.k\n  - window: {tumbling: 1h, aggregate: {n: count()}, allowed_lateness: 1h}\n  - side: {if: 'false', to: out}\n"+
			"outputs:\n  main: {stdout: {}}\n  out: {kafka: {topic: out}}\n"),
		"hands-on.yaml": job("hands-on", "source:\n  "+login(broker, "u", byEnv)+"\nsteps:\n"+leak+"  - key_by: value.k\noutputs: {main: {bus: t}}\n"),
		"denied.yaml":   job("denied", "source:\n  "+login(broker, "nobody", byEnv)+"\noutputs: {main: {bus: d}}\n"),
		"lost.yaml":     job("lost", "source:\n  "+login("127.0.0.1:1", "u", byFile)+"\noutputs: {main: {bus: l}}\n"),
		"fails.yaml":    job("fails", "source:\n  "+login(broker, "u", byFile)+"\nsteps:\n"+leak+"  - map: 'value.n + \"x\"'\noutputs: {main: {bus: f}}\n"),
	}
}

// surfaces runs the jobs with the real program and returns all that can be seen of them, by where it is seen.
func surfaces(t *testing.T, broker string, jobs map[string]string, name string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { // nobody else may come to the socket
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "jobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, src := range jobs {
		if err := os.WriteFile(filepath.Join(dir, "jobs", file), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		"token":           canary + "-token\n", // of the API
		"sidestream.yaml": "contexts:\n  " + name + "far: {url: \"http://127.0.0.1:1\", token_file: token}\n",
		"changed.yaml":    strings.Replace(jobs["works.yaml"], "count()", "count(), top: max(value.n)", 1),
		"denied2.yaml":    strings.Replace(jobs["denied.yaml"], "bus: d", "bus: d2", 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := func(args ...string) *exec.Cmd {
		c := exec.Command("sidestream", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "KAFKA_PASSWORD="+canary, "XDG_CONFIG_HOME="+dir)
		return c
	}
	socket := filepath.Join(dir, "s")
	run := program("run", "jobs", "--data-dir", "data", "--socket", socket, "--log-level", "debug", "--listen", "127.0.0.1:0", "--token-file", "token")
	var out, said syncBuffer
	run.Stdout, run.Stderr = &out, &said
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = run.Process.Kill() }() // it has ended by itself, if all went well
	seen := map[string]string{}
	see := func(where string, args ...string) string {
		b, err := program(args...).CombinedOutput()
		seen[where] = string(b)
		if err != nil {
			seen[where] += err.Error()
		}
		return seen[where]
	}
	waitFor(t, "the jobs to work and to fail", func() bool {
		list := see("job list", "job", "list", "-o", "json", "--socket", socket)
		tail := see("bus tail", "bus", "tail", "t", "-n", "1", "-o", "json", "--socket", socket)
		return strings.Contains(tail, `"k"`) && strings.Contains(list, "does not go with") && strings.Contains(strings.ToLower(list), "sasl")
	})
	for _, j := range []string{"works", "hands-on", "denied", "lost", "fails"} {
		for _, format := range []string{"yaml", "json"} {
			see("job get "+j+" "+format, "job", "get", name+j, "-o", format, "--socket", socket)
		}
	}
	see("savepoint", "job", "savepoint", name+"works", name+"sp", "--socket", socket)
	see("status", "status", "-o", "json", "--socket", socket)
	see("job logs", "job", "logs", name+"fails", "--socket", socket)
	see("job diff", "job", "diff", "changed.yaml", "--socket", socket)
	see("job diff json", "job", "diff", "changed.yaml", "-o", "json", "--socket", socket)
	see("job apply, refused", "job", "apply", "changed.yaml", "-o", "json", "--socket", socket)
	see("job apply, denied", "job", "apply", "denied2.yaml", "--adopt", "--socket", socket)
	see("doctor", "doctor", "jobs", "--socket", socket)
	see("top", "top", "-n", "1", "-o", "json", "--socket", socket)
	see("completion", "__complete", "job", "get", "--socket", socket, "")
	see("contexts", "context", "list", "-o", "json")
	see("context", "context", "show", "--context", name+"far", "-o", "json")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for _, path := range []string{"/v1/status", "/v1/jobs", "/v1/jobs/" + name + "works", "/v1/jobs/" + name + "works/definition", "/v1/topics", "/v1/savepoints", "/v1/operations", "/v1/openapi.json", "/metrics", "/readyz?verbose"} {
		r, err := client.Get("http://sidestream" + path)
		if err != nil {
			t.Fatalf("%v; it said %s", err, said.String())
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close() // it has been read
		seen["GET "+path] = r.Status + "\n" + string(b)
	}
	seen["events"] = events(t, client)
	if err := run.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := run.Wait()
	seen["run: stdout"], seen["run: stderr"] = out.String(), fmt.Sprint(said.String(), err)
	see("wal dump", "wal", "dump", "--data-dir", "data")
	see("wal dump json", "wal", "dump", "--data-dir", "data", "-o", "json")
	see("checkpoint list", "checkpoint", "list", "--data-dir", "data")
	names := see("checkpoint names", "checkpoint", "list", "--data-dir", "data", "-o", "name")
	if first, _, _ := strings.Cut(names, "\n"); first != "" {
		see("checkpoint inspect", "checkpoint", "inspect", first, "--data-dir", "data")
		see("checkpoint export", "checkpoint", "export", first, "--data-dir", "data")
	}
	see("check", "check", "jobs", "-o", "json")
	if err := filepath.WalkDir(filepath.Join(dir, "data"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		seen["files"] += path[len(dir):] + "\n" + string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return seen
}

// events returns what has happened so far, as the API tells it.
func events(t *testing.T, client *http.Client) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidestream/v1/events?after=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var told bytes.Buffer
	for s := bufio.NewScanner(r.Body); s.Scan() && !strings.Contains(s.Text(), `"kind":"savepoint"`); {
		told.WriteString(s.Text() + "\n")
	}
	return told.String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("waited too long for %s", what)
			return
		}
	}
}

// TestCanary: the value of a secret is nowhere to be seen. Its twin has the same value as a name and in records, and is seen
// everywhere: so each place was looked at.
func TestCanary(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in"), kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", canary))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.SASL(saslplain.Auth{User: "u", Pass: canary}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 20 {
		r := &kgo.Record{Topic: "in", Value: fmt.Appendf(nil, `{"k": "k%d", "n": %d}`, i, i)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	broker := c.ListenAddrs()[0]
	for where, text := range surfaces(t, broker, canaryJobs(broker, "", ""), "") {
		if strings.Contains(text, canary) {
			at := strings.Index(text, canary)
			t.Errorf("%s shows the secret: …%s…", where, text[max(0, at-200):at+len(canary)])
		}
		if len(bytes.TrimSpace([]byte(text))) == 0 && where != "run: stdout" {
			t.Errorf("%s is empty: nothing has been looked at", where)
		}
		t.Logf("%s: %d bytes", where, len(text))
	}
	leak := "  - map: {k: '\"" + canary + "\"', n: value.n}\n"
	for where, text := range surfaces(t, broker, canaryJobs(broker, canary+".", leak), canary+".") {
		bare := where == "run: stdout" || where == "GET /v1/openapi.json" || strings.HasPrefix(where, "wal dump") // they hold no names and no contents
		if !bare && !strings.Contains(text, canary) {
			t.Errorf("the twin's name is not seen in %s: %.600s", where, text)
		}
	}
}
