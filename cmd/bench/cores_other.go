//go:build !linux

package main

// Elsewhere than on Linux nothing is kept to some of the cores, and the application's server shares all of them.

func here(start func() error) error { return start() }

func elsewhere(start func() error) error { return start() }
