// Follows a stream with one of the SSE libraries for Go until its channel ends, and prints every
// message that the library delivers as a line of JSON. Arguments: the library, the URL.
package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"time"

	donovanhide "github.com/donovanhide/eventsource"
	launchdarkly "github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	tmaxmax "github.com/tmaxmax/go-sse"
)

const (
	// Longer than the pause between two heartbeats of the origin.
	silence    = 15 * time.Second
	eventBytes = 2 << 20
)

var output = json.NewEncoder(os.Stdout)

func show(kind, id, data string) {
	switch kind {
	case "":
		check(output.Encode(map[string]string{"id": id, "data": data}))
	case "end":
		os.Exit(0)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func followWithLaunchdarkly(url string) {
	goOn := func(error) launchdarkly.StreamErrorHandlerResult {
		return launchdarkly.StreamErrorHandlerResult{}
	}
	stream, err := launchdarkly.SubscribeWithURL(url,
		launchdarkly.StreamOptionCanRetryFirstConnection(-1),
		launchdarkly.StreamOptionReadTimeout(silence),
		launchdarkly.StreamOptionErrorHandler(goOn))
	check(err)
	for event := range stream.Events {
		show(event.Event(), event.Id(), event.Data())
	}
}

func followWithDonovanhide(url string) {
	stream, err := donovanhide.Subscribe(url, "")
	check(err)
	go func() {
		// The stream stops while an error is not received.
		for range stream.Errors {
		}
	}()
	for event := range stream.Events {
		show(event.Event(), event.Id(), event.Data())
	}
}

func followWithTmaxmax(url string) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	check(err)
	connection := tmaxmax.NewConnection(request)
	connection.Buffer(nil, eventBytes)
	connection.SubscribeToAll(func(event tmaxmax.Event) {
		show(event.Type, event.LastEventID, event.Data)
	})
	check(connection.Connect())
}

func followWithR3labs(url string) {
	client := r3labs.NewClient(url, r3labs.ClientMaxBufferSize(eventBytes))
	retry := 3000
	for {
		client.SubscribeRaw(func(event *r3labs.Event) {
			if ms, err := strconv.Atoi(string(event.Retry)); err == nil {
				retry = ms
			}
			show(string(event.Event), string(event.ID), string(event.Data))
		})
		time.Sleep(time.Duration(retry) * time.Millisecond)
	}
}

func main() {
	map[string]func(string){
		"launchdarkly": followWithLaunchdarkly,
		"donovanhide":  followWithDonovanhide,
		"tmaxmax":      followWithTmaxmax,
		"r3labs":       followWithR3labs,
	}[os.Args[1]](os.Args[2])
}
