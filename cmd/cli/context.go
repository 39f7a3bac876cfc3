package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// site is where a process is asked: on a socket, on the one in a data directory, or over TCP. Relative paths of a settings file
// are from the file's folder.
type site struct {
	Context string // its name, if it has one
	Socket  string
	DataDir string
	Remote  admin.Remote
	Where   string // FILE:LINE that says so
}

// contextFields is what a context may say, and where it goes.
var contextFields = map[string]func(*site) *string{
	"socket":     func(p *site) *string { return &p.Socket },
	"data_dir":   func(p *site) *string { return &p.DataDir },
	"url":        func(p *site) *string { return &p.Remote.URL },
	"token_file": func(p *site) *string { return &p.Remote.TokenFile },
	"ca_file":    func(p *site) *string { return &p.Remote.CAFile },
	"cert_file":  func(p *site) *string { return &p.Remote.CertFile },
	"key_file":   func(p *site) *string { return &p.Remote.KeyFile },
}

// String names the site for people.
func (p site) String() string {
	switch {
	case p.Remote.URL != "":
		return p.Remote.URL
	case p.Socket != "":
		return p.Socket
	}
	return socketIn(p.DataDir)
}

// client returns a client of the process there.
func (p site) client() (*admin.Client, error) {
	if p.Remote.URL == "" {
		return admin.NewClient(p.String()), nil
	}
	c, err := admin.NewRemote(p.Remote)
	if err != nil {
		return nil, withCode(exitConfig, fmt.Errorf("%s: context %s: %w", p.Where, p.Context, err))
	}
	return c, nil
}

// readContexts takes up the contexts of a file.
func (g *given) readContexts(name string, n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: contexts is an object: NAME: {socket: …}", name, n.Line)
	}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		p := site{Context: key.Value, Where: fmt.Sprintf("%s:%d", name, key.Line)}
		if value.Kind != yaml.MappingNode {
			return fmt.Errorf("%s: context %s is an object: {socket: …}", p.Where, key.Value)
		}
		for k := 0; k < len(value.Content); k += 2 {
			field, v := value.Content[k], value.Content[k+1]
			into, ok := contextFields[field.Value]
			switch {
			case !ok:
				return fmt.Errorf("%s:%d: context %s: there is no field %q; %s", name, field.Line, key.Value, field.Value, knownKeys(field.Value, slices.Sorted(maps.Keys(contextFields))))
			case v.Kind != yaml.ScalarNode || v.Value == "":
				return fmt.Errorf("%s:%d: context %s: %s is a text", name, field.Line, key.Value, field.Value)
			}
			if field.Value == "url" && strings.Contains(v.Value, "@") { // it is not shown
				return fmt.Errorf("%s:%d:%d: context %s: the url has a user or a password in it; a server takes a token, from token_file", name, v.Line, v.Column, key.Value)
			}
			*into(&p) = v.Value
			if field.Value != "url" && !filepath.IsAbs(v.Value) {
				*into(&p) = filepath.Join(filepath.Dir(name), v.Value)
			}
		}
		if err := p.check(); err != nil {
			return fmt.Errorf("%s: context %s: %w", p.Where, key.Value, err)
		}
		g.contexts[key.Value] = p
	}
	return nil
}

func (p site) check() error {
	n := 0
	for _, one := range []string{p.Socket, p.DataDir, p.Remote.URL} {
		if one != "" {
			n++
		}
	}
	switch r := p.Remote; {
	case n != 1:
		return errors.New("it has one of socket, data_dir and url")
	case r.URL == "" && r != (admin.Remote{}):
		return errors.New("token_file, ca_file, cert_file and key_file go with url")
	}
	return nil
}

// site returns where a command is to ask: at the context, or at the socket or data directory, whichever was named nearest
// (flag, environment, file); of one rank the context's. A socket that is named is that of any data directory, as it is for run.
func (a *app) site(cmd *cobra.Command) (site, error) {
	at := site{Socket: text(cmd, "socket"), DataDir: text(cmd, "data-dir")}
	name, by := text(cmd, "context"), a.from["context"].rank
	other := max(a.from["socket"].rank, a.from["data-dir"].rank)
	switch {
	case name == "" || by < other:
		return at, nil
	case by == byFlag && other == byFlag:
		return at, withCode(exitUsage, errServers)
	}
	p, ok := a.contexts[name]
	if !ok {
		if len(a.contexts) == 0 {
			return at, a.bad(cmd, "context", "the name of a context in a settings file, and no file has any")
		}
		return at, a.bad(cmd, "context", "one of the contexts in the settings files: "+knownKeys(name, slices.Sorted(maps.Keys(a.contexts))))
	}
	return p, nil
}

// contextInfo is what context list says of one.
type contextInfo struct {
	Name    string `json:"name"`
	Current bool   `json:"current"` // it is asked if nothing else is said
	Socket  string `json:"socket,omitempty"`
	DataDir string `json:"data_dir,omitempty"`
	URL     string `json:"url,omitempty"`
	Where   string `json:"where"` // FILE:LINE
}

var contextView = view[contextInfo]{
	head: []string{"NAME", "CURRENT", "SERVER", "FROM"},
	row: func(c contextInfo) []string {
		current := ""
		if c.Current {
			current = "yes"
		}
		return []string{c.Name, current, site{Socket: c.Socket, DataDir: c.DataDir, Remote: admin.Remote{URL: c.URL}}.String(), c.Where}
	},
	name: func(c contextInfo) string { return c.Name },
}

func infoOf(p site, current string) contextInfo {
	return contextInfo{p.Context, p.Context == current, p.Socket, p.DataDir, p.Remote.URL, p.Where}
}

func (a *app) contextCommands() *cobra.Command {
	c := group("context", "Name the servers that commands ask, and choose one",
		`A context is a server by name: its socket, its data directory, or its address. Contexts stand in a settings file:

  contexts:
    lab: {socket: /srv/lab/run/admin.sock}
    here: {data_dir: sidestream-data}
    far: {url: "https://stream.example:9600", token_file: token, ca_file: ca.pem}

Which one is asked is said by --context, by SIDESTREAM_CONTEXT or by "context: NAME" in a settings file, where 'context use' writes it.`)
	c.AddCommand(a.contextList(), a.contextShow(), a.contextUse())
	return c
}

func (a *app) contextList() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "list",
		Short: "List the contexts of the settings files",
		Long:  "List shows every context of ./sidestream.yaml and of the user's own file; of two with one name, the nearer's.",
		Example: `  sidestream context list
  sidestream context list -o name`,
		Args: noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		infos := []contextInfo{}
		for _, name := range slices.Sorted(maps.Keys(a.contexts)) {
			infos = append(infos, infoOf(a.contexts[name], text(cmd, "context")))
		}
		return show(a, cmd, contextView, infos)
	})
	take(c, "context")
	prints(c)
	return c
}

func (a *app) contextShow() *cobra.Command {
	c := a.command(cobra.Command{
		Use:     "show",
		Short:   "Say which server commands ask, and who says so",
		Long:    "Show says where commands look for the process: at the context, socket or data directory that was named nearest.",
		Example: `  sidestream context show`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		p, err := a.site(cmd)
		if err != nil {
			return err
		}
		info := infoOf(p, p.Context)
		if p.Context == "" {
			info.Where = "default"
			for _, name := range []string{"data-dir", "socket"} {
				if from := a.from[name]; from.rank == byFlag {
					info.Where = "--" + name
				} else if from.where != "" {
					info.Where = from.where
				}
			}
		}
		named := contextView
		named.name = func(contextInfo) string { return p.String() }
		return showOne(a, cmd, named, info)
	})
	take(c, "data-dir", "socket", "context")
	prints(c)
	return c
}

func (a *app) contextUse() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "use NAME",
		Short: "Ask this context from now on",
		Long: `Use writes "context: NAME" into the user's settings file (sidestream/sidestream.yaml in $XDG_CONFIG_HOME or ~/.config), and
leaves the rest of it as it is. SIDESTREAM_CONTEXT, and a ./sidestream.yaml that names another, still win.`,
		Example: `  sidestream context use lab`,
		Args:    one("a context", "context list"),
	}, func(cmd *cobra.Command, args []string) error {
		if _, ok := a.contexts[args[0]]; !ok {
			return withCode(exitFailed, fmt.Errorf("there is no context %q; %s", args[0], knownKeys(args[0], slices.Sorted(maps.Keys(a.contexts)))))
		}
		name, err := userFile()
		if err == nil {
			err = writeSetting(name, "context", args[0])
		}
		if err != nil {
			return withCode(exitConfig, fmt.Errorf("the user's settings file: %w", err))
		}
		if now := a.from["context"]; now.where != "" && text(cmd, "context") != args[0] && (now.rank == byEnv || filepath.Dir(now.where) == ".") {
			a.say("here %s is still asked, for %s says so", text(cmd, "context"), now.where)
		}
		return showOne(a, cmd, contextView, infoOf(a.contexts[args[0]], args[0]))
	})
	take(c, "context")
	prints(c)
	c.Flags().Lookup("context").Hidden = true // it is read to say what still wins
	c.ValidArgsFunction = a.completeWith(contextNames, 1)
	return c
}

// writeSetting puts a setting into a file, which keeps its other lines, its comments and its mode, and stays a link if it is one.
func writeSetting(name, key, value string) error {
	mode := fs.FileMode(0o600)
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
		if info, err := os.Stat(name); err == nil {
			mode = info.Mode().Perm()
		}
	}
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	root, err := settingsNode(name, b)
	if err != nil {
		return err
	}
	if root == nil {
		root = &yaml.Node{Kind: yaml.MappingNode}
	}
	at := slices.IndexFunc(root.Content, func(n *yaml.Node) bool { return n.Value == key })
	if at >= 0 && at%2 == 0 {
		root.Content[at+1].SetString(value)
	} else {
		var k, v yaml.Node
		k.SetString(key)
		v.SetString(value)
		root.Content = append([]*yaml.Node{&k, &v}, root.Content...)
	}
	out, err := yaml.Marshal(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	tmp := name + ".new"
	if err := os.WriteFile(tmp, out, mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
