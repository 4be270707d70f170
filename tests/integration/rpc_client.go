// A Go program that calls the calculator of contrib/examples through sourcegraph's jsonrpc2.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/sourcegraph/jsonrpc2"
)

type nothing struct{}

func (nothing) Handle(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) {}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	socket, err := net.Dial("unix", os.Args[1])
	check(err)
	stream := jsonrpc2.NewBufferedStream(socket, jsonrpc2.PlainObjectCodec{})
	ctx := context.Background()
	conn := jsonrpc2.NewConn(ctx, stream, nothing{})
	var difference float64
	check(conn.Call(ctx, "subtract", []float64{42, 23}, &difference))
	fmt.Println(difference)
	check(conn.Call(ctx, "subtract", map[string]float64{"subtrahend": 23, "minuend": 42}, &difference,
		jsonrpc2.StringID()))
	fmt.Println(difference)
	check(conn.Notify(ctx, "update", []int{1, 2, 3, 4, 5}))
	var pong struct{}
	check(conn.Call(ctx, "rpc.ping", struct{}{}, &pong))
	err = conn.Call(ctx, "foobar", nil, nil)
	fmt.Println(err.(*jsonrpc2.Error).Code)
	conn.Close()
}
