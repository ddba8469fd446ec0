// Command walhook turns row changes of an online-assessment application into webhooks. See its --help.
package main

import "walhook/cmd/walhook/internal/cli"

// version is set at release with -ldflags "-X main.version=1.2.3".
var version string

func main() { cli.Main(version) }
