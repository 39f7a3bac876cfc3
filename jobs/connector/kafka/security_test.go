package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sidestream-dev/sidestream/internal/port"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// TestSecurity: logging in over TLS works, and a wrong password is an answer, not something to wait for.
func TestSecurity(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate of 127.0.0.1
	defer web.Close()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "in"), kfake.EnableSASL(),
		kfake.TLS(&tls.Config{Certificates: web.TLS.Certificates}),
		kfake.Superuser("PLAIN", "u", "secret"), kfake.Superuser("SCRAM-SHA-256", "u", "secret"), kfake.Superuser("SCRAM-SHA-512", "u", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dir := t.TempDir()
	ca, password, wrong := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "password"), filepath.Join(dir, "wrong")
	for name, content := range map[string]string{
		ca:       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})),
		password: "secret\n",
		wrong:    "guess",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, sasl := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		s := Source{Brokers: c.ListenAddrs(), Topics: []string{"in"},
			Security: Security{TLS: true, CAFile: ca, SASL: sasl, Username: "u", Password: connector.SecretFile(password)}}
		if st := splits(t, s); len(st) != 2 {
			t.Errorf("%s: %d splits", sasl, len(st))
		}
		s.Security.Password = connector.SecretFile(wrong)
		if _, err := s.Splits(t.Context(), sourceEnv(nil)); !errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.Errorf("%s, wrong password: got %v", sasl, err)
		}
		if strings.Contains(s.String(), wrong) {
			t.Errorf("%q tells where the password is", s)
		}
		s.Security = Security{TLS: true, CAFile: password, SASL: sasl, Username: "u", Password: connector.SecretFile(password)}
		if _, err := s.Splits(t.Context(), sourceEnv(nil)); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
			t.Errorf("got %v, want a complaint about the certificate", err)
		}
	}
}

// TestClientCertificate: brokers that want to know who comes are told, and not by another's certificate.
func TestClientCertificate(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate, which serves on both sides
	defer web.Close()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "in"), kfake.TLS(&tls.Config{
		Certificates: web.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	der, err := x509.MarshalPKCS8PrivateKey(web.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: web.Certificate().Raw}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := Source{Brokers: c.ListenAddrs(), Topics: []string{"in"}, Security: Security{TLS: true, CAFile: cert, CertFile: cert, Key: connector.SecretFile(key)}}
	if st := splits(t, s); len(st) != 2 {
		t.Errorf("%d splits", len(st))
	}
	s.Security.Key = connector.SecretFile(cert)
	if _, err := s.Splits(t.Context(), sourceEnv(nil)); err == nil || !strings.Contains(err.Error(), "and its key") {
		t.Errorf("a key that is none: got %v", err)
	}
}

// TestLoginRefusedMidway: a password that is changed under way ends a reader and fails a Write, each with the reason; the
// next Write goes on with the new password.
func TestLoginRefusedMidway(t *testing.T) {
	port := port.Free(t)
	serve := func(password string) *kfake.Cluster {
		c, err := kfake.NewCluster(kfake.Ports(port), kfake.SeedTopics(1, "in"), kfake.EnableSASL(),
			kfake.Superuser("PLAIN", "u", password))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := serve("first")
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	sec := Security{SASL: "plain", Username: "u", Password: connector.SecretFile(file)}
	sink, err := Sink{Brokers: c.ListenAddrs(), Topic: "in", Security: sec}.Open(t.Context(), sinkEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	if _, err := sink.Write(t.Context(), []jobs.Message{{Value: []byte("a")}}); err != nil {
		t.Fatal(err)
	}
	s := Source{Brokers: c.ListenAddrs(), Topics: []string{"in"}, Security: sec, FetchWait: 50 * time.Millisecond}
	st := splits(t, s)
	r, err := s.Open(t.Context(), sourceEnv(nil), st)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := readMore(r, st, 1); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c = serve("second")
	defer func() { c.Close() }()
	if _, err := readMore(r, st, 1); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("reader: got %v", err)
	}
	if _, err := sink.Write(t.Context(), []jobs.Message{{Value: []byte("b")}}); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("writer: got %v", err)
	}
	write("second")
	if _, err := sink.Write(t.Context(), []jobs.Message{{Value: []byte("b")}}); err != nil {
		t.Errorf("writer, with the new password: %v", err)
	}
	if got := readN(t, s, splits(t, s), 1); got[0] != "0@0=b" { // the second broker began with nothing
		t.Errorf("got %q", got)
	}
}

// TestLoginClosings: only a broker that hangs up again and again in the midst of the login is taken to refuse it; one
// that goes down and comes up is not.
func TestLoginClosings(t *testing.T) {
	hangUp := func(l *login) {
		l.OnBrokerE2E(kgo.BrokerMetadata{}, kmsg.SASLAuthenticate.Int16(), kgo.BrokerE2E{ReadErr: io.EOF})
	}
	down := func(l *login) { l.OnBrokerConnect(kgo.BrokerMetadata{}, 0, nil, errors.New("refused")) }
	in := func(l *login) { l.OnBrokerConnect(kgo.BrokerMetadata{}, 0, &net.TCPConn{}, nil) }
	other := func(l *login) { l.OnBrokerE2E(kgo.BrokerMetadata{}, 3, kgo.BrokerE2E{ReadErr: io.EOF}) }
	no := func(l *login) {
		l.OnBrokerConnect(kgo.BrokerMetadata{}, 0, &net.TCPConn{}, fmt.Errorf("x: %w", kerr.SaslAuthenticationFailed))
	}
	tests := []struct {
		name    string
		met     []func(*login)
		refused bool
	}{
		{"an answer", []func(*login){no}, true},
		{"hung up three times", []func(*login){hangUp, hangUp, hangUp}, true},
		{"hung up twice", []func(*login){hangUp, hangUp}, false},
		{"down between", []func(*login){hangUp, hangUp, down, hangUp, hangUp}, false},
		{"let in between", []func(*login){hangUp, hangUp, in, hangUp, hangUp}, false},
		{"hung up elsewhere", []func(*login){other, other, other, other}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &login{}
			ctx, release := l.guard(t.Context())
			defer release()
			for _, f := range tt.met {
				f(l)
			}
			if refused := errors.Is(l.err(), kerr.SaslAuthenticationFailed); refused != tt.refused || (ctx.Err() != nil) != tt.refused {
				t.Errorf("got %v, context %v", l.err(), context.Cause(ctx))
			}
		})
	}
}
