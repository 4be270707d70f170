// Calls the calculator over WebSockets: gorilla/websocket and nhooyr.io/websocket, and over TCP with encoding/json.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/gorilla/websocket"
	nhooyr "nhooyr.io/websocket"
	"nhooyr.io/websocket/wsjson"
)

type request struct {
	Version string    `json:"jsonrpc"`
	Method  string    `json:"method"`
	Params  []float64 `json:"params"`
	ID      int       `json:"id"`
}

type answer struct {
	Result float64 `json:"result"`
	ID     int     `json:"id"`
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	call := request{"2.0", "subtract", []float64{42, 23}, 1}
	var got answer

	connection, _, err := websocket.DefaultDialer.Dial(os.Args[1]+"/rpc", nil)
	check(err)
	check(connection.WriteJSON(call))
	check(connection.ReadJSON(&got))
	fmt.Println("gorilla", got.Result)
	check(connection.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "bye")))
	_, _, err = connection.ReadMessage()
	fmt.Println(err)

	other, _, err := nhooyr.Dial(context.Background(), os.Args[1]+"/rpc", &nhooyr.DialOptions{Subprotocols: []string{"cloche-rpc"}})
	check(err)
	check(wsjson.Write(context.Background(), other, call))
	check(wsjson.Read(context.Background(), other, &got))
	fmt.Println("nhooyr", got.Result, other.Subprotocol())
	check(other.Close(nhooyr.StatusNormalClosure, "bye"))

	plain, err := net.Dial("tcp", strings.TrimPrefix(os.Args[2], "tcp://"))
	check(err)
	check(json.NewEncoder(plain).Encode(call))
	check(json.NewDecoder(plain).Decode(&got))
	fmt.Println("json", got.Result)
}
