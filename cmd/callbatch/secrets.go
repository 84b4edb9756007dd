package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/callback/signature"
)

// secretFlags are the ways to tell a command what signs webhooks.
type secretFlags struct {
	texts []string
	file  string
}

func (s *secretFlags) register(f *pflag.FlagSet) {
	f.StringArrayVar(&s.texts, "secret", nil, "`secret` that signs (whsec_…), shown to whoever lists processes; may be repeated")
	f.StringVar(&s.file, "secret-file", "", "`file` with the secret, or one a line (default what is in CALLBATCH_SECRET)")
}

// given reports whether a flag names a secret.
func (s *secretFlags) given() bool { return len(s.texts) > 0 || s.file != "" }

// read returns the secrets that were given, as they were written, and where:
// none if there are none. The environment counts only without a flag.
func (s *secretFlags) read(w *world) (texts []string, from string, err error) {
	texts, from = s.texts, "--secret"
	if s.file != "" {
		text, err := readInput(w, s.file, mostSecrets)
		if err != nil {
			return nil, "", fmt.Errorf("--secret-file: %w", err)
		}
		texts, from = append(texts, strings.Fields(string(text))...), s.file
	}
	if !s.given() {
		texts, from = strings.Fields(w.getenv(envPrefix+"SECRET")), envPrefix+"SECRET"
	}
	for _, text := range texts {
		if strings.TrimSpace(text) == "" {
			return nil, "", usagef("--secret is empty: give it a value, or leave it out")
		}
	}
	if s.given() && len(texts) == 0 {
		return nil, "", usagef("%s is empty", s.file)
	}
	return texts, from, nil
}

// mostSecrets bounds a file of secrets, in bytes.
const mostSecrets = 64 << 10

func parseSecrets(texts []string) ([]signature.Secret, error) {
	var secrets []signature.Secret
	for i, text := range texts {
		s, err := signature.ParseSecret(text)
		if err != nil {
			return nil, fmt.Errorf("secret %d of %d: %w", i+1, len(texts), err)
		}
		secrets = append(secrets, s)
	}
	return secrets, nil
}
