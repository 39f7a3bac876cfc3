package spec

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// DefaultAllowEnv returns what definitions may read of the environment where [Config.AllowEnv] says nothing else. A process
// has secrets there that are none of theirs.
func DefaultAllowEnv() []string { return []string{"KAFKA_*", "SIDESTREAM_JOB_*"} }

var (
	refRE  = regexp.MustCompile(`\$\{[^}]*\}?`) // references, and what is meant to be one
	envRE  = regexp.MustCompile(`^\$\{env:([^}:]+)(:-([^}]*))?\}$`)
	fileRE = regexp.MustCompile(`^\$\{file:([^}]+)\}$`)
	wordRE = regexp.MustCompile(`^\w+$`)
)

const secretHint = "write ${file:PATH}, or ${env:NAME}"

// text returns a scalar with ${env:NAME:-default} filled in; ok is false where it is no scalar, which it says.
func (d *document) text(n *yaml.Node, what string) (s string, ok bool) {
	if n.Kind != yaml.ScalarNode || isEmpty(n) {
		d.problem(n, "", "%s: want a word, not %s", what, describe(n))
		return "", false
	}
	ok = true
	s = refRE.ReplaceAllStringFunc(n.Value, func(ref string) string {
		v, good := d.filled(n, what, ref)
		ok = ok && good
		return v
	})
	return s, ok
}

// filled returns what stands for a reference in a setting that everybody may see.
func (d *document) filled(n *yaml.Node, what, ref string) (v string, ok bool) {
	m := envRE.FindStringSubmatch(ref)
	switch {
	case fileRE.MatchString(ref):
		d.problem(n, "a file's content stands where a secret is wanted, such as password", "%s: it is no secret, for which alone a file is read", what)
		return "", false
	case m == nil:
		d.noReference(n, what, ref)
		return "", false
	case !d.mayRead(n, what, m[1]):
		return "", false
	case credentialName(m[1]):
		d.problem(n, "secrets are wanted by settings such as password; give it another name if it is none", "%s: %s may be a secret, and here everybody can see it", what, m[1])
		return "", false
	}
	if v, set := d.cfg.Env(m[1]); set && v != "" {
		return v, true
	}
	if m[2] == "" && d.cfg.NoEnv != nil {
		return d.cfg.NoEnv(m[1]), true
	}
	if m[2] == "" {
		d.problem(n, "set it, or write ${env:"+m[1]+":-default}", "%s: the environment has no %s", what, m[1])
		return "", false
	}
	return m[3], true
}

func (d *document) noReference(n *yaml.Node, what, ref string) {
	hint := "write ${env:NAME} or ${env:NAME:-default}"
	if name := strings.Trim(ref, "${}"); wordRE.MatchString(name) {
		hint = "write ${env:" + name + "}"
	}
	d.problem(n, hint, "%s: %s is not a reference", what, clip(ref))
}

// mayRead reports whether definitions may read a variable of the environment; it says where they may not.
func (d *document) mayRead(n *yaml.Node, what, name string) bool {
	if slices.ContainsFunc(d.cfg.AllowEnv, func(pattern string) bool {
		ok, _ := path.Match(pattern, name) // a pattern that is none allows nothing
		return ok
	}) {
		return true
	}
	d.problem(n, "give it one of these names, or allow it with --allow-env or SIDESTREAM_ALLOW_ENV",
		"%s: a definition may not read %s from the environment, only %s", what, name, strings.Join(d.cfg.AllowEnv, ", "))
	return false
}

// secret reads a setting that is a secret: a reference, and nothing else.
func (d *document) secret(n *yaml.Node, what string) (s jobs.Secret, ok bool) {
	if n.Kind != yaml.ScalarNode || isEmpty(n) {
		d.file.hide(n)
		d.problem(n, secretHint, "%s: want a reference to the secret", what)
		return s, false
	}
	if m := fileRE.FindStringSubmatch(n.Value); m != nil {
		if d.cfg.NoEnv != nil {
			v := d.cfg.NoEnv(m[1])
			return jobs.NewSecret(n.Value, func() (string, error) { return v, nil }), true
		}
		file := d.cfg.Place.Path(m[1])
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			d.warn(d.file.at(n), "the job waits for nothing: it fails when it needs the secret", "%s: there is no file %s", what, m[1])
		}
		return jobs.NewSecret(n.Value, connector.SecretFile(file).Reveal), true
	}
	m := envRE.FindStringSubmatch(n.Value)
	switch {
	case m == nil:
		d.file.hide(n)
		d.problem(n, secretHint, "%s: want a reference to the secret, not the secret itself", what)
		return s, false
	case m[2] != "":
		d.file.hide(n)
		d.problem(n, "write ${env:"+m[1]+"}", "%s: a default is the secret itself, in the file", what)
		return s, false
	case !d.mayRead(n, what, m[1]):
		return s, false
	}
	v, set := d.cfg.Env(m[1])
	if (!set || v == "") && d.cfg.NoEnv != nil {
		v, set = d.cfg.NoEnv(m[1]), true
	}
	if !set || v == "" {
		d.problem(n, "set it", "%s: the environment has no %s", what, m[1])
		return s, false
	}
	return jobs.NewSecret(n.Value, func() (string, error) { return v, nil }), true
}

// What is like a secret: names, and texts that are hardly anything else.
const credentialWords = `(?:password|passwd|pwd|passphrase|secret|token|credentials?|(?:api|access|secret|private)[_-]?key)`

var (
	credentialNameRE = regexp.MustCompile(`(?i)` + credentialWords + `$`)
	credentialTextRE = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[^"'\n]*|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}|\bxox[abeprs]-[A-Za-z0-9-]{10,}` +
		`|\bsk_live_[A-Za-z0-9]{16,}|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+|://[^/\s:@"'${}]*:[^/\s@"'${}]+@` +
		`|[\w.-]+:[^\s:@/"'${},]+@[\w.-]+:\d+\b|(?i:\bpassword\s*=\s*["'][^"']+)`)
	// what may be a user and a password: not reported, and not shown either
	credentialUserRE = regexp.MustCompile(`[^\s:@"'\[,]+:[^\s@"']+@`)
	// what a comment gives to such a name, if it is no word of a sentence: it is long, and has a digit
	credentialSaidRE  = regexp.MustCompile(`(?im)(?:^|\s)#[^\n]*?` + credentialWords + `["']?[ \t]*[:=][ \t]*["']?([^\s"'${}<>/]{8,})`)
	credentialGivenRE = regexp.MustCompile(`(?i)(` + credentialWords + `["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s,}\]#]+)`)
)

// Texts without any of these, in lower case, hold nothing for the expressions above, which are slow to say so.
var (
	credentialTexts = []string{"private key", "akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "sk_live_", "eyj", "://", "@", "password"}
	credentialGiven = []string{"passw", "pwd", "passphrase", "secret", "token", "credential", "key"}
)

func mayHold(text string, parts []string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
}

func credentialName(name string) bool { return credentialNameRE.MatchString(name) }

// credentials reports texts in the file, comments too, that look like secrets.
func (f *file) credentials() {
	if !mayHold(f.src, credentialTexts) {
		return
	}
	for _, at := range credentialTextRE.FindAllStringIndex(f.src, maxProblems) {
		line, column := f.position(at[0])
		f.add(line, column, "take it out, and change it if others have seen it: a setting such as password takes ${file:PATH} or ${env:NAME}",
			"this looks like a secret written into the file")
	}
}

// commented warns of comments that give something to a name of a secret.
func (l *loader) commented(f *file) {
	if !strings.Contains(f.src, "#") || !mayHold(f.src, credentialGiven) {
		return
	}
	for _, at := range credentialSaidRE.FindAllStringSubmatchIndex(f.src, maxProblems) {
		if !strings.ContainsAny(f.src[at[2]:at[3]], "0123456789") {
			continue
		}
		line, column := f.position(at[2])
		where := Problem{File: f.name, Line: line, Column: column}
		where.Source, where.mark = f.shown(line, column)
		l.warn(where, "take it out, and change it if others have seen it", "this comment may have a secret in it, written into the file")
	}
}

// literalSecrets warns of fields that are named like a secret and always the same string.
func (w *draft) literalSecrets(n *yaml.Node, names []string, parts []*expr.Program) {
	for i, p := range parts {
		if p == nil || !credentialName(names[i]) {
			continue
		}
		if v, ok := p.Const(); ok && v.Kind().String() == "a string" && v.Text() != "" {
			w.warn(w.file.at(n), "what a record must not show is left out, or comes from elsewhere", "%s may be a secret, written into the file", names[i])
		}
	}
}

// hide keeps a node, and what stands behind it in its line, out of messages.
func (f *file) hide(n *yaml.Node) {
	if f.hidden == nil {
		f.hidden = map[int]int{}
	}
	if from, ok := f.hidden[n.Line]; !ok || n.Column < from {
		f.hidden[n.Line] = n.Column
		delete(f.masks, n.Line)
	}
}

// masked returns a line as messages show it: with stars for what looks like a secret.
func (f *file) masked(number int) string {
	if line, ok := f.masks[number]; ok {
		return line
	}
	line := f.line(number)
	if mayHold(line, credentialTexts) {
		line = credentialTextRE.ReplaceAllStringFunc(line, stars)
	}
	if strings.Contains(line, "@") {
		line = credentialUserRE.ReplaceAllStringFunc(line, stars)
	}
	if mayHold(line, credentialGiven) {
		line = credentialGivenRE.ReplaceAllStringFunc(line, func(s string) string {
			m := credentialGivenRE.FindStringSubmatch(s)
			if v := strings.Trim(m[2], `"'`); strings.HasPrefix(v, "${") || strings.HasPrefix(v, "value.") || strings.HasPrefix(v, "{") || strings.HasPrefix(v, "[") {
				return s
			}
			return m[1] + stars(m[2])
		})
	}
	if from, ok := f.hidden[number]; ok {
		rs := []rune(line)
		from = min(from-1, len(rs))
		line = string(rs[:from]) + stars(string(rs[from:]))
	}
	if f.masks == nil {
		f.masks = map[int]string{}
	}
	f.masks[number] = line
	return line
}

// stars keeps the width of s, so that marks stay below what they mark.
func stars(s string) string { return strings.Repeat("*", len([]rune(s))) }

// windowRunes is how much of a line a message shows, of one that is not too long to be looked through for secrets.
const (
	windowRunes  = 200
	maxLineBytes = 4 << 10
)

// shown returns the part of a line that a message shows, and where a column is in it.
func (f *file) shown(number, column int) (source string, mark int) {
	if f.lineBytes(number) > maxLineBytes {
		return "", column
	}
	line := f.masked(number)
	if len(line) <= windowRunes {
		return line, column
	}
	rs := []rune(line)
	from := max(0, min(column-1-windowRunes/2, len(rs)-windowRunes))
	to := min(from+windowRunes, len(rs))
	source, mark = string(rs[from:to]), column-from
	if to < len(rs) {
		source += "…"
	}
	if from > 0 {
		source, mark = "…"+source, mark+1
	}
	return source, mark
}

// show gives the problems of the file their lines.
func (f *file) show() {
	for i := range f.problems {
		p := &f.problems[i]
		p.Source, p.mark = f.shown(p.Line, p.Column)
		for j := range p.Also {
			if a := &p.Also[j]; a.File == f.name {
				a.Source, a.mark = f.shown(a.Line, a.Column)
			}
		}
	}
}
