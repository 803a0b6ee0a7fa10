// An orchestrator's part of a move, in Go (1.19 and later), with its standard library:
//
//	go run move.go SOCKET MIGRATION STATE.json TARGET.json COMMITTER [SECONDS]
//
// Checks, prepares for the VMM that will commit, and watches until it has; cancels where it does not
// within so many seconds. README.md has the exit codes. Vdpad, to the line below, is what to copy.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// Refused is an error reply.
type Refused struct {
	Name string          // such as io.vdpad.Daemon.Busy
	Data json.RawMessage // what came with it, with the message
}

func (refused *Refused) Error() string {
	var said struct{ Message string }
	_ = json.Unmarshal(refused.Data, &said)
	return refused.Name + ": " + said.Message
}

// Vdpad is a connection to a daemon. One call at a time.
type Vdpad struct {
	connection net.Conn
	replies    *bufio.Reader
}

// Dial connects to the daemon's stream socket.
func Dial(path string) (*Vdpad, error) {
	connection, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &Vdpad{connection, bufio.NewReader(connection)}, nil
}

// Close ends the connection; what was asked for goes on.
func (vdpad *Vdpad) Close() error { return vdpad.connection.Close() }

// Varlink: each message is JSON and a NUL byte; replies come in the order of the calls.
func (vdpad *Vdpad) send(method string, parameters any, more bool) error {
	message, err := json.Marshal(map[string]any{
		"method": "io.vdpad.Daemon." + method, "parameters": parameters, "more": more,
	})
	if err != nil {
		return err
	}
	_, err = vdpad.connection.Write(append(message, 0))
	return err
}

func (vdpad *Vdpad) receive(result any) error {
	message, err := vdpad.replies.ReadBytes(0)
	if errors.Is(err, io.EOF) {
		return errors.New("the connection ended before the reply")
	}
	if err != nil {
		return err
	}
	var reply struct {
		Error      string
		Parameters json.RawMessage
	}
	if err := json.Unmarshal(message[:len(message)-1], &reply); err != nil {
		return err
	}
	if reply.Error != "" {
		return &Refused{reply.Error, reply.Parameters}
	}
	return json.Unmarshal(reply.Parameters, result)
}

// Call asks for a method of io.vdpad.Daemon; its result is stored in what result points to. The error
// is a *Refused where the daemon's reply is one.
func (vdpad *Vdpad) Call(method string, parameters, result any, timeout time.Duration) error {
	if err := vdpad.connection.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if err := vdpad.send(method, parameters, false); err != nil {
		return err
	}
	return vdpad.receive(result)
}

// Summary is how an operation stands; docs/api.md has more of its fields.
type Summary struct{ Migration, State string }

// Watch tells all operations, and then each that changes, until enough says that it was, or an error.
// The error is os.ErrDeadlineExceeded after the timeout. The connection is this one's alone from then on.
func (vdpad *Vdpad) Watch(timeout time.Duration, enough func(Summary) bool) error {
	if err := vdpad.connection.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if err := vdpad.send("Watch", struct{}{}, true); err != nil {
		return err
	}
	for {
		var change struct{ Operation Summary }
		if err := vdpad.receive(&change); err != nil {
			return err
		}
		if enough(change.Operation) {
			return nil
		}
	}
}

// ---------------------------------------------------------------------------------------------------

type object = map[string]any

const patience = 30 * time.Second

// ends says whether the operation has ended in time.
func ends(path, migration string, timeout time.Duration) (bool, error) {
	vdpad, err := Dial(path)
	if err != nil {
		return false, err
	}
	defer vdpad.Close()
	err = vdpad.Watch(timeout, func(each Summary) bool {
		over := each.State == "restored" || each.State == "failed" || each.State == "cancelled"
		return over && each.Migration == migration
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// outcome is an exit code, with its reason where there is one.
type outcome struct {
	code   int
	reason error
}

func check(vdpad *Vdpad, state, target json.RawMessage) outcome {
	var fits struct {
		Compatible bool
		Problems   []struct{ Path, Message string }
	}
	if err := vdpad.Call("Check", object{"state": state, "target": target}, &fits, patience); err != nil {
		return outcome{1, err}
	}
	for _, each := range fits.Problems {
		fmt.Fprintf(os.Stderr, "%s: %s\n", each.Path, each.Message)
	}
	if !fits.Compatible {
		return outcome{code: 3}
	}
	return outcome{}
}

func prepare(vdpad *Vdpad, wish object) outcome {
	var prepared struct{ Operation struct{ Commands int } }
	if err := vdpad.Call("Prepare", wish, &prepared, patience); err != nil {
		return outcome{1, err}
	}
	fmt.Printf("prepared: %d commands\n", prepared.Operation.Commands)
	return outcome{}
}

type operation struct {
	State  string
	Report *struct {
		Outcome  string
		Rejected []struct{ Command, Arguments string }
	}
}

// told says how the operation has ended.
func told(ended operation) outcome {
	why := "nobody committed"
	if ended.Report != nil {
		why = ended.Report.Outcome
		for _, each := range ended.Report.Rejected {
			fmt.Fprintf(os.Stderr, "refused: %s %s\n", each.Command, each.Arguments)
		}
	}
	fmt.Printf("%s: %s\n", ended.State, why)
	code, known := map[string]int{"restored": 0, "failed": 4, "cancelled": 5}[ended.State]
	if !known {
		code = 1
	}
	return outcome{code: code}
}

// await waits until somebody has committed, and cancels where nobody does in time.
func await(vdpad *Vdpad, path, migration string, timeout time.Duration) outcome {
	over, err := ends(path, migration, timeout)
	if err != nil {
		return outcome{1, err}
	}
	// Whoever commits in the last moment has committed: an operation that has ended stays as it is.
	method := "Cancel"
	if over {
		method = "Status"
	}
	var found struct{ Operation operation }
	if err := vdpad.Call(method, object{"migration": migration}, &found, patience); err != nil {
		return outcome{1, err}
	}
	return told(found.Operation)
}

func move(path, migration string, state, target json.RawMessage, committer uint64, timeout time.Duration) outcome {
	vdpad, err := Dial(path)
	if err != nil {
		return outcome{7, err}
	}
	defer vdpad.Close()
	if refused := check(vdpad, state, target); refused.code != 0 {
		return refused
	}
	wish := object{"migration": migration, "state": state, "target": target, "committer": committer}
	if refused := prepare(vdpad, wish); refused.code != 0 {
		return refused
	}
	return await(vdpad, path, migration, timeout)
}

// numbers are COMMITTER and SECONDS.
func numbers(arguments []string) (committer, seconds uint64, err error) {
	if committer, err = strconv.ParseUint(arguments[0], 10, 32); err != nil || len(arguments) == 1 {
		return committer, 60, err
	}
	seconds, err = strconv.ParseUint(arguments[1], 10, 32)
	return committer, seconds, err
}

func run(arguments []string) outcome {
	if len(arguments) < 5 || len(arguments) > 6 {
		return outcome{2, errors.New("usage: move SOCKET MIGRATION STATE.json TARGET.json COMMITTER [SECONDS]")}
	}
	var read [2]json.RawMessage
	for place, file := range arguments[2:4] {
		text, err := os.ReadFile(file)
		if err != nil {
			return outcome{2, err}
		}
		if !json.Valid(text) {
			return outcome{2, fmt.Errorf("%s: expected JSON", file)}
		}
		read[place] = text
	}
	committer, seconds, err := numbers(arguments[4:])
	if err != nil {
		return outcome{2, err}
	}
	timeout := time.Duration(seconds) * time.Second
	return move(arguments[0], arguments[1], read[0], read[1], committer, timeout)
}

func main() {
	done := run(os.Args[1:])
	if done.reason != nil {
		fmt.Fprintln(os.Stderr, done.reason)
	}
	os.Exit(done.code)
}
