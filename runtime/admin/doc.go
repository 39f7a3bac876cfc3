// Package admin lets the outside look at a running [runtime.Runtime] and change it: HTTP and JSON under /v1 over a unix
// socket and TCP, probes, metrics for Prometheus, and the client of all of it.
//
//	s, err := admin.New(admin.Config{})
//	s.Attach(rt)                                 // may come later: until then it says that the process starts
//	err = s.ListenUnix("data/run/admin.sock")    // 0600, in a directory of its owner alone
//	l, err := admin.TCP{Addr: "127.0.0.1:9600"}.Listen()
//	s.Serve(l)                                   // what shows no records, and changes nothing: nobody logs in
//	s.Started()
//	err = s.Close()                              // returns when no request is under way
//
// An answer is what is durable. What there is says /v1/openapi.json, or [OpenAPI] without a process; it is made from the
// routes themselves. What went wrong is a [Problem]: application/problem+json (RFC 9457), or the last line where lines were
// sent already.
//
// # Who may what
//
// Over the socket everything: only its owner can open it. Over TCP with a login (a bearer token, or a client's certificate)
// everything; without one what shows neither records nor definitions (nor errors, which quote them) and changes nothing, and
// only on a loopback address.
// Where there is a token, everything but the probes asks for it. A request over TCP must call the server by an address or by
// a name in its certificate, else a page in a browser could reach it by a name of its own; requests of pages of other sites
// are refused.
//
// # Plan
//
//	server.go   New, Attach, Serve, Close      listen.go  sockets, TLS, tokens: who may listen where
//	guard.go    what is let through            limits.go  every bound, by name
//	routes.go   routes and their description   probes.go  /livez, /readyz, /metrics
//	records.go  records of a topic; answers that stream
//	hidden.go   what is not said without a login
//	jobs.go     jobs, seen and changed         operations.go  what goes on behind an answer
//	lifecycle.go  pause, stop, savepoints …    events.go   what happens, as SSE; messages about a job
//	problem.go  errors as they are sent        metrics.go  the status as metrics
//	client.go, client_jobs.go  Client
package admin
