// SPDX-License-Identifier: Apache-2.0

// A web server that knows nothing of tenured but the environment: its sockets are descriptors 3 and
// up (LISTEN_FDS). On TERM it answers what it has and ends. Build it: go build -o go-worker go.go
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID")); pid != os.Getpid() {
		log.Fatal("no sockets were passed to this process")
	}
	generation := os.Getenv("TENURE_GENERATION")
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Tenure-Generation", generation)
		fmt.Fprintf(w, "hello from generation %s\n", generation)
	})}
	for fd := 3; fd < 3+n; fd++ {
		file := os.NewFile(uintptr(fd), "listener")
		listener, err := net.FileListener(file)
		if err != nil {
			log.Fatal(err)
		}
		file.Close()
		go server.Serve(listener)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	server.Shutdown(context.Background())
}
