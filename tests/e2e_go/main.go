// Holds the reader of proto/README.md to the test vectors: `go run . token_records.json`, after the reader was
// put beside this file (tests/e2e_go/__main__.py). One line for each vector that it gets wrong.
package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

type blocks struct {
	Scheme string `json:"scheme"`
	Size   uint32 `json:"block_size"`
	Hashes string `json:"hashes"`
}

// What a record means, in the words of the vectors.
type meaning struct {
	Model  string   `json:"model"`
	Digest string   `json:"tokenizer_digest"`
	Ids    []uint32 `json:"token_ids"`
	Kind   string   `json:"kind"`
	Exact  bool     `json:"engine_exact"`
	Reason string   `json:"reason"`
	Blocks *blocks  `json:"block_hashes"`
}

type vector struct {
	Name     string          `json:"name"`
	Record   json.RawMessage `json:"record"`
	Expected *meaning        `json:"expected"`
}

// Reads as a filter would: the record stands in a Struct, whose numbers are doubles.
func read(record json.RawMessage) (*meaning, error) {
	value := new(structpb.Value)
	if err := protojson.Unmarshal(record, value); err != nil {
		return nil, err
	}
	found := recordOf(map[string]*structpb.Struct{
		"tokenext": {Fields: map[string]*structpb.Value{"record": value}},
	})
	if found == nil {
		return nil, nil
	}
	ids := make([]uint32, len(found.TokenIds)/4)
	for i := range ids {
		ids[i] = binary.LittleEndian.Uint32(found.TokenIds[4*i:])
	}
	meant := &meaning{
		found.Model, found.TokenizerDigest, ids, found.Kind.String(), found.EngineExact, found.Reason, nil,
	}
	if hashes := found.BlockHashes; hashes != nil {
		meant.Blocks = &blocks{hashes.Scheme, hashes.BlockSize, hex.EncodeToString(hashes.Hashes)}
	}
	return meant, nil
}

func main() {
	var vectors struct{ Readable, Refused []vector }
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = json.Unmarshal(text, &vectors)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	wrong := 0
	if recordOf(nil) != nil || recordOf(map[string]*structpb.Struct{"tokenext": {}}) != nil {
		fmt.Println("no record: is read as one")
		wrong++
	}
	for _, each := range append(vectors.Readable, vectors.Refused...) {
		meant, err := read(each.Record)
		if err != nil || !reflect.DeepEqual(meant, each.Expected) {
			fmt.Println(each.Name, "is not read as it should be:", meant, err)
			wrong++
		}
	}
	fmt.Printf("%d records read, %d refused, %d wrong\n", len(vectors.Readable), len(vectors.Refused), wrong)
	if wrong > 0 || len(vectors.Readable) == 0 || len(vectors.Refused) == 0 {
		os.Exit(1)
	}
}
