// Package killtest ends a program with kill -9 again and again, at random moments, starts it again until it is done, and
// looks at what it has left: the files it wrote and the topics in its log must be those of a run that nobody disturbed.
//
//	killtest.Suite{Command: killtest.Sidestream(t), Variant: killtest.ExactlyOnce, Times: 6, Kills: 20, …}.Run(t)
//
// # Plan
//
//	work.go      where a campaign happens: the six jobs of examples/air over files, their data, what they leave
//	campaign.go  start, kill, start again; suite.go: as often as wanted, with the comparison; broken programs caught by it
//	changes.go   the same while clients change the jobs: changer.go is one of them, changecheck.go what must be left
//	catchup.go   the same while a job that was added late reads the topic store
//	rounds.go    the same while actors ask things over the socket, with a log so short that it is cut all the time: move.go (seek,
//	             detach, purge, retention), update.go (remove with the state kept, updates on probation), again.go (replay, copy);
//	             path.go says what a reader must have given out whose place was changed so
//	repeats.go   what at_least_once may have sent twice, by what the log says after each kill
//	powercut_linux.go, launch_linux.go  a kill that also takes from the disk what was not fsynced: the kernel tells us of each
//	             fsync of the program, so that the real one can be tried, and one whose fsyncs do nothing can be made of it
//
// The tests are in this folder for the real program, and beside runtime for a variant of its committer.
package killtest
