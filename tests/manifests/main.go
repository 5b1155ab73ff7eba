// Reads deployment files as the programs do that they are for, and prints them as JSON. Unknown keys
// and values of a wrong type are errors.
//
//	manifests compose FILE    a Compose file, with the library of Docker Compose
//	manifests kubernetes      objects of Kubernetes on standard input, with the library of its clients
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

func main() {
	read := map[string]func() (any, error){"compose": compose, "kubernetes": kubernetes}
	document, err := read[os.Args[1]]()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(document)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compose() (any, error) {
	options, err := cli.NewProjectOptions([]string{os.Args[2]})
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}

func kubernetes() (any, error) {
	codecs := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict)
	documents := utilyaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	objects := []any{}
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		var plain map[string]any
		if err := yaml.Unmarshal(document, &plain); err != nil || len(plain) == 0 {
			if err != nil {
				return nil, err
			}
			continue
		}
		// The library knows the kinds of Kubernetes alone, not those of the Prometheus Operator.
		_, _, err = codecs.UniversalDeserializer().Decode(document, nil, nil)
		isOther := runtime.IsNotRegisteredError(err) && plain["kind"] == "ServiceMonitor"
		if err != nil && !isOther {
			return nil, fmt.Errorf("%v: %w", plain["kind"], err)
		}
		objects = append(objects, plain)
	}
}
