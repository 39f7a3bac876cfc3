package connector

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs"
)

// MaxSecretBytes is how long a secret may be.
const MaxSecretBytes = 64 << 10

// SecretFile is the content of a file, without the line end behind it.
func SecretFile(path string) jobs.Secret {
	return jobs.NewSecret("${file:"+path+"}", func() (string, error) { return readSecret(path) })
}

// SecretEnv is an environment variable.
func SecretEnv(name string) jobs.Secret {
	return jobs.NewSecret("${env:"+name+"}", func() (string, error) {
		v := os.Getenv(name)
		if v == "" {
			return "", errors.New("the environment has no " + name)
		}
		return v, nil
	})
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSecretBytes+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > MaxSecretBytes:
		return "", fmt.Errorf("%s is longer than a secret may be, %d bytes", path, MaxSecretBytes)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", errors.New(path + " is empty")
	}
	return s, nil
}
