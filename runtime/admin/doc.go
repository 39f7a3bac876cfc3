// Package admin lets the outside look at a running [runtime.Runtime]: HTTP and JSON over a unix socket, metrics for
// Prometheus, and the client of both.
//
//	s := admin.New(admin.Config{Runtime: rt})
//	err := s.ListenUnix("data/run/admin.sock")   // 0600, in a directory of its owner alone
//	err = s.ListenTCP("127.0.0.1:9600")          // what shows no records
//	err = s.Close()                              // returns when no request is under way
//
// All of it only reads. An answer is what is durable.
//
//	GET /v1/status                                  runtime.Status
//	GET /v1/topics                                  a list of bus.TopicStat
//	GET /v1/records?topic=T&partition=P&last=N      runtime.TopicRecord, one a line; from=OFFSET instead of last;
//	                                                follow=true goes on until the client leaves (unix socket only)
//	GET /metrics                                    for Prometheus
//
// What went wrong is {"error": "…"}, as the last line where lines were sent already.
package admin
