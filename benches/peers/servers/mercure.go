// The hub of Mercure as its own main package assembles it: Caddy with its standard modules and the
// hub's. `go install` refuses that package, because its module replaces another one.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/dunglas/mercure/caddy"
)

func main() { caddycmd.Main() }
