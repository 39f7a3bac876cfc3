package runtime

// simTwin breaks one thing.
type simTwin struct {
	name       string
	rules      []string                 // that may be found broken
	loaded     func(rt *Runtime)        // behind recovery
	stepping   func(b *subtask)         // before each step
	commitLog  func(*simLog) processLog // what the committer takes for the log
	sendSealed bool
}

func (t simTwin) committerLog(l *simLog) processLog {
	if t.commitLog != nil {
		return t.commitLog(l)
	}
	return l
}
