package vz

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/Code-Hex/vz/v3"
	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
)

// shareTag is the name under which the guest mounts Spec.ShareDir.
const shareTag = "workspace"

// configure makes the framework's description of a machine. There is no network device.
func (m *machine) configure(s hypervisor.Spec) (*vz.VirtualMachineConfiguration, error) {
	kernel, err := pathOf(s.Kernel)
	if err != nil {
		return nil, err
	}
	initrd, err := pathOf(s.Initrd)
	if err != nil {
		return nil, err
	}
	loader, err := vz.NewLinuxBootLoader(kernel, vz.WithInitrd(initrd), vz.WithCommandLine("console=hvc0 "+s.Cmdline+" capsem.carrier=vsock"))
	if err != nil {
		return nil, fmt.Errorf("describe kernel: %w", err)
	}
	config, err := vz.NewVirtualMachineConfiguration(loader, uint(s.CPUs), uint64(s.MemoryMB)<<20)
	if err != nil {
		return nil, fmt.Errorf("describe machine: %w", err)
	}
	for _, step := range []func(*vz.VirtualMachineConfiguration, hypervisor.Spec) error{m.addConsole, addDisks, addDevices, addShare} {
		if err := step(config, s); err != nil {
			return nil, err
		}
	}
	if ok, err := config.Validate(); err != nil || !ok {
		return nil, fmt.Errorf("describe machine: the framework refuses it: %w", err)
	}
	return config, nil
}

// pathOf is the path of an open file now. The framework takes only paths, and opens them when the machine is made: whoever
// can rename files here in between is the user whose machine it is.
func pathOf(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	if _, _, errno := unix.Syscall(unix.SYS_FCNTL, f.Fd(), unix.F_GETPATH, uintptr(unsafe.Pointer(unsafe.SliceData(buf)))); errno != 0 {
		return "", fmt.Errorf("name open file: %w", errno)
	}
	return unix.ByteSliceToString(buf), nil
}

// addConsole connects the guest's console with the log.
func (m *machine) addConsole(config *vz.VirtualMachineConfiguration, s hypervisor.Spec) (err error) {
	if m.console, err = newConsole(s.Console); err != nil {
		return err
	}
	attachment, err := vz.NewFileHandleSerialPortAttachment(m.console.guestIn, m.console.guestOut)
	if err != nil {
		return fmt.Errorf("describe console: %w", err)
	}
	port, err := vz.NewVirtioConsoleDeviceSerialPortConfiguration(attachment)
	if err != nil {
		return fmt.Errorf("describe console: %w", err)
	}
	config.SetSerialPortsVirtualMachineConfiguration([]*vz.VirtioConsoleDeviceSerialPortConfiguration{port})
	return nil
}

func addDisks(config *vz.VirtualMachineConfiguration, s hypervisor.Spec) error {
	var disks []vz.StorageDeviceConfiguration
	for i, d := range s.Disks {
		path, err := pathOf(d.File)
		if err != nil {
			return err
		}
		attachment, err := vz.NewDiskImageStorageDeviceAttachmentWithCacheAndSync(path, d.ReadOnly,
			vz.DiskImageCachingModeAutomatic, vz.DiskImageSynchronizationModeFsync)
		if err != nil {
			return fmt.Errorf("describe disk %d: %w", i, err)
		}
		disk, err := vz.NewVirtioBlockDeviceConfiguration(attachment)
		if err != nil {
			return fmt.Errorf("describe disk %d: %w", i, err)
		}
		if d.Serial != "" {
			if err := disk.SetBlockDeviceIdentifier(d.Serial); err != nil && !errors.Is(err, vz.ErrUnsupportedOSVersion) {
				return fmt.Errorf("describe disk %d: %w", i, err)
			}
		}
		disks = append(disks, disk)
	}
	config.SetStorageDevicesVirtualMachineConfiguration(disks)
	return nil
}

// addDevices adds what every machine has: entropy, the socket device of the link, and a balloon.
func addDevices(config *vz.VirtualMachineConfiguration, _ hypervisor.Spec) error {
	entropy, err := vz.NewVirtioEntropyDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("describe entropy device: %w", err)
	}
	config.SetEntropyDevicesVirtualMachineConfiguration([]*vz.VirtioEntropyDeviceConfiguration{entropy})
	socket, err := vz.NewVirtioSocketDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("describe socket device: %w", err)
	}
	config.SetSocketDevicesVirtualMachineConfiguration([]vz.SocketDeviceConfiguration{socket})
	balloon, err := vz.NewVirtioTraditionalMemoryBalloonDeviceConfiguration()
	if err != nil {
		return fmt.Errorf("describe memory balloon: %w", err)
	}
	config.SetMemoryBalloonDevicesVirtualMachineConfiguration([]vz.MemoryBalloonDeviceConfiguration{balloon})
	return nil
}

func addShare(config *vz.VirtualMachineConfiguration, s hypervisor.Spec) error {
	if s.ShareDir == "" {
		return nil
	}
	dir, err := vz.NewSharedDirectory(s.ShareDir, false)
	if err != nil {
		return fmt.Errorf("describe shared directory: %w", err)
	}
	share, err := vz.NewSingleDirectoryShare(dir)
	if err != nil {
		return fmt.Errorf("describe shared directory: %w", err)
	}
	device, err := vz.NewVirtioFileSystemDeviceConfiguration(shareTag)
	if err != nil {
		return fmt.Errorf("describe shared directory: %w", err)
	}
	device.SetDirectoryShare(share)
	config.SetDirectorySharingDevicesVirtualMachineConfiguration([]vz.DirectorySharingDeviceConfiguration{device})
	return nil
}
