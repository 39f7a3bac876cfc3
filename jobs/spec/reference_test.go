package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
)

const canary = "canary-0815"

// withPassword is a job whose login has a password.
func withPassword(password string) string {
	return small("  kafka: {topics: [t], brokers: [\"b:1\"], sasl: plain, username: u, password: "+password+"}\n", "outputs: {main: {kafka: {topic: o}}}\n")
}

func secretConfig() Config {
	return Config{Connectors: all.Registry(), Env: func(name string) (string, bool) {
		v, ok := map[string]string{"KAFKA_PASSWORD": canary, "KAFKA_TOPIC": "t", "HOME": canary, "KAFKA_EMPTY": ""}[name]
		return v, ok
	}}
}

// TestSecretSettings: a secret is a reference, which is read when it is needed and stays one in the definition.
func TestSecretSettings(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p"), []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"${file:p}", "${env:KAFKA_PASSWORD}", "${file:" + filepath.Join(dir, "p") + "}"} {
		c := secretConfig()
		c.Place = connector.LoadEnv{BaseDir: dir}
		src := withPassword(`"` + ref + `"`)
		js, problems := LoadBytes(c, "f", []byte(src))
		if problems != nil {
			t.Fatalf("%s: %v", ref, problems)
		}
		for _, sec := range []kafka.Security{js[0].Nodes[0].Source.Source.(kafka.Source).Security, js[0].Outputs()[0].Output.Sink.(kafka.Sink).Security} {
			if got, err := sec.Password.Reveal(); got != canary || err != nil || sec.Password.Ref() != ref {
				t.Errorf("%s gives %q, %v, and is called %s", ref, got, err, sec.Password.Ref())
			}
		}
		if string(js[0].Definition) != src {
			t.Errorf("the definition is %s", js[0].Definition)
		}
		for _, text := range []string{string(js[0].Definition), string(js[0].Describe()), fmt.Sprintf("%+v", js[0].Nodes[0].Source)} {
			if strings.Contains(text, canary) {
				t.Errorf("%s shows in %s", ref, text)
			}
		}
	}
}

// TestSecretProblems: what is no reference, or may not be one, is refused, and never shown.
func TestSecretProblems(t *testing.T) {
	const take = "take it out, and change it if others have seen it: a setting such as password takes ${file:PATH} or ${env:NAME}"
	in := func(kafka string) string {
		return small("  kafka: {topics: [t], brokers: [\"b:1\"], "+kafka+"}\n", "outputs: {main: {stdout: {}}}\n")
	}
	token := "ghp_" + strings.Repeat("a1B2", 9)
	tests := []struct{ name, src, want string }{
		{"a literal", withPassword(canary), "f:4:78: source.kafka.password: want a reference to the secret, not the secret itself | " + secretHint},
		{"a literal in quotes", withPassword(`"` + canary + `, x"`), "f:4:78: source.kafka.password: want a reference to the secret, not the secret itself | " + secretHint},
		{"a literal around a reference", withPassword(`"` + canary + `${env:KAFKA_PASSWORD}"`), "f:4:78: source.kafka.password: want a reference to the secret, not the secret itself | " + secretHint},
		{"a block", withPassword("{x: " + canary + "}"), "f:4:78: source.kafka.password: want a reference to the secret | " + secretHint},
		{"a default", withPassword("\"${env:KAFKA_EMPTY:-" + canary + "}\""), "f:4:78: source.kafka.password: a default is the secret itself, in the file | write ${env:KAFKA_EMPTY}"},
		{"a name that may not be read", withPassword(`"${env:HOME}"`), "f:4:78: source.kafka.password: a definition may not read HOME from the environment, only KAFKA_*, SIDESTREAM_JOB_* | give it one of these names, or allow it with --allow-env or SIDESTREAM_ALLOW_ENV"},
		{"a name that is not set", withPassword(`"${env:KAFKA_NONE}"`), "f:4:78: source.kafka.password: the environment has no KAFKA_NONE | set it"},
		{"an empty one", withPassword(`"${env:KAFKA_EMPTY}"`), "f:4:78: source.kafka.password: the environment has no KAFKA_EMPTY | set it"},
		{"a name that may not be read, elsewhere", in(`group: "${env:HOME:-x}"`), "f:4:49: source.kafka.group: a definition may not read HOME from the environment, only KAFKA_*, SIDESTREAM_JOB_* | give it one of these names, or allow it with --allow-env or SIDESTREAM_ALLOW_ENV"},
		{"a secret where everybody sees it", in(`group: "${env:KAFKA_PASSWORD}"`), "f:4:49: source.kafka.group: KAFKA_PASSWORD may be a secret, and here everybody can see it | secrets are wanted by settings such as password; give it another name if it is none"},
		{"a file where everybody sees it", in(`group: "${file:/etc/passwd}"`), "f:4:49: source.kafka.group: it is no secret, for which alone a file is read | a file's content stands where a secret is wanted, such as password"},
		{"no reference", in(`group: "${KAFKA_TOPIC}"`), "f:4:49: source.kafka.group: ${KAFKA_TOPIC} is not a reference | write ${env:KAFKA_TOPIC}"},
		{"a reference that does not end", in(`group: "${env:KAFKA_TOPIC"`), "f:4:49: source.kafka.group: ${env:KAFKA_TOPIC is not a reference | write ${env:NAME} or ${env:NAME:-default}"},
		{"another kind of reference", in(`group: "${vault:x}"`), "f:4:49: source.kafka.group: ${vault:x} is not a reference | write ${env:NAME} or ${env:NAME:-default}"},
		{"a token in a comment", in("group: g") + "# " + token + "\n", "f:6:3: this looks like a secret written into the file | " + take},
		{"a user's password in an address", in(`group: "kafka://u:` + canary + `@h"`), "f:4:55: this looks like a secret written into the file | " + take},
		{"a user's password in a broker's address", small("  kafka: {topics: [t], brokers: [\"u:"+canary+"@127.0.0.1:1\"]}\n", "outputs: {main: {stdout: {}}}\n"),
			"f:4:33: source.kafka.brokers: a broker's address is host:port, without a user; that is for username and password | \nf:4:35: this looks like a secret written into the file | " + take},
		{"the same without a port", small("  kafka: {topics: [t], brokers: [\"u:"+canary+"@h\"]}\n", "outputs: {main: {stdout: {}}}\n"),
			"f:4:33: source.kafka.brokers: a broker's address is host:port, without a user; that is for username and password | "},
		{"the same in a comment", in("group: g") + "# u:" + canary + "@host.example:9092\n", "f:6:3: this looks like a secret written into the file | " + take},
		{"a private key", in("group: g") + "# -----BEGIN RSA PRIVATE KEY----- " + canary + "\n", "f:6:3: this looks like a secret written into the file | " + take},
		{"an unknown field with a secret", in("sasl_password: " + canary), "f:4:42: source.kafka has no field sasl_password | did you mean password?"},
		{"another mistake beside a secret", in("sasl: plan, username: u, password: " + canary), "f:4:77: source.kafka.password: want a reference to the secret, not the secret itself | " + secretHint},
		{"no YAML", "job: a\npassword: " + canary + "\n\tx: [\n", "f:3:1: not YAML: found a tab character that violates indentation | YAML is indented with spaces, not with tabs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			js, problems := LoadBytes(secretConfig(), "f", []byte(tt.src))
			if got := words(problems); got != tt.want || js != nil {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			for _, p := range problems {
				if s := p.String() + fmt.Sprintf("%+v", p); strings.Contains(s, canary) || strings.Contains(s, token) {
					t.Errorf("a message shows the secret:\n%s", s)
				}
			}
		})
	}
}

// TestSecretWarnings: what only may be a secret, and a file that is not there, do not keep a job from being loaded.
func TestSecretWarnings(t *testing.T) {
	files := map[string]string{
		"a.yaml": strings.Replace(withPassword(`"${file:none}"`), "job: j", "job: a", 1),
		"c.yaml": strings.Replace(small(okSource, "outputs: {main: {stdout: {}}}\n# password: hunter2correcthorsebattery9x\n# secret=Zx81Zx81Zx81\n# password: of-the-database, tokens: see ${file:token12345}\n"), "job: j", "job: c", 1),
		"b.yaml": strings.Replace(small(okSource, "steps:\n  - set: {token: '\"abc\"', other: '\"abc\"', password: value.x}\n  - map: '{\"api_key\": \"k\", \"n\": 1}'\noutputs: {main: {stdout: {}}}\n"), "job: j", "job: b", 1),
	}
	js, problems, warnings := checkAll(t, nil, files)
	want := `a.yaml:4:78: source.kafka.password: there is no file none | the job waits for nothing: it fails when it needs the secret
b.yaml:6:18: token may be a secret, written into the file | what a record must not show is left out, or comes from elsewhere
b.yaml:7:10: api_key may be a secret, written into the file | what a record must not show is left out, or comes from elsewhere
c.yaml:6:13: this comment may have a secret in it, written into the file | take it out, and change it if others have seen it
c.yaml:7:10: this comment may have a secret in it, written into the file | take it out, and change it if others have seen it`
	if len(js) != 3 || problems != "" || warnings != want {
		t.Errorf("%d jobs, problems %q, warnings\n%s\nwant\n%s", len(js), problems, warnings, want)
	}
}

// TestSecretsOfCases: where the environment is not read, a secret's file is not either.
func TestSecretsOfCases(t *testing.T) {
	c := secretConfig()
	c.NoEnv = func(name string) string { return "none" }
	js, problems, warnings := CheckFiles(c, File{"f", []byte(withPassword("\"${file:/nowhere/p}\""))})
	if problems != nil || warnings != nil {
		t.Fatalf("%v, %v", problems, warnings)
	}
	if got, err := js[0].Nodes[0].Source.Source.(kafka.Source).Security.Password.Reveal(); got != "none" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
