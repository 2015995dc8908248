package main

import (
	"errors"
	"fmt"
)

// Exit codes, which scripts and service managers rely on.
const (
	exitOK     = 0
	exitFailed = 1 // it failed; trying again may help
	exitUsage  = 2 // the user's input is wrong: a flag, a file, a name
	exitInUse  = 3 // another process has the identity (see lockIdentity) or the state directory
)

// exitError is an error that decides the exit code. A nil err says nothing more on stderr: the command has said it.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError says that the user's input is wrong.
func usageError(err error) error { return &exitError{exitUsage, err} }

// usagef is usageError of fmt.Errorf.
func usagef(format string, args ...any) error { return usageError(fmt.Errorf(format, args...)) }

// exitCode returns the code that err asks for: 0 for nil, 1 for an error that asks for none.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return exitFailed
}
