package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// Security is how a cluster is spoken to; the zero value is plain text without a login. Secrets and files are read anew for
// each connection's client, so that they may be replaced under way.
type Security struct {
	TLS      bool
	CAFile   string      // PEM; "" means the system's certificates
	CertFile string      // PEM; who this client is, to brokers that ask for it
	Key      jobs.Secret // PEM; of CertFile
	SASL     string      // "", "plain", "scram-sha-256" or "scram-sha-512"
	Username string
	Password jobs.Secret
}

func securityFields() []connector.Field {
	return []connector.Field{
		{Name: "tls", Kind: connector.Bool, Inherit: true, Default: "false", Doc: "Speak TLS to the brokers."},
		{Name: "ca_file", Kind: connector.String, Inherit: true, Doc: "PEM file with the certificates to trust instead of the system's."},
		{Name: "cert_file", Kind: connector.String, Inherit: true, Doc: "PEM file with the certificate that says who this client is."},
		{Name: "key", Kind: connector.Secret, Inherit: true, Doc: "The private key of cert_file, PEM; a reference such as ${file:client.key}."},
		{Name: "sasl", Kind: connector.Enum, Inherit: true, Enum: []string{"plain", "scram-sha-256", "scram-sha-512"}, Doc: "How to log in."},
		{Name: "username", Kind: connector.String, Inherit: true, Doc: "Who logs in."},
		{Name: "password", Kind: connector.Secret, Inherit: true, Doc: "The password; a reference such as ${file:PATH} or ${env:KAFKA_PASSWORD}."},
	}
}

// security makes a Security of settings; an error names the setting at fault.
func security(v connector.Values, env connector.LoadEnv) (Security, error) {
	s := Security{
		TLS:      v.Bool("tls"),
		CAFile:   env.Path(v.String("ca_file")),
		CertFile: env.Path(v.String("cert_file")),
		Key:      v.Secret("key"),
		SASL:     v.String("sasl"),
		Username: v.String("username"),
		Password: v.Secret("password"),
	}
	field, err := s.wrong()
	if err != nil {
		return s, &connector.FieldError{Field: field, Msg: err.Error()}
	}
	return s, nil
}

func (s Security) check() error {
	_, err := s.wrong()
	return err
}

// wrong names the first setting that does not go with the others.
func (s Security) wrong() (field string, err error) {
	switch s.SASL {
	case "", "plain", "scram-sha-256", "scram-sha-512":
	default:
		return "sasl", fmt.Errorf("kafka: sasl %q is not one of plain, scram-sha-256, scram-sha-512", s.SASL)
	}
	switch {
	case s.SASL != "" && (s.Username == "" || s.Password.IsZero()):
		return "sasl", fmt.Errorf("kafka: sasl %s needs a username and a password", s.SASL)
	case s.SASL == "" && s.Username != "":
		return "username", errors.New("kafka: a username without sasl")
	case s.SASL == "" && !s.Password.IsZero():
		return "password", errors.New("kafka: a password without sasl")
	case s.CAFile != "" && !s.TLS:
		return "ca_file", errors.New("kafka: a ca_file without tls")
	case s.CertFile != "" && !s.TLS:
		return "cert_file", errors.New("kafka: a cert_file without tls")
	case s.CertFile != "" && s.Key.IsZero():
		return "cert_file", errors.New("kafka: a cert_file without its key")
	case s.CertFile == "" && !s.Key.IsZero():
		return "key", errors.New("kafka: a key without its cert_file")
	}
	return "", nil
}

func (s Security) options() ([]kgo.Opt, error) {
	var opts []kgo.Opt
	if s.TLS {
		cfg, err := s.tls()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(cfg))
	}
	if s.SASL == "" {
		return opts, nil
	}
	pass, err := s.Password.Reveal()
	if err != nil {
		return nil, fmt.Errorf("kafka: password: %w", err)
	}
	var m sasl.Mechanism
	switch s.SASL {
	case "plain":
		m = plain.Auth{User: s.Username, Pass: pass}.AsMechanism()
	case "scram-sha-256":
		m = scram.Auth{User: s.Username, Pass: pass}.AsSha256Mechanism()
	default:
		m = scram.Auth{User: s.Username, Pass: pass}.AsSha512Mechanism()
	}
	return append(opts, kgo.SASL(m)), nil
}

func (s Security) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kafka: ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka: ca_file %s holds no certificate", s.CAFile)
		}
	}
	if s.CertFile == "" {
		return cfg, nil
	}
	cert, err := os.ReadFile(s.CertFile)
	if err != nil {
		return nil, fmt.Errorf("kafka: cert_file: %w", err)
	}
	key, err := s.Key.Reveal()
	if err != nil {
		return nil, fmt.Errorf("kafka: key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, []byte(key))
	if err != nil {
		return nil, fmt.Errorf("kafka: cert_file %s and its key: %w", s.CertFile, err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}
