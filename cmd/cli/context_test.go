package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/port"
)

// TestContextOverTCP: a server by its address and a token; what is wrong with them is said with the file's line.
func TestContextOverTCP(t *testing.T) {
	addr, dir := port.Addr(t), t.TempDir()
	for name, text := range map[string]string{"token": strings.Repeat("secret", 6), "wrong": strings.Repeat("public", 6)} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serving(t, "--listen", addr, "--token-file", dir+"/token")
	tests := []struct {
		name, context string
		code          int
		out, said     string
	}{
		{"with its token", `{url: "http://` + addr + `", token_file: ` + dir + `/token}`, 0, "ticks\n", ""},
		{"a token of another", `{url: "http://` + addr + `", token_file: ` + dir + `/wrong}`, 78, "", "the token is not the right one"},
		{"a token that is not there", `{url: "http://` + addr + `", token_file: none}`, 78, "", "sidestream.yaml:1: context far: "},
		{"in the clear", `{url: "http://stream.example:9600", token_file: ` + dir + `/token}`, 78, "", "use https"},
		{"no address", `{url: stream.example}`, 78, "", `sidestream.yaml:1: context far: admin: "stream.example" is no server's address`},
		{"nobody there", `{url: "http://127.0.0.1:1"}`, 69, "", "no process answers at http://127.0.0.1:1"},
		{"a token for a socket", `{socket: s, token_file: ` + dir + `/token}`, 78, "", "go with url"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile("sidestream.yaml", []byte("contexts: {far: "+tt.context+"}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.Remove("sidestream.yaml")
			var out, said bytes.Buffer
			code := (&app{name: "sidestream", stdout: &out, stderr: &said}).main([]string{"bus", "list", "--context", "far", "-o", "name"})
			if code != tt.code || out.String() != tt.out || !strings.Contains(said.String(), tt.said) {
				t.Errorf("exit code %d, want %d; it prints %q and says %q, want %q and %q", code, tt.code, out.String(), said.String(), tt.out, tt.said)
			}
		})
	}
}
