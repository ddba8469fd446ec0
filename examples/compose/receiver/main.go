// Command receiver prints each webhook that it gets, and answers 200.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	address := ":8080"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	server := &http.Server{Addr: address, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return
		}
		fmt.Printf("%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339), r.URL.Path, r.Header.Get("webhook-id"), body)
	})}
	log.Fatal(server.ListenAndServe())
}
