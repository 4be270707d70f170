// Go's clients on a Unix socket: sourcegraph/jsonrpc2 (2.0), and net/rpc/jsonrpc (1.0).
//
//	client 2 SOCKET    what came, as JSON
//	client 1 SOCKET    the error
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/rpc/jsonrpc"
	"os"

	"github.com/sourcegraph/jsonrpc2"
)

type nobody struct{}

func (nobody) Handle(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) {}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func second(connection net.Conn) {
	ctx := context.Background()
	client := jsonrpc2.NewConn(ctx, jsonrpc2.NewBufferedStream(connection, jsonrpc2.PlainObjectCodec{}), nobody{})
	said := map[string]interface{}{}
	var version map[string]interface{}
	check(client.Call(ctx, "system.version", struct{}{}, &version))
	said["version"] = version
	// One after the other: this codec loses what comes in the same piece as the message before.
	for i := 0; i < 40; i++ {
		var list map[string]interface{}
		check(client.Call(ctx, "container.list", []bool{true}, &list))
	}
	err := client.Call(ctx, "container.inspect", map[string]string{"container": "shop"}, nil)
	if refused, ok := err.(*jsonrpc2.Error); ok {
		said["error"] = []interface{}{refused.Code, refused.Message}
	}
	check(client.Notify(ctx, "rpc.ping", nil))
	check(client.Close())
	check(json.NewEncoder(os.Stdout).Encode(said))
}

func main() {
	connection, err := net.Dial("unix", os.Args[2])
	check(err)
	if os.Args[1] == "2" {
		second(connection)
		return
	}
	var version map[string]interface{}
	fmt.Println(jsonrpc.NewClient(connection).Call("system.version", struct{}{}, &version))
}
