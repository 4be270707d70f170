// ttrpc over a Unix socket.
//
//	ttrpc server SOCKET
//	ttrpc sync SOCKET COUNT           one call after the other
//	ttrpc async SOCKET COUNT WIDTH    WIDTH goroutines, each with one call at a time
//
// Prints the seconds that COUNT calls took.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
)

const payload = 128

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "ttrpc:", err)
		os.Exit(1)
	}
}

func echo(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
	var in types.BytesValue
	if err := unmarshal(&in); err != nil {
		return nil, err
	}
	return &in, nil
}

func serve(path string) {
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	check(err)
	server, err := ttrpc.NewServer()
	check(err)
	server.Register("bench", map[string]ttrpc.Method{"Echo": echo})
	check(server.Serve(context.Background(), listener))
}

func call(client *ttrpc.Client, count int) {
	in := types.BytesValue{Value: make([]byte, payload)}
	for ; count > 0; count-- {
		var out types.BytesValue
		check(client.Call(context.Background(), "bench", "Echo", &in, &out))
	}
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: ttrpc server SOCKET | sync SOCKET COUNT | async SOCKET COUNT WIDTH")
		os.Exit(1)
	}
	if os.Args[1] == "server" {
		serve(os.Args[2])
		return
	}
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	width := 1
	if os.Args[1] == "async" {
		width, err = strconv.Atoi(os.Args[4])
		check(err)
	}
	connection, err := net.Dial("unix", os.Args[2])
	check(err)
	client := ttrpc.NewClient(connection)
	start := time.Now()
	var group sync.WaitGroup
	for i := 0; i < width; i++ {
		share := count / width
		if i < count%width {
			share++
		}
		group.Add(1)
		go func() { defer group.Done(); call(client, share) }()
	}
	group.Wait()
	fmt.Printf("%.6f\n", time.Since(start).Seconds())
}
