//go:build !faults

package engine

// pass marks a step of an attempt, for tests that kill the server there.
func pass(string) {}
