package admin_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/runtime/admin"
)

const token = "0123456789abcdef0123456789abcdef"

// write writes a file with a mode, whatever the umask.
func write(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := errors.Join(os.WriteFile(name, []byte(content), mode), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
	return name
}

// serve serves what start has started on TCP too, and returns the address.
func serve(t *testing.T, s *admin.Server, c admin.TCP) string {
	t.Helper()
	l, err := c.Listen()
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(l)
	return l.Addr()
}

// ask sends one request as it is told and returns the answer's status and body.
func ask(t *testing.T, c *http.Client, method, url, body string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		} else {
			req.Header.Set(k, v)
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 400 && !strings.HasPrefix(string(b), "not ready") && !strings.HasPrefix(string(b), "[") {
		var p admin.Problem
		if err := json.Unmarshal(b, &p); err != nil || p.Status != resp.StatusCode || p.Detail == "" || p.Title == "" || p.Kind() == "" ||
			resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: no problem of RFC 9457: %v\n%s", method, url, err, b)
		}
		if resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" {
			t.Error("401 without WWW-Authenticate")
		}
	}
	return resp.StatusCode, string(b)
}

// TestWhoMayWhat: over TCP without a login nothing but what shows no records; with a token everything with it and nothing
// without, save the probes; never what a page in a browser sends.
func TestWhoMayWhat(t *testing.T) {
	rt, s, socket := start(t)
	eventually(t, "there are records", func() bool { return rt.Status().Jobs[1].Counters.In > 0 })
	open := serve(t, s, admin.TCP{Addr: "127.0.0.1:0"})
	login := serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token+"\n", 0o600)})
	type h = map[string]string
	right, wrong := h{"Authorization": "Bearer " + token}, h{"Authorization": "Bearer " + token[1:]}
	records := "/v1/records?topic=ticks&last=1"
	tests := []struct {
		name, method, where, path string
		header                    h
		status                    int
		holds                     string
	}{
		{"metrics", "GET", open, "/metrics", nil, 200, `sidestream_job_records_in_total{job_name="ticks"}`},
		{"metrics of localhost", "GET", open, "/metrics", h{"Host": "localhost"}, 200, "sidestream_log_fsyncs_total"},
		{"status", "GET", open, "/v1/status", nil, 200, `"name":"reads"`},
		{"topics", "GET", open, "/v1/topics", nil, 200, `"name":"high"`},
		{"a probe", "GET", open, "/livez", nil, 200, "ok"},
		{"records without a login", "GET", open, records, nil, 403, "--token-file"},
		{"a token where none is asked for", "GET", open, records, right, 403, "--token-file"},
		{"nothing there", "GET", open, "/", nil, 404, "openapi.json"},
		{"a path with two slashes", "GET", open, "/v1//status", nil, 404, "openapi.json"},
		{"a path that begins with two", "POST", open, "//v1/jobs", nil, 404, "openapi.json"},
		{"a path with dots", "GET", open, "/v1/jobs/../status", nil, 404, "openapi.json"},
		{"a path that ends with a slash", "GET", open, "/v1/status/", nil, 404, "openapi.json"},
		{"nothing there for this method", "POST", open, "/v1/status", nil, 405, "takes GET"},
		{"deleting", "DELETE", open, "/v1/topics", nil, 405, "takes GET"},

		{"the name of another", "GET", open, "/v1/status", h{"Host": "evil.example"}, 403, "evil.example"},
		{"the name of another, with a port", "GET", open, "/metrics", h{"Host": "evil.example:9600"}, 403, "evil.example"},
		{"the name of another that looks like ours", "GET", open, "/metrics", h{"Host": "127.0.0.1.evil.example"}, 403, "not served"},
		{"another address", "GET", open, "/metrics", h{"Host": "192.0.2.1"}, 403, "not served"},
		{"the name of another, with the token", "GET", login, "/v1/status", h{"Host": "evil.example", "Authorization": right["Authorization"]}, 403, "evil.example"},
		{"a page of another site", "GET", open, "/v1/status", h{"Origin": "http://evil.example"}, 403, "Origin"},
		{"a page in a frame", "GET", open, "/v1/status", h{"Origin": "null"}, 403, "Origin"},
		{"a page of another port", "GET", open, "/v1/status", h{"Origin": "http://127.0.0.1:1"}, 403, "Origin"},
		{"a page of ours", "GET", open, "/v1/status", h{"Origin": "http://" + open}, 200, "ticks"},
		{"a picture in a page of another site", "GET", open, "/v1/status", h{"Sec-Fetch-Site": "cross-site"}, 403, "Sec-Fetch-Site"},
		{"a page of another site over the socket", "GET", "localhost", "/v1/status", h{"Origin": "http://evil.example"}, 403, "Origin"},
		{"the socket", "GET", "localhost", records, nil, 200, `"topic":"ticks"`},
		{"the socket by any name", "GET", "sidestream", "/v1/status", nil, 200, "ticks"},

		{"no token", "GET", login, "/v1/status", nil, 401, "Authorization: Bearer"},
		{"no token, nothing there", "GET", login, "/v2", nil, 401, "Authorization: Bearer"},
		{"a wrong token", "GET", login, "/v1/status", wrong, 401, "not the right one"},
		{"an empty token", "GET", login, "/v1/status", h{"Authorization": "Bearer "}, 401, "not the right one"},
		{"another scheme", "GET", login, "/v1/status", h{"Authorization": "Basic " + token}, 401, "not the right one"},
		{"the token", "GET", login, "/v1/status", right, 200, "ticks"},
		{"the token, for records", "GET", login, records, right, 200, `"topic":"ticks"`},
		{"a probe without the token", "GET", login, "/livez?verbose", nil, 200, "ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := http.DefaultClient
			if !strings.Contains(tt.where, ":") {
				c = overSocket(socket)
			}
			status, body := ask(t, c, tt.method, "http://"+tt.where+tt.path, "", tt.header)
			if status != tt.status || !strings.Contains(body, tt.holds) {
				t.Errorf("status %d, want %d; body wants %q:\n%.2000s", status, tt.status, tt.holds, body)
			}
		})
	}
	t.Run("the client", func(t *testing.T) {
		c, err := admin.NewRemote(admin.Remote{URL: "http://" + login, TokenFile: write(t, "token", token, 0o400)})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := c.Status(t.Context()); err != nil || len(st.Jobs) != 2 {
			t.Errorf("with the token: %v, %v", st.Jobs, err)
		}
		if c, err = admin.NewRemote(admin.Remote{URL: "http://" + login}); err != nil {
			t.Fatal(err)
		}
		var p *admin.Problem
		if _, err := c.Status(t.Context()); !errors.As(err, &p) || p.Kind() != admin.KindUnauthorized {
			t.Errorf("without: %v", err)
		}
		if _, err := admin.NewRemote(admin.Remote{URL: "http://192.0.2.1:1", TokenFile: write(t, "token", token, 0o400)}); err == nil {
			t.Error("a token is sent in the clear")
		}
	})
}

// TestListenRefuses: what would let others in does not start, and says what to do.
func TestListenRefuses(t *testing.T) {
	cert, key := certificate(t)
	tok := write(t, "token", token, 0o600)
	pem, err := os.ReadFile(key)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(err, syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	open := write(t, "open.pem", string(pem), 0o604)
	tests := []struct {
		name string
		c    admin.TCP
		says string
	}{
		{"every address", admin.TCP{Addr: "0.0.0.0:0"}, "it needs TLS (--tls-cert and --tls-key) and a login"},
		{"no address", admin.TCP{Addr: ":0"}, "it needs TLS"},
		{"a name", admin.TCP{Addr: "example.com:80"}, "it needs TLS"},
		{"a port", admin.TCP{Addr: "9600"}, "want a host and a port"},
		{"a token without TLS", admin.TCP{Addr: "0.0.0.0:0", TokenFile: tok}, "it needs TLS"},
		{"TLS without a login", admin.TCP{Addr: "0.0.0.0:0", CertFile: cert, KeyFile: key}, "and a login"},
		{"half of TLS", admin.TCP{Addr: "127.0.0.1:0", CertFile: cert}, "both --tls-cert and --tls-key"},
		{"mTLS without TLS", admin.TCP{Addr: "127.0.0.1:0", ClientCAFile: cert}, "both --tls-cert and --tls-key"},
		{"no certificate", admin.TCP{Addr: "127.0.0.1:0", CertFile: tok, KeyFile: key}, "--tls-cert"},
		{"no authority", admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: tok}, "no PEM certificate"},
		{"no token", admin.TCP{Addr: "127.0.0.1:0", TokenFile: tok + "x"}, "no such file"},
		{"a token for all to read", admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o640)}, "chmod 600"},
		{"a short token", admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", "secret", 0o600)}, "16 characters"},
		{"an empty token", admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", "", 0o600)}, "16 characters"},
		{"a folder of tokens", admin.TCP{Addr: "127.0.0.1:0", TokenFile: t.TempDir()}, "it is no regular file"},
		{"a pipe that nobody writes to", admin.TCP{Addr: "127.0.0.1:0", TokenFile: pipe}, "--token-file " + pipe + ": it is no regular file"},
		{"a certificate from a pipe", admin.TCP{Addr: "127.0.0.1:0", CertFile: pipe, KeyFile: key}, pipe + ": it is no regular file"},
		{"a key from a pipe", admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: pipe}, pipe + ": it is no regular file"},
		{"an authority from a pipe", admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: pipe}, "--tls-client-ca: " + pipe + ": it is no regular file"},
		{"a key for all to read", admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: open}, "chmod 600"},
		{"two tokens", admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token+"\n"+token, 0o600)}, "one line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := tt.c.Listen()
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
	for name, r := range map[string]admin.Remote{"a token": {TokenFile: pipe}, "an authority": {CAFile: pipe}, "a certificate": {CertFile: pipe, KeyFile: key},
		"a key": {CertFile: cert, KeyFile: pipe}} {
		r.URL = "https://localhost"
		if _, err := admin.NewRemote(r); err == nil || !strings.Contains(err.Error(), pipe+": it is no regular file") {
			t.Errorf("%s of a client from a pipe: %v", name, err)
		}
	}
}

// certificate makes one for this machine that signs itself, and returns its files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"ours.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o600),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})), 0o600)
}

// TestTLS: with a client's certificate, or the token, and by the certificate's names; nobody else.
func TestTLS(t *testing.T) {
	_, s, _ := start(t)
	cert, key := certificate(t)
	tok := write(t, "token", token, 0o600)
	mutual := serve(t, s, admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: cert})
	secret := serve(t, s, admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, TokenFile: tok})
	tests := []struct {
		name string
		r    admin.Remote
		ok   bool
	}{
		{"a certificate", admin.Remote{URL: "https://" + mutual, CAFile: cert, CertFile: cert, KeyFile: key}, true},
		{"no certificate", admin.Remote{URL: "https://" + mutual, CAFile: cert}, false},
		{"a token instead of a certificate", admin.Remote{URL: "https://" + mutual, CAFile: cert, TokenFile: tok}, false},
		{"an unknown server", admin.Remote{URL: "https://" + mutual, CertFile: cert, KeyFile: key}, false},
		{"the token", admin.Remote{URL: "https://" + secret, CAFile: cert, TokenFile: tok}, true},
		{"no token", admin.Remote{URL: "https://" + secret, CAFile: cert}, false},
		{"no TLS", admin.Remote{URL: "http://" + secret, TokenFile: tok}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := admin.NewRemote(tt.r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Topics(t.Context()); (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
		})
	}
	other, otherKey := certificate(t)
	c, err := admin.NewRemote(admin.Remote{URL: "https://" + mutual, CAFile: cert, CertFile: other, KeyFile: otherKey})
	if err != nil {
		t.Fatal(err)
	}
	var p *admin.Problem
	if _, err := c.Topics(t.Context()); !errors.As(err, &p) || p.Kind() != admin.KindUnauthorized {
		t.Errorf("a certificate of another authority: %v; want a Problem that says it is not let in", err)
	}
	if c, err = admin.NewRemote(admin.Remote{URL: "https://" + mutual, CAFile: cert}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Topics(t.Context()); !errors.As(err, &p) || p.Kind() != admin.KindUnauthorized || !strings.Contains(p.Detail, "certificate") {
		t.Errorf("no certificate: %v; want a Problem that says one is wanted", err)
	}
	var away *admin.UnreachableError
	if c, err = admin.NewRemote(admin.Remote{URL: "https://" + mutual, CertFile: cert, KeyFile: key}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Topics(t.Context()); !errors.As(err, &away) || !strings.Contains(err.Error(), "ca_file") {
		t.Errorf("a server that the client does not trust: %v", err)
	}
	https := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	header := map[string]string{"Authorization": "Bearer " + token, "Host": "ours.example"}
	if status, body := ask(t, https, "GET", "https://"+secret+"/v1/status", "", header); status != 200 {
		t.Errorf("by the certificate's name: %d %s", status, body)
	}
	header["Host"] = "other.example"
	if status, body := ask(t, https, "GET", "https://"+secret+"/v1/status", "", header); status != 403 {
		t.Errorf("by another name: %d %s", status, body)
	}
}

// TestReload: a certificate and a token that are replaced count from then on, for connections that begin then; what is wrong is
// not taken.
func TestReload(t *testing.T) {
	_, s, _ := start(t)
	cert, key := certificate(t)
	tok := write(t, "token", token, 0o600)
	l, err := admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, TokenFile: tok}.Listen()
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(l)
	asks := func(ca, token string) error {
		c, err := admin.NewRemote(admin.Remote{URL: l.URL(), CAFile: ca, TokenFile: token})
		if err == nil {
			_, err = c.Topics(t.Context())
		}
		return err
	}
	replace := func(name, by string) {
		t.Helper()
		b, err := os.ReadFile(by)
		if err == nil {
			err = os.WriteFile(name, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	oldCert := write(t, "old.pem", "", 0o600)
	replace(oldCert, cert)
	otherCert, otherKey := certificate(t)
	otherToken := write(t, "other", "another-"+token, 0o600)
	if err := errors.Join(asks(oldCert, tok), l.Reload(), asks(oldCert, tok)); err != nil {
		t.Fatal(err)
	}
	replace(cert, otherCert)
	if err := l.Reload(); err == nil {
		t.Error("a certificate is taken whose key is of another")
	}
	replace(key, otherKey)
	replace(tok, otherToken)
	if err := asks(oldCert, otherToken); err == nil {
		t.Error("the files are taken before they are asked for")
	}
	if err := errors.Join(l.Reload(), asks(otherCert, otherToken)); err != nil {
		t.Error(err)
	}
	if asks(oldCert, otherToken) == nil || asks(otherCert, write(t, "was", token, 0o600)) == nil {
		t.Error("what was before is still let in")
	}
}

// TestBounds: bodies, their depth, headers, rates, streams and connections end at their limits; a client that is slow to ask
// is cut, and others are served meanwhile.
func TestBounds(t *testing.T) {
	rt, _, _ := start(t)
	bounded := func(t *testing.T, l admin.Limits) (*admin.Server, string) {
		s := server(t, l)
		s.Attach(rt)
		s.Started()
		return s, "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	}
	login := map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json"}
	t.Run("body", func(t *testing.T) {
		_, at := bounded(t, admin.Limits{BodyBytes: 100, Depth: 5, HeaderBytes: 8 << 10})
		for _, tt := range []struct {
			name, body, media string
			status            int
		}{
			{"as large as may be", `{"a":"` + strings.Repeat("x", 92) + `"}`, "application/json", 422},
			{"larger", `{"a":"` + strings.Repeat("x", 93) + `"}`, "application/json", 413},
			{"as deep as may be", "[[[[[]]]]]", "application/json", 422},
			{"deeper", "[[[[[{}]]]]]", "application/json", 400},
			{"brackets in a string", `"[[[[[[[[\"[["`, "application/json", 422},
			{"of a form", "a=b", "application/x-www-form-urlencoded", 415},
			{"of a page", "{}", "text/plain", 415},
		} {
			if status, body := ask(t, http.DefaultClient, "POST", at+"/v1/topics/ticks/purge", tt.body, map[string]string{"Authorization": login["Authorization"], "Content-Type": tt.media}); status != tt.status {
				t.Errorf("%s: %d, want %d: %.300s", tt.name, status, tt.status, body)
			}
		}
		req, err := http.NewRequest("GET", at+"/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X", strings.Repeat("x", 64<<10))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a large header: %s", resp.Status)
		}
	})
	t.Run("rate", func(t *testing.T) {
		_, at := bounded(t, admin.Limits{Open: admin.Rate{PerSecond: 1e-9, Burst: 3}, Login: admin.Rate{PerSecond: 1e-9, Burst: 5}})
		count := func(header map[string]string, want int) (n int) {
			for range 8 {
				if status, _ := ask(t, http.DefaultClient, "GET", at+"/v1/topics", "", header); status == want {
					n++
				} else if status != http.StatusTooManyRequests {
					t.Errorf("status %d", status)
				}
			}
			return n
		}
		if n := count(map[string]string{"Authorization": "Bearer guess"}, http.StatusUnauthorized); n != 3 {
			t.Errorf("%d guesses of the token, want 3", n)
		}
		if n := count(login, http.StatusOK); n != 5 {
			t.Errorf("%d requests with the token, want 5: guessing must not take their place", n)
		}
	})
	t.Run("streams", func(t *testing.T) {
		_, at := bounded(t, admin.Limits{Streams: 1})
		req, err := http.NewRequestWithContext(t.Context(), "GET", at+"/v1/records?topic=ticks&follow=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", login["Authorization"])
		first, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Body.Close()
		if status, body := ask(t, http.DefaultClient, "GET", at+"/v1/records?topic=ticks", "", login); status != http.StatusServiceUnavailable {
			t.Errorf("a second stream: %d %.300s", status, body)
		}
		first.Body.Close()
		eventually(t, "the place is free again", func() bool {
			status, _ := ask(t, http.DefaultClient, "GET", at+"/v1/records?topic=ticks", "", login)
			return status == http.StatusOK
		})
	})
	t.Run("slow", func(t *testing.T) {
		_, at := bounded(t, admin.Limits{Connections: 2, HeaderTimeout: 300 * time.Millisecond, ReadTimeout: 600 * time.Millisecond})
		for _, begin := range []string{"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n", // without end
			"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 9\r\n\r\n{"} {
			c, err := net.Dial("tcp", strings.TrimPrefix(at, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte(begin)); err != nil {
				t.Fatal(err)
			}
			defer func() { // nobody is waited for without end
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if b, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(b, []byte("200 OK")) {
					t.Errorf("a slow client got %q, %v; want to be cut", b, err)
				}
			}()
		}
		// Both places are taken by them, until they are cut.
		eventually(t, "there is a place again", func() bool {
			status, _ := ask(t, http.DefaultClient, "GET", at+"/v1/topics", "", login)
			return status == http.StatusOK
		})
	})
	t.Run("no limit below zero", func(t *testing.T) {
		if _, err := admin.New(admin.Config{Limits: admin.Limits{Depth: -1}}); err == nil {
			t.Error("it is taken")
		}
	})
}

// TestSlowReader: a client that takes nothing of a stream is cut when a piece's time is over.
func TestSlowReader(t *testing.T) {
	rt, _, _ := startOf(t, strings.Replace(twoJobs, "rate: 200", "rate: 50000", 1)) // more than the kernel keeps for it
	s := server(t, admin.Limits{WriteTimeout: 300 * time.Millisecond, Streams: 1})
	s.Attach(rt)
	at := serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(1 << 10)
	if _, err := c.Write([]byte("GET /v1/records?topic=ticks&from=0&follow=true HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	// It is served: before that, whoever asks whether the only place is taken could take it.
	status := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(c, status); err != nil || string(status) != "HTTP/1.1 200" {
		t.Fatalf("%q, %v", status, err)
	}
	again, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+at+"/v1/records?topic=ticks&last=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Header.Set("Authorization", "Bearer "+token)
	eventually(t, "it is cut: its place is free", func() bool {
		resp, err := http.DefaultClient.Do(again)
		if err != nil { // a busy machine may have cut this one too
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// TestProbes: alive from the beginning, ready when the log is replayed and every job runs; who has no login where there is one
// learns no more.
func TestProbes(t *testing.T) {
	rt, ready, _ := start(t)
	s := server(t, admin.Limits{})
	at := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0"})
	want := func(path string, status int, holds string) {
		t.Helper()
		if got, body := ask(t, http.DefaultClient, "GET", at+path, "", nil); got != status || !strings.Contains(body, holds) {
			t.Errorf("%s: %d, want %d; body wants %q:\n%s", path, got, status, holds, body)
		}
	}
	want("/livez", 200, "ok")
	want("/readyz?verbose", 503, "[-] log: it is being read")
	want("/readyz", 503, "not ready")
	want("/v1/status", 503, "starting")
	want("/metrics", 200, "sidestream_")
	s.Attach(rt)
	want("/readyz?verbose", 503, "[-] log: it is being replayed")
	want("/v1/status", 200, "ticks")
	s.Started()
	eventually(t, "the jobs run", func() bool {
		status, _ := ask(t, http.DefaultClient, "GET", at+"/readyz", "", nil)
		return status == 200
	})
	want("/readyz?verbose", 200, "[+] log\n[+] job ticks\n[+] job reads\nok\n")
	want("/readyz", 200, "ok")
	at = "http://" + serve(t, ready, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	if status, body := ask(t, http.DefaultClient, "GET", at+"/readyz?verbose", "", nil); status != 200 || strings.Contains(body, "job") {
		t.Errorf("without the token: %d %s", status, body)
	}
}

// TestWordsOfBounds: what does not fit is told in our words, with the name that who asks knows.
func TestWordsOfBounds(t *testing.T) {
	_, _, socket := start(t)
	for _, tt := range []struct{ method, path, body, says string }{
		{"GET", "/v1/jobs/ticks/logs?last=99999999", "", "last: it is at most 1000"},
		{"GET", "/v1/records?topic=ticks&last=99999999", "", "last: it is at most 1000000"},
		{"GET", "/v1/records?topic=ticks&last=many", "", "last: it is no whole number"},
		{"POST", "/v1/jobs/ticks/savepoints?savepoint=" + strings.Repeat("x", 129), "", "savepoint: it has at most 128 characters"},
		{"POST", "/v1/topics/ticks/purge", `{"before":7}`, "before: it is no text"},
		{"POST", "/v1/topics/ticks/purge", `{"before":""}`, "before: it has at least 1 characters"},
		{"POST", "/v1/topics/ticks/purge", `{}`, "body: before is missing"},
		{"POST", "/v1/topics/ticks/purge", `{"before":"earliest","befor":1}`, "befor: there is no such field"},
	} {
		header := map[string]string{}
		if tt.body != "" {
			header["Content-Type"] = "application/json"
		}
		status, body := ask(t, overSocket(socket), tt.method, "http://localhost"+tt.path, tt.body, header)
		var p admin.Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || status != http.StatusUnprocessableEntity || p.Detail != tt.says {
			t.Errorf("%s %s: %d %q, want 422 %q", tt.method, tt.path, status, p.Detail, tt.says)
		}
	}
}
