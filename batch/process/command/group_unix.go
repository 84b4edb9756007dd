//go:build unix && !linux

package command

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup has a process lead a group of its own, so that all it starts can
// be ended with it.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitExit waits until a process has ended.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() } // the state says it all

// unread does not know what a pipe holds: every item counts as seen.
func unread(*os.File) int { return 0 }
