package cli

import (
	"fmt"
	"strings"

	"capsem/core/config"
	"capsem/core/paths"
)

// settingsHelp is "capsem help settings". What there is to set is core/config's own list.
func (s *session) settingsHelp() error {
	all, err := config.Describe()
	if err != nil {
		return fmt.Errorf("list settings: %w", err)
	}
	home, err := s.home()
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `Settings are TOML, in two files. Neither has to exist:
  yours                 %s
  the machine owner's   %s (overrides yours)

Sizes hold for VMs that are made later, the rest from the next start of a VM, or of the service, on. capsem doctor
says whether the files are well formed.

`, home.UserConfig(), paths.CorpConfig())
	for _, one := range all {
		fmt.Fprintf(&b, "%s = %s\n  %s\n  %s\n", one.Key, one.Default, one.Type, one.Meaning)
	}
	b.WriteString("\nThe values above are the defaults. Sizes count in 1024s. To change one, write its line into your file, such as:\n" +
		"  vm.resources.cpu_count = 4\n")
	return s.print(b.String())
}

// sizesHelp says what a VM gets without flags. It is the settings' word, so help has to look at them.
func (s *session) sizesHelp() string {
	set, err := config.Defaults()
	if home, homeErr := s.home(); homeErr == nil {
		if own, ownErr := config.Load(home); ownErr == nil {
			set, err = own, nil
		}
	}
	if err != nil {
		return ""
	}
	return fmt.Sprintf("Without flags a VM has %d CPUs, %s of RAM and %s of disk: see capsem help settings. SIZE counts in 1024s (1G is 1024M);\n"+
		"its units are M, G and T.\n", set.VM.CPUs, gigabytes(set.VM.RAMMB), gigabytes(set.VM.DiskMB))
}
