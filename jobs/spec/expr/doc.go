// Package expr is the expression language of YAML jobs: the syntax of expr-lang/expr, compiled to closures over rows.
//
//	p, problems := expr.Compile(`value.kind == "temperature" && value.reading >= 5`, expr.Scope{Value: expr.Any})
//	f := p.New()                    // for one goroutine
//	ok, err := f.Bool(&expr.Env{Rec: rec, Arena: arena})
//
// Only the parser of expr-lang/expr is used. An expression is checked with all its mistakes at once; types are known as
// far as the definition says them. It has no loops, no variables and no functions with a function as argument, its
// source, depth and list literals are bounded, and so is what it can make of a record: strings to [MaxStringBytes],
// lists to [MaxListLen]. Every construct can be said in SQL.
//
// # Names
//
//	value      the record                         value.a.b, value["a b"], value.list[0]
//	key        its key, behind a key_by
//	time       its event time                     nil if it has none
//	headers    its headers                        headers.name, headers["content-type"]: a string
//	source     where it came from                 source.topic, source.partition, source.offset
//
// A missing field, also one of something that is no object, and an element outside its list are nil. nil equals only
// nil; ordering it, adding it or taking it for a bool is an error of that record. value.x ?? 0 gives it a value.
//
// # Operators, from weak to strong
//
//	c ? a : b     ??     || or     && and     == != < <= > >= in contains startsWith endsWith matches (and: not in, …)
//	+ -     * / %     ! not - +     x[i] x[a:b] x.name x?.name
//
// Integers stay integers and an overflow is an error; / gives a float, and dividing by zero is an error. Numbers compare
// by value (1 == 1.0), a number and a string are never equal. Strings are ordered by their bytes; len and slices count
// characters. matches takes a constant RE2 pattern. x in list, "name" in object.
//
// # Functions
//
// See [Functions]: each says what it takes and how it is said in SQL. Aggregates (count, sum, mean, min, max, distinct)
// stand in a window only: see [CompileAggregate].
package expr
