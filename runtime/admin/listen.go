package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sidestream-dev/sidestream/jobs/spec"
)

const (
	socketPathMax  = 107 // what the kernel takes
	dialTimeoutMax = time.Second
	tokenBytesMin  = 16
	tokenBytesMax  = 4096
)

// TCP says where to listen, and who may ask there. Without a login (a token, or certificates of clients) the address must be
// a loopback one, and is read-only: neither records nor definitions are shown, nothing is changed. An address that other
// machines can reach needs TLS and a login.
type TCP struct {
	Addr         string
	TokenFile    string // one line that clients send as a bearer token; its file must be its owner's alone
	CertFile     string // TLS: the server's certificate chain, in PEM
	KeyFile      string
	ClientCAFile string // mTLS: who asks must have a certificate of one of these
}

// Listener is an address that is taken, and who may ask there. A Server serves it.
type Listener struct {
	listener net.Listener
	said     TCP
	mutual   bool // clients have shown a certificate
	local    bool
	held     atomic.Pointer[credentials] // what the files hold; nil of a socket
}

// credentials are what the files of a TCP hold.
type credentials struct {
	token *[sha256.Size]byte // nil needs none
	tls   *tls.Config        // nil speaks none
	names *x509.Certificate  // that clients may call the server by; nil has none but loopback's
}

// credentials reads the files.
func (c TCP) credentials() (h *credentials, err error) {
	h = &credentials{}
	if c.TokenFile != "" {
		if h.token, err = readToken(c.TokenFile); err != nil {
			return nil, err
		}
	}
	if h.tls, err = c.tls(); err == nil && h.tls != nil {
		h.names = h.tls.Certificates[0].Leaf
	}
	return h, err
}

// Reload reads the files of tokens and certificates again, for requests and connections that begin from then on. Where one of
// them is wrong, what was read before stays.
func (l *Listener) Reload() error {
	h, err := l.said.credentials()
	if err == nil {
		l.held.Store(h)
	}
	return err
}

// now is what the files held when they were last read.
func (l *Listener) now() *credentials {
	if h := l.held.Load(); h != nil {
		return h
	}
	return &credentials{}
}

// Addr returns the address, whose port may have been 0.
func (l *Listener) Addr() string { return l.listener.Addr().String() }

// Close gives up the address.
func (l *Listener) Close() error { return l.listener.Close() }

// URL returns where it is to be asked.
func (l *Listener) URL() string {
	if l.now().tls != nil {
		return "https://" + l.Addr()
	}
	return "http://" + l.Addr()
}

// Listen checks what c says and takes the address, before there is anything to serve: what is wrong is found out first.
func (c TCP) Listen() (*Listener, error) {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return nil, fmt.Errorf("admin: address %q: want a host and a port, such as 127.0.0.1:9600", c.Addr)
	}
	l := &Listener{said: c, local: loopback(host), mutual: c.ClientCAFile != ""}
	if err := l.Reload(); err != nil {
		return nil, err
	}
	h := l.now()
	if !l.local && (h.tls == nil || h.token == nil && !l.mutual) {
		return nil, fmt.Errorf("admin: address %q can be reached from other machines: it needs TLS (--tls-cert and --tls-key) and a login (--token-file, or --tls-client-ca for certificates of clients); or listen on 127.0.0.1", c.Addr)
	}
	if l.listener, err = net.Listen("tcp", c.Addr); err != nil {
		return nil, fmt.Errorf("admin: address %q cannot be had: %w; choose another", c.Addr, err)
	}
	if h.tls != nil {
		newest := func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.now().tls, nil }
		l.listener = tls.NewListener(l.listener, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: newest})
	}
	return l, nil
}

// tls returns what to speak TLS with; nil is not to.
func (c TCP) tls() (*tls.Config, error) {
	switch {
	case c.CertFile == "" && c.KeyFile == "" && c.ClientCAFile == "":
		return nil, nil
	case c.CertFile == "" || c.KeyFile == "":
		return nil, errors.New("admin: TLS needs both --tls-cert and --tls-key")
	}
	if info, err := os.Stat(c.KeyFile); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("admin: --tls-key %s: everybody may use it (mode %04o); chmod 600 %s", c.KeyFile, info.Mode().Perm(), c.KeyFile)
	}
	cert, err := keyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("admin: --tls-cert and --tls-key: %w", err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	if c.ClientCAFile != "" {
		if conf.ClientCAs, err = certificates(c.ClientCAFile); err != nil {
			return nil, fmt.Errorf("admin: --tls-client-ca: %w", err)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// notPipe is the error of a file that is a pipe: one that nobody writes to would be waited for without end.
func notPipe(file string) error {
	if spec.NamedPipe(file) {
		return fmt.Errorf("%s: it is no regular file", file)
	}
	return nil
}

func keyPair(certFile, keyFile string) (cert tls.Certificate, err error) {
	if err := errors.Join(notPipe(certFile), notPipe(keyFile)); err != nil {
		return cert, err
	}
	return tls.LoadX509KeyPair(certFile, keyFile)
}

func certificates(file string) (*x509.CertPool, error) {
	if err := notPipe(file); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: there is no PEM certificate in it", file)
	}
	return pool, nil
}

// readToken returns the hash of a file's token. Two hashes are compared in a time that says nothing, also of the length.
func readToken(file string) (*[sha256.Size]byte, error) {
	token, err := Token(file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(token))
	return &sum, nil
}

// Token reads a token's file, which must be its owner's alone.
func Token(file string) (string, error) {
	if err := notPipe(file); err != nil {
		return "", fmt.Errorf("admin: --token-file %w", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("admin: --token-file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("admin: --token-file: %w", err)
	}
	if info.IsDir() {
		return "", fmt.Errorf("admin: --token-file %s: it is no regular file", file)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("admin: --token-file %s: others may use it (mode %04o); chmod 600 %s", file, mode, file)
	}
	b := make([]byte, tokenBytesMax+1)
	n, _ := f.Read(b) // nothing read is too short
	token := bytes.TrimSpace(b[:n])
	if n > tokenBytesMax || len(token) < tokenBytesMin || bytes.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("admin: --token-file %s: want one line with a token of %d characters or more, without spaces, such as 'openssl rand -hex 32' gives", file, tokenBytesMin)
	}
	return string(token), nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// PathError says why a socket cannot be where it was asked for.
type PathError struct {
	Path string
	Why  string
	Err  error
}

func (e *PathError) Unwrap() error { return e.Err }
func (e *PathError) Error() string { return fmt.Sprintf("admin: socket %s: %s", e.Path, e.Why) }

// CheckSocket says what keeps a socket from being at a path, as far as that shows before it is made; nothing is made.
func CheckSocket(path string) error {
	if len(path) > socketPathMax {
		return &PathError{Path: path, Why: fmt.Sprintf("a socket's path has at most %d bytes; choose a shorter one", socketPathMax)}
	}
	if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir, err := ownDirectory(path)
	if err != nil {
		return err
	}
	return dir.Close()
}

// errLocked says that another is about to take a path.
var errLocked = errors.New("another process is about to take it")

// listenUnix takes a socket, which only its owner can use. One that nobody answers is replaced. With syscall.LOCK_NB one that another is about
// to take is an errLocked, with 0 that is waited for.
func listenUnix(path string, wait int) (*net.UnixListener, error) {
	if err := CheckSocket(path); err != nil {
		return nil, err
	}
	dir, err := ownDirectory(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// Of two processes that find the same dead socket, the second must not remove what the first has put there.
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|wait); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, &PathError{Path: path, Why: "its directory cannot be locked: " + err.Error(), Err: err}
	}
	if err := removeDead(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, &PathError{Path: path, Why: err.Error(), Err: err}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(&PathError{Path: path, Why: err.Error(), Err: err}, l.Close())
	}
	return l, nil
}

// ownDirectory makes the socket's directory, or checks that it is ours and that nobody else has access to it, and opens it.
func ownDirectory(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &PathError{Path: path, Why: err.Error(), Err: err}
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, &PathError{Path: path, Why: err.Error(), Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(&PathError{Path: path, Why: err.Error(), Err: err}, f.Close())
	}
	why := ""
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		why = fmt.Sprintf("others may enter its directory (mode %04o); it must be 0700: chmod 700 %s, or choose another", mode, dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		why = fmt.Sprintf("its directory %s belongs to another user (uid %d); choose one of your own", dir, st.Uid)
	}
	if why != "" {
		return nil, errors.Join(&PathError{Path: path, Why: why}, f.Close())
	}
	return f, nil
}

// removeDead removes a socket that a process left behind when it was killed: one that refuses connections. One that does
// not answer for another reason may be of a process that is busy, or that somebody has stopped.
func removeDead(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return &PathError{Path: path, Why: "there is a file of that name, which is no socket"}
	}
	c, err := net.DialTimeout("unix", path, dialTimeoutMax)
	if err == nil {
		_ = c.Close()
		return &PathError{Path: path, Why: "another process answers there"}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return &PathError{Path: path, Why: "another process may have it: " + err.Error(), Err: err}
	}
	if err := os.Remove(path); err != nil {
		return &PathError{Path: path, Why: err.Error(), Err: err}
	}
	return nil
}
