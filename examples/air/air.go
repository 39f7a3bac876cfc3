// Package air carries the example's files, so that a program can run it without them beside it. The jobs are YAML, in
// jobs (over Kafka) and files (over files); data has a sample of real readings. See data/ATTRIBUTION.md.
package air

import "embed"

// Files is this folder: jobs/*.yaml with their cases, files/*.yaml, data/readings.jsonl.gz and what to say of its origin.
//
//go:embed jobs/*.yaml files/*.yaml data
var Files embed.FS
