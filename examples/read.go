// Prints the data of each event of a stream, over the ends of segments, faults and restarts, until
// its channels have ended:
//
//	go run examples/read.go 'http://127.0.0.1:8080/channels/greetings?after=0-0'
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// A quiet stream has a comment every five seconds (--heartbeat).
const silenceMax = 15 * time.Second

func main() {
	request, err := http.NewRequest("GET", os.Args[1], nil)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	for retryMs := 3000; ; time.Sleep(time.Duration(retryMs) * time.Millisecond) {
		ctx, cancel := context.WithCancel(context.Background())
		silence := time.AfterFunc(silenceMax, cancel)
		answer, err := http.DefaultClient.Do(request.WithContext(ctx))
		if err != nil || answer.StatusCode >= 500 {
			continue
		} else if answer.StatusCode != 200 {
			log.Println(answer.Status) // 204: all channels have ended.
			return
		}
		lines, block := bufio.NewReader(answer.Body), url.Values{}
		for line, err := lines.ReadString('\n'); err == nil; line, err = lines.ReadString('\n') {
			silence.Reset(silenceMax)
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			block.Add(name, strings.TrimPrefix(value, " "))
			if line != "\n" {
				continue // The id of a block that a fault cuts short does not count.
			}
			fmt.Sscan(block.Get("retry"), &retryMs)
			if block.Has("id") {
				request.Header.Set("Last-Event-ID", block.Get("id"))
			}
			if kind := block.Get("event"); kind == "gap" || kind == "end" || kind == "shed" {
				log.Println(kind, block.Get("data"))
			} else if kind != "segment" {
				fmt.Println(strings.Join(block["data"], "\n"))
			}
			block = url.Values{}
		}
		cancel()
	}
}
