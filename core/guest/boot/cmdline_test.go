//go:build linux

package boot

import "testing"

func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Cmdline{
		"":                                      {Carrier: Serial},
		"quiet console=ttyS0 root=/dev/vda":     {Carrier: Serial},
		"capsem.rootfs=erofs":                   {RootFS: "erofs", Carrier: Serial},
		"a capsem.rootfs=squashfs\n":            {RootFS: "squashfs", Carrier: Serial},
		"capsem.procs=1 capsem.vsock":           {Carrier: Serial, Vsock: true, Procs: 1},
		"capsem.carrier=vsock xcapsem.rootfs=1": {Carrier: Vsock},
		"capsem.vsock":                          {Carrier: Serial, Vsock: true},
		"capsem.later=word":                     {Carrier: Serial},
	} {
		if got, err := ParseCmdline(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"capsem.rootfs=ext4", "capsem.rootfs=", "capsem.rootfs", "capsem.carrier=tcp", "capsem.carrier=", "capsem.procs=0", "capsem.procs=", "capsem.procs=-1", "capsem.procs=99999999999"} {
		if got, err := ParseCmdline(text); err == nil {
			t.Errorf("%q is taken as %+v", text, got)
		}
	}
}

func TestModulesOfVsockAreLoadedOnlyWhenWanted(t *testing.T) {
	t.Parallel()
	for c, want := range map[Cmdline]bool{{Carrier: Serial}: true, {Carrier: Vsock}: false, {Carrier: Serial, Vsock: true}: false} {
		if c.unwanted("vmw_vsock_virtio_transport.ko") != want || c.unwanted("virtio_blk.ko") {
			t.Errorf("wrong modules for %+v", c)
		}
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add("quiet capsem.rootfs=squashfs capsem.carrier=serial")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCmdline(text)
		if err == nil && (c.Carrier != Serial && c.Carrier != Vsock || c.RootFS != "" && c.RootFS != "squashfs" && c.RootFS != "erofs") {
			t.Errorf("%q gives %+v", text, c)
		}
	})
}
