// Package tidy holds the tests that keep the house in order: which room may import which, how long a file may be, that
// every room says what it is for. It has no code of its own.
package tidy
