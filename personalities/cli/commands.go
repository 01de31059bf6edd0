package cli

import "github.com/urfave/cli/v2"

// commands is every command, in the order of "capsem help". Each verb's file holds its row and what it does.
func (s *session) commands() []*cli.Command {
	return []*cli.Command{
		s.runCommand(), s.shellCommand(), s.createCommand(), s.execCommand(), s.listCommand(), s.infoCommand(),
		s.resumeCommand(), s.suspendCommand(), s.attachCommand(), s.stopCommand(), s.restartCommand(), s.persistCommand(), s.deleteCommand(), s.purgeCommand(),
		s.logsCommand(), s.cpCommand(), s.jobsCommand(), s.forwardCommand(),
		s.forkCommand(), s.imageCommand(), s.checkpointCommand(), s.rewindCommand(),
		s.snapshotsCommand(), s.historyCommand(), s.statsCommand(), s.inspectCommand(), s.verifyCommand(), s.exportCommand(), s.policyCommand(), s.approveCommand(), s.secretCommand(),
		s.modelsCommand(), s.budgetCommand(),
		s.assetsCommand(), s.templatesCommand(),
		s.setupCommand(), s.mcpCommand(), s.serviceCommand(), s.statusCommand(), s.doctorCommand(), s.versionCommand(),
		s.helpCommand(), s.completionsCommand(), s.completeCommand(),
	}
}

// jsonFlag is --json of every command that prints data.
func jsonFlag() *cli.BoolFlag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }
