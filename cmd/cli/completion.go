package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionMax is how long a shell waits for names: what is not known by then is not offered, and nothing is said of it.
const completionMax = 300 * time.Millisecond

func (a *app) completion() *cobra.Command {
	return a.command(cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the script that makes a shell complete commands and flags",
		Long: `Completion prints a script for a shell, which from then on completes commands, flags and their values, and the names of jobs,
topics and contexts. Names are asked of the process that runs on the data directory, or of --socket or --context; where none
answers within 300 ms, none are offered.

  bash:  source <(sidestream completion bash)                            in ~/.bashrc
  zsh:   source <(sidestream completion zsh)                             in ~/.zshrc, behind compinit
  fish:  sidestream completion fish | source                             in ~/.config/fish/config.fish`,
		Example: `  sidestream completion bash
  sidestream completion zsh
  sidestream completion fish`,
		Args:      oneOf("a shell", "bash", "zsh", "fish", "powershell"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
	}, func(cmd *cobra.Command, args []string) error {
		switch root := cmd.Root(); args[0] {
		case "bash":
			return root.GenBashCompletionV2(a.stdout, true)
		case "zsh":
			return root.GenZshCompletion(a.stdout)
		case "fish":
			return root.GenFishCompletion(a.stdout, true)
		default:
			return root.GenPowerShellCompletionWithDesc(a.stdout)
		}
	})
}

// finder finds names that a command could be given, each with what is said of it behind a tab. An error finds none.
type finder func(ctx context.Context, a *app, cmd *cobra.Command) ([]string, error)

// completeWith completes the first n arguments of a command by what find finds. Of those there, none is offered again.
func (a *app) completeWith(find finder, n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(a.found(cmd, find), func(s string) bool {
			name, _, _ := strings.Cut(s, "\t")
			return !strings.HasPrefix(s, begun) || slices.Contains(args, name)
		}), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes a flag by what find finds.
func completeFlag(cmd *cobra.Command, flag string, a *app, find finder) {
	must(cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return slices.DeleteFunc(a.found(cmd, find), func(s string) bool { return !strings.HasPrefix(s, begun) }), cobra.ShellCompDirectiveNoFileComp
	}))
}

// found runs find for so long as a shell waits. What has not returned by then, such as a disk, is left behind: the process
// ends with its answer.
func (a *app) found(cmd *cobra.Command, find finder) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completionMax)
	defer cancel()
	names := make(chan []string, 1)
	go func() {
		found := []string(nil)
		defer func() {
			_ = recover() // a shell is no place for a stack
			names <- found
		}()
		if a.fill(cmd) != nil {
			return
		}
		if got, err := find(ctx, a, cmd); err == nil {
			found = got
		}
	}()
	select {
	case found := <-names:
		return found
	case <-ctx.Done():
		return nil
	}
}

// topicNames are the topics of the process or the directory.
func topicNames(ctx context.Context, a *app, cmd *cobra.Command) ([]string, error) {
	src, err := a.topicsOf(ctx, cmd)
	if err != nil {
		return nil, err
	}
	ts, err := src.Topics(ctx)
	var names []string
	for _, t := range ts {
		if !t.Hidden {
			names = append(names, fmt.Sprintf("%s\t%d %s", t.Name, len(t.Partitions), plural(len(t.Partitions), "partition", "partitions")))
		}
	}
	return names, err
}

// contextNames are the contexts of the settings files.
func contextNames(_ context.Context, a *app, _ *cobra.Command) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(a.contexts)) {
		names = append(names, name+"\t"+a.contexts[name].String())
	}
	return names, nil
}

// definitionFiles completes the names of files that may define jobs.
func definitionFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}
