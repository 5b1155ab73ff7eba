// Publishes each line of the standard input as one event, in order and each exactly once:
//
//	go run examples/publish.go http://127.0.0.1:8080/channels/greetings
//
// A publish without a usable answer is repeated with the same Idempotency-Key, so the origin stores
// the event once. The origin remembers a key for ten minutes (--idempotency-age); the program gives
// up before that.
package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

var client = http.Client{Timeout: 10 * time.Second}

func publish(url, data string) string {
	key, start := rand.Text(), time.Now()
	for wait := 100 * time.Millisecond; time.Since(start) < 9*time.Minute; wait = min(2*wait, 10*time.Second) {
		request, _ := http.NewRequest("POST", url, strings.NewReader(data))
		request.Header.Set("Idempotency-Key", key)
		answer, err := client.Do(request)
		if err == nil {
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			status := answer.StatusCode
			if err == nil && status < 300 {
				return string(body)
			} else if status >= 300 && status < 500 && status != 408 && status != 429 {
				log.Fatal(answer.Status, " ", string(body))
			}
		}
		time.Sleep(wait)
	}
	panic("the origin has not stored the event within nine minutes")
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	for line, _ := lines.ReadString('\n'); line != ""; line, _ = lines.ReadString('\n') {
		fmt.Println(publish(os.Args[1], strings.TrimSuffix(line, "\n")))
	}
}
