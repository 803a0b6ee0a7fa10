// An orchestrator's part in Go, with its standard library: go run restore.go SOCKET STATE.json MIGRATION
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
)

type object = map[string]any

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	connection := must(net.Dial("unix", os.Args[1]))
	replies := bufio.NewReader(connection)
	// Each message is JSON and a NUL byte. Replies come in the order of the calls.
	call := func(method string, parameters object) (result object) {
		message := must(json.Marshal(object{"method": "io.vdpad.Daemon." + method, "parameters": parameters}))
		must(connection.Write(append(message, 0)))
		var reply struct {
			Error      string
			Parameters object
		}
		message = must(replies.ReadBytes(0))
		must(0, json.Unmarshal(message[:len(message)-1], &reply))
		if reply.Error != "" {
			panic(fmt.Sprint(reply.Error, ": ", reply.Parameters["message"]))
		}
		return reply.Parameters
	}

	state, target := json.RawMessage(must(os.ReadFile(os.Args[2]))), object{"kind": "software", "name": "sim0"}
	migration := os.Args[3]
	fmt.Println("compatible:", call("Check", object{"state": state, "target": target})["compatible"])
	prepared := call("Prepare", object{"migration": migration, "state": state, "target": target})
	fmt.Println("prepared:", prepared["operation"].(object)["state"])
	fmt.Println("committed:", call("Commit", object{"migration": migration})["outcome"])
	fmt.Println("status:", call("Status", object{"migration": migration})["operation"].(object)["state"])
}
